"""Expectations over perturbed solutions, and their derivatives."""

from diffperturb.expectation.estimators import Estimator, Regression, ScoreFunction
from diffperturb.expectation.samples import Samples
from diffperturb.expectation.method import Measured, Method
from diffperturb.expectation.monte_carlo import MonteCarlo
from diffperturb.expectation.perturbed import Perturbed
from diffperturb.expectation.multiplicative import MultiplicativePerturbed
from diffperturb.expectation.sharded import Sharded, batched

__all__ = [
    "Estimator",
    "Measured",
    "Method",
    "MonteCarlo",
    "MultiplicativePerturbed",
    "Perturbed",
    "Regression",
    "Samples",
    "ScoreFunction",
    "Sharded",
    "batched",
]
