"""Every public name is documented: what it is, shapes, returns, and an example that runs."""

import ast
import doctest
import importlib
import inspect
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_architecture import exported_modules

import diffperturb as dp

ROOT = Path(__file__).resolve().parents[1]
PAGES = exported_modules(ROOT / "nbs")  # the notebooks by path, with the modules that they export
MODULES = [module for module in PAGES.values() if not re.search(r"(^|\.)_", module)]
every_module = pytest.mark.parametrize("module", MODULES)


def public(module: str) -> dict:
    """The public classes and functions of a module, by name."""
    loaded = importlib.import_module(f"diffperturb.{module}")
    found = {name: getattr(loaded, name) for name in loaded.__all__}
    ours = lambda o: (inspect.isclass(o) or inspect.isfunction(o)) and o.__module__.startswith("diffperturb")
    return {name: o for name, o in found.items() if ours(o)}


def definitions(module: str) -> dict[str, ast.AST]:
    """The syntax trees of the public classes and functions of a module."""
    path = ROOT / "diffperturb" / (module.replace(".", "/") + ".py")
    return {node.name: node for node in ast.parse(path.read_text()).body if getattr(node, "name", "") in public(module)}


def documented(text: str | None) -> bool:
    """Whether a docstring begins with a sentence."""
    first = (text or "").strip().splitlines()[:1]
    return bool(first) and first[0].rstrip().endswith(".") and len(first[0].split()) >= 3


@every_module
def test_each_has_a_docstring(module):
    missing = []
    for name, thing in public(module).items():
        if not documented(thing.__doc__):
            missing.append(name)
        if inspect.isclass(thing):
            own = {k: v for k, v in vars(thing).items() if not k.startswith("_") or k == "__call__"}
            methods = {k: v for k, v in own.items() if inspect.isfunction(v) or isinstance(v, property | classmethod)}
            missing += [f"{name}.{k}" for k in methods if not inspect.getdoc(getattr(thing, k, None) or methods[k])]
    assert missing == []


def without_shape(annotation: ast.AST | None) -> bool:
    """Whether an annotation is missing, or names an array without its shape."""
    return annotation is None or bool(re.search(r"(?<!\[)\bArray\b(?!,)", ast.unparse(annotation)))


def faults_of(node: ast.FunctionDef, name: str) -> list[str]:
    """The parameters and returns of a function that lack a type or a shape."""
    arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
    arguments = [a for a in arguments if a.arg not in ("self", "cls")]
    found = [f"{name}({a.arg})" for a in arguments if without_shape(a.annotation)]
    generator = any("contextmanager" in ast.unparse(d) for d in node.decorator_list)
    return found + ([f"{name} -> ?"] if without_shape(node.returns) and not generator else [])


@every_module
def test_each_states_types_and_shapes(module):
    """Functions, the fields of classes, and the methods that no base class documents."""
    found = []
    for name, node in definitions(module).items():
        if isinstance(node, ast.FunctionDef):
            found += faults_of(node, name)
            continue
        fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
        found += [f"{name}.{ast.unparse(f.target)}" for f in fields if without_shape(f.annotation)]
        for part in node.body:
            own = isinstance(part, ast.FunctionDef) and ast.get_docstring(part) is not None
            if own and (not part.name.startswith("_") or part.name == "__call__"):
                found += faults_of(part, f"{name}.{part.name}")
    assert found == []


@every_module
def test_examples_run(module):
    finder, names = doctest.DocTestFinder(), {"dp": dp, "jax": jax, "jnp": jnp, "np": np}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE, verbose=False)
    for test in finder.find(importlib.import_module(f"diffperturb.{module}"), extraglobs=names):
        said = []
        runner.run(test, out=said.append, clear_globs=False)
        assert not said, "".join(said)


def shown_names(path: str) -> set[str]:
    """The names that the visible cells of a lesson use, exported cells aside."""
    found = set()
    for cell in json.loads((ROOT / "nbs" / path).read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and not re.search(r"^#\|\s*(export|hide)", source, re.M):
            tree = ast.parse(re.sub(r"^\s*[%!].*$", "", source, flags=re.M))
            found |= {
                n.id if isinstance(n, ast.Name) else n.attr
                for n in ast.walk(tree)
                if hasattr(n, "ctx") and hasattr(n, "id") or isinstance(n, ast.Attribute)
            }
    return found


def returned_by(things: dict, name: str) -> list[str]:
    """The functions, and the classes with a method, whose annotation says that they return this class."""
    returns = lambda o: name in str(getattr(o, "__annotations__", {}).get("return", ""))
    return [
        n for n, o in things.items() if returns(o) or any(map(returns, vars(o).values() if inspect.isclass(o) else []))
    ]


@pytest.mark.parametrize("path", [path for path, module in PAGES.items() if module in MODULES])
def test_each_has_an_example(path):
    """In its docstring where the name is one of `diffperturb`'s own; otherwise there, or in its lesson.

    A result is shown by the function that returns it, and a base class by a subclass.
    """
    shown, things = shown_names(path), public(PAGES[path])
    has_example = lambda n, o: n in shown and n not in dp.__all__ or ">>>" in (o.__doc__ or "")
    direct = {n for n, o in things.items() if has_example(n, o)}

    def by_others(name, thing):
        subclasses = thing.__subclasses__() if inspect.isclass(thing) else []
        return direct & set(returned_by(things, name)) or any(
            ">>>" in (c.__doc__ or "") or c.__name__ in shown for c in subclasses
        )

    assert [n for n, o in things.items() if n not in direct and not by_others(n, o)] == []
