"""Spanning trees against networkx, flows against scipy, networkx and enumeration, and what both refuse."""

import itertools
from functools import cache, partial

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from scipy.sparse import csgraph, csr_array
from support import refuses, sized, table

import diffperturb as dp
from diffperturb.solvers.networks import _tree_in_xla


def random_graphs(rng, n, num_nodes, num_edges, directed):
    """Connected graphs (n, E): a path through all nodes, and more edges anywhere, parallel ones and loops among them."""
    tails, heads = rng.integers(num_nodes, size=(2, n, num_edges)).astype(np.int32)
    tails[:, : num_nodes - 1], heads[:, : num_nodes - 1] = np.arange(num_nodes - 1), np.arange(1, num_nodes)
    return dp.Graph(tails, heads, num_nodes, directed)


def in_networkx(graph, weights, kind):
    """The same graph in networkx, without edges from a node to itself."""
    other = kind()
    other.add_nodes_from(range(graph.num_nodes))
    for tail, head, weight in zip(graph.tails.tolist(), graph.heads.tolist(), weights.tolist(), strict=True):
        if tail != head:
            other.add_edge(tail, head, weight=weight)
    return other


def one_of(graphs, i):
    return jax.tree.map(lambda ends: ends[i], graphs)


def balance_inside(graph, y, source, target):
    """What leaves each node less what enters it, (n, N - 2), without the two ends."""
    balance = np.zeros((len(y), graph.num_nodes))
    rows = np.arange(len(y))[:, None]
    np.add.at(balance, (rows, graph.tails), y)
    np.add.at(balance, (rows, graph.heads), -y)
    return np.delete(balance, [source, target], axis=1)


def apply(solver, theta):
    return solver(theta)


town = dp.Graph(jnp.array([0, 0, 1, 2, 1]), jnp.array([1, 2, 3, 3, 2]), num_nodes=4, directed=False)
diamond = dp.Graph(town.tails, town.heads, num_nodes=4)
capacity = jnp.array([3.0, 2.0, 1.0, 4.0, 1.0])
flow = dp.Flow(diamond, 0, 3, capacity)


@table(
    {"small": (5, 9, sized(60, 600))},
    every={"medium": (20, 60, 200), "large": (33, 200, 200)},
)
def test_both_routes_return_the_tree_of_networkx(row):
    """Parallel edges, loops and many ties: the same tree on both routes, of the best value."""
    num_nodes, num_edges, count = row
    rng = np.random.default_rng(num_nodes)
    many = random_graphs(rng, count, num_nodes, num_edges, False)
    signs = rng.choice([-1, 1], (count, 1))  # -0 and 0 too
    scores = rng.integers(-3, 4, (count, num_edges)).astype(np.float32) * signs
    scores = scores.astype(np.float32)
    y = np.asarray(jax.jit(jax.vmap(apply))(dp.SpanningTree(many), scores))
    assert np.array_equal(jax.jit(jax.vmap(partial(_tree_in_xla, num_nodes)))(scores, many.tails, many.heads), y)
    for i in range(count):
        other = in_networkx(one_of(many, i), scores[i], nx.MultiGraph)
        assert y[i] @ scores[i] == nx.maximum_spanning_tree(other).size("weight")
        chosen = y[i] == 1
        assert nx.is_tree(
            nx.Graph(list(zip(many.tails[i, chosen].tolist(), many.heads[i, chosen].tolist(), strict=True)))
        )


@pytest.mark.parametrize("theta, tree", [([1, 4, 2, 3, 3], [0, 1, 0, 1, 1]), ([0, -0.0, 0, 0, -0.0], [1, 1, 1, 0, 0])])
def test_of_equal_scores_the_lower_number_comes_first(theta, tree):
    theta = jnp.array(theta, jnp.float32)
    assert _tree_in_xla(4, theta, town.tails, town.heads).tolist() == tree
    assert dp.SpanningTree(town)(theta).tolist() == tree


def test_the_tree_is_the_best_of_the_list_of_trees():
    rng = np.random.default_rng(0)
    graph = jax.tree.map(lambda ends: jnp.asarray(ends[0]), random_graphs(rng, 1, 5, 10, False))
    solver = dp.SpanningTree(graph)
    corners = np.asarray(solver.vertices((10,)))
    scores = rng.normal(size=(200, 10)).astype(np.float32)
    y = np.asarray(jax.jit(jax.vmap(solver))(scores))
    assert np.allclose((y * scores).sum(1), (scores @ corners.T).max(1), atol=1e-5)
    a, b = solver.hyperplane((10,))
    assert np.all(corners @ a == b) and np.allclose(np.linalg.norm(corners, axis=1), solver.radius((10,)))


def test_maximum_flows_are_those_of_scipy_and_networkx():
    """Graphs and capacities are batched too; every result is a flow in whole numbers."""
    rng, count = np.random.default_rng(1), sized(80, 800)
    many = random_graphs(rng, count, 8, 24, True)
    room = rng.integers(0, 10, (count, 24)).astype(np.float32)
    solvers = dp.Flow(many, np.zeros(count, np.int32), np.full(count, 7, np.int32), room)
    scores = np.asarray(jax.vmap(dp.Flow.value_scores)(solvers))
    y = np.asarray(jax.jit(jax.vmap(apply))(solvers, scores))
    assert np.all(y <= room) and np.all(y >= 0) and np.array_equal(y, np.rint(y))
    assert np.all(balance_inside(many, y, 0, 7) == 0)
    for i in range(count):
        matrix = np.zeros((8, 8), np.int32)
        np.add.at(matrix, (many.tails[i], many.heads[i]), room[i].astype(int))
        np.fill_diagonal(matrix, 0)
        assert csgraph.maximum_flow(csr_array(matrix), 0, 7).flow_value == y[i] @ scores[i]
        if i < sized(10, 100):
            other = nx.from_numpy_array(matrix, create_using=nx.DiGraph)
            assert nx.maximum_flow_value(other, 0, 7, "weight") == y[i] @ scores[i]


def test_the_flow_is_the_best_of_all_whole_flows():
    rng = np.random.default_rng(11)
    small = one_of(random_graphs(rng, 1, 5, 9, True), 0)
    room = np.array([2, 1, 2, 1, 1, 2, 1, 1, 1], np.float32)
    every = np.array(list(itertools.product(*(range(int(c) + 1) for c in room))), np.float32)
    stacked = dp.Graph(*(np.tile(ends, (len(every), 1)) for ends in (small.tails, small.heads)), 5)
    every = every[np.all(balance_inside(stacked, every, 0, 4) == 0, axis=1)]
    every = every[np.all(every[:, small.tails == small.heads] == 0, axis=1)]
    scores = rng.normal(size=(200, 9)).astype(np.float32)
    solver = dp.Flow(small, 0, 4, room)
    y = np.asarray(jax.jit(jax.vmap(solver))(scores))
    assert len(every) > 30
    assert np.allclose((y * scores).sum(1), (scores @ every.T).max(1), atol=1e-5)
    a, b = solver.hyperplane((9,))
    assert np.allclose(every @ a, b, atol=1e-5) and np.linalg.norm(every, axis=1).max() <= solver.radius((9,))


def test_flows_of_any_size_of_scores_and_capacities():
    y = flow(flow.value_scores())
    assert dp.inner(y, flow.value_scores()) == 4 and jnp.all(y <= capacity)
    assert flow(-jnp.ones(5)).tolist() == [0] * 5  # nothing flows where everything costs
    assert jnp.array_equal(flow(flow.value_scores() * 1e-12), y)  # tiny scores are scores
    assert jnp.allclose(dp.Flow(diamond, 0, 3, capacity * 1e-12)(flow.value_scores()), y * 1e-12, rtol=1e-5)
    out_of_reach = dp.Flow(dp.Graph(jnp.array([1]), jnp.array([0]), 3), 0, 2, jnp.ones(1))
    assert out_of_reach(jnp.ones(1)).tolist() == [0]


def test_mean_flows_and_mean_trees_lie_on_the_hyperplane():
    def mean(solver, theta, epsilon):
        return dp.Perturbed(solver, dp.Normal(), epsilon, dp.MonteCarlo(200))(theta, key=jax.random.key(0))

    flows = jax.jit(jax.vmap(lambda epsilon: mean(flow, flow.value_scores() - 0.3, epsilon)))
    means = np.asarray(flows(jnp.geomspace(0.03, 3, 9)))
    assert np.allclose(means @ flow.hyperplane((5,))[0], 0, atol=1e-4)
    assert jnp.allclose(jnp.sum(mean(dp.SpanningTree(town), jnp.arange(5.0), 0.5)), 3, atol=1e-3)


@table({"tree": dp.SpanningTree(town), "flow": flow})
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_dtype_is_kept_under_strict_promotion(row, dtype):
    with jax.enable_x64(dtype == jnp.float64), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        batch = jax.random.normal(jax.random.key(1), (2, 3, 5), dtype)
        out = jax.jit(jax.vmap(jax.vmap(row)))(batch)
        assert out.dtype == dtype and out.shape == batch.shape
        assert all(np.array_equal(out[i, j], row(batch[i, j])) for i in range(2) for j in range(3))
        jax.eval_shape(lambda: (row.hyperplane((5,)), row.radius((5,))))
        assert jax.eval_shape(partial(_tree_in_xla, 4), batch[0, 0], town.tails, town.heads).dtype == dtype


apart = dp.Graph(jnp.array([0, 1, 3]), jnp.array([1, 2, 4]), 5, directed=False)
two = dp.Graph(jnp.array([[0, 1], [0, 0]]), jnp.array([[1, 2], [1, 1]]), 3, directed=False)
dense = dp.Graph(*jnp.array(list(itertools.combinations(range(9), 2))).T, 9, directed=False)


@cache
def trees_of():
    return jax.jit(jax.vmap(lambda graph: dp.SpanningTree(graph)(jnp.ones(2))))


TREES = {
    "in parts": (
        lambda: dp.SpanningTree(apart)(jnp.ones(3)),
        "SpanningTree: the graph falls into 2 parts: {0, 1, 2}; {3, 4}",
    ),
    "in parts, in XLA": (
        lambda: _tree_in_xla(5, jnp.ones(3), apart.tails, apart.heads),
        "the graph falls into 2 parts",
    ),
    "in parts, in a batch": (
        lambda: trees_of()(two),
        "{0, 1}; {2}. A spanning tree needs edges between them [instance 1 of the batch]",
    ),
    "too few scores": (
        lambda: dp.SpanningTree(town)(jnp.ones(4)),
        "SpanningTree: theta has shape (4,), expected (5,), one score for each edge of the graph",
    ),
    "too many trees": (lambda: dp.SpanningTree(dense).vertices((36,)), "are too many to list the trees"),
}


@table(TREES)
def test_what_spanning_trees_refuse(row):
    refuses(*row)


theta = flow.value_scores() - 0.3


def with_capacities(capacities):
    return jax.jit(jax.vmap(lambda c: dp.Flow(diamond, 0, 3, c)(theta)))(capacities)


FLOWS = {
    "undirected": (
        lambda: dp.Flow(town, 0, 3, capacity),
        "Flow expects a directed graph: list each undirected edge twice",
    ),
    "negative capacity": (
        lambda: dp.Flow(diamond, 0, 3, -capacity)(theta),
        "Flow: edge 0 has the capacity -3.0, expected a number of at least 0",
    ),
    "nan capacity in a batch": (
        lambda: with_capacities(jnp.stack([capacity, capacity.at[2].set(jnp.nan)])),
        "edge 2 has the capacity nan, expected a number of at least 0 [instance 1 of the batch]",
    ),
    "one node": (lambda: dp.Flow(diamond, 1, 1, capacity)(theta), "source and target are both node 1"),
    "no such node": (
        lambda: dp.Flow(diamond, 0, 4, capacity)(theta),
        "Flow: target is 4, but the nodes of the graph are 0 to 3",
    ),
    "too few capacities": (
        lambda: dp.Flow(diamond, 0, 3, capacity[:4])(theta),
        "capacity has shape (4,), expected (5,)",
    ),
    "no capacities": (
        lambda: dp.Flow(diamond, 0, 3, jnp.full(5, jnp.inf))(theta),
        "edges without a finite capacity",
    ),
}


@table(FLOWS)
def test_what_flows_refuse(row):
    refuses(*row)
