"""Checks that no transformation and no compiler can drop, in every thread and on every device of a mesh."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import refuses, table

import diffperturb as dp
from diffperturb.foundations.batching import agree_along, agreed_axes, any_in_batch
from diffperturb.foundations.errors import error_if, run_time_checks

KEY = jax.random.key(0)
BAD = jnp.array([0.3, jnp.nan, 2.0])


def operators():
    drawn = dp.Perturbed(dp.Argmax(), dp.Normal(), 1.0, dp.MonteCarlo(8))
    exact = dp.Perturbed(dp.Argmax(), dp.Gumbel(), 1.0, dp.Exact())
    return {
        "Identity": dp.Identity(dp.Ranking()),
        "Exact": exact,
        "MonteCarlo": lambda theta: drawn(theta, key=KEY),
    }


DERIVATIVES = {
    "jit of grad": lambda f: jax.jit(jax.grad(lambda t: f(t)[0])),
    "jit of vmap of grad": lambda f: jax.jit(lambda t: jax.vmap(jax.grad(lambda t: f(t)[0]))(jnp.stack([t, t]))),
    "jit of jvp": lambda f: jax.jit(lambda t: jax.jvp(f, (t,), (jnp.ones(3),))[1]),
    "jit of hessian": lambda f: jax.jit(jax.hessian(lambda t: f(t)[0])),
}


@pytest.mark.parametrize("name", ["Identity", "Exact", "MonteCarlo"])
@table(DERIVATIVES)
def test_a_derivative_keeps_the_check(name, row):
    derivative = row(operators()[name])
    refuses(lambda: derivative(BAD), "theta[1] is nan")
    assert jnp.all(jnp.isfinite(derivative(jnp.array([0.3, -1.0, 2.0]))))


def test_a_gate_changes_no_number():
    """The factor 1 of the tangent is exact, for every dtype and for what has no tangent."""

    def gated(x):
        tree = {"x": x, "n": jnp.arange(3), "key": jax.random.key(7)}
        tree = error_if(tree, jnp.any(x > 1e9), lambda x: "too large", x)
        return jnp.sum(tree["x"] ** 2) * tree["n"][1] + 0 * jax.random.uniform(tree["key"]), tree

    for dtype in (jnp.float32, jnp.bfloat16):
        x = jnp.array([0.1, -3.0, 7.7], dtype)
        slope, tree = jax.jit(jax.grad(gated, has_aux=True))(x)
        assert slope.dtype == dtype and jnp.all(slope == 2 * x) and jnp.all(tree["x"] == x)
        assert tree["n"].tolist() == [0, 1, 2] and tree["key"] == jax.random.key(7)
        refuses(lambda: jax.jit(jax.grad(lambda x: gated(x)[0]))(x * 1e12), "too large")  # noqa: B023


# --- contexts


def root(x):
    return jnp.sqrt(error_if(x, x < 0, lambda x: f"square root of {x}", x))


def test_what_was_compiled_unchecked_does_not_stay_unchecked():
    compiled = jax.jit(root)
    with run_time_checks(False):
        assert jnp.isnan(compiled(-1.0))
    refuses(lambda: compiled(-1.0), "square root of -1.0")
    with run_time_checks(False):
        assert jnp.isnan(compiled(-1.0))
        with run_time_checks(True):
            refuses(lambda: compiled(-1.0), "square root of -1.0")
        assert jnp.isnan(compiled(-1.0))


def test_other_threads_keep_their_checks():
    with ThreadPoolExecutor(1) as pool:
        with run_time_checks(False):
            refuses(lambda: pool.submit(root, jnp.float32(-1)).result(), "square root of -1.0")
            refuses(lambda: pool.submit(jax.jit(root), -1.0).result(), "square root of -1.0")
        with agree_along("x"):
            assert agreed_axes() == ("x",) and pool.submit(agreed_axes).result() == ()


def test_axes_belong_to_the_program():
    """The batching rule of a program that was traced inside the block still reduces over the axis."""
    mesh, spec = jax.sharding.Mesh(jax.devices()[:1], ("x",)), jax.sharding.PartitionSpec()
    with agree_along("x"):
        shared = jax.jit(jax.shard_map(any_in_batch, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))
        program = jax.make_jaxpr(shared)(jnp.zeros((), bool))
    evaluate = jax.vmap(lambda bad: jax.core.eval_jaxpr(program.jaxpr, program.consts, bad))
    assert "pmax" in str(jax.make_jaxpr(evaluate)(jnp.zeros(3, bool)))


# --- meshes

ON_TWO_DEVICES = """
import jax, jax.numpy as jnp, numpy as np, diffperturb as dp
from jax.sharding import PartitionSpec as P

key, spec = jax.random.key(0), P("x")
mesh = jax.sharding.Mesh(np.array(jax.devices()), ("x",))
drawn = dp.Perturbed(dp.Argmax(), dp.Normal(), 1.0, dp.MonteCarlo(16))
exact = dp.Perturbed(dp.Argmax(), dp.Gumbel(), 1.0, dp.Exact())
functions = {
    "a solver": dp.Argmax(),
    "a solver with a form for the host": dp.Ranking(),
    "Identity": jax.grad(lambda t: jnp.sum(dp.Identity(dp.Ranking())(t) ** 2)),
    "Perturbed": lambda t: drawn(t, key=key),
    "its gradient": jax.grad(lambda t: drawn(t, key=key)[0]),
    "Exact": exact,
    "the gradient of Exact": jax.grad(lambda t: exact(t)[0]),
}
thetas = jnp.array([[0.3, -1.0, 2.0], [1.0, 0.5, -0.2]])
assert len(jax.devices()) == 2
for name, function in functions.items():
    one = lambda stack: function(stack[0])[None]
    shared = jax.jit(jax.shard_map(one, mesh=mesh, in_specs=spec, out_specs=spec))
    expected = jnp.stack([function(theta) for theta in thetas])
    np.testing.assert_allclose(shared(thetas), expected, rtol=1e-5, atol=1e-6, err_msg=name)
    try:
        jax.block_until_ready(shared(thetas.at[1, 2].set(jnp.nan)))
    except Exception as error:
        assert "theta[2] is nan" in str(error), (name, error)
    else:
        raise AssertionError(f"{name}: NaN on the second device raised nothing")
print("all agree")
"""


def test_shard_map_with_its_defaults():
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", ON_TWO_DEVICES], capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0 and "all agree" in done.stdout, done.stderr[-3000:]


# --- functions that are no functions of JAX arrays


def with_numpy(theta):
    y = np.zeros(len(theta), np.float32)
    y[np.argmax(theta)] = 1
    return y


FOREIGN_FUNCTIONS = {
    "NumPy": (with_numpy, "with_numpy"),
    "a branch": (lambda theta: theta if theta[0] > 0 else -theta, "<lambda>"),
    "a number": (lambda theta: theta * int(theta[0]), "<lambda>"),
    "an index": (lambda theta: jnp.eye(3)[[0, 1, 2][jnp.argmax(theta)]], "<lambda>"),
}


@table(FOREIGN_FUNCTIONS)
def test_a_function_of_numbers_is_sent_outside_of_jax(row):
    fn, name = row
    theta = jnp.array([0.3, 2.0, 1.0])
    words = f"solver {name} needs the numbers of theta"
    for call in (lambda: jax.jit(dp.Function(fn))(theta), lambda: dp.Perturbed(fn)(theta, key=KEY)):
        refuses(call, words, TypeError)
        refuses(call, f"dp.external({name}, shape=(3,))", TypeError)
    assert dp.external(fn, shape=(3,))(theta).tolist() == dp.Function(fn)(theta).tolist()
