"""Perturbed operators against optax, in one process: time, squared error of the gradient, growth.

    python benchmarks/operators.py [--out FILE.json] [--repeats 5] [--quick]

Every figure is a ratio of medians over alternating runs on the same inputs: batch 32, d = 100, M = 1000,
normal noise at 0.1, float32, unless a row says otherwise. Above 1, diffperturb is faster.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

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


def theirs(hard, num_samples=M, sigma=SIGMA):
    """optax's operator on the same decision, instance by instance as well (on a whole batch its gradient mixes them)."""
    make = optax.perturbations.make_perturbed_fun
    f = make(hard, num_samples=num_samples, sigma=sigma, noise=optax.perturbations.Normal())
    return lambda t, key: jax.vmap(lambda t, k: f(k, t))(t, jax.random.split(key, len(t)))


def with_gradient(operator, direction):
    """Value and gradient of <operator(theta), direction>."""
    return jax.jit(jax.value_and_grad(lambda t, key: jnp.sum(operator(t, key) * direction)))


def speed(repeats: int) -> list[dict]:
    """Forward and forward with gradient, at equal M, and the bare solver on drawn noise."""
    theta, key = jax.random.normal(jax.random.key(0), (BATCH, D)), jax.random.key(1)
    direction, rows = jax.random.normal(jax.random.key(2), theta.shape), []
    scores = theta[:, None] + SIGMA * jax.random.normal(key, (BATCH, M, D))
    for name, (solver, hard) in TASKS.items():
        a, b = ours(solver, dp.MonteCarlo(M)), theirs(hard)
        forward, grads = [jax.jit(f) for f in (a, b)], [with_gradient(f, direction) for f in (a, b)]
        draw = jax.jit(lambda k: jax.vmap(lambda k: dp.Normal().sample(k, (M, D)))(jax.random.split(k, BATCH)))
        bare = jax.jit(jax.vmap(jax.vmap(solver.solve)))
        t = medians(
            {
                "ours": lambda f=forward[0]: f(theta, key),
                "optax": lambda f=forward[1]: f(theta, key),
                "ours, gradient": lambda f=grads[0]: f(theta, key),
                "optax, gradient": lambda f=grads[1]: f(theta, key),
                "noise": lambda: draw(key),
                "solver": lambda: bare(scores),
            },
            repeats,
        )
        rows.append(
            {
                "task": name,
                "forward_ratio": t["optax"] / t["ours"],
                "gradient_ratio": t["optax, gradient"] / t["ours, gradient"],
                "overhead": t["ours"] / (t["noise"] + t["solver"]),
                "milliseconds": {k: round(1e3 * v, 2) for k, v in t.items()},
            }
        )
    return rows


def exactness(repeats: int) -> list[dict]:
    """Exact forms against optax at M = 1000: speed, and the error against double precision."""
    theta, key = jax.random.normal(jax.random.key(0), (BATCH, D)), jax.random.key(1)
    direction, rows = jax.random.normal(jax.random.key(2), theta.shape), []
    for name, (solver, hard) in TASKS.items():
        try:
            dp.Perturbed(solver, dp.Normal(), SIGMA, dp.Exact())(theta[0])
        except TypeError:
            continue  # no exact form
        a, b = ours(solver, dp.Exact()), theirs(hard)
        single = jax.jit(a)(theta, key)
        with jax.enable_x64(True):
            double = jax.jit(ours(solver, dp.Exact()))(np.asarray(theta, np.float64), key)
            error = float(np.max(np.abs(np.asarray(single, np.float64) - np.asarray(double))))
        fa, fb, ga, gb = jax.jit(a), jax.jit(b), with_gradient(a, direction), with_gradient(b, direction)
        t = medians({"ours": lambda: fa(theta, key), "optax": lambda: fb(theta, key)}, repeats)
        g = medians({"ours": lambda: ga(theta, key), "optax": lambda: gb(theta, key)}, repeats)
        rows.append(
            {
                "task": name,
                "forward_ratio": t["optax"] / t["ours"],
                "gradient_ratio": g["optax"] / g["ours"],
                "error": error,
                "milliseconds": {"ours": 1e3 * t["ours"], "ours, gradient": 1e3 * g["ours"]},
            }
        )
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
        operators = {"optax": theirs(hard, 1024, sigma)} | {k: ours(solver, m, sigma) for k, m in METHODS.items()}
        functions = {k: with_gradient(f, direction) for k, f in operators.items()}
        seconds = medians({k: lambda f=f: f(theta, jax.random.key(0)) for k, f in functions.items()}, repeats)
        for method, f in functions.items():
            found = np.stack([np.asarray(f(theta, jax.random.key(i))[1]) for i in range(keys)])
            error = float(np.mean(np.sum((found - truth) ** 2, axis=(1, 2))) / np.sum(truth**2))
            rows.append({"task": name, "method": method, "squared_error": error, "seconds": seconds[method]})
        product = {r["method"]: r["squared_error"] * r["seconds"] for r in rows if r["task"] == name}
        for r in rows:
            if r["task"] == name:
                r["gain"] = product["optax"] / product[r["method"]]
    return rows


def growth(repeats: int, most: int) -> list[dict]:
    """Seconds of ranking with its gradient as M, the batch and d grow, in chunks of 4096 draws."""
    rows = []
    sizes = [("M", m, 1, D) for m in (10, 100, 1000, 10_000, 100_000, 1_000_000) if m <= most]
    sizes += [("batch", 1000, b, D) for b in (1, 4, 16, 64)] + [("d", 1000, 8, d) for d in (10, 30, 100, 300)]
    for what, m, batch, d in sizes:
        theta = jax.random.normal(jax.random.key(0), (batch, d))
        f = with_gradient(ours(dp.Ranking(), dp.MonteCarlo(m, chunk_size=4096)), theta)
        seconds = medians({"ours": lambda f=f, t=theta: f(t, jax.random.key(1))}, min(repeats, 3))["ours"]
        rows.append({"grows": what, "M": m, "batch": batch, "d": d, "seconds": seconds})
    return rows


def table(title: str, rows: list[dict], columns: list[str]) -> str:
    """Rows as text, one line each."""
    show = lambda v: f"{v:.3g}" if isinstance(v, float) else str(v)
    cells = [columns, *[[show(r[c]) for c in columns] for r in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = ["  ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([f"\n{title}", *lines])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    parser.add_argument("--repeats", type=int, default=5, help="counted runs of each function (5)")
    parser.add_argument("--quick", action="store_true", help="leave out the largest sizes")
    args = parser.parse_args()
    device = jax.devices()[0]
    report = {
        "device": f"{device.platform}: {device.device_kind}",
        "machine": f"{platform.machine()}, {platform.system()}",
        "versions": {"jax": jax.__version__, "optax": optax.__version__, "diffperturb": dp.__version__},
    }
    print(report)
    for name, rows, columns in (
        (
            "speed at equal M",
            speed(args.repeats),
            ["task", "forward_ratio", "gradient_ratio", "overhead", "milliseconds"],
        ),
        ("exact forms", exactness(args.repeats), ["task", "forward_ratio", "gradient_ratio", "error", "milliseconds"]),
        (
            "time x squared error of the gradient",
            efficiency(args.repeats),
            ["task", "method", "squared_error", "seconds", "gain"],
        ),
        ("growth", growth(args.repeats, 10**5 if args.quick else 10**6), ["grows", "M", "batch", "d", "seconds"]),
    ):
        report[name] = rows
        print(table(name, rows, columns), flush=True)
    if args.out:
        args.out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
