"""Draws and batches shared over devices: one device here, four CPU devices in a process of its own."""

import os
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
from support import refuses, table

import diffperturb as dp
from diffperturb.expectation import batched

THETA, KEY = jnp.array([0.5, 0.1, -0.4]), jax.random.key(0)
ALONE = jax.make_mesh((1,), ("draws",), devices=jax.devices()[:1])
P = dp.Perturbed(dp.Ranking(), dp.Normal(), 0.8, dp.Sharded(dp.MonteCarlo(1000), ALONE))
SAME = replace(P, method=dp.MonteCarlo(1000))
THETAS, KEYS = jax.random.normal(KEY, (4, 3)), jax.random.split(KEY, 4)
ON_MESH = batched(lambda t, k: SAME(t, key=k), jax.make_mesh((1,), ("batch",), devices=jax.devices()[:1]))


def test_one_device_is_the_method_itself_with_another_key():
    read = jax.jit(lambda k: (P(THETA, key=k), jax.grad(P.max)(THETA, key=k)))
    y, gradient = read(KEY)
    assert jnp.all(y == SAME(THETA, key=jax.random.fold_in(KEY, 0))) and jnp.all(gradient == y)


def test_a_batch_over_one_device_is_vmap():
    assert jnp.all(ON_MESH(THETAS, KEYS) == jax.vmap(lambda t, k: SAME(t, key=k))(THETAS, KEYS))


REFUSED = {
    "no such axis": (lambda: dp.Sharded(dp.MonteCarlo(1000), ALONE, "batch"), "expected 'batch' to be one of"),
    "samples": (lambda: P.samples(THETA, key=KEY), "returns means", TypeError),
    "no key": (lambda: P(THETA), "needs a key", TypeError),
    "NaN": (lambda: P(jnp.array([0.0, jnp.nan, 1.0]), key=KEY), "theta[1] is nan"),
    "no such axis of a batch": (lambda: batched(P, ALONE), "expected 'batch' to be one of", ValueError),
    "two batch sizes": (lambda: ON_MESH(THETAS, KEYS[:2]), "the batch has [2, 4] instances", ValueError),
}


@table(REFUSED)
def test_refused(row):
    refuses(*row)


PROGRAM = """
import os, jax, jax.numpy as jnp, diffperturb as dp
from dataclasses import replace
from diffperturb.expectation import batched

theta, key = jnp.array([0.5, 0.1, -0.4]), jax.random.key(0)
mesh, keys = jax.make_mesh((4,), ("draws",)), [jax.random.fold_in(key, i) for i in range(4)]
label = jnp.array([3.0, 1.0, 2.0])
readings = {
    "maximizer": lambda p, k: p(theta, key=k),
    "Jacobian, forward": lambda p, k: p.jacobian(theta, key=k),
    "Hessian of F": lambda p, k: jax.hessian(lambda t: p.max(t, key=k))(theta),
    "regret, gradients": lambda p, k: jnp.stack(jax.grad(p.regret, (0, 1))(theta, label, key=k)),
    "Jacobian, reverse": lambda p, k: jax.jacrev(lambda t: p(t, key=k))(theta),
    "d/d epsilon": lambda p, k: jax.jacrev(lambda e: replace(p, epsilon=e)(theta, key=k))(0.8),
}
if os.environ.get("DIFFPERTURB_TESTS") != "all":
    readings = dict(list(readings.items())[:3])
shared = dp.Perturbed(dp.Ranking(), dp.Normal(), 0.8, dp.Sharded(dp.MonteCarlo(1000), mesh))
single = replace(shared, method=dp.MonteCarlo(250))
assert jax.device_count() == 4
for name, read in readings.items():
    truth = jnp.mean(jax.jit(jax.vmap(lambda k: read(single, k)))(jnp.stack(keys)), axis=0)
    found = jax.jit(lambda k: read(shared, k))(key)
    assert jnp.allclose(found, truth, atol=1e-6) and jnp.any(found != 0), name

m = shared.measure(theta, key=key)
assert m.num_samples == 1000 and jnp.allclose(m.std_error, 0.023, atol=0.002)
until = replace(shared, method=dp.Sharded(dp.MonteCarlo(400_000, tolerance=0.005), mesh)).measure(theta, key=key)
assert until.reached and jnp.max(until.std_error) <= 0.005

thetas, ks = jax.random.normal(key, (8, 3)), jax.random.split(key, 8)
over = batched(lambda t, k: single(t, key=k), jax.make_mesh((4,), ("batch",)))
slope = lambda f: jax.jit(jax.grad(lambda t: jnp.sum(f(t, ks)[:, 0])))(thetas)
plain = jax.vmap(lambda t, k: single(t, key=k))
assert jnp.all(over(thetas, ks) == plain(thetas, ks)) and jnp.allclose(slope(over), slope(plain), atol=1e-6)
assert len(over(thetas, ks).sharding.device_set) == 4

try:
    dp.Sharded(dp.MonteCarlo(1001), mesh)
    raise SystemExit("no error")
except ValueError as e:
    assert "4 devices share it: take 1004" in str(e)

def sometimes_nan(scores):
    return jnp.where(scores[0] > 2.0, jnp.nan, scores)

faulty_solver = replace(shared, solver=dp.foundations.as_solver(sometimes_nan))
for faulty, t in ((shared, theta.at[1].set(jnp.nan)), (faulty_solver, theta)):
    try:
        jax.block_until_ready(jax.jit(lambda t: faulty(t, key=key))(t))
        raise SystemExit("no error")
    except Exception as e:
        print("refused:", str(e).strip().splitlines()[-1][:90])
"""


def test_four_devices_find_what_one_finds():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=os.environ | flags, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.count("refused: RunTimeValueError") == 2, done.stdout
