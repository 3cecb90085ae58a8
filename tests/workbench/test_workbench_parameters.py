"""Experiments are found, their parameters read and checked: every refusal by name, and what a fingerprint depends on."""

import sys
from dataclasses import replace

import pytest
from support import refuses

from diffperturb.workbench import parameters
from diffperturb.workbench.parameters import RunError, check, fingerprint, parse, parse_all, write_experiment

CELLS = (
    (
        "parameters",
        "epsilon = 1.0  # temperature\nseed = 0  # of all that is random\nscales = [1, 10]\n"
        'title = "mean"\nfail = False  # whether to fail',
    ),
    ("short", 'short = {"scales": [1]}'),
)
DEFAULTS = {"epsilon": 1.0, "seed": 0, "scales": [1, 10], "title": "mean", "fail": False}


@pytest.fixture
def home(tmp_path):
    return tmp_path


@pytest.fixture
def toy(home):
    return write_experiment(home / "nbs" / "experiments" / "toy.ipynb", CELLS, "The mean of some numbers.")


@pytest.fixture
def experiment(toy):
    return parameters.read(toy)


def test_experiments_are_found_from_within_a_clone(home, toy):
    found = parameters.experiments(home)
    assert found == parameters.experiments(home / "nbs" / "experiments") == {"toy": toy.resolve()}
    assert parameters.find("toy", home) == toy.resolve() and parameters.find(toy) == toy


def test_an_experiment_as_it_is_read(experiment):
    assert experiment.defaults == DEFAULTS
    assert experiment.short == {"scales": [1]} and experiment.purpose == "The mean of some numbers."
    assert experiment.notes["epsilon"] == "temperature" and experiment.notes["title"] == ""


def test_the_example_is_an_experiment(home):
    example = parameters.read(write_experiment(home / "example.ipynb"))
    assert example.defaults == {"epsilon": 1.0, "seed": 0, "num_samples": [10, 1000]}
    assert example.short == {"num_samples": [10]} and all(example.notes.values()) and example.purpose


REFUSED = {
    "unknown name": (
        {"epsilom": 2},
        "toy has no parameter 'epsilom'; known: epsilon, seed, scales, title, fail; did you mean epsilon?",
    ),
    "fraction": ({"seed": 1.5}, "parameter seed is 1.5, expected a whole number; its default is 0"),
    "true": ({"epsilon": True}, "parameter epsilon is True, expected a number"),
    "nan": ({"epsilon": float("nan")}, "parameter epsilon is nan"),
    "infinite": ({"epsilon": float("inf")}, "parameter epsilon is inf"),
    "number for a list": (
        {"scales": 3},
        "parameter scales is 3, expected a list, each element a whole number; its default is [1, 10]",
    ),
    "mixed list": ({"scales": [1, "x"]}, "expected a list"),
    "empty list": ({"scales": []}, "an empty list"),
    "list for a number": ({"seed": []}, "parameter seed is [], expected a whole number"),
    "one for true": ({"fail": 1}, "expected true or false"),
    "number for a string": ({"title": 1}, "expected a string"),
}


@pytest.mark.parametrize(("given", "words"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_value_is_refused(experiment, given, words):
    refuses(lambda: check(experiment, given), words, RunError)


def test_a_whole_number_is_accepted_as_a_number(experiment):
    checked = check(experiment, {"epsilon": 2, "scales": [3, 4]})
    assert checked == {"epsilon": 2.0, "scales": [3, 4]} and type(checked["epsilon"]) is float


UNREADABLE = {
    "no tag": ([("", "epsilon = 1.0")], "bad.ipynb has 0 cells tagged `parameters`, expected one: tag the cell"),
    "two tags": ([("parameters", "a = 1"), ("parameters", "b = 1")], "has 2 cells tagged"),
    "a call": ([("parameters", "a = max(1, 2)")], "has the line `a = max(1, 2)`, expected NAME = VALUE"),
    "None": ([("parameters", "a = None")], "sets a to None, expected a number"),
    "empty list": ([("parameters", "a = []")], "at least one element"),
    "mixed list": ([("parameters", "a = [1, 'x']")], "all of one type"),
    "unknown in short": ([("parameters", "a = 1"), ("short", "short = {'b': 1}")], "bad has no parameter 'b'"),
}


@pytest.mark.parametrize(("cells", "words"), UNREADABLE.values(), ids=UNREADABLE)
def test_an_ambiguous_notebook_is_refused(home, cells, words):
    path = write_experiment(home / "bad.ipynb", cells)
    refuses(lambda: parameters.read(path), words, RunError)


def test_a_broken_notebook_is_refused(home):
    (home / "broken.ipynb").write_text("{")
    refuses(lambda: parameters.read(home / "broken.ipynb"), "broken.ipynb is not a valid notebook", RunError)


def test_a_missing_notebook_is_refused(home, toy):
    refuses(lambda: parameters.find("no/such.ipynb"), "there is no notebook no/such.ipynb: check the path", RunError)
    words = "there is no experiment 'toys'; known: toy; did you mean toy?"
    refuses(lambda: parameters.find("toys", home), words, RunError)


def test_a_missing_package_is_named(toy, monkeypatch):
    monkeypatch.setitem(sys.modules, "nbformat", None)
    words = 'nbformat is not installed, and runs need it: pip install "diffperturb[experiments]"'
    refuses(lambda: parameters.load_notebook(toy), words, RunError)


def test_text_is_read_by_the_type_of_the_default(experiment):
    given = parse_all(experiment, [("epsilon", "1e-2"), ("scales", "3,4"), ("fail", "True"), ("title", "3")])
    assert given == {"epsilon": 0.01, "scales": [3, 4], "fail": True, "title": "3"}
    assert parse("[5]", [1]) == parse("5", [1]) == [5] and parse("a, 'b'", ["x"]) == ["a", "b"]


UNPARSED = {
    "word": ([("epsilon", "half")], "parameter epsilon is 'half', expected a number; its default is 1.0"),
    "fraction": ([("seed", "1.5")], "parameter seed is '1.5', expected a whole number"),
    "word in a list": ([("scales", "1,x")], "parameter scales is '1,x', expected a list"),
    "yes": ([("fail", "yes")], "parameter fail is 'yes', expected true or false"),
    "twice": ([("seed", "1"), ("seed", "2")], "seed is given twice"),
}


@pytest.mark.parametrize(("pairs", "words"), UNPARSED.values(), ids=UNPARSED)
def test_text_that_is_no_value_is_refused(experiment, pairs, words):
    refuses(lambda: parse_all(experiment, pairs), words, RunError)


def test_a_fingerprint_depends_on_values_and_code_alone(experiment):
    same = fingerprint(experiment, {})
    assert same == fingerprint(experiment, {"epsilon": 1.0}) != fingerprint(experiment, {"epsilon": 1.5})
    assert len(same) == 10
    cell = experiment.nb["cells"][1]
    for source, is_same in ((cell["source"] + "  # changed", True), (cell["source"] + "\nmore = 1", False)):
        other = replace(experiment, nb={"cells": [{**cell, "source": source}, *experiment.nb["cells"][2:]]})
        assert (fingerprint(other, {}) == same) is is_same


def test_comments_and_layout_have_no_meaning():
    assert parameters._meaning("x=1 # one") == parameters._meaning("x = 1")
    assert parameters._meaning("%pip list") == "%pip list"


def test_the_files_that_no_result_depends_on_exist():
    names = {path.name for path in parameters._PACKAGE.rglob("*.py")}
    assert names >= parameters._NO_RESULT
