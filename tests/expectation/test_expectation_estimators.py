"""Every estimator on every sampling, noise and solver that it serves, compared with exact forms."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import t as student
from support import ALL

import diffperturb as dp

SOLVERS = {"argmax": dp.Argmax(), "top-k": dp.TopK(2), "ranking": dp.Ranking(), "choice": dp.BinaryChoice()}
NOISES = {"normal": dp.Normal(), "gumbel": dp.Gumbel(), "logistic": dp.Logistic(), "laplace": dp.Laplace()}
SAMPLINGS = (dp.IID(), dp.Antithetic(), dp.Stratified(), dp.Sobol(), dp.Orthogonal(), dp.Orthogonal(antithetic=True))
ESTIMATORS = (dp.ScoreFunction(), dp.ScoreFunction("zero"), dp.ScoreFunction("solution"), dp.Regression())
# Every solver and every noise once; all pairs with DIFFPERTURB_TESTS=all.
PAIRS = [(s, n) for i, s in enumerate(SOLVERS) for j, n in enumerate(NOISES) if ALL or (i + j) % 4 == 0]
COVERED = [
    (s, n) for s in ("argmax", "ranking") for n in ("normal", "laplace") if ALL or (s, n) == ("argmax", "normal")
]
THETA, EPSILON, DRAWS = jnp.array([0.6, 0.1, -0.2, -0.9]), jnp.asarray(0.8), 96


def serving(noise) -> list:
    """The samplings that this noise can have."""
    return [s for s in SAMPLINGS if isinstance(noise, dp.Normal) or not isinstance(s, dp.Orthogonal)]


# One direction that moves the scores and the temperature.
ALONG = (jnp.array([1.0, -0.5, 0.3, 0.2]), jnp.asarray(0.7))


def along(readings):
    """Readings at (theta, epsilon) and their derivatives along one direction."""
    return jax.jvp(readings, (THETA, EPSILON), ALONG)


@pytest.mark.parametrize(("solver", "noise"), PAIRS)
def test_every_estimator_is_unbiased(solver, noise):
    p = dp.Perturbed(SOLVERS[solver], NOISES[noise], EPSILON, dp.Exact())
    exact = lambda theta, epsilon: (replace(p, epsilon=epsilon)(theta), replace(p, epsilon=epsilon).max(theta))
    truth = jax.jit(lambda: along(exact))()
    for sampling in serving(NOISES[noise]):
        method = dp.MonteCarlo(DRAWS, sampling, dp.ScoreFunction("solution"))

        def every(key, method=method):
            def readings(theta, epsilon):
                samples = replace(p, epsilon=epsilon, method=method).samples(theta, key=key)
                return [(replace(samples, jacobian=e).mean, replace(samples, jacobian=e).max) for e in ESTIMATORS]

            values, slopes = along(readings)
            return list(zip(values, slopes, strict=True))

        found = jax.jit(jax.vmap(every))(jax.random.split(jax.random.key(7), 256))
        for estimator, estimates in zip(ESTIMATORS, found, strict=True):
            bias = 2.0 / DRAWS if isinstance(estimator, dp.Regression) else 1e-5  # of order 1/M where it is allowed
            for seen, wanted in zip(jax.tree.leaves(estimates), jax.tree.leaves(truth), strict=True):
                off = np.abs(np.mean(seen, axis=0) - wanted)
                allowed = 5 * np.std(seen, axis=0, ddof=1) / len(seen) ** 0.5 + bias
                assert np.all(off < allowed), f"{sampling}, {estimator}: off by {off}, allowed {allowed}"


@pytest.mark.parametrize(("solver", "noise"), COVERED)
def test_intervals_cover_what_they_claim(solver, noise):
    repetitions, draws = (
        2000,
        640,
    )  # no entry is rare at this temperature: a normal distribution for the error of a share needs that
    operator = dp.Perturbed(SOLVERS[solver], NOISES[noise], 2.0, dp.Exact())
    truth = {"maximizer": operator(THETA), "maximum": operator.max(THETA)}
    keys = jax.random.split(jax.random.key(11), repetitions)
    for sampling in serving(NOISES[noise]):
        p = replace(operator, method=dp.MonteCarlo(draws, sampling))
        both = jax.jit(jax.vmap(lambda k, p=p: {what: p.measure(THETA, what, key=k) for what in truth}))
        quantile = student.ppf(0.975, draws // sampling.block_size(draws, THETA.shape) - 1)
        for what, m in both(keys).items():
            covered = np.mean(np.abs(m.value - truth[what]) <= quantile * m.std_error, axis=0)
            assert np.all((covered > 0.93) & (covered < 0.97)), f"{sampling}, {what}: {covered}"


def test_the_derivative_in_epsilon_counts_the_change_of_volume():
    """True -0.2197; an estimator that forgets the -d of the density's derivative finds -0.70, or +1.30."""
    first = lambda e, k: dp.Perturbed(dp.Argmax(), dp.Normal(), e)(jnp.array([1.0, 0.0]), key=k)[0]
    slopes = jax.jit(jax.vmap(jax.grad(first), (None, 0)))(1.0, jax.random.split(jax.random.key(0), 256))
    truth = -np.exp(-0.25) / (2 * np.sqrt(np.pi))
    assert abs(np.mean(slopes) - truth) < 5 * np.std(slopes) / 16 and abs(truth + 0.2197) < 1e-4


@pytest.mark.parametrize("outer", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("inner", [jax.jacfwd, jax.jacrev])
def test_the_second_derivative_of_the_maximizer_is_no_silent_zero(outer, inner):
    p = dp.Perturbed(dp.Argmax(), dp.Normal(), 1.0)
    second = jax.jit(jax.vmap(lambda k: outer(inner(lambda t: p(t, key=k)))(THETA)))
    found = second(jax.random.split(jax.random.key(1), 256))
    truth = jax.hessian(replace(p, method=dp.Exact()))(THETA)
    assert np.max(np.abs(truth)) > 0.05
    assert np.all(np.abs(np.mean(found, axis=0) - truth) < 5 * np.std(found, axis=0) / 16 + 1e-4)
