"""Wrong calls: right ones, with one argument replaced by what is wrong for its annotation."""

import ast
import collections
import hashlib
import inspect
import re
import types
import typing
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from hostile.right_calls import inferred, public, script

import diffperturb as dp

# What is wrong for a kind of argument, as source code in which `it` is the right value.
WRONG = {
    "array": {
        "string": "'wrong'",
        "class": "dp.Normal",
        "object": "object()",
        "complex": "jnp.asarray(it) * (1 + 1j)",
        "NaN": "jnp.asarray(it) * jnp.nan",
        "infinite": "jnp.asarray(it, float).at[(0,) * jnp.ndim(it)].set(jnp.inf)",
        "one more axis": "jnp.asarray(it)[None, None]",
        "one entry more": "jnp.concatenate([jnp.asarray(it), jnp.asarray(it)[:1]])",
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
        "NumPy function": "(lambda theta: np.asarray(theta) > 0)",
        "solves to NaN": "faulty_solver",
        "solves to a number": "(lambda theta: theta.sum())",
    },
    "noise": {
        "string": "'gumbel'",
        "number": "0.5",
        "class": "dp.Normal",
        "solver": "dp.Argmax()",
        "dict": "{}",
        "function": "(lambda key: key)",
        "draws NaN": "faulty_noise(jnp.nan)",
        "draws infinity": "faulty_noise(jnp.inf)",
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
# Wrong by what they are, whatever an annotation says of types.
BY_VALUE = {"NaN", "infinite", "negative", "empty", "one more axis", "one entry more", "nonsense", "complex", "class"}
BY_VALUE |= {"draws NaN", "draws infinity", "solves to NaN", "solves to a number", "NumPy function"}
# What is tried in a constructor again before each of the methods, since it shows only where it is used.
THROUGH = {"draws NaN", "draws infinity", "solves to NaN", "NaN"}
# Faults of what is drawn or solved, which compiled programs must see, too.
FAULTS = {"draws NaN", "draws infinity", "solves to NaN"}
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
    "Callable": "function",
    "bool": "bool",
}
# What `jnp.shape` and the dtype of scores return, in the methods of a solver and of a noise.
GIVEN = {"shape", "dtype"}


class Case(NamedTuple):
    """One wrong call: what is replaced where, in which statement of which public name."""

    name: str
    public: str
    statement: int  # of the script of the public name
    node: int  # of the statement, in the order of ast.walk; -1: a keyword is added
    parameter: str
    wrong: str  # source code
    label: str
    annotation: object
    context: str = ""  # "", or the transformation that the program goes through
    scores: int = -1  # the node that is transformed, where it is not the one that is replaced

    @property
    def rank(self) -> int:
        """Where the case stands in an order that stays when others come and go."""
        return int(hashlib.md5(self.name.encode()).hexdigest()[:12], 16)


def kind_of(name: str, annotation) -> str:
    """The kind of a parameter by its name and annotation."""
    words = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "") + str(annotation)
    if name in ("key", "solver"):
        return name
    for word, kind in KINDS.items():
        if word in words:
            return kind
    if "Array" in words:
        return "float" if "float" in words.replace("Float", "") else "array"
    for word, kind in (("int", "int"), ("float", "float"), ("str", "str")):
        if re.search(rf"\b{word}\b", words):
            return kind
    return "other"


def admits(annotation, value) -> bool:
    """Whether an annotation allows a value."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (typing.Any, object):
        return True
    if annotation is None:
        return value is None
    if origin in (typing.Union, types.UnionType):
        return any(admits(part, value) for part in parts)
    if origin is typing.Literal:
        return value in parts
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if origin is not None:
        if not (inspect.isclass(origin) and isinstance(value, origin)):
            return False
        items = list(value) if isinstance(value, (list, tuple)) else []
        return callable(value) or all(any(admits(p, v) for p in parts if p is not ...) for v in items)
    try:
        return isinstance(value, annotation)
    except Exception:
        return False


def called(call: ast.Call, known: dict):
    """(who, parameters) of a call of the library's; None of any other."""
    f = inferred(call.func, known)
    if f is None:
        return None
    target, bound = f.value, f.bound
    if f.instance:
        target, bound = type.__getattribute__(f.value, "__call__"), True
        if not inspect.isfunction(target):
            return None
    module = getattr(target, "__module__", None) or ""
    if not module.startswith("diffperturb"):
        return None
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (ValueError, TypeError):
        return None
    who = getattr(target, "__qualname__", str(target))
    if f.instance or f.bound:  # the class that is used, not the one that defines the method
        base = f.value if f.instance else inferred(call.func.value, known).value
        who = f"{base.__name__}.{target.__name__}".replace(".__call__", "()")
    return who, parameters[bound:]


ARRAYS = ("array", "asarray", "zeros", "ones", "eye")


def literal(node) -> bool:
    """Whether an expression is an array that is written out."""
    f = getattr(node, "func", None)
    if isinstance(f, ast.Name) and f.id == "label_of":
        return True
    numbers = isinstance(f, ast.Attribute) and ast.unparse(f.value) == "jnp" and f.attr in ARRAYS
    return numbers and (f.attr in ("zeros", "ones", "eye") or "." in ast.unparse(node.args[0]))


def arguments(statement: ast.stmt, known: dict) -> Iterator[tuple]:
    """The arguments in a statement: (who, parameter, index of the node, of the call, annotation, inside a lambda)."""
    order = {id(node): i for i, node in enumerate(ast.walk(statement))}
    inside = {id(n) for l in ast.walk(statement) if isinstance(l, ast.Lambda) for n in ast.walk(l)}
    local = {a.arg for l in ast.walk(statement) if isinstance(l, ast.Lambda) for a in l.args.args}
    for call in [node for node in ast.walk(statement) if isinstance(node, ast.Call)]:
        found = called(call, {k: v for k, v in known.items() if k not in local})
        if found is None:
            continue
        who, parameters = found
        taken = set()
        for i, node in enumerate(call.args):
            if i < len(parameters) and not isinstance(node, ast.Starred):
                p = parameters[i]
                taken.add(p.name)
                yield who, p, order[id(node)], order[id(call)], id(node) in inside
        for keyword in call.keywords:
            for p in parameters:
                if p.name == keyword.arg:
                    taken.add(p.name)
                    yield who, p, order[id(keyword.value)], order[id(call)], id(call) in inside
        for p in parameters:
            named = p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
            if p.name not in taken and named and p.default is not p.empty:
                yield who, p, -1, order[id(call)], id(call) in inside


CONTEXTS = {
    "jit": ("NaN", "infinite", "minus infinity"),
    "vmap": ("NaN", "infinite"),
    "grad": ("NaN", "infinite"),
    "jit(vmap(grad))": ("NaN",),
    "scan": ("NaN",),
    "float64": ("NaN",),
    "strict": ("NaN",),
    "cotangent": ("NaN",),
}
NOT_FINITE = {"NaN": "jnp.nan", "infinite": "jnp.inf", "minus infinity": "-jnp.inf"}


def of_name(path: str) -> list[Case]:
    """The wrong calls that follow from one public name."""
    found, the_script = {}, script(path)
    counts, tried = collections.Counter(), set()
    short = path.removeprefix("dp.")

    def add(where, what, *rest):
        name = f"{short}: {what} in {where}"
        counts[name] += 1
        name += f" #{counts[name]}" if counts[name] > 1 else ""
        found[name] = Case(name, path, *rest)

    for i, statement in enumerate(the_script.statements):
        known = the_script.known[i]
        where = ast.unparse(statement)
        digest = hashlib.md5(where.encode()).hexdigest()[:4]
        where = where if len(where) <= 90 else f"{where[:50]}...{where[-37:]} [{digest}]"
        owner, outer, again_nodes = {}, outermost(statement), set()
        called_itself = isinstance(getattr(list(ast.walk(statement))[outer], "func", None), ast.Call)
        again_here = i >= the_script.documented and not called_itself
        for who, p, node, call, _ in arguments(statement, known):
            owner.setdefault(node, (who, p))
            again_nodes |= {node} if again_here and call != outer else set()
            again = again_here and call != outer  # the arguments of the constructor, once more
            annotation = p.annotation
            if (annotation is p.empty and p.name != "key") or p.name in GIVEN:
                continue
            for label, wrong in WRONG[kind_of(p.name, annotation)].items():
                what = (who, p.name, label)
                if label not in THROUGH and (again or what in tried):
                    continue
                tried.add(what)
                spot = node
                if node == -1:
                    if "it)" in wrong and not isinstance(p.default, (int, float)):
                        continue
                    spot, wrong = -1 - call, re.sub(r"\bit\b", repr(p.default), wrong)
                add(where, f"{who}({p.name}={label})", i, spot, p.name, wrong, label, annotation)
                scores = scores_beside(statement, node) if label in FAULTS else None
                if scores is not None:
                    for context in ("jit", "vmap", "grad"):
                        what = f"{who}({p.name}={label}) under {context}"
                        add(where, what, i, spot, p.name, wrong, label, annotation, context, scores)
        if isinstance(statement, ast.Expr) and not is_noise(path):  # whose methods are arithmetic, entry by entry
            for node, (who, p) in literals(statement, owner):
                if node in again_nodes:
                    continue
                for context, labels in CONTEXTS.items():
                    for label in labels:
                        value = NOT_FINITE[label]
                        add(where, f"{who}({p}={label}) under {context}", i, node, p, value, label, None, context)
    return list(found.values())


def is_noise(path: str) -> bool:
    thing = public()[path]
    return inspect.isclass(thing) and issubclass(thing, dp.noise.Noise)


def outermost(statement) -> int:
    """The index of the first call of a statement."""
    return next((i for i, node in enumerate(ast.walk(statement)) if isinstance(node, ast.Call)), 0)


def scores_beside(statement, node: int) -> int | None:
    """The index of an array that a statement writes out, outside of a node."""
    nodes = list(ast.walk(statement))
    within = {id(n) for n in ast.walk(nodes[node])} if node >= 0 else set()
    found = [i for i, _ in literals(statement, {}) if id(nodes[i]) not in within]
    return found[-1] if found and isinstance(statement, ast.Expr) else None


def literals(statement, owner) -> Iterator[tuple]:
    """The arrays of floats that a statement writes out, outside of lambdas: (node, (who, parameter))."""
    order = {id(node): i for i, node in enumerate(ast.walk(statement))}

    def walk(node):
        aside = isinstance(node, ast.Call) and ast.unparse(node.func) == "jnp.shape"
        if isinstance(node, ast.Lambda) or aside:
            return
        if literal(node):
            yield node
            return
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    for k, node in enumerate(walk(statement)):
        who, p = owner.get(order[id(node)], ("array", None))
        yield order[id(node)], (who, p.name if p else str(k))


@cache
def cases() -> tuple[Case, ...]:
    """All wrong calls."""
    return tuple(case for path in public() for case in of_name(path))
