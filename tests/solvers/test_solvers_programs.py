"""Linear and integer programs against enumeration and scipy.optimize, their ties, batches and faults."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from support import refuses, sized, table

import diffperturb as dp
from diffperturb.solvers.programs import _corners

work = jnp.array([[1.0, 2.0], [3.0, 2.0], [1.0, 0.0]])
hours = jnp.array([8.0, 12.0, 3.5])
workshop = dp.LinearProgram(work, upper=hours)
pieces = dp.MixedIntegerProgram(work, upper=hours)
profit = jnp.array([3.0, 4.0])
profits = jnp.array([[3.0, 4.0], [5.0, 1.0], [1.0, 5.0]])


def test_a_workshop():
    assert jnp.allclose(workshop(profit), jnp.array([2.0, 3.0])) and workshop(-profit).tolist() == [0, 0]
    assert len(workshop.vertices((2,))) == 5 and workshop.hyperplane((2,)) is None
    theta = jnp.array([3.0, 1.0])
    assert pieces(theta).tolist() == [3, 1] and jnp.allclose(workshop(theta), jnp.array([3.5, 0.75]))


def test_two_of_three():
    simplex = dp.LinearProgram(jnp.ones((1, 3)), lower=2.0, upper=2.0, high=1.0)
    assert [x.tolist() for x in simplex.hyperplane((3,))] == [[1, 1, 1], 2]
    assert jnp.isclose(simplex.radius((3,)), 3**0.5)
    assert sorted(simplex.vertices((3,)).tolist()) == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]


def test_the_optimum_jumps_among_vertices_and_the_perturbed_one_moves():
    angles = jnp.linspace(-0.5 * jnp.pi, jnp.pi, 91)
    turning = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    plans, corners = np.asarray(jax.vmap(workshop)(turning)), np.asarray(workshop.vertices((2,)))
    perturbed = dp.Perturbed(workshop, dp.Normal(), epsilon=0.2, method=dp.MonteCarlo(100))
    smooth = np.asarray(jax.jit(jax.vmap(lambda theta: perturbed(theta, key=jax.random.key(0))))(turning))
    assert {tuple(np.round(y, 4)) for y in plans} <= {tuple(np.round(y, 4)) for y in corners}
    assert np.abs(np.diff(smooth, axis=0)).max() < 0.5 < np.abs(np.diff(plans, axis=0)).max()


def test_programs_are_batched_as_scores_are():
    more = hours + jnp.arange(3.0)[:, None]

    def plan_for(b, theta):
        return dp.LinearProgram(work, upper=b)(theta)

    plan = jax.jit(jax.vmap(plan_for))(more, profits)
    alone = jnp.stack([plan_for(b, t) for b, t in zip(more, profits, strict=True)])
    assert jnp.allclose(plan, alone)
    solvers = [dp.LinearProgram(work, upper=b, lower=-jnp.ones(3)) for b in more]
    many = jax.tree.map(lambda *leaves: jnp.stack(leaves), *solvers)
    assert jnp.array_equal(jax.vmap(lambda solver, theta: solver(theta))(many, profits), plan)
    grid = jax.vmap(jax.vmap(plan_for, (None, 0)), (0, None))(more, profits)
    assert grid.shape == (3, 3, 2) and jnp.array_equal(jnp.diagonal(grid).T, plan)


def test_sparse_rows_and_scores_of_any_shape():
    """The assignment as a program, and its perturbed minimum."""
    n = 4
    once = scipy.sparse.vstack([scipy.sparse.kron(np.eye(n), np.ones(n)), scipy.sparse.kron(np.ones(n), np.eye(n))])
    assignment = dp.LinearProgram(once, lower=1.0, upper=1.0, high=1.0)
    costs = jax.random.uniform(jax.random.key(0), (n, n))
    rows, cols = scipy.optimize.linear_sum_assignment(costs)
    assert jnp.allclose(dp.minimize(assignment)(costs), jnp.zeros((n, n)).at[rows, cols].set(1))
    assert np.asarray(assignment.A.data).size == 2 * n * n
    soft = dp.Perturbed(dp.minimize(assignment), dp.Normal(), epsilon=0.3, method=dp.MonteCarlo(500))
    slope = jax.jit(jax.grad(lambda c: soft.min(c, key=jax.random.key(1))))(costs)
    mean = soft(costs, key=jax.random.key(1))
    assert jnp.allclose(slope, mean, atol=1e-5) and jnp.allclose(jnp.sum(mean, axis=0), 1, atol=1e-5)
    assert jnp.all(jnp.isfinite(jax.jacobian(lambda c: soft(c, key=jax.random.key(1)))(costs)))


def test_ties_depend_on_the_program_and_the_scores_alone():
    tied = jnp.round(2 * jax.random.normal(jax.random.key(0), (20, 6)))  # -0 among them
    rows = jnp.round(jax.random.uniform(jax.random.key(1), (3, 6), maxval=4))
    mix = dp.LinearProgram(rows, upper=5.0, high=2.0)
    together, one = jax.vmap(mix)(tied), jax.jit(mix)
    assert jnp.array_equal(together, jnp.stack([one(t) for t in tied]))
    assert jnp.array_equal(together[::-1], jax.vmap(mix)(tied[::-1] + 0.0))


def test_small_programs_reach_the_best_vertex_and_the_best_integer_point():
    draw, count = np.random.default_rng(3), sized(70, 350)
    A = np.round(draw.uniform(-2, 5, size=(count, 4, 3)))
    b = np.round(draw.uniform(1, 9, size=(count, 4)))
    ties = draw.uniform(size=(count, 1)) < 0.5
    thetas = np.where(ties, draw.normal(size=(count, 3)), draw.integers(-3, 4, size=(count, 3)))
    box = np.array(list(np.ndindex(5, 5, 5))) - 1.0  # the integer points from -1 to 3

    def over(kind):
        return np.asarray(jax.vmap(lambda A, b, t: kind(A, upper=b, low=-1.0, high=3.0)(t))(A, b, thetas))

    with jax.enable_x64(True):
        linear, integer = over(dp.LinearProgram), over(dp.MixedIntegerProgram)
    for y in (linear, integer):
        assert np.all(np.einsum("nmd,nd->nm", A, y) <= b + 1e-7) and y.min() >= -1 and y.max() <= 3
    for k in range(count):
        walls = (np.full(4, -np.inf), b[k], np.full(3, -1.0), np.full(3, 3.0))
        best = (_corners(A[k], *walls) @ thetas[k]).max()
        assert np.isclose(linear[k] @ thetas[k], best, atol=1e-6)
        whole = (box @ thetas[k])[np.all(box @ A[k].T <= b[k], axis=1)].max()
        assert np.isclose(integer[k] @ thetas[k], whole, atol=1e-6)
    assert np.mean(np.any(np.abs(linear - integer) > 1e-6, axis=1)) > 0.1  # the relaxation is another problem


def test_larger_programs_reach_the_value_of_scipy():
    """Dense and sparse rows, with equalities, real and mixed."""
    draw, count = np.random.default_rng(4), sized(32, 160)
    A = np.round(draw.normal(size=(count, 6, 12)) * (draw.uniform(size=(count, 6, 12)) < 0.6), 2)
    inside = draw.integers(0, 3, size=(count, 12)).astype(float)  # feasible by construction
    upper = np.einsum("nmd,nd->nm", A, inside) + np.r_[np.zeros(2), np.ones(4)]
    lower = np.where(np.arange(6) < 2, upper, -np.inf)  # two equalities
    thetas, some = draw.normal(size=(count, 12)), np.arange(12) % 2 == 0

    def over(kind):
        return np.asarray(jax.vmap(lambda A, lo, up, t: kind(A, lo, up)(t))(A, lower, upper, thetas))

    with jax.enable_x64(True):
        dense = over(partial(dp.LinearProgram, high=4.0))
        mixed = over(partial(dp.MixedIntegerProgram, high=4.0, integral=some))
        for k in range(0, count, 16):
            sparse = dp.LinearProgram(scipy.sparse.csr_array(A[k]), lower[k], upper[k], high=4.0)
            assert np.allclose(dense[k], sparse(thetas[k]), atol=1e-6)
    assert np.abs(mixed[:, some] - np.round(mixed[:, some])).max() == 0
    for k in range(count):
        held = {
            "constraints": scipy.optimize.LinearConstraint(A[k], lower[k], upper[k]),
            "bounds": scipy.optimize.Bounds(0, 4),
            "options": {"mip_rel_gap": 0.0},
        }
        for y, integrality in ((dense[k], None), (mixed[k], some.astype(int))):
            truth = scipy.optimize.milp(-thetas[k], integrality=integrality, **held)
            reached = A[k] @ y
            assert np.isclose(y @ thetas[k], -truth.fun, atol=1e-6) and np.all(y >= -1e-7) and np.all(y <= 4 + 1e-7)
            assert np.all(reached <= upper[k] + 1e-6) and np.all(reached >= lower[k] - 1e-6)


@pytest.mark.parametrize("kind", [dp.LinearProgram, dp.MixedIntegerProgram])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_dtype_is_kept_under_strict_promotion(kind, dtype):
    with jax.enable_x64(dtype == jnp.float64), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        solver = kind(work, upper=hours, high=np.float64(9.0))
        out = jax.jit(jax.vmap(solver))(jnp.asarray(profits, dtype))
        assert out.dtype == dtype and jnp.all(out == jnp.stack([solver(t) for t in jnp.asarray(profits, dtype)]))


STATIC = {
    "columns": (lambda: workshop(jnp.zeros(3)), "A has shape (3, 2) and theta (3,), expected (m, 3)"),
    "bounds of rows": (
        lambda: dp.LinearProgram(work, upper=jnp.ones(2))(profit),
        "upper has shape (2,), expected a scalar",
    ),
    "time limit": (
        lambda: dp.LinearProgram(work, time_limit=-1.0),
        "time_limit is -1.0; it must be a finite number above 0",
    ),
    "integral": (
        lambda: dp.MixedIntegerProgram(work, integral=jnp.ones(2))(profit),
        "expected True, or a truth value",
    ),
    "radius": (lambda: workshop.radius((2,)), "states no radius: give every entry finite bounds"),
    "nan": (lambda: workshop(jnp.array([1.0, jnp.nan])), "theta[1] is nan"),
    "vertices": (lambda: pieces.vertices((2,)), "states no vertices"),
}


@cache
def at_least():
    return jax.jit(jax.vmap(lambda b, t: dp.LinearProgram(work, lower=b, upper=hours)(t)))


def shout(b):
    """The second of three programs has other lower bounds."""
    return at_least()(jnp.zeros((3, 3)).at[1].set(b), profits)


def free(kind):
    return jax.jit(jax.vmap(kind(-work, upper=hours)))(profits)


hasty = dp.LinearProgram(jax.random.uniform(jax.random.key(0), (60, 90)), upper=5.0, time_limit=1e-6)
NUMBERS = {
    "infeasible": (
        lambda: shout(jnp.array([8.0, 0.0, 3.5])),
        "LinearProgram: the program is infeasible: no y keeps all rows and bounds [instance 1",
    ),
    "crossed rows": (
        lambda: shout(99.0),
        "row 0 has lower = 99.0 and upper = 8.0; expected lower <= upper [instance 1",
    ),
    "nan row": (lambda: shout(jnp.nan), "row 0 has lower = nan"),
    "unbounded": (lambda: free(dp.LinearProgram), "LinearProgram: the program is unbounded in the direction"),
    "unbounded, integer": (
        lambda: free(dp.MixedIntegerProgram),
        "MixedIntegerProgram: the program is unbounded in the direction",
    ),
    "crossed bounds": (
        lambda: dp.LinearProgram(work, low=2.0, high=1.0)(profit),
        "entry 0 has low = 2.0 and high = 1.0",
    ),
    "infinite entry": (
        lambda: dp.LinearProgram(work.at[0, 0].set(jnp.inf))(profit),
        "A has an entry that is NaN or infinite",
    ),
    "time limit": (lambda: hasty(jnp.ones(90)), "no optimum within the time limit of 1e-06 s"),
}
DERIVATIVES = {
    "in the scores": (
        lambda: jax.grad(lambda t: dp.inner(workshop(t), t))(profit),
        "Differentiate diffperturb.Perturbed",
    ),
    "in a bound": (
        lambda: jax.grad(lambda b: dp.inner(dp.LinearProgram(work, upper=b).solve(profit), profit))(hours),
        "LinearProgram: a derivative in A or in a bound was asked for",
    ),
}


@table(STATIC)
def test_what_is_refused_at_once(row):
    refuses(*row)


@table(NUMBERS)
def test_what_numbers_are_refused(row):
    refuses(*row)


@table(DERIVATIVES)
def test_what_derivatives_are_refused(row):
    refuses(*row)
