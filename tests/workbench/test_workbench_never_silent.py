"""The command on damaged folders, places that can't be written, and values out of range: a sentence, and no half."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from nbformat import v4
from support import refuses, table

from diffperturb.evidence.tables import format_value
from diffperturb.workbench import command_line, execution, parameters, store
from diffperturb.workbench.parameters import RunError, read, write_experiment
from diffperturb.workbench.ranges import read_range

COMMAND = [sys.executable, "-m", "diffperturb.workbench.command_line"]
TOLD = {
    "status": "done",
    "fingerprint": "x",
    "parameters": {"n": 1},
    "changed": [],
    "started": "2026-01-01T00:00:00+00:00",
    "seconds": 1.0,
    "figures": [],
    "tables": [],
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A checkout with one experiment, two sound runs of another one, and a third one to damage."""
    write_experiment(tmp_path / "nbs" / "experiments" / "toy.ipynb")
    for name in ("first", "second", "third"):
        folder = tmp_path / "runs" / "other" / name
        folder.mkdir(parents=True)
        store.write_json(folder / "run.json", TOLD)
        store.write_json(folder / "metrics.json", {"summary": {"mean": 0.25}})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys, *args) -> tuple[int, str]:
    """The exit status of a command, and what it prints."""
    code = command_line.main(args)
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def put(path, content):
    """Replace a file by this text, or by a folder where the content is None."""
    path.unlink(missing_ok=True)
    path.mkdir() if content is None else path.write_text(content)


def told(**changed) -> str:
    return json.dumps({**TOLD, **changed})


DEEP = "[" * 100_000 + "]" * 100_000
DAMAGED = {  # (file, content, the status that is shown, the reason)
    "a number": ("run.json", "5", "damaged", "run.json holds a number, expected an object"),
    "a list": ("run.json", "[1, 2]", "damaged", "run.json holds a list"),
    "null": ("run.json", "null", "damaged", "run.json holds null"),
    "deeply nested": ("run.json", DEEP, "damaged", "run.json is not valid JSON"),
    "half": ("run.json", '{"status": "do', "damaged", "run.json is not valid JSON"),
    "not UTF-8": ("run.json", "\udcff", "damaged", "run.json is not valid JSON"),
    "a folder": ("run.json", None, "damaged", "run.json can't be read: Is a directory"),
    "empty": ("run.json", "{}", "damaged", "run.json has the status 'None': parameters is missing, changed is missing"),
    "status": ("run.json", told(status=[1]), "damaged", "run.json has the status '[1]'"),
    "started": ("run.json", told(started=5), "done", "run.json: started is a number"),
    "parameters": ("run.json", told(parameters=[1]), "done", "run.json: parameters is a list"),
    "changed": ("run.json", told(changed=[["n"]]), "done", "run.json: changed is a list"),
    "seconds": ("run.json", told(seconds="long"), "done", "run.json: seconds is a text"),
    "error": ("run.json", told(status="failed", error=[1]), "failed", "run.json: error is a list"),
    "error's text": ("run.json", told(status="failed", error={"text": [7]}), "failed", "[7]"),
    "nested parameters": ("run.json", told(parameters={"n": {"m": [{}]}}), "done", "{'m': [{}]}"),
    "missing": ("run.json", '{"status": "done"}', "done", "run.json: parameters is missing"),
    "metrics, a number": ("metrics.json", "5", "done", "metrics.json holds a number"),
    "metrics, a folder": ("metrics.json", None, "done", "metrics.json can't be read: Is a directory"),
    "metrics, null": ("metrics.json", "null", "done", "metrics.json holds null"),
    "summary": ("metrics.json", '{"summary": [1]}', "done", "metrics.json: summary is no object"),
    "nested summary": ("metrics.json", '{"summary": {"mean": {"mean": [], "low": {}, "high": "x"}}}', "done", "'low'"),
    "lock": (".lock", None, "done", None),
}


@table(DAMAGED)
def test_a_damaged_run_breaks_no_other(home, capsys, row):
    file, content, status, reason = row
    path = home / "runs" / "other" / "third" / file
    if content == "\udcff":
        path.write_bytes(b"\xff")
    else:
        put(path, content)
    code, text = said(capsys, "results")
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert code == 0 and all("done" in lines[name] and "0.25" in lines[name] for name in ("first", "second"))
    assert lines["third"].split()[1] == status and (reason or "") in lines["third"]
    assert said(capsys, "results", "other", "--csv", "all.csv")[0] == 0
    assert len((home / "all.csv").read_text().splitlines()) == 4


def test_a_folder_without_files_is_an_interrupted_run_and_hidden_ones_are_no_runs(home, capsys):
    (home / "runs" / "other" / "empty").mkdir()
    (home / "runs" / "other" / ".ipynb_checkpoints").mkdir()
    (home / "runs" / ".hidden").mkdir()
    text = said(capsys, "results")[1]
    assert (
        "interrupted" in text and "run.json is missing" in text and "checkpoints" not in text and ".hidden" not in text
    )


def test_a_damaged_run_is_not_replaced_unasked_nor_taken_for_done(home, capsys, monkeypatch):
    folder = home / "runs" / "toy" / "mine"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("[]")
    code, text = said(capsys, "run", "toy", "--name", "mine")
    assert code == 2 and "holds a run that can't be read (run.json holds a list" in text and "--force" in text
    mark = parameters.fingerprint(read(home / "nbs" / "experiments" / "toy.ipynb"), {})
    store.write_json(folder / "run.json", {**TOLD, "fingerprint": mark})
    assert not execution._is_done(folder, mark)  # its metrics are missing
    store.write_json(folder / "metrics.json", {})
    assert execution._is_done(folder, mark)


@pytest.mark.parametrize("name", [".lock", "run.json"])
def test_a_folder_in_place_of_a_file_stops_a_run(home, capsys, name):
    (home / "runs" / "toy" / "mine" / name).mkdir(parents=True)
    code, text = said(capsys, "run", "toy", "--name", "mine", "--force")
    assert code == 2 and f"runs/toy/mine/{name}: Is a directory" in text and len(text.splitlines()) == 1, text


def test_a_column_never_hides_another_one():
    told = {**TOLD, "run": "a", "parameters": {"status": 3}, "changed": ["status"]}
    [row] = execution.rows_of([{**told, "summary": {"status": 4, "seconds": 5, "mean": 6}}])
    assert row["status"] == "done" and row["seconds"] == 1.0 and row["mean"] == 6
    assert row["status (parameter)"] == 3 and row["status (summary)"] == 4 and row["seconds (summary)"] == 5


def parameters_cell(home, source):
    write_experiment(home / "nbs" / "experiments" / "bad.ipynb", [("parameters", source)])


REFUSED = {
    "long name": (("run", "toy", "--name", "n" * 300), "the run's name has 300 characters, expected at most 100"),
    "long name of an experiment": (("results", "n" * 300), "File name too long"),
    "parent": (("results", "../.."), "the experiment is '../..', expected a name"),
    "parent's": (("results", ".."), "the experiment is '..', expected a name"),
    "out is a file": (("run", "toy", "--out", "a file"), "runs go to a file/toy/"),
    "out below a file": (("run", "toy", "--out", "a file/runs"), "but a file is not a folder: choose another one"),
    "results of a file": (("results", "--out", "a file"), "no runs of any experiment in a file"),
    "results of an experiment in a file": (("results", "toy", "--out", "a file"), "a file is not a folder"),
    "out on a device": (("run", "toy", "--out", "/dev/full"), "but /dev/full is not a folder"),
    "out in a place of the system": (("run", "toy", "--out", "/proc/runs"), "/proc/runs: "),
    "csv to a folder": (("results", "other", "--csv", "runs"), "runs: Is a directory; choose another place"),
    "csv to no folder": (("results", "other", "--csv", "no/such.csv"), "no/such.csv: No such file or directory"),
    "csv below a file": (("results", "other", "--csv", "a file/x.csv"), "a file/x.csv: Not a directory"),
    "csv to a full device": (("results", "other", "--csv", "/dev/full"), "/dev/full: No space left on device"),
    "one bracket": (("run", "toy", "-p", "num_samples", "[1, 2"), "parameter num_samples is '[1, 2', expected a list"),
    "a gap": (("run", "toy", "-p", "num_samples", "1,,2"), "parameter num_samples is '1,,2', expected a list"),
    "out of range": (
        ("run", "toy", "-p", "epsilon", "-1"),
        "parameter epsilon is -1.0, expected epsilon > 0; its default is 1.0",
    ),
    "element out of range": (
        ("run", "toy", "-p", "num_samples", "1,0"),
        "parameter num_samples is [1, 0], expected min(num_samples) >= 1",
    ),
}


@table(REFUSED)
def test_a_sentence_in_place_of_a_traceback(home, capsys, row):
    args, words = row
    (home / "a file").write_text("as it was")
    before = sorted(home.rglob("*"))
    code, text = said(capsys, *args)
    assert code == 2 and text.startswith("diffperturb: ") and words in text, text
    assert len(text.splitlines()) == 1 and sorted(home.rglob("*")) == before, "something was left behind"
    assert (home / "a file").read_text() == "as it was"


def test_a_list_of_flags_is_read(home, capsys):
    parameters_cell(home, "flags = [True, False]")
    code, text = said(capsys, "run", "bad", "-p", "flags", "[1, 2")
    assert code == 2 and "parameter flags is '[1, 2', expected a list, each element true or false" in text


CELLS = {  # (source, what the error says)
    "syntax": ("epsilon = = 1", "bad.ipynb is not valid Python, line 1 `epsilon = = 1`: invalid syntax; correct it"),
    "magic": ("%matplotlib inline\na = 1", "line 1 `%matplotlib inline`"),
    "two targets": ("a = b = 1", "has the line `a = b = 1`, expected NAME = VALUE"),
    "added": ("a = 1\na += 1", "has the line `a += 1`, expected NAME = VALUE"),
    "infinite": ("a = 1e999", "parameter a is inf, expected a number"),
    "a call": (
        "a = 1\nassert print(a)",
        "`assert print(a)`, which is not understood, expected a condition on one parameter",
    ),
    "two parameters": ("a = 1\nb = 2\nassert a < b", "`assert a < b`, which is not understood"),
    "no parameter": ("a = 1\nassert b > 0", "`assert b > 0`, which is not understood"),
    "two conditions": ("a = 1\nassert a > 0 and a < 2", "is not understood"),
    "constants": ("a = 1\nassert 1 > 0", "is not understood"),
    "a list as a number": ("a = [1]\nassert a > 0", "min(values) >= 1 for each element of a list"),
    "a number as a list": ("a = 1\nassert min(a) > 0", "is not understood"),
    "an attribute": ("a = 'x'\nassert a.upper() in ('X',)", "is not understood"),
    "a reason that is computed": ("a = 1\nassert a > 0, f'{a}'", "is not understood"),
    "its own default": ("a = 1\nassert a > 1", "`assert a > 1`, which refuses the default a = 1: change one of them"),
}


@table(CELLS)
def test_a_cell_that_states_no_parameters(home, capsys, row):
    source, words = row
    parameters_cell(home, source)
    code, text = said(capsys, "run", "bad")
    assert code == 2 and words in text and not (home / "runs" / "bad").exists(), text


@pytest.mark.parametrize(("source", "words"), [("short = 5", "expected one dictionary"), ("short = {'a': 0}", "a > 0")])
def test_a_short_form_that_can_not_be(home, capsys, source, words):
    cells = [("parameters", "a = 1\nassert a > 0"), ("short", source)]
    write_experiment(home / "nbs" / "experiments" / "bad.ipynb", cells)
    code, text = said(capsys, "run", "bad")
    assert code == 2 and words in text


RANGES = {  # line: (default, allowed, refused)
    "assert a > 0": (1.0, (1e-9, 5), (0, -1)),
    "assert 0 <= a < 10": (0, (0, 9), (-1, 10)),
    "assert -1 < a": (0, (0,), (-1, -2)),
    "assert min(a) >= 1": ([1], ([1, 2],), ([1, 0], [0])),
    "assert 0 < max(a) <= 3": ([1], ([3, -5],), ([4], [0])),
    "assert a in ('x', 'y')": ("x", ("y",), ("z", "")),
}


@pytest.mark.parametrize("line", RANGES)
def test_a_range_is_what_python_would_say(line):
    default, allowed, refused = RANGES[line]
    found = read_range(line, {"a": default})
    assert all(found.holds(a) == eval(line.removeprefix("assert "), {"a": a}) for a in (*allowed, *refused))
    assert all(map(found.holds, allowed)) and not any(map(found.holds, refused))


def test_ranges_are_shown_before_a_run_and_by_list(home, capsys):
    with pytest.raises(SystemExit):
        command_line.main(["run", "toy", "--help"])
    text = capsys.readouterr().out
    assert "epsilon = 1.0  # epsilon > 0; temperature" in text and "min(num_samples) >= 1; draws per mean" in text
    assert "epsilon = 1.0  # epsilon > 0; temperature" in said(capsys, "list")[1]
    with pytest.raises(SystemExit):
        command_line.main(["run", "tov", "--help"])
    assert "did you mean toy?" in capsys.readouterr().out


def test_classification_is_checked_before_anything_is_trained(root):
    experiment = read(parameters.find("classification", root))
    wrong = {"epsilon": 0.0, "num_samples": [0], "epsilons": [1.0, 0.0], "sweep_samples": [0], "seeds": 1, "seed": -1}
    wrong |= {"epochs": 0, "batch_size": 0, "learning_rate": -1.0, "hidden": 0, "test_share": 1.0}
    assert wrong.keys() == experiment.defaults.keys()
    for name, value in wrong.items():
        refuses(lambda: parameters.check(experiment, {name: value}), f"parameter {name} is {value!r}, ", RunError)  # noqa: B023


def started(*args, **kwargs) -> subprocess.Popen:
    return subprocess.Popen([*COMMAND, *args], stderr=subprocess.PIPE, text=True, **kwargs)


def test_a_wrong_value_takes_no_time(root, tmp_path):
    begun = time.perf_counter()
    process = started("run", "classification", "-p", "epsilon", "-1", "--out", str(tmp_path / "runs"), cwd=root)
    assert "expected epsilon > 0" in process.communicate(timeout=60)[1] and process.returncode == 2
    assert time.perf_counter() - begun < 10 and not (tmp_path / "runs").exists()  # 0.9 s where nothing else runs


def test_a_reader_that_leaves_is_no_error(home):
    reading, writing = os.pipe()
    os.close(reading)
    process = started("results", stdout=writing, cwd=home)
    os.close(writing)
    assert process.communicate(timeout=60)[1] == "" and process.returncode == 141


def test_output_to_a_full_device(home):
    with open("/dev/full", "w") as full:
        process = started("results", stdout=full, cwd=home)
    text = process.communicate(timeout=60)[1]
    assert process.returncode == 2 and text.startswith("diffperturb: No space left on device"), text
    assert len(text.splitlines()) == 1


def test_a_full_disk_leaves_no_half(home):
    (home / "old.csv").write_text("as it was\n")
    nothing = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))}  # bytes of any file
    for args in (("results", "other", "--csv", "old.csv"), ("run", "toy")):
        process = started(*args, stdout=subprocess.PIPE, cwd=home, **nothing)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 2 and out == "" and "File too large" in err and len(err.splitlines()) == 1, err
    assert (home / "old.csv").read_text() == "as it was\n"
    assert not [path for path in home.rglob(".*") if path.is_file() and path.name != ".lock"], "a draft was left"
    assert not list((home / "runs" / "toy").rglob("run.json"))


def test_a_disk_that_fills_during_a_run_leaves_a_failed_run(home, capsys):
    size = 1200  # enough for run.json, and not for the notebook
    process = started(
        "run", "toy", cwd=home, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    )
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 1 and "toy.ipynb" in err and "File too large" in err and "Traceback" not in err, err
    text = said(capsys, "results", "toy")[1]
    assert "failed" in text and "File too large" in text


def test_a_folder_of_another_user(capsys, monkeypatch):
    """Also where the superuser runs the tests: all is imported first, for another user may not read it."""
    pytest.importorskip("papermill")
    parameters.library_digest()
    with tempfile.TemporaryDirectory() as name:
        write_experiment(Path(name) / "nbs" / "experiments" / "toy.ipynb")
        theirs = Path(name) / "theirs"
        theirs.mkdir(mode=0o555)
        Path(name).chmod(0o755)
        monkeypatch.chdir(name)
        user = os.geteuid()
        os.seteuid(user or 65534)
        try:
            code, text = said(capsys, "run", "toy", "--out", "theirs")
        finally:
            os.seteuid(user)
        assert code == 2 and "theirs/toy: Permission denied" in text and len(text.splitlines()) == 1, text
        assert list(theirs.iterdir()) == []
        monkeypatch.undo()


def test_letters_that_a_terminal_can_not_show(home):
    (home / "runs" / "other" / "\u00b5m").mkdir()
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    process = started("results", stdout=subprocess.PIPE, cwd=home, env=env)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "\\xb5m" in out and err == ""


def test_two_records_of_one_name_are_kept_and_told(home, capsys, monkeypatch):
    note = {"metadata": {"record": "summary", "keys": ["mean"]}}
    outputs = [v4.new_output("display_data", {"application/json": {"mean": i}}, **note) for i in (1, 2)]
    nb = v4.new_notebook(cells=[v4.new_code_cell("record(...)", outputs=outputs)])
    monkeypatch.setattr(execution, "_execute", lambda *args: nb)
    words = "2 records are named 'summary': only the first one has this name, the next one is summary-2"
    code, text = said(capsys, "run", "toy")
    assert code == 0 and words in text
    text = said(capsys, "results", "toy")[1]
    assert "2 records are named 'summary'" in text and " 1 " in text


def test_a_summary_is_a_dictionary():
    refuses(lambda: store.record("summary", 5), "the summary is 5, expected a dictionary", TypeError)
    refuses(lambda: store.record(5, 5), "the record's name is 5", ValueError)
    refuses(lambda: store.record("n" * 300, 5), "expected up to 100 letters", ValueError)


def test_an_estimate_of_another_kind_is_shown_as_it_is():
    assert format_value({"mean": [], "low": {}, "high": "x"}) == "{'mean': [], 'low': {}, 'high': 'x'}"
