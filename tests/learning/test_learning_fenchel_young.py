"""The Fenchel-Young loss: its value, its gradient, stochastic gradients, labels inside the polytope, costs, refusals."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from support import refuses, table

import diffperturb as dp

KEY = jax.random.key(0)
THETA, LABEL, SOFT = jnp.array([1.0, 0.2, -0.7]), jnp.array([0.0, 1.0, 0.0]), jnp.array([0.2, 0.5, 0.3])


def loss_of(solver, noise, epsilon=1.0, method=None, interior=False):
    return dp.FenchelYoungLoss(dp.Perturbed(solver, noise, epsilon, method or dp.Exact()), interior)


@pytest.mark.parametrize("noise", [dp.Gumbel(), dp.CenteredGumbel()], ids=["Gumbel", "CenteredGumbel"])
def test_cross_entropy_is_the_loss_with_gumbel_noise(noise):
    cross_entropy = -jax.nn.log_softmax(THETA)[1]
    assert abs(loss_of(dp.Argmax(), noise)(THETA, LABEL) - cross_entropy) < 1e-6


def test_the_estimate_of_the_cross_entropy():
    cross_entropy = -jax.nn.log_softmax(THETA)[1]
    estimated = loss_of(dp.Argmax(), dp.Gumbel(), 1.0, dp.MonteCarlo(100_000))(THETA, LABEL, key=KEY)
    assert abs(estimated - cross_entropy) < 5 * 2 / 100_000**0.5  # a draw's regret has deviation below 2 here


@jax.jit
def loss_and_gradient(loss, theta, y, key):
    value, slope = jax.value_and_grad(lambda t: loss(t, y, key=key))(theta)
    return value, slope, loss.perturbed(theta, key=key) - y


SOLVERS = {"argmax": dp.Argmax(), "top-k": dp.TopK(2), "ranking": dp.Ranking(), "choice": dp.BinaryChoice()}
NOISES = {
    "normal": (dp.Normal(), 1),
    "gumbel": (dp.Gumbel(), 50),
    "laplace": (dp.Laplace(), 1),
    "logistic": (dp.Logistic(), 50),
}
PAIRS = {f"{s}, {n}": (solver, *noise) for s, solver in SOLVERS.items() for n, noise in NOISES.items()}
SOME = {name: PAIRS[name] for name in ("argmax, normal", "top-k, gumbel", "ranking, laplace", "choice, logistic")}


@table(SOME, PAIRS)
def test_non_negative_with_the_right_gradient(row):
    """The value is never below zero; the gradient is the maximizer of the same draws minus the label."""
    solver, noise, num_samples = row
    loss = loss_of(solver, noise, 0.3, dp.MonteCarlo(num_samples))
    for k in jax.random.split(KEY, 3):
        theta, other = jax.random.normal(k, (2, 4))
        lost, slope, difference = loss_and_gradient(loss, theta, solver(other), k)
        assert lost >= 0
        assert jnp.allclose(slope, difference, atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.25, 1.0, 2.0])
def test_it_falls_along_the_direction_of_the_label(epsilon):
    loss = loss_of(dp.Argmax(), dp.Normal(), epsilon)
    values = jax.vmap(lambda s: loss(jnp.array([s, 0.0]), jnp.array([1.0, 0.0])))(jnp.linspace(-3, 3, 121))
    assert jnp.all(values >= -1e-6) and values[-1] < values[0]


@pytest.mark.parametrize("num_samples", [1, 5])
def test_doubly_stochastic_gradients_are_unbiased(num_samples):
    """A mini-batch of labels and M draws for each (Berthet et al. 2020, eq. 5), against the exact full gradient."""
    operator = dp.Perturbed(dp.Argmax(), dp.Normal(), 0.5, dp.Exact())
    keys = jax.random.split(KEY, 4)
    x, weights = jax.random.normal(keys[0], (60, 2)), jax.random.normal(keys[1], (3, 2))
    labels = jax.vmap(lambda x, z: dp.Argmax()(weights @ x + z))(x, jax.random.normal(keys[2], (60, 3)))
    full = jax.vmap(lambda x, y: jnp.outer(operator(weights @ x) - y, x))(x, labels).mean(axis=0)
    loss = loss_of(dp.Argmax(), dp.Normal(), 0.5, dp.MonteCarlo(num_samples))

    def stochastic_gradient(key, batch=5):
        key_batch, key_noise = jax.random.split(key)
        chosen = jax.random.choice(key_batch, 60, (batch,), replace=False)

        def one(weights, x, y, key):
            return loss(weights @ x, y, key=key)

        def mean(weights):
            each = jax.vmap(one, (None, 0, 0, 0))
            return jnp.mean(each(weights, x[chosen], labels[chosen], jax.random.split(key_noise, batch)))

        return jax.grad(mean)(weights)

    draws = jax.jit(jax.vmap(stochastic_gradient))(jax.random.split(keys[3], 4_000))
    error = draws.std(axis=0) / len(draws) ** 0.5
    assert (jnp.abs(draws.mean(axis=0) - full) / error).max() < 5


def test_soft_labels_with_gumbel_noise_give_the_kullback_leibler_divergence():
    loss = loss_of(dp.Argmax(), dp.Gumbel(), interior=True)
    divergence = jnp.sum(SOFT * (jnp.log(SOFT) - jax.nn.log_softmax(THETA)))
    assert abs(loss(THETA, SOFT) - divergence) < 1e-6
    assert abs(loss(THETA, LABEL) + jax.nn.log_softmax(THETA)[1]) < 1e-6


def test_the_loss_of_a_point_inside_is_a_bregman_divergence():
    with jax.enable_x64(True):
        loss = loss_of(dp.Ranking(), dp.Normal(), 0.7, interior=True)
        omega, theta = dp.Regularizer(loss.perturbed), jnp.array([0.9, 0.1, -0.2, -0.8])
        y, predicted = jnp.array([3.1, 2.4, 2.7, 1.8]), loss.perturbed(theta)
        bregman = 0.7 * (omega(y) - omega(predicted)) - dp.inner(theta, y - predicted)
        at, dual = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))), omega.dual(y)
        lost, (by_theta, by_label) = at(theta, y)
        assert abs(lost - bregman) < 1e-12 and bregman > 0
        assert abs(at(dual, y)[0]) < 1e-12
        assert jnp.allclose(by_theta, predicted - y, atol=1e-14)
        assert jnp.allclose(by_label, dual - theta, atol=1e-12)


def test_points_inside_from_samples():
    """Both parts use the same draws: non-negative, zero at the dual point, with the mean solution minus the label."""
    loss = loss_of(dp.TopK(2), dp.Normal(), 0.5, dp.MonteCarlo(2000), interior=True)
    y = jnp.array([0.7, 0.6, 0.4, 0.3])
    thetas = jax.random.normal(KEY, (20, 4))
    lost = jax.jit(jax.vmap(lambda t: jax.value_and_grad(loss)(t, y, key=KEY)))
    values, slopes = lost(thetas)
    at_dual = lost(dp.Regularizer(loss.perturbed).dual(y, key=KEY)[None])[0]
    assert values.min() > 0 and abs(at_dual[0]) < 1e-6
    assert jnp.allclose(slopes, jax.vmap(lambda t: loss.perturbed(t, key=KEY))(thetas) - y, atol=1e-6)


def test_costs():
    by_score = loss_of(dp.Ranking(), dp.Normal(), 0.7)
    by_cost = loss_of(dp.minimize(dp.Ranking()), dp.Normal(), 0.7)
    theta, y, soft = jnp.array([0.9, 0.1, -0.2]), jnp.array([2.0, 1.0, 3.0]), jnp.array([2.2, 2.0, 1.8])
    lost, slope = jax.value_and_grad(by_cost)(-theta, y)
    assert jnp.allclose(lost, by_score(theta, y)) and jnp.allclose(slope, y - by_score.perturbed(theta), atol=1e-6)
    inside = [replace(loss, interior=True) for loss in (by_cost, by_score)]
    assert jnp.allclose(inside[0](-theta, soft), inside[1](theta, soft), atol=1e-6)


sampled = dp.FenchelYoungLoss(dp.Perturbed(dp.Argmax(), dp.Normal(), 1.0))
REFUSALS = {
    "an index": (lambda: sampled(jnp.zeros(3), jnp.array(1), key=KEY), "jax.nn.one_hot(i, d)"),
    "outside": (
        lambda: sampled(jnp.zeros(3), jnp.array([1.0, 1.0, 0.0]), key=KEY),
        "is not in the polytope of Argmax",
    ),
    "a label of nan": (
        lambda: jax.jit(lambda y: sampled(jnp.zeros(3), y, key=KEY))(jnp.array([jnp.nan, 1.0, 0.0])),
        "is not in the polytope of Argmax",
    ),
    "scores of nan": (
        lambda: jax.jit(lambda t: sampled(t, jnp.array([1.0, 0.0]), key=KEY))(jnp.array([jnp.nan, 0.0])),
        "theta[0] is nan",
    ),
    "not a maximizer": (
        lambda: loss_of(dp.Sorting(), dp.Normal(), 1.0, dp.MonteCarlo())(jnp.zeros(3), jnp.zeros(3), key=KEY),
        "no perturbed regret",
    ),
}


@table(REFUSALS)
def test_refusals(row):
    refuses(*row)
