"""Noise distributions and the ways to draw from them."""

from diffperturb.noise.noise import IIDNoise, Noise
from diffperturb.noise.distributions import (
    CenteredGumbel,
    ExponentialPower,
    Gumbel,
    Laplace,
    Logistic,
    Normal,
    StudentT,
)
from diffperturb.noise.without_density import NoDensity, SumOfGamma, TwoPoint
from diffperturb.noise.scaled import Correlated, Density, Scaled
from diffperturb.noise.sampling import Antithetic, IID, Orthogonal, Sampling, Sobol, Stratified

__all__ = [
    "Antithetic",
    "CenteredGumbel",
    "Correlated",
    "Density",
    "ExponentialPower",
    "Gumbel",
    "IID",
    "IIDNoise",
    "Laplace",
    "Logistic",
    "NoDensity",
    "Noise",
    "Normal",
    "Orthogonal",
    "Sampling",
    "Scaled",
    "Sobol",
    "Stratified",
    "StudentT",
    "SumOfGamma",
    "TwoPoint",
]
