"""Every solver as a maximizer of a linear function: one table of solvers, one list of properties."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import diffperturb as dp


def permuted(shape, rng):
    """Places of the entries after the names of all items were exchanged."""
    return rng.permutation(shape[0])


def rows_and_columns(shape, rng):
    """The same for a matrix, whose rows and columns are exchanged separately."""
    rows, columns = rng.permutation(shape[0]), rng.permutation(shape[1])
    return (shape[1] * rows[:, None] + columns[None]).ravel()


def nodes(shape, rng):
    """The same for the nodes of a graph, in a matrix of its edges."""
    order = rng.permutation(shape[0])
    return (shape[1] * order[:, None] + order[None]).ravel()


class Case(NamedTuple):
    """A solver, and what it is compared with."""

    solver: dp.Solver
    shape: tuple  # of the scores
    symmetry: Callable | None = None  # (shape, rng) -> places of the flattened entries that leave the polytope the same
    listed: bool = True  # whether it lists its vertices for this shape
    scores: Callable = lambda drawn: drawn  # drawn numbers (n, entries) -> scores that it accepts, such as np.abs


def brightest(scores: np.ndarray) -> np.ndarray:
    """Marks the largest score of each row, the first one among equals; NumPy."""
    return np.eye(scores.shape[1])[np.argmax(scores, axis=1)]


# 0 -> 1, 2 -> 3 -> 4, with a shortcut and two parallel edges: no cycles, so scores of either sign are fine.
dag = dp.Graph(jnp.array([0, 0, 1, 2, 3, 0, 3]), jnp.array([1, 2, 3, 3, 4, 4, 4]), 5)
square = dp.Graph(jnp.array([0, 1, 2, 3, 0, 2]), jnp.array([1, 2, 3, 0, 2, 0]), 4, directed=False)
simplex = {"A": jnp.ones((1, 4)), "lower": 1.0, "upper": 1.0, "high": 1.0}
items = {"weights": np.array([3, 1, 4, 1, 5, 2]), "capacity": 8}
# One line for each solver.
CASES = {
    "argmax": Case(dp.Argmax(), (5,), permuted),
    "top-k": Case(dp.TopK(2), (5,), permuted),
    "ranking": Case(dp.Ranking(), (5,), permuted),
    "choice": Case(dp.BinaryChoice(), (2, 3)),
    "vertices": Case(dp.Vertices(jnp.array([[0.0, 1.0], [2.0, -1.0], [0.5, 3.0]])), (2,)),
    "costs": Case(dp.minimize(dp.TopK(2)), (5,), permuted),
    "assignment": Case(dp.Assignment(), (4, 4), rows_and_columns),
    "wide assignment": Case(dp.Assignment(), (3, 5), rows_and_columns),
    "large assignment": Case(dp.Assignment(), (12, 9), rows_and_columns, listed=False),
    "partial matching": Case(dp.PartialMatching(), (4, 3), rows_and_columns),
    "two pairs": Case(dp.PartialMatching(2), (4, 3), rows_and_columns),
    "knapsack": Case(dp.Knapsack(**items), (6,)),
    "bounded knapsack": Case(dp.Knapsack(**items, counts=np.array([1, 2, 0, 3, 1, 2])), (6,)),
    "at most": Case(dp.AtMost(2), (5,), permuted),
    "at least": Case(dp.AtLeast(2), (5,), permuted),
    "parity": Case(dp.Parity(), (5,), permuted),
    "odd parity": Case(dp.Parity(odd=True), (5,), permuted),
    "implication": Case(dp.Negated(dp.AtLeast(1), (True, False)), (2,)),
    "grid path": Case(dp.minimize(dp.GridPath()), (3, 3), scores=np.abs),
    "large grid path": Case(dp.minimize(dp.GridPath(neighbors=4)), (6, 7), listed=False, scores=np.abs),
    "path": Case(dp.ShortestPath(dag, 0, 4), (7,)),
    "cheapest path": Case(dp.minimize(dp.ShortestPath(dag, 0, 4)), (7,)),
    "spanning tree": Case(dp.SpanningTree(square), (6,)),
    "flow": Case(dp.Flow(dag, 0, 4, jnp.array([2.0, 1, 1, 2, 2, 1, 1])), (7,), listed=False),
    "tour": Case(dp.TravelingSalesperson(), (5, 5), nodes),
    "tour by cuts": Case(dp.TravelingSalesperson("cuts"), (6, 6), nodes),
    "program": Case(dp.LinearProgram(jnp.array([[1.0, 2, 1], [3, 1, 0]]), upper=jnp.array([4.0, 3]), high=2.0), (3,)),
    "simplex": Case(dp.LinearProgram(**simplex), (4,), permuted),
    "integers": Case(dp.MixedIntegerProgram(jnp.array([[2.0, 3, 4]]), upper=6.0, high=2.0), (3,), listed=False),
    "l1 ball": Case(dp.L1Ball(2.0), (4,), permuted),
    "box": Case(dp.LinfBall(2.0), (4,), permuted),
    "l2 ball": Case(dp.L2Ball(2.0), (4,), permuted, listed=False),
    "groups": Case(dp.GroupLassoBall(jnp.array([0, 0, 1, 1]), 2), (4,), listed=False),
    "nuclear ball": Case(dp.NuclearBall(), (3, 2), rows_and_columns, listed=False),
    "external": Case(
        dp.external(brightest, (4,), batched=True, radius=1.0, binary=True, vertices=np.eye(4)), (4,), permuted
    ),
    **{name: Case(dp.Logic(name), (4,)) for name in ("and", "or", "xor", "nand", "nor", "xnor")},
}
STACK = 6  # scores that one example solves together
# Each solver is compiled once: its tests go to one process.
BY_NAME = pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in CASES])


@cache
def compiled(name: str):
    return jax.jit(jax.vmap(CASES[name].solver))


def flat(x) -> np.ndarray:
    return np.asarray(x, np.float64).reshape(len(x), -1)


def solve(name: str, scores: np.ndarray) -> np.ndarray:
    """Solutions of a stack of scores, with every entry in a row."""
    return flat(compiled(name)(jnp.asarray(scores.reshape(STACK, *CASES[name].shape), jnp.float32)))


@cache
def corners(name: str) -> np.ndarray:
    return flat(CASES[name].solver.vertices(CASES[name].shape))


def best(name: str, scores: np.ndarray) -> np.ndarray:
    """The value of the solution of each score, counted as one to be maximized."""
    return CASES[name].solver.sign * np.sum(solve(name, scores) * scores, axis=1)


def stacks(kind: str):
    """Draws stacks of scores: "ties" are small whole numbers, "normal" ones have no ties."""

    def draw(name, seed):
        rng = np.random.default_rng(seed)
        size = (STACK, int(np.prod(CASES[name].shape)))
        whole = rng.integers(-2, 3, size) * rng.choice([1.0, -1.0], size)  # with -0
        drawn = whole if kind == "ties" else rng.normal(0, 2, size)
        return CASES[name].scores(drawn.astype(np.float32).astype(np.float64)), rng

    return draw


def holds_for(*kinds):
    """The property for every solver, on drawn stacks of the kinds."""

    def mark(test):
        def run(name, kind, seed):
            test(name, *stacks(kind)(name, seed))

        quick = settings(
            max_examples=5, deadline=None, derandomize=True, database=None, phases=[Phase.generate]
        )  # a smaller seed is no simpler case
        drawn = quick(given(seed=st.integers(0, 2**32 - 1))(run))
        drawn.__name__, drawn.__doc__ = test.__name__, test.__doc__
        return pytest.mark.parametrize("kind", kinds)(BY_NAME(drawn))

    return mark


def close(a, b) -> bool:
    return np.allclose(a, b, rtol=1e-5, atol=1e-4)


@holds_for("normal", "ties")
def test_the_solution_is_a_best_vertex(name, scores, rng):
    case, y = CASES[name], solve(name, scores)
    assert np.all(np.linalg.norm(y, axis=1) <= case.solver.radius(case.shape) * (1 + 1e-5))
    assert not case.solver.binary or set(np.unique(y)) <= {0, 1}
    if case.listed:
        points = corners(name)
        assert all(np.any(np.all(np.isclose(points, row), axis=1)) for row in y)
        assert close(best(name, scores), np.max(case.solver.sign * scores @ points.T, axis=1))


@holds_for("ties")
def test_scaled_scores_have_the_same_value(name, scores, rng):
    for scale in (0.25, 1024.0):
        assert close(np.sum(solve(name, scale * scores) * scores, axis=1), np.sum(solve(name, scores) * scores, axis=1))


@holds_for("normal")
def test_a_shift_along_the_hyperplane_moves_the_value_only(name, scores, rng):
    case = CASES[name]
    if (plane := case.solver.hyperplane(case.shape)) is None:
        return
    a, b = np.asarray(plane[0], np.float64).ravel(), float(plane[1])
    assert close(solve(name, scores) @ a, b)
    shifted = scores + 3 * a
    if np.array_equal(case.scores(shifted), shifted):
        assert close(best(name, shifted), best(name, scores) + case.solver.sign * 3 * b)


@holds_for("ties")
def test_names_do_not_matter(name, scores, rng):
    case = CASES[name]
    if case.symmetry is not None:
        assert close(best(name, scores[:, case.symmetry(case.shape, rng)]), best(name, scores))


@holds_for("normal")
def test_the_solution_is_a_subgradient_of_the_maximum(name, scores, rng):
    """F(theta') >= F(theta) + <y(theta), theta' - theta>, for maxima; reversed for minima of costs."""
    sign = CASES[name].solver.sign
    other = CASES[name].scores(scores + rng.normal(0, 1, scores.shape).astype(np.float32))
    slope = sign * np.sum(solve(name, scores) * (other - scores), axis=1)
    assert np.all(best(name, other) >= best(name, scores) + slope - 1e-4)


@BY_NAME
def test_the_same_scores_have_the_same_solution(name):
    """Twice, in a batch and alone, and with -0 for 0."""
    scores, _ = stacks("ties")(name, 1)
    again = solve(name, np.where(scores == 0, 0.0, scores))
    alone = jnp.asarray(scores[3].reshape(CASES[name].shape), jnp.float32)
    assert np.array_equal(solve(name, scores), again)
    assert np.array_equal(flat(CASES[name].solver(alone)[None])[0], again[3])


@BY_NAME
def test_bad_scores_are_named(name):
    case = CASES[name]
    bad = jnp.zeros((STACK, *case.shape)).at[2].set(jnp.nan)
    with pytest.raises(Exception, match=r"is nan.*instance 2 of the batch"):
        jax.block_until_ready(compiled(name)(bad))
    with pytest.raises(TypeError, match="scores are floating-point numbers"):
        case.solver(jnp.zeros(case.shape, int))
    with pytest.raises(TypeError, match="derivative"):
        jax.grad(lambda theta: case.solver(theta).sum())(jnp.ones(case.shape))
