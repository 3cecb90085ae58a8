"""Every notebook runs from top to bottom, and its pictures can be read."""

import gc
import json
import re
from pathlib import Path

import jax
import matplotlib
import nbformat
import pytest
from matplotlib import pyplot as plt
from matplotlib.backend_bases import FigureCanvasBase
from nbdev.test import test_nb as run_notebook

from diffperturb.workbench.figures import figure_faults

ROOT = Path(__file__).resolve().parents[1]


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def code_lines(path: Path) -> int:
    return sum(len(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code")


def notebooks() -> list[Path]:
    """All notebooks, the longest first, so that two processes end together."""
    paths = (path.relative_to(ROOT / "nbs") for path in (ROOT / "nbs").rglob("*.ipynb"))
    paths = [path for path in paths if not any(part[0] in "._" for part in path.parts)]
    return sorted(paths, key=lambda path: -code_lines(ROOT / "nbs" / path))


@pytest.fixture
def figure_report(monkeypatch) -> list[str]:
    """What the figures that are drawn from now on lack."""
    found, draw = [], FigureCanvasBase.print_figure

    def print_figure(canvas, *args, **options):
        found.extend(figure_faults(canvas.figure))
        return draw(canvas, *args, **options)

    monkeypatch.setattr(FigureCanvasBase, "print_figure", print_figure)
    return found


def run(path: Path) -> bool:
    """Whether a notebook runs to its end; its errors are printed, and it leaves no trace in the process."""
    matplotlib.use("agg")
    plt.rcdefaults()
    try:
        return run_notebook(path, skip_flags=["notest"], basepath=ROOT)[0]
    finally:
        plt.close("all")
        plt.rcdefaults()
        jax.clear_caches()
        gc.collect()


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.with_suffix("").as_posix())
def test_notebook(path, monkeypatch, figure_report):
    monkeypatch.setenv("IN_TEST", "1")
    assert run(ROOT / "nbs" / path), "a cell failed: its error is above"
    assert figure_report == []


def test_a_picture_without_labels_is_found(tmp_path, monkeypatch, figure_report):
    monkeypatch.setenv("IN_TEST", "1")
    cells = ["from matplotlib import pyplot as plt", "plt.plot([1, 2], [3, 4]);"]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    nbformat.write(nb, tmp_path / "bare.ipynb")
    assert run(tmp_path / "bare.ipynb")
    assert any("label" in fault for fault in figure_report)


def pictures(path: Path) -> list[str]:
    """The sources of the cells that show a picture."""
    shows = lambda cell: any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
    return ["".join(cell["source"]) for cell in cells(path) if shows(cell)]


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.with_suffix("").as_posix())
def test_pictures_have_a_caption_and_a_text_for_those_who_cannot_see_them(path):
    for source in pictures(ROOT / "nbs" / path):
        for option in ("fig-cap", "fig-alt"):
            assert re.search(rf'^#\|\s*{option}: "?\S.{{15,}}', source, re.M), (
                f"no {option} in the cell\n{source[:300]}"
            )


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.with_suffix("").as_posix())
def test_a_lesson_has_a_form(path):
    """Short cells; a title and a sentence alone in the first one; Markdown that JupyterLab renders too."""
    all_cells = cells(ROOT / "nbs" / path)
    exported = ["".join(c["source"]) for c in all_cells if re.match(r"#\|\s*exporti?\b", "".join(c["source"]))]
    longest = max((len(source.splitlines()) for source in exported), default=0)
    assert longest <= 40, f"an exported cell of {longest} lines: split it below 40"
    if path != Path("index.ipynb"):
        assert re.fullmatch(r"# [^\n]+\n\n> [^\n]+\s*", "".join(all_cells[0]["source"])), (
            "wanted # Title and > sentence"
        )
    for cell in all_cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            assert not re.search(r"^:::|\[@\w", source, re.M), f"only Quarto renders this:\n{source[:200]}"
