"""The folders are the architecture: who may import whom, read from the sources."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

# A room (a module, or a folder of modules) and the rooms that it must not know.
STRANGERS = {
    "solvers": {"noise", "sampling"},
    "noise": {"solvers"},
    "perturbed": {"solvers"},
    "losses": {"jacobians"},
    "estimation": {"jacobians", "solvers"},
    "projections": {"perturbed", "solvers"},
    "surrogates": {"jacobians", "perturbed"},
}
# Rooms that nothing imports, but for those named.
LEAVES = {
    "theory": set(),
    "diagnostics": set(),
    "learning_problem": set(),
    "plots": {"widgets"},
    "widgets": set(),
    "runs": set(),
    "site": set(),
}
# Rooms that may import extras as they are imported; every other one needs only these packages.
WITH_EXTRAS = {"datasets", "plots", "widgets", "runs", "site"}
BARE = {"jax", "numpy", "scipy", "diffperturb", *sys.stdlib_module_names}


class Import(NamedTuple):
    target: str  # "jax.numpy", or "diffperturb.core.Solver" for a name from a module
    line: int
    at_import: bool  # False inside of a function


def imports(path: Path, module: str, is_package: bool) -> list[Import]:
    """Every import of a module, with relative ones spelled out."""
    found = []
    base = module.split(".") if is_package else module.split(".")[:-1]

    def visit(node, at_import):
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = base[: len(base) - node.level + 1] if node.level else []
            origin = ".".join(origin + ([node.module] if node.module else []))
            found.extend(Import(f"{origin}.{a.name}", node.lineno, at_import) for a in node.names)
        deferred = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, at_import and not isinstance(node, deferred))

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return found


def flow(nbs: Path) -> list[str]:
    """The modules in the order in which the data flows: that of the notebooks' numbers."""
    order = []
    for path in sorted((nbs / "api").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        source = "\n".join("".join(cell["source"]) for cell in cells)
        order += re.findall(r"^#\s*\|\s*default_exp\s+(\S+)", source, re.M)
    return order


def violations(package: Path, order: list[str]) -> list[str]:
    """What the modules of a package import against the rules."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        name = ".".join(path.relative_to(package).with_suffix("").parts)
        if path.name == "__init__.py" or not path.name.startswith("_"):
            modules[name.removesuffix("__init__").removesuffix(".")] = path
    found = []
    for name, path in modules.items():
        room = name.split(".")[0]
        full = ".".join(filter(None, ["diffperturb", name]))
        for target, line, at_import in imports(path, full, path.name == "__init__.py"):
            where = f"{name or 'diffperturb'}, line {line}"
            if not target.startswith("diffperturb."):
                if at_import and room not in WITH_EXTRAS and target.split(".")[0] not in BARE:
                    found.append(f"{where}: imports {target}, which a bare installation lacks")
                continue
            inside = target.removeprefix("diffperturb.")
            known = [m for m in modules if m and f"{inside}.".startswith(f"{m}.")]
            other = max(known, key=len, default="")
            there = other.split(".")[0]
            if not other or other == name:
                continue
            if there in STRANGERS.get(room, ()):
                found.append(f"{where}: {room} must not know {there}")
            if room not in LEAVES.get(there, {room}) and room != there:
                found.append(f"{where}: nothing imports {there}, which is a leaf")
            if name in order and other in order and order.index(other) > order.index(name):
                found.append(f"{where}: imports {other}, which comes later in the flow of data")
    return found


def test_the_library_keeps_the_rules(root):
    order = flow(root / "nbs")
    modules = {path.stem for path in (root / "diffperturb").rglob("*.py")}
    assert "core" in order and {name.split(".")[-1] for name in order} <= modules
    assert violations(root / "diffperturb", order) == []


SOUND = {
    "__init__.py": "from .core import inner\n",
    "core.py": "from __future__ import annotations\nimport jax.numpy as jnp\n",
    "noise.py": "from diffperturb.core import Array\n",
    "sampling.py": "from .noise import Normal\n",
    "solvers/__init__.py": "from .selection import argmax\n",
    "solvers/selection.py": "from ..core import Solver\n\ndef plan():\n    import highspy\n",
    "jacobians.py": "from .core import inner\n",
    "perturbed.py": "from . import core, sampling, jacobians\n",
    "losses.py": "from .perturbed import Perturbed\n",
    "theory.py": "from .losses import Loss\n",
    "plots.py": "import matplotlib\nfrom .perturbed import Distribution\n",
    "widgets.py": "import ipywidgets\nfrom .plots import scene\n",
    "runs.py": "import papermill\n",
}
ORDER = ["core", "noise", "sampling", "solvers.selection", "jacobians", "perturbed", "losses"]
ORDER += ["theory", "plots", "widgets", "runs"]


def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, source in files.items():
        path = folder / "diffperturb" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return folder / "diffperturb"


def test_a_sound_tree_passes(tmp_path):
    assert violations(tree(tmp_path, SOUND), ORDER) == []


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("solvers/selection.py", "from ..noise import Normal", "solvers must not know noise"),
        ("solvers/selection.py", "def f():\n    from .. import sampling", "must not know sampling"),
        ("noise.py", "from .solvers.selection import argmax", "noise must not know solvers"),
        ("perturbed.py", "import diffperturb.solvers.selection", "perturbed must not know solvers"),
        ("losses.py", "from diffperturb import jacobians", "losses must not know jacobians"),
        ("losses.py", "from .theory import check", "nothing imports theory"),
        ("perturbed.py", "from .plots import scene", "nothing imports plots"),
        ("runs.py", "from .widgets import slider", "nothing imports widgets"),
        ("__init__.py", "from . import runs", "nothing imports runs"),
        ("core.py", "from .noise import Normal", "imports noise, which comes later"),
        ("core.py", "import pandas as pd", "imports pandas, which a bare installation lacks"),
        ("__init__.py", "try:\n    import optax\nexcept ImportError:\n    pass", "imports optax"),
        ("theory.py", "from matplotlib import pyplot", "imports matplotlib.pyplot, which a bare"),
    ],
)
def test_a_bad_import_is_found(tmp_path, name, source, complaint):
    package = tree(tmp_path, SOUND | {name: source})
    assert any(complaint in violation for violation in violations(package, ORDER))


def test_importing_the_library_loads_no_extras():
    extras = ["matplotlib", "IPython", "pandas", "nbdev", "fastcore", "ipywidgets", "papermill"]
    extras += ["sklearn", "optax", "nbformat", "seaborn", "tqdm", "highspy", "lap", "networkx", "ott"]
    program = f"import sys, diffperturb; print([m for m in {extras} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
