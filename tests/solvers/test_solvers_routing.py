"""Tours against enumeration, the two methods against each other, and against tours that are known or searched for."""

import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import refuses, sized, table

import diffperturb as dp
from diffperturb.solvers.routing import _adjacency, _broken, _held_karp, _tours

METHODS = ("held-karp", "cuts")


@cache
def by(name):
    return jax.jit(jax.vmap(dp.TravelingSalesperson(name)))


def check_tours(y):
    """Symmetric, two ones in each row, in one piece."""
    assert np.all((y == 0) | (y == 1)) and np.array_equal(y, y.transpose(0, 2, 1)) and np.all(y.sum(axis=1) == 2)
    walk = np.linalg.matrix_power(y + np.eye(y.shape[1]), y.shape[1])
    assert np.all(walk > 0) and not np.any(np.diagonal(y, axis1=1, axis2=2))


def values(y, theta):
    return np.sum(np.asarray(y, float) * np.asarray(theta, float), axis=(1, 2))


@table({"5 nodes": 5, "6 nodes": 6}, every={"7 nodes": 7})
def test_both_methods_find_the_best_of_all_tours(row):
    """Half of the scores are small whole numbers with many ties; scores need not be symmetric."""
    n, draw, count = row, np.random.default_rng(row), sized(40, 140)
    theta = np.concatenate([draw.normal(size=(count, n, n)), draw.integers(-2, 3, size=(count, n, n))])
    theta = theta.astype(np.float32)
    tours = np.asarray(dp.TravelingSalesperson().vertices((n, n)))
    best = np.max(theta.reshape(len(theta), -1) @ tours.reshape(len(tours), -1).T, axis=1)
    for name in METHODS:
        y = np.asarray(by(name)(theta))
        check_tours(y)
        np.testing.assert_allclose(values(y, theta), best, rtol=1e-5, atol=1e-5)
    a, b = dp.TravelingSalesperson().hyperplane((n, n))
    assert np.all(np.sum(tours * a, axis=(1, 2)) == b)
    radius = dp.TravelingSalesperson().radius((n, n))
    assert np.allclose(np.linalg.norm(tours.reshape(len(tours), -1), axis=1), radius)


@table({"10 nodes": (10, sized(30, 120))}, every={"13 nodes": (13, 20)})
def test_the_two_methods_agree(row):
    n, count = row
    theta = np.random.default_rng(n).normal(size=(count, n, n)).astype(np.float32)
    tours = [np.asarray(by(name)(theta)) for name in METHODS]
    np.testing.assert_allclose(values(tours[0], theta), values(tours[1], theta), rtol=1e-5)
    assert np.mean(np.all(tours[0] == tours[1], axis=(1, 2))) == 1


def two_opt(w, order):
    """The length of a tour that no exchange of two edges makes shorter."""
    n, better = len(order), True
    while better:
        better = False
        for i, j in itertools.combinations(range(n), 2):
            a, b, c, d = order[i - 1], order[i], order[j], order[(j + 1) % n]
            if a != c and w[a][c] + w[b][d] < w[a][b] + w[c][d] - 1e-9:
                order[i : j + 1] = order[i : j + 1][::-1]
                better = True
    return sum(w[a][b] for a, b in zip(order, np.roll(order, -1), strict=True))


def test_twenty_towns_around_an_ellipse_and_anywhere():
    """In convex position the best tour goes around; for random towns no local search finds a better one."""
    draw, count = np.random.default_rng(0), sized(6, 20)
    angles = draw.uniform(0, 2 * np.pi, size=(count, 20))
    around = np.stack([3 * np.cos(angles), np.sin(angles)], axis=-1)
    towns = np.stack([around, draw.uniform(size=(count, 20, 2))])
    measured = np.linalg.norm(towns[..., None, :] - towns[..., None, :, :], axis=-1)
    shortest = dp.minimize(dp.TravelingSalesperson())
    y = np.asarray(jax.jit(jax.vmap(jax.vmap(shortest)))(measured.astype(np.float32)))
    check_tours(y.reshape(-1, 20, 20))
    for k in range(count):
        order = np.argsort(angles[k])
        assert np.all(y[0, k][order, np.roll(order, -1)] == 1)
    searched = [min(two_opt(w.tolist(), list(draw.permutation(20))) for _ in range(5)) for w in measured[1]]
    found = np.sum(y[1] * measured[1], axis=(1, 2)) / 2
    assert np.all(found <= np.array(searched) + 1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_ties_depend_on_the_scores_alone(name):
    n = sized(6, 7)
    tied = jnp.round(jax.random.normal(jax.random.key(1), (sized(80, 280), n, n)))  # -0 among them
    solve = by(name)
    assert jnp.array_equal(solve(tied), solve(tied + 0.0)) and jnp.array_equal(solve(tied), solve(tied[::-1])[::-1])


def test_held_karp_takes_the_first_node_among_equals():
    y = by("held-karp")(jnp.zeros((sized(80, 280), 5, 5)))[0]
    assert jnp.array_equal(y, _adjacency(jnp.arange(5), float))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_dtype_is_kept_under_strict_promotion(name, dtype):
    with jax.enable_x64(dtype == jnp.float64), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        batch = jax.random.normal(jax.random.key(1), (3, 2, 4, 4), dtype)
        y = jax.block_until_ready(jax.jit(jax.vmap(jax.vmap(dp.TravelingSalesperson(name))))(batch))
        assert y.dtype == dtype and y.shape == batch.shape
        check_tours(np.asarray(y).reshape(-1, 4, 4))


def test_a_square_is_walked_around():
    corner = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    distance = np.linalg.norm(corner[:, None] - corner[None], axis=-1)
    order = _held_karp(jnp.asarray(-2 * distance, jnp.float32))
    assert order.tolist() in ([0, 2, 1, 3], [1, 2, 0, 3])  # not across
    assert np.array_equal(_tours(None, -distance[None])[0], _adjacency(order, float))
    assert len(dp.TravelingSalesperson().vertices((5, 5))) == 12


def test_subtours_are_found():
    two_triangles = np.kron(np.eye(2), 1 - np.eye(3))
    bridged = two_triangles.copy()
    bridged[0, 3] = bridged[3, 0] = 1.0  # connected, but by one edge only
    assert [len(_broken(x)) for x in (two_triangles, bridged)] == [2, 1]
    ring = np.roll(np.eye(6), 1, axis=0)
    assert _broken(ring + ring.T) == []


def test_mean_tours_keep_two_edges_at_every_node():
    n = sized(8, 12)
    towns = jax.random.uniform(jax.random.key(6), (n, 2))
    lengths = jnp.linalg.norm(towns[:, None] - towns[None], axis=-1)

    def mean(epsilon):
        soft = dp.Perturbed(dp.minimize(dp.TravelingSalesperson()), dp.Normal(), epsilon, dp.MonteCarlo(200))
        return soft(lengths, key=jax.random.key(0))

    best = dp.minimize(dp.TravelingSalesperson())(lengths)
    shares = jnp.concatenate([best[None], jax.jit(jax.vmap(mean))(jnp.array([0.05, 0.2]))])
    assert jnp.allclose(jnp.sum(shares, axis=(1, 2)), 2 * n, atol=1e-3) and jnp.allclose(
        jnp.sum(shares, axis=1), 2, atol=1e-4
    )
    held = jnp.sum(shares * shares[0], axis=(1, 2)) / (2 * n)  # how much of the best tour is left
    assert held[0] == 1 and held[1] > held[2]


large = dp.TravelingSalesperson("held-karp")
hasty = jax.jit(jax.vmap(dp.TravelingSalesperson("cuts", time_limit=1e-9)))
REFUSED = {
    "not square": (lambda: dp.TravelingSalesperson()(jnp.zeros((4, 5))), "expected (n, n) with n >= 3"),
    "two nodes": (lambda: dp.TravelingSalesperson()(jnp.zeros((2, 2))), "expected (n, n) with n >= 3"),
    "a batch": (lambda: dp.TravelingSalesperson()(jnp.zeros((3, 4, 4))), "use jax.vmap for a batch"),
    "no such method": (
        lambda: dp.TravelingSalesperson("2-opt")(jnp.zeros((4, 4))),
        "method is '2-opt', expected 'held-karp'",
    ),
    "too many for held-karp": (
        lambda: large(jnp.zeros((17, 17))),
        "from 1 to 16 for method='held-karp': take method='cuts'",
    ),
    "too many to list": (lambda: large.vertices((9, 9)), "from 3 to 8 to list all tours"),
    "infinite": (lambda: dp.TravelingSalesperson()(jnp.full((4, 4), jnp.inf)), "theta[0, 0] is inf"),
    "time limit": (
        lambda: hasty(jax.random.uniform(jax.random.key(0), (1, 12, 12))),
        "TravelingSalesperson: no optimum within the time limit",
    ),
}


@table(REFUSED)
def test_what_tours_refuse(row):
    refuses(*row)
