"""The regularizer: closed forms, first and second derivatives, samples, faces of the polytope, refusals."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from support import refuses, table

import diffperturb as dp
from diffperturb.learning._dual_points import UnitOperator, dual_point, is_vertex, tangent_space

KEY = jax.random.key(0)
SOFT = np.array([0.2, 0.3, 0.5])


def regularizer(solver, noise, epsilon=1.0, method=None):
    return dp.Regularizer(dp.Perturbed(solver, noise, epsilon, method or dp.Exact()))


def test_with_gumbel_noise_it_is_the_negative_entropy():
    with jax.enable_x64(True):
        omega = regularizer(dp.Argmax(), dp.Gumbel(), 0.5)
        log_y = jnp.log(SOFT) - jnp.mean(jnp.log(SOFT))
        value, slope = jax.jit(jax.value_and_grad(omega))(jnp.asarray(SOFT))
        dual = jax.jit(omega.dual)(SOFT)
        gap = {
            "value": value - (jnp.sum(SOFT * jnp.log(SOFT)) - dp.Gumbel.mean),
            "vertex": omega(np.array([0.0, 1.0, 0.0])) + dp.Gumbel.mean,
            "gradient": jnp.max(jnp.abs(slope - log_y)),
            "dual": jnp.max(jnp.abs(dual - 0.5 * log_y)),
            "y of the dual": jnp.max(jnp.abs(omega.perturbed(dual) - SOFT)),
        }
    assert all(abs(float(g)) < 1e-13 for g in gap.values()), gap


def test_single_precision():
    omega = regularizer(dp.Argmax(), dp.Gumbel(), 0.5)
    assert abs(omega(jnp.array(SOFT)) - (SOFT @ np.log(SOFT) - dp.Gumbel.mean)) < 1e-6


def test_from_samples():
    """A yes-or-no choice with logistic noise: F_1(u) = log(1 + e^u), and Omega is the negative binary entropy."""
    omega = regularizer(dp.BinaryChoice(), dp.Logistic(), 1.0, dp.MonteCarlo(20_000))
    y = jnp.array([[0.1, 0.4], [0.5, 0.75]])
    entropy = jnp.sum(y * jnp.log(y) + (1 - y) * jnp.log(1 - y))
    found, slope = jax.jit(jax.value_and_grad(omega))(y, key=KEY)
    at_dual = omega.perturbed.samples(slope, key=KEY)
    assert abs(found - entropy) < 5 * at_dual.max_std_error
    assert jnp.allclose(slope, jax.jit(omega.dual)(y, key=KEY), atol=1e-6)  # epsilon is 1
    error = at_dual.std_error / (y * (1 - y))  # the slope of the logistic function is y (1 - y)
    assert jnp.all(jnp.abs(slope - jnp.log(y / (1 - y))) < 5 * error)


def test_first_and_second_derivatives_of_a_ranking():
    """Against finite differences in the plane of the polytope, and against the Jacobian that the Hessian inverts."""
    with jax.enable_x64(True):
        operator = dp.Perturbed(dp.Ranking(), dp.Normal(), 0.7, dp.Exact())
        omega, theta = dp.Regularizer(operator), jnp.array([0.9, 0.1, -0.2, -0.8])
        move = 1e-5 * jnp.array([1.0, -2.0, 0.5, 0.5])

        @jax.jit
        def measure(y):
            slope, curved = jax.value_and_grad(lambda y: jax.grad(omega)(y) @ move)(y)
            return omega(y), omega.dual(y), jax.grad(omega)(y), jax.jacfwd(jax.grad(omega))(y), curved

        y = operator(theta)
        (_, dual, slope, hessian, reverse), up, down = measure(y), measure(y + move), measure(y - move)
        gap = {
            "dual": jnp.max(jnp.abs(dual - theta)),
            "gradient": jnp.max(jnp.abs(0.7 * slope - theta)),
            "first difference": (up[0] - down[0]) / 2 - slope @ move,
            "second difference": jnp.max(jnp.abs(up[1] - down[1] - 2 * 0.7 * hessian @ move) / 1e-5),
            "Jacobian times Hessian": jnp.max(
                jnp.abs(operator.jacobian(theta) @ (0.7 * hessian) - (jnp.eye(4) - 0.25))
            ),
            "two modes": jnp.max(jnp.abs(hessian @ move - reverse)),
        }
    assert all(abs(float(g)) < 1e-9 for g in gap.values()), gap


def test_derivative_in_the_scale_of_the_noise():
    """F of noise at scale s is F_s, so Omega is s times that of unit noise."""
    y = jnp.array([0.3, 0.7])

    def scaled(s):
        return regularizer(dp.Argmax(), dp.Scaled(dp.Normal(), s), 1.0, dp.MonteCarlo(20_000))(y, key=KEY)

    by_two, slope = jax.jit(jax.value_and_grad(scaled))(jnp.full(2, 2.0))
    closed = -(2**0.5) * jax.scipy.stats.norm.pdf(jax.scipy.special.ndtri(y[0]))  # for two entries and unit noise
    assert abs(by_two / 2 - closed) < 5 * 1.0 / 20_000**0.5  # the maximum of two has deviation below 1
    assert abs(jnp.sum(slope) - closed) < 5 * 2.0 / 20_000**0.5


def test_normal_noise_over_two_classes():
    p = jnp.linspace(0.01, 0.99, 99)
    omega = regularizer(dp.Argmax(), dp.Normal())
    values = jax.jit(jax.vmap(lambda p: omega(jnp.stack([p, 1 - p]))))(p)
    assert jnp.allclose(values, -(2**0.5) * jax.scipy.stats.norm.pdf(jax.scipy.special.ndtri(p)), atol=2e-6)


def test_costs_turn_the_sign_of_the_dual_point():
    soft = jnp.array([2.2, 2.0, 1.8])
    by_score = regularizer(dp.Ranking(), dp.Normal(), 0.7).dual(soft)
    by_cost = regularizer(dp.minimize(dp.Ranking()), dp.Normal(), 0.7).dual(soft)
    assert jnp.allclose(by_cost, -by_score)


def test_the_parts_of_the_search():
    unit = UnitOperator(dp.Argmax(), dp.Gumbel(), dp.Exact(), None, (3,))
    assert jnp.allclose(tangent_space(unit, jnp.float32)[0], jnp.eye(3) - 1 / 3, atol=1e-6)
    assert is_vertex(unit, jnp.eye(3)[1]) and not is_vertex(unit, jnp.array(SOFT, jnp.float32))
    found = dual_point(unit, jnp.array(SOFT, jnp.float32))
    assert found.reached and jnp.allclose(found.u, np.log(SOFT) - np.log(SOFT).mean(), atol=1e-5)
    assert not dual_point(unit, jnp.array([0.0, 0.4, 0.6])).reached


@cache
def on_the_simplex():
    """Omega of three classes with normal noise and its gradient, compiled once; double precision."""
    omega = regularizer(dp.Argmax(), dp.Normal())
    return omega, jax.jit(omega), jax.jit(jax.grad(omega))


def test_the_value_tends_to_that_of_the_face():
    """On the boundary, but at no vertex, Omega is that of the face: for the argmax drop the entries that are zero."""
    with jax.enable_x64(True):
        _, at, _ = on_the_simplex()
        edge, face = jnp.array([0.0, 0.4, 0.6]), at(jnp.array([0.4, 0.6]))
        gaps = [float(at((1 - t) * edge + t / 3) - face) for t in (1e-2, 1e-4, 1e-6, 1e-8)]
    assert abs(gaps[-1]) < 1e-6 and all(abs(b) < abs(a) / 10 for a, b in zip(gaps, gaps[1:], strict=False)), gaps


IN_DOUBLE = {
    "value on an edge": (lambda o, at, slope: at(jnp.array([0.0, 0.4, 0.6])), "The point is on the boundary"),
    "gradient on an edge": (lambda o, at, slope: slope(jnp.array([0.0, 0.4, 0.6])), "move the label inside"),
    "gradient at a vertex": (lambda o, at, slope: slope(jnp.eye(3)[2]), "where it is infinite"),
    "off the plane": (lambda o, at, slope: at(jnp.array([0.3015, 0.3, 0.4])), "not in the plane"),
    "dual of a vertex": (lambda o, at, slope: o.dual(jnp.array([0.0, 0.0, 1.0])), "on the boundary"),
}


@table(IN_DOUBLE)
def test_points_without_a_dual_point_are_refused(row):
    call, words = row
    with jax.enable_x64(True):
        refuses(lambda: call(*on_the_simplex()), words)


few = regularizer(dp.Argmax(), dp.Normal(), 1.0, dp.MonteCarlo(100))
ranks = regularizer(dp.Ranking(), dp.Normal())
LISTED = dp.Vertices(dp.Ranking().vertices((3,)).astype(float))  # states no membership test: the search must find it
listed = partial(dp.Regularizer(dp.Perturbed(LISTED, dp.Normal(), 1.0, dp.MonteCarlo(500))), key=jax.random.key(0))
REFUSALS = {
    "outside": (lambda: jax.jit(ranks)(jnp.array([3.5, 1.5, 1.0])), "is not in the polytope of Ranking"),
    "outside, by the search": (lambda: jax.jit(listed)(jnp.array([3.5, 1.5, 1.0])), "outside the polytope of Vertices"),
    "off the plane": (lambda: ranks(jnp.array([3.5, 1.5, 1.5])), "is not in the polytope of Ranking"),
    "few samples": (
        lambda: jax.jit(lambda y: few(y, key=KEY))(jnp.array([0.001, 0.499, 0.5])),
        "too few samples were drawn",
    ),
    "no key": (lambda: few(jnp.array([0.3, 0.3, 0.4])), "needs a key"),
    "not a maximizer": (lambda: regularizer(dp.Sorting(), dp.Normal())(jnp.ones(3)), "no conjugate Omega"),
    "tolerance": (
        lambda: regularizer(dp.Argmax(), dp.Normal(), 1.0, dp.MonteCarlo(100, tolerance=0.1))(jnp.ones(3) / 3, key=KEY),
        "without a tolerance",
    ),
}


@table(REFUSALS)
def test_refusals(row):
    refuses(*row)
