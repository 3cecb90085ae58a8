"""Callbacks from compiled programs: stacks, precision, errors with their place, all cores, the choice of a platform."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import refuses

from diffperturb.solvers._runtime.callbacks import (
    CallbackError,
    UnsolvableError,
    in_parts,
    on_host,
    only_in_xla,
    per_platform,
)

PAIR = jax.ShapeDtypeStruct((2,), jnp.float32)


def test_one_call_per_batch_with_shared_arrays_stated_once():
    shapes = []

    def above(rows, level):
        shapes.append((rows.shape, level.shape))
        return rows > level[:, None]

    def solve(theta, level):
        return on_host(above, theta, level, result=jax.ShapeDtypeStruct((4,), bool), name="above")

    thetas = jnp.arange(24.0).reshape(2, 3, 4)
    y = jax.jit(jax.vmap(jax.vmap(solve, (0, None)), (0, None)))(thetas, 12.0)
    assert shapes == [((6, 4), (1,))]  # one call: six instances, one level for all of them
    assert jnp.all(y == (thetas > 12.0))
    levels = jnp.array([3.0, 20.0])
    each = jax.vmap(jax.vmap(solve, (0, None)))(thetas, levels)
    assert shapes[-1] == ((6, 4), (6,)) and jnp.all(each == (thetas > levels[:, None, None]))
    assert solve(thetas[0, 0], 1.0).tolist() == [False, False, True, True]


def test_double_precision_arrives_whole_from_another_thread():
    def halve(x):
        return on_host(lambda rows: rows / 2, x, result=jax.ShapeDtypeStruct((1000,), jnp.float64), name="half")

    with jax.enable_x64(True):
        x = jnp.arange(3e6).reshape(3000, 1000) * (1 + 1e-15)
        assert jnp.all(jax.jit(lambda x: jax.vmap(halve)(jnp.sort(x)))(x) == x / 2)


def no_negatives(rows):
    for i, row in enumerate(rows):
        if row.min() < 0:
            raise UnsolvableError(i, f"the score {row.min()} is negative")
    return rows


BAD = jnp.ones((3, 4, 2)).at[1, 2, 0].set(-5.0)


def test_an_error_names_the_solver_and_the_place_in_the_batch():
    solve = lambda theta: on_host(no_negatives, theta, result=PAIR, name="roots")
    refuses(lambda: solve(BAD[1, 2]), "roots: the score -5.0 is negative")
    batch = jax.jit(jax.vmap(jax.vmap(solve)))
    refuses(lambda: batch(BAD), "the score -5.0 is negative [instance (1, 2) of the batch]")
    with pytest.raises(CallbackError) as seen:
        solve(BAD[1, 2])
    assert seen.value.instance.tolist() == [-5.0, 1.0] and seen.value.place == ()


def test_record_receives_the_error_of_a_compiled_program():
    kept = []

    def watched(theta, b):
        return on_host(lambda t, b: no_negatives(t), theta, b, result=PAIR, name="w", record=kept.append)

    batch = jax.vmap(jax.vmap(watched, (0, None)), (0, 0))
    refuses(lambda: batch(BAD, jnp.arange(3.0)), "w: the score")
    [fault] = kept
    assert fault.place == (1, 2) and fault.instance.tolist() == [-5.0, 1.0] and fault.data == (1.0,)


def test_a_result_of_another_shape_is_refused():
    short = lambda theta: on_host(lambda rows: rows[:, :1], theta, result=PAIR, name="short")
    refuses(lambda: short(jnp.ones(2)), "short returned shape (1, 1) for a stack of instances, expected (1, 2)")


def test_parts_of_a_stack_give_what_the_whole_gives():
    rows = np.random.default_rng(0).normal(size=(5000, 100))
    assert np.array_equal(in_parts(lambda r: np.sort(r, axis=1), rows), np.sort(rows, axis=1))
    add = lambda r, one: r + one
    assert np.array_equal(in_parts(add, rows, rows[:1]), rows + rows[:1])
    assert np.array_equal(in_parts(add, rows, rows), rows + rows)


def test_an_error_in_a_part_names_the_place_in_the_whole_stack():
    rows = np.abs(np.random.default_rng(0).normal(size=(5000, 100)))
    rows[4000, 7] = -10
    with pytest.raises(UnsolvableError) as seen:
        in_parts(no_negatives, rows)
    assert seen.value.index == 4000  # on however many cores


def ranks(theta):
    return per_platform(
        lambda rows: np.argsort(rows, axis=1),
        lambda theta: jnp.argsort(theta).astype(jnp.int32),
        theta,
        result=jax.ShapeDtypeStruct((3,), jnp.int32),
        name="order",
    )


def test_both_platforms_give_the_same():
    theta = jnp.array([0.3, -1.0, 2.0])
    assert jax.jit(jax.vmap(ranks))(jnp.stack([theta, jnp.array([3.0, 2.0, 1.0])])).tolist() == [[1, 0, 2], [2, 1, 0]]
    assert ranks(theta).tolist() == jax.jit(ranks)(theta).tolist() == [1, 0, 2]


def test_a_block_can_be_kept_in_xla():
    program = lambda: str(jax.make_jaxpr(lambda theta: ranks(theta))(jnp.zeros(3)))
    with only_in_xla():
        assert "callback" not in program()
    assert "callback" in program()


def test_the_block_holds_for_its_thread_and_its_programs():
    compiled = jax.jit(lambda theta: ranks(theta))
    program = lambda: compiled.trace(jnp.zeros(3)).jaxpr
    with only_in_xla(), ThreadPoolExecutor(1) as pool:
        assert "callback" not in str(program()) and "callback" in str(pool.submit(program).result())
    assert "callback" in str(program())


def test_shard_map_with_its_defaults():
    """What the host returns varies between devices as its arguments do."""
    mesh, spec = jax.sharding.Mesh(jax.devices()[:1], ("x",)), jax.sharding.PartitionSpec("x")
    theta = jnp.array([[0.3, -1.0, 2.0]])

    def alone(theta):
        return on_host(lambda rows: rows, theta[0], result=jax.ShapeDtypeStruct((3,), jnp.float32), name="same")[None]

    for fn, expected in {lambda t: ranks(t[0])[None]: [[1, 0, 2]], alone: theta.tolist()}.items():
        shared = jax.shard_map(fn, mesh=mesh, in_specs=spec, out_specs=spec)
        assert jax.jit(shared)(theta).tolist() == expected
    kinds = jax.jit(jax.shard_map(alone, mesh=mesh, in_specs=spec, out_specs=jax.sharding.PartitionSpec()))
    with pytest.raises(ValueError, match="out_specs"):  # a value that differs is not passed off as the same everywhere
        kinds(theta)


FORKED = """
import os, time
import numpy as np
from diffperturb.solvers._runtime.callbacks import in_parts

rows = np.random.default_rng(0).normal(size=(5000, 100))
solve = lambda: in_parts(lambda r: np.sort(r, axis=1), rows)
expected = solve()  # starts the threads
if (child := os.fork()) == 0:
    os._exit(0 if np.array_equal(solve(), expected) else 1)
end = time.monotonic() + 20
while (state := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
    time.sleep(0.01)
if state == (0, 0):
    os.kill(child, 9)
print("the child hangs" if state == (0, 0) else f"the child ends with {os.waitstatus_to_exitcode(state[1])}")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_threads_of_its_own():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60)
    assert "the child ends with 0" in done.stdout, done.stdout + done.stderr
