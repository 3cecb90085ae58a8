"""External solvers in separate programs: workers that end with their parent, devices that don't wait for each other."""

import os
import subprocess
import sys
import time

import pytest

BATCH = """
import os, sys, time, threading
import jax, jax.numpy as jnp, numpy as np
from diffperturb.solvers.external import external
"""


def program(source: str, folder, **environment) -> subprocess.CompletedProcess:
    """Run a script, as a user would, without a guard around its main part."""
    path = folder / "script.py"
    path.write_text(BATCH + source)
    env = os.environ | {"JAX_PLATFORMS": "cpu"} | environment
    return subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=60, env=env, cwd=folder)


def test_a_script_needs_no_guard_and_a_hanging_thread_does_not_hold_it_back(tmp_path):
    pytest.importorskip("cloudpickle")
    done = program(
        """
def pid(theta):
    print("from a worker")
    return np.full(2, os.getpid() % 1000.0)

def stuck(theta):
    while True:
        time.sleep(60)

with_workers = external(pid, (2,), processes=True, workers=2)
found = set(jax.jit(jax.vmap(with_workers))(jnp.zeros((8, 2)))[:, 0].tolist())
assert os.getpid() % 1000.0 not in found
for worker in with_workers.runner._pool.workers:
    print(worker.process.pid)
try:
    external(stuck, (2,), time_limit=0.1)(jnp.zeros(2))
except ValueError as error:
    print(error)
""",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    *pids, message = done.stdout.splitlines()
    assert message.startswith("stuck: gave no solution within the time limit of 0.1 s")
    assert "from a worker" in done.stderr and "from a worker" not in done.stdout
    assert len(pids) == 2 and not any(alive(int(pid)) for pid in pids)


def alive(pid: int, seconds: float = 5.0) -> bool:
    """Whether a process is alive after a while."""
    for _ in range(int(seconds / 0.05)):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    return True


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    pytest.importorskip("cloudpickle")
    done = program(
        """
def stuck(theta):
    while True:
        pass

solver = external(stuck, (2,), processes=True, workers=1)
threading.Thread(target=lambda: solver(jnp.zeros(2)), daemon=True).start()
while not (solver.runner._pool and any(w.process for w in solver.runner._pool.workers)):
    time.sleep(0.05)
time.sleep(0.5)
print([w.process.pid for w in solver.runner._pool.workers][0], flush=True)
os.kill(os.getpid(), 9)
""",
        tmp_path,
    )
    assert done.returncode == -9, done.stderr
    assert not alive(int(done.stdout))


def test_devices_of_a_split_cpu(tmp_path):
    done = program(
        """
from diffperturb import MonteCarlo, Normal, Perturbed
from diffperturb.expectation.sharded import Sharded, batched
from jax.sharding import Mesh

solver = external(lambda theta: theta == theta.max(), (3,), name="best")
devices, key = np.array(jax.devices()), jax.random.key(0)
assert len(devices) == 4
thetas = jax.random.normal(key, (8, 3))
operator = lambda t, method: Perturbed(solver, Normal(), 0.5, method)(t, key=key)
shared = lambda: operator(thetas[0], Sharded(MonteCarlo(40), Mesh(devices, ("draws",))))
spread = lambda: jax.jit(batched(lambda t: operator(t, MonteCarlo(40)), Mesh(devices, ("batch",))))(thetas)
for run in (shared, spread):
    try:
        run()
    except TypeError as error:
        print(error)
one = jax.jit(jax.vmap(lambda t: operator(t, MonteCarlo(4000))))(thetas)
print(bool(jnp.allclose(one.sum(axis=1), 1, atol=1e-4)))
""",
        tmp_path,
        XLA_FLAGS="--xla_force_host_platform_device_count=4",
    )
    assert done.returncode == 0, done.stderr
    *refused, sound = done.stdout.splitlines()
    assert len(refused) == 2 and sound == "True"
    for line in refused:
        assert line.startswith(
            "best runs outside of XLA, and the devices of a split CPU would wait there for each other"
        )
