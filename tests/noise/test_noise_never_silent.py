"""No noise is silently wrong: scales on square scores, heavy tails, missing means, derivatives in parameters, half precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats
from support import refuses, sized, table

import diffperturb as dp
from diffperturb.noise.noise import IIDNoise

KEY = jax.random.key(0)
SQUARE = np.array([[0.5, 2.0], [1.0, 0.25]])
FACTOR = np.array([[1.0, 0, 0, 0], [0.5, 2, 0, 0], [0, -1, 0.5, 0], [0.3, 0, 0, 1]])
DTYPES = {"float32": jnp.float32, "float64": jnp.float64}
HALVES = {"float16": jnp.float16, "bfloat16": jnp.bfloat16}


def test_a_scale_of_each_entry_of_square_scores():
    noise = dp.Scaled(dp.Normal(), jnp.asarray(SQUARE))
    z = np.asarray(noise.sample(KEY, (40_000, 2, 2)))
    assert np.all(abs(z.std(axis=0) / SQUARE - 1) < 5 / (2 * len(z)) ** 0.5)
    correlation = np.corrcoef(z.reshape(-1, 4).T)
    assert np.all(abs(correlation - np.eye(4)) < 5 / len(z) ** 0.5)
    np.testing.assert_allclose(noise.log_prob(z[0]), stats.norm(0, SQUARE).logpdf(z[0]).sum(), rtol=1e-5)
    np.testing.assert_allclose(noise.score(z[0]), z[0] / SQUARE**2, rtol=1e-5)


def test_an_assignment_with_a_scale_for_each_entry():
    """Of two, the identity is chosen where the difference of the sums of its scores is positive: a normal number."""
    theta, spread = jnp.array([[0.4, 0.1], [0.2, 0.3]]), np.sqrt(np.sum(SQUARE**2))
    signs, gap = np.array([[1, -1], [-1, 1]]), 0.4 / spread
    p = dp.Perturbed(dp.Assignment(), dp.Scaled(dp.Normal(), jnp.asarray(SQUARE)), method=dp.MonteCarlo(20_000))
    y, jacobian = jax.jit(lambda theta: (p(theta, key=KEY), p.jacobian(theta, key=KEY)))(theta)
    identity = stats.norm.cdf(gap)
    assert np.all(abs(y - np.where(signs > 0, identity, 1 - identity)) < 5 * 0.5 / 20_000**0.5)
    truth = stats.norm.pdf(gap) / spread * signs[:, :, None, None] * signs
    error = 0.5 * (1 / SQUARE) / 20_000**0.5  # values within 1/2 of their mean, times a normal number
    assert np.all(abs(jacobian - truth) < 5 * error)


def test_one_scale_is_a_temperature():
    noise, z = dp.Scaled(dp.Logistic(), 2.0), jnp.array([0.3, -1.0, 4.0])
    assert jnp.all(noise.sample(KEY, (5, 3)) == 2 * dp.Logistic().sample(KEY, (5, 3)))
    np.testing.assert_allclose(noise.log_prob(z), stats.logistic(0, 2).logpdf(z).sum(), rtol=1e-6)
    np.testing.assert_allclose(noise.score(z), -jax.grad(noise.log_prob)(z), rtol=1e-5)
    assert dp.Scaled(dp.Scaled(dp.Gumbel(), jnp.ones(3)), 2.0).sample(KEY, (4, 3)).shape == (4, 3)
    assert dp.Scaled(dp.Normal(), np.float64(2.0)).sample(KEY, (2,), jnp.float32).dtype == jnp.float32


@table({"vectors": (4,), "matrices": (2, 2)})
def test_correlated_entries(row):
    noise = dp.Correlated(dp.Normal(), jnp.asarray(FACTOR))
    draws = noise.sample(KEY, (40_000, *row))
    z, covariance = draws[0], FACTOR @ FACTOR.T
    size = np.diagonal(covariance)
    error = np.sqrt((size[:, None] * size + covariance**2) / len(draws))
    assert np.all(abs(np.cov(draws.reshape(-1, 4).T) - covariance) < 5 * error)
    normal = stats.multivariate_normal(np.zeros(4), covariance)
    np.testing.assert_allclose(noise.log_prob(z), normal.logpdf(z.ravel()), rtol=1e-5)
    np.testing.assert_allclose(noise.score(z).ravel(), np.linalg.solve(covariance, z.ravel()), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        noise.information(z).ravel(), np.linalg.solve(covariance, z.ravel()), rtol=1e-4, atol=1e-5
    )
    assert noise.mean.shape == (4,) and noise.symmetric


def at_run_time(make, value):
    """Noise made outside with a good number, which becomes a bad one inside a compiled program."""
    good = make(jnp.ones(()) * 2.0)
    swap = lambda leaf: jax.tree.map(lambda _: leaf, good)
    return lambda: jax.jit(lambda leaf: swap(leaf).sample(KEY, (3,)))(jnp.asarray(value))


normal, matrix = dp.Normal(), jnp.array([[1.0, 0.0], [0.8, 0.6]])
SCALES = {
    "zero": (lambda: dp.Scaled(normal, 0.0), "scale is 0.0; a scale must be finite and not 0"),
    "a zero": (lambda: dp.Scaled(normal, jnp.array([1.0, 0.0])), "scale[1] is 0.0"),
    "NaN": (lambda: dp.Scaled(normal, jnp.array([[1.0, jnp.nan]])), "scale[0, 1] is nan"),
    "zero, traced": (lambda: jax.jit(lambda s: dp.Scaled(normal, s).score(jnp.ones(2)))(0.0), "scale is 0.0"),
    "zero, later": (at_run_time(lambda s: dp.Scaled(normal, s), 0.0), "scale is 0.0"),
    "underflow": (lambda: dp.Scaled(normal, 1e-50).sample(KEY, (2,), jnp.float32), "scale is 0.0"),
    "words": (lambda: dp.Scaled(normal, "wide"), "scale is 'wide' of type str, expected real numbers"),
    "complex": (lambda: dp.Scaled(normal, 1j), "expected real numbers"),
    "class": (lambda: dp.Scaled(dp.Normal, 2.0), "expected an instance of a noise such as Normal()"),
    "a factor": (lambda: dp.Scaled(normal, matrix), "scale[0, 1] is 0.0; a scale must be finite and not 0, or there"),
    "a factor, hint": (lambda: dp.Scaled(normal, matrix), "for a Cholesky factor of the covariance use Correlated("),
    "matrix for vectors, perturbed": (
        lambda: dp.Perturbed(dp.Argmax(), dp.Scaled(normal, jnp.ones((2, 2))))(jnp.ones(2), key=KEY),
        "scale has shape (2, 2), expected (2,) (one for each entry) or a scalar",
    ),
    "vector for matrices": (
        lambda: dp.Perturbed(dp.Assignment(), dp.Scaled(normal, jnp.ones(2)))(jnp.ones((2, 2)), key=KEY),
        "scale has shape (2,), expected (2, 2)",
    ),
    "other draws": (lambda: dp.Scaled(normal, jnp.ones(3)).sample(KEY, (5, 2)), "scale has shape (3,), expected (2,)"),
    "not triangular": (lambda: dp.Correlated(normal, jnp.ones((2, 2))), "factor[0, 1] is 1.0; a factor is finite, 0"),
    "zero on the diagonal": (lambda: dp.Correlated(normal, jnp.diag(jnp.array([1.0, 0.0]))), "factor[1, 1] is 0.0"),
    "negative diagonal": (lambda: dp.Correlated(normal, -jnp.eye(2)), "factor[0, 0] is -1.0"),
    "not triangular, traced": (
        lambda: jax.jit(lambda L: dp.Correlated(normal, L).log_prob(jnp.ones(2)))(jnp.ones((2, 2))),
        "factor[0, 1] is 1.0",
    ),
    "no matrix": (lambda: dp.Correlated(normal, jnp.ones(2)), "factor has shape (2,), expected (d, d)"),
    "too large": (
        lambda: dp.Perturbed(dp.Argmax(), dp.Correlated(normal, jnp.eye(2)))(jnp.ones(4), key=KEY),
        "so a draw has 2 entries, got shape (4,)",
    ),
}


@table(SCALES)
def test_scales_and_factors_that_are_refused(row):
    call, words = row
    refuses(call, words)


U = np.array([1e-6, 1e-4, 0.01, 0.2, 0.4, 0.4999, 0.5, 0.5001, 0.6, 0.9, 0.999, 1 - 1e-4, 1 - 1e-6])


@table(DTYPES)
def test_quantiles_of_student_are_those_of_scipy(row):
    """In the lower half, since 1 - u has more digits there; float32 to 2e-5 of their size, float64 to 3e-13."""
    with jax.enable_x64(row == jnp.float64):
        u = U.astype(row)
        side, lower = np.where(u < 0.5, 1, -1), np.minimum(u, 1 - u).astype(float)
        for df in (0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 10.0, 30.0):
            found, wanted = dp.StudentT(df).icdf(jnp.asarray(u)), side * stats.t.ppf(lower, df)
            near = 2e-5 if row == jnp.float32 else 3e-13
            np.testing.assert_allclose(found, wanted, rtol=near, atol=near, err_msg=f"df = {df}")


@table(DTYPES)
def test_the_distribution_function_of_student_is_that_of_scipy(row):
    """From few degrees of freedom, where t^2 overflows, to many, where the beta integral has no digits left."""
    with jax.enable_x64(row == jnp.float64):
        t = np.array([-1e25, -1e10, -50.0, -5.0, -1.0, -1e-3, 0.0, 1e-5, 2.0], row)
        for df in (0.3, 1.0, 3.0, 19.0, 30.0, 1e3, 1e4, 1e6, 1e9):
            found, wanted = dp.StudentT(df).cdf(jnp.asarray(t)), stats.t(df).cdf(t.astype(float))
            near = 1e-6 if row == jnp.float32 else 1e-11
            np.testing.assert_allclose(found, wanted, rtol=0, atol=near, err_msg=f"df = {df}")
        slope = jax.grad(dp.StudentT(2.0).cdf)(jnp.zeros(()))
        np.testing.assert_allclose(slope, stats.t(2).pdf(0), rtol=1e-6)


@table({"sobol": dp.Sobol()}, {"stratified": dp.Stratified()})
def test_cauchy_noise_in_a_net(row):
    """The perturbed argmax and its Jacobian, against integration over the value of each score."""
    theta, cauchy = np.array([1.0, 0.3, -0.5]), stats.cauchy

    def chosen(theta):
        def density(x, i):
            others = [cauchy.cdf(x - t) for j, t in enumerate(theta) if j != i]
            return cauchy.pdf(x - theta[i]) * np.prod(others)

        return np.array([integrate.quad(density, -np.inf, np.inf, args=(i,), limit=200)[0] for i in range(3)])

    h = 1e-4
    jacobian = np.stack([(chosen(theta + h * e) - chosen(theta - h * e)) / (2 * h) for e in np.eye(3)], axis=1)
    p = dp.Perturbed(dp.Argmax(), dp.StudentT(1.0), method=dp.MonteCarlo(16_000, row))
    y, slope = jax.jit(lambda theta: (p(theta, key=KEY), p.jacobian(theta, key=KEY)))(jnp.asarray(theta))
    assert np.all(abs(y - chosen(theta)) < 5 * 0.5 / 16_000**0.5)
    assert np.all(abs(slope - jacobian) < 5 * 0.5 / 16_000**0.5)  # the score function is at most 1, y within 1/2


class Arch(IIDNoise):
    """Entries in (-1, 1) with distribution function (1 + sin(pi t / 2)) / 2, without a formula for the inverse."""

    tails = (-1.0, 1.0)

    def log_pdf(self, t):
        return jnp.log(jnp.pi / 4 * jnp.cos(jnp.pi / 2 * t))

    def cdf(self, t):
        return (1 + jnp.sin(jnp.pi / 2 * t)) / 2


def test_bisection_has_the_derivative_of_the_inverse():
    jax.tree_util.register_static(Arch)
    u, student, power = jnp.array([0.1, 0.5, 0.8]), dp.StudentT(1.7), dp.ExponentialPower(jnp.array(3.0))
    for noise in (Arch(), student, power):
        t, slope = noise.icdf(u), jax.vmap(jax.grad(noise.icdf))(u)
        np.testing.assert_allclose(slope, jnp.exp(-noise.log_pdf(t)), rtol=1e-5)
        assert jnp.isnan(noise.icdf(jnp.array([jnp.nan, -0.1, 1.1]))).all()
    by_beta = jax.grad(lambda beta: dp.ExponentialPower(beta).icdf(0.8))(3.0)
    ends = [stats.gennorm(b).ppf(0.8) for b in (2.999, 3.001)]
    np.testing.assert_allclose(by_beta, (ends[1] - ends[0]) / 0.002, rtol=1e-3)


def traced_mean(df):
    return jax.jit(lambda df: dp.StudentT(df).check_mean(1.0))(df)


MEANS = {
    "student": (lambda: dp.StudentT(1.0).check_mean(1.0), "StudentT(df=1.0) has no mean"),
    "scaled": (lambda: dp.Scaled(dp.StudentT(0.7), 2.0).check_mean(1.0), "has no mean"),
    "correlated": (lambda: dp.Correlated(dp.StudentT(0.7), matrix).check_mean(1.0), "has no mean"),
    "traced": (lambda: traced_mean(0.9), "df is 0.8999999761581421: StudentT(df) has no mean"),
    "stated": (lambda: dp.Density(jnp.sum, jax.random.cauchy, mean=jnp.nan).check_mean(1.0), "has no finite mean"),
}


@table(MEANS)
def test_what_needs_a_mean_is_refused_without_one(row):
    call, words = row
    refuses(call, words)


def test_noise_with_a_mean_passes():
    for noise in (dp.Gumbel(), dp.StudentT(1.1), dp.SumOfGamma(3), dp.Scaled(dp.Laplace(), jnp.ones(2)), dp.TwoPoint()):
        assert noise.check_mean(1.0) == 1.0
    assert traced_mean(1.1) == 1.0


THETA, WEIGHTS = jnp.array([1.0, 0.2, -0.5]), jnp.array([1.0, 0.0, -2.0])
LEARNED = {"degrees of freedom": (dp.StudentT, 3.0), "exponent": (dp.ExponentialPower, 2.5)}


@table(LEARNED)
def test_derivatives_in_parameters_of_the_noise(row):
    """The mean over 100 keys, against finite differences of the exact form, within 5 standard errors."""
    make, at = row

    def readings(p, key=None):
        return jnp.stack([WEIGHTS @ p(THETA, key=key), p.max(THETA, key=key), p.regret(THETA, jnp.eye(3)[1], key=key)])

    def drawn(number, key):
        return readings(dp.Perturbed(dp.Argmax(), make(number), method=dp.MonteCarlo(sized(1000, 10_000))), key)

    found = jax.jit(jax.vmap(jax.jacfwd(drawn), (None, 0)))(at, jax.random.split(KEY, 100))
    with jax.enable_x64(True):
        exact = lambda number: readings(dp.Perturbed(dp.Argmax(), make(number), method=dp.Exact()))
        truth = (exact(at + 0.01) - exact(at - 0.01)) / 0.02
    error = found.std(axis=0, ddof=1) / 10
    assert np.all(abs(found.mean(axis=0) - truth) < 5 * error + 1e-5) and np.all(abs(truth) > 3 * error)


@table(LEARNED)
def test_a_number_is_fixed_and_an_array_is_a_leaf(row):
    make, at = row
    fixed, leaf = make(at), make(jnp.array(at))
    assert jax.tree.leaves(fixed) == [] and fixed == make(at) and hash(fixed) == hash(make(at))
    assert len(jax.tree.leaves(leaf)) == 1 and f"{fixed}" == f"{make.__name__}({next(iter(vars(fixed)))}={at})"
    z = jnp.array([-2.0, 0.0, 0.7])
    for read in ("score", "log_prob", "log_pdf", "cdf", "log_cdf", "icdf"):
        argument = jnp.array([0.01, 0.5, 0.9]) if read == "icdf" else z
        both = [jax.jit(lambda noise, z, read=read: getattr(noise, read)(z))(n, argument) for n in (fixed, leaf)]
        np.testing.assert_allclose(*both, rtol=1e-5, atol=1e-6, err_msg=read)
    for fact in ("variance", "fisher"):
        np.testing.assert_allclose(
            jax.jit(lambda noise, fact=fact: getattr(noise, fact))(leaf), getattr(fixed, fact), rtol=1e-5
        )
    exact = [dp.Perturbed(dp.Argmax(), noise, method=dp.Exact())(THETA) for noise in (fixed, leaf)]
    np.testing.assert_allclose(*exact, rtol=1e-6)


def by_df(method, df=3.0):
    return jax.grad(lambda df: WEIGHTS @ dp.Perturbed(dp.Argmax(), dp.StudentT(df), method=method)(THETA, key=KEY))(df)


def by_tau(tau):
    p = dp.Perturbed(dp.Argmax(), dp.SumOfGamma(1, tau=tau), method=dp.MonteCarlo(10))
    return dp.FenchelYoungLoss(p)(THETA, jnp.eye(3)[0], key=KEY)


PARAMETERS = {
    "exact form": (lambda: by_df(dp.Exact()), "df is traced, and exact forms and bounds need it"),
    "exact form, exponent": (
        lambda: jax.jit(lambda b: dp.Perturbed(dp.TopK(1), dp.ExponentialPower(b), method=dp.Exact())(THETA))(2.0),
        "beta is traced",
    ),
    "exact choice": (
        lambda: jax.jit(lambda b: dp.Perturbed(dp.BinaryChoice(), dp.StudentT(b), method=dp.Exact()).max(THETA))(2.0),
        "df is traced",
    ),
    "distribution function": (lambda: jax.grad(lambda df: dp.StudentT(df).cdf(0.3))(3.0), "has no derivative in df"),
    "scale of gammas": (lambda: jax.grad(by_tau)(1.0), "has no usable density"),
    "second derivative": (
        lambda: jax.jit(jax.hessian(lambda z, b: dp.ExponentialPower(b).score(z).sum()))(jnp.ones(2), 2.0),
        "has a kink at 0 in this order",
    ),
    "df, NaN": (lambda: dp.StudentT(jnp.nan), "df is nan; expected a finite number above 0"),
    "df, infinite": (lambda: dp.StudentT(np.inf), "df is inf; expected a finite number above 0"),
    "df, words": (lambda: dp.StudentT("3"), "df is '3' of type str, expected a number, degrees of freedom"),
    "df, several": (lambda: dp.StudentT(jnp.ones(3)), "df has shape (3,), expected a scalar"),
    "df, traced": (lambda: jax.jit(lambda df: dp.StudentT(df).score(1.0))(-1.0), "df is -1.0; expected"),
    "df, later": (at_run_time(dp.StudentT, -1.0), "df is -1.0; expected a finite number above 0.208"),
    "df, too low": (lambda: dp.StudentT(0.1).sample(KEY, (2,), jnp.float32), "pass the largest number of float32"),
    "too large for half": (
        lambda: dp.StudentT(0.5).sample(KEY, (1000,), jnp.float16),
        "beyond the largest number of float16, 65504.0: use float32",
    ),
    "a net too large for half": (lambda: dp.Sobol().draw(dp.StudentT(0.5), KEY, 800, (2,), jnp.float16), "beyond the"),
    "beta, NaN": (lambda: dp.ExponentialPower(jnp.nan), "beta is nan; expected a finite number of at least 1"),
    "beta, later": (at_run_time(dp.ExponentialPower, 0.5), "beta is 0.5; expected a finite number of at least 1"),
    "k": (lambda: dp.SumOfGamma(-1.5), "k is -1.5; expected a finite number above 0"),
    "k, traced": (lambda: jax.jit(lambda k: dp.SumOfGamma(k).mean)(2.0), "expected a Python number"),
    "tau": (lambda: dp.SumOfGamma(2, tau=0.0), "tau is 0.0; expected a finite number above 0"),
    "a density by entry": (lambda: dp.Density(jnp.square, jax.random.normal).score(jnp.ones(2)), "sum over it"),
}


@table(PARAMETERS)
def test_parameters_that_are_refused(row):
    call, words = row
    refuses(call, words)


def test_sums_of_gammas_for_any_k():
    noise = dp.SumOfGamma(2.5, s=4, tau=1.5)
    z = np.asarray(noise.sample(KEY, (40_000,)))
    assert abs(z.mean() - noise.mean) < 5 * (noise.variance / z.size) ** 0.5
    slope = jax.grad(lambda tau: dp.SumOfGamma(2.5, s=4, tau=tau).sample(KEY, ()))(1.5)
    np.testing.assert_allclose(slope, dp.SumOfGamma(2.5, s=4, tau=1.5).sample(KEY, ()) / 1.5, rtol=1e-5)


def test_a_large_exponent_is_nearly_uniform():
    z = np.asarray(dp.ExponentialPower(100.0).sample(KEY, (20_000,)))
    assert stats.kstest(z, stats.gennorm(100.0).cdf).pvalue > 1e-4


NOISES = {"gumbel": (dp.Gumbel(), stats.gumbel_r()), "student": (dp.StudentT(3.0), stats.t(3))}
OTHERS = {
    "normal": (dp.Normal(), stats.norm()),
    "laplace": (dp.Laplace(), stats.laplace()),
    "logistic": (dp.Logistic(), stats.logistic()),
    "power": (dp.ExponentialPower(4.0), stats.gennorm(4)),
}


@pytest.mark.parametrize("dtype", HALVES.values(), ids=HALVES.keys())
@table(NOISES, OTHERS)
def test_half_precision(row, dtype):
    """Draws are rounded from single precision, and functions are those of single precision at the same numbers."""
    noise, truth = row
    z = noise.sample(KEY, (4000,), dtype)
    assert z.dtype == dtype and jnp.all(z == noise.sample(KEY, (4000,), jnp.float32).astype(dtype))
    assert stats.kstest(np.asarray(z, float), truth.cdf).statistic < 0.04
    near = 4 * float(jnp.finfo(dtype).eps)
    for read in ("score", "cdf", "log_cdf", "log_pdf"):
        found = getattr(noise, read)(z)
        wanted = getattr(noise, read)(z.astype(jnp.float32))
        assert found.dtype == dtype, read
        np.testing.assert_allclose(np.asarray(found, float), wanted, rtol=near, atol=near, err_msg=read)
    u = jnp.array([0.01, 0.25, 0.5, 0.9], dtype)
    np.testing.assert_allclose(np.asarray(noise.icdf(u), float), truth.ppf(np.asarray(u, float)), rtol=near, atol=near)


@pytest.mark.parametrize("dtype", HALVES.values(), ids=HALVES.keys())
def test_every_sampling_scheme_in_half_precision(dtype):
    for sampling in (dp.IID(), dp.Antithetic(), dp.Orthogonal(), dp.Sobol(), dp.Stratified()):
        z = sampling.draw(dp.Normal(), KEY, 2400, (3,), dtype)
        assert z.dtype == dtype and stats.kstest(np.asarray(z, float).ravel(), stats.norm.cdf).statistic < 0.04
    noise = dp.Correlated(dp.Normal(), matrix)
    z = noise.sample(KEY, (2,), dtype)
    assert z.dtype == noise.score(z).dtype == noise.log_prob(z).dtype == dtype and jnp.isfinite(noise.score(z)).all()


def test_a_stratum_never_reaches_one():
    """The last stratum plus a place in it may round up to the number of strata, where the inverse is infinite."""
    u = dp.Stratified().points(KEY, 1024, 100, jnp.float16)
    assert jnp.all((u > 0) & (u < 1))
