"""Every solver learns with every method that fits it: loss, error and regret fall by more than three standard errors."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import ALL, refuses, table

from diffperturb import FenchelYoungLoss, MonteCarlo, Normal, Perturbed, TopK
from diffperturb.evidence import learning_benchmark
from diffperturb.evidence.learning_benchmark import METHODS, QUANTITIES, SOLVERS, by_distance, fit_pair, pairs
from diffperturb.evidence.learning_problems import decision_errors, fit, learning_problem
from diffperturb.learning.relaxations import RelaxedSubset

pytest.importorskip("optax")

# Every solver and every method once; all pairs with DIFFPERTURB_TESTS=all.
SUBSET = [
    ("Argmax", "Relaxation, hard"),
    ("TopK", "Relaxation"),
    ("AtLeast", "Identity"),
    ("BinaryChoice", "Straight-through"),
    ("Ranking", "Fenchel-Young, exact"),
    ("Assignment", "Blackbox"),
    ("PartialMatching", "I-MLE"),
    ("GridPath", "Fenchel-Young, multiplicative"),
    ("TravelingSalesperson", "Fenchel-Young"),
    ("SpanningTree", "Direct loss"),
    ("Knapsack", "SPO+"),
    ("External", "Fenchel-Young"),
]


@pytest.fixture(scope="module")
def stored(root):
    """The results that the documentation shows."""
    results = json.loads((root / "nbs" / "start" / "results" / "every_method.json").read_text(encoding="utf-8"))
    return {(record["solver"], record["method"]): record for record in results["pairs"]}


@pytest.mark.parametrize(("solver", "method"), list(pairs()) if ALL else SUBSET)
def test_a_pair_learns_as_the_stored_results_say(solver, method, stored):
    learned = fit_pair(solver, method)
    for what in QUANTITIES:
        fell, standard_error = learned.decrease(what)
        assert fell > 3 * standard_error, f"{what} fell by {fell} with a standard error of {standard_error}"
    before, after = learned.error.mean(axis=0)
    record = stored[solver, method]
    assert abs(before - np.mean(record["before"])) < 1e-3  # the same problems
    assert abs(after - np.mean(record["after"])) < 0.03  # other machines round otherwise


def test_the_stored_results_hold_every_pair_and_all_of_them_learned(stored):
    assert list(stored) == list(pairs())
    for record in stored.values():
        assert all(fell > 3 * error for fell, error in record["decrease"].values())


def test_every_solver_and_every_method_has_a_pair():
    assert {solver for solver, _ in pairs()} == {solver for solver, _ in SUBSET} == set(SOLVERS)
    assert {method for _, method in pairs()} == {method for _, method in SUBSET} == set(METHODS)
    assert set(SUBSET) <= set(pairs()) and len(pairs()) == 97


@pytest.fixture(scope="module")
def problems():
    return learning_problem(TopK(2), (5,))


def test_labels_are_solutions_and_the_hidden_map_makes_no_errors(problems):
    problem = jax.tree.map(lambda a: a[0], problems)
    held_out = problem.held_out
    assert jnp.all(jax.vmap(TopK(2))(held_out.truth) == held_out.labels)
    assert jnp.all(jnp.sum(held_out.labels, axis=1) == 2)
    hidden = jnp.linalg.lstsq(problem.train.features, problem.train.truth)[0]
    assert jnp.allclose(held_out.features @ hidden, held_out.truth, atol=1e-4)
    assert jax.tree.map(float, decision_errors(TopK(2), held_out.features @ hidden, held_out)) == (0, 0)


def test_a_loss_that_ignores_the_labels_does_not_learn(problems):
    idle = fit(TopK(2), lambda theta, y, truth, key: jnp.sum((theta - 1) ** 2), problems, key=jax.random.key(0))
    loss, loss_error = idle.decrease("loss")
    error, standard_error = idle.decrease("error")
    assert loss > 3 * loss_error and error < 3 * standard_error


def test_a_loss_of_labels_learns(problems):
    subsets = FenchelYoungLoss(Perturbed(TopK(2), Normal(), 1.0, MonteCarlo(10)))
    learned = fit(TopK(2), lambda theta, y, truth, key: subsets(theta, y, key=key), problems, key=jax.random.key(0))
    for what in QUANTITIES:
        fell, standard_error = learned.decrease(what)
        assert fell > 3 * standard_error


def test_a_pair_is_an_ordinary_loss(problems):
    once = fit(TopK(2), by_distance(RelaxedSubset(k=2)), problems, key=jax.random.key(0))
    assert np.allclose(once.error, fit_pair("TopK", "Relaxation").error, atol=0.02)


def test_the_command_writes_what_it_ran(tmp_path, monkeypatch):
    benchmark = "diffperturb.evidence.learning_benchmark.pairs"
    monkeypatch.setattr(benchmark, lambda: {("Argmax", "SPO+"): None})
    learning_benchmark._main(["--out", str(tmp_path / "results.json"), "--steps", "5"])
    results = json.loads((tmp_path / "results.json").read_text())
    [record] = results["pairs"]
    assert (record["solver"], record["method"], results["steps"]) == ("Argmax", "SPO+", 5)
    assert set(record["decrease"]) == set(QUANTITIES) and len(record["before"]) == len(record["after"]) == 8
    assert {"python", "jax", "diffperturb"} <= set(results["versions"]) and "--steps 5" in results["command"]


@table(
    {
        "pair": (lambda: fit_pair("GridPath", "Straight-through"), "does not fit GridPath"),
        "seed": (lambda: learning_problem(TopK(2), (5,), seed=-1), "seed is -1"),
        "features": (lambda: learning_problem(TopK(2), (5,), features=1), "features is 1"),
        "solver": (lambda: learning_problem(TopK(9), (5,)), "k is 9"),
    }
)
def test_bad_input_is_refused(row):
    call, words = row
    refuses(call, words)


def test_the_command_needs_a_file():
    with pytest.raises(SystemExit):
        learning_benchmark._main([])
