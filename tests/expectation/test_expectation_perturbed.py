"""The perturbed operator against exact forms: values, derivatives of two orders, temperature, chunks and tolerance."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import ALL, refuses, sized, table

import diffperturb as dp
from diffperturb.exact.forms import form

KEY = jax.random.key(0)
THETA, EPS = jnp.array([0.5, 0.1, -0.4]), jnp.array(0.8)
KEYS = jax.random.split(jax.random.key(1), 64)


def agrees(estimate, truth, keys=KEYS, within=5.0):
    """Mean estimates meet the truth within some standard errors, which 64 repetitions measure; leaf by leaf."""

    def deviation(found, truth):
        se = jnp.std(found, axis=0, ddof=1) / len(keys) ** 0.5
        return jnp.max(jnp.abs(jnp.mean(found, axis=0) - truth) / jnp.maximum(se, 1e-6 * (1 + jnp.abs(truth))))

    deviations = jax.jit(lambda keys: jax.tree.map(deviation, jax.vmap(estimate)(keys), truth))(keys)
    assert max(jax.tree.leaves(deviations)) < within, f"deviations in standard errors: {deviations}"


# --- values ---


def deviation(solver, noise, d, epsilon, key, num_samples=4000):
    """Largest distance of maximizer and maximum from their exact forms, in standard errors.

    Where hardly any draw changes an entry, its measured standard error can be far too small. A whole number whose mean
    is e < 1 away from its usual value has a variance of at least e (1 - e): the floor; and one draw is allowed for.
    """
    theta = jax.random.normal(key, (d,))
    samples = dp.Perturbed(solver, noise, epsilon, dp.MonteCarlo(num_samples)).samples(theta, key=key)
    exact = dp.Perturbed(solver, noise, epsilon, dp.Exact())
    rare = jnp.abs(exact(theta) - solver.solve(theta))
    floor = jnp.sqrt(jnp.maximum(rare * (1 - rare), 0) / num_samples)
    y = jnp.abs(samples.mean - exact(theta)) / (jnp.maximum(samples.std_error, floor) + 1 / num_samples)
    return jnp.maximum(jnp.max(y), jnp.abs(samples.max - exact.max(theta)) / samples.max_std_error)


@table(
    {"argmax, gumbel": (dp.Argmax(), dp.Gumbel(), 2), "ranking, normal": (dp.Ranking(), dp.Normal(), 30)},
    {
        "argmax, gumbel, 30": (dp.Argmax(), dp.Gumbel(), 30),
        "argmax, normal": (dp.Argmax(), dp.Normal(), 2),
        "argmax, normal, 30": (dp.Argmax(), dp.Normal(), 30),
        "ranking, normal, 2": (dp.Ranking(), dp.Normal(), 2),
    },
)
def test_estimates_meet_exact_forms_over_temperatures_and_seeds(row):
    epsilons, seeds = jnp.array([0.03, 0.3, 1.0, 10.0]), jax.random.split(jax.random.key(9), sized(3, 6))
    over_seeds = jax.vmap(lambda e, k: deviation(*row, e, k), (None, 0))
    assert jnp.all(jax.jit(jax.vmap(over_seeds, (0, None)))(epsilons, seeds) < 5)


def test_the_readings_of_one_operator_agree():
    theta = jnp.array([1.0, 0.6, -0.5])
    p = dp.Perturbed(dp.Argmax(), dp.Gumbel(), epsilon=0.5)
    exact, samples = replace(p, method=dp.Exact()), p.samples(theta, key=KEY)
    assert jnp.all(jnp.abs(samples.mean - exact(theta)) < 5 * samples.std_error)
    assert abs(samples.max - exact.max(theta)) < 5 * samples.max_std_error
    assert jnp.all(samples.mean == p(theta, key=KEY)) and samples.max == p.max(theta, key=KEY)
    assert jnp.all(jax.grad(p.max)(theta, key=KEY) == p(theta, key=KEY))
    y = jnp.array([0.0, 1.0, 0.0])
    gap, slope = jax.value_and_grad(p.regret)(theta, y, key=KEY)
    assert jnp.allclose(slope, p(theta, key=KEY) - y, atol=1e-6)
    assert abs(gap - exact.regret(theta, y)) < 5 * samples.max_std_error
    assert samples.regret(y) == gap and abs(gap - exact.regret(theta, y)) < 5 * samples.regret_std_error(y)


def test_the_exact_operator_is_the_softmax():
    t, e = jnp.array([0.3, -0.2, 1.1]), 0.7
    gumbel = dp.Perturbed(dp.Argmax(), dp.Gumbel(), e, dp.Exact())
    assert jnp.allclose(gumbel(t), jax.nn.softmax(t / e))
    assert jnp.allclose(gumbel.max(t), e * jax.nn.logsumexp(t / e) + e * 0.5772157)


# --- costs ---


def test_costs_are_scores_with_the_other_sign():
    theta, y = jnp.array([1.0, 0.6, -0.5]), jnp.array([0.0, 1.0, 0.0])
    exact = dp.Perturbed(dp.Argmax(), dp.Gumbel(), 0.5, dp.Exact())
    cheapest, costs = replace(exact, solver=dp.minimize(dp.Argmax())), -theta
    assert jnp.allclose(cheapest(costs), exact(theta)) and jnp.allclose(cheapest.min(costs), -exact.max(theta))
    assert jnp.allclose(jax.grad(cheapest.min)(costs), cheapest(costs))  # as a maximum has its maximizer for gradient
    assert jnp.allclose(cheapest.jacobian(costs), -exact.jacobian(theta))
    assert jnp.allclose(cheapest.regret(costs, y), exact.regret(theta, y))
    drawn = replace(cheapest, method=dp.MonteCarlo(500))
    assert jnp.all(drawn(costs, key=KEY) == replace(exact, method=dp.MonteCarlo(500))(theta, key=KEY))
    lowest = drawn.measure(costs, "minimum", key=KEY)
    assert lowest.value == drawn.min(costs, key=KEY) and abs(lowest.value - cheapest.min(costs)) < 5 * lowest.std_error


# --- samples ---


def test_the_distribution_sits_on_the_corners():
    square = dp.Vertices(jnp.array([[1.0, 1], [-1, 1], [-1, -1], [1, -1]]))
    samples = dp.Perturbed(square, dp.Normal(), 1.0).samples(jnp.array([0.8, 0.3]), key=KEY)
    corners, shares = samples.distinct()
    assert jnp.allclose(shares @ corners, samples.mean, atol=1e-6)
    assert jnp.isclose(samples.probability(corners[0]), shares[0])
    assert jnp.isclose(samples.expect(lambda y: jnp.sqrt(dp.inner(y, y))), jnp.sqrt(2.0))
    deviations = samples.solutions - samples.solutions.mean(axis=0)
    assert jnp.allclose(samples.covariance, deviations.T @ deviations / 999 / 1000, atol=1e-7)


def test_the_derivative_of_a_probability():
    """Under normal noise the first of two scores (t, 0) wins with probability Phi(t / sqrt 2)."""
    draws = 200_000

    def wins(t):
        samples = dp.Perturbed(dp.Argmax(), dp.Normal(), 1.0, dp.MonteCarlo(draws)).samples(
            jnp.array([t, 0.0]), key=KEY
        )
        return samples.expect(lambda y: y[0])

    truth = jax.grad(lambda t: jax.scipy.special.ndtr(t / jnp.sqrt(2.0)))(1.0)
    assert abs(jax.jit(jax.grad(wins))(1.0) - truth) < 5 * 0.5 / draws**0.5


# --- derivatives ---


def derivatives(solver, noise, method, t, e, k):
    """Everything that must be right, by automatic differentiation of the operator."""
    y = lambda t, e: dp.Perturbed(solver, noise, e, method)(t, key=k)
    F = lambda t, e: dp.Perturbed(solver, noise, e, method).max(t, key=k)
    return {
        "y": y(t, e),
        "F": F(t, e),
        "J, forward": jax.jacfwd(y)(t, e),
        "J, reverse": jax.jacrev(y)(t, e),
        "dy/deps": jax.jacrev(y, 1)(t, e),
        "d2y/dtheta2": jax.jacfwd(jax.jacrev(y))(t, e),
        "d2y/dtheta deps": jax.jacrev(jax.jacfwd(y, 1))(t, e),
        "dF/deps": jax.grad(F, 1)(t, e),
        "Hessian of F": jax.hessian(F)(t, e),
        "d2F/deps2": jax.grad(jax.grad(F, 1), 1)(t, e),
    }


@table(
    {"argmax, normal": (dp.Argmax(), dp.Normal())},
    {"argmax, logistic": (dp.Argmax(), dp.Logistic()), "ranking, gumbel": (dp.Ranking(), dp.Gumbel())},
)
def test_derivatives_of_two_orders_meet_exact_forms(row):
    exact = jax.jit(lambda t, e: derivatives(*row, dp.Exact(), t, e, None))(THETA, EPS)
    agrees(lambda k: derivatives(*row, dp.MonteCarlo(2000), THETA, EPS, k), exact)


def test_the_derivative_in_the_temperature_is_a_known_number():
    first = lambda e, k, method: dp.Perturbed(dp.Argmax(), dp.Normal(), e, method)(jnp.array([1.0, 0.0]), key=k)[0]
    slope = jax.grad(first)(1.0, None, dp.Exact())
    assert abs(slope + 0.2197) < 5e-5
    agrees(lambda k: jax.grad(first)(1.0, k, dp.MonteCarlo(10_000)), slope)


def test_two_estimates_of_the_derivative_in_the_temperature_agree():
    """y_eps(theta) = y_1(theta / eps), so that it is also -J theta / eps."""
    p = dp.Perturbed(dp.Ranking(), dp.Normal(), 0.8, dp.MonteCarlo(2000))

    def difference(k):
        by_density = jax.jacfwd(lambda e: replace(p, epsilon=e)(THETA, key=k))(EPS)
        return by_density + p.jacobian(THETA, key=k) @ THETA / EPS

    agrees(difference, 0.0)


def test_sorting_is_the_derivative_of_the_maximum_of_ranking():
    p = dp.Perturbed(dp.Sorting(), dp.Normal(), 0.8)
    maximum = lambda v: dp.Perturbed(dp.Ranking(v), dp.Normal(), 0.8).max(THETA, key=KEY)
    by_rank = jax.grad(maximum)(jnp.array([1.0, 2.0, 3.0]))
    assert jnp.allclose(p(THETA, key=KEY), by_rank, atol=1e-6)
    J = p.jacobian(THETA, key=KEY)  # a mean of permutation matrices
    assert jnp.allclose(J.sum(0), 1, atol=1e-5) and jnp.allclose(J.sum(1), 1, atol=1e-5) and jnp.all(J >= 0)


def test_samplings_and_regression_are_unbiased_and_regression_is_better():
    theta, truth = jnp.linspace(-1, 1, 6), form(dp.Ranking(), dp.Normal())
    exact = jax.jit(lambda t: (truth.maximizer(t, EPS), jax.jacobian(truth.maximizer)(t, EPS)))(theta)
    keys, errors = jax.random.split(jax.random.key(2), 64), {}
    pairs = [(dp.IID(), dp.ScoreFunction()), (dp.IID(), dp.Regression())]
    pairs += [(dp.Orthogonal(), dp.ScoreFunction()), (dp.Sobol(), dp.Regression())] if ALL else []
    for sampling, estimator in pairs:
        p = dp.Perturbed(dp.Ranking(), dp.Normal(), EPS, dp.MonteCarlo(960, sampling, estimator))
        found = jax.jit(jax.vmap(lambda k, p=p: (p(theta, key=k), p.jacobian(theta, key=k))))(keys)
        for f, e in zip(found, exact, strict=True):
            se = jnp.std(f, axis=0, ddof=1) / 8
            assert jnp.all(jnp.abs(jnp.mean(f, axis=0) - e) < 5 * se + 1e-5 + 0.02 / 960)
        errors[sampling, estimator] = float(jnp.sqrt(jnp.mean((found[1] - exact[1]) ** 2)))
    base = errors[dp.IID(), dp.ScoreFunction()]
    assert all(error < 0.6 * base for (_, estimator), error in errors.items() if isinstance(estimator, dp.Regression))


# --- JAX ---

CASES = {
    "argmax": (dp.Argmax(), dp.MonteCarlo(64)),
    "sorting, chunks": (dp.Sorting(), dp.MonteCarlo(64, chunk_size=24)),
}
MORE_CASES = {
    "top-k, solution": (dp.TopK(2), dp.MonteCarlo(64, jacobian=dp.ScoreFunction("solution"))),
    "choice, recomputed": (dp.BinaryChoice(), dp.MonteCarlo(64, recompute=True)),
    "ranking, regression": (dp.Ranking(), dp.MonteCarlo(64, dp.Antithetic(), dp.Regression())),
}


@table(CASES, MORE_CASES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64], ids=["float32", "float64"])
def test_batches_gradients_and_precisions_under_strict_promotion(row, dtype):
    solver, method = row
    with jax.enable_x64(dtype == jnp.float64), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        thetas, keys = jax.random.normal(KEY, (5, 4), dtype), jax.random.split(KEY, 5)
        p = dp.Perturbed(solver, dp.Normal(), jnp.asarray(0.5, dtype), method)
        out, J = jax.jit(jax.vmap(jax.value_and_grad(lambda t, k: p(t, key=k)[0])))(thetas, keys)
        assert out.dtype == J.dtype == dtype and J.shape == (5, 4)
        assert jnp.all(jnp.isfinite(J)) and jnp.any(J != 0)


# --- chunks ---


def with_chunks(num_samples=1000, **kw):
    return dp.Perturbed(dp.Ranking(), dp.Normal(), 0.8, dp.MonteCarlo(num_samples, **kw))


@pytest.mark.parametrize("size", [7, 1, 400] if ALL else [7])
def test_chunks_of_any_size_estimate_the_same(size):
    truth = form(dp.Ranking(), dp.Normal())
    exact = jax.jit(lambda t: (truth.maximizer(t, 0.8), truth.maximum(t, 0.8), jax.jacobian(truth.maximizer)(t, 0.8)))
    p = with_chunks(chunk_size=size)
    agrees(lambda k: (p(THETA, key=k), p.max(THETA, key=k), p.jacobian(THETA, key=k)), exact(THETA))


def test_one_chunk_and_recomputation_change_no_bit():
    p = with_chunks()
    assert jnp.all(p(THETA, key=KEY) == with_chunks(chunk_size=5000)(THETA, key=KEY))
    reverse = lambda p: jax.jacrev(lambda t: p(t, key=KEY))(THETA)
    assert jnp.all(reverse(with_chunks(recompute=True)) == reverse(p))


def test_chunks_measure_the_same_standard_error():
    measured, plain = with_chunks(chunk_size=300).measure(THETA, key=KEY), with_chunks().measure(THETA, key=KEY)
    assert measured.num_samples == plain.num_samples == 1000
    assert jnp.allclose(measured.std_error, plain.std_error, rtol=0.2)


# --- tolerance ---

NEAR, FAR = jnp.array([0.1, 0.0, -0.1]), jnp.array([3.0, 0.0, -0.1])
EXACT = dp.Perturbed(dp.Argmax(), dp.Normal(), 1.0, dp.Exact())


def until(tolerance, most=10**6):
    return replace(EXACT, method=dp.MonteCarlo(most, chunk_size=1000, tolerance=tolerance))


def test_draws_stop_at_the_tolerance():
    p = until(0.002)
    near, far = (jax.jit(lambda t: p.measure(t, key=KEY))(t) for t in (NEAR, FAR))
    for m in (near, far):
        assert m.reached and jnp.all(m.std_error <= 0.002) and m.num_samples % 1000 == 0
    assert far.num_samples < near.num_samples
    assert jnp.all(p(NEAR, key=KEY) == p.measure(NEAR, key=KEY).value)  # the call itself stops there too
    assert jnp.all(jnp.abs(near.value - EXACT(NEAR)) < 5 * 0.002)
    highest = p.measure(NEAR, "maximum", key=KEY)
    assert highest.reached and abs(highest.value - EXACT.max(NEAR)) < 5 * 0.002


def test_a_tolerance_out_of_reach_is_reported():
    capped = until(1e-5, 20_500).measure(NEAR, key=KEY)
    assert not capped.reached and capped.num_samples == 20_000 and jnp.max(capped.std_error) > 1e-5


@table({"maximizer": lambda t, k: until(0.01)(t, key=k), "maximum": lambda t, k: until(0.01).max(t, key=k)[None]})
def test_both_modes_stop_at_the_same_draws(row):
    forward, reverse = jax.jit(lambda t, k: (jax.jacfwd(row)(t, k), jax.jacrev(row)(t, k)))(NEAR, KEY)
    assert jnp.allclose(forward, reverse, atol=1e-6) and jnp.any(forward != 0)


@pytest.mark.skipif(not ALL, reason="64 repetitions with a tolerance: DIFFPERTURB_TESTS=all")
def test_derivatives_with_a_tolerance_meet_exact_forms():
    agrees(lambda k: jax.jacrev(lambda t: until(0.01, 20_000)(t, key=k))(NEAR), EXACT.jacobian(NEAR))


def test_a_batch_goes_on_until_all_its_members_are_done():
    measure = jax.jit(jax.vmap(lambda t, k: until(0.005).measure(t, key=k)))
    batch = measure(jnp.stack([NEAR, FAR]), jax.random.split(KEY, 2))
    assert batch.reached.all() and batch.num_samples[0] == batch.num_samples[1]


# --- what is refused ---


def perturbed(method=None, epsilon=0.5, solver=None):
    return dp.Perturbed(solver or dp.Argmax(), dp.Normal(), epsilon, method or dp.MonteCarlo(1000))


def run(f, *args):
    return jax.jit(f)(*args)


P, NAN, INF, TWO = perturbed(), jnp.array([0.0, jnp.nan]), jnp.array([jnp.inf, 0.0]), jnp.zeros(2)
CHEAPEST = dp.Perturbed(dp.minimize(dp.Argmax()), dp.Gumbel(), 0.5, dp.MonteCarlo(500))

NUMBERS = {
    "NaN": (lambda: P(NAN, key=KEY), "theta[1] is nan", ValueError),
    "NaN, jit": (lambda: run(lambda t: P(t, key=KEY), NAN), "theta[1] is nan"),
    "inf in a batch": (
        lambda: run(jax.vmap(lambda t: P.max(t, key=KEY)), jnp.stack([jnp.zeros(2), INF])),
        "[instance 1 of the batch]",
    ),
    "inf, gradient": (lambda: run(jax.grad(lambda t: P.max(t, key=KEY)), INF), "theta[0] is inf"),
    "inf, Jacobian": (lambda: run(jax.jacobian(lambda t: P(t, key=KEY)), INF), "theta[0] is inf"),
    "epsilon 0": (lambda: perturbed(epsilon=0.0), "epsilon is 0.0; it must be a finite number above 0", ValueError),
    "epsilon below 0, jit": (lambda: run(lambda e: perturbed(epsilon=e)(TWO, key=KEY), -1.0), "epsilon is -1.0"),
    "epsilon NaN, gradient": (
        lambda: run(jax.grad(lambda e: perturbed(epsilon=e).max(TWO, key=KEY)), jnp.nan),
        "epsilon is nan",
    ),
    "epsilon shape": (lambda: perturbed(epsilon=jnp.ones(3))(TWO, key=KEY), "epsilon has shape (3,)", ValueError),
}

STATIC = {
    "no key": (lambda: P(TWO), "needs a key", TypeError),
    "a number as key": (lambda: P(TWO, key=3), "key is 3 of type int", TypeError),
    "a batch": (lambda: P(jnp.zeros((4, 2)), key=KEY), "use jax.vmap for a batch", ValueError),
    "integers": (lambda: P(jnp.array([1, 2]), key=KEY), "theta.astype(float)", TypeError),
    "k too large": (lambda: perturbed(solver=dp.TopK(5))(jnp.zeros(3), key=KEY), "k is 5", ValueError),
    "no samples": (lambda: dp.MonteCarlo(0), "num_samples is 0", ValueError),
    "no chunk": (lambda: dp.MonteCarlo(10, chunk_size=0), "chunk_size is 0", ValueError),
    "odd pairs": (lambda: perturbed(dp.MonteCarlo(5, dp.Antithetic()))(TWO, key=KEY), "take 6, or IID()", ValueError),
    "a class": (lambda: dp.Perturbed(dp.Argmax), "a Solver such as Argmax()", TypeError),
    "another shape": (lambda: perturbed(solver=lambda t: t[:1])(jnp.zeros(3), key=KEY), "returned shape (1,)"),
    "one draw": (
        lambda: perturbed(dp.MonteCarlo(1)).samples(TWO, key=KEY).std_error,
        "at least two independent blocks",
        ValueError,
    ),
    "one draw, covariance": (
        lambda: perturbed(dp.MonteCarlo(1)).samples(TWO, key=KEY).covariance,
        "at least two independent blocks",
        ValueError,
    ),
    "a kink": (
        lambda: jax.hessian(lambda t: dp.Perturbed(dp.Argmax(), dp.Laplace())(t, key=KEY)[0])(TWO),
        "kink at 0",
    ),
    "few draws": (
        lambda: perturbed(dp.MonteCarlo(7, dp.IID(), dp.Regression())).jacobian(jnp.linspace(-1, 1, 6), key=KEY),
        "needs at least 8 draws, got 7",
        ValueError,
    ),
}

READINGS = {
    "maximum of a sort": (
        lambda: dp.Perturbed(dp.Sorting()).max(THETA, key=KEY),
        "Sorting is not a maximizer of <y, theta>, so it has no perturbed maximum: call the operator itself",
        TypeError,
    ),
    "maximum of costs": (
        lambda: CHEAPEST.max(TWO, key=KEY),
        "Minimize minimizes costs, so it has no perturbed maximum: read its perturbed minimum, .min",
        TypeError,
    ),
    "minimum of scores": (
        lambda: EXACT.min(TWO),
        "Argmax maximizes scores, so it has no perturbed minimum: read its perturbed maximum, .max",
        TypeError,
    ),
    "measured maximum of costs": (lambda: CHEAPEST.measure(TWO, "maximum", key=KEY), "no perturbed maximum"),
    "samples of costs": (lambda: CHEAPEST.samples(TWO, key=KEY).max, "no maximum to read", TypeError),
    "another word": (
        lambda: P.measure(NEAR, "mean", key=KEY),
        "what is 'mean', expected 'maximizer', 'maximum' or 'regret'",
        ValueError,
    ),
    "exact": (lambda: EXACT.measure(NEAR), "draws nothing, so there is nothing to measure", TypeError),
    "no label": (lambda: P.measure(NEAR, "regret", key=KEY), "pass y=", TypeError),
}

TOLERANCES = {
    "0": (
        lambda: dp.MonteCarlo(100, tolerance=0.0),
        "tolerance is 0.0; it must be a finite number above 0",
        ValueError,
    ),
    "a string": (
        lambda: dp.MonteCarlo(100, tolerance="small"),
        "tolerance is 'small', expected a number",
        TypeError,
    ),
    "below 0": (lambda: until(jnp.array(-1.0))(NEAR, key=KEY), "tolerance is -1.0", ValueError),
    "NaN, jit": (lambda: run(lambda t: until(t)(NEAR, key=KEY), jnp.nan), "tolerance is nan"),
    "chunks of one": (
        lambda: dp.Perturbed(dp.Argmax(), method=dp.MonteCarlo(100, chunk_size=1, tolerance=0.1))(NEAR, key=KEY),
        "at least two independent blocks",
        ValueError,
    ),
}


@table(NUMBERS | STATIC | READINGS | TOLERANCES)
def test_refused(row):
    refuses(*row)


def test_a_function_is_a_solver():
    def best_neighbors(theta):
        i = jnp.argmax(theta[:-1] + theta[1:])
        where = jnp.arange(theta.size)
        return (where == i) | (where == i + 1)

    scores = jnp.array([0.1, 0.2, 0.9, 0.3, -1.0])
    y = dp.Perturbed(best_neighbors, dp.Normal(), 0.5)(scores, key=KEY)
    assert np.isclose(y.sum(), 2.0, atol=1e-5) and jnp.argmax(y) == 2
