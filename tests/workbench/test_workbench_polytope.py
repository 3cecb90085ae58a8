"""The record of a perturbed maximizer over a polygon, against the operator itself; refusals; and the figure's moves."""

import io
import math
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from support import refuses, sized

import diffperturb as dp
from diffperturb.workbench import polytope
from diffperturb.workbench.figures import figure_faults, figure_style
from diffperturb.workbench.polytope import (
    CornerDistribution,
    check_polygon,
    describe,
    letter,
    polygon,
    polytope_path,
    polytope_record,
    random_polygon,
    regular_polygon,
)
from diffperturb.workbench.polytope_figure import PolytopePicture, cones, enlargement, polytope_figure, reach

SQUARE = polygon([[1, 1], [-1, -1], [-1, 1], [1, -1], [0, 0.5]])
THETA = jnp.array([0.8, 0.3])


@cache
def key():
    return jax.random.key(0)


@cache
def record():
    return polytope_record(SQUARE, dp.Normal(), THETA, 1.0, key=key())


def test_polygons_have_their_corners_counter_clockwise():
    assert SQUARE.points.tolist() == [[1, 1], [-1, 1], [-1, -1], [1, -1]]
    assert jnp.allclose(regular_polygon(4, math.sqrt(2), math.pi / 4).points, SQUARE.points, atol=1e-6)
    assert all(3 <= len(random_polygon(seed, n).points) <= n for seed in range(20) for n in (3, 6, 12))
    assert jnp.all(random_polygon(3).points == random_polygon(3).points)
    for shape in (SQUARE, regular_polygon(7), random_polygon(5)):
        assert check_polygon(shape) is shape


REFUSED = {
    "on one line": (lambda: polygon([[0, 0], [1, 1], [2, 2]]), "span no polygon; expected at least three"),
    "two points": (lambda: polygon([[0, 0], [1, 1]]), "2 point(s)"),
    "one row": (lambda: polygon([0.0, 1.0]), "points have shape (2,), expected (n, 2)"),
    "nan": (lambda: polygon([[0, 0], [1, 0], [math.nan, 1]]), "the point [nan, 1.0] is not finite"),
    "two corners": (lambda: regular_polygon(2), "n is 2, "),
    "clockwise": (lambda: check_polygon(dp.Vertices(SQUARE.points[::-1])), "use polygon(points)"),
    "three dimensions": (lambda: check_polygon(dp.Vertices(jnp.eye(3))), "of shape (3, 3)"),
    "not a solver": (lambda: check_polygon(jnp.eye(2)), "expected a polygon"),
    "nan in theta": (
        lambda: polytope_record(SQUARE, dp.Normal(), jnp.array([jnp.nan, 0]), key=key()),
        "theta[0] is nan",
    ),
    "no temperature": (lambda: polytope_record(SQUARE, dp.Normal(), THETA, 0.0, key=key()), "epsilon is 0.0"),
    "no samples": (
        lambda: polytope_record(SQUARE, dp.Normal(), THETA, num_samples=0, key=key()),
        "num_samples is 0, ",
    ),
    "three scores": (
        lambda: polytope_record(SQUARE, dp.Normal(), jnp.ones(3), key=key()),
        "theta has shape (3,), ",
    ),
    "no polygon": (
        lambda: polytope_record(dp.Vertices(jnp.eye(3)), dp.Normal(), THETA, key=key()),
        "use polygon(points)",
    ),
    "no key": (lambda: polytope_record(SQUARE, dp.Normal(), THETA, key=None), "needs a key"),
    "odd number on a path": (lambda: polytope_path(SQUARE, dp.Normal(), THETA, key=key(), num_samples=5), "5"),
}


@pytest.mark.parametrize(("call", "words"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused(call, words):
    refuses(call, words, (TypeError, ValueError))


def test_the_covariance_of_a_mean():
    flips = CornerDistribution(np.array([[1.0, 0], [0, 1], [0, 0]]), np.array([30, 70, 0]))
    assert np.allclose(np.sqrt(np.diag(flips.covariance)), (0.3 * 0.7 / 99) ** 0.5)
    assert np.allclose(flips.mean, [0.3, 0.7]) and flips.num_samples == 100


CASES = {
    "one draw": (dp.Normal(), 1),
    "gumbel": (dp.Gumbel(), 10),
    "normal": (dp.Normal(), 1000),
    "centered": (dp.CenteredGumbel(), 100),
    "laplace": (dp.Laplace(), 7),
}


@pytest.mark.parametrize(("noise", "m"), list(CASES.values())[: sized(3, 5)], ids=list(CASES)[: sized(3, 5)])
def test_a_record_is_what_the_operator_says(noise, m):
    r = polytope_record(SQUARE, noise, THETA, 0.7, m, key=key())
    samples = dp.Perturbed(SQUARE, noise, 0.7, dp.MonteCarlo(m)).samples(THETA, key=key())
    assert np.allclose(r.scores, samples.draws.scores[:300], atol=1e-6) and r.counts.sum() == m
    assert np.array_equal(r.points[r.choices], samples.solutions[:300])
    assert np.allclose(r.mean, samples.mean, atol=1e-6)
    assert np.isnan(r.covariance).all() if m == 1 else np.allclose(r.covariance, samples.covariance, atol=1e-6)


def test_no_number_that_moves_compiles_anything():
    polytope_record(SQUARE, dp.Normal(), THETA, num_samples=100_000, key=key())
    polytope_record(SQUARE, dp.Normal(), THETA, num_samples=1000, key=key())
    before = polytope._corner_distribution._cache_size(), polytope._path._cache_size()
    for epsilon, m in ((0.01, 1), (0.3, 10_000), (100.0, 20_000)):
        polytope_record(SQUARE, dp.Normal(), epsilon * THETA, epsilon, m, key=jax.random.key(m))
    assert (polytope._corner_distribution._cache_size(), polytope._path._cache_size()) == before


def test_the_path_ends_where_theory_says():
    r = record()
    assert np.array_equal(r.path[0], r.solution) and np.allclose(r.path[-1], 0, atol=1e-6)
    at_one = np.argmin(np.abs(np.log(r.temperatures[:-1])))
    assert np.all(np.abs(r.path[at_one] - r.mean) < 0.2)
    again = polytope_record(SQUARE, dp.Normal(), THETA, 5.0, 7, key=key(), path=r.path)
    assert np.array_equal(again.path, r.path)


def test_letters():
    assert [letter(i) for i in (0, 25, 26, 52)] == ["A", "Z", "A1", "A2"]


# --- the figure


def test_every_direction_in_a_cone_chooses_its_corner():
    for shape in (SQUARE, regular_polygon(6), random_polygon(1), polygon([[0, 0], [1, 0], [0, 1]])):
        first, middle, last = np.moveaxis(cones(np.asarray(shape.points)), 1, 0)
        for near in (0.99 * first + 0.01 * middle, middle, 0.99 * last + 0.01 * middle):
            assert np.allclose(jax.vmap(shape)(jnp.asarray(near, float)), shape.points)


def test_the_frame_holds_the_scores():
    assert all(reach(replace(record(), epsilon=e)) >= 0.8 + 2.5 * e for e in np.geomspace(1e-3, 1e3, 50))


def test_an_ellipse_is_enlarged_until_it_can_be_seen():
    times = [enlargement(replace(record(), counts=record().counts * n)) for n in (1, 10, 100, 10_000)]
    assert times == sorted(times) and times[0] >= 1 and times[-1] <= 1000
    assert enlargement(replace(record(), counts=np.array([5, 0, 0, 0]))) == 1


def made_up(shape, noise, theta, epsilon, m, seed=0):
    """A record over a polygon from NumPy's generator: for pictures, any will do, and nothing is compiled."""
    rng, points = np.random.default_rng(seed), np.asarray(shape.points)
    scores = np.asarray(theta) + epsilon * rng.normal(size=(m, 2))
    choices = np.argmax(scores @ points.T, axis=1)
    counts = np.bincount(choices, minlength=len(points))
    solution, shown = points[np.argmax(points @ np.asarray(theta))], slice(300)
    temperatures = polytope.TEMPERATURES
    path = solution * np.exp(-np.minimum(temperatures, 1e3))[:, None]
    facts = {"epsilon": epsilon, "noise": noise, "theta": np.asarray(theta), "solution": solution, "path": path}
    arrays = {"points": points, "counts": counts, "scores": scores[shown], "choices": choices[shown]}
    return polytope.PolytopeRecord(**facts, **arrays, temperatures=temperatures)


def test_a_moved_picture_is_the_same_as_a_new_one():
    """To the last pixel, across polygons, frames and noises, and after a vector graphic of the same figure."""
    base = made_up(SQUARE, "Normal", [0.8, 0.3], 1.0, 1000)
    others = [
        made_up(regular_polygon(6), "Gumbel", [1.2, -0.4], 0.3, 100_000),
        made_up(random_polygon(2), "Laplace", [-0.5, 1.0], 3.0, 10),
        made_up(SQUARE, "Logistic", [0.0, 0.0], 0.01, 1),
        made_up(SQUARE, "Normal", [3.0, 3.0], 0.01, 100),
        base,
    ]
    picture = PolytopePicture(base)
    for other in others:
        assert picture.update(other).png() == PolytopePicture(other).png()
        picture.figure.savefig(io.BytesIO())
        assert picture.png() == PolytopePicture(other).png()
    assert "± unknown" in describe(others[2])


def test_a_picture_is_the_same_in_every_style():
    record = made_up(SQUARE, "Normal", [0.8, 0.3], 1.0, 1000)
    before = PolytopePicture(record).png()
    with matplotlib.rc_context():
        figure_style()
        assert PolytopePicture(record).png() == before


def test_a_figure_for_a_paper():
    buffer = io.BytesIO()
    polytope_figure(made_up(SQUARE, "Normal", [0.8, 0.3], 1.0, 100)).savefig(buffer, format="pdf")
    assert buffer.getvalue().startswith(b"%PDF")
    assert figure_faults(polytope_figure(made_up(SQUARE, "Normal", [0.8, 0.3], 1.0, 100))) == []


def test_a_record_in_words():
    words = describe(record())
    assert words.startswith("θ = (0.80, 0.30), ε = 1, M = 1,000, Normal noise. Maximizer: (")
    assert words.endswith("Limits of the path: (1.000, 1.000) and (0.000, 0.000).")
