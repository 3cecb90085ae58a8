"""Wrong input to what measures: one sentence for a number out of range, NaN, a wrong type or shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import refuses, table

from diffperturb import Argmax, Laplace, MonteCarlo, MultiplicativePerturbed, Normal, Perturbed, TopK
from diffperturb.evidence import learning_benchmark, theory
from diffperturb.evidence import tables as tables_of
from diffperturb.evidence.datasets import Images, stratified
from diffperturb.evidence.diagnostics import Comparison, Efficiency, candidates, compare
from diffperturb.evidence.intervals import check_number, check_values, over_items, over_seeds
from diffperturb.evidence.learning_problems import LearningResult, fit, learning_problem

THETA, KEY, NAN = jnp.array([1.0, 0.4, -0.3]), jax.random.key(0), float("nan")
OPERATOR, METHOD = Perturbed(Argmax(), Normal()), MonteCarlo(10)
IMAGES, LABELS = np.full((2, 4, 4), 0.5, np.float32), np.array([0, 1])
COUNTS = np.zeros((3, 2))
RESULT = LearningResult(COUNTS, COUNTS, COUNTS)


def sweep(solver=None, noise=None, theta=THETA, epsilons=(1.0,), **options):
    return theory.sweep(solver or Argmax(), noise or Normal(), theta, epsilons, **{"key": KEY, **options})


def images(**changed):
    parts = {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES.copy(), "test_labels": LABELS.copy()}
    parts |= {"num_classes": 2, "description": "", "source": "", "license": ""}
    return Images(**{**parts, **changed})


INTERVALS = {
    "nan": (lambda: over_seeds([1.0, NAN]), "values[1] is nan (1 of 2 are not finite)"),
    "infinite": (lambda: over_seeds([np.inf, 1.0]), "values[0] is inf"),
    "text": (lambda: over_seeds(["a", "b"]), "values has dtype <U1, expected real numbers"),
    "none": (lambda: over_seeds([1.0, None]), "values has dtype object"),
    "complex": (lambda: over_seeds(np.array([1j, 2.0])), "values has dtype complex128"),
    "ragged": (lambda: over_seeds([[1.0], [1.0, 2.0]]), "values has rows of several lengths"),
    "matrix": (lambda: over_seeds(np.ones((2, 2))), "values have shape (2, 2), expected (n,)"),
    "level in percent": (lambda: over_seeds([1.0, 2.0], level=95), "level is 95, expected a number between 0 and 1"),
    "level one": (lambda: over_items(0.5, 10, level=1.0), "level is 1.0, expected a number between 0 and 1"),
    "level text": (lambda: over_items(0.5, 10, level="high"), "level is 'high' of type str, expected a number"),
    "share in percent": (lambda: over_items(97, 540), "share is 97, expected a number from 0 to 1"),
    "share below 0": (lambda: over_items(-0.1, 540), "share is -0.1"),
    "share nan": (lambda: over_items(NAN, 540), "share is nan"),
    "shares": (lambda: over_items(np.ones(3), 540), "share is array([1., 1., 1.]) of type ndarray"),
    "no items": (lambda: over_items(0.5, 0), "n is 0, expected a whole number of at least 1"),
    "half an item": (lambda: over_items(0.5, 0.5), "n is 0.5 of type float, expected a whole number"),
    "true": (lambda: check_number(True, "n"), "n is True of type bool, expected a number"),
}
DATA = {
    "share text": (lambda: stratified(LABELS, "0.3", 0), "test_share is '0.3' of type str"),
    "share nan": (lambda: stratified(LABELS, NAN, 0), "test_share is nan, expected a number between 0 and 1"),
    "seed": (lambda: stratified(LABELS, 0.5, -1), "seed is -1, expected a whole number of at least 0"),
    "no seed": (lambda: stratified(LABELS, 0.5, None), "seed is None of type NoneType, expected a whole number"),
    "labels": (lambda: stratified(np.array([0.5, NAN]), 0.5, 0), "labels have dtype float64 and shape (2,)"),
    "one-hot labels": (lambda: stratified(np.eye(3, dtype=int), 0.5, 0), "shape (3, 3), expected (n,) classes"),
    "no labels": (lambda: stratified(np.array([], int), 0.5, 0), "shape (0,), expected (n,) classes with n >= 1"),
    "jax images": (
        lambda: images(train_images=jnp.asarray(IMAGES)),
        "expected a NumPy array of floating-point numbers",
    ),
    "gray levels": (lambda: images(test_images=(16 * IMAGES).astype(int)), "test_images are int64, expected a NumPy"),
    "not scaled": (lambda: images(train_images=16 * IMAGES), "train_images have values that are not between 0 and 1"),
    "nan": (lambda: images(train_images=NAN * IMAGES), "train_images have values that are not between 0 and 1"),
    "flat": (
        lambda: images(train_images=IMAGES.reshape(2, 16)),
        "shapes (2, 16) and (2,), expected (n, height, width)",
    ),
    "class": (lambda: images(num_classes=1), "train_labels are [0 1], expected 0 to 0"),
    "no class": (lambda: images(num_classes=0), "num_classes is 0, expected a whole number of at least 1"),
}
EFFICIENCY = Efficiency(METHOD, 0.1, 0.0, 0.01, 1e-3)
DIAGNOSTICS = {
    "multiplicative": (lambda: compare(MultiplicativePerturbed(Argmax()), THETA, key=KEY), "expected Perturbed("),
    "a solver": (lambda: candidates(Argmax(), THETA), "perturbed is Argmax(), expected Perturbed("),
    "theta nan": (lambda: compare(OPERATOR, THETA.at[1].set(NAN), key=KEY), "theta[1] is nan"),
    "theta of whole numbers": (lambda: candidates(OPERATOR, jnp.arange(3)), "theta has dtype int32"),
    "budget": (lambda: candidates(OPERATOR, THETA, budget=1.5), "budget is 1.5 of type float"),
    "budget 0": (lambda: compare(OPERATOR, THETA, key=KEY, budget=0), "budget is 0, expected at least 2"),
    "direction": (lambda: compare(OPERATOR, THETA, key=KEY, direction=THETA[:2]), "direction has shape (2,), expected"),
    "direction nan": (lambda: compare(OPERATOR, THETA, key=KEY, direction=NAN * THETA), "direction[0] is nan"),
    "no methods": (lambda: compare(OPERATOR, THETA, key=KEY, methods=[]), "there is no method to compare"),
    "a number of draws": (lambda: compare(OPERATOR, THETA, key=KEY, methods=[100]), "a method is 100, expected a list"),
    "a class": (lambda: compare(OPERATOR, THETA, key=KEY, methods=MonteCarlo), "a method is <class"),
    "reference": (lambda: compare(OPERATOR, THETA, key=KEY, reference=10), "reference is 10, expected at least 1000"),
    "no rows": (lambda: Comparison([], [], ""), "rows is [], expected a list of at least one Efficiency"),
    "rows": (lambda: Comparison([METHOD], [], ""), "expected a list of at least one Efficiency"),
    "negative time": (
        lambda: Efficiency(METHOD, 0.1, 0.1, 0.1, -1.0),
        "seconds is -1.0, expected a number of at least 0",
    ),
    "error nan": (lambda: Efficiency(METHOD, NAN, 0.1, 0.1, 1.0), "value_error is nan"),
    "no method": (lambda: Efficiency("IID", 0.1, 0.1, 0.1, 1.0), "method is 'IID', expected MonteCarlo("),
}
THEORY = {
    "measured": (lambda: theory.Check("", NAN, 1.0, 0.0), "measured is nan, expected a number"),
    "bound": (lambda: theory.Check("", 1.0, np.inf, 0.0), "bound is inf"),
    "error below 0": (lambda: theory.Check("", 1.0, 1.0, -1.0), "std_error is -1.0, expected a number of at least 0"),
    "rounding": (lambda: theory.Check("", 1.0, 1.0, 0.0, rounding=np.inf), "rounding is inf"),
    "one check": (lambda: theory.table(theory.Check("", 1.0, 1.0, 0.0)), "expected a list of Check"),
    "no check": (lambda: theory.table([1.0]), "expected a list of Check"),
    "error nan": (lambda: theory.closest_call("x", [1.0], 1.0, 1.0, NAN), "x: std_error is nan"),
    "lengths": (
        lambda: theory.closest_call("x", [1.0, 2.0], [1.0, 2.0, 3.0], 1.0),
        "x: shapes [(3,), (), (), (), (2,)]",
    ),
    "no temperature": (lambda: theory.closest_call("x", [], 1.0, 1.0), "expected one number or (T,), T temperatures"),
    "epsilons": (lambda: sweep(epsilons=[]), "expected a list of finite temperatures above 0"),
    "one epsilon": (lambda: sweep(epsilons=1.0), "expected a list of finite temperatures above 0"),
    "infinite epsilon": (lambda: sweep(epsilons=[np.inf]), "epsilons[0] is inf"),
    "epsilon beyond float32": (lambda: sweep(epsilons=[1e-50]), "expected a list of finite temperatures above 0"),
    "theta": (lambda: sweep(theta=NAN * THETA), "theta[0] is nan"),
    "whole numbers": (lambda: sweep(theta=jnp.arange(3)), "theta has dtype int32"),
    "solver": (lambda: sweep(solver="argmax"), "solver is 'argmax'"),
    "shape": (lambda: sweep(solver=TopK(5)), "k is 5"),
    "noise": (lambda: sweep(noise=Laplace), "expected a noise such as Normal()"),
    "one draw": (lambda: sweep(num_samples=1), "num_samples is 1, expected at least 2"),
    "no whole draws": (lambda: sweep(num_samples=10.0), "num_samples is 10.0 of type float"),
    "exponents": (
        lambda: theory.check_temperature(Argmax(), Normal(), THETA, ["a"], key=KEY),
        "exponents has dtype <U1, expected real numbers",
    ),
    "arrays": (lambda: theory.Sweep(*[np.ones(2)] * 6), "the arrays have shapes"),
    "rows of a table": (lambda: tables_of.table({"a": 1}), "a row is 'a', expected a dictionary from column to value"),
}
PROBLEMS = learning_problem(TopK(2), (5,), problems=2)
BENCHMARK = {
    "solver": (lambda: learning_benchmark.fit_pair("Argmx", "SPO+"), "solver is 'Argmx', expected one of Argmax, TopK"),
    "method": (lambda: learning_benchmark.fit_pair("Argmax", "SPO"), "method is 'SPO', expected one of Fenchel-Young"),
    "no pair": (lambda: learning_benchmark.run_benchmark(["Argmax"]), "a pair is 'Argmax', expected (solver, method)"),
    "a late pair": (
        lambda: learning_benchmark.run_benchmark([("Argmax", "SPO+"), ("GridPath", "Straight-through")]),
        "Straight-through does not fit GridPath",
    ),
    "seed": (lambda: learning_benchmark.run_benchmark(seed=-1), "seed is -1, expected at least 0"),
    "steps": (lambda: learning_benchmark.run_benchmark(steps=0), "steps is 0, expected at least 1"),
    "layer": (lambda: learning_benchmark.by_distance(3), "layer is 3, expected a function"),
    "level": (lambda: learning_problem(TopK(2), (5,), level=NAN), "level is nan, expected a number"),
    "rate": (
        lambda: fit(TopK(2), lambda *a: 0.0, PROBLEMS, key=KEY, rate=-1.0),
        "rate is -1.0, expected a number above 0",
    ),
    "loss": (lambda: fit(TopK(2), "loss", PROBLEMS, key=KEY), "loss is 'loss'"),
    "problems": (lambda: fit(TopK(2), lambda *a: 0.0, [], key=KEY), "problems are list, expected a function and a Lea"),
    "what": (lambda: RESULT.decrease("accuracy"), "what is 'accuracy', expected loss, error or regret"),
}


@table({**INTERVALS, **{f"data: {k}": v for k, v in DATA.items()}})
def test_numbers_and_data_out_of_range_are_refused(row):
    call, words = row
    refuses(call, words, (TypeError, ValueError))


@table(
    {
        **DIAGNOSTICS,
        **{f"theory: {k}": v for k, v in THEORY.items()},
        **{f"learning: {k}": v for k, v in BENCHMARK.items()},
    }
)
def test_a_measurement_of_nothing_is_refused(row):
    call, words = row
    refuses(call, words, (TypeError, ValueError))


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--steps", "0"], ["--out", "no/such.json"], ["--out", "."]])
def test_the_benchmark_looks_at_its_arguments_before_it_trains(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(learning_benchmark, "run_benchmark", lambda **_: pytest.fail("it trained"))
    with pytest.raises(SystemExit):
        learning_benchmark._main(["--out", "file.json", *arguments])
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize("number", [0.5, np.float32(0.5), np.array(0.5), jnp.array(0.5), jnp.array(0.5, jnp.bfloat16)])
def test_every_kind_of_number_is_a_number(number):
    assert over_items(number, np.int64(10)) == over_items(0.5, 10)
    assert check_values(jnp.asarray([number, number]), "values").tolist() == [0.5, 0.5]


def test_a_method_without_any_error_has_a_table():
    other = Efficiency(METHOD, 0.1, 0.2, 0.01, 1e-3)
    lines = Comparison([EFFICIENCY, EFFICIENCY, other], [], "known").table().splitlines()
    assert [line.split()[-1] for line in lines[2:5]] == ["1.0x", "1.0x", "infx"]


def test_checks_are_formatted_by_the_one_table():
    checks = [theory.Check(r"$a \le b$" + "x" * 200, 0.123456, 2.0, 0.05, at="here"), theory.Check("y", 3.0, 2.0, 0.0)]
    head = "| statement | measured | bound | standard error | at | verdict |\n|---|---|---|---|---|---|\n"
    first = r"| $a \le b$" + "x" * 200 + " | 0.123 | 2 | 0.05 | here | holds |\n"
    assert theory.table(checks) == head + first + "| y | 3 | 2 | 0 |  | **FAILS** |\n"
