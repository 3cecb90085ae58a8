"""Solvers against other libraries, and each solver's forms against each other, in one process.

    make bench      or      python benchmarks/solvers.py [--out FOLDER] [--repeats 5]

"peers": the time of another library over ours on the same instances, medians of alternating runs; above 1, diffperturb
is faster. Loops over single instances in Python are timed on a part of the stack and scaled. Batches are solved under
`jit` and `vmap`, as a user would. "forms": microseconds for one instance of a stack, on the host (NumPy and
libraries, which a CPU uses) and in XLA (which an accelerator uses), by size; `best` is the faster form on this machine.
The folder gets solvers.json, a table in solvers.txt, and pictures (see report.py).
"""

import argparse
import heapq
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
from operators import medians
from report import machine, measured, write
from scipy.optimize import linear_sum_assignment, linprog
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

import diffperturb as dp
from diffperturb.solvers._runtime.callbacks import only_in_xla

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def compiled(solver, thetas) -> Callable:
    """The solver on a stack, in one program."""
    thetas, run = jnp.asarray(thetas), jax.jit(jax.vmap(solver))
    return lambda: run(thetas)


def in_xla(solver, thetas) -> Callable:
    """The same without leaving XLA."""
    run = compiled(solver, thetas)
    with only_in_xla():
        jax.block_until_ready(run())  # traced here, once
    return run


# --- peers


def heap_path(costs: np.ndarray) -> np.ndarray:
    """Dijkstra's algorithm with a heap, in Python: the nodes of the cheapest path between two corners, 8 neighbors."""
    high, wide, costs = *costs.shape, costs.tolist()
    best, before, queue = {(0, 0): costs[0][0]}, {}, [(costs[0][0], 0, 0)]
    while queue:
        cost, i, j = heapq.heappop(queue)
        if (i, j) == (high - 1, wide - 1):
            break
        if cost > best[i, j]:
            continue
        for a in range(max(i - 1, 0), min(i + 2, high)):
            for b in range(max(j - 1, 0), min(j + 2, wide)):
                if (further := cost + costs[a][b]) < best.get((a, b), np.inf):
                    best[a, b], before[a, b] = further, (i, j)
                    heapq.heappush(queue, (further, a, b))
    y, at = np.zeros((high, wide), np.float32), (high - 1, wide - 1)
    while at != (0, 0):
        y[at], at = 1, before[at]
    y[at] = 1
    return y


def grid_edges(side: int) -> tuple:
    """Tails and heads of all steps between neighbors, sorted by tail, and where each tail begins."""
    place = np.arange(side * side).reshape(side, side)
    pairs = []
    for a in (-1, 0, 1):
        for b in (-1, 0, 1):
            if (a, b) != (0, 0):
                here = place[max(0, -a) : side - max(0, a), max(0, -b) : side - max(0, b)]
                there = place[max(0, a) : side + min(0, a), max(0, b) : side + min(0, b)]
                pairs.append((here.ravel(), there.ravel()))
    tails, heads = (np.concatenate(p) for p in zip(*pairs, strict=True))
    order = np.argsort(tails, kind="stable")
    return heads[order], np.searchsorted(tails[order], np.arange(side * side + 1))


def csgraph_path(costs: np.ndarray, heads, begins) -> np.ndarray:
    """The same by scipy.sparse.csgraph, with the structure of the graph at hand."""
    size, flat = costs.size, costs.ravel().astype(float)
    graph = csr_matrix((flat[heads], heads, begins), shape=(size, size))
    before = dijkstra(graph, indices=0, return_predecessors=True)[1]
    y, at = np.zeros(size, np.float32), size - 1
    while at != 0:
        y[at], at = 1, before[at]
    y[0] = 1
    return y.reshape(costs.shape)


def random_graph(nodes: int, edges: int, directed: bool) -> dp.Graph:
    """A path through all nodes, and random edges."""
    tails, heads = RNG.integers(nodes, size=(2, edges)).astype(np.int32)
    tails[: nodes - 1], heads[: nodes - 1] = np.arange(nodes - 1), np.arange(1, nodes)
    return dp.Graph(jnp.asarray(tails), jnp.asarray(heads), nodes, directed)


def networkx_tree(graph: dp.Graph, scores: np.ndarray):
    built = nx.Graph()
    built.add_weighted_edges_from(zip(graph.tails.tolist(), graph.heads.tolist(), scores.tolist(), strict=True))
    return nx.maximum_spanning_tree(built)


def loop(solve: Callable, stack: np.ndarray, most: int = 64) -> tuple[Callable, float]:
    """A loop over the first instances, and the factor for the whole stack."""
    part = stack[:most]
    return lambda: [solve(one) for one in part], len(stack) / len(part)


def contests() -> dict:
    """For each task our stack and, for each peer, a function and the factor that makes it a whole stack."""
    rows = {}
    theta = normal(64 * 16, 100, 100)
    hungarian = jax.jit(jax.vmap(optax.assignment.hungarian_algorithm))
    few = jnp.asarray(-theta[:64])
    rows["assignment, d = 100, 64 x 16"] = (
        compiled(dp.Assignment(), theta),
        {
            "optax": (lambda: hungarian(few), len(theta) / 64),
            "scipy loop": loop(lambda t: linear_sum_assignment(t, maximize=True), theta, 256),
        },
    )
    for side, batch in ((12, 512), (30, 128)):
        costs = RNG.random((batch, side, side)).astype(np.float32) + 0.01
        heads, begins = grid_edges(side)
        rows[f"grid path, {side} x {side}, {batch}"] = (
            compiled(dp.minimize(dp.GridPath()), costs),
            {
                "heapq": loop(heap_path, costs),
                "csgraph": loop(lambda c, h=heads, b=begins: csgraph_path(c, h, b), costs, 128),
            },
        )
    tree = random_graph(100, 500, False)
    scores = normal(256, 500)
    rows["spanning tree, 100 nodes, 500 edges, 256"] = (
        compiled(dp.SpanningTree(tree), scores),
        {"networkx": loop(lambda t: networkx_tree(tree, t), scores, 32)},
    )
    A, theta = np.abs(normal(40, 60)), normal(1, 60) + 0.1 * normal(256, 60)
    rows["linear program, 40 x 60, 256, noise 0.1"] = (
        compiled(dp.LinearProgram(jnp.asarray(A), upper=10.0, high=1.0), theta),
        {"scipy linprog": loop(lambda t: linprog(-t, A_ub=A, b_ub=np.full(40, 10.0), bounds=(0, 1)), theta, 32)},
    )
    return rows


def peers(repeats: int) -> list[dict]:
    found = []
    for task, (ours, others) in contests().items():
        seconds = medians({"ours": ours, **{name: run for name, (run, _) in others.items()}}, repeats)
        for name, (_, factor) in others.items():
            ratio = factor * seconds[name] / seconds["ours"]
            found.append({"task": task, "peer": name, "ratio": ratio, "milliseconds": 1e3 * seconds["ours"]})
            print(found[-1], flush=True)
    return found


# --- forms


def pairs() -> dict:
    """For each problem: sizes, and for a size the two forms with a stack of scores."""
    two = lambda solver, theta: {"host": compiled(solver, theta), "XLA": in_xla(solver, theta)}

    def graph_path(n):
        solver = dp.minimize(dp.ShortestPath(random_graph(n, 5 * n, True), 0, n - 1))
        return two(solver, RNG.random((256, 5 * n)).astype(np.float32))

    def knapsack(n):
        weights, values = RNG.integers(1, 20, n), np.abs(normal(64, n))
        native = dp.Knapsack(jnp.asarray(weights), int(weights.sum() // 2))
        program = dp.MixedIntegerProgram(
            jnp.asarray(weights[None], jnp.float32), upper=float(weights.sum() // 2), high=1.0
        )
        return {"XLA": compiled(native, values), "host": compiled(program, values[:16])}

    def tour(n):
        points = RNG.random((16, n, 2))
        costs = np.linalg.norm(points[:, :, None] - points[:, None], axis=-1).astype(np.float32)
        of = lambda method: compiled(dp.minimize(dp.TravelingSalesperson(method)), costs)
        return {"host": of("cuts"), **({"XLA": of("held-karp")} if n <= 13 else {})}

    return {
        "ranking": ("scores", (10, 30, 100, 300, 1000), lambda n: two(dp.Ranking(), normal(1000, n))),
        "top-k, k = n / 10": ("scores", (10, 30, 100, 300, 1000), lambda n: two(dp.TopK(n // 10), normal(1000, n))),
        "assignment": ("rows", (5, 10, 20, 40), lambda n: two(dp.Assignment(), normal(256, n, n))),
        "grid path": (
            "side",
            (5, 10, 20, 40),
            lambda n: two(dp.minimize(dp.GridPath()), RNG.random((256, n, n)).astype(np.float32)),
        ),
        "shortest path, 5 edges a node": ("nodes", (20, 100, 500), graph_path),
        "spanning tree, 5 edges a node": (
            "nodes",
            (20, 100, 500),
            lambda n: two(dp.SpanningTree(random_graph(n, 5 * n, False)), normal(256, 5 * n)),
        ),
        "knapsack (host: HiGHS)": ("items", (10, 30, 100), knapsack),
        "tour (host: cuts in HiGHS)": ("nodes", (6, 8, 10, 12, 16, 20), tour),
    }


# Instances in a stack, where there are not 256 of them.
STACKS = {"ranking": 1000, "top-k, k = n / 10": 1000, "knapsack (host: HiGHS)": 64, "tour (host: cuts in HiGHS)": 16}


def forms(repeats: int) -> list[dict]:
    found = []
    for problem, (size, sizes, make) in pairs().items():
        for n in sizes:
            seconds = medians(make(n), repeats)
            stack = {name: STACKS.get(problem, 256) for name in seconds}
            if problem.startswith("knapsack"):
                stack["host"] = 16
            micro = {name: 1e6 * s / stack[name] for name, s in seconds.items()}
            row = {"problem": problem, size: n, "size": n, "host": micro.get("host"), "XLA": micro.get("XLA")}
            found.append(row | {"best": min(micro, key=micro.get)})
            print(found[-1], flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for the report: JSON, table and pictures")
    parser.add_argument("--repeats", type=int, default=5, help="counted runs of each function (5)")
    args = parser.parse_args()
    report = machine("jax", "optax", "scipy", "networkx", "highspy", "lapx", "numpy")
    measured(report, {"peers": lambda: peers(args.repeats), "forms": lambda: forms(args.repeats)})
    write(report, "solvers", args.out)


if __name__ == "__main__":
    main()
