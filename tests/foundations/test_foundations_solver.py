"""The solver contract: what a solver returns, states, and refuses."""

import jax
import jax.numpy as jnp
import pytest
from support import refuses, table

import diffperturb as dp
from diffperturb.foundations.solver import Minimize, Solver, Vertices, as_maximizer, as_solver, check_label, inner

square = Vertices(jnp.array([[1.0, 1], [-1, 1], [-1, -1], [1, -1]]))
cheapest = dp.minimize(square)
ones = jnp.ones(2)


def moved(points):
    return inner(Vertices(points).fixed_oracle.solve(ones), ones)


REFUSED = {
    "shape": (lambda: square(jnp.zeros(3)), "theta has shape (3,), expected (2,), that of one point"),
    "nan": (lambda: square(jnp.array([jnp.nan, 0])), "theta[0] is nan"),
    "nan in jit": (lambda: jax.jit(square)(jnp.array([jnp.nan, 0])), "theta[0] is nan"),
    "derivative": (lambda: jax.grad(lambda t: square(t).sum())(ones), "piecewise constant"),
    "derivative in points": (lambda: jax.grad(moved)(square.points), "the numbers that Vertices holds"),
    "infinite costs": (lambda: cheapest(jnp.array([0.0, jnp.inf])), "theta[1] is inf"),
    "shape of costs": (lambda: cheapest(jnp.zeros(3)), "expected (2,)"),
    "scores, named": (lambda: square.scores(jnp.array([0.0, jnp.nan]), "costs"), "costs[1] is nan"),
    "nothing to minimize": (lambda: dp.minimize(dp.Sorting()), "Sorting is not a maximizer of <y, theta>: there is"),
    "short": (lambda: as_solver(lambda t: t[:1])(jnp.zeros(3)), "returned shape (1,) for scores of shape (3,)"),
    "infinite": (lambda: as_solver(lambda t: t / 0)(ones), "expected finite numbers"),
    "a class": (lambda: as_solver(Vertices), "expected a Solver such as Argmax()"),
    "a number": (lambda: as_solver(3), "expected a Solver such as Argmax()"),
    "no maximizer": (lambda: as_maximizer(dp.Sorting(), "no maximum"), "Sorting is not a maximizer of <y, theta>: no"),
    "no solve": (lambda: Solver()(ones), "Solver must define solve(theta)"),
    "no radius": (lambda: as_solver(jnp.sign).radius((2,)), "Function states no radius"),
    "no vertices": (lambda: as_solver(jnp.sign).vertices((2,)), "Function states no vertices"),
    "a label of nan": (lambda: check_label(square, jnp.array([jnp.nan, 1]), ones), "not in the polytope of Vertices"),
    "a long label": (lambda: check_label(square, jnp.ones(3), ones), "the label y has shape (3,), expected (2,)"),
    "off the hyperplane": (lambda: check_label(dp.Argmax(), ones, ones), "not in the polytope of Argmax"),
    "not binary": (lambda: check_label(dp.BinaryChoice(), 2 * ones, ones), "not in the polytope of BinaryChoice"),
    "in jit": (
        lambda: jax.jit(lambda y: check_label(dp.Argmax(), y, ones))(ones),
        "not in the polytope of Argmax",
    ),
}


@table(REFUSED)
def test_refused(row):
    call, words = row
    refuses(call, words)


def test_inner_product():
    assert inner(jnp.eye(2), jnp.array([[1.0, 5.0], [7.0, 2.0]])) == 3.0


def test_vertices():
    assert square(jnp.array([0.3, -2.0])).tolist() == [1, -1]
    assert jnp.allclose(square.radius((2,)), jnp.sqrt(2)) and square.vertices((2,)) is square.points
    assert jax.grad(lambda t: inner(square(jax.lax.stop_gradient(t)), t))(ones).tolist() == [1, 1]
    assert square.scores(ones).tolist() == [1, 1]


def test_plain_functions():
    assert as_solver(jnp.sign)(jnp.array([0.3, -2.0])).tolist() == [1, -1]
    assert as_solver(square) is square and as_maximizer(square, "") is square


def test_costs():
    assert cheapest(jnp.array([0.3, -2.0])).tolist() == [-1, 1]
    assert isinstance(cheapest, Minimize) and dp.minimize(cheapest) is square
    assert cheapest.sign == -1 and cheapest.oracle is square
    assert (cheapest.binary, cheapest.hyperplane((2,))) == (square.binary, None)
    assert cheapest.radius((2,)) == square.radius((2,)) and cheapest.vertices((2,)) is square.points
    assert cheapest.scores(ones).tolist() == [-1, -1]


def test_labels():
    assert check_label(square, jnp.array([1, -1]), ones).dtype == jnp.float32
    assert check_label(square, ones, ones, instead=3 * ones).tolist() == [3, 3]


def solvers():
    """Every class of solver in the package that is not a base class of others."""
    found, todo = set(), [Solver]
    while todo:
        for cls in todo.pop().__subclasses__():
            todo.append(cls)
            if cls.__module__.startswith("diffperturb.") and not cls.__name__.startswith("_"):
                found.add(cls)
    return sorted(found, key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", solvers(), ids=lambda cls: cls.__name__)
def test_every_solver_defines_what_the_contract_asks_for(cls):
    assert cls.solve is not Solver.solve
