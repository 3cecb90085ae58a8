"""Order statistics by quadrature: known values, enumeration, and noise that states something wrong."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from support import refuses, table

from diffperturb.exact.order_statistics import expected_excess, marginal_of, order_means
from diffperturb.foundations.pytrees import pytree_dataclass
from diffperturb.noise.distributions import Gumbel, Laplace, Normal, StudentT


def test_unequal_coins_against_all_outcomes():
    chance = np.array([0.2, 0.9, 0.4])
    outcomes = np.array(list(itertools.product((0, 1), repeat=3)))
    mass = np.prod(np.where(outcomes, chance, 1 - chance), axis=1)
    truth = [mass[outcomes.sum(axis=1) >= j].sum() for j in (1, 2, 3)]
    found = expected_excess(jnp.asarray(1 - chance)[:, None], jnp.asarray(chance)[:, None], jnp.zeros((3, 1)))[:, 0]
    np.testing.assert_allclose(found, truth, atol=1e-6)


@table({"laplace": (Laplace(), 0.75), "gumbel": (Gumbel(), Gumbel.mean + np.log(2))})
def test_the_larger_of_two_tied_scores(row):
    noise, truth = row
    with jax.enable_x64(True):
        eps = jnp.array([1e-3, 1.0, 1e3])
        mean = jax.jit(jax.vmap(lambda e: order_means(noise, jnp.zeros(2), e, 1)[0]))(eps) / eps
        np.testing.assert_allclose(mean, truth, rtol=1e-11)


@pytree_dataclass
class Slip(Normal):
    def log_pdf(self, t):
        return -0.5 * t**2  # the constant is missing


@pytree_dataclass
class Shifted(Normal):
    mean = 0.1


@table(
    {
        "a wrong density": (
            lambda: marginal_of(Slip(), jnp.float32),
            "has the integral 2.507 and the mean 0, expected 1",
        ),
        "a wrong mean": (
            lambda: marginal_of(Shifted(), jnp.float32),
            "the mean 0, expected 1 and the mean that it states, 0.1",
        ),
        "no mean": (lambda: marginal_of(StudentT(1.0), jnp.float32), "no mean"),
        "too heavy tails": (lambda: marginal_of(StudentT(1.3), jnp.float32), "too heavy for an exact form in float32"),
    }
)
def test_order_statistics_refuse(row):
    refuses(*row)
