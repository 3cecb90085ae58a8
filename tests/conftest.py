"""What the tests share: the checkout, and a copy of it that a test may change."""

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffperturb as dp

ROOT = Path(__file__).resolve().parents[1]
gc.set_threshold(200_000, 20, 100)  # tracing makes many objects and few cycles: a tenth of the time is won


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of every file that git tracks or would track, as it stands now."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in listed.split("\0"):
        source, target = ROOT / name, tmp_path / name
        if name and (source.is_file() or source.is_symlink()):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return tmp_path


@pytest.fixture
def tool():
    """Run a command of the environment in a folder; its output is shown when it fails."""

    def run(name: str, *args: str, cwd: Path) -> str:
        env = {k: v for k, v in os.environ.items() if k != "IN_TEST"}  # nbdev would do nothing
        command = [Path(sys.executable).with_name(name), *args]
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{name} {' '.join(args)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture(autouse=True)
def names_for_examples(doctest_namespace):
    """What every example in a docstring may use."""
    doctest_namespace.update(dp=dp, jax=jax, jnp=jnp, np=np)


def pytest_addoption(parser):
    parser.addoption("--changed", action="store_true", help="only what changed since main, and the fast tests")


def pytest_collection_modifyitems(config, items):
    """What takes long begins first: the browser's tests, then the notebooks."""
    rank = lambda item: (item.path.name != "test_explorer.py", item.path.name != "test_notebooks.py")
    items.sort(key=rank)
    if config.getoption("--changed"):
        changed = changed_files()
        items[:] = [item for item in items if concerns(item, changed)]


def changed_files() -> set[str]:
    """The files that differ from main (from the last commit, on main itself), new ones included."""
    git = lambda *args: subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True).stdout.split()
    known = [name for name in ("origin/main", "main") if git("rev-parse", "--verify", "--quiet", name)]
    since = git("merge-base", "HEAD", known[0]) if known else ["HEAD"]
    return {*git("diff", "--name-only", *since), *git("ls-files", "--others", "--exclude-standard")}


FAST = ("test_architecture.py", "test_docs.py", "test_docstrings.py", "test_exports.py", "test_workbench_site.py")


def concerns(item, changed: set[str]) -> bool:
    """Whether a test is fast, changed, or about a notebook that changed."""
    name = item.path.relative_to(ROOT).as_posix()
    if item.path.name in FAST or name in changed:
        return True
    if item.path.name == "test_notebooks.py":
        return item.originalname != "test_notebook" or f"nbs/{item.callspec.params['path']}" in changed
    lessons = {Path(path).stem for path in changed if path.startswith(("nbs/api", "nbs/internals"))}
    return any(lesson in item.path.name for lesson in lessons)


class NotebookLines:
    """A line for each notebook as it ends."""

    def __init__(self, config):
        self.config = config

    def pytest_runtest_logreport(self, report):
        name = report.nodeid.partition("test_notebook[")[2].rstrip("]")
        terminal = self.config.pluginmanager.getplugin("terminalreporter")
        if report.when == "call" and name and terminal:
            terminal.ensure_newline()
            terminal.write_line(f"{'ok' if report.passed else 'FAILED':6} {report.duration:4.0f} s  {name}")


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(NotebookLines(config))
