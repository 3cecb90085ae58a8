"""Assignments and partial matchings: against enumeration and SciPy, in every implementation; and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import refuses, table

from diffperturb.expectation.monte_carlo import MonteCarlo
from diffperturb.expectation.perturbed import Perturbed
from diffperturb.foundations.errors import run_time_checks
from diffperturb.foundations.solver import inner, minimize
from diffperturb.noise.distributions import Normal
from diffperturb.solvers._runtime.assignment_search import (
    best_columns_on_host,
    columns_by_scipy,
    columns_in_xla,
    columns_on_host,
    scores_as_costs,
)
from diffperturb.solvers.matching import Assignment, PartialMatching

COSTS = jnp.array([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0], [3.0, 2.0, 2.0]])
WORTH = jnp.array([[2.0, 1.5, -1.0], [1.8, -0.5, -2.0], [0.0, -0.3, -0.1]])
stacked_in_xla = jax.jit(jax.vmap(columns_in_xla))


def test_all_implementations_find_a_known_assignment():
    one = np.asarray(COSTS)[None]
    assert [f(one).tolist() for f in (stacked_in_xla, columns_on_host, columns_by_scipy)] == [[[1, 0, 2]]] * 3


@table(
    {
        "square": (Assignment(), COSTS, [[1, 0, 0], [0, 0, 1], [0, 1, 0]]),
        "more rows": (Assignment(), COSTS[:, :2], [[1, 0], [0, 0], [0, 1]]),
        "one row is the argmax": (Assignment(), jnp.array([[0.5, 2.0, -1.0]]), [[0, 1, 0]]),
        "one entry": (Assignment(), jnp.array([[-3.0]]), [[1]]),
        "a score of -0": (PartialMatching(), jnp.array([[-0.0]]), [[0]]),
        "a score of 0 is not taken": (PartialMatching(), WORTH, [[0, 1, 0], [1, 0, 0], [0, 0, 0]]),
        "one pair": (PartialMatching(1), WORTH, [[1, 0, 0], [0, 0, 0], [0, 0, 0]]),
    }
)
def test_known_matchings(row):
    solver, theta, y = row
    assert solver(theta).tolist() == y


def test_special_cases():
    assert inner(minimize(Assignment())(COSTS), COSTS) == 5.0  # 1 + 2 + 2
    assert len(Assignment().vertices((4, 4))) == 24 and len(Assignment().vertices((2, 4))) == 12
    assert jnp.all(PartialMatching(3)(WORTH) == Assignment()(WORTH))
    assert jnp.sum(PartialMatching(2)(jnp.zeros((3, 4)))) == 2 and not jnp.any(PartialMatching()(jnp.zeros((3, 4))))
    assert jnp.sum(PartialMatching(2)(jnp.full((3, 4), 3e38))) == 2


def test_the_mean_is_doubly_stochastic():
    scores = jax.random.normal(jax.random.key(4), (6, 6))
    for epsilon in (0.3, 1.0, 4.0):
        mean = Perturbed(Assignment(), Normal(), epsilon, MonteCarlo(2000))(scores, key=jax.random.key(1))
        assert all(np.allclose(mean.sum(axis=axis), 1, atol=1e-5) for axis in (0, 1))


def test_the_value_is_concave_in_the_number_of_pairs():
    scores = jax.random.normal(jax.random.key(2), (6, 6)) - 0.5
    worth = [float(inner(PartialMatching(k).solve(scores), scores)) for k in range(1, 7)]
    assert np.isclose(max(worth), inner(PartialMatching()(scores), scores)) and np.all(np.diff(worth, 2) < 1e-5)


@pytest.mark.parametrize("shape", [(4, 4), (5, 3)], ids=str)
@table(
    {
        "assignment": Assignment(),
        "partial": PartialMatching(),
        "one pair": PartialMatching(1),
        "two pairs": PartialMatching(2),
    }
)
def test_the_solution_is_the_best_vertex(row, shape):
    """200 scores without and with ties: the best value over all vertices, one of them, and the stated facts."""
    corners = np.asarray(row.vertices(shape)).reshape(-1, shape[0] * shape[1])
    normal, solve = jax.random.normal(jax.random.key(3), (200, *shape)), jax.jit(jax.vmap(row.solve))
    for scores in (normal, jnp.round(normal)):
        flat, y = np.asarray(scores).reshape(len(scores), -1), np.asarray(solve(scores))
        assert np.allclose(np.sum(y.reshape(flat.shape) * flat, axis=1), np.max(flat @ corners.T, axis=1), atol=1e-5)
        assert set(map(bytes, y.astype(np.int8))) <= set(map(bytes, corners.astype(np.int8)))
    assert np.isclose(np.linalg.norm(corners, axis=1).max(), row.radius(shape))
    if (plane := row.hyperplane(shape)) is not None:
        assert np.allclose(corners @ np.asarray(plane[0]).ravel(), plane[1])


def values(costs, columns):
    """The cost of each assignment of a stack, in double precision; each column once."""
    assert all(len(set(c[c >= 0])) == (c >= 0).sum() == min(costs.shape[1:]) for c in columns)
    taken = np.take_along_axis(costs.astype(float), np.maximum(columns, 0)[..., None].astype(int), axis=2)[..., 0]
    return np.sum(taken, axis=1, where=columns >= 0)


@pytest.mark.parametrize("shape", [(40, 40), (20, 30), (30, 20)], ids=str)
def test_large_ones_against_scipy(shape):
    """By all routes; XLA's form adds up potentials in the precision of the scores."""
    rng = np.random.default_rng([0, *shape])
    center = rng.normal(size=shape)
    stacks = [
        rng.normal(size=(100, *shape)),
        center + 0.1 * rng.normal(size=(100, *shape)),
        rng.integers(0, 5, (100, *shape)),
    ]
    for costs in [stack.astype(np.float32) for stack in stacks]:
        truth = values(costs, columns_by_scipy(costs.astype(float)))
        assert np.array_equal(values(costs, columns_on_host(costs)), truth)
        assert np.allclose(values(costs, np.asarray(stacked_in_xla(costs))), truth, rtol=1e-6, atol=1e-6)


@table({"assignment": Assignment(), "partial": PartialMatching(), "four pairs": PartialMatching(4)})
def test_names_and_scales_do_not_matter(row):
    """Permuted scores give the permuted matching, scaled and huge ones the same."""
    scores = jax.random.normal(jax.random.key(5), (7, 7))
    rows, columns = (jax.random.permutation(jax.random.key(i), 7) for i in range(2))
    y = row(scores)
    assert jnp.all(row(scores[rows][:, columns]) == y[rows][:, columns])
    assert all(jnp.all(row.solve(c * scores) == y) for c in (1e-30, 3.0, 1e38))


def test_huge_scores_by_both_routes():
    scores = jax.random.normal(jax.random.key(5), (7, 7))
    huge = jnp.asarray([1e-30, 1.0, 1e38])[:, None, None] * scores
    in_xla = jax.jit(jax.vmap(lambda t: columns_in_xla(scores_as_costs(t))))(huge)
    assert np.array_equal(best_columns_on_host(np.asarray(huge)), in_xla)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtypes_stay_under_strict_promotion(dtype):
    """Both precisions, under jit and nested vmap, by both routes."""
    with jax.enable_x64(dtype == jnp.float64), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        batch = jax.random.normal(jax.random.key(1), (2, 3, 4, 5), dtype)
        for solver in (Assignment(), PartialMatching(), PartialMatching(2)):
            out = np.asarray(jax.jit(jax.vmap(jax.vmap(solver)))(batch))
            assert out.dtype == dtype
            assert np.array_equal(out, jax.vmap(solver.solve)(batch.reshape(6, 4, 5)).reshape(batch.shape))
        columns = jax.jit(jax.vmap(jax.vmap(columns_in_xla)))(-batch)
        assert np.array_equal(columns, columns_on_host(-np.asarray(batch).reshape(6, 4, 5)).reshape(2, 3, 4))


FORBIDDEN = jnp.zeros((2, 3, 3)).at[1, 0, 2].set(-jnp.inf)


@table(
    {
        "a vector": (
            lambda: Assignment()(jnp.zeros(5)),
            "Assignment got scores of shape (5,), expected (n, m)",
        ),
        "a batch": (lambda: Assignment()(jnp.zeros((2, 3, 3))), "use jax.vmap for a batch"),
        "k above both sides": (lambda: PartialMatching(4)(jnp.zeros((3, 5))), "k is 4"),
        "what k counts": (lambda: PartialMatching(4)(jnp.zeros((3, 5))), "pairs between 3 rows"),
        "k of zero": (lambda: PartialMatching(0)(jnp.zeros((3, 5))), "k is 0"),
        "a fraction": (lambda: PartialMatching(1.5)(jnp.zeros((3, 5))), "k is 1.5 of type float"),
        "infinite scores": (lambda: jax.vmap(Assignment())(FORBIDDEN), "theta[0, 2] is -inf"),
    }
)
def test_matchings_refuse(row):
    refuses(*row)


def test_without_checks_a_bad_score_makes_the_matching_nan():
    """And no loop runs on forever."""
    with run_time_checks(False):
        y = jax.vmap(Assignment())(FORBIDDEN)
    assert jnp.all(jnp.isnan(y[1])) and jnp.sum(y[0]) == 3
