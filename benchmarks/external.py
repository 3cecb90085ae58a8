"""The overhead of perturbing an external solver: time of the operator over time of the solver's own calls.

    python benchmarks/external.py [--out FOLDER] [--repeats 7] [--quick]

The bare loop calls the same function on the same M = 1000 perturbed scores, which were drawn beforehand, and checks
nothing. The operator draws the noise, calls the function through JAX, checks each solution and takes the mean; with
the gradient of <mean, direction> in a second column. "frame" is the operator of a solver that costs nothing, in JAX:
noise and mean alone. All functions alternate in one process, and each number is a ratio of medians.
The folder gets external.json and a table in external.txt.
"""

import argparse
import itertools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from operators import medians
from report import machine, measured, write

import diffperturb as dp
from diffperturb.solvers.external import external

M, D, EPSILON = 1000, 50, 0.5


def batched(rows):
    """The ten best of each row (n, d): NumPy, all rows at once."""
    return rows >= np.partition(rows, -10, axis=1)[:, -10, None]


def batched_program(rows):
    """The best choice without neighbors of each row (n, d): a dynamic program over all rows at once."""
    taken, skipped, chosen = np.zeros(len(rows)), np.zeros(len(rows)), []
    for score in rows.T:
        chosen.append(skipped + score > np.maximum(taken, skipped))
        taken, skipped = skipped + score, np.maximum(taken, skipped)
    y, free = np.zeros_like(rows), np.ones(len(rows), bool)
    for i in range(rows.shape[1] - 1, -1, -1):
        y[:, i] = chosen[i] & free
        free = ~(chosen[i] & free)
    return y


def spin(theta, seconds):
    """The ten best of one row, and plain Python work until the time is up."""
    end = time.perf_counter() + seconds
    y = theta >= np.partition(theta, -10)[-10]
    while time.perf_counter() < end:
        pass
    return y


def spin_50us(theta):
    """A solver of 50 microseconds."""
    return spin(theta, 50e-6)


def spin_1ms(theta):
    """A solver of a millisecond."""
    return spin(theta, 1e-3)


TASKS = {
    "batched top-k": (batched, {"batched": True}),
    "batched program": (batched_program, {"batched": True}),
    "50 us an instance": (spin_50us, {}),
    "1 ms an instance": (spin_1ms, {}),
    "50 us, time limit": (spin_50us, {"time_limit": 10.0}),
    "1 ms, two processes": (spin_1ms, {"workers": 2, "processes": True}),
}


def bare(fn, rows, is_batched):
    """The solver's own calls."""
    return np.mean(fn(rows) if is_batched else [fn(row) for row in rows], axis=0)


def overhead(name: str, repeats: int) -> dict:
    """The operator, forward and with gradient, against the bare loop."""
    fn, options = TASKS[name]
    theta, key = jax.random.normal(jax.random.key(0), (D,)), jax.random.key(1)
    direction = jax.random.normal(jax.random.key(2), (D,))
    p = dp.Perturbed(external(fn, (D,), **options), dp.Normal(), EPSILON, dp.MonteCarlo(M))
    forward = jax.jit(lambda t, key: p(t, key=key))
    gradient = jax.jit(jax.value_and_grad(lambda t, key: jnp.vdot(p(t, key=key), direction)))
    nothing = dp.Perturbed(dp.BinaryChoice(), dp.Normal(), EPSILON, dp.MonteCarlo(M))
    frame = jax.jit(lambda t, key: nothing(t, key=key))
    rows = np.asarray(p.samples(theta, key=key).draws.scores)
    fresh = itertools.count()  # another key each time, as in training
    t = medians(
        {
            "bare": lambda: bare(fn, rows, options.get("batched", False)),
            "frame": lambda: frame(theta, jax.random.key(next(fresh))),
            "forward": lambda: forward(theta, jax.random.key(next(fresh))),
            "gradient": lambda: gradient(theta, jax.random.key(next(fresh))),
        },
        repeats,
    )
    milliseconds = {who: round(1e3 * s, 3) for who, s in t.items()}
    ratios = {"forward_ratio": t["forward"] / t["bare"], "gradient_ratio": t["gradient"] / t["bare"]}
    return {"task": name, **ratios, "milliseconds": milliseconds}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for the report: JSON and table")
    parser.add_argument("--repeats", type=int, default=7, help="counted runs of each function (7)")
    parser.add_argument("--quick", action="store_true", help="without the solvers of a millisecond")
    args = parser.parse_args()
    names = [name for name in TASKS if not (args.quick and "1 ms" in name)]
    parts = {"overhead": lambda: [overhead(name, args.repeats) for name in names]}
    report = measured(machine("jax", "numpy"), parts)
    write(report, "external", args.out)


if __name__ == "__main__":
    main()
