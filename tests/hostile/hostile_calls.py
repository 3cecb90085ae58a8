"""Wrong calls, made from right ones: every documented example, with one argument replaced by something wrong.

The right calls are those of the docstrings, and calls of the public methods of what the docstrings build; so a new
public class joins by being documented. What counts as wrong follows from the annotation of the parameter: a string for
a solver, a class for a value, a wrong shape. Numbers that are not finite go through compiled, batched and
differentiated programs, too. The verdict on a call is one of

- clear: an error that the library raises itself,
- raw: an error of Python or JAX, which happened to come,
- silent: a result.

Commands, from the folder of the checkout; with `--write` the cases that are raw or silent go into `known.json` here:

    python tests/hostile/hostile_calls.py            the verdicts by public name, worst first
    python tests/hostile/hostile_calls.py --write    the same, and known.json is written anew
    python tests/hostile/hostile_calls.py --some     a smaller set, chosen by a hash; with --write, too
    python tests/hostile/hostile_calls.py TopK -v    the cases of one name, with what each one says
"""

import ast
import collections
import contextlib
import copy
import dis
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

import diffperturb as dp
from diffperturb.foundations.errors import RunTimeValueError
from diffperturb.noise.noise import Floats

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where this file is run as a command
from hostile.right_calls import USED, names, script
from hostile.wrong_calls import BY_VALUE, FAULTS, Case, admits, arguments, cases, is_noise

KNOWN = Path(__file__).with_name("known.json")
PACKAGE = dp.__path__[0]
SECONDS = 60  # of one call; a wrong number of draws may be very large
# Justified: by what a case's name begins with or holds, why a result or another's error is right there.
EXCEPTIONS = {
    r"inner\(\w+=.*(NaN|infini)": "arithmetic: what is not a number stays none",
    r"Flow\(capacity=infinite": "a capacity that does not bind",
    r"static\(": "a declaration: whatever the dataclass takes",
    r"LinearProgram\((lower|upper|low|high)=infinite": "a bound that does not bind",
    r"MixedIntegerProgram\((lower|upper|low|high)=infinite": "a bound that does not bind",
}


class NotACase(Exception):
    """The call is no wrong call: the value can't be made here, or is right after all."""


class Outcome(NamedTuple):
    verdict: str  # "clear", "raw", "silent", or "legal"
    message: str


class _Replace(ast.NodeTransformer):
    """Nodes, by their identity, replaced by source code."""

    def __init__(self, new: dict):
        self.new = new

    def visit(self, node):
        return expression(self.new[id(node)]) if id(node) in self.new else super().visit(node)


def expression(source: str) -> ast.expr:
    return ast.parse(source, mode="eval").body


def mutated(case: Case, statement: ast.stmt, transformed: int | None = None, right: bool = False) -> ast.stmt:
    """The statement with the wrong value in it, and `_it` in the place of the node that is transformed."""
    fresh = copy.deepcopy(statement)
    nodes = list(ast.walk(fresh))
    new = {} if transformed is None else {id(nodes[transformed]): "_it"}
    if case.node < 0 and not right:
        wrong = expression(f"_wrong(lambda it: {case.wrong}, None)")
        nodes[-1 - case.node].keywords.append(ast.keyword(case.parameter, wrong))
    elif case.node >= 0 and not right and case.node != transformed:
        node = nodes[case.node]
        new[id(node)] = f"_wrong(lambda it: {case.wrong}, {ast.unparse(node)})"
    return _Replace(new).visit(fresh)


def _wrong_for(case: Case):
    """The function that makes the wrong value, or says that it is none."""

    def make(wrong, it):
        try:
            value = wrong(it)
            if (
                isinstance(value, jax.Array)
                and case.label in ("NaN", "infinite")
                and bool(jnp.all(jnp.isfinite(value)))
            ):
                raise NotACase("no such number in this dtype")
        except jax.errors.JAXTypeError:
            return value
        except Exception as error:
            raise NotACase(str(error)) from error
        none = value is None and "None" in str(case.annotation)
        fits = case.parameter != "key" and case.label not in BY_VALUE and admits(case.annotation, value)
        if none or fits:
            raise NotACase("the annotation allows it")
        return value

    return make


def stripped(node: ast.expr) -> ast.expr:
    """An expression without what turns arrays into Python numbers."""
    if isinstance(node, ast.Tuple):
        return ast.Tuple([stripped(e) for e in node.elts], ast.Load())
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("tolist", "item"):
            return stripped(node.func.value)
        if isinstance(node.func, ast.Name) and node.func.id in ("float", "int", "round", "abs", "bool"):
            return stripped(node.args[0])
    return node


def total(tree) -> jax.Array:
    """The sum of all floating numbers of a result."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]
    if not leaves:
        raise NotACase("nothing to differentiate")
    return sum(jnp.sum(jnp.asarray(leaf)) for leaf in leaves)


def through(context: str, f, good, bad):
    """A program with the number that is not finite, through a transformation."""
    if context in ("vmap", "jit(vmap(grad))", "scan"):
        both = jnp.stack([good, bad])
    if context == "jit":
        return jax.jit(f)(bad)
    if context == "vmap":
        return jax.vmap(f)(both)
    if context == "grad":
        return jax.grad(lambda x: total(f(x)))(bad)
    if context == "jit(vmap(grad))":
        return jax.jit(jax.vmap(jax.grad(lambda x: total(f(x)))))(both)
    if context == "scan":
        return jax.lax.scan(lambda carry, x: (carry, f(x)), 0, both)[1]
    if context == "shard_map":
        both, spec = jnp.stack([good, bad]), jax.sharding.PartitionSpec("d")
        mesh = jax.make_mesh((2,), ("d",))
        return jax.jit(jax.shard_map(jax.vmap(f), mesh=mesh, in_specs=spec, out_specs=spec))(both)
    if context == "cotangent":
        out, back = jax.vjp(f, good)
        total(out)
        leaves, tree = jax.tree.flatten(out)
        nan = lambda v: jnp.full_like(v, jnp.nan) if jnp.issubdtype(v.dtype, jnp.floating) else zero(v)
        return back(jax.tree.unflatten(tree, [nan(v) for v in leaves]))
    return f(bad)


def zero(v):
    return np.zeros(v.shape, jax.dtypes.float0)


def surroundings(context: str):
    """The configuration of JAX that a context stands for."""
    if context == "float64":
        return jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64()
    if context == "strict":
        return jax.numpy_dtype_promotion("strict")
    return contextlib.nullcontext()


def program(case: Case, space: dict, right: bool = False):
    """The value of a call, wrong or right."""
    statement = script(case.public).statements[case.statement]
    space = {**space, "_wrong": (lambda wrong, it: it) if right else _wrong_for(case)}
    if not case.context:
        tree = copy.deepcopy(statement) if right else mutated(case, statement)
        if isinstance(tree, ast.Expr):
            tree = ast.Assign([ast.Name("_result", ast.Store())], tree.value)
        run(tree, space)
        if isinstance(statement, ast.Assign):  # what the rest of the example makes of it
            the_script = script(case.public)
            for later in the_script.statements[case.statement + 1 : the_script.documented]:
                run(later, space)
            return None
        return space.get("_result")
    with surroundings(case.context):
        f, good = function_of(case, space, right)
        if not jnp.issubdtype(good.dtype, jnp.floating) or good.size == 0:
            raise NotACase("no scores")
        if right and case.context == "cotangent":
            return jax.vjp(f, good)[0]
        bad = good if right or case.scores >= 0 else good.at[(0,) * good.ndim].set(eval(case.wrong))
        return jax.block_until_ready(through(case.context, f, good, bad))


def spot(case: Case) -> int:
    """The index of the node that is transformed."""
    return case.node if case.scores < 0 else case.scores


def function_of(case: Case, space: dict | None = None, right: bool = True):
    """A statement as a function of an array that it writes out, and that array."""
    statement = script(case.public).statements[case.statement]
    space = space_before(case.public, case.statement) if space is None else space
    good = evaluated(ast.unparse(list(ast.walk(statement))[spot(case)]), space)
    body = ast.unparse(stripped(mutated(case, statement, spot(case), right).value))
    return evaluated(f"lambda _it: {body}", space), good


def evaluated(source: str, space: dict):
    return eval(compile(source, "hostile", "eval"), space)


def run(statement: ast.stmt, space: dict) -> None:
    tree = ast.fix_missing_locations(ast.Module([statement], []))
    exec(compile(tree, "hostile", "exec"), space)
    jax.block_until_ready([v for k, v in space.items() if k == "_result"])


@cache
def space_before(path: str, statement: int) -> dict:
    """The names that the example has made before a statement."""
    the_script, space = script(path), names()
    for each in the_script.statements[: min(statement, the_script.documented)]:
        if not isinstance(each, ast.Expr):
            run(each, space)
    return space


@contextlib.contextmanager
def limited():
    """Stop a call that takes too long; silence its warnings."""

    def stop(*_):
        raise TimeoutError(f"took more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def raised_in(traceback) -> tuple[str, bool]:
    """The file that an error comes from, and whether a `raise` of that file made it."""
    while traceback.tb_next:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code
    return code.co_filename, code.co_code[traceback.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def ours(error: BaseException) -> bool:
    """Whether the library raised an error, in Python or in a compiled program."""
    classes = (RunTimeValueError, *RunTimeValueError.__subclasses__())
    if isinstance(error, classes) or any(f"{c.__name__}: " in str(error) for c in classes):
        return True
    inner = re.findall(r'File "(.*)", line \d+, in .*\n\s*(raise\b)?', str(error))  # of a callback
    if inner and inner[-1][0].startswith(PACKAGE):
        return bool(inner[-1][1])
    where, stated = raised_in(error.__traceback__)
    if where.startswith(PACKAGE):
        return stated and not isinstance(error, AssertionError)
    return where == "hostile" and isinstance(error, TypeError) and " argument" in str(error)  # a wrong signature


@cache
def right_result(path: str, statement: int, context: str = "", node: int = -1):
    """What the right call gives, or the error that says that it is not right."""
    case = Case("", path, statement, node, "", "", "", None, context)
    try:
        with limited():
            return program(case, space_before(path, statement), right=True)
    except Exception as error:
        return error


def entry_by_entry(annotation) -> bool:
    return annotation is Floats or annotation == Float[jax.Array, "..."]


def same_decision(right, wrong) -> bool:
    """Whether a result is the right one, up to added axes: a map that takes its scores entry by entry."""
    try:
        a, b = np.asarray(right), np.asarray(wrong)
        return a.dtype != object and b.size == a.size and bool(np.array_equal(a.ravel(), b.ravel()))
    except Exception:
        return False


def not_finite(result) -> bool:
    """Whether a result holds numbers that are not finite."""
    numbers = [v for v in jax.tree.leaves(result) if isinstance(v, (float, np.ndarray, jax.Array))]
    return not all(bool(jnp.all(jnp.isfinite(v))) for v in numbers if jnp.issubdtype(jnp.result_type(v), jnp.inexact))


def is_legal(case: Case, result) -> bool:
    """Whether a result is right after all, by a general rule."""
    if any(re.search(words, case.name) for words in EXCEPTIONS):
        return True
    if case.label in FAULTS and not USED:  # a fault that nothing meets
        return True
    if case.label == "one more axis":
        right = right_result(case.public, case.statement)
        return same_decision(right, result)
    if case.label == "empty":  # nothing in, nothing out
        return not isinstance(result, (str, type(None))) and np.size(result) == 0
    if case.context == "cotangent":  # a gradient that is not a number stays visible
        return not_finite(result)
    if case.label == "one entry more" and not case.context:  # nothing else says how long it is
        statement = ast.unparse(script(case.public).statements[case.statement])
        return len(re.findall(r"jnp\.\w+\(|label_of\(|graph|line|triangle", statement)) == 1
    if case.label in ("NaN", "infinite", "minus infinity"):
        if is_noise(case.public) and not_finite(result):
            return True  # arithmetic, as in `inner`
        parameter = case.annotation if case.annotation is not None else annotation_of(case)
        return entry_by_entry(parameter)
    return False


def annotation_of(case: Case):
    """The annotation of the parameter that a literal is passed for."""
    the_script = script(case.public)
    for _, p, node, *_ in arguments(the_script.statements[case.statement], the_script.known[case.statement]):
        if node == case.node:
            return p.annotation
    return None


def said(error: Exception) -> str:
    """The words of an error; of one that came through a callback, the last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" -")]
    inner = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    words = f"{type(error).__name__}: {' '.join(lines)}"
    return (f"{type(error).__name__}: {inner[-1]}" if "Traceback" in words and inner else words)[:200]


def outcome(case: Case, validate: bool = False) -> Outcome:
    """What a wrong call does; `validate` looks at the right one even where the wrong one is refused."""
    try:
        space = space_before(case.public, case.statement)
    except Exception as error:
        return Outcome("legal", f"the example does not run: {error}")
    USED.clear()
    try:
        with limited():
            result = program(case, dict(space))
        found = Outcome("silent", re.sub(r"\s+", " ", repr(result))[:120])
    except NotACase as error:
        return Outcome("legal", str(error))
    except Exception as error:
        message = said(error)
        if isinstance(error.__cause__, NotACase) or "NotACase" in message:
            return Outcome("legal", message)
        found = Outcome("clear" if ours(error) else "raw", message)
    if found.verdict == "silent" and is_legal(case, result):
        return Outcome("legal", "right after all")
    if found.verdict != "clear" or validate:
        node = spot(case) if case.context else -1
        right = right_result(case.public, case.statement, case.context, node)
        if isinstance(right, Exception):
            return Outcome("legal", f"the right call fails: {right}"[:160])
    return found


# --- what is known, and the report


def sharded_cases() -> list[Case]:
    """Those under vmap, with the batch shared out over two devices; for a process that has two."""
    under = [case for case in cases() if case.context == "vmap" and case.label in ("NaN", "draws NaN")]
    return [
        case._replace(context="shard_map", name=case.name.replace("under vmap", "under shard_map")) for case in under
    ]


def sharded_outcomes() -> dict[str, list[str]]:
    """The verdicts and messages of the sharded cases, by name, from a process of their own."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, __file__, "--shard_map"], env=env, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def known() -> dict:
    return json.loads(KNOWN.read_text())


def selected(every: bool, some: int = 400) -> list[Case]:
    """All cases, or the `some` that come first in an order by hash."""
    found = cases()
    return sorted(found, key=lambda case: case.rank)[: None if every else some]


def report(found: dict, taken: float) -> None:
    """Counts by public name, worst first."""
    table = collections.defaultdict(collections.Counter)
    for case, result in found.items():
        table[case.public][result.verdict] += 1
    worst = sorted(table, key=lambda name: (-table[name]["silent"], -table[name]["raw"], name))
    columns = ("clear", "raw", "silent")
    print(f"{'':36}" + "".join(f"{c:>8}" for c in columns))
    for name in worst:
        print(f"{name:36}" + "".join(f"{table[name][c]:8}" for c in columns))
    sums = collections.Counter(result.verdict for result in found.values())
    print(f"{'all':36}" + "".join(f"{sums[c]:8}" for c in columns))
    wrong = sum(sums[c] for c in columns)
    print(f"{wrong} wrong calls of {len(table)} public names in {taken:.0f} s; {sums['legal']} more were legal")


def main(words: list[str]) -> None:
    only = [word for word in words if not word.startswith("-")]
    if "--shard_map" in words:
        print(json.dumps({case.name: outcome(case) for case in sharded_cases()}))
        return
    start, found = time.process_time(), {}
    for case in selected(every="--some" not in words):
        if not only or case.public.rpartition(".")[2] in only:
            found[case] = result = outcome(case, validate=True)
            if "-v" in words:
                print(f"{result.verdict:7} {case.name}\n        {result.message}", flush=True)
    if not only and "--some" not in words:
        sharded = sharded_outcomes()
        found |= {case: Outcome(*sharded[case.name]) for case in sharded_cases()}
    report(found, time.process_time() - start)
    if "--write" in words and not only:
        lines = {case.name: result.verdict for case, result in found.items() if result.verdict in ("raw", "silent")}
        KNOWN.write_text(json.dumps(dict(sorted(lines.items())), indent=0, ensure_ascii=False) + "\n")
        print(f"{KNOWN.name} holds {len(lines)} cases")


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main(sys.argv[1:])
