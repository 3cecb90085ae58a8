"""Grid paths: against enumeration, Dijkstra's algorithm and mazes, in both implementations; and what is refused."""

import heapq
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import refuses, sized, table

from diffperturb.expectation.monte_carlo import MonteCarlo
from diffperturb.expectation.perturbed import Perturbed
from diffperturb.foundations.solver import inner, minimize
from diffperturb.noise.distributions import Normal
from diffperturb.solvers._runtime.grid_search import (
    _grid_distances,
    _grid_sweeps,
    grid_offsets,
    grid_path_in_xla,
    grid_paths_on_host,
)
from diffperturb.solvers.grid_paths import GridPath

COSTS = jnp.array([[1.0, 1.0, 9.0, 1.0], [9.0, 9.0, 1.0, 9.0], [1.0, 1.0, 1.0, 1.0]])


def test_distances_and_steps():
    distances, steps = _grid_distances(COSTS, 0, True)
    assert distances[2, 3] == 4 and steps[2, 3] == 3  # (0, 0), (0, 1), (1, 2), (2, 3)
    assert _grid_distances(COSTS, 0, False)[0][2, 3] == 14  # without diagonals: through a node of cost 9
    spread, order = _grid_sweeps(np.asarray(COSTS)[..., None], np.array([0]), True, True)
    assert np.array_equal(spread[1:-1, 1:-1, 0], distances) and np.array_equal(order[1:-1, 1:-1, 0], steps)


def test_paths_of_cost_zero_have_the_fewest_nodes():
    flat = grid_path_in_xla(True, jnp.zeros((3, 5)), jnp.array([0, 4]))
    assert flat.tolist() == [[1, 1, 1, 1, 1], [0] * 5, [0] * 5]


@pytest.mark.parametrize("eight", [False, True])
def test_numpy_and_xla_return_the_same_maps(eight):
    """500 maps of small whole numbers, where nearly every map has ties, with any end points."""
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 4, (500, 6, 7)).astype(np.float32)
    ends = rng.integers(0, 42, (500, 2)).astype(np.int32)
    in_xla = jax.jit(jax.vmap(partial(grid_path_in_xla, eight)))(maps, ends)
    assert np.array_equal(grid_paths_on_host(eight, maps, ends), in_xla)


def test_known_paths():
    shortest = minimize(GridPath())
    y = shortest(COSTS)
    assert inner(y, COSTS) == 4 and jnp.array_equal(GridPath()(-COSTS), y)
    assert shortest(jnp.ones((1, 1))).tolist() == [[1]]  # start and end are one node
    elsewhere = jax.vmap(lambda end: minimize(GridPath(end=end))(COSTS))(jnp.array([[0, 3], [2, 0]]))  # one program
    assert elsewhere[0, 0, 3] == 1 and elsewhere[1, 2, 0] == 1 and jnp.sum(elsewhere[0] * COSTS) == 4


def test_the_mean_path_spreads_with_the_temperature():
    costs = jnp.asarray(np.random.default_rng(3).choice([0.8, 1.2, 5.3, 7.7, 9.2], (12, 12)).astype(np.float32))
    walk = minimize(GridPath(negative="clip"))
    mean = lambda eps: Perturbed(walk, Normal(), eps, MonteCarlo(500))(costs, key=jax.random.key(0))
    clouds = [mean(eps) for eps in (0.1, 1.0, 4.0)]
    assert all(c[0, 0] == 1 and c[-1, -1] == 1 for c in clouds)  # every path has both end points
    spread = [float(jnp.sum(c * (1 - c))) for c in clouds]
    assert spread == sorted(spread)


@table(
    {
        "(4, 5), 8 neighbors": ((4, 5), 8, (-1, -1)),
        "(4, 4), 4 neighbors": ((4, 4), 4, (1, 2)),
        "(1, 5), one row": ((1, 5), 8, (-1, -1)),
    }
)
def test_the_path_is_the_best_of_all(row):
    """On small grids: the best value over the listed vertices, with the fewest nodes; the stated facts hold on all."""
    shape, neighbors, end = row
    solver = GridPath(end=end, neighbors=neighbors)
    corners = np.asarray(solver.vertices(shape))
    theta = -np.random.default_rng(1).choice([0.0, 0.5, 1.0, 1.25, 3.0], (100, *shape)).astype(np.float32)
    y = np.asarray(jax.jit(jax.vmap(solver))(theta))
    values = np.einsum("nij,vij->nv", theta, corners)
    assert np.array_equal((y * theta).sum((1, 2)), values.max(1))
    fewest = np.where(values == values.max(1, keepdims=True), corners.sum((1, 2)), np.inf).min(1)
    assert np.array_equal(y.sum((1, 2)), fewest)  # among the best ones, the fewest nodes
    assert (y[:, None] == corners).all((2, 3)).any(1).all()
    a, b = solver.hyperplane(shape)
    assert np.all(np.tensordot(corners, a) == b) and corners.sum((1, 2)).max() <= solver.radius(shape) ** 2 + 1e-5


def dijkstra_on_grid(costs, start, end, eight):
    """The least cost of a path; Python with a heap (Dijkstra 1959)."""
    known, queue = set(), [(costs[start], start)]
    while queue:
        d, v = heapq.heappop(queue)
        if v == end:
            return d
        if v not in known:
            known.add(v)
            for a, b in grid_offsets(eight):
                u = (v[0] + a, v[1] + b)
                if u not in known and 0 <= u[0] < len(costs) and 0 <= u[1] < len(costs[0]):
                    heapq.heappush(queue, (d + costs[u], u))


def is_path(y, start, end, eight):
    """Whether a map is a path between two nodes, walked from the start without a fork, with no node beside it."""
    nodes, at = set(map(tuple, np.argwhere(y))), start
    while at in nodes:
        nodes.discard(at)
        near = [u for a, b in grid_offsets(eight) if (u := (at[0] + a, at[1] + b)) in nodes]
        if len(near) != 1:
            return not nodes and at == end
        at = near[0]
    return False


@pytest.mark.parametrize("neighbors", [8, 4])
@pytest.mark.parametrize("shape", [(12, 12), (5, 9), (20, 7)], ids=str)
def test_the_path_costs_what_dijkstra_finds(shape, neighbors):
    n, rng = sized(20, 100), np.random.default_rng([2, *shape, neighbors])
    maps = rng.uniform(0.01, 1, (n, *shape)) * rng.choice([1, 10], (n, *shape))
    begin, end = ((*map(int, rng.integers(shape)),) for _ in range(2))
    with jax.enable_x64(True):
        y = np.asarray(jax.jit(jax.vmap(minimize(GridPath(begin, end, neighbors))))(maps))
    truth = [dijkstra_on_grid(c, begin, end, neighbors == 8) for c in maps]
    assert np.allclose((y * maps).sum((1, 2)), truth, rtol=1e-12, atol=0)
    assert all(is_path(one, begin, end, neighbors == 8) for one in y)


def test_the_only_passage_of_a_maze_is_found():
    """The worst case for sweeps: one passage of cost 1 that winds through all of the grid; walls cost 1000."""
    maze = np.ones((13, 13), np.float32)
    maze[1::2] = 1000
    maze[1::4, -1] = 1
    maze[3::4, 0] = 1
    y = minimize(GridPath(end=(12, 12), neighbors=4))(jnp.asarray(maze))
    assert np.array_equal(y, maze == 1)
    in_xla = jax.jit(partial(grid_path_in_xla, False))(jnp.asarray(maze), jnp.array([0, 168]))
    assert np.array_equal(in_xla, maze == 1)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtypes_stay_under_strict_promotion(dtype):
    with jax.enable_x64(dtype == jnp.float64), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        batch = -jax.random.uniform(jax.random.key(1), (2, 3, 4, 5), dtype)
        out = jax.jit(jax.vmap(jax.vmap(GridPath())))(batch)
        assert out.dtype == dtype and out.shape == batch.shape
        assert all(np.array_equal(out[i, j], GridPath()(batch[i, j])) for i in range(2) for j in range(3))
        ends = jnp.array([0, 0], jnp.int32), jnp.array([1, 2], jnp.int32)
        traced = jax.jit(lambda start, end, theta: GridPath(start, end)(theta))(*ends, -jnp.ones((2, 3), dtype))
        assert traced.tolist() == [[1, 1, 0], [0, 0, 1]]
        in_xla = jax.eval_shape(partial(grid_path_in_xla, True), jnp.ones((2, 3), dtype), ends[0])
        assert in_xla.dtype == dtype


HUGE = jnp.full((3, 4), 1.5e38)


@table(
    {
        "scores above zero": (
            lambda: GridPath()(COSTS),
            "GridPath: node (0, 0) costs -1.0 (12 of 12 costs are below zero)",
        ),
        "one cost below zero": (lambda: minimize(GridPath())(COSTS.at[1, 2].set(-0.5)), 'pass negative="clip"'),
        "an instance of a batch": (
            lambda: jax.jit(jax.vmap(GridPath()))(jnp.stack([-COSTS, COSTS])),
            "[instance 1 of the batch]",
        ),
        "noise below zero": (
            lambda: Perturbed(minimize(GridPath()), Normal(), 1.0)(COSTS, key=jax.random.key(0)),
            "or keep the signs with MultiplicativePerturbed",
        ),
        "a vector": (lambda: GridPath()(-jnp.ones(4)), "GridPath got scores of shape (4,), expected (H, W)"),
        "an end outside": (
            lambda: GridPath(end=(3, 0))(-COSTS),
            "start (0, 0) or end (3, 0) lies outside of the grid of shape (3, 4)",
        ),
        "a traced end outside": (
            lambda: jax.jit(lambda end: GridPath(end=end)(-COSTS))(jnp.array([0, 4])),
            "end (0, 4) lies outside of the grid",
        ),
        "fractions": (lambda: GridPath(end=(1.0, 2.0))(-COSTS), "expected whole numbers (row, column)"),
        "one number": (lambda: GridPath(end=3)(-COSTS), "expected (row, column) for each"),
        "six neighbors": (lambda: GridPath(neighbors=6), "neighbors is 6, expected 8 or 4"),
        "another word": (lambda: GridPath(negative="ignore"), "negative is 'ignore', expected 'raise' or 'clip'"),
        "too many paths": (lambda: GridPath().vertices((6, 6)), "too many paths to list them: at most 30 nodes"),
        "overflow": (lambda: minimize(GridPath())(HUGE), "the path costs inf"),
        "overflow in XLA": (
            lambda: grid_path_in_xla(True, HUGE, jnp.array([0, 11])),
            "the costs are too large for their type",
        ),
    }
)
def test_grid_paths_refuse(row):
    refuses(*row)
