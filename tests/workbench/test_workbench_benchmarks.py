"""The stored benchmarks: tables and pictures are made from their JSON alone, and a reader misses nothing in them."""

import importlib.util
import json

import matplotlib
import pytest

from diffperturb.workbench.figures import figure_faults


@pytest.fixture(scope="module")
def report(root):
    spec = importlib.util.spec_from_file_location("benchmark_report", root / "benchmarks" / "report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context():
        yield


@pytest.mark.parametrize("name", ["operators", "solvers", "external"])
def test_a_stored_report_is_drawn_again(root, report, name, tmp_path):
    stored = root / "benchmarks" / "results"
    measured = json.loads((stored / f"{name}.json").read_text())
    report.write(measured, name, tmp_path)
    for kind in ("json", "txt"):
        assert (tmp_path / f"{name}.{kind}").read_text() == (stored / f"{name}.{kind}").read_text()
    pictures = report.PICTURES.get(name, {})
    assert {path.stem for path in tmp_path.glob("*.png")} == set(pictures)
    assert all((stored / f"{picture}.png").exists() for picture in pictures)
    for draw in pictures.values():
        assert figure_faults(draw(measured)) == []


def test_nothing_is_written_without_a_folder(report):
    report.write({}, "operators", None)
