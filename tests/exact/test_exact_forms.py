"""Exact forms: against brute force over all orders, textbook values and each other; and what is refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from support import refuses, table

from diffperturb.exact.exact import Exact
from diffperturb.exact.forms import (
    Form,
    OrderStatistics,
    PairwiseRanking,
    QuadratureArgmax,
    _positive_part,
    form,
)
from diffperturb.foundations.pytrees import pytree_dataclass, static
from diffperturb.foundations.solver import Solver
from diffperturb.noise.distributions import ExponentialPower, Gumbel, Laplace, Normal, StudentT
from diffperturb.noise.noise import IIDNoise
from diffperturb.solvers.grid_paths import GridPath
from diffperturb.solvers.selection import Argmax, BinaryChoice, Ranking, Sorting, TopK

# Three scores have 3! orders, and the distributions of all of them can be written out: entry i is first, second or third
# with densities g_i G_a G_b, g_i (T_a G_b + G_a T_b) and g_i T_a T_b, where T = 1 - G. The reference integrates these in
# NumPy, with SciPy's distributions, on thousands of narrow panels around every score. The Jacobian comes from ties:
# raising theta_j matters to i only where the two are equal and swap places.


def panels(t):
    """Nodes and weights around every score in t."""
    edges = np.concatenate([[0], np.geomspace(1e-5, 0.2, 12), np.arange(0.4, 6, 0.2), np.geomspace(6, 1e9, 120)])
    edges = np.unique((t[:, None] + np.concatenate([-edges[::-1], edges])).ravel())
    x, w = np.polynomial.legendre.leggauss(16)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half + half * x).ravel(), (half * w).ravel()


def brute_force(marginal, theta, eps, v):
    """F, y, J, dF/deps and dy/deps for three scores and the weights v of the largest, the second and the third."""
    t = theta / eps
    s, w = panels(t)
    z = s - t[:, None]
    g, below, above = marginal.pdf(z) * w, marginal.cdf(z), marginal.sf(z)
    y, gain, J = np.zeros(3), 0.0, np.zeros((3, 3))
    for i, a, b in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        middle = above[a] * below[b] + below[a] * above[b]
        worth = v[0] * below[a] * below[b] + v[1] * middle + v[2] * above[a] * above[b]
        y[i], gain = g[i] @ worth, gain + (z[i] * g[i]) @ worth
        J[a, b] = J[b, a] = -g[a] @ (marginal.pdf(z[b]) * ((v[0] - v[1]) * below[i] + (v[1] - v[2]) * above[i])) / eps
    J -= np.diag(J.sum(axis=1))
    return y @ theta + eps * gain, y, J, gain, -J @ theta / eps


@partial(jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0})  # quick to compile
@partial(jax.vmap, in_axes=(None, 0, 0, 0))
def statistics(noise, theta, eps, v):
    f = OrderStatistics(noise, v=v)
    (F, (y, gain)), move = jax.linearize(jax.value_and_grad(f.maximum, (0, 1)), theta, eps)
    J = jax.vmap(lambda direction: move(direction, jnp.zeros_like(eps))[1][0])(jnp.eye(3, dtype=theta.dtype)).T
    return F, y, J, gain, move(jnp.zeros_like(theta), jnp.ones_like(eps))[1][0]


WEIGHTS = {"argmax": [1.0, 0, 0], "top 2": [1.0, 1, 0], "uneven ranking": [3.0, 2.5, -1]}
PLACES = [(theta, eps) for theta in ([0.3, -0.2, 0.31], [1.0, 0.0, 0.0]) for eps in (0.02, 50.0)]
GUMBEL = Gumbel(), stats.gumbel_r()
CUSP = ExponentialPower(1.2), stats.gennorm(1.2)
HEAVY = StudentT(3.0), stats.t(3)


@table(
    {"gumbel, float32": (*GUMBEL, jnp.float32), "cusp, float64": (*CUSP, jnp.float64)},
    every={
        "gumbel, float64": (*GUMBEL, jnp.float64),
        "cusp, float32": (*CUSP, jnp.float32),
        "heavy tails, float32": (*HEAVY, jnp.float32),
        "heavy tails, float64": (*HEAVY, jnp.float64),
    },
)
def test_errors_against_brute_force(row):
    """Spread scores and a tie, temperatures 0.02 and 50, values and derivatives of argmax, top 2 and a ranking.

    Errors of F are relative to max(1, epsilon); those of derivatives are multiplied by epsilon, their natural unit.
    """
    noise, marginal, dtype = row
    combined = [(v, theta, eps) for v in WEIGHTS.values() for theta, eps in PLACES]
    with np.errstate(over="ignore"):
        truth = [brute_force(marginal, np.array(theta), eps, v) for v, theta, eps in combined]
    with jax.enable_x64(dtype == jnp.float64):
        v, theta, eps = (jnp.asarray(a, dtype) for a in zip(*combined, strict=True))
        found = jax.tree.map(np.asarray, statistics(noise, theta, eps, v))
    worst = {}
    for k, name in enumerate(("F", "y", "J", "dF/deps", "dy/deps")):
        unit = [1 / max(1, e) if name == "F" else e if name in ("J", "dy/deps") else 1 for _, _, e in combined]
        errors = [abs(a - b[k]).max() * u for a, b, u in zip(found[k], truth, unit, strict=True)]
        for solver, of_solver in zip(WEIGHTS, np.reshape(errors, (len(WEIGHTS), -1)), strict=True):
            worst[solver, name] = of_solver.max()
    assert all(error < (1e-5 if dtype == jnp.float32 else 1e-10) for error in worst.values()), worst


def two_way(theta, epsilon):
    """The textbook result for the larger of two scores with normal noise."""
    p = jax.scipy.special.ndtr((theta[0] - theta[1]) / (jnp.sqrt(2.0).astype(theta.dtype) * epsilon))
    return jnp.stack([p, 1 - p])


@pytree_dataclass
class Stepped(QuadratureArgmax):
    size: float = static(1.0)

    def step(self, d, dtype):
        return self.size


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_two_scores_with_normal_noise(dtype):
    """The trapezoid rule reaches the precision of the numbers, and so do both derivatives."""
    with jax.enable_x64(dtype == jnp.float64):
        theta, eps = jnp.array([1.0, 0.0], dtype), jnp.array(1.0, dtype)
        error = jnp.max(jnp.abs(jax.jit(Stepped(Normal(), size=0.35).maximizer)(theta, eps) - two_way(theta, eps)))
        assert error < (1e-6 if dtype == jnp.float32 else 1e-13)
        functions = QuadratureArgmax(Normal()).maximizer, two_way
        slopes, truth = (jax.jit(jax.jacfwd(f, (0, 1)))(theta, eps) for f in functions)
        for slope, true in zip(slopes, truth, strict=True):
            np.testing.assert_allclose(slope, true, atol=2e-6 if dtype == jnp.float32 else 1e-12)


def test_the_short_grid_of_top_k_agrees_with_cells():
    with jax.enable_x64(True):
        theta, eps = jnp.array([2.0, 2.0, 1.9, -1.0, 7.0, 0.3]), jnp.array([0.01, 1.0, 50.0])
        grid, cells = (
            jax.jit(jax.vmap(partial(jax.value_and_grad(f.maximum), theta)))(eps)
            for f in (form(TopK(3), Normal()), OrderStatistics(Normal(), 3))
        )
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11), grid, cells)


@pytree_dataclass
class Sech(IIDNoise):
    """Density 1 / (2 cosh(pi t / 2)): a noise of one's own that states nothing about pairs."""

    mean, tails = 0.0, (-24.0, 24.0)

    def log_pdf(self, t):
        a = abs(t) * (np.pi / 2)
        return -a - jnp.log1p(jnp.exp(-2 * a))

    def cdf(self, t):
        return jnp.arctan2(jnp.exp(t * (np.pi / 4)), jnp.exp(-t * (np.pi / 4))) * (2 / np.pi)


def test_ranking_by_pairs_agrees_with_order_statistics():
    with jax.enable_x64(True):
        theta, eps = jnp.array([0.3, -1.0, 0.31]), jnp.asarray(0.7)
        shortcut, general = form(Ranking(), Sech()), OrderStatistics(Sech(), v=jnp.arange(3.0) + 1)
        short, long = (jax.jit(f.maximizer)(theta, eps) for f in (shortcut, general))
        np.testing.assert_allclose(short, long, atol=1e-11)


def test_equal_steps_take_the_shortcut():
    assert form(Ranking(jnp.array([5.0, 1.0, 3.0])), Normal()) == PairwiseRanking(Normal(), 1.0, 2.0)
    assert isinstance(form(Ranking(jnp.arange(3.0) ** 2), Normal()), OrderStatistics)


@table({"laplace": (Laplace(), stats.laplace), "gumbel": (Gumbel(), stats.gumbel_r)})
def test_positive_parts_against_scipy(row):
    noise, marginal = row
    with jax.enable_x64(True):
        ts = jnp.array([-3.0, 0.0, 0.4, 50.0])
        found = jax.jit(jax.vmap(partial(_positive_part, noise)))(ts)
        for t, value_at in zip(ts.tolist(), found.tolist(), strict=True):  # E = t_+ plus a correction that decays
            near = lambda a, b, t=t: quad(lambda s: marginal.sf(s - t) - (s < t), a, b, epsabs=1e-13)[0]
            ends = sorted({0.0, *(max(t + step, 0.0) for step in (-8, -3, 0, 3, 10, 40))})
            np.testing.assert_allclose(value_at, max(t, 0) + sum(map(near, ends[:-1], ends[1:])), atol=1e-11)


def test_binary_choice_is_the_gradient_of_its_maximum():
    with jax.enable_x64(True):
        f, theta = form(BinaryChoice(), Laplace()), jnp.array([[1.0, 0.0], [-2.0, 5.0]])
        y = f.maximizer(theta, jnp.asarray(0.7))
        np.testing.assert_allclose(Form.maximizer(f, theta, jnp.asarray(0.7)), y, atol=1e-14)


@table(
    {
        "argmax, normal": (Argmax(), Normal()),
        "top 2, laplace": (TopK(2), Laplace()),
        "sorting, laplace": (Sorting(), Laplace()),
        "top 2, normal": (TopK(2), Normal()),
    }
)
def test_extreme_temperatures_and_large_scores(row):
    """Cold: the hard solution, shared where scores tie; hot: all equal; scores near 1e6 are as good as small ones."""
    solver, noise = row
    theta, y = jnp.array([3.0, 1.0, 1.0, -2.0]), jax.jit(form(solver, noise).maximizer)
    cold, hot = (y(theta, jnp.array(e)) for e in (1e-6, 1e6))
    if solver.maximizes:
        np.testing.assert_allclose(hot, np.full(4, sum(hot) / 4), atol=1e-5)
        np.testing.assert_allclose(y(theta + 1e6, jnp.array(1.0)), y(theta, jnp.array(1.0)), atol=1e-6)
    if solver == TopK(2):
        np.testing.assert_allclose(cold, [1, 0.5, 0.5, 0], atol=1e-6)
    if solver == Sorting():
        np.testing.assert_allclose(cold, np.sort(theta), atol=1e-5)
    assert np.all(np.isfinite(cold)) and np.all(np.isfinite(hot))


@pytree_dataclass
class PickOne(Solver):
    """The best of d scores, written anew."""

    def solve(self, theta):
        return jax.nn.one_hot(jnp.argmax(theta), len(theta), dtype=theta.dtype)


THETA, ONE = jnp.array([1.0, 0.0, -1.0]), jnp.array(1.0)


def test_a_solver_of_your_own_gets_a_form():
    refuses(lambda: form(PickOne(), Normal()), "no exact form is known for PickOne with Normal noise")
    form.register(PickOne, lambda solver, noise: form(Argmax(), noise))
    mine = Exact().maximizer(PickOne(), Normal(), ONE, THETA)
    np.testing.assert_array_equal(mine, Exact().maximizer(Argmax(), Normal(), ONE, THETA))


def test_a_form_must_define_its_maximum():
    class Empty(Form):
        pass

    refuses(Empty, "abstract", TypeError)


@table(
    {
        "no mean": (lambda: form(TopK(2), StudentT(1.0)).maximum(THETA, ONE), "no mean"),
        "too heavy tails": (lambda: form(TopK(2), StudentT(1.3)).maximizer(THETA, ONE), "too heavy"),
        "the maximum of sorting": (lambda: form(Sorting(), Normal()).maximum(THETA, ONE), "no perturbed maximum"),
        "samples": (lambda: Exact().samples(Argmax(), Gumbel(), 1.0, jnp.zeros(2)), "MonteCarlo"),
        "another solver": (
            lambda: form(GridPath(), Normal()),
            "no exact form is known for GridPath with Normal noise",
        ),
        "a third derivative over a kink": (
            lambda: jax.eval_shape(jax.jacfwd(jax.hessian(form(Argmax(), Laplace()).maximum)), THETA, ONE),
            "has a kink at 0 in this order",
        ),
    }
)
def test_exact_forms_refuse(row):
    refuses(*row)
