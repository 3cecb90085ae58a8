"""Right calls, as syntax trees: the examples of the docstrings, and the methods of what they build.

Nothing is run to find them: what an expression is follows from names and annotations.
"""

import ast
import builtins
import contextlib
import copy
import doctest
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import diffperturb as dp

CHAPTERS = ("foundations", "noise", "expectation", "solvers", "exact", "learning")
# Right values by the name of a parameter, for methods that no example calls; `theta` and `receiver` as in the example.
RIGHT = {
    **dict.fromkeys(["theta", "costs", "scores", "z", "t", "x", "v", "direction", "raw", "values"], "{theta}"),
    **dict.fromkeys(["g", "step", "gradients", "losses", "coefficients"], "{theta}"),
    **dict.fromkeys(["thetas", "instances"], "jnp.array([[0.5, 1.0], [2.0, -1.0]])"),
    **dict.fromkeys(["alpha", "sigma"], "0.5"),
    **dict.fromkeys(["steps", "directions"], "4"),
    "projections": "dp.Plane()",
    "f": "(lambda y: y)",
    **dict.fromkeys(["y", "label", "solution", "target", "truth"], "label_of({receiver}, {theta})"),
    **dict.fromkeys(["epsilon", "tolerance", "scale"], "jnp.asarray(0.5)"),
    **dict.fromkeys(["num_samples", "m", "n", "num"], "8"),
    **dict.fromkeys(["fn", "function"], "(lambda y: y)"),
    "key": "jax.random.key(0)",
    "shape": "jnp.shape({theta})",
    "u": "jnp.array([0.25, 0.5])",
    "noise": "dp.Normal()",
    "solver": "dp.TopK(1)",
    "what": "'maximizer'",
    "p": "dp.Perturbed(dp.Argmax())",
    "operator": "dp.Perturbed(dp.Argmax())",
    "needed_by": "'this call'",
    "name": "'theta'",
    "otherwise": "'there is none'",
    "task": "dp.task_losses.hamming({theta} * 0)",
    "loss": "dp.task_losses.hamming({theta} * 0)",
    "matrix": "jnp.eye(2)",
    "theta_minus_y": "{theta}",
    "dtype": "float",
    "unit": "1.0",
}
# Methods that state that they check nothing: what a caller has checked goes in.
UNCHECKED = {"solve", "plan", "apply", "log_prob", "check", "scores", "decide", "checked", "information", "block_size"}
# What a method of computing receives from an operator, which has looked at it; the operators are called themselves.
BELOW_OPERATORS = set(vars(dp.expectation.Method)) | {"draw_samples", "plans", "draw"}


def faulty_noise(value) -> dp.Density:
    """A user's noise, whose draws are not finite."""

    def draw(key, shape, dtype):
        USED.append("noise")
        return jnp.full(shape, value, dtype)

    return dp.Density(lambda z: -jnp.sum(z**2), draw, fisher=2.0)


def faulty_solver(theta):
    """A user's solver, which returns NaN."""
    USED.append("solver")
    return theta * jnp.nan


USED = []  # the faults that a call came across


def label_of(thing, theta):
    """A solution at theta, for what is a solver or has one."""
    for path in ("solver", "perturbed.solver", ""):
        with contextlib.suppress(AttributeError, TypeError):
            found = thing
            for name in filter(None, path.split(".")):
                found = getattr(found, name)
            return jnp.asarray(found(theta))
    return dp.TopK(1)(theta)


def names() -> dict:
    """What the examples may use."""
    return {
        "dp": dp,
        "jax": jax,
        "jnp": jnp,
        "np": np,
        "faulty_noise": faulty_noise,
        "faulty_solver": faulty_solver,
        "label_of": label_of,
    }


@cache
def public() -> dict:
    """The public names, with their paths from `dp`."""
    found = {f"dp.{name}": getattr(dp, name) for name in dp.__all__}
    for chapter in CHAPTERS:
        module = importlib.import_module(f"diffperturb.{chapter}")
        found |= {f"dp.{chapter}.{n}": getattr(module, n) for n in module.__all__ if n not in dp.__all__}
    found |= {f"dp.task_losses.{n}": getattr(dp.task_losses, n) for n in dp.task_losses.__all__}
    once = {id(v): k for k, v in reversed(found.items()) if inspect.isclass(v) or inspect.isfunction(v)}
    return {k: v for k, v in found.items() if once.get(id(v)) == k}


class Thing(NamedTuple):
    """What is known of an expression without running it: an object, or the class of an instance."""

    value: object
    instance: bool = False
    bound: bool = False  # a method, whose first parameter is given


def resolved(annotation, function):
    """An annotation that is given as a string, evaluated where it stands."""
    if isinstance(annotation, str):
        with contextlib.suppress(Exception):
            return eval(annotation, vars(sys.modules[function.__module__]))
    return annotation


def inferred(node: ast.AST, known: dict) -> Thing | None:
    """What an expression is, by names and annotations."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute):
        base = inferred(node.value, known)
        found = getattr(base.value, node.attr, None) if base else None
        if found is None:
            return None
        if isinstance(found, property):
            return of_class(resolved(inspect.signature(found.fget).return_annotation, found.fget))
        return Thing(found, bound=base.instance and inspect.isfunction(found))
    if isinstance(node, ast.Call):
        f = inferred(node.func, known)
        if f is None or not (callable(f.value)):
            return None
        if inspect.isclass(f.value) and not f.instance:
            return Thing(f.value, instance=True)
        function = f.value.__call__ if f.instance else f.value
        with contextlib.suppress(Exception):
            return of_class(resolved(inspect.signature(function).return_annotation, function))
    return None


def of_class(annotation) -> Thing | None:
    ours = inspect.isclass(annotation) and annotation.__module__.startswith("diffperturb")
    return Thing(annotation, instance=True) if ours else None


class Script(NamedTuple):
    """The right calls of one public name."""

    statements: list  # syntax trees
    known: list  # what is known of names before each statement
    documented: int  # the first ones are the docstring's


def learn(statement: ast.stmt, known: dict) -> dict:
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        return {**known, statement.targets[0].id: inferred(statement.value, known)}
    if isinstance(statement, ast.ClassDef):
        space = names()
        exec(compile(ast.Module([statement], []), "hostile", "exec"), space)
        return {**known, statement.name: Thing(space[statement.name])}
    return known


@cache
def example(path: str) -> tuple[list[ast.stmt], dict]:
    """The statements of a docstring's example, and what is known of names after them."""
    found = doctest.DocTestParser().get_examples(public()[path].__doc__ or "")
    statements = [statement for each in found for statement in ast.parse(each.source).body]
    known = {k: Thing(v) for k, v in {**names(), **vars(builtins)}.items()}
    for statement in statements:
        known = learn(statement, known)
    return statements, known


@cache
def script(path: str) -> Script:
    """The right calls of a public name: its example, then its methods, or itself, called with what fits."""
    thing = public()[path]
    statements, known = list(example(path)[0]), [{k: Thing(v) for k, v in {**names(), **vars(builtins)}.items()}]
    for statement in statements:
        known.append(learn(statement, known[-1]))
    documented, seen = len(statements), {ast.unparse(s) for s in statements}
    for source in synthesized(path, thing, statements):
        if source not in seen:
            statements.append(ast.parse(source).body[0])
            known.append(known[-1])
    return Script(statements, known, documented)


def receivers(path: str, thing) -> list[tuple[str, str]]:
    """How the examples build an instance of a class, and the scores that they pass: (source, source)."""
    found = {}
    for other in (path, *(p for p in public() if p != path)):
        statements, known = example(other)
        assigned = {
            s.targets[0].id: s.value
            for s in statements
            if isinstance(s, ast.Assign) and isinstance(s.targets[0], ast.Name) and not isinstance(s.value, ast.Lambda)
        }
        calls = [n for s in statements for n in ast.walk(s) if isinstance(n, ast.Call)]
        theta = next(filter(None, (scores_of(call, known) for call in calls)), "jnp.array([0.5, 1.0])")
        for call in calls:
            of = inferred(call.func, known)
            if of and of.value is thing and not of.instance:
                source = ast.unparse(_Inline(assigned).visit(copy.deepcopy(call)))
                parts = frozenset(re.findall(r"dp\.([A-Z]\w*)", source))
                found.setdefault(parts, (source, theta))
    if not found and not inspect.isabstract(thing):
        arguments = fitting(thing, False, "jnp.array([0.5, 1.0])", path)
        return [] if arguments is None else [(f"{path}({arguments})", "jnp.array([0.5, 1.0])")]
    return list(found.values())[:3]


def scores_of(call, known) -> str | None:
    """The first argument of a call of an instance, if it can be read anywhere."""
    of = inferred(call.func, known)
    if not (of and (of.instance or of.bound) and call.args):
        return None
    free = {n.id for n in ast.walk(call.args[0]) if isinstance(n, ast.Name)}
    return ast.unparse(call.args[0]) if free <= set(names()) and "jnp." in ast.unparse(call.args[0]) else None


def synthesized(path, thing, statements) -> Iterator[str]:
    """Source code of further calls, where the name of every required parameter says what fits."""
    if not inspect.isclass(thing):
        arguments = fitting(thing, False, "jnp.array([0.5, 1.0])", path)
        if not statements and arguments is not None:
            yield f"{path}({arguments})"
        return
    for receiver, theta in receivers(path, thing):
        if not statements:
            yield receiver
        for name in sorted(dir(thing)):
            method = inspect.getattr_static(thing, name)
            own = inspect.isfunction(method) and method.__module__.startswith("diffperturb")
            if name == "__call__" and any(f"{receiver}(" in ast.unparse(s) for s in statements):
                continue
            if issubclass(thing, dp.expectation.Method) and name in BELOW_OPERATORS:
                continue
            if own and (not name.startswith("_") or name == "__call__") and name not in UNCHECKED:
                arguments = fitting(method, True, theta, receiver)
                if arguments is not None:
                    yield f"{receiver}({arguments})" if name == "__call__" else f"{receiver}.{name}({arguments})"


class _Inline(ast.NodeTransformer):
    """Names of an example, replaced by what they stand for."""

    def __init__(self, assigned):
        self.assigned = assigned

    def visit_Name(self, node):
        return self.visit(copy.deepcopy(self.assigned[node.id])) if node.id in self.assigned else node


def fitting(function, bound: bool, theta: str, receiver: str) -> str | None:
    """Right arguments by the names of parameters; None where one is not known."""
    try:
        parameters = list(inspect.signature(function).parameters.values())[bound:]
    except ValueError:
        return None
    given = []
    for p in parameters:
        optional = p.default is not p.empty or p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        if p.name not in RIGHT or p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL):
            if optional:
                continue
            return None
        if optional and p.name not in ("key", "y"):
            continue
        right = RIGHT[p.name].format(theta=theta, receiver=receiver)
        given.append(right if p.kind is p.POSITIONAL_ONLY else f"{p.name}={right}")
    return ", ".join(given)
