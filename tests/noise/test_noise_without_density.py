"""Noise without a density, scaled noise, and noise from a user's density."""

import jax
import jax.numpy as jnp
import numpy as np
from support import refuses, table

import diffperturb as dp

DRAWN = {
    "sum of gamma, paper": dp.SumOfGamma(k=10, s=10, tau=10.0),
    "sum of gamma, released": dp.SumOfGamma(k=10, s=10, tau=10.0, inverted=True),
    "two points": dp.TwoPoint(),
}


@table(DRAWN)
def test_draws_have_the_stated_mean_and_variance(row):
    z = np.asarray(row.sample(jax.random.key(0), (40_000,)))
    assert abs(z.mean() - row.mean) < 5 * (row.variance / z.size) ** 0.5
    spread = (z - row.mean) ** 2
    assert abs(spread.mean() - row.variance) < 5 * spread.std() / z.size**0.5 + 1e-6


def test_two_points():
    draws = dp.TwoPoint().sample(jax.random.key(0), (10_000,))
    assert jnp.unique(draws).tolist() == [-0.5, 0.5] and abs(jnp.mean(draws)) < 5 * 0.5 / 10_000**0.5


def test_a_users_density_is_the_known_one():
    cauchy = dp.Density(lambda z: -jnp.sum(jnp.log1p(z**2)), jax.random.cauchy, fisher=0.5)
    z = jnp.array([0.5, -2.0])
    assert jnp.allclose(cauchy.score(z), dp.StudentT(1).score(z))
    assert cauchy.information(z).tolist() == [0.25, -1.0] and dp.StudentT(1).fisher == 0.5
    assert cauchy.sample(jax.random.key(0), (3, 2)).shape == (3, 2)


SCALED = {
    "correlated": dp.Correlated(dp.Normal(), jnp.array([[1.0, 0.0], [0.8, 0.6]])),
    "per entry": dp.Scaled(dp.Logistic(), jnp.array([0.5, 2.0])),
}


@table(SCALED)
def test_scaled_noise(row):
    z = jnp.array([0.3, -1.0])
    np.testing.assert_allclose(row.score(z), -jax.grad(row.log_prob)(z), atol=1e-5)
    draws = row.sample(jax.random.key(1), (200_000, 2))
    second = jax.vmap(row.score)(draws)
    np.testing.assert_allclose(second.T @ second / 200_000, jax.vmap(row.information)(jnp.eye(2)), atol=0.05)
    assert row.symmetric and row.smoothness == np.inf


def test_a_factor_gives_the_covariance():
    correlated = SCALED["correlated"]
    draws = correlated.sample(jax.random.key(0), (100_000, 2))
    assert jnp.allclose(jnp.cov(draws.T), correlated.factor @ correlated.factor.T, atol=0.03)


def test_the_mean_is_scaled():
    gumbel = dp.Gumbel().mean
    np.testing.assert_allclose(dp.Scaled(dp.Gumbel(), jnp.array([0.5, 2.0])).mean, [0.5 * gumbel, 2 * gumbel])
    L = jnp.array([[1.0, 0.0], [0.8, 0.6]])
    np.testing.assert_allclose(dp.Correlated(dp.Gumbel(), L).mean, [gumbel, 1.4 * gumbel], rtol=1e-6)


paper = DRAWN["sum of gamma, paper"]
REFUSED = {
    "score": (lambda: paper.score(jnp.ones(2)), "has no usable density"),
    "log_prob": (lambda: paper.log_prob(jnp.ones(2)), "has no usable density"),
    "two points": (lambda: dp.TwoPoint().score(jnp.ones(2)), "no usable density"),
    "k": (lambda: dp.SumOfGamma(k=0), "k is 0.0; expected a finite number above 0"),
    "s": (lambda: dp.SumOfGamma(k=1, s=0), "s is 0, expected at least 1, the number of gammas"),
    "scale": (
        lambda: dp.Scaled(dp.Normal(), jnp.ones(3)).log_prob(jnp.ones(2)),
        "scale has shape (3,), expected (2,)",
    ),
    "information": (
        lambda: dp.Density(jnp.sum, jax.random.normal).information(jnp.ones(2)),
        "states no Fisher information",
    ),
    "sampler": (
        lambda: dp.Density(jnp.sum, lambda key, shape, dtype: jnp.zeros(3)).sample(jax.random.key(0), (2, 3)),
        "the sampler returned shape (3,), expected (2, 3)",
    ),
}


@table(REFUSED)
def test_refused(row):
    call, words = row
    refuses(call, words)
