"""Runs of a small experiment: done, repeated, renamed, failed, died, left early, killed; and their table."""

import platform

import numpy as np
import pytest
from support import refuses

from diffperturb.evidence.intervals import over_seeds
from diffperturb.workbench import command_line, execution
from diffperturb.workbench.execution import results, rows_of, run
from diffperturb.workbench.parameters import RunError, RunFailedError, fingerprint, read, write_experiment
from diffperturb.workbench.store import read_json, state, write_json

CELLS = (
    (
        "parameters",
        'epsilon = 1.0  # temperature\nseed = 0\nscales = [1, 10]\ntitle = "mean"\nfail = False  # whether to fail',
    ),
    ("short", 'short = {"scales": [1]}'),
    (
        "",
        "import numpy as np\nfrom diffperturb.evidence.intervals import over_seeds\n"
        "from diffperturb.workbench.store import record",
    ),
    (
        "",
        "values = epsilon * np.random.default_rng(seed).normal(5, 1, (len(scales), 8))\nassert not fail, 'on request'",
    ),
    (
        "",
        "record('summary', {'mean': over_seeds(values[0])})\n"
        "record('by_scale', [{'scale': s, title: v} for s, v in zip(scales, values.mean(1))])",
    ),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture(scope="module")
def toy(home):
    return write_experiment(home / "nbs" / "experiments" / "toy.ipynb", CELLS)


@pytest.fixture(scope="module")
def out(home):
    return home / "runs"


@pytest.fixture(scope="module")
def done(toy, out):
    return run(toy, {"epsilon": 0.5}, out=out, progress=False)


def test_a_run_tells_what_was_run(done):
    told = state(done)
    expected = 0.5 * np.random.default_rng(0).normal(5, 1, (2, 8))[0]
    assert read_json(done / "metrics.json")["summary"] == {"mean": over_seeds(expected)}
    assert told["status"] == "done" and told["changed"] == ["epsilon"] and told["seconds"] > 0
    assert told["versions"]["python"] == platform.python_version() and done.name == told["fingerprint"]
    assert told["tables"] == ["by_scale.csv"] and (done / "by_scale.csv").exists()


def test_the_same_request_runs_once(toy, out, done):
    before = (done / "run.json").stat().st_mtime_ns
    assert run(toy, {"epsilon": 0.5}, out=out, progress=False) == done
    assert (done / "run.json").stat().st_mtime_ns == before


def test_given_values_win_over_the_short_form(toy, out):
    short = run(toy, {"seed": 3}, short=True, out=out, name="quick", progress=False)
    assert state(short)["parameters"] == {**read(toy).defaults, "seed": 3, "scales": [1]}
    words = "quick holds a run with other parameters or code"
    refuses(lambda: run(toy, {"seed": 4}, out=out, name="quick"), words, RunError)


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "-a"])
def test_a_name_that_is_no_folder_is_refused(toy, out, name):
    refuses(lambda: run(toy, out=out, name=name), f"the run's name is {name!r}", RunError)


def test_a_failed_cell_leaves_its_traceback(toy, out):
    words = "AssertionError: on request"
    refuses(lambda: run(toy, {"fail": True}, out=out, name="broken", progress=False), words, RunFailedError)
    folder = out / "toy" / "broken"
    assert "on request, at In [5] `values = epsilon" in state(folder)["error"]["text"]
    assert not (folder / "metrics.json").exists() and "on request" in (folder / "toy.ipynb").read_text()


EARLY = {
    "dies": ("import os\nos._exit(1)", "the kernel died, perhaps for lack of memory, at `import os`"),
    "leaves": ("raise SystemExit", "EarlyExit: the notebook exited before its end, at `raise SystemExit`"),
}


@pytest.mark.parametrize("name", EARLY)
def test_a_kernel_that_ends_early_is_a_failed_run(home, out, name):
    source, words = EARLY[name]
    path = write_experiment(home / f"{name}.ipynb", [("parameters", "n = 1"), ("", source), ("", "n")])
    refuses(lambda: run(path, out=out, progress=False), words, RunFailedError)
    assert state(next((out / name).iterdir()))["status"] == "failed"


def test_an_interrupted_run_is_shown_and_completed(toy, home, done):
    out, told, experiment = home / "others", state(done), read(toy)
    (out / "toy" / "killed").mkdir(parents=True)
    parameters = {**experiment.defaults, "seed": 7}
    opening = {"status": "running", "started": "2026-01-01T00:00:00+00:00", "parameters": parameters}
    opening |= {"changed": ["seed"], "fingerprint": fingerprint(experiment, {"seed": 7})}
    write_json(out / "toy" / "killed" / "run.json", {**told, **opening})
    [row] = rows_of(results("toy", out))
    assert row["status"] == "interrupted" and row["seed"] == 7
    run(toy, {"seed": 7}, out=out, name="killed", progress=False)
    assert state(out / "toy" / "killed")["status"] == "done"


def test_the_table_of_runs(tmp_path):
    base = {"experiment": "toy", "fingerprint": "x"}
    runs = {
        "a": {"status": "done", "started": "2026-01-02T00:00:00+00:00", "changed": [], "parameters": {"n": 1, "m": 1}},
        "b": {
            "status": "failed",
            "started": "2026-01-01T00:00:00+00:00",
            "changed": ["n"],
            "parameters": {"n": 2, "m": 1},
            "error": {"text": "ValueError: no"},
        },
    }
    for name, told in runs.items():
        (tmp_path / "toy" / name).mkdir(parents=True)
        write_json(tmp_path / "toy" / name / "run.json", {**base, **told})
        write_json(tmp_path / "toy" / name / "metrics.json", {"summary": {"mean": 3}})
    rows = rows_of(results("toy", tmp_path))
    assert [row["run"] for row in rows] == ["b", "a"]  # oldest first
    assert rows[0]["error"] == "ValueError: no" and "mean" not in rows[0] and rows[1]["mean"] == 3
    assert [row["n"] for row in rows] == [2, 1] and "m" not in rows[0]
    assert results("nothing", tmp_path) == []


def test_an_error_under_jit_is_told_in_its_own_words():
    message = "INTERNAL: callback failed: RunTimeValueError: theta[0] is nan\n\nAt:\n  somewhere"
    failed = execution._failure(3, "loss = f(theta)\nloss", "JaxRuntimeError", message)
    assert str(failed) == "JaxRuntimeError: theta[0] is nan, at In [3] `loss = f(theta)`"


def said(capsys, *args):
    """The exit status of a command, and what it prints."""
    try:
        code = command_line.main(args)
    except SystemExit as e:  # of argparse
        code = e.code
    captured = capsys.readouterr()
    return code, captured.out + captured.err


@pytest.fixture
def in_home(home, toy, monkeypatch):
    write_experiment(home / "nbs" / "experiments" / "plain.ipynb", [("parameters", "n = 1")])
    (home / "runs" / "toy").mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(home)


def test_a_negative_number_is_a_value(in_home, capsys):
    args = ("run", "toy", "--short", "--name", "first", "-p", "epsilon")
    code, text = said(capsys, *args, "-1e-3")
    assert code == 0 and "done in" in text
    code, text = said(capsys, *args, "-0.001")
    assert code == 0 and text.startswith("this was run before"), text
    code, text = said(capsys, "results")
    assert code == 0 and "± 0.0005" in text
    assert said(capsys, "results", "toy", "--csv", "toy.csv")[0] == 0
    with open("toy.csv") as file:
        assert file.readline().startswith("run,status,started,")
    code, text = said(capsys, "list")
    assert code == 0 and "epsilon = 1.0  # temperature" in text


WRONG = {
    "experiment": (("run", "tot"), "there is no experiment 'tot'; known: plain, toy; did you mean toy?"),
    "value": (
        ("run", "toy", "-p", "epsilon", "half"),
        "parameter epsilon is 'half', expected a number; its default is 1.0",
    ),
    "no value": (("run", "toy", "-p", "epsilon"), "-p takes a name and a value, such as -p epsilon 0.5"),
    "no short form": (("run", "plain", "--short"), "plain has no short form"),
    "no runs": (("results", "thing"), "make one with `diffperturb run thing`"),
    "no runs at all": (("results", "--out", "empty"), "no runs of any experiment in empty: make one"),
}


@pytest.mark.parametrize(("args", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_request_ends_with_status_2(in_home, capsys, args, words):
    code, text = said(capsys, *args)
    assert code == 2 and words in text, (code, text)


def test_a_csv_file_needs_an_experiment(in_home, done, capsys):
    code, text = said(capsys, "results", "--csv", "a.csv")
    assert code == 2 and "--csv writes one table: name the experiment" in text
    code, text = said(capsys, "results", "thing")
    assert code == 2 and "(there are runs of: " in text and "toy" in text
