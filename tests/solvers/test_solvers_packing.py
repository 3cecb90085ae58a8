"""Knapsacks against enumeration, ties included, and against SciPy's mixed-integer solver."""

import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp
from support import refuses, sized, table

import diffperturb as dp
from diffperturb.solvers.packing import _bundles, _pack


def instances(n, d, most, seed, ties):
    """Scores, weights, capacities and counts of n instances."""
    rng = np.random.default_rng(seed)
    theta = rng.integers(-2, 4, (n, d)) if ties else rng.normal(0.3, 1, (n, d))
    return theta.astype(np.float32), rng.integers(0, 9, (n, d)), rng.integers(0, most, n), rng.integers(0, 4, (n, d))


@cache
def solve():
    return jax.jit(jax.vmap(lambda knapsack, theta: knapsack.solve(theta)))


@table({"one piece": (10, False), "several pieces": (5, True)})
@pytest.mark.parametrize("ties", [False, True])
def test_the_packing_is_the_first_of_the_best(row, ties):
    """Each instance has weights, counts and a capacity of its own; of the best packings, the last one in the list."""
    (d, bounded), count = row, sized(75, 225)
    theta, weights, capacity, counts = instances(count, d, 40, d, ties)
    y = np.asarray(solve()(dp.Knapsack(weights, capacity, counts if bounded else None, max_capacity=40), theta))
    grid = np.array(list(itertools.product(range(4 if bounded else 2), repeat=d)))  # in lexicographic order
    allowed = np.all(grid <= counts[:, None], axis=2) if bounded else True
    worth = np.where((weights @ grid.T <= capacity[:, None]) & allowed, theta @ grid.T, -np.inf)
    best = (worth >= worth.max(axis=1, keepdims=True) - 1e-5) & ~((theta <= 0) @ (grid.T > 0))
    last = best.shape[1] - 1 - np.argmax(best[:, ::-1], axis=1)
    assert np.array_equal(y, grid[last])
    for k in range(10):
        one = dp.Knapsack(weights[k], capacity[k], counts[k] if bounded else None)
        packings = np.asarray(one.vertices((d,)))
        assert np.array_equal(packings, grid[np.isfinite(worth[k])])
        assert np.isclose(one.radius((d,)), np.linalg.norm(packings, axis=1).max())


@pytest.mark.parametrize("bounded", [False, True])
def test_forty_items_reach_the_value_of_scipy(bounded):
    theta, weights, capacity, counts = instances(sized(20, 100), 40, 100, 7, False)
    weights = weights + 3
    bounds = counts if bounded else None
    y = np.asarray(solve()(dp.Knapsack(weights, capacity, bounds, max_capacity=100), theta))
    assert np.all(np.sum(weights * y, axis=1) <= capacity)
    for k in range(len(y)):
        upper = np.ones(40) if bounds is None else bounds[k]
        fits = LinearConstraint(weights[k], -np.inf, capacity[k])
        options = {"mip_rel_gap": 0}
        truth = milp(-theta[k], integrality=np.ones(40), bounds=Bounds(0, upper), constraints=fits, options=options)
        assert np.isclose(y[k] @ theta[k], -truth.fun, rtol=1e-5, atol=1e-5) and np.all(y[k] <= upper)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_dtype_is_kept_under_strict_promotion(dtype):
    """Under jit and nested vmap, with weights that are known and that are traced."""
    with jax.enable_x64(dtype == jnp.float64), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        batch = jax.random.normal(jax.random.key(1), (2, 3, 5), dtype)
        for counts in (None, np.array([1, 2, 0, 3, 1])):
            known = dp.Knapsack(np.array([2.0, 1.0, 3.0, 4.0, 2.0]), 7, counts)
            out = np.asarray(jax.jit(jax.vmap(jax.vmap(known)))(batch))
            assert out.dtype == dtype and np.all(out @ known.weights <= 7)
        traced = jax.jit(lambda knapsack, batch: jax.vmap(jax.vmap(knapsack))(batch))(known, batch)
        assert traced.dtype == dtype and np.array_equal(out, traced)


bag = dp.Knapsack(weights=jnp.array([2.0, 1.0, 7.0]), capacity=10, counts=jnp.array([3, 5, 1]))
knapsack = dp.Knapsack(weights=jnp.array([10, 20, 30, 1]), capacity=50)
SOLVED = {
    "plain": (knapsack, [60, 100, 120, -5], [0, 1, 1, 0]),
    "a gap": (knapsack, [1, 1, 2, 0], [1, 0, 1, 0]),  # 1 + 2 by items 0 and 2, or 1 and 2
    "ties": (dp.Knapsack(jnp.array([1, 1, 2]), 2), [1, 1, 2], [1, 1, 0]),
    "no weight, or too heavy": (dp.Knapsack(jnp.array([0, 3]), 2), [0.1, 9], [1, 0]),
    "nothing worth it": (knapsack, [0, -0.0, -1, 0], [0, 0, 0, 0]),
    "several pieces": (bag, [3, 1, 6], [3, 4, 0]),  # 13, more than the tent with three apples or a bottle
    "the tent": (bag, [3, 1, 9.5], [1, 1, 1]),
}


@table(SOLVED)
def test_packings_and_ties(row):
    solver, theta, y = row
    assert solver(jnp.array(theta, jnp.float32)).tolist() == y


def test_a_capacity_below_the_size_of_the_table():
    values, weights = jnp.array([60.0, 100.0, 120.0, -5.0]), jnp.array([10, 20, 30, 1])
    assert _pack(values, weights, jnp.array(50), 50).tolist() == [False, True, True, False]
    assert _pack(values, weights, jnp.array(40), 50).tolist() == [True, False, True, False]


def test_bundles_make_up_every_number():
    for n, bundles in enumerate(np.asarray(_bundles(jnp.arange(20), 19))):
        sums = {sum(subset) for k in range(6) for subset in itertools.combinations(bundles, k)}
        assert sums == set(range(n + 1)) and np.all(np.diff(bundles) <= 0)


@cache
def tight():
    weights = jnp.array([1, 2, 3])
    return jax.jit(lambda capacity, theta: dp.Knapsack(weights, capacity, max_capacity=6)(theta))


def test_one_program_serves_all_capacities():
    assert [tight()(c, jnp.ones(3)).sum() for c in (0, 1, 3, 6)] == [0, 1, 2, 3]


def test_more_capacity_is_worth_more_up_to_the_relaxation():
    rng = np.random.default_rng(3)
    weights = rng.integers(5, 25, 12)
    theta = jnp.asarray(weights * rng.uniform(0.4, 1.6, 12), jnp.float32)
    capacities = np.arange(weights.sum() + 1)
    size = len(capacities)
    by_capacity = jax.vmap(lambda c: dp.inner(dp.Knapsack(weights, c, max_capacity=size)(theta), theta))
    best = jax.jit(by_capacity)(jnp.asarray(capacities))
    order = np.argsort(-theta / weights)  # Dantzig 1957: by falling value per weight
    bound = np.interp(capacities, [0, *np.cumsum(weights[order])], [0, *np.cumsum(theta[order])])
    assert np.all(best <= bound + 1e-4) and np.all(np.diff(best) >= 0) and np.isclose(best[-1], theta.sum())


weights = jnp.array([1, 2, 3])
KNOWN = {
    "negative weight": (
        lambda: dp.Knapsack(jnp.array([1, -2, 3]), 3),
        "weights[1] is -2, expected a whole number of at least 0",
    ),
    "fraction": (lambda: dp.Knapsack(jnp.array([1.0, 2.5, 3.0]), 3), "this is a mixed-integer program"),
    "nan weight": (lambda: dp.Knapsack(jnp.array([1.0, jnp.nan]), 3), "weights[1] is nan"),
    "negative capacity": (lambda: dp.Knapsack(weights, -1), "capacity is -1"),
    "small table": (
        lambda: dp.Knapsack(weights, 9, max_capacity=5),
        "capacity is 9, expected a whole number from 0 to 5",
    ),
    "negative count": (lambda: dp.Knapsack(weights, 3, jnp.array([1, -1, 1])), "counts[1] is -1"),
    "shape of weights": (lambda: dp.Knapsack(weights, 3)(jnp.zeros(4)), "weights has shape (3,), expected (4,)"),
    "two capacities": (lambda: dp.Knapsack(weights, jnp.array([3, 4]))(jnp.zeros(3)), "use jax.vmap for a batch"),
    "truth values": (lambda: dp.Knapsack(weights > 1, 3), "weights has dtype bool"),
    "nan score": (lambda: dp.Knapsack(weights, 3)(jnp.array([1.0, jnp.nan, 0.0])), "theta[1] is nan"),
}


@cache
def heavier():
    return jax.jit(jax.vmap(lambda w: dp.Knapsack(w, 4)(jnp.ones(3))))


TRACED = {
    "no size": (lambda: jax.jit(lambda c: dp.Knapsack(weights, c)(jnp.ones(3)))(3), "pass max_capacity="),
    "beyond the table": (lambda: tight()(7, jnp.ones(3)), "capacity is 7, expected a whole number from 0 to 6"),
    "fraction": (
        lambda: heavier()(jnp.array([[1.0, 1.0, 1.0], [1.0, 0.5, 1.0]])),
        "weights[1] is 0.5, expected a whole number of at least 0; with fractions",
    ),
}


@table(KNOWN)
def test_what_known_numbers_refuse(row):
    refuses(*row)


@table(TRACED)
def test_what_the_run_refuses(row):
    refuses(*row)
