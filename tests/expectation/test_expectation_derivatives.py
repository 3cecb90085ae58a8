"""Derivatives of expectations up to the third order against known functions, one score at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import sized, table

import diffperturb as dp
from diffperturb.expectation.derivatives import expectation, maximum, pathwise, piecewise_linear
from diffperturb.expectation.draws import Draws

DRAWS = sized(160_000, 1_000_000)
Z = jax.random.normal(jax.random.key(0), (DRAWS, 1))
POINT = jnp.array(0.4), jnp.array(0.8)
ORDERS = {
    "value": lambda f: f,
    "d/dtheta": jax.grad,
    "d/deps": lambda f: jax.grad(f, 1),
    "d2/dtheta2": lambda f: jax.grad(jax.grad(f)),
    "d2/dtheta deps": lambda f: jax.grad(jax.grad(f), 1),
    "d2/deps2": lambda f: jax.grad(jax.grad(f, 1), 1),
    "d3/dtheta3": lambda f: jax.grad(jax.grad(jax.grad(f))),
}
SPREAD = dict(zip(ORDERS, (0.5, 1, 2, 3, 5, 8, 9), strict=True))  # upper bounds of one draw's deviation


def phi(theta, epsilon):
    return jax.scipy.stats.norm.cdf(theta / epsilon)


def smooth(t, e):
    """E[max(x, 0)]."""
    return t * jax.scipy.stats.norm.cdf(t / e) + e * jax.scipy.stats.norm.pdf(t / e)


def draws(theta, epsilon, z=Z):
    return Draws(theta[None], epsilon, dp.Normal(), z)


def scores(theta, epsilon):
    return jax.lax.stop_gradient(draws(theta, epsilon).scores)


def positive(estimator):
    return lambda t, e: expectation(estimator, draws(t, e), (scores(t, e)[:, 0] > 0).astype(float))


def hinge(t, e):
    return maximum(dp.ScoreFunction(), draws(t, e), (scores(t, e) > 0).astype(float))


def value_only(t, e):  # the value max(x, 0) of each draw, its gradient not used
    return expectation(dp.ScoreFunction(), draws(t, e), jnp.maximum(scores(t, e)[:, 0], 0))


FIRST_TWO = ("d/dtheta", "d2/dtheta2")
UP_TO_TWO = tuple(name for name in ORDERS if "3" not in name)
KNOWN = {
    "is it positive": (positive(dp.ScoreFunction()), phi, tuple(ORDERS), {}),
    "the maximum": (hinge, smooth, tuple(ORDERS), {}),
    "from values alone": (value_only, smooth, FIRST_TWO, {"d/dtheta": 2, "d2/dtheta2": 5}),
}
MORE = {"is it positive, by regression": (positive(dp.Regression()), phi, UP_TO_TWO, {})}


@table(KNOWN, MORE)
def test_derivatives_are_those_of_the_known_expectation(row):
    estimate, truth, names, spread = row
    all_orders = jax.jit(lambda t, e: [(ORDERS[name](estimate)(t, e), ORDERS[name](truth)(t, e)) for name in names])
    for name, (found, wanted) in zip(names, all_orders(*POINT), strict=True):
        assert abs(found - wanted) < 5 * (SPREAD | spread)[name] / DRAWS**0.5, f"{name}: {found}, true {wanted}"


def test_the_gradient_of_the_maximum_is_the_maximizer_to_the_last_bit():
    assert jax.grad(hinge)(*POINT) == positive(dp.ScoreFunction())(*POINT)


def test_a_function_with_a_known_gradient():
    """E[exp(x)] = exp(theta + eps^2 / 2)."""

    def exponential(theta, epsilon, z):
        d = draws(theta, epsilon, z)
        f = jnp.exp(jax.lax.stop_gradient(d.scores))
        return pathwise(dp.ScoreFunction(), d, f[:, 0], f)

    names = list(ORDERS) if sized(0, 1) else UP_TO_TWO
    truth = lambda t, e: jnp.exp(t + e**2 / 2)
    every = lambda z: [ORDERS[name](exponential)(*POINT, z) for name in names]
    for name, found in zip(names, jax.jit(jax.vmap(every))(Z.reshape(100, -1, 1)), strict=True):
        wanted = ORDERS[name](truth)(*POINT)
        assert abs(np.mean(found) - wanted) < 5 * np.std(found, ddof=1) / 10, f"{name}: {np.mean(found)}, true {wanted}"


def test_a_parameter_of_the_noise_moves_the_density():
    def scaled(sigma):
        noise = dp.Scaled(dp.Normal(), sigma[None])
        d = Draws(POINT[0][None], POINT[1], noise, jax.lax.stop_gradient(sigma) * Z)
        return maximum(dp.ScoreFunction(), d, (jax.lax.stop_gradient(d.scores) > 0).astype(float))

    slope = jax.jit(jax.grad(scaled))(jnp.array(1.5))
    truth = jax.grad(lambda s: smooth(POINT[0], POINT[1] * s))(1.5)
    assert abs(slope - truth) < 5 * 2 / DRAWS**0.5


def test_the_smaller_of_two_scores_in_every_mode():
    """E min = -eps / sqrt(pi) at theta = 0, with second derivative -phi(0) / sqrt(2) along a single score."""

    def smallest(theta, epsilon):
        d = Draws(theta, epsilon, dp.Normal(), jax.random.normal(jax.random.key(0), (500_000, 2)))
        plans = jnp.argmin(jax.lax.stop_gradient(d.scores), axis=1)
        return piecewise_linear(lambda i, x: x[i], d, plans)

    modes = jax.jacfwd, jax.jacrev

    @jax.jit
    def every(t, e):
        first = jax.value_and_grad(smallest, (0, 1))(t, e)
        return first, [outer(inner(smallest))(t, e) for outer in modes for inner in modes]

    (value, slopes), hessians = every(jnp.zeros(2), jnp.array(1.0))
    assert abs(value + jnp.pi**-0.5) < 5e-3 and abs(slopes[1] + jnp.pi**-0.5) < 5e-3
    assert jnp.allclose(slopes[0], 0.5, atol=5e-3)
    h = 1 / (2 * jnp.pi**0.5)
    for hessian in hessians:
        assert jnp.allclose(hessian, h * jnp.array([[-1, 1], [1, -1]]), atol=2e-2)


def test_each_estimator_has_a_smaller_error_than_the_one_before():
    """Squared errors of the Jacobian of 20 expected ranks from 1,024 draws."""
    theta, epsilon = jnp.linspace(-1, 1, 20), jnp.array(0.5)
    pairs = theta[:, None] - theta
    density = jax.scipy.stats.norm.pdf(pairs / 0.5 / 2**0.5) / 2**0.5 / 0.5 * (1 - jnp.eye(20))
    truth = jnp.diag(density.sum(1)) - density
    rank = lambda x: jnp.sum(x[:, None] > x, axis=1).astype(float)

    def jacobian(estimator, key):
        z = jax.random.normal(key, (1024, 20))
        values = jax.vmap(rank)(theta + epsilon * z)
        return jax.jacrev(lambda t: expectation(estimator, Draws(t, epsilon, dp.Normal(), z), values))(theta)

    estimators = dp.ScoreFunction("zero"), dp.ScoreFunction("solution"), dp.ScoreFunction(), dp.Regression()
    each = lambda k: jnp.stack([jacobian(e.about(jnp.arange(20.0)), k) for e in estimators])
    found = jax.jit(lambda keys: jax.lax.map(each, keys))(jax.random.split(jax.random.key(5), sized(16, 32)))
    zero, solution, leave_one_out, regression = jnp.mean(jnp.sum((found - truth) ** 2, axis=(2, 3)), axis=0)
    assert regression < 0.2 * leave_one_out and leave_one_out < solution < zero


@pytest.mark.parametrize("estimator", [dp.ScoreFunction(), dp.Regression()], ids=str)
def test_tangents_of_the_results_pass_through(estimator):
    """E[w 1(x > 0)] has the derivative Phi in w, and from there all further ones."""
    weighted = lambda w, t, e: expectation(estimator, draws(t, e), w * (scores(t, e)[:, 0] > 0).astype(float))
    slope, mixed = jax.jit(lambda w: (jax.grad(weighted)(w, *POINT), jax.grad(jax.grad(weighted), 1)(w, *POINT)))(2.0)
    assert abs(slope - phi(*POINT)) < 5 * 0.5 / DRAWS**0.5
    assert abs(mixed - jax.grad(phi)(*POINT)) < 5 / DRAWS**0.5
