"""Every rule of logic against the list of its truth assignments, with what it states and refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import refuses, sized, table

import diffperturb as dp
from diffperturb.solvers.logic import _and, _or

OPERATORS = ("and", "or", "xor", "nand", "nor", "xnor")
RULES = {
    "at most 1": dp.AtMost(1),
    "at most 3": dp.AtMost(3),
    "at least 1": dp.AtLeast(1),
    "at least 3": dp.AtLeast(3),
    "even": dp.Parity(),
    "odd": dp.Parity(odd=True),
    **{name: dp.Logic(name) for name in OPERATORS},
    "negated and": "and",
    "negated at most 2": "at most",
}


def rule(row, d):
    """A row of the table; negated rules mark every other variable."""
    if isinstance(row, dp.Solver):
        return row
    negated = tuple(i % 2 == 0 for i in range(d))
    return dp.Negated(dp.Logic("and") if row == "and" else dp.AtMost(2), negated)


@table(RULES)
def test_the_solution_is_a_best_truth_assignment(row):
    """Half of the scores have many ties; the stated facts are those of the list."""
    for d in (3, 6):
        normal = jax.random.normal(jax.random.key(d), (sized(25, 50), d))
        scores, solver = jnp.concatenate([normal, jnp.round(normal)]), rule(row, d)
        corners, y = np.asarray(solver.vertices((d,))), np.asarray(jax.jit(jax.vmap(solver))(scores))
        assert np.allclose(np.sum(y * scores, axis=1), np.max(scores @ corners.T, axis=1), atol=1e-5)
        assert set(map(bytes, y)) <= set(map(bytes, corners.astype(y.dtype)))
        assert np.isclose(np.linalg.norm(corners, axis=1).max(), solver.radius((d,)))
        flat = np.linalg.matrix_rank(corners - corners[0]) < d
        assert flat == (solver.hyperplane((d,)) is not None)


one_or_none = dp.Negated(dp.Argmax(), (False, False, False, True))  # z = x1 + x2 + x3
FLAT = {
    "even, 1": (dp.Parity(), 1),
    "even, 2": (dp.Parity(), 2),
    "odd, 1": (dp.Parity(odd=True), 1),
    "odd, 2": (dp.Parity(odd=True), 2),
    "all of 3": (dp.AtLeast(3), 3),
    "one or none": (one_or_none, 4),
    **{f"{name}, one input": (dp.Logic(name), 2) for name in OPERATORS},
}


@table(FLAT)
def test_all_solutions_lie_on_the_hyperplane(row):
    solver, d = row
    a, b = solver.hyperplane((d,))
    assert np.any(a != 0) and np.allclose(solver.vertices((d,)) @ a, b)


theta = [0.4, -0.2, 1.3, 0.9, -1.0]
implies = dp.Negated(dp.AtLeast(1), (True, False))
SOLVED = {
    "at most 2": (dp.AtMost(2), theta, [0, 0, 1, 1, 0]),
    "at most 2, none positive": (dp.AtMost(2), [-0.4, -0.2, -1.3], [0, 0, 0]),
    "at least 4": (dp.AtLeast(4), theta, [1, 1, 1, 1, 0]),
    "at least 2, ties": (dp.AtLeast(2), [0, 0, 0], [1, 1, 0]),
    "even": (dp.Parity(), theta, [1, 1, 1, 1, 0]),  # three are positive; -0.2 is the cheapest to change
    "odd": (dp.Parity(odd=True), theta, [1, 0, 1, 1, 0]),
    "odd, ties": (dp.Parity(odd=True), [0, 0, 0], [1, 0, 0]),
    "or": (dp.Logic("or"), [-1, -0.2, 0.5], [0, 1, 1]),
    "and": (dp.Logic("and"), [1, -0.2, 0.5], [1, 1, 1]),
    "xor": (dp.Logic("xor"), [1, 0.2, 0.5], [1, 0, 1]),
    "nand, ties": (dp.Logic("nand"), [0, 0, 0], [0, 0, 1]),
    "implies": (implies, [0.7, -0.4], [1, 1]),
    "implies nothing": (implies, [0.2, -0.4], [0, 0]),
    "none": (one_or_none, [0.3, -0.1, 0.2, -0.5], [0, 0, 0, 0]),
    "one": (one_or_none, [0.3, -0.1, 0.2, 0.5], [1, 0, 0, 1]),
}


@table(SOLVED)
def test_solutions_and_ties(row):
    solver, scores, y = row
    assert solver(jnp.array(scores, jnp.float32)).tolist() == y


def test_truth_tables():
    assert dp.Logic("and").vertices((3,)).tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 1]]
    assert _or(jnp.array([-0.3, -0.1, 0.5])).tolist() == [False, True, True]
    assert _and(jnp.array([0.3, 0.1, -0.5])).tolist() == [True, False, False]


def test_soft_xor_is_true_for_one_strong_input():
    soft = dp.Perturbed(dp.Logic("xor"), dp.Logistic(), 1.0, dp.MonteCarlo(1000))
    z = jax.jit(jax.vmap(lambda theta: soft(theta, key=jax.random.key(0))[2]))
    both, one = z(jnp.array([[-6.0, -6.0, 0.0], [6.0, -6.0, 0.0]]))
    assert both < 0.1 < 0.9 < one


@table(
    {"nand": dp.Logic("nand"), "negated or": dp.Negated(dp.Logic("or"), (True,) * 5)},
    every={
        "at most": dp.AtMost(2),
        "at least": dp.AtLeast(2),
        "parity": dp.Parity(),
        "or": dp.Logic("or"),
    },
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_dtype_is_kept_under_strict_promotion(row, dtype):
    """Under jit and nested vmap; -0 is 0."""
    with jax.enable_x64(dtype == jnp.float64), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        batch = np.random.default_rng(0).integers(-1, 2, (2, 3, 5)).astype(dtype)
        solve = jax.jit(jax.vmap(jax.vmap(row)))
        out = np.asarray(solve(batch))
        assert out.dtype == dtype and np.array_equal(out, solve(np.where(batch == 0, -0.0, batch).astype(dtype)))


REFUSED = {
    "k of 0": (lambda: dp.AtMost(0)(jnp.zeros(5)), "from 1 to 5, the number of scores d = 5"),
    "large k": (lambda: dp.AtLeast(6)(jnp.zeros(5)), "k is 6"),
    "operator": (
        lambda: dp.Logic("implies"),
        "operator is 'implies', expected one of and, or, xor, nand, nor, xnor",
    ),
    "one score": (lambda: dp.Logic("and")(jnp.zeros(1)), "at least one input and of the output"),
    "a batch": (lambda: dp.Logic("and")(jnp.zeros((2, 3))), "use jax.vmap for a batch"),
    "marks": (
        lambda: dp.Negated(dp.Parity(), (True, False))(jnp.zeros(3)),
        "Negated: theta has shape (3,), expected (2,)",
    ),
    "no truth values": (lambda: dp.Negated(dp.Ranking(), (True,)), "Ranking is not a solver of 0/1 decisions"),
    "nan": (lambda: dp.Parity()(jnp.array([0.0, jnp.nan])), "theta[1] is nan"),
    "too many": (lambda: dp.Parity().vertices((30,)), "too many to list"),
}


@table(REFUSED)
def test_what_rules_refuse(row):
    refuses(*row)
