"""Graph paths: against networkx, scipy and the list of all paths, in every implementation; and what is refused."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from scipy.sparse import csgraph
from support import refuses, sized, table

from diffperturb.expectation.monte_carlo import MonteCarlo
from diffperturb.expectation.perturbed import Perturbed
from diffperturb.foundations.solver import minimize
from diffperturb.noise.distributions import Normal
from diffperturb.solvers._runtime.graph_search import (
    _arriving_edges,
    _by_dijkstra,
    _dijkstra,
    _distances_on_graph,
    _Entering,
    _entering_edge,
    _sweeps,
    _walk_edges,
    _why_no_path,
    graph_path_in_xla,
)
from diffperturb.solvers.graph_paths import ShortestPath
from diffperturb.solvers.graphs import Graph, read_graph

DIAMOND = Graph(jnp.array([0, 0, 1, 2, 1]), jnp.array([1, 2, 3, 3, 2]), num_nodes=4)
LENGTHS = jnp.array([1.0, 3.0, 4.0, 1.0, 2.0])


def test_all_searches_agree_on_distances_and_steps():
    reached, steps, falling = _distances_on_graph(DIAMOND.tails, DIAMOND.heads, LENGTHS, 0, 4)
    assert reached.tolist() == [0, 1, 3, 4] and not falling
    entering = _Entering.of(np.asarray(DIAMOND.heads), 4)
    assert entering.nodes[:3].tolist() == [2, 3, 1]
    assert entering.least(np.arange(5)[entering.order]).tolist() == [1, 2, 0]
    out, into, long = (np.asarray(a)[entering.order] for a in (DIAMOND.tails, DIAMOND.heads, LENGTHS))
    first = np.array([[0.0], [np.inf], [np.inf], [np.inf]], np.float32)
    by_sweeps = _sweeps(entering, out, long[:, None], first, 4)
    assert np.array_equal(by_sweeps[0][:, 0], reached) and np.array_equal(by_sweeps[1][:, 0], steps)
    arriving = _arriving_edges(entering, out, into, entering.order, long[:, None], *by_sweeps)[:, 0]
    assert np.array_equal(arriving, _entering_edge(*DIAMOND.arcs, LENGTHS, reached, steps))
    by_dijkstra = _dijkstra(np.asarray(DIAMOND.tails), np.asarray(DIAMOND.heads), np.asarray(LENGTHS), 0, 4)
    assert np.array_equal(by_dijkstra[0], reached) and np.array_equal(by_dijkstra[1], steps)


def test_an_unreachable_target_is_named():
    around = np.array([0, 1, 2, 3]), np.array([1, 2, 3, 1])
    assert _why_no_path(*around, np.ones(4), (1, 0), False, 4).startswith("no path leads from node 1 to node 0")


def test_ties():
    route = minimize(ShortestPath(DIAMOND, 0, 3))
    assert route(LENGTHS).tolist() == [0, 1, 0, 1, 0]  # 0-2-3 and 0-1-2-3 have length 4: the fewest edges
    assert route(-jnp.zeros(5)).tolist() == [1, 0, 1, 0, 0]  # 0-1-3 and 0-2-3: back from node 3, the lowest edge


def test_targets_and_graphs_may_be_traced():
    town = nx.Graph()
    town.add_weighted_edges_from(
        [("home", "park", 2.0), ("park", "school", 1.5), ("home", "school", 5.0), ("school", "pool", 1.0)]
    )
    graph, minutes = read_graph(town)
    everywhere = jax.jit(jax.vmap(lambda target: minimize(ShortestPath(graph, 0, target))(minutes)))(jnp.arange(4))
    assert everywhere.tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]
    assert list(town) == ["home", "park", "school", "pool"] and list(town.edges)[1] == ("home", "school")
    reverse = Graph(DIAMOND.heads, DIAMOND.tails, 4)
    two = jax.tree.map(lambda *arrays: jnp.stack(arrays), ShortestPath(DIAMOND, 0, 3), ShortestPath(reverse, 3, 0))
    both = jax.vmap(lambda solver: minimize(solver)(LENGTHS))(two)
    assert both[0].tolist() == both[1].tolist() == [0, 1, 0, 1, 0]


def follows(y, graph, source, target):
    """Whether the edges of y lead from the source to the target, each node at most once."""
    edges = {int(e) for e in np.flatnonzero(y)}
    at, seen = source, set()
    while edges and at not in seen:
        seen.add(at)
        out = [e for e in edges if graph.tails[e] == at or (not graph.directed and graph.heads[e] == at)]
        if len(out) != 1:
            return False
        at = int(graph.tails[out[0]] + graph.heads[out[0]] - at)
        edges.discard(out[0])
    return not edges and at == target


def random_graphs(rng, n, num_nodes, num_edges, directed):
    """Connected graphs (n, E): a path through all nodes, and more edges anywhere."""
    tails, heads = rng.integers(num_nodes, size=(2, n, num_edges)).astype(np.int32)
    tails[:, : num_nodes - 1], heads[:, : num_nodes - 1] = np.arange(num_nodes - 1), np.arange(1, num_nodes)
    return Graph(tails, heads, num_nodes, directed)


def one_graph(rng, *size):
    return jax.tree.map(lambda a: a[0], random_graphs(rng, 1, *size))


def least_length(graph, lengths, source, target):
    """By networkx."""
    other = (nx.MultiDiGraph if graph.directed else nx.MultiGraph)()
    other.add_nodes_from(range(graph.num_nodes))
    for tail, head, length in zip(graph.tails.tolist(), graph.heads.tolist(), lengths.tolist(), strict=True):
        if tail != head:
            other.add_edge(tail, head, weight=length)
    return nx.bellman_ford_path_length(other, source, target)


@table({"undirected": ("undirected", 6, 14), "directed": ("directed", 15, 50), "negative": ("negative", 10, 30)})
def test_random_graphs_against_networkx(row):
    """With parallel edges and edges from a node to itself: the value of networkx, the same edges by both routes.

    Whole numbers make ties in plenty. Lengths below zero come from potentials, so that no cycle is negative.
    """
    kind, num_nodes, num_edges = row
    n, rng = sized(50, 200), np.random.default_rng([5, num_nodes])
    many = random_graphs(rng, n, num_nodes, num_edges, kind != "undirected")
    lengths = rng.integers(0, 5, (n, num_edges)).astype(np.float32)
    if kind == "negative":
        potential = rng.integers(0, 9, (n, num_nodes)).astype(np.float32)
        place = np.arange(n)[:, None]
        lengths += potential[place, many.tails] - potential[place, many.heads]
    solver = ShortestPath(many, np.zeros(n, np.int32), np.full(n, num_nodes - 1, np.int32))
    y = np.asarray(jax.jit(jax.vmap(lambda solver, lengths: minimize(solver)(lengths)))(solver, lengths))
    ends = np.tile(np.array([0, num_nodes - 1], np.int32), (n, 1))
    in_xla = jax.jit(jax.vmap(partial(graph_path_in_xla, num_nodes, many.directed)))
    assert np.array_equal(in_xla(lengths, many.tails, many.heads, ends), y)
    for i in range(n):
        one = Graph(many.tails[i], many.heads[i], num_nodes, many.directed)
        assert y[i] @ lengths[i] == least_length(one, lengths[i], 0, num_nodes - 1)
        assert follows(y[i], one, 0, num_nodes - 1)


@pytest.mark.parametrize("directed", [True, False])
def test_sweeps_and_dijkstra_return_the_same_edges(directed):
    """One graph for a whole batch, the common case under noise, with ties."""
    rng = np.random.default_rng([6, directed])
    graph = one_graph(rng, 30, 120, directed)
    lengths = rng.integers(0, 6, (200, 120)).astype(np.float32)
    by_sweeps = np.asarray(jax.jit(jax.vmap(minimize(ShortestPath(graph, 0, 29))))(lengths))
    arcs = [np.asarray(a)[None] if k < 2 else np.asarray(a) for k, a in enumerate(graph.arcs)]
    long = np.where(arcs[0] == arcs[1], np.inf, lengths[:, arcs[2]])
    ends = np.tile(np.array([0, 29]), (200, 1))
    *_, arriving = _by_dijkstra(30, *arcs, long, ends)
    by_dijkstra, arrived = _walk_edges(arriving, graph.tails[None], graph.heads[None], ends, 120)
    assert arrived.all() and np.array_equal(by_dijkstra, by_sweeps)


def test_a_large_graph_against_scipy():
    rng = np.random.default_rng(7)
    large = one_graph(rng, 2000, 22_000, True)
    lengths = jnp.asarray(rng.uniform(size=(3, 22_000)), jnp.float32)
    y = np.asarray(jax.vmap(minimize(ShortestPath(large, 5, 1200)))(lengths), bool)
    for long, chosen in zip(np.asarray(lengths, float), y, strict=True):
        best = np.full((2000, 2000), np.inf)
        np.minimum.at(best, (large.tails, large.heads), long)
        np.fill_diagonal(best, np.inf)
        truth = csgraph.dijkstra(csgraph.csgraph_from_dense(best, null_value=np.inf), indices=5)[1200]
        assert np.isclose(long[chosen].sum(), truth, rtol=1e-12) and follows(chosen, large, 5, 1200)


@pytest.mark.parametrize("directed", [True, False])
def test_the_path_is_the_best_of_all(directed):
    """On small graphs against the list of all simple paths; the stated radius and hyperplane hold."""
    rng = np.random.default_rng([8, directed])
    graph = jax.tree.map(jnp.asarray, one_graph(rng, 6, 16, directed))
    solver = ShortestPath(graph, 0, 5)
    corners = np.asarray(solver.vertices((16,)))
    theta = -rng.uniform(size=(100, 16)).astype(np.float32)
    y = np.asarray(jax.jit(jax.vmap(solver))(theta))
    assert np.allclose((y * theta).sum(1), np.max(theta @ corners.T, 1), atol=1e-6)
    assert (y[:, None] == corners).all(2).any(1).all()
    a, b = solver.hyperplane((16,))
    assert np.all(corners @ a == b) and corners.sum(1).max() <= solver.radius((16,)) ** 2 + 1e-5
    mean = Perturbed(ShortestPath(graph, 0, 5, "clip"), Normal(), 0.2, MonteCarlo(200))(
        jnp.asarray(theta[0]), key=jax.random.key(1)
    )
    assert jnp.allclose(jnp.sum(a * mean), b, atol=1e-5)  # the mean path is a flow of one unit


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtypes_stay_under_strict_promotion(dtype):
    with jax.enable_x64(dtype == jnp.float64), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        solver = ShortestPath(DIAMOND, 0, 3)
        batch = -jax.random.uniform(jax.random.key(1), (2, 3, 5), dtype)
        out = jax.jit(jax.vmap(jax.vmap(solver)))(batch)
        assert out.dtype == dtype and out.shape == batch.shape
        assert all(np.array_equal(out[i, j], solver(batch[i, j])) for i in range(2) for j in range(3))
        arrays = jnp.ones(5, dtype), DIAMOND.tails, DIAMOND.heads, jnp.array([0, 0], jnp.int32)
        assert jax.eval_shape(partial(graph_path_in_xla, 4, True), *arrays).dtype == dtype


LOOP = Graph(jnp.array([0, 1, 2, 3]), jnp.array([1, 2, 3, 1]), 5)
BELOW = jnp.array([1.0, 1.0, -3.0, 1.0])
TWICE = Graph(jnp.array([0, 1]), jnp.array([1, 2]), 3, directed=False)
DENSE = Graph(*jnp.array(list(itertools.permutations(range(10), 2))).T, 10)
CYCLE = "ShortestPath: the cycle 1 -> 2 -> 3 -> 1 has a length below zero"
NOWHERE = "ShortestPath: no path leads from node 0 to node 4"


def test_negative_lengths_can_be_clipped():
    assert minimize(ShortestPath(LOOP, 0, 3, negative="clip"))(BELOW).tolist() == [1, 1, 1, 0]


@table(
    {
        "a negative cycle": (lambda: ShortestPath(LOOP, 0, 3)(-BELOW), CYCLE),
        "a negative cycle in XLA": (
            lambda: graph_path_in_xla(5, True, BELOW, LOOP.tails, LOOP.heads, jnp.array([0, 3])),
            CYCLE,
        ),
        "no path": (lambda: ShortestPath(LOOP, 0, 4)(-jnp.ones(4)), NOWHERE),
        "no path in XLA": (
            lambda: graph_path_in_xla(5, True, jnp.ones(4), LOOP.tails, LOOP.heads, jnp.array([0, 4])),
            NOWHERE,
        ),
        "an instance of a batch": (
            lambda: jax.jit(jax.vmap(ShortestPath(LOOP, 0, 3)))(jnp.stack([-jnp.ones(4), BELOW * 0, -BELOW])),
            "[instance 2 of the batch]",
        ),
        "an undirected edge below zero": (
            lambda: minimize(ShortestPath(TWICE, 0, 2))(jnp.array([1.0, -1.0])),
            "(an undirected edge can be walked back and forth)",
        ),
        "another number of scores": (
            lambda: ShortestPath(LOOP, 0, 3)(jnp.zeros(5)),
            "expected (4,), one for each edge of the graph",
        ),
        "no such target": (
            lambda: ShortestPath(LOOP, 0, 7)(jnp.zeros(4)),
            "ShortestPath: target is 7, but the nodes",
        ),
        "another word": (lambda: ShortestPath(LOOP, 0, 3, "ignore"), "negative is 'ignore'"),
        "too many paths": (
            lambda: ShortestPath(DENSE, 0, 9).vertices((90,)),
            "more than 10000 paths from node 0 to node 9",
        ),
    }
)
def test_graph_paths_refuse(row):
    refuses(*row)
