"""Controls and explorers without a browser: every control moves the picture, every error is shown and goes away."""

import numpy as np
import pytest
from support import refuses, sized
from traitlets import TraitError

from diffperturb.workbench.explorers import (
    Explorer,
    Seed,
    Text,
    choice,
    only_for,
    parse_points,
    polytope_explorer,
    power_slider,
    slider,
)
from diffperturb.workbench.figures import encode


def test_a_slider_over_powers_of_ten():
    m = power_slider("M", 0, 5, 1000)
    m.index += 1
    assert m.value == 10_000 and [v for _, v in m.options] == [1, 10, 100, 1000, 10_000, 100_000]
    refuses(lambda: power_slider("M", 0, 5, 7), "Invalid selection", TraitError)


def test_a_seed_is_typed_or_counted_up():
    seed = Seed("seed", "new draws")
    seed.children[1].click()
    seed.children[1].click()
    assert seed.value == 2 == seed.children[0].value
    seed.value = 7
    assert seed.children[0].value == 7


def test_a_control_for_one_choice_only():
    kind, corners = choice("shape", ["square", "own"], "square"), Text("0 0, 1 0, 0 1")
    assert only_for(corners, kind, "own").layout.display == "none"
    kind.value = "own"
    assert corners.layout.display is None


def test_points_in_text():
    assert parse_points("0 0, 1 0; -0.5 2e-1,") == [[0, 0], [1, 0], [-0.5, 0.2]]
    for text, words in (
        ("0 0, 1 x", "could not convert string to float: 'x': expected two numbers"),
        ("0 0, 1, 2 2", "'1' is not a point"),
        ("", "'' is not a point"),
    ):
        refuses(lambda text=text: parse_points(text), words, ValueError)


def bar(width, height):
    gray = np.full((int(height), int(6 * width), 3), 200 // int(height), np.uint8)
    return encode(gray), f"{width:.0f} by {height:.0f}"


def test_an_explorer_shows_its_faults_and_recovers():
    tiny = Explorer({"width": slider("width", 1, 9, 3, step=1), "height": slider("height", 0, 9, 4, step=1)}, bar)
    before = tiny.picture.value
    tiny.controls["width"].value = 5
    assert tiny.picture.value != before and "5 by 4" in tiny.readout.value and tiny.fault is None
    last = tiny.picture.value
    tiny.controls["height"].value = 0
    assert isinstance(tiny.fault, ZeroDivisionError) and 'role="alert"' in tiny.error.value
    assert tiny.picture.value == last
    tiny.controls["height"].value = 2
    assert tiny.fault is None and tiny.error.value == ""
    assert sorted(tiny._repr_mimebundle_()) == ["application/vnd.jupyter.widget-view+json", "image/png", "text/plain"]


def test_a_fault_in_the_first_picture_is_raised():
    controls = {"width": slider("width", 0, 1, 0)}
    refuses(lambda: Explorer(controls, lambda width: 1 / width), "division by zero", ZeroDivisionError)


@pytest.fixture(scope="module")
def explorer():
    return polytope_explorer()


def moved(explorer, name, value) -> bool:
    """Whether setting a control changes the picture."""
    before = explorer.picture.value
    explorer.controls[name].value = value
    assert explorer.fault is None, explorer.fault
    return explorer.picture.value != before


def test_every_control_moves_the_picture(explorer):
    for name, value in (("theta_1", 1.5), ("theta_2", -1.0), ("epsilon", 0.3)):
        assert moved(explorer, name, value)
    assert moved(explorer, "num_samples", 1) and "± unknown" in explorer.readout.value
    assert moved(explorer, "num_samples", 100_000) and moved(explorer, "seed", 1)
    assert moved(explorer, "num_samples", 1000)
    noises = ("Gumbel", "CenteredGumbel", "Laplace", "Logistic")[: sized(1, 4)]
    assert all(moved(explorer, "noise", name) for name in (*noises, "Normal"))
    assert moved(explorer, "polytope", "hexagon") and moved(explorer, "polytope", "random")
    assert moved(explorer, "shape", 1)
    assert moved(explorer, "polytope", "your own") and moved(explorer, "corners", "0 0, 1 0, 0 1")
    assert not moved(explorer, "shape", 2)  # hidden, and without effect


def test_wrong_corners_leave_the_last_picture(explorer):
    explorer.controls["polytope"].value = "your own"
    explorer.controls["corners"].value = "0 0, 1 0, 0 1"
    good = explorer.picture.value
    for corners, complaint in (
        ("0 0, 1 1", "2 point(s) [[0.0, 0.0], [1.0, 1.0]] span no polygon"),
        ("0 0, 1 0, 2 0", "expected at least three that are not on one line"),
        ("0 0, 1 0, 0 nan", "is not finite"),
        ("0 0, 1 0, a b", "could not convert string to float"),
        ("", "'' is not a point"),
    ):
        explorer.controls["corners"].value = corners
        assert complaint in str(explorer.fault) and explorer.picture.value == good, explorer.fault
    explorer.controls["corners"].value = "0 0, 1 0, 0 1"
    assert explorer.fault is None and explorer.error.value == "" and explorer.picture.value == good
