"""The folders are the architecture: what may import what, read from the sources and the sidebar."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from diffperturb.workbench.pages import sidebar_order

# Chapters or modules, and those that they must not import.
STRANGERS = {
    "solvers": {"noise", "expectation"},
    "noise": {"solvers"},
    "expectation": {"solvers"},
    "learning": {"expectation.derivatives", "expectation.estimators"},
    "learning.projections": {"expectation"},
    "learning.surrogates": {"expectation"},
}
# Chapters that nothing outside them imports, but for those named.
LEAVES = {"evidence": {"workbench"}, "workbench": set()}
# What may import extras as it is imported; every other module needs only these packages.
WITH_EXTRAS = ("evidence.datasets", "workbench")
BARE = {"jax", "jaxtyping", "numpy", "scipy", "diffperturb", *sys.stdlib_module_names}
LONGEST = 350  # lines of a module


class Import(NamedTuple):
    target: str  # "jax.numpy", or "diffperturb.foundations.solver.Solver" for a name from a module
    line: int
    at_import: bool  # False inside a function


def is_for_types(node) -> bool:
    """Whether this is an `if TYPE_CHECKING:` block, which never runs."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


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
            visit(child, at_import and not isinstance(node, deferred) and not is_for_types(node))

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return found


def exported_modules(nbs: Path) -> dict[str, str]:
    """Each notebook that exports a module, by its path, in the order of the sidebar, then the internal ones."""
    listed = list(sidebar_order(nbs))
    names = listed + sorted({p.relative_to(nbs).as_posix() for p in nbs.rglob("*.ipynb")} - set(listed))
    found = {}
    for name in names:
        cells = json.loads((nbs / name).read_text(encoding="utf-8"))["cells"]
        source = "\n".join("".join(cell["source"]) for cell in cells)
        if match := re.search(r"^#\s*\|\s*default_exp\s+(\S+)", source, re.M):
            found[name] = match[1]
    return found


def within(name: str, group) -> bool:
    """Whether a module is one of a group, or inside a package of it."""
    return any(f"{name}.".startswith(f"{other}.") for other in group)


def violations(package: Path, order: list[str]) -> list[str]:
    """What the modules of a package import against the rules."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        name = ".".join(path.relative_to(package).with_suffix("").parts)
        modules[name.removesuffix("__init__").removesuffix(".")] = path
    modules = {name: path for name, path in modules.items() if name != "_modidx"}
    order = [name for name in order if not re.search(r"(^|\.)_", name)]
    found = []
    for name, path in modules.items():
        full, chapter = ".".join(filter(None, ["diffperturb", name])), name.split(".")[0]
        forbidden = [other for part, others in STRANGERS.items() if within(name, [part]) for other in others]
        for target, line, at_import in imports(path, full, path.name == "__init__.py"):
            where = f"{name or 'diffperturb'}, line {line}"
            if not target.startswith("diffperturb."):
                if at_import and not within(name, WITH_EXTRAS) and target.split(".")[0] not in BARE:
                    found.append(f"{where}: imports {target}, which a bare installation lacks")
                continue
            inside = target.removeprefix("diffperturb.")
            known = [m for m in modules if m and within(inside, [m])]
            other = max(known, key=len, default="")
            if not other or other == name:
                continue
            if within(other, forbidden):
                found.append(f"{where}: {name} must not know {other}")
            there = other.split(".")[0]
            if at_import and there != chapter and chapter not in LEAVES.get(there, {chapter}):
                found.append(f"{where}: nothing imports {other}, which is a leaf")
            if name in order and other in order and order.index(other) > order.index(name):
                found.append(f"{where}: imports {other}, which comes later in the order of the pages")
    return found


def test_the_library_keeps_the_rules(root):
    order = list(exported_modules(root / "nbs").values())
    assert "foundations.solver" in order and "expectation.perturbed" in order
    assert violations(root / "diffperturb", order) == []


def test_the_package_mirrors_the_notebooks(root):
    for path, module in exported_modules(root / "nbs").items():
        folder, chapter, *rest = Path(path).with_suffix("").parts
        if folder == "api":
            assert module == ".".join([re.sub(r"^\d+_", "", chapter), *rest]), f"{path} exports {module}"
        else:
            assert folder == "internals" and re.search(r"(^|\.)_", module), f"{path} exports {module}"


def test_no_private_machinery_in_the_sidebar(root):
    assert not [name for name in sidebar_order(root / "nbs") if name.startswith("internals")]


def test_every_public_page_is_in_the_sidebar(root):
    nbs = root / "nbs"
    listed = sidebar_order(nbs)
    paths = (path.relative_to(nbs) for path in nbs.rglob("*.ipynb"))
    public = [p for p in paths if p.parts[0] != "internals" and not any(part[0] in "._" for part in p.parts)]
    assert sorted(p.as_posix() for p in public if p.as_posix() not in listed) == []


def test_perturbed_is_reached_soon(root):
    """At most 200 cells come before the lesson on perturbed solvers, and no solver but those of the contract."""
    names = list(sidebar_order(root / "nbs"))
    names = [name for name in names if name.startswith("api/")]
    before = names[: names.index("api/3_expectation/perturbed.ipynb")]
    cells = [json.loads((root / "nbs" / name).read_text())["cells"] for name in before]
    assert sum(map(len, cells)) <= 200
    assert not [name for name in before if "solvers" in name]


def test_modules_stay_short(root):
    lengths = {
        p: len(p.read_text().splitlines()) for p in (root / "diffperturb").rglob("*.py") if p.name != "_modidx.py"
    }
    assert {p.name: n for p, n in lengths.items() if n > LONGEST} == {}


SOUND = {
    "__init__.py": "from .foundations import inner\n",
    "foundations/__init__.py": "from .solver import inner\n",
    "foundations/solver.py": "from __future__ import annotations\nimport jax.numpy as jnp\n",
    "noise/__init__.py": "",
    "noise/distributions.py": "from diffperturb.foundations.solver import Array\n",
    "noise/sampling.py": "from .distributions import Normal\n",
    "expectation/__init__.py": "",
    "expectation/estimators.py": "from ..foundations.solver import inner\n",
    "expectation/perturbed.py": "from ..foundations import solver\nfrom . import estimators\n",
    "solvers/__init__.py": "from .selection import argmax\n",
    "solvers/_runtime/__init__.py": "",
    "solvers/_runtime/highs.py": "from ...foundations.solver import Solver\n",
    "solvers/selection.py": "from ..foundations.solver import Solver\n\ndef plan():\n    import highspy\n",
    "learning/__init__.py": "",
    "learning/loss.py": "from ..expectation.perturbed import Perturbed\n",
    "evidence/__init__.py": "",
    "evidence/theory.py": "from ..learning.loss import Loss\n",
    "workbench/__init__.py": "",
    "workbench/figures.py": "import matplotlib\nfrom ..evidence.theory import check\n",
}
ORDER = ["foundations.solver", "noise.distributions", "noise.sampling", "expectation.estimators"]
ORDER += ["expectation.perturbed", "solvers.selection", "learning.loss", "evidence.theory", "workbench.figures"]


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
        ("solvers/selection.py", "from ..noise.distributions import Normal", "must not know noise.distributions"),
        ("solvers/_runtime/highs.py", "from ...noise import sampling", "must not know noise.sampling"),
        ("solvers/selection.py", "def f():\n    from ..noise import sampling", "must not know noise.sampling"),
        ("noise/distributions.py", "from ..solvers.selection import argmax", "must not know solvers.selection"),
        ("expectation/perturbed.py", "import diffperturb.solvers.selection", "must not know solvers.selection"),
        ("learning/loss.py", "from diffperturb.expectation import estimators", "must not know expectation.estimators"),
        ("learning/loss.py", "from ..evidence.theory import check", "nothing imports evidence.theory"),
        ("expectation/perturbed.py", "from ..workbench.figures import draw", "nothing imports workbench.figures"),
        ("evidence/theory.py", "from ..workbench import figures", "nothing imports workbench"),
        ("__init__.py", "from . import workbench", "nothing imports workbench"),
        ("foundations/solver.py", "from ..noise.distributions import Normal", "comes later in the order of the pages"),
        ("foundations/solver.py", "import pandas as pd", "imports pandas, which a bare installation lacks"),
        ("__init__.py", "try:\n    import optax\nexcept ImportError:\n    pass", "imports optax"),
        ("evidence/theory.py", "from matplotlib import pyplot", "imports matplotlib.pyplot, which a bare"),
    ],
)
def test_a_bad_import_is_found(tmp_path, name, source, complaint):
    package = tree(tmp_path, SOUND | {name: source})
    assert any(complaint in violation for violation in violations(package, ORDER))


def run_python(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_library_loads_no_extras():
    extras = ["matplotlib", "IPython", "pandas", "nbdev", "fastcore", "ipywidgets", "papermill"]
    extras += ["sklearn", "optax", "nbformat", "seaborn", "tqdm", "highspy", "lap", "networkx", "ott"]
    extras += ["scipy.optimize", "scipy.stats"]  # slow to import
    program = f"import sys, diffperturb as dp; dp.Perturbed, dp.Assignment, dp.external, dp.DirectLoss; print([m for m in {extras} if m in sys.modules])"
    assert run_python(program) == "[]"


def test_every_public_name_can_be_reached():
    assert (
        run_python("import diffperturb as dp; print([n for n in dp.__all__ if getattr(dp, n, None) is None])") == "[]"
    )
