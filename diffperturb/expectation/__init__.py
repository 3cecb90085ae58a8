"""Expectations over perturbed solutions, and their derivatives."""

from diffperturb.expectation.estimators import Regression, ScoreFunction
from diffperturb.expectation.samples import Samples
from diffperturb.expectation.method import Method
from diffperturb.expectation.monte_carlo import Measured, MonteCarlo
from diffperturb.expectation.perturbed import Perturbed
from diffperturb.expectation.multiplicative import MultiplicativePerturbed
from diffperturb.expectation.sharded import Sharded, batched

__all__ = [
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
