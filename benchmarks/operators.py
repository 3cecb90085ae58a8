"""Perturbed operators against optax and jaxopt, in one process: time, squared error of the gradient, memory, growth.

    make bench      or      python benchmarks/operators.py [--out FOLDER] [--repeats 5] [--quick]

Every number is a ratio of medians over alternating runs on the same inputs: batch 32, d = 100, M = 1000,
normal noise at 0.1, float32, unless a row says otherwise. A ratio is peer over diffperturb, with the faster
of the two peers; above 1, diffperturb is faster. The folder gets operators.json, a table in operators.txt, and
pictures (see report.py).
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxopt import perturbations as peer
from report import machine, measured, write

import diffperturb as dp

BATCH, D, M, SIGMA, K = 32, 100, 1000, 0.1, 10

# Each task: our solver, and the same decision as a batched JAX function, as a user of optax would write it.
TASKS = {
    "argmax": (dp.Argmax(), lambda t: jax.nn.one_hot(jnp.argmax(t, -1), t.shape[-1])),
    "ranking": (dp.Ranking(), lambda t: 1.0 + jnp.argsort(jnp.argsort(t, -1), -1)),
    "top-k": (dp.TopK(K), lambda t: jax.nn.one_hot(jax.lax.top_k(t, K)[1], t.shape[-1]).sum(-2)),
}


def medians(functions: dict, repeats: int) -> dict:
    """Median seconds of each function, run in turn; the first call of each (compilation) is not counted."""
    for run in functions.values():
        jax.block_until_ready(run())
    seconds = {name: [] for name in functions}
    for _ in range(repeats):
        for name, run in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(s)) for name, s in seconds.items()}


def ours(solver, method, sigma=SIGMA, noise=None):
    """A batched operator (thetas, key) -> solutions."""
    p = dp.Perturbed(solver, noise or dp.Normal(), sigma, method)
    return lambda t, key: jax.vmap(lambda t, k: p(t, key=k))(t, jax.random.split(key, len(t)))


def of_optax(hard, num_samples=M, sigma=SIGMA, instancewise=True):
    """optax's operator on the same decision; instance by instance, its gradient doesn't mix the batch."""
    make = optax.perturbations.make_perturbed_fun
    f = make(hard, num_samples=num_samples, sigma=sigma, noise=optax.perturbations.Normal())
    if not instancewise:
        return lambda t, key: f(key, t)
    return lambda t, key: jax.vmap(lambda t, k: f(k, t))(t, jax.random.split(key, len(t)))


def of_jaxopt(hard, num_samples=M, sigma=SIGMA):
    """jaxopt's operator on the same decision, with its control variate off, as it comes."""
    make = peer.make_perturbed_argmax
    f = make(hard, num_samples=num_samples, sigma=sigma, noise=peer.Normal())
    return lambda t, key: jax.vmap(lambda t, k: f(t, k))(t, jax.random.split(key, len(t)))


def with_gradient(operator, direction):
    """Value and gradient of <operator(theta), direction>."""
    return jax.jit(jax.value_and_grad(lambda t, key: jnp.sum(operator(t, key) * direction)))


def race(name: str, operator, repeats: int) -> dict:
    """Medians of ours and the peers', forward and with the gradient, all in turn, and the ratios to the faster peer."""
    theta, key = jax.random.normal(jax.random.key(0), (BATCH, D)), jax.random.key(1)
    direction = jax.random.normal(jax.random.key(2), theta.shape)
    _, hard = TASKS[name]
    peers = {
        "optax": of_optax(hard, instancewise=False),
        "optax, vmap": of_optax(hard),
        "jaxopt": of_jaxopt(hard),
    }
    row = {"task": name, "milliseconds": {}}
    for kind, prepare in (("forward", jax.jit), ("gradient", lambda f: with_gradient(f, direction))):
        calls = {who: prepare(f) for who, f in ({"ours": operator} | peers).items()}
        t = medians({who: lambda f=f: f(theta, key) for who, f in calls.items()}, repeats)
        row[f"{kind}_ratio"] = min(t[peer] for peer in peers) / t["ours"]
        row["milliseconds"][kind] = {who: round(1e3 * s, 3) for who, s in t.items()}
    return row


def speed(repeats: int) -> list[dict]:
    """Monte Carlo at equal M, and its overhead over noise and solver alone."""
    theta, key, rows = jax.random.normal(jax.random.key(0), (BATCH, D)), jax.random.key(1), []
    scores = theta[:, None] + SIGMA * jax.random.normal(key, (BATCH, M, D))
    draw = jax.jit(lambda k: jax.vmap(lambda k: dp.Normal().sample(k, (M, D)))(jax.random.split(k, BATCH)))
    for name, (solver, _) in TASKS.items():
        operator, bare = ours(solver, dp.MonteCarlo(M)), jax.jit(jax.vmap(jax.vmap(solver.solve)))
        whole = jax.jit(operator)
        calls = {"ours": lambda f=whole: f(theta, key), "noise": lambda: draw(key), "solver": lambda f=bare: f(scores)}
        t = medians(calls, repeats)
        rows.append(race(name, operator, repeats) | {"overhead": t["ours"] / (t["noise"] + t["solver"])})
    return rows


def exactness(repeats: int) -> list[dict]:
    """Exact forms against the peers at M = 1000: speed, and the error of single against double precision."""
    theta, key, rows = jax.random.normal(jax.random.key(0), (BATCH, D)), jax.random.key(1), []
    for name, (solver, _) in TASKS.items():
        operator = ours(solver, dp.Exact())
        single = jax.jit(operator)(theta, key)
        with jax.enable_x64(True):
            double = np.asarray(jax.jit(operator)(np.asarray(theta, np.float64), key))
        error = float(np.max(np.abs(np.asarray(single, np.float64) - double)))
        rows.append(race(name, operator, repeats) | {"error": error})
    return rows


METHODS = {
    "default": dp.MonteCarlo(1024),
    "regression": dp.MonteCarlo(1024, dp.IID(), dp.Regression()),
    "antithetic, regression": dp.MonteCarlo(1024, dp.Antithetic(), dp.Regression()),
    "Sobol": dp.MonteCarlo(1024, dp.Sobol(4)),
    "Sobol, regression": dp.MonteCarlo(1024, dp.Sobol(4), dp.Regression()),
}
PROBLEMS = {"ranking": (100, 0.5), "top-k": (100, 0.5), "argmax": (10, 0.5)}


def efficiency(repeats: int, keys: int = 24) -> list[dict]:
    """Time x squared error of one vector-Jacobian product at M = 1024, against optax at the same M."""
    rows = []
    for name, (d, sigma) in PROBLEMS.items():
        solver, hard = TASKS[name]
        theta, direction = jax.random.normal(jax.random.key(3), (8, d)), jax.random.normal(jax.random.key(4), (8, d))
        reference = with_gradient(
            ours(solver, dp.MonteCarlo(2**18, dp.Antithetic(), dp.Regression(), 2**13), sigma), direction
        )
        truth = np.mean([np.asarray(reference(theta, jax.random.key(100 + i))[1]) for i in range(2)], axis=0)
        operators = {"optax": of_optax(hard, 1024, sigma), "jaxopt": of_jaxopt(hard, 1024, sigma)} | {
            k: ours(solver, m, sigma) for k, m in METHODS.items()
        }
        functions = {k: with_gradient(f, direction) for k, f in operators.items()}
        seconds = medians({k: lambda f=f: f(theta, jax.random.key(0)) for k, f in functions.items()}, repeats)
        for method, f in functions.items():
            found = np.stack([np.asarray(f(theta, jax.random.key(i))[1]) for i in range(keys)])
            error = float(np.mean(np.sum((found - truth) ** 2, axis=(1, 2))) / np.sum(truth**2))
            rows.append({"task": name, "method": method, "squared_error": error, "seconds": seconds[method]})
        product = {r["method"]: r["squared_error"] * r["seconds"] for r in rows if r["task"] == name}
        for r in rows:
            if r["task"] == name:
                r["gain"] = product["optax"] / product[r["method"]]  # over optax with its y*(theta) baseline
    return rows


def growth(repeats: int, most: int) -> list[dict]:
    """Seconds of ranking with its gradient as M, the batch and d grow, in chunks of 4096 draws."""
    rows = []
    sizes = [("M", m, 1, D) for m in (10, 100, 1000, 10_000, 100_000, 1_000_000) if m <= most]
    sizes += [("batch", 1000, b, D) for b in (1, 4, 16, 64, 256)] + [
        ("d", 1000, 8, d) for d in (10, 30, 100, 300, 1000)
    ]
    for what, m, batch, d in sizes:
        theta = jax.random.normal(jax.random.key(0), (batch, d))
        f = with_gradient(ours(dp.Ranking(), dp.MonteCarlo(m, chunk_size=4096)), theta)
        seconds = medians({"ours": lambda f=f, t=theta: f(t, jax.random.key(1))}, min(repeats, 3))["ours"]
        rows.append({"grows": what, "M": m, "batch": batch, "d": d, "seconds": seconds})
    return rows


PEAK = """
import re, jax, jax.numpy as jnp, diffperturb as dp
from diffperturb import *  # the whole library, which is otherwise imported at first use
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 2**20
jax.block_until_ready(jax.jit(lambda x: x + 1)(jnp.ones(3)))
before = peak()
p = dp.Perturbed(dp.Argmax(), dp.Normal(), 0.1, dp.MonteCarlo({num_samples}, chunk_size=1024))
t = jax.random.normal(jax.random.key(0), ({batch}, {d}))
f = jax.jit(jax.value_and_grad(lambda t, k: jnp.sum(t * jax.vmap(lambda t, k: p(t, key=k))(t, k))))
jax.block_until_ready(f(t, jax.random.split(jax.random.key(1), {batch})))
print(peak() - before)
"""


def memory(most: int) -> list[dict]:
    """GiB above the import at the peak of value and gradient, batch 32, d = 100, in chunks of 1024; own processes."""
    rows = []
    if not sys.platform.startswith("linux"):
        return rows  # the peak is read from /proc
    for num_samples in (m for m in (10_000, 100_000, 1_000_000) if m <= most):
        program = PEAK.format(num_samples=num_samples, batch=BATCH, d=D)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        rows.append({"M": num_samples, "batch": BATCH, "d": D, "GiB": float(done.stdout)})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for the report: JSON, table and pictures")
    parser.add_argument("--repeats", type=int, default=5, help="counted runs of each function (5)")
    parser.add_argument("--quick", action="store_true", help="leave out the largest sizes")
    args = parser.parse_args()
    most = 10**5 if args.quick else 10**6
    parts = {
        "speed at equal M": lambda: speed(args.repeats),
        "exact forms": lambda: exactness(args.repeats),
        "efficiency": lambda: efficiency(args.repeats),
        "memory": lambda: memory(most),
        "growth": lambda: growth(args.repeats, most),
    }
    report = measured(machine("jax", "optax", "jaxopt", "numpy"), parts)
    write(report, "operators", args.out)


if __name__ == "__main__":
    main()
