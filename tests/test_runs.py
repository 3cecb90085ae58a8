"""Experiments through the real command line: what they leave, what they refuse, and what happens when one is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from diffperturb.workbench import command_line, execution, parameters, store

COMMAND = str(Path(sys.executable).with_name("diffperturb"))
WAIT = """
import os, time
from pathlib import Path
Path("kernel").write_text(str(os.getpid()))
while wait and not Path("go on").exists():
    time.sleep(0.05)
"""
RECORD = """
import sys
from IPython.display import display
note = {"record": "summary", "device": None, "keys": ["twice", "python"]}
display({"application/json": {"twice": 2 * seed, "python": sys.prefix}}, raw=True, metadata=note)
"""


def notebook(folder: Path, name: str, *cells: str, tag: str = "parameters") -> Path:
    """An experiment in a small checkout; the first cell sets its parameters."""
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    nb.cells[0].metadata["tags"] = [tag]
    path = folder / "nbs" / "experiments" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, path)
    return path


@pytest.fixture
def home(tmp_path) -> Path:
    """A checkout with experiments that take no time; one waits for a file."""
    notebook(tmp_path, "waits", "seed = 1\nwait = True", WAIT, RECORD)
    notebook(tmp_path, "fails", "seed = 1", "print('so far')", "raise OSError('the disk is full')")
    notebook(tmp_path, "untagged", "seed = 1", tag="other")
    return tmp_path


def start(home: Path, *args: str, **env: str) -> subprocess.Popen:
    env = {**os.environ, **env}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # tests in the background; a run would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen([COMMAND, *args], cwd=home, env=env, **pipes)


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def until(condition, seconds: float = 30):
    """Wait until the condition returns something true, and return it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def started(home: Path) -> int:
    """The process id of the kernel, once the notebook is waiting."""
    until(lambda: (home / "kernel").exists() and (home / "kernel").read_text())
    return int((home / "kernel").read_text())


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def results(home: Path, monkeypatch, capsys) -> str:
    monkeypatch.chdir(home)
    assert command_line.main(["results"]) == 0
    return capsys.readouterr().out


def only_run(home: Path, experiment: str) -> Path:
    [folder] = (home / "runs" / experiment).iterdir()
    return folder


TINY = ["-p", "epochs", "1", "-p", "num_samples", "1", "-p", "sweep_samples", "1", "-p", "seeds", "2"]
TINY += ["-p", "epsilons", "1.0", "-p", "hidden", "8", "-p", "test_share", "0.8"]


def test_the_first_experiment(root, tmp_path, capsys):
    args = ["run", "classification", "-p", "epsilon", "0.5", "-p", "seed", "1", *TINY]
    args += ["--out", str(tmp_path / "runs")]
    code, out, err = finish(start(root, *args))
    assert code == 0, err
    assert "classification: 100%" in err
    folder = only_run(tmp_path, "classification")
    told = json.loads((folder / "run.json").read_text())
    assert told["status"] == "done" and told["seconds"] > 0 and told["device"]
    assert told["parameters"]["epsilon"] == 0.5 and told["parameters"]["batch_size"] == 32
    assert told["seed"] == 1 and {"python", "jax", "numpy", "diffperturb"} <= told["versions"].keys()

    metrics = json.loads((folder / "metrics.json").read_text())
    accuracy = metrics["summary"]["test acc M=1"]
    assert accuracy["low"] <= accuracy["mean"] <= accuracy["high"] and 0 < accuracy["mean"] < 1
    assert [row["loss"] for row in metrics["accuracy"]] == ["cross-entropy", "M = 1"]
    for name in told["figures"]:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert "fig-2.png" in told["figures"] and "accuracy.csv" in told["tables"]
    assert out.splitlines()[-1].split() == ["run", str(folder)]
    for name in [*told["figures"], *told["tables"]]:
        assert str(folder / name) in out
    executed = nbformat.read(folder / "classification.ipynb", as_version=4)
    [injected] = [c for c in executed.cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert "epsilon = 0.5" in injected.source

    code, again, err = finish(start(root, *args))
    assert code == 0 and "this was run before" in again and "100%" not in err
    assert command_line.main(["results", "classification", "--out", args[-1]]) == 0
    table = capsys.readouterr().out
    for word in ("test acc M=1", "epsilon", "0.5", folder.name, "done"):
        assert word in table


def test_the_short_form_is_shorter(root):
    experiment = parameters.read(parameters.find("classification", root))
    for name, value in experiment.short.items():
        full = experiment.defaults[name]
        assert len(value) < len(full) if isinstance(full, list) else value < full, name


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "clasification"], "known: fails, untagged, waits"),
        (["run", "wait"], "there is no experiment 'wait'; known: fails, untagged, waits; did you mean waits?"),
        (["run", "no/such.ipynb"], "there is no notebook no/such.ipynb: check the path"),
        (["run", "untagged"], "has 0 cells tagged `parameters`, expected one"),
        (["run", "waits", "-p", "sed", "2"], "waits has no parameter 'sed'; known: seed, wait; did you mean seed?"),
        (["run", "waits", "-p", "seed", "two"], "parameter seed is 'two', expected a whole number; its default is 1"),
        (["run", "waits", "-p", "seed", "1.5"], "parameter seed is '1.5', expected a whole number"),
        (["run", "waits", "-p", "wait", "1"], "parameter wait is '1', expected true or false"),
        (["run", "waits", "-p", "seed=2"], "-p takes a name and a value, such as -p epsilon 0.5"),
        (["run", "waits", "-p", "seed", "1", "-p", "seed", "2"], "parameter seed is given twice"),
        (["run", "waits", "--short"], "waits has no short form"),
        (["run", "waits", "--name", "../../etc"], "the run's name is '../../etc'"),
        (["results", "waits"], "no runs of waits in runs: make one with `diffperturb run waits`"),
        (["walk"], "invalid choice: 'walk'"),
    ],
)
def test_a_wrong_request(home, monkeypatch, capsys, args, message):
    monkeypatch.chdir(home)
    try:
        code = command_line.main(args)
    except SystemExit as e:
        code = e.code
    assert code == 2 and message in capsys.readouterr().err
    assert not (home / "runs").exists()


def test_a_folder_without_experiments(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parameters, "_PACKAGE", tmp_path / "site-packages" / "diffperturb")
    monkeypatch.chdir(tmp_path)
    assert command_line.main(["run", "classification"]) == 2
    assert "change into one, or give the path of a notebook" in capsys.readouterr().err
    assert command_line.main(["list"]) == 2


def test_a_failing_cell(home, monkeypatch, capsys):
    code, _, err = finish(start(home, "run", "fails"))
    folder = only_run(home, "fails")
    assert code == 1
    assert "OSError: the disk is full, at In [3] `raise OSError('the disk is full')`" in err
    assert f"the executed notebook, up to there: {folder.relative_to(home) / 'fails.ipynb'}" in err
    assert "so far" in (folder / "fails.ipynb").read_text()
    assert not (folder / "metrics.json").exists()
    table = results(home, monkeypatch, capsys)
    assert "failed" in table and "OSError: the disk is full, at In [3]" in table


def test_a_killed_run(home, monkeypatch, capsys):
    process = start(home, "run", "waits")
    kernel = started(home)
    assert "running" in results(home, monkeypatch, capsys)
    process.send_signal(signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    until(lambda: not alive(kernel))  # it does not go on alone
    folder = only_run(home, "waits")
    assert not (folder / "metrics.json").exists()
    assert "interrupted" in results(home, monkeypatch, capsys)

    (home / "go on").touch()
    code, _, err = finish(start(home, "run", "waits"))
    assert code == 0, err
    assert only_run(home, "waits") == folder and store.state(folder)["status"] == "done"
    assert json.loads((folder / "metrics.json").read_text())["summary"]["twice"] == 2


def test_an_interrupted_run(home):
    process = start(home, "run", "waits")
    kernel = started(home)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130 and "interrupted; the same command starts the run again" in err
    assert store.state(only_run(home, "waits"))["status"] == "interrupted"
    until(lambda: not alive(kernel))


def test_two_at_once(home):
    first = start(home, "run", "waits")
    started(home)
    code, _, err = finish(start(home, "run", "waits"))  # the same run
    assert code == 1 and f"is in use by process {first.pid}" in err
    other = ["run", "waits", "-p", "seed", "2", "-p", "wait", "false"]
    code, _, err = finish(start(home, *other))  # another one beside it
    assert code == 0, err
    (home / "go on").touch()
    code, _, err = finish(first)
    assert code == 0, err
    rows = {row["parameters"]["seed"]: row for row in execution.results("waits", home / "runs")}
    assert {seed: row["summary"]["twice"] for seed, row in rows.items()} == {1: 2, 2: 4}
    assert {row["status"] for row in rows.values()} == {"done"}


def test_the_kernel_is_this_python(home):
    spec = home / "share" / "kernels" / "python3"
    spec.mkdir(parents=True)
    text = {"argv": ["false"], "display_name": "another Python", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(text))
    args = ["run", "waits", "-p", "wait", "false"]
    code, _, err = finish(start(home, *args, JUPYTER_PATH=str(home / "share")))
    assert code == 0, err
    metrics = json.loads((only_run(home, "waits") / "metrics.json").read_text())
    assert metrics["summary"]["python"] == sys.prefix
