"""`figure_faults` finds what a picture lacks, and nothing in sound pictures; PNG files; the comparison of methods."""

import io
from dataclasses import dataclass

import matplotlib
import numpy as np
import pytest
from PIL import Image

from diffperturb.workbench.figures import COLORS, color, dark, efficiency_figure, encode, figure_faults, figure_style

matplotlib.use("Agg")
from matplotlib import pyplot as plt


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context():
        figure_style()
        yield
    plt.close("all")


def labeled(ax, x="epoch", y="accuracy (%)"):
    ax.set(xlabel=x, ylabel=y)
    return ax


def lines(ax, n=2, **kwargs):
    return [ax.plot([0, 1], [i, i + 1], color=color(i), label=f"method {i}", **kwargs)[0] for i in range(n)]


def one_line():
    figure, ax = plt.subplots()
    lines(labeled(ax), 1)
    return figure


def with_legend():
    figure, ax = plt.subplots()
    lines(labeled(ax), 3)
    ax.legend()
    return figure


def with_figure_legend():
    figure, axes = plt.subplots(1, 2)
    for ax in axes:
        lines(labeled(ax))
    figure.legend(["one", "two"], loc="outside upper center")
    return figure


def with_names():
    figure, ax = plt.subplots()
    for i, line in enumerate(lines(labeled(ax))):
        ax.annotate(line.get_label(), (1, i + 1), color=dark(i))
    return figure


def shared_axes():
    figure, axes = plt.subplots(2, 3, sharex=True, sharey=True)
    for ax in axes.flat:
        ax.plot([0, 1], [0, 1])
    for ax in axes[-1]:
        ax.set_xlabel("epoch")
    for ax in axes[:, 0]:
        ax.set_ylabel("loss (nats)")
    return figure


def labels_of_the_figure():
    figure, axes = plt.subplots(2, 2)
    for ax in axes.flat:
        ax.plot([0, 1], [0, 1])
    figure.supxlabel("epoch")
    figure.supylabel("loss (nats)")
    return figure


def image_without_ticks():
    figure, ax = plt.subplots()
    ax.imshow(np.eye(3))
    ax.set(xticks=[], yticks=[])
    return figure


def image_without_frame():
    figure, axes = plt.subplots(1, 3)
    for ax in axes:
        ax.imshow(np.eye(3))
        ax.axis("off")
    return figure


def colorbar_with_label():
    figure, ax = plt.subplots()
    figure.colorbar(ax.imshow(np.eye(3)), label="probability")
    ax.set(xticks=[], yticks=[])
    return figure


def words_on_an_axis():
    figure, ax = plt.subplots()
    ax.barh(["top-k", "ranking"], [3, 2])
    ax.set_xlabel("ratio of times")
    return figure


def reference_line():
    figure, ax = plt.subplots()
    lines(labeled(ax), 1)
    ax.axhline(0.5, color="0.5", ls=":")
    return figure


def hidden_axes():
    figure, axes = plt.subplots(1, 2)
    lines(labeled(axes[0]), 1)
    axes[1].set_visible(False)
    return figure


def logarithmic():
    figure, ax = plt.subplots()
    ax.loglog([1, 1000], [1, 1e-3])
    labeled(ax, "draws M", "squared error")
    return figure


def polar():
    figure, ax = plt.subplots(subplot_kw={"projection": "polar"})
    ax.plot([0, 1], [1, 1])
    return figure


def subfigures():
    figure = plt.figure()
    for part in figure.subfigures(1, 2):
        lines(labeled(part.subplots()))
        part.legend(["one", "two"])
    return figure


GOOD = [one_line, with_legend, with_figure_legend, with_names, shared_axes, labels_of_the_figure]
GOOD += [image_without_ticks, image_without_frame, colorbar_with_label, words_on_an_axis, reference_line]
GOOD += [hidden_axes, logarithmic, polar, subfigures]


@pytest.mark.parametrize("make", GOOD)
def test_a_sound_figure_has_no_fault(make):
    assert figure_faults(make()) == []


def no_x_label():
    figure, ax = plt.subplots()
    lines(ax, 1)
    ax.set_ylabel("loss (nats)")
    return figure


def no_y_label():
    figure, ax = plt.subplots()
    lines(ax, 1)
    ax.set_xlabel("epoch")
    return figure


def blank_label():
    figure = one_line()
    figure.axes[0].set_xlabel("  ")
    return figure


def no_key():
    figure, ax = plt.subplots()
    lines(labeled(ax), 3)
    return figure


def no_key_for_marks():
    figure, ax = plt.subplots()
    lines(labeled(ax), 3, ls="", marker="o")
    return figure


def too_few_names():
    figure = no_key()
    figure.axes[0].text(0, 0, "a note")
    return figure


def empty_names():
    figure = no_key()
    for _ in range(3):
        figure.axes[0].text(0, 0, "")
    return figure


def empty_legend():
    figure = no_key()
    figure.axes[0].legend([], [])
    return figure


def second_column_without_label():
    figure, axes = plt.subplots(1, 2)
    for ax in axes:
        ax.plot([0, 1], [0, 1])
    labeled(axes[0])
    return figure


def logarithmic_without_label():
    figure = logarithmic()
    figure.axes[0].set_xlabel("")
    return figure


def image_with_ticks():
    figure, ax = plt.subplots()
    ax.imshow(np.eye(3))
    return figure


def colorbar_without_label():
    figure, ax = plt.subplots()
    figure.colorbar(ax.imshow(np.eye(3)))
    ax.set(xticks=[], yticks=[])
    return figure


def inset_without_label():
    figure = one_line()
    figure.axes[0].inset_axes([0.6, 0.1, 0.3, 0.3]).plot([0, 1], [0, 1])
    return figure


def twin_without_label():
    figure = one_line()
    figure.axes[0].twinx().plot([0, 1], [10, 20])
    return figure


BAD = {
    no_x_label: ["axes 0: the x axis has no label"],
    no_y_label: ["axes 0: the y axis has no label"],
    blank_label: ["axes 0: the x axis has no label"],
    no_key: ["axes 0: lines of 3 colors without a legend or names beside them"],
    no_key_for_marks: ["axes 0: lines of 3 colors without a legend or names beside them"],
    too_few_names: ["axes 0: lines of 3 colors without a legend or names beside them"],
    empty_names: ["axes 0: lines of 3 colors without a legend or names beside them"],
    empty_legend: ["axes 0: lines of 3 colors without a legend or names beside them"],
    second_column_without_label: ["axes 1: the x axis has no label"],
    logarithmic_without_label: ["axes 0: the x axis has no label"],
    image_with_ticks: ["axes 0: the x axis has no label", "axes 0: the y axis has no label"],
    colorbar_without_label: ["axes 1: the color bar has no label"],
    inset_without_label: ["axes 1: the x axis has no label", "axes 1: the y axis has no label"],
    twin_without_label: ["axes 1: the y axis has no label"],
}


@pytest.mark.parametrize("make", BAD)
def test_a_fault_is_found(make):
    assert figure_faults(make()) == BAD[make]


def test_a_figure_that_was_drawn_has_the_same_faults():
    for make in (with_legend, logarithmic, no_key, logarithmic_without_label):
        figure = make()
        before = figure_faults(figure)
        figure.canvas.draw()
        assert figure_faults(figure) == before


@pytest.mark.parametrize("shape", [(7, 5, 4), (1, 1, 3), (30, 40, 3)])
@pytest.mark.parametrize("level", [0, 3, 9])
def test_png_files_hold_the_pixels(shape, level):
    pixels = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    decoded = Image.open(io.BytesIO(encode(pixels, level)))
    assert np.array_equal(decoded, pixels[..., :3]) and decoded.mode == "RGB"


def test_text_is_dark_enough_to_read():
    """The contrast that WCAG asks of bold text, 3 to 1, against white."""
    for i in range(len(COLORS)):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in dark(i)]
        luminance = np.dot(linear, [0.2126, 0.7152, 0.0722])
        assert 1.05 / (luminance + 0.05) >= 3
    assert color(len(COLORS)) == color(0)


@dataclass(frozen=True)
class Row:
    name: str
    seconds: float
    gradient_error: float
    gradient_error_se: float = 0.0


@dataclass(frozen=True)
class Rows:
    rows: tuple


def test_the_comparison_names_every_method():
    rows = (Row("Sobol | regression", 2e-3, 1e-3, 1e-4), Row("IID | score, zero", 1e-3, 1e-1, 1e-2))
    figure = efficiency_figure(Rows(rows), "two methods")
    assert [text.get_text() for text in figure.axes[0].texts] == ["Sobol (best)", "IID"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["regression", "score, zero"]
    assert figure.legends[0].get_title().get_text() == "two methods" and figure_faults(figure) == []


def test_names_of_near_methods_do_not_overlap():
    kinds = ("regression", "score, leave-one-out", "score, zero")
    rows = [
        Row(f"{s} | {kind}", 1e-3 * (1 + i / 50), 1e-3 * (1 + j / 20))
        for i, s in enumerate(("IID", "Antithetic", "Orthogonal", "Sobol"))
        for j, kind in enumerate(kinds)
    ]
    figure = efficiency_figure(Rows(tuple(rows)))
    figure.canvas = matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
    figure.canvas.draw()
    boxes = sorted(
        (text.get_window_extent().y0, text.get_window_extent().y1) for text in figure.axes[0].texts if text.get_text()
    )
    heights = [matplotlib.text.Text.get_window_extent(text) for text in figure.axes[0].texts]
    centers = sorted((box.y0 + box.y1) / 2 for box in heights)
    assert len(boxes) == 12 and len(set(np.round(centers, 1))) == 12
