"""What would be wrong without a word: ties that platforms break differently, derivatives of constants, huge numbers, NaN."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment
from support import refuses, sized, table

import diffperturb as dp
from diffperturb.foundations.pytrees import pytree_dataclass
from diffperturb.foundations.solver import Minimize, Solver, check_label, with_room
from diffperturb.solvers._runtime.assignment_search import sums_exactly
from diffperturb.solvers._runtime.callbacks import only_in_xla


def ring(n: int, directed: bool = True) -> dp.Graph:
    """n nodes in a ring, each joined with the next two, and parallel edges."""
    tails = np.tile(np.arange(n), 3)
    heads = (tails + np.repeat([1, 2, 1], n)) % n
    return dp.Graph(jnp.asarray(tails, jnp.int32), jnp.asarray(heads, jnp.int32), n, directed)


# Every solver that has a form for the host and one for XLA: the solver, the shape of its scores, and whether they are <= 0.
TWO_FORMS = {
    "top-k": (dp.TopK(7), (40,), False),
    "ranking": (dp.Ranking(), (9,), False),
    "sorting": (dp.Sorting(), (9,), False),
    "assignment of 4": (dp.Assignment(), (4, 4), False),
    "assignment of 12": (dp.Assignment(), (12, 12), False),
    "wide assignment": (dp.Assignment(), (3, 6), False),
    "tall assignment": (dp.Assignment(), (7, 4), False),
    "partial matching": (dp.PartialMatching(), (5, 5), False),
    "two pairs": (dp.PartialMatching(2), (4, 5), False),
    "spanning tree": (dp.SpanningTree(ring(6, directed=False)), (18,), False),
    "path": (dp.ShortestPath(ring(7), 0, 5), (21,), True),
    "grid path": (dp.GridPath(), (5, 6), True),
    "grid path of 4 neighbors": (dp.GridPath(neighbors=4), (6, 5), True),
}


IN_DOUBLE = ("ranking", "assignment of 4", "wide assignment", "two pairs", "path")


@table(
    {name: (*row, jnp.float32) for name, row in TWO_FORMS.items()}
    | {f"{name}, double": (*TWO_FORMS[name], jnp.float64) for name in IN_DOUBLE},
    {f"{name}, double": (*row, jnp.float64) for name, row in TWO_FORMS.items()},
)
def test_both_forms_break_ties_alike(row):
    """Whole numbers full of ties, 40 of each kind: the host and XLA return the same solution."""
    solver, shape, below, dtype = row
    with jax.enable_x64(dtype == jnp.float64):
        rng = np.random.default_rng(shape)
        drawn = np.concatenate([rng.integers(-most, most + 1, (sized(40, 400), *shape)) for most in (1, 2, 5)])
        scores = jnp.asarray(-np.abs(drawn) if below else drawn, dtype)
        on_host = jax.jit(jax.vmap(lambda theta: solver.solve(theta)))(scores)
        with only_in_xla():
            in_xla = jax.jit(jax.vmap(lambda theta: solver.solve(theta)))(scores)
    assert on_host.dtype == dtype
    assert np.array_equal(on_host, in_xla)


def test_the_assignment_among_equals_is_that_of_scipy():
    for shape in ((3, 3), (6, 6), (3, 5), (5, 2)):
        scores = np.random.default_rng(shape).integers(-2, 3, (sized(40, 400), *shape)).astype(np.float32)
        y = np.asarray(jax.jit(jax.vmap(dp.Assignment()))(scores))
        for one, theta in zip(y, scores, strict=True):
            assert np.array_equal(np.argwhere(one), np.stack(linear_sum_assignment(-theta), axis=1))
    assert np.array_equal(dp.Assignment()(jnp.zeros((4, 4))), np.eye(4))


def test_which_sums_are_exact():
    """Whole numbers up to 2,048, multiples of a power of 2, and zeros; not numbers with all their digits."""
    rng = np.random.default_rng(0)
    whole, any_number = rng.integers(-2048, 2049, (5, 4, 4)).astype(np.float32), rng.normal(size=(5, 4, 4))
    for xp in (np, jnp):
        assert xp.all(sums_exactly(xp.asarray(whole), xp)) and xp.all(sums_exactly(xp.asarray(whole * 2.0**-9), xp))
        assert xp.all(sums_exactly(xp.zeros((1, 2, 2), np.float32), xp))
        assert not xp.any(sums_exactly(xp.asarray(any_number, np.float32), xp))
        one_digit_more = xp.asarray(whole).at[:, 0, 0].set(4097.5) if xp is jnp else whole
        assert xp is np or not xp.any(sums_exactly(one_digit_more, xp))


POINTS = jnp.array([[1.0, 1.0, 0.0], [-1.0, 2.0, 0.5], [0.0, -3.0, 1.0]])
LINE = dp.Graph(jnp.array([0, 0, 1]), jnp.array([1, 2, 2]), 3)
ROWS = jnp.array([[1.0, 2.0, 1.0]])
# One solver of each public class, with its numbers as arrays where it holds any.
HELD = {
    "Argmax": dp.Argmax(),
    "Assignment": (dp.Assignment(), (3, 3)),
    "AtLeast": dp.AtLeast(1),
    "AtMost": dp.AtMost(1),
    "BinaryChoice": dp.BinaryChoice(),
    "External": dp.external(lambda theta, w: theta * w == (theta * w).max(), data=(jnp.array([1.0, 2.0, 1.0]),)),
    "Flow": dp.Flow(LINE, 0, 2, jnp.array([3.0, 1.0, 2.0])),
    "Function": dp.Function(jnp.sign),
    "GridPath": (dp.GridPath(negative="clip"), (2, 2)),
    "GroupLassoBall": dp.GroupLassoBall(jnp.array([0, 0, 1]), 2, jnp.array(2.0)),
    "Knapsack": dp.Knapsack(jnp.array([1.0, 2.0, 3.0]), jnp.array(4.0), jnp.array([1.0, 2.0, 1.0]), max_capacity=4),
    "L1Ball": dp.L1Ball(jnp.array(2.0)),
    "L2Ball": dp.L2Ball(jnp.array(2.0)),
    "LinearProgram": dp.LinearProgram(ROWS, -ROWS[0, :1], 4 * ROWS[0, :1], -ROWS[0], 2 * ROWS[0]),
    "LinfBall": dp.LinfBall(jnp.array(2.0)),
    "Logic": dp.Logic("and"),
    "Minimize": dp.minimize(dp.Vertices(POINTS)),
    "MixedIntegerProgram": dp.MixedIntegerProgram(ROWS, -ROWS[0, :1], 4 * ROWS[0, :1], -ROWS[0], 2 * ROWS[0]),
    "Negated": dp.Negated(dp.AtLeast(1), (True, False, True)),
    "NuclearBall": (dp.NuclearBall(jnp.array(2.0)), (2, 2)),
    "Parity": dp.Parity(),
    "PartialMatching": (dp.PartialMatching(), (3, 3)),
    "Ranking": dp.Ranking(jnp.array([0.5, 3.0, -1.0])),
    "ShortestPath": dp.ShortestPath(LINE, 0, 2, negative="clip"),
    "Sorting": dp.Sorting(),
    "SpanningTree": dp.SpanningTree(LINE),
    "TopK": dp.TopK(2),
    "TravelingSalesperson": (dp.TravelingSalesperson(), (4, 4)),
    "Vertices": dp.Vertices(POINTS),
}


def readings(solver, theta):
    """What a solver is asked for: its solution, and what the perturbed solver makes of it."""
    weights = jnp.linspace(1.0, 2.0, theta.size).reshape(theta.shape)
    perturbed = dp.Perturbed(solver, epsilon=0.5, method=dp.MonteCarlo(4))
    yield lambda s: jnp.sum(weights * s(theta))
    yield lambda s: jnp.sum(
        weights * dp.Perturbed(s, epsilon=0.5, method=dp.MonteCarlo(4))(theta, key=jax.random.key(0))
    )
    if perturbed.solver.maximizes and solver.sign > 0:
        yield lambda s: dp.Perturbed(s, epsilon=0.5, method=dp.MonteCarlo(4)).max(theta, key=jax.random.key(0))


SHARED = {"GroupLassoBall", "L2Ball", "NuclearBall"}  # their derivative is declared with that of the L1 ball


@table({name: row for name, row in HELD.items() if name not in SHARED}, HELD)
def test_derivatives_in_what_a_solver_holds(row):
    """Each number that a solver holds, in every reading: its derivative is that of finite differences, or an error."""
    solver, shape = row if isinstance(row, tuple) else (row, (3,))
    theta = jax.random.normal(jax.random.key(7), shape)
    leaves, structure = jax.tree.flatten(solver)
    for i, leaf in enumerate(leaves):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            continue
        for reading in readings(solver, theta):

            def value(x, i=i, reading=reading):
                return reading(structure.unflatten([*leaves[:i], x, *leaves[i + 1 :]]))

            if not solver.differentiable:
                refuses(lambda value=value, leaf=leaf: jax.grad(value)(leaf), "the numbers that", TypeError)
                continue
            both = jax.jit(jax.value_and_grad(value))
            for along in np.eye(leaf.size).reshape(-1, *leaf.shape):
                slope = (both(leaf + 0.01 * along)[0] - both(leaf - 0.01 * along)[0]) / 0.02
                assert np.isclose(jnp.sum(both(leaf)[1] * along), slope, rtol=1e-3, atol=1e-3)


def test_the_table_of_held_numbers_is_complete():
    public = [getattr(dp, name) for name in dir(dp)] + [Minimize]
    classes = {c.__name__ for c in public if inspect.isclass(c) and issubclass(c, Solver)} - {"Solver"}
    assert classes <= set(HELD)


def test_a_field_of_your_own_is_refused_or_declared():
    @pytree_dataclass
    class Scaled(Solver):
        size: jax.Array

        def solve(self, theta):
            return self.size * dp.Argmax().solve(theta)

    @pytree_dataclass
    class Declared(Scaled):
        differentiable = ("size",)

    theta = jnp.array([1.0, 3.0])
    refuses(lambda: jax.grad(lambda size: Scaled(size)(theta).sum())(2.0), "the numbers that Scaled holds", TypeError)
    assert jax.grad(lambda size: Declared(size)(theta).sum())(2.0) == 1.0
    assert jax.jit(jax.vmap(lambda size: Scaled(size)(theta)))(jnp.arange(3.0)).shape == (3, 2)


# Solvers that add scores up, or compare them: all vertices can be listed.
SUMS = {
    "vertices": (dp.Vertices(POINTS), (3,)),
    "long vertices": (dp.Vertices(1e6 * POINTS), (3,)),
    "knapsack": (dp.Knapsack(np.array([3, 1, 4, 1, 5, 0]), 8), (6,)),
    "bounded knapsack": (dp.Knapsack(np.array([3, 1, 4, 1, 2]), 8, np.array([1, 2, 1, 3, 2])), (5,)),
    "tour": (dp.TravelingSalesperson("held-karp"), (5, 5)),
    "tour by cuts": (dp.TravelingSalesperson("cuts"), (5, 5)),
    "assignment": (dp.Assignment(), (4, 4)),
    "partial matching": (dp.PartialMatching(), (3, 4)),
    "two pairs": (dp.PartialMatching(2), (3, 4)),
    "spanning tree": (dp.SpanningTree(ring(4, directed=False)), (12,)),
    "logic": (dp.Logic("and"), (5,)),
    "logic, or": (dp.Logic("or"), (5,)),
    "parity": (dp.Parity(), (5,)),
    "at most": (dp.AtMost(2), (5,)),
    "at least": (dp.AtLeast(2), (5,)),
    "top-k": (dp.TopK(2), (5,)),
    "l1 ball": (dp.L1Ball(), (4,)),
    "program": (dp.LinearProgram(jnp.array([[1.0, 2, 1], [3, 1, 0]]), upper=jnp.array([4.0, 3]), high=2.0), (3,)),
}


ADDING_UP = ("vertices", "long vertices", "knapsack", "bounded knapsack", "tour", "two pairs", "logic", "program")


@table({name: SUMS[name] for name in ADDING_UP}, SUMS)
def test_huge_scores(row):
    """Up to the largest number of single precision: the value is that of the best vertex, in double precision."""
    solver, shape = row
    corners = np.asarray(solver.vertices(shape), float).reshape(-1, int(np.prod(shape)))
    solve = jax.jit(jax.vmap(solver))
    drawn = np.random.default_rng(shape).uniform(-1, 1, (sized(20, 200), corners.shape[1]))
    for size in (1e-30, 1.0, 1e30, 1e35, 1e37, 1e38, 3.4e38):
        scores = (size * drawn).astype(np.float32)
        y = np.asarray(solve(scores.reshape(-1, *shape)), float).reshape(scores.shape)
        value, truth = np.sum(y * scores, axis=1), np.max(scores.astype(float) @ corners.T, axis=1)
        assert np.allclose(value / size, truth / size, rtol=1e-5, atol=1e-5 * np.abs(corners).max()), size


def test_with_room():
    """Exactly the same scores where their sums are finite, a power of 2 less where they are not."""
    scores = jnp.array([1.0, -3e-30, 4e37])
    assert np.array_equal(with_room(scores, 3), scores)
    huge = jnp.array([3e38, -2e38, 1.0])
    assert np.array_equal(with_room(huge, 3) * 8, huge) and jnp.isfinite(jnp.sum(jnp.abs(with_room(huge, 3))))
    assert jnp.isfinite(jnp.sum(1e10 * with_room(huge, 3, 1e10)))
    assert with_room(jnp.zeros(0), 0).shape == (0,)


WRONG = {
    "points of nan": (lambda: dp.Vertices(jnp.array([[0.0, 1.0], [jnp.nan, 2.0]])), "Vertices: points[1, 0] is nan"),
    "infinite points": (lambda: dp.Vertices(jnp.array([[0.0, jnp.inf]])), "points[0, 1] is inf, expected numbers from"),
    "points too long": (lambda: dp.Vertices(jnp.array([[0.0, 1e30]])), "expected numbers from -9.22e+18 to 9.22e+18"),
    "traced points": (
        lambda: jax.jit(lambda p: dp.Vertices(p)(jnp.ones(2)))(jnp.array([[0.0, jnp.nan]])),
        "points[0, 1] is nan",
    ),
    "points by vmap": (
        lambda: jax.vmap(lambda p: dp.Vertices(p)(jnp.ones(2)))(jnp.array([[[0.0, 1.0]], [[jnp.nan, 1.0]]])),
        "points[0, 0] is nan",
    ),
    "v of nan": (lambda: dp.Ranking(jnp.array([1.0, jnp.nan])), "Ranking: v is [ 1. nan], expected finite numbers"),
    "v too short": (lambda: dp.Ranking(jnp.ones(2))(jnp.ones(3)), "v has shape (2,), expected (3,)"),
    "traced v": (lambda: jax.jit(lambda v: dp.Ranking(v)(jnp.ones(2)))(jnp.array([1.0, jnp.inf])), "Ranking: v is"),
    "ranks in half precision": (lambda: dp.Ranking()(jnp.zeros(2049, jnp.float16)), "whole numbers up to 2048"),
    "data of nan": (
        lambda: dp.external(np.sign, data=(jnp.array([1.0, jnp.nan]),)),
        "data hold NaN at (1,) of an array of shape (2,)",
    ),
    "traced data": (
        lambda: jax.vmap(lambda w: dp.external(lambda t, w: t * w, data=(w,))(jnp.ones(2)))(jnp.array([1.0, jnp.nan])),
        "data hold NaN at () of an array of shape ()",
    ),
    "capacity of nan": (lambda: dp.Flow(LINE, 0, 2, jnp.array([3.0, jnp.nan, 2.0]))(jnp.ones(3)), "the capacity nan"),
    "bound of nan": (lambda: dp.LinearProgram(ROWS, upper=jnp.nan)(jnp.ones(3)), "upper = nan"),
    "weights of nan": (lambda: dp.Knapsack(jnp.array([1.0, jnp.nan]), 3), "weights[1] is nan"),
}


@table(WRONG)
def test_wrong_numbers_are_refused(row):
    refuses(*row)


def test_infinite_data_are_fine():
    """A limit may be infinite; only NaN is never meant."""
    bounded = dp.external(lambda theta, most: np.minimum(theta, most), data=(jnp.array([0.5, jnp.inf]),))
    assert bounded(jnp.array([2.0, 2.0])).tolist() == [0.5, 2.0]


def test_heuristics_say_so():
    greedy = dp.external(lambda theta: theta == theta.max(), (3,), exact=False, binary=True)
    assert not greedy.exact and not dp.minimize(greedy).exact and not dp.Negated(greedy, (True, False, False)).exact
    costly = dp.external(lambda costs: costs == costs.min(), (3,), exact=False, costs=True)
    assert not costly.exact and not costly.oracle.exact
    assert dp.external(np.sign).exact and dp.Argmax().exact and dp.minimize(dp.TopK(2)).exact


GROUPS = dp.GroupLassoBall(jnp.array([[0, 0, 1], [1, 2, 2], [0, 1, 2]]), 3, 2.0)
# Solvers that know which points belong to their polytope: the shape of a point, and a factor that leads out of it.
MEMBERS = {
    "ranking": (dp.Ranking(), (5,)),
    "ranking of v": (dp.Ranking(jnp.array([0.0, -3.0, 2.0, 2.0])), (4,)),
    "assignment": (dp.Assignment(), (3, 3)),
    "wide assignment": (dp.Assignment(), (2, 4)),
    "partial matching": (dp.PartialMatching(), (3, 2)),
    "two pairs": (dp.PartialMatching(2), (3, 3)),
    "l1 ball": (dp.L1Ball(2.0), (4,)),
    "box": (dp.LinfBall(2.0), (4,)),
    "l2 ball": (dp.L2Ball(2.0), (2, 2)),
    "groups": (GROUPS, (3, 3)),
    "nuclear ball": (dp.NuclearBall(2.0), (3, 2)),
    "costs": (dp.minimize(dp.Assignment()), (3, 3)),
}


@table({name: MEMBERS[name] for name in ("ranking of v", "wide assignment", "two pairs", "groups")}, MEMBERS)
def test_points_of_the_polytope(row):
    """Solutions and their means belong to it; what lies 10 % beyond a solution, or is worth more than any, does not."""
    solver, shape = row
    scores = jax.random.normal(jax.random.key(3), (20, *shape))
    contains = jax.jit(jax.vmap(solver.oracle.contains))
    solve = jax.jit(jax.vmap(solver.oracle.solve))
    y, weights = solve(scores), jax.random.dirichlet(jax.random.key(4), jnp.ones(20), (20,))
    assert jnp.all(contains(y)) and jnp.all(contains(jnp.tensordot(weights, y, 1)))
    center = jnp.mean(solve(jnp.concatenate([scores, -scores])), axis=0)
    beyond = y + 0.1 * (y - center)
    away = jnp.sum(((y - center) ** 2).reshape(20, -1), axis=1) > 1e-6
    assert not jnp.any(contains(beyond) & away)
    drawn = y + 0.3 * jax.random.normal(jax.random.key(5), y.shape)
    best = jnp.sum((scores * y).reshape(20, -1), axis=1)
    proved = jnp.sum((scores * drawn).reshape(20, -1), axis=1) > best * (1 + 1e-2) + 0.1
    assert not jnp.any(contains(drawn) & proved)


def test_a_label_outside_of_a_ball_or_off_the_ranks_is_refused():
    theta = jnp.zeros(3)
    refuses(lambda: check_label(dp.L2Ball(), jnp.array([1.0, 1.0, 0.0]), theta), "not in the polytope of L2Ball")
    refuses(lambda: check_label(dp.Ranking(), jnp.array([0.0, 3.0, 3.0]), theta), "not in the polytope of Ranking")
    assert check_label(dp.Ranking(), jnp.array([2.0, 2.0, 2.0]), theta).tolist() == [2, 2, 2]
    assert dp.SpanningTree(LINE).contains(theta) is None and dp.TopK(2).contains(theta) is None
