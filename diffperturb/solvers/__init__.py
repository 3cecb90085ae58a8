"""Linear maximization oracles: y*(theta) = argmax <y, theta> over a polytope."""

from diffperturb.solvers.selection import Argmax, BinaryChoice, Ranking, Sorting, TopK
from diffperturb.solvers.grid_paths import GridPath
from diffperturb.solvers.graphs import Graph, read_graph
from diffperturb.solvers.graph_paths import ShortestPath
from diffperturb.solvers.matching import Assignment, PartialMatching
from diffperturb.solvers.networks import Flow, SpanningTree
from diffperturb.solvers.packing import Knapsack
from diffperturb.solvers.logic import AtLeast, AtMost, Logic, Negated, Parity
from diffperturb.solvers.routing import TravelingSalesperson
from diffperturb.solvers.programs import LinearProgram, MixedIntegerProgram
from diffperturb.solvers.balls import GroupLassoBall, L1Ball, L2Ball, LinfBall, NuclearBall
from diffperturb.solvers.external import external, shortfall

__all__ = [
    "Argmax",
    "Assignment",
    "AtLeast",
    "AtMost",
    "BinaryChoice",
    "Flow",
    "Graph",
    "GridPath",
    "GroupLassoBall",
    "Knapsack",
    "L1Ball",
    "L2Ball",
    "LinearProgram",
    "LinfBall",
    "Logic",
    "MixedIntegerProgram",
    "Negated",
    "NuclearBall",
    "Parity",
    "PartialMatching",
    "Ranking",
    "ShortestPath",
    "Sorting",
    "SpanningTree",
    "TopK",
    "TravelingSalesperson",
    "external",
    "read_graph",
    "shortfall",
]
