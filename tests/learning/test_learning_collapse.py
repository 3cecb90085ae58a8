"""Distances to decision boundaries, exact and along lines, and the report on a batch."""

import jax
import jax.numpy as jnp
from support import refuses, table

import diffperturb as dp
from diffperturb.learning import boundary_distance, collapse_report

KEY, THETA = jax.random.key(1), jnp.array([2.0, 1.5, 0.0, -1.0])

EXACT = {
    "top-k": (dp.TopK(2), THETA, 1.5 / 2**0.5),
    "argmax": (dp.Argmax(), THETA, 0.5 / 2**0.5),
    "choice": (dp.BinaryChoice(), jnp.array([3.0, -0.2]), 0.2),
    "costs": (dp.minimize(dp.Argmax()), THETA, 1 / 2**0.5),
}


@table(EXACT)
def test_the_exact_distance(row):
    solver, theta, distance = row
    assert jnp.allclose(boundary_distance(solver, theta), distance)


@table({"top-k": dp.TopK(2), "ranking": dp.Ranking(), "costs": dp.minimize(dp.TopK(2))})
def test_lines_give_an_upper_bound(row):
    exact = boundary_distance(row, THETA)
    found = boundary_distance(row, THETA, key=KEY, directions=200)
    assert exact * 0.999 <= found < 2.5 * exact


def test_the_report():
    healthy = jax.random.normal(KEY, (100, 4))
    tied = healthy.at[:30, 1].set(healthy[:30, 0])
    report = jax.jit(lambda thetas: collapse_report(dp.Ranking(), thetas))
    assert report(healthy).ties == 0 and jnp.allclose(report(tied).ties, 0.3)
    assert report(jnp.zeros((100, 4))).ties == 1
    assert jnp.allclose(report(1e-6 * healthy).distance, 1e-6 * report(healthy).distance)


def test_a_solver_without_boundaries_is_refused():
    refuses(lambda: boundary_distance(dp.Sorting(), THETA), "no decision boundaries")
