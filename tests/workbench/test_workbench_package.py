"""`import diffperturb` is light: its names are imported at first use, and none is missing."""

import ast
import pickle
import pydoc
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest

import diffperturb as dp

HEAVY = ["jax", "numpy", "scipy", "pandas", "matplotlib", "IPython", "nbformat", "papermill", "jupyter_client"]
EXTRAS = ["matplotlib", "IPython", "pandas", "nbdev", "fastcore", "ipywidgets", "papermill", "sklearn", "optax"]
EXTRAS += ["nbformat", "seaborn", "tqdm", "highspy", "lap", "networkx", "ott"]
PROGRAM = (
    "import sys; sys.argv = ['diffperturb', '--help']\nfrom diffperturb.workbench.command_line import main\nmain()"
)


def loaded(program: str, names: list[str]) -> list[str]:
    """Those of the modules that a program has imported at its end, in a process of its own."""
    program = f"import sys\ntry:\n    exec({program!r})\nexcept SystemExit:\n    pass\nprint([m for m in {names} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return ast.literal_eval(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("program", ["import diffperturb", "import diffperturb; dir(diffperturb)", PROGRAM])
def test_nothing_heavy_is_imported_before_it_is_used(program):
    assert loaded(program, HEAVY) == []


def test_all_public_names_need_no_extra():
    assert loaded("from diffperturb import *", ["jax", *EXTRAS]) == ["jax"]


CHAPTERS = ["foundations", "noise", "expectation", "solvers", "exact", "learning", "evidence", "workbench"]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_each_chapter_can_be_imported_first(chapter):
    program = f"from diffperturb import {chapter}; import diffperturb; assert diffperturb.{chapter} is {chapter}"
    assert loaded(program, [f"diffperturb.{chapter}"]) == [f"diffperturb.{chapter}"]


def test_every_name_resolves():
    for name in dp.__all__:
        assert getattr(dp, name) is not None and name in vars(dp)
    assert set(dp.__all__) <= set(dir(dp))
    assert dp.evidence.__name__ == "diffperturb.evidence" and "evidence" in dir(dp)
    with pytest.raises(AttributeError, match="module 'diffperturb' has no attribute 'Agmax'"):
        dp.Agmax  # noqa: B018


def test_editors_see_the_same_names():
    """What stands under TYPE_CHECKING is what `__getattr__` gives."""
    tree = ast.parse(Path(dp.__file__).read_text())
    [block] = [n for n in tree.body if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING"]
    seen = {}
    for node in block.body:
        seen |= {alias.asname: f"{node.module}.{alias.name}" for alias in node.names}
    assert set(seen) == {*dp.__all__, *dp._MODULES}
    for name, origin in seen.items():
        if name in dp._CHAPTER_OF:
            assert origin == f"diffperturb.{dp._CHAPTER_OF[name]}.{name}"
        else:
            assert origin == f"diffperturb.{dp._MODULES.get(name, name)}"


def test_values_can_be_pickled_and_documented():
    assert pickle.loads(pickle.dumps(dp.TopK(2))) == dp.TopK(2)
    assert pickle.loads(pickle.dumps(dp.Argmax)) is dp.Argmax
    assert "class TopK" in pydoc.render_doc(dp.TopK, renderer=pydoc.plaintext)
    assert "TopK" in pydoc.render_doc(dp, renderer=pydoc.plaintext)


def test_help_comes_at_once():
    """Half a second on a machine of two cores; the same work beside an empty program leaves room for a busy one."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
        seconds.append(time.perf_counter() - began)
        assert done.returncode == 0 and "COMMAND" in done.stdout
    assert median(seconds) < 0.5
