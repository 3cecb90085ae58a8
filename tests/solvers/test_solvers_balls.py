"""Norm balls against the dual norms that NumPy computes, and against the closed form of a perturbed disc."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import rice
from support import refuses, table

import diffperturb as dp

GROUPS = np.array([[0, 0, 1], [2, 1, 2], [0, 3, 3], [1, 4, 4]])


def group_norms(x):
    return np.stack([np.sqrt(np.sum(np.where(g == GROUPS, x, 0) ** 2, axis=(1, 2))) for g in range(5)])


def singular(x):
    return np.linalg.svd(x, compute_uv=False)


def euclidean(x):
    return np.sqrt((x**2).sum(axis=(1, 2)))


BALLS = {  # the ball, its norm, and the dual one, of a stack (k, 4, 3)
    "l1": (dp.L1Ball(2.0), lambda x: np.abs(x).sum(axis=(1, 2)), lambda x: np.abs(x).max(axis=(1, 2))),
    "linf": (dp.LinfBall(2.0), lambda x: np.abs(x).max(axis=(1, 2)), lambda x: np.abs(x).sum(axis=(1, 2))),
    "l2": (dp.L2Ball(2.0), euclidean, euclidean),
    "groups": (
        dp.GroupLassoBall(GROUPS, 5, 2.0),
        lambda x: group_norms(x).sum(axis=0),
        lambda x: group_norms(x).max(axis=0),
    ),
    "nuclear": (dp.NuclearBall(2.0), lambda x: singular(x).sum(axis=1), lambda x: singular(x).max(axis=1)),
}


@cache
def scores():
    """200 stacks of scores; half of them are small whole numbers with ties."""
    draw = np.random.default_rng(0)
    return np.concatenate([draw.normal(size=(100, 4, 3)), draw.integers(-2, 3, size=(100, 4, 3))])


@table(BALLS)
def test_the_solution_is_in_the_ball_and_reaches_the_dual_norm(row):
    ball, norm, dual = row
    theta, solve = scores(), jax.jit(jax.vmap(ball))
    y = np.asarray(solve(theta.astype(np.float32)), float)
    np.testing.assert_allclose(norm(y), 2, rtol=1e-5)
    np.testing.assert_allclose(np.sum(y * theta, axis=(1, 2)), 2 * dual(theta), rtol=1e-5)
    assert np.allclose(np.sqrt(np.sum(y**2, axis=(1, 2))), ball.radius((4, 3)), rtol=1e-5)
    assert np.array_equal(y[100:], np.asarray(solve((theta[100:] + 0.0).astype(np.float32))))  # -0 is 0


@table(BALLS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_dtype_is_kept_under_strict_promotion(row, dtype):
    ball = row[0]
    with jax.enable_x64(dtype == jnp.float64), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        batch = jnp.asarray(scores()[:3], dtype)
        y = jax.jit(jax.vmap(ball))(batch)
        assert y.dtype == dtype and jnp.allclose(y[1], jax.jit(ball)(batch[1]), atol=1e-5)


def test_sizes_are_batched_and_costs_minimized():
    sizes = jnp.array([1.0, 2.0, 3.0])
    grown = jax.vmap(lambda size, theta: dp.NuclearBall(size)(theta))(sizes, jnp.asarray(scores()[:3], jnp.float32))
    assert np.allclose(singular(np.asarray(grown))[:, 0], sizes, rtol=1e-5)
    assert dp.minimize(dp.L1Ball())(jnp.array([0.5, -2.0, 1.0])).tolist() == [0, 1, 0]


pairs = dp.GroupLassoBall(jnp.array([0, 0, 1, 1, 2]), 3)
TIES = {
    "l1": (dp.L1Ball(), [0.5, -2, 1], [0, -1, 0]),
    "l1, the first among equals": (dp.L1Ball(), [-1, 1], [-1, 0]),
    "l1, zero": (dp.L1Ball(), [0, 0], [1, 0]),
    "linf, -0": (dp.LinfBall(), [-0.0, -0.0], [1, 1]),
    "l2, tiny": (dp.L2Ball(), [3e-30, 4e-30], [0.6, 0.8]),
    "l2, huge": (dp.L2Ball(), [3e30, 4e30], [0.6, 0.8]),
    "l2, zero": (dp.L2Ball(), [0, 0], [1, 0]),
    "groups": (pairs, [3, -4, 4.5, 0, -4.9], [0.6, -0.8, 0, 0, 0]),
    "groups, zero": (pairs, [0] * 5, [1, 0, 0, 0, 0]),
    "groups, the first among equals": (pairs, [1] * 5, [0.5**0.5, 0.5**0.5, 0, 0, 0]),
    "nuclear, zero": (dp.NuclearBall(), [[0, 0], [0, 0]], [[1, 0], [0, 0]]),
}


@table(TIES)
def test_ties_and_zeros(row):
    ball, theta, y = row
    assert jnp.allclose(ball(jnp.array(theta, jnp.float32)), jnp.array(y, jnp.float32))


def test_a_matrix_of_rank_one_is_its_own_atom():
    matrix = jnp.array([[2.0, 0.0, 1.0], [1.0, 0.0, 0.5]])
    assert jnp.allclose(dp.NuclearBall()(matrix), matrix / jnp.linalg.norm(matrix), atol=1e-6)


@table({"l1": dp.L1Ball(2.0), "linf": dp.LinfBall(0.5)})
def test_no_vertex_of_a_polytope_is_better(row):
    theta = jnp.array([0.5, -2.0, 1.0])
    assert jnp.isclose(jnp.max(row.vertices((3,)) @ theta), dp.inner(row(theta), theta))


def test_the_perturbed_disc_has_the_derivatives_of_a_rice_mean():
    """F = E ||theta + epsilon Z||, by finite differences of the closed form."""

    def exact(theta, epsilon):
        return rice.mean(np.linalg.norm(theta) / epsilon, scale=epsilon)

    def second(s, t):
        return exact(at + s + t, eps) - exact(at + s - t, eps) - exact(at - s + t, eps) + exact(at - s - t, eps)

    at, step, eps = np.array([0.6, -0.3]), 1e-3, 0.5
    shifts = step * np.eye(2)
    gradient = np.array([exact(at + s, eps) - exact(at - s, eps) for s in shifts]) / (2 * step)
    hessian = np.array([[second(s, t) for s in shifts] for t in shifts]) / (4 * step**2)
    disc = dp.Perturbed(dp.L2Ball(), dp.Normal(), eps, dp.MonteCarlo(200_000))
    key, theta = jax.random.key(3), jnp.asarray(at, jnp.float32)

    @jax.jit
    def estimates(theta):
        samples = disc.samples(theta, key=key)
        slope = jax.grad(lambda theta: disc.max(theta, key=key))(theta)
        return samples.mean, samples.std_error, slope, jax.jacobian(lambda theta: disc(theta, key=key))(theta)

    mean, error, slope, curvature = estimates(theta)
    assert np.all(np.abs(mean - gradient) < 5 * error) and np.all(np.abs(slope - gradient) < 5 * error)
    assert np.abs(curvature - hessian).max() < 0.02


@cache
def shrunk():
    return jax.jit(jax.vmap(lambda size: dp.L2Ball(size)(jnp.ones(3))))


REFUSED = {
    "size of zero": (lambda: dp.L1Ball(0.0)(jnp.ones(3)), "L1Ball: size is 0.0; it must be a finite number above 0"),
    "negative size in a batch": (lambda: shrunk()(jnp.array([1.0, -1.0])), "L2Ball: size is -1.0"),
    "a vector": (lambda: dp.NuclearBall()(jnp.ones(3)), "expected a matrix (n, m): use jax.vmap for a batch"),
    "nothing": (lambda: dp.LinfBall()(jnp.ones((0,))), "expected at least one entry"),
    "shape of groups": (lambda: pairs(jnp.ones(4)), "groups have shape (5,), expected (4,)"),
    "dtype of groups": (lambda: dp.GroupLassoBall(jnp.zeros(2), 1)(jnp.ones(2)), "expected group numbers (int)"),
    "no such group": (
        lambda: dp.GroupLassoBall(jnp.array([0, 3]), 2)(jnp.ones(2)),
        "groups run from 0 to 3, expected 0 to 1",
    ),
    "nan": (lambda: dp.NuclearBall()(jnp.full((2, 2), jnp.nan)), "theta[0, 0] is nan"),
    "derivative": (
        lambda: jax.grad(lambda t: dp.inner(dp.L2Ball()(t), t))(jnp.ones(2)),
        "Differentiate diffperturb.Perturbed",
    ),
}


@table(REFUSED)
def test_what_balls_refuse(row):
    refuses(*row)
