"""Graphs as values: arcs, padding, batches, reading from other libraries, and what is refused."""

import jax
import jax.numpy as jnp
import networkx as nx
import scipy.sparse
from support import refuses, table

from diffperturb.solvers.graphs import Graph, check_node, read_graph

DIAMOND = Graph(jnp.array([0, 0, 1, 2]), jnp.array([1, 2, 3, 3]), num_nodes=4)
WRONG = Graph(jnp.array([0, 1]), jnp.array([1, 4]), 3)


def test_arcs_padding_and_batches():
    assert DIAMOND.padded(6).usable.tolist() == [True] * 4 + [False] * 2
    one = Graph(jnp.array([0]), jnp.array([1]), 2, directed=False)
    assert [a.tolist() for a in one.arcs] == [[0, 1], [1, 0], [0, 0]]
    many = jax.tree.map(lambda *arrays: jnp.stack(arrays), DIAMOND, DIAMOND)
    assert jax.vmap(lambda g: jnp.sum(g.usable))(many).tolist() == [4, 4]


def test_networkx_graphs_keep_their_order():
    town = nx.Graph()
    town.add_weighted_edges_from([("home", "park", 2.0), ("park", "school", 1.5), ("home", "school", 5.0)])
    graph, weights = read_graph(town)
    names = list(town.nodes)
    assert [(names[a], names[b]) for a, b in zip(graph.tails, graph.heads, strict=True)] == list(town.edges)
    assert weights.tolist() == [2, 5, 1.5] and not graph.directed
    parallel, weights = read_graph(nx.MultiDiGraph([(0, 1), (0, 1)]))
    assert parallel.num_edges == 2 and parallel.directed and weights.tolist() == [1, 1]


def test_a_matrix_is_read_row_by_row():
    roads = scipy.sparse.csr_matrix(([7.0, 1.0, 2.0], ([2, 0, 0], [0, 2, 1])), shape=(3, 3))
    graph, weights = read_graph(roads)
    edges = list(zip(graph.tails.tolist(), graph.heads.tolist(), weights.tolist(), strict=True))
    assert edges == [(0, 1, 2), (0, 2, 1), (2, 0, 7)]


@table(
    {
        "an edge outside": (
            lambda: WRONG.checked("Paths"),
            "Paths: edge 1 goes from node 1 to 4, but the nodes are 0 to 2",
        ),
        "the same, traced": (
            lambda: jax.jit(lambda g: g.checked("Paths").heads)(WRONG),
            "the nodes are 0 to 2",
        ),
        "fractions": (
            lambda: Graph(jnp.zeros(2), jnp.ones(2), 3).checked("Paths"),
            "expected node numbers (int)",
        ),
        "ends of two lengths": (
            lambda: Graph(jnp.array([0]), jnp.array([1, 2]), 3).checked("Paths"),
            "expected (E,) for both",
        ),
        "no edge": (
            lambda: Graph(jnp.zeros(0, int), jnp.zeros(0, int), 3).checked("Paths"),
            "at least one edge",
        ),
        "no such node": (
            lambda: check_node(3, 3, "Paths", "source"),
            "Paths: source is 3, but the nodes of the graph are 0 to 2",
        ),
        "a fraction": (lambda: check_node(1.0, 3, "Paths", "source"), "expected the number of a node"),
        "two nodes": (
            lambda: check_node(jnp.array([1, 2]), 3, "Paths", "source"),
            "expected the number of ONE node",
        ),
        "a traced node outside": (
            lambda: jax.jit(lambda v: check_node(v, 3, "Paths", "source"))(-1),
            "source is -1",
        ),
        "padding to less": (lambda: DIAMOND.padded(3), "num_edges is 3"),
        "a graph without edges": (lambda: read_graph(nx.Graph()), "the graph has no edges"),
        "a matrix that is not square": (lambda: read_graph(scipy.sparse.csr_matrix((2, 3))), "expected (n, n)"),
        "a dictionary": (lambda: read_graph({}), "expected a networkx graph or a scipy.sparse matrix"),
    }
)
def test_graphs_refuse(row):
    refuses(*row)
