"""Density ratios against the densities themselves, baselines, and what the estimators refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import refuses, table

import diffperturb as dp
from diffperturb.expectation.derivatives import expectation
from diffperturb.expectation.draws import Draws, covary, event_inner, ratio
from diffperturb.expectation.estimators import Estimator, FixedBaseline

Z = jnp.array([[1.0, 0.5], [-0.2, 0.3], [0.1, -1.0]])
THETA, EPSILON = jnp.array([0.3, -0.1]), jnp.array(0.5)
DRAWS = Draws(THETA, EPSILON, dp.Normal(), Z)
ALONG = Draws(jnp.ones(2), None, None, None)


def density_ratio(theta, epsilon, noise):
    x = jax.lax.stop_gradient(theta + epsilon * Z)
    log_q = jax.vmap(noise.log_prob)((x - theta) / epsilon) - theta.size * jnp.log(epsilon)
    return jnp.exp(log_q - jax.lax.stop_gradient(log_q))


def to_second_order(f):
    """Values, first and second derivatives, the mixed ones in reverse mode as well."""
    derivatives = f, jax.jacobian(f, (0, 1)), jax.hessian(f, (0, 1)), jax.jacrev(jax.jacrev(f, 0), 1)
    return lambda t, e: [d(t, e) for d in derivatives]


@table({"normal": dp.Normal(), "logistic": dp.Logistic()})
def test_the_ratio_has_the_derivatives_of_the_density(row):
    ours = to_second_order(lambda t, e: ratio(Draws(t, e, row, Z)))
    true = to_second_order(lambda t, e: density_ratio(t, e, row))
    found, truth = jax.jit(lambda t, e: (ours(t, e), true(t, e)))(THETA, EPSILON)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(truth), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block", [1, 2, 4])
def test_the_baseline_is_the_mean_of_the_other_blocks(block):
    change, values = jax.random.normal(jax.random.key(0), (8,)), jax.random.normal(jax.random.key(1), (8, 3))
    blocks = np.arange(8) // block
    others = np.stack([np.mean(values[blocks != blocks[m]], axis=0) for m in range(8)])
    truth = np.mean(change[:, None] * (values - others), axis=0)
    np.testing.assert_allclose(covary(change, values, block), truth, rtol=1e-4, atol=1e-6)
    assert jnp.allclose(covary(change, values, 8), jnp.mean(change[:, None] * values, axis=0), atol=1e-6)  # one block


def test_the_inner_product_of_events_is_that_of_their_entries():
    a, b = jax.random.normal(jax.random.key(0), (5, 2, 3)), jax.random.normal(jax.random.key(1), (5, 2, 3))
    np.testing.assert_allclose(
        event_inner(a, b), [jnp.sum(x * y) for x, y in zip(a, b, strict=True)], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(event_inner(a, b[0]), [jnp.sum(x * b[0]) for x in a], rtol=1e-5, atol=1e-6)


def test_every_estimator_keeps_the_contract():
    with pytest.raises(TypeError, match="abstract"):
        Estimator()
    for estimator in (dp.ScoreFunction(), dp.ScoreFunction("zero"), dp.Regression(), FixedBaseline(jnp.ones(2))):
        assert isinstance(estimator, Estimator) and not estimator.needs_solution and estimator.about(Z[0]) is estimator
    about = dp.ScoreFunction("solution").about(jnp.ones(2))
    assert dp.ScoreFunction("solution").needs_solution and isinstance(about, FixedBaseline)
    values = jnp.ones((3, 2))
    for estimator in (about, dp.ScoreFunction()):  # constant results have no derivative where a baseline sees it
        assert jnp.all(estimator.tangent(DRAWS, ALONG, values) == 0)


def laplace(t):
    draws = Draws(t, jnp.array(1.0), dp.Laplace(), jnp.ones((4, 2)))
    return expectation(dp.ScoreFunction(), draws, jnp.ones((4, 2)))


REFUSED = {
    "too few draws": (lambda: dp.Regression().tangent(DRAWS, None, None), "needs at least 4 draws, got 3"),
    "no such baseline": (lambda: dp.ScoreFunction(baseline="mean"), "one of 'leave-one-out', 'solution', 'zero'"),
    "no solution": (
        lambda: dp.ScoreFunction("solution").tangent(DRAWS, DRAWS, jnp.ones(3)),
        "needs the result at y*(theta)",
    ),
    "a kink": (lambda: jax.hessian(laplace)(jnp.zeros(2)), "kink at 0"),
}


@table(REFUSED)
def test_estimators_refuse(row):
    refuses(*row)


def test_what_a_kink_and_few_draws_allow():
    assert jax.jacobian(laplace)(jnp.zeros(2)).shape == (2, 2)  # the first derivative exists
    fallback = dp.Regression(fallback=True).tangent(DRAWS, ALONG, Z)
    assert jnp.all(fallback == dp.ScoreFunction().tangent(DRAWS, ALONG, Z))
