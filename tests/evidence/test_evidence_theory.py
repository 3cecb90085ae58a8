"""The checks of theory: they pass for maximizers under every noise, and fail where a statement is false."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import refuses, table

from diffperturb import Argmax, BinaryChoice, CenteredGumbel, Gumbel, Laplace, Normal, Ranking, TopK, Vertices, minimize
from diffperturb.evidence import theory

KEY = jax.random.key(1)
THETA = jnp.array([1.0, 0.4, -0.3, -0.5])
SOLVERS = {
    "argmax": Argmax(),
    "top-k": TopK(2),
    "ranking": Ranking(),
    "choice": BinaryChoice(),
    "vertices": Vertices(jax.random.normal(KEY, (7, 4))),
}
FEW, REST = ("argmax", "vertices"), ("top-k", "ranking", "choice")
some = {name: SOLVERS[name] for name in FEW}
others = {name: SOLVERS[name] for name in REST}


@table(some, others)
def test_scaling_holds_to_the_last_bit_over_six_decades(row):
    for noise in (Gumbel(), Laplace()):
        assert all(check.passed for check in theory.check_scaling(row, noise, THETA, range(-10, 11), key=KEY))


@table(some, others)
def test_every_statement_about_the_temperature_holds(row):
    for noise in (Normal(), CenteredGumbel(), Laplace()):
        checks = theory.check_temperature(row, noise, THETA, range(-10, 11, 4), key=KEY)
        assert len(checks) == 7 and all(c.passed for c in checks), theory.table(checks)


def test_jensen_holds_for_noise_with_a_mean():
    decades = 2.0 ** jnp.arange(-10, 11)
    for noise in (Normal(), Gumbel(), CenteredGumbel()):
        assert theory.check_jensen(Argmax(), noise, THETA, decades, key=KEY).passed


def test_what_is_not_a_maximizer_fails():
    checks = theory.check_temperature(jax.nn.softmax, Normal(), THETA, range(-10, 11, 4), key=KEY)
    assert not checks[0].passed and not checks[1].passed


class Misstated(Gumbel):
    mean = 1.0


def test_a_noise_that_states_a_wrong_mean_fails():
    options = {"key": KEY, "num_samples": 20_000}
    assert not theory.check_jensen(BinaryChoice(), Misstated(), THETA + 3, [1.0], **options).passed
    assert theory.check_jensen(BinaryChoice(), Gumbel(), THETA + 3, [1.0], **options).passed


@pytest.mark.parametrize(("measured", "passes"), [(2, True), (2.4, True), (2.6, False)])
def test_the_verdict_allows_five_standard_errors(measured, passes):
    assert theory.Check("", measured, 2, 0.1).passed == passes
    assert theory.Check("", 2, 2, 0).passed


@table(
    {
        "not finite": (lambda: theory.closest_call("x", [1.0], np.nan, 1.0), "a check needs finite numbers"),
        "negative": (
            lambda: theory.sweep(Argmax(), Normal(), THETA, [0.1, -1.0], key=KEY),
            "temperatures above 0",
        ),
        "costs": (
            lambda: theory.sweep(minimize(Argmax()), Normal(), THETA, [0.1], key=KEY),
            "check its maximizer, solver.oracle",
        ),
    }
)
def test_bad_input_is_refused(row):
    call, words = row
    refuses(call, words)
