"""Estimates from solutions: closed forms, what is not identified, normality, coverage, wrong and sampled models."""

from functools import cache

import jax
import jax.numpy as jnp
from support import refuses, table

import diffperturb as dp

KEY = jax.random.key(0)
THETA = jnp.array([0.8, 0.3, -0.2, -0.9])
CENTERED = THETA - THETA.mean()
CHOICE = dp.Perturbed(dp.Argmax(), dp.Gumbel(), 0.8, dp.Exact())
RANKS = dp.Perturbed(dp.Ranking(), dp.Normal(), 1.0, dp.Exact())
FIRST_TWO = jnp.array([1, -1, 0, 0])
estimate = jax.jit(dp.estimate)


def observe(perturbed, theta, key, n):
    """n solutions of the perturbed model."""
    model = dp.Perturbed(perturbed.solver, perturbed.noise, perturbed.epsilon, dp.MonteCarlo(n))
    return model.samples(theta, key=key).solutions


@cache
def choices():
    data = observe(CHOICE, THETA, KEY, 500)
    return data, estimate(CHOICE, data)


def test_the_multinomial_logit():
    data, fit = choices()
    share = data.mean(axis=0)
    assert jnp.allclose(fit.theta, 0.8 * (jnp.log(share) - jnp.log(share).mean()), atol=1e-5)
    difference, error = fit.contrast(FIRST_TWO)
    assert abs(difference - 0.8 * jnp.log(share[0] / share[1])) < 1e-5
    assert abs(error / (0.8 * jnp.sqrt((1 / share[0] + 1 / share[1]) / 500)) - 1) < 2e-3  # covariance divides by n - 1


def test_what_the_data_do_not_determine():
    """The unit of the scores, and a constant that is added to all of them."""
    data, fit = choices()
    doubled = dp.Perturbed(dp.Argmax(), dp.Gumbel(), 1.6, dp.Exact())
    assert jnp.all(observe(doubled, 2 * THETA, KEY, 500) == data)
    assert jnp.allclose(CHOICE(THETA), CHOICE(THETA + 3), atol=1e-6)
    again = estimate(doubled, data)
    assert jnp.allclose(again.theta, 2 * fit.theta, rtol=1e-5)
    assert jnp.allclose(again.std_error, 2 * fit.std_error, rtol=1e-5)
    assert abs(fit.theta.sum()) < 1e-5
    assert abs(again.contrast(FIRST_TWO)[0] - 2 * fit.contrast(FIRST_TWO)[0]) < 1e-5


def study(model, source, target, repetitions, n=1000):
    """Estimates over many data sets, and how often the intervals hold the target: the sandwich's, and naive ones."""

    def once(key):
        fit = dp.estimate(model, observe(source, THETA, key, n))
        low, high = fit.interval()
        hessian = model.jacobian(fit.theta)
        naive = jnp.sqrt(jnp.diagonal(jnp.linalg.pinv(hessian, rtol=1e-4)) / n)
        return fit.theta, (low < target) & (target < high), abs(fit.theta - target) < 1.96 * naive

    return jax.jit(jax.vmap(once))(jax.random.split(jax.random.key(1), repetitions))


@table({"choice, Gumbel": CHOICE}, {"ranking, normal": RANKS})
def test_asymptotic_normality(row):
    """n times the covariance of the estimates against the sandwich at the truth, and the coverage of the intervals."""
    n, repetitions = 1000, 2000
    thetas, covered, _ = study(row, row, CENTERED, repetitions, n)
    sigma = jnp.cov(observe(row, THETA, jax.random.key(2), 200_000), rowvar=False)
    inverse = jnp.linalg.pinv(row.jacobian(THETA), rtol=1e-4)
    sandwich, measured = inverse @ sigma @ inverse, n * jnp.cov(thetas, rowvar=False)
    size = jnp.diagonal(sandwich)
    error = jnp.sqrt((size[:, None] * size[None] + sandwich**2) / repetitions)  # of a covariance of normal numbers
    assert jnp.max(jnp.abs(measured - sandwich) / error) < 5
    assert jnp.all((covered.mean(axis=0) > 0.93) & (covered.mean(axis=0) < 0.97)), covered.mean(axis=0)


def rankers_of_unequal_noise():
    """Rankers whose noise differs between items, and the scores whose perturbed maximizer is their mean rank."""
    scales = jnp.array([0.2, 0.5, 1.0, 2.5])
    spread = jnp.sqrt(scales[:, None] ** 2 + scales[None] ** 2)
    true_mean = 0.5 + jax.scipy.stats.norm.cdf((THETA[:, None] - THETA[None]) / spread).sum(axis=1)
    return dp.Perturbed(dp.Ranking(), dp.Scaled(dp.Normal(), scales), 1.0), dp.Regularizer(RANKS).dual(true_mean)


def test_the_sandwich_holds_when_the_model_is_wrong():
    source, target = rankers_of_unequal_noise()
    _, covered, naive = study(RANKS, source, target, 2000)
    assert jnp.all((covered.mean(axis=0) > 0.93) & (covered.mean(axis=0) < 0.97)), covered.mean(axis=0)
    assert jnp.any(jnp.abs(naive.mean(axis=0) - 0.95) > 0.03), naive.mean(axis=0)


SAMPLED = dp.Perturbed(dp.Argmax(), dp.Normal(), 1.0, dp.MonteCarlo(2000))


def test_a_model_that_is_only_sampled():
    """With as many draws as observations the variance doubles; intervals that leave that out cover too little."""
    theta, repetitions = jnp.array([0.5, 0.0, -0.5]), 400

    def once(key):
        key_data, key_model = jax.random.split(key)
        y = observe(SAMPLED, theta, key_data, 2000)
        fit = dp.estimate(SAMPLED, y, key=key_model)
        exact = dp.estimate(dp.Perturbed(dp.Argmax(), dp.Normal(), 1.0, dp.Exact()), y)
        with_error, without = (jnp.abs(fit.theta - theta) < 1.96 * e for e in (fit.std_error, exact.std_error))
        return with_error, without, fit.std_error**2 / exact.std_error**2

    with_error, without, inflation = jax.jit(jax.vmap(once))(jax.random.split(KEY, repetitions))
    assert abs(with_error.mean() - 0.95) < 5 * (0.95 * 0.05 / repetitions) ** 0.5
    assert without.mean() < 0.9
    assert abs(inflation.mean() - 2) < 0.1


UNSEEN = jnp.eye(3)[jnp.array([0, 0, 0, 1, 1])]
THREE = dp.Perturbed(dp.Argmax(), dp.Gumbel(), 1.0, dp.Exact())


def test_a_pseudo_observation_of_the_center():
    kept = dp.estimate(THREE, UNSEEN, prior_weight=1.0)
    shares = (5 * UNSEEN.mean(axis=0) + 1 / 3) / 6
    assert jnp.allclose(kept.theta, jnp.log(shares) - jnp.log(shares).mean(), atol=1e-5)


REFUSALS = {
    "an unseen class": (
        lambda: dp.estimate(THREE, UNSEEN),
        "no estimate: the mean of the observations, [0.6 0.4 0. ]",
    ),
    "an unseen class, compiled": (lambda: estimate(THREE, UNSEEN).theta, "or give prior_weight=1"),
    "one observation": (lambda: dp.estimate(THREE, UNSEEN[0]), "expected (n, *event shape) with n >= 2"),
    "nan": (lambda: dp.estimate(THREE, UNSEEN.at[0, 0].set(jnp.nan)), "observations[0, 0] is nan"),
    "negative weight": (lambda: dp.estimate(THREE, UNSEEN, prior_weight=-1.0), "pseudo-observations >= 0"),
    "outside": (lambda: dp.estimate(THREE, 2 * UNSEEN), "is not in the polytope of Argmax"),
    "level in percent": (lambda: choices()[1].interval(95), "between 0 and 1"),
    "no key": (lambda: dp.estimate(SAMPLED, UNSEEN), "needs a key"),
    "one score": (lambda: choices()[1].contrast(jnp.array([1.0, 0, 0, 0])), "the data do not determine"),
    "short contrast": (lambda: choices()[1].contrast(jnp.array([1.0, -1.0])), "has shape (2,), expected (4,)"),
}


@table(REFUSALS)
def test_refusals(row):
    refuses(*row)
