"""Argmax, top-k, ranking, sorting and binary choice: truth, ties, dtypes, and what is refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import refuses, table

from diffperturb.foundations.solver import inner
from diffperturb.solvers._runtime.sorting import (
    mark_largest,
    mark_largest_in_xla,
    order_rows,
    rank_in_xla,
    rank_rows,
)
from diffperturb.solvers.selection import Argmax, BinaryChoice, Ranking, Sorting, TopK

SOLVERS = {
    "argmax": Argmax(),
    "top 1": TopK(1),
    "top 3": TopK(3),
    "ranking": Ranking(),
    "ranking with v": Ranking(jnp.array([2.0, -1.0, 0.0, 0.5, 0.5])),
    "choice": BinaryChoice(),
}


@table(SOLVERS)
def test_the_solution_is_the_best_vertex(row):
    """200 scores: the value is the best over all vertices, and the solution one of them; the stated facts hold."""
    corners, theta = row.vertices((5,)), jax.random.normal(jax.random.key(0), (200, 5))
    y = jax.jit(jax.vmap(row.solve))(theta)
    assert jnp.allclose(jnp.sum(y * theta, axis=1), jnp.max(theta @ corners.T, axis=1), atol=1e-5)
    assert jnp.all(jnp.any(jnp.all(y[:, None] == corners, axis=2), axis=1))
    assert jnp.allclose(jnp.max(jnp.linalg.norm(corners, axis=1)), row.radius((5,)))
    if (plane := row.hyperplane((5,))) is not None:
        assert jnp.allclose(corners @ plane[0], plane[1])
    assert not row.binary or set(np.unique(corners)) <= {0, 1}


@table(
    {
        "argmax": (Argmax(), [3.0, 3.0], [1, 0]),
        "top-k": (TopK(2), [5.0, 5.0, 5.0], [1, 1, 0]),
        "-0 and 0": (TopK(1), [-0.0, 0.0, -1.0], [1, 0, 0]),
        "ranking": (Ranking(), [5.0, 5.0], [1, 2]),
        "zero is not chosen": (BinaryChoice(), [0.0, -0.0, 1.0], [0, 0, 1]),
        "no tie": (Ranking(), [0.3, -1.0, 2.0], [2, 1, 3]),
        "argmax as a ranking": (Ranking(jnp.array([0.0, 0.0, 1.0])), [0.3, -1.0, 2.0], [0, 0, 1]),
        "sorting": (Sorting(), [0.3, -1.0, 2.0], [-1.0, jnp.float32(0.3), 2.0]),
    }
)
def test_ties_and_known_solutions(row):
    solver, theta, y = row
    assert solver(jnp.array(theta)).tolist() == y


def test_the_value_of_a_ranking_has_the_sorted_scores_as_gradient():
    theta = jnp.array([0.3, -1.0, 2.0])
    slope = jax.grad(lambda v: inner(Ranking(v).solve(theta), theta))(jnp.array([1.0, 2.0, 3.0]))
    assert slope.tolist() == sorted(theta.tolist())


TIED = np.round(np.asarray(jax.random.normal(jax.random.key(2), (5000, 6))), 1)  # many ties, of -0 and 0 too


@pytest.mark.parametrize("k", [1, 3, 6])
def test_numpy_and_xla_mark_the_same_entries(k):
    in_xla = jax.jit(jax.vmap(partial(mark_largest_in_xla, k)))(TIED)
    assert np.array_equal(mark_largest(k, TIED), in_xla)


def test_numpy_and_xla_rank_alike():
    assert np.array_equal(order_rows(TIED), jnp.argsort(TIED, axis=1, stable=True))
    in_xla = jax.jit(jax.vmap(rank_in_xla))(TIED)
    for precision in (np.float32, np.float64):
        assert np.array_equal(rank_rows(TIED.astype(precision)), in_xla)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtypes_stay_under_strict_promotion(dtype):
    """In both precisions, under jit and vmap; a batch has the solutions of its instances."""
    with jax.enable_x64(dtype == jnp.float64), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        batch = jax.random.normal(jax.random.key(1), (7, 5), dtype)
        for solver in (*SOLVERS.values(), Sorting()):
            out = jax.jit(jax.vmap(solver))(batch)
            assert out.dtype == dtype and out.shape == (7, 5)
            assert jnp.all(out == jnp.stack([solver(theta) for theta in batch]))


@table(
    {
        "k above d": (lambda: TopK(6)(jnp.zeros(5)), "k is 6"),
        "k of zero": (lambda: TopK(0)(jnp.zeros(5)), "k is 0"),
        "a batch": (lambda: Argmax()(jnp.zeros((2, 5))), "use jax.vmap for a batch"),
        "a reference of another length": (
            lambda: Ranking(jnp.ones(4))(jnp.zeros(5)),
            "the reference vector v has shape (4,), expected (5,)",
        ),
        "NaN": (lambda: Ranking()(jnp.array([1.0, jnp.nan])), "theta[1] is nan"),
        "whole numbers": (lambda: Argmax()(jnp.array([1, 2])), "theta.astype(float)"),
    }
)
def test_selection_refuses(row):
    refuses(*row)
