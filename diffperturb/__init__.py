"""A workbench for learning through discrete decisions."""

__version__ = "0.1.0"

from diffperturb.core import Function, Solver, Vertices, inner, minimize, run_time_checks
from diffperturb.direct import (
    DirectLoss,
    LinearLoss,
    LossScale,
    hamming,
    linear_loss,
    linearised,
    positive,
    quadratic,
    weighted_hamming,
)
from diffperturb.estimation import estimate
from diffperturb.exact import Exact
from diffperturb.jacobians import Regression, Score
from diffperturb.losses import FenchelYoungLoss, Regularizer
from diffperturb.multiplicative import MultiplicativePerturbed
from diffperturb.noise import (
    CentredGumbel,
    Density,
    ExponentialPower,
    Gumbel,
    Laplace,
    Logistic,
    Normal,
    Scaled,
    StudentT,
    SumOfGamma,
    TwoPoint,
)
from diffperturb.perturbed import Measured, MonteCarlo, Perturbed, Samples
from diffperturb.projections import Plane, Sphere
from diffperturb.relaxations import GumbelSinkhorn, GumbelSoftmax, NeuralSort, RelaxedSubset, SoftSort
from diffperturb.sampling import IID, Antithetic, Orthogonal, Sobol, Stratified
from diffperturb.sharding import Sharded
from diffperturb.solvers.balls import GroupLassoBall, L1Ball, L2Ball, LinfBall, NuclearBall
from diffperturb.solvers.external import external
from diffperturb.solvers.graph import Graph, read_graph
from diffperturb.solvers.logic import AtLeast, AtMost, Logic, Negated, Parity
from diffperturb.solvers.matching import Assignment, PartialMatching
from diffperturb.solvers.networks import Flow, SpanningTree
from diffperturb.solvers.packing import Knapsack
from diffperturb.solvers.paths import GridPath, ShortestPath
from diffperturb.solvers.programs import LinearProgram, MixedIntegerProgram
from diffperturb.solvers.routing import TravellingSalesperson
from diffperturb.solvers.selection import Argmax, BinaryChoice, Ranking, Sorting, TopK
from diffperturb.surrogates import IMLE, Blackbox, Identity, SPOPlus, StraightThrough

__all__ = [
    "Antithetic",
    "Argmax",
    "Assignment",
    "AtLeast",
    "AtMost",
    "BinaryChoice",
    "Blackbox",
    "CentredGumbel",
    "Density",
    "DirectLoss",
    "Exact",
    "ExponentialPower",
    "FenchelYoungLoss",
    "Flow",
    "Function",
    "Graph",
    "GridPath",
    "GroupLassoBall",
    "Gumbel",
    "GumbelSinkhorn",
    "GumbelSoftmax",
    "IID",
    "IMLE",
    "Identity",
    "Knapsack",
    "L1Ball",
    "L2Ball",
    "Laplace",
    "LinearLoss",
    "LinearProgram",
    "LinfBall",
    "Logic",
    "Logistic",
    "LossScale",
    "Measured",
    "MixedIntegerProgram",
    "MonteCarlo",
    "MultiplicativePerturbed",
    "Negated",
    "NeuralSort",
    "Normal",
    "NuclearBall",
    "Orthogonal",
    "Parity",
    "PartialMatching",
    "Perturbed",
    "Plane",
    "Ranking",
    "Regression",
    "Regularizer",
    "RelaxedSubset",
    "SPOPlus",
    "Samples",
    "Scaled",
    "Score",
    "Sharded",
    "ShortestPath",
    "Sobol",
    "SoftSort",
    "Solver",
    "Sorting",
    "SpanningTree",
    "Sphere",
    "StraightThrough",
    "Stratified",
    "StudentT",
    "SumOfGamma",
    "TopK",
    "TravellingSalesperson",
    "TwoPoint",
    "Vertices",
    "estimate",
    "external",
    "hamming",
    "inner",
    "linear_loss",
    "linearised",
    "minimize",
    "positive",
    "quadratic",
    "read_graph",
    "run_time_checks",
    "weighted_hamming",
]
