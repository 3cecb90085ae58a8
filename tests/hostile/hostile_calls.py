"""Wrong calls, made from right ones: every documented example, with one argument replaced by something wrong.

The examples are those of the docstrings, so a new public class joins by being documented. What counts as wrong follows
from the annotation of the parameter: a string for a solver, a class for a value, NaN for a score, a wrong shape.
"""

import ast
import doctest
import inspect
import traceback
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import diffperturb as dp

PACKAGE = dp.__path__[0]


class Case(NamedTuple):
    """One wrong call: the statements before it, the mutated statement, and where the argument came from."""

    name: str  # of the class or function, its parameter, and what is wrong
    program: str
    kind: str  # of the argument


# What is wrong for a kind of argument, as source code in which `it` is the right value.
WRONG = {
    "array": {
        "string": "'wrong'",
        "class": "dp.Normal",
        "object": "object()",
        "complex": "jnp.asarray(it) * (1 + 1j)",
        "NaN": "jnp.asarray(it) * jnp.nan",
        "infinite": "jnp.asarray(it).at[(0,) * jnp.ndim(it)].set(jnp.inf)",
        "one more axis": "jnp.asarray(it)[None, None]",
        "empty": "jnp.zeros((0,))",
        "dict": "{'a': 1.0}",
    },
    "int": {
        "string": "'3'",
        "fraction": "2.5",
        "negative": "-1",
        "NaN": "float('nan')",
        "class": "dp.Normal",
        "list": "[1, 2]",
        "complex": "1j",
    },
    "float": {
        "string": "'0.5'",
        "NaN": "float('nan')",
        "infinite": "float('inf')",
        "class": "dp.Normal",
        "vector": "jnp.ones(2)",
        "complex": "1j",
        "object": "object()",
    },
    "solver": {
        "string": "'argmax'",
        "number": "0.5",
        "class": "dp.Argmax",
        "noise": "dp.Normal()",
        "dict": "{}",
        "None": "None",
        "array": "jnp.ones(3)",
    },
    "noise": {
        "string": "'gumbel'",
        "number": "0.5",
        "class": "dp.Normal",
        "solver": "dp.Argmax()",
        "dict": "{}",
        "function": "(lambda key: key)",
    },
    "method": {"string": "'exact'", "number": "1000", "class": "dp.Exact", "noise": "dp.Normal()", "None": "None"},
    "sampling": {"string": "'sobol'", "number": "8", "class": "dp.Sobol", "noise": "dp.Normal()", "None": "None"},
    "estimator": {"string": "'regression'", "number": "8", "class": "dp.Regression", "noise": "dp.Normal()"},
    "operator": {
        "string": "'perturbed'",
        "number": "0.5",
        "class": "dp.Perturbed",
        "solver": "dp.Argmax()",
        "None": "None",
    },
    "key": {
        "number": "0",
        "string": "'key'",
        "class": "dp.Normal",
        "several keys": "jax.random.split(jax.random.key(0), 3)",
        "floats": "jnp.ones(2)",
        "None": "None",
    },
    "bool": {"string": "'yes'", "None": "None", "number": "2.5"},
    "str": {"number": "5", "nonsense": "'nonsense'", "class": "dp.Normal"},
    "function": {"string": "'f'", "number": "0.5", "array": "jnp.ones(3)"},
    "other": {"string": "'nonsense'", "object": "object()", "number": "12345"},
}
# By what an annotation says; the first that fits.
KINDS = {
    "Perturbed": "operator",
    "Solver": "solver",
    "Noise": "noise",
    "Method": "method",
    "MonteCarlo": "method",
    "Sampling": "sampling",
    "Estimator": "estimator",
    "ScoreFunction": "estimator",
    "Key": "key",
    "Callable": "function",
    "bool": "bool",
}


def kind_of(name: str, annotation) -> str:
    """The kind of a parameter by its name and annotation."""
    words = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "") + str(annotation)
    if name == "key":
        return "key"
    if name == "solver":
        return "solver"
    for word, kind in KINDS.items():
        if word in words:
            return kind
    if "Array" in words:
        return "float" if "float" in words.replace("Float", "") else "array"
    for word, kind in (("int", "int"), ("float", "float"), ("str", "str")):
        if word in words:
            return kind
    return "other"


def takes_none(annotation) -> bool:
    return "None" in str(annotation)


def examples(thing) -> list[ast.stmt]:
    """The statements of a docstring's example."""
    found = doctest.DocTestParser().get_examples(inspect.getdoc(thing) or "")
    return [statement for example in found for statement in ast.parse(example.source).body]


def names() -> dict:
    """What the examples may use."""
    return {"dp": dp, "jax": jax, "jnp": jnp, "np": np}


def arguments(call: ast.Call, space: dict) -> Iterator[tuple[str, str, ast.AST, object]]:
    """The arguments of a call: (who, parameter, node, annotation)."""
    callee = eval(compile(ast.Expression(call.func), "example", "eval"), space)
    module = getattr(callee, "__module__", None) or type(callee).__module__
    if not module.startswith("diffperturb"):
        return
    target = callee if inspect.isclass(callee) or inspect.isroutine(callee) else callee.__call__
    parameters = list(inspect.signature(target).parameters.values())
    who = getattr(callee, "__qualname__", None) or type(callee).__qualname__
    for i, node in enumerate(call.args):
        if i < len(parameters) and not isinstance(node, ast.Starred):
            p = parameters[min(i, len(parameters) - 1)]
            yield who, p.name, node, p.annotation
    for keyword in call.keywords:
        found = [p for p in parameters if p.name == keyword.arg]
        if found:
            yield who, found[0].name, keyword.value, found[0].annotation


class _Replace(ast.NodeTransformer):
    def __init__(self, node, new):
        self.node, self.new = node, new

    def visit(self, node):
        return self.new if node is self.node else super().visit(node)


def mutations(statement: ast.stmt, space: dict) -> Iterator[tuple[str, str, str]]:
    """A statement with one argument replaced, once for each wrong value: (name, source, kind)."""
    for call in [node for node in ast.walk(statement) if isinstance(node, ast.Call)]:
        try:
            found = list(arguments(call, space))
        except Exception:  # a callee inside a lambda: its names are bound when it is called
            continue
        for who, parameter, node, annotation in found:
            kind = kind_of(parameter, annotation)
            right = ast.unparse(node)
            for label, wrong in WRONG[kind].items():
                if label == "None" and takes_none(annotation):
                    continue
                new = ast.parse(f"(lambda it: {wrong})({right})", mode="eval").body
                fresh = ast.parse(ast.unparse(statement)).body[0]  # a copy whose nodes may be replaced
                twin = _twin(statement, node, fresh)
                yield f"{who}({parameter}={label})", ast.unparse(_Replace(twin, new).visit(fresh)), kind


def _twin(tree, node, copy):
    """The node of a copy that stands where `node` stands in a tree."""
    for a, b in zip(ast.walk(tree), ast.walk(copy), strict=True):
        if a is node:
            return b
    raise LookupError


def cases() -> list[Case]:
    """All wrong calls that follow from the examples."""
    found = {}
    for name in dp.__all__:
        thing = getattr(dp, name)
        space, before = names(), []
        for statement in examples(thing) if callable(thing) else []:
            for label, source, kind in mutations(statement, space):
                program = "\n".join([*before, source])
                found.setdefault(program, Case(f"{name}: {label}", program, kind))
            before.append(ast.unparse(statement))
            exec(compile(ast.Module([statement], []), "example", "exec"), space)
    return list(found.values())


class Outcome(NamedTuple):
    verdict: str  # "clear", "raw" or "silent"
    message: str


def ours(error: BaseException) -> bool:
    """Whether an error comes from the library: raised in it, or by its check inside a compiled program."""
    if "RunTimeValueError" in str(error) or "CallbackError" in str(error):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    inside = bool(frames) and frames[-1].filename.startswith(PACKAGE)
    signature = isinstance(error, TypeError) and "argument" in str(error) and len(frames) <= 3
    return inside or signature


def outcome(case: Case) -> Outcome:
    """What a wrong call does."""
    space = names()
    tree = ast.parse(case.program)
    last = tree.body[-1]
    if isinstance(last, ast.Expr):
        tree.body[-1] = ast.parse(f"result = {ast.unparse(last)}").body[0]
    try:
        exec(compile(tree, "hostile", "exec"), space)
        result = space.get("result")
        jax.block_until_ready(result)
    except Exception as error:
        cause = error.__cause__ if ours(error.__cause__ or error) and error.__cause__ else error
        return Outcome("clear" if ours(error) or ours(cause) else "raw", f"{type(error).__name__}: {error}")
    return Outcome("silent", repr(result)[:200])
