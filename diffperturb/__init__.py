"""A workbench for learning through discrete decisions."""

__version__ = "0.1.0"

from diffperturb.core import Function, Solver, Vertices, inner, minimize, run_time_checks
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
)
from diffperturb.perturbed import Measured, MonteCarlo, Perturbed, Samples
from diffperturb.sampling import IID, Antithetic, Orthogonal, Sobol, Stratified
from diffperturb.sharding import Sharded
from diffperturb.solvers.selection import Argmax, BinaryChoice, Ranking, Sorting, TopK

__all__ = [
    "IID",
    "Antithetic",
    "Argmax",
    "BinaryChoice",
    "CentredGumbel",
    "Density",
    "Exact",
    "ExponentialPower",
    "FenchelYoungLoss",
    "Function",
    "Gumbel",
    "Laplace",
    "Logistic",
    "Measured",
    "MonteCarlo",
    "MultiplicativePerturbed",
    "Normal",
    "Orthogonal",
    "Perturbed",
    "Ranking",
    "Regression",
    "Regularizer",
    "Samples",
    "Scaled",
    "Score",
    "Sharded",
    "Sobol",
    "Solver",
    "Sorting",
    "Stratified",
    "StudentT",
    "SumOfGamma",
    "TopK",
    "Vertices",
    "estimate",
    "inner",
    "minimize",
    "run_time_checks",
]
