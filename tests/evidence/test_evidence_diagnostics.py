"""The comparison of estimators: candidates, the rate 1/M, the order of methods, two references that agree."""

import jax
import jax.numpy as jnp
import pytest
from support import refuses, table

from diffperturb import Antithetic, Argmax, Laplace, MonteCarlo, Normal, Perturbed, Ranking
from diffperturb.evidence.diagnostics import candidates, compare

THETA, KEY = jnp.linspace(-1, 1, 12), jax.random.key(0)
BOTH = [MonteCarlo(1024), MonteCarlo(1024, Antithetic())]


def test_candidates_that_can_not_serve_are_refused_with_a_reason():
    methods, refused = candidates(Perturbed(Argmax(), Laplace()), jnp.zeros(40), budget=40)
    assert len(methods) == 6 and len(refused) == 6 and any("Orthogonal" in r for r in refused)


@pytest.fixture(scope="module")
def ranking():
    return compare(Perturbed(Ranking(), Normal(), 0.5), THETA, key=KEY, budget=960)


def test_the_order_of_methods_is_that_of_their_variances(ranking):
    errors = {row.name: row for row in ranking.rows}
    plain, fitted = errors["IID | score, leave-one-out"], errors["IID | regression"]
    assert fitted.gradient_error < 0.5 * plain.gradient_error and ranking.reference == "the exact form"
    assert errors["IID | score, zero"].gradient_error > plain.gradient_error
    assert errors["IID | score, zero"].product > 10 * ranking.rows[0].product


def test_names_say_how_noise_is_drawn(ranking):
    names = {row.name.split(" | ")[0] for row in ranking.rows}
    assert names == {"IID", "Antithetic", "Orthogonal antithetic", "Stratified", "Sobol"}


def test_errors_fall_as_one_over_the_number_of_draws():
    more = compare(Perturbed(Ranking(), Normal(), 0.5), THETA, key=KEY, methods=[MonteCarlo(960), MonteCarlo(15_360)])
    small, large = sorted(more.rows, key=lambda row: row.method.num_samples)
    assert 8 < small.gradient_error / large.gradient_error < 32


def best_of(scores):  # Argmax, as a user might write it
    return jax.nn.one_hot(jnp.argmax(scores), scores.size)


def test_a_long_run_agrees_with_the_exact_form():
    known = compare(Perturbed(Argmax(), Normal(), 0.5), THETA, key=KEY, methods=BOTH)
    unknown = compare(Perturbed(best_of, Normal(), 0.5), THETA, key=KEY, methods=BOTH)
    for a, b in zip(*(sorted(c.rows, key=lambda row: row.name) for c in (known, unknown)), strict=True):
        assert abs(a.gradient_error - b.gradient_error) < 0.1 * a.gradient_error
    assert unknown.reference == "400,000 draws"


@table(
    {
        "key": (lambda: compare(Perturbed(Argmax()), THETA, key=None), "needs a key"),
        "repeats": (lambda: compare(Perturbed(Argmax()), THETA, key=KEY, repeats=1), "repeats is 1"),
        "direction": (
            lambda: compare(Perturbed(Argmax()), THETA, key=KEY, methods=BOTH, direction=jnp.ones(12) * 0),
            "take a larger epsilon or another direction",
        ),
    }
)
def test_bad_input_is_refused(row):
    call, words = row
    refuses(call, words)
