"""How the benchmarks write what they measured: JSON, a table in text, and pictures.

    python benchmarks/report.py [FOLDER]

draws the tables and pictures of a folder again from its JSON files (benchmarks/results), and times nothing.
"""

import json
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffperturb.evidence.tables import table
from diffperturb.workbench.figures import color, dark, figure_style

COLUMNS = {  # of the table of each part
    "speed at equal M": ["task", "forward_ratio", "gradient_ratio", "overhead", "milliseconds"],
    "exact forms": ["task", "forward_ratio", "gradient_ratio", "error", "milliseconds"],
    "efficiency": ["task", "method", "squared_error", "seconds", "gain"],
    "memory": ["M", "batch", "d", "GiB"],
    "growth": ["grows", "M", "batch", "d", "seconds"],
    "peers": ["task", "peer", "ratio", "milliseconds"],
    "forms": ["problem", "size", "host", "XLA", "best"],
    "overhead": ["task", "forward_ratio", "gradient_ratio", "milliseconds"],
}
TITLES = {"overhead": "time of the operator / time of the solver's own calls, M = 1000, d = 50"}


def machine(*packages: str) -> dict:
    """What a report says about the machine and the versions that it was measured with."""
    import jax

    device = jax.devices()[0]
    return {
        "device": f"{device.platform}: {device.device_kind}",
        "machine": f"{platform.machine()}, {platform.system()}, {len(jax.devices())} device(s)",
        "versions": {name: version(name) for name in (*packages, "diffperturb")},
    }


def measured(report: dict, parts: dict[str, Callable[[], list[dict]]]) -> dict:
    """The report with the rows of each part, which are printed as they come."""
    print(report, flush=True)
    for name, measure in parts.items():
        report[name] = measure()
        print("\n" + text(name, report[name]), flush=True)
    return report


def text(name: str, rows: list[dict]) -> str:
    """The rows of one part as a table under its name."""
    return f"{TITLES.get(name, name)}\n{table(rows, COLUMNS[name], digits=3, widest=None)}"


def write(report: dict, name: str, folder: Path | None) -> None:
    """Write NAME.json, NAME.txt and the pictures of a report; nothing without a folder."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    redraw(report, name, folder)


def redraw(report: dict, name: str, folder: Path) -> None:
    """Write NAME.txt and the pictures of a report."""
    parts = [text(part, report[part]) for part in COLUMNS if part in report]
    (folder / f"{name}.txt").write_text("\n\n".join(parts) + "\n")
    figure_style()
    for picture, draw in PICTURES.get(name, {}).items():
        draw(report).savefig(folder / f"{picture}.png", dpi=120)


# --- pictures

PEERS = ("optax", "optax, vmap", "jaxopt")


def ratio_axis(ax: Axes, label: str) -> None:
    """A logarithmic axis of ratios, with a line where both take the same."""
    ax.set(xscale="log", xlabel=label)
    ax.axvline(1, color="0.4", lw=1, zorder=0)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.margins(x=0.08, y=0.12)


def draw_speed(report: dict) -> Figure:
    """How many times as long each peer takes, at equal M and against exact forms."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    titles = {"speed at equal M": "Monte Carlo, M = 1000 for all", "exact forms": "our exact form, peers at M = 1000"}
    for ax, (part, title) in zip(axes, titles.items(), strict=True):
        rows = [(row, kind) for row in report[part] for kind in ("forward", "gradient")]
        for i, peer in enumerate(PEERS):
            times = [row["milliseconds"][kind] for row, kind in rows]
            ratios = [t[peer] / t["ours"] for t in times]
            ax.plot(ratios, np.arange(len(rows)) + 0.16 * (i - 1), "os^"[i], ms=6, color=color(i), label=peer)
        names = [row["task"] + (", gradient" if kind == "gradient" else "") for row, kind in rows]
        ax.set_yticks(range(len(rows)), names)
        ax.set_title(title)
        ratio_axis(ax, "peer's time / diffperturb's time")
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def draw_efficiency(report: dict) -> Figure:
    """Time x squared error of the gradient, optax over each method."""
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    ax = figure.subplots()
    rows = [row for row in report["efficiency"] if row["method"] != "optax"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    for i, task in enumerate(tasks):
        gains = {row["method"]: row["gain"] for row in rows if row["task"] == task}
        places = np.arange(len(methods)) + 0.16 * (i - 1)
        ax.plot([gains[m] for m in methods], places, "os^"[i % 3], ms=6, color=color(i), label=task)
    ax.set_yticks(range(len(methods)), ["jaxopt" if m == "jaxopt" else f"diffperturb, {m}" for m in methods])
    ax.invert_yaxis()
    ratio_axis(ax, "time × squared error of the gradient: optax / method")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def draw_growth(report: dict) -> Figure:
    """Seconds as the number of draws, the batch and the number of scores grow."""
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    ax = figure.subplots()
    names = {
        "M": "draws M (batch 1, d = 100)",
        "batch": "batch (M = 1000, d = 100)",
        "d": "scores d (M = 1000, batch 8)",
    }
    for i, (what, name) in enumerate(names.items()):
        rows = [row for row in report["growth"] if row["grows"] == what]
        ax.plot([r[what] for r in rows], [r["seconds"] for r in rows], "os^"[i] + "-", ms=5, color=color(i), label=name)
    ax.set(xscale="log", yscale="log", xlabel="size", ylabel="time of ranking with its gradient (s)")
    ax.legend()
    return figure


def draw_peers(report: dict) -> Figure:
    """How many times as long each other library takes to solve the same stack of instances."""
    rows = report["peers"]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    ax = figure.subplots()
    for row in rows:
        at = tasks.index(row["task"])
        ax.plot(row["ratio"], at, "o", ms=7, color=color(0))
        ax.annotate(row["peer"], (row["ratio"], at), (0, 7), textcoords="offset points", ha="center", color=dark(0))
    ax.set_yticks(range(len(tasks)), [task.replace(", ", "\n", 1) for task in tasks])
    ax.set_ylim(len(tasks) - 0.6, -0.7)
    ratio_axis(ax, "other library's time / diffperturb's time")
    return figure


def draw_forms(report: dict) -> Figure:
    """Microseconds per instance on the host and in XLA, by size."""
    problems = list(dict.fromkeys(row["problem"] for row in report["forms"]))
    figure = Figure(figsize=(9.6, 4.8), layout="constrained")
    axes = figure.subplots(2, 4)
    for ax, problem in zip(axes.ravel(), problems, strict=True):
        rows = [row for row in report["forms"] if row["problem"] == problem]
        for i, name in enumerate(("host", "XLA")):
            shown = [row for row in rows if row[name] is not None]
            ax.plot(
                [r["size"] for r in shown], [r[name] for r in shown], "os"[i] + "-", ms=4, color=color(i), label=name
            )
        [unit] = {key for row in rows for key in row} - {"problem", "size", "host", "XLA", "best"}
        ax.set(xscale="log", yscale="log", xlabel=unit)
        ax.set_title(problem, fontsize=9)
        ax.set_xticks([r["size"] for r in rows], [r["size"] for r in rows])
        ax.minorticks_off()
    figure.supylabel("time per instance (µs)", fontsize=10)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


PICTURES = {  # the pictures of each benchmark, by the name of the file
    "operators": {"operators": draw_speed, "operators_efficiency": draw_efficiency, "operators_growth": draw_growth},
    "solvers": {"solvers": draw_peers, "solvers_forms": draw_forms},
}


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("results")
    for path in sorted(folder.glob("*.json")):
        redraw(json.loads(path.read_text()), path.stem, folder)


if __name__ == "__main__":
    main()
