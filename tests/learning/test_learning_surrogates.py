"""Surrogate layers: what they return backward, against finite differences, expectations and enumeration."""

import itertools
from collections import defaultdict
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import refuses, table

from diffperturb.foundations.pytrees import pytree_dataclass
from diffperturb.foundations.solver import Vertices, inner, minimize
from diffperturb.learning.projections import Plane, Sphere
from diffperturb.learning.surrogates import (
    IMLE,
    AdaptiveLam,
    Blackbox,
    Identity,
    SPOPlus,
    StraightThrough,
    Surrogate,
    decision_regret,
    loss_optimal_target,
    pid_target,
    symmetric_target,
)
from diffperturb.noise.distributions import Gumbel, Normal
from diffperturb.noise.without_density import SumOfGamma, TwoPoint
from diffperturb.solvers.graph_paths import ShortestPath
from diffperturb.solvers.graphs import Graph
from diffperturb.solvers.networks import SpanningTree
from diffperturb.solvers.selection import Argmax, BinaryChoice, Ranking, Sorting, TopK

THETA, G = jnp.array([1.0, 0.8, -0.5, 0.2]), jnp.array([1.0, -1.0, 0.0, 0.5])
TRUTH, KEY = jnp.array([0.2, 1.0, 0.9, -0.3]), jax.random.key(0)


def backward(layer, theta=THETA, g=G, key=None):
    """The gradient that a layer sends to theta when g arrives from above."""
    return jax.grad(lambda theta: inner(g, layer(theta, key=key)))(theta)


LAYERS = {
    "identity": lambda s: Identity(s, (Plane(), Sphere()), TwoPoint(), 0.3),
    "I-MLE symmetric": lambda s: IMLE(s, Sphere(), Gumbel(), lam=0.5, target=symmetric_target),
}
MORE_LAYERS = {
    "blackbox": lambda s: Blackbox(s, (Plane(), Sphere()), lam=1.5),
    "I-MLE": lambda s: IMLE(s, noise=Gumbel(), lam=2.0),
    "straight-through": lambda s: StraightThrough(s, relaxation=jax.nn.sigmoid, noise=Normal(), sigma=0.1),
}


def test_a_layer_must_define_decide():
    with pytest.raises(TypeError, match="abstract.*decide"):
        Surrogate(TopK(2))

    @pytree_dataclass
    class Doubled(Surrogate):
        def decide(self, scores):
            return self.solver.fixed_oracle.solve(jax.lax.stop_gradient(scores)) + 2 * (
                scores - jax.lax.stop_gradient(scores)
            )

    layer = Doubled(minimize(TopK(2)), noise=Normal(), sigma=0.01)
    assert layer(-THETA, key=KEY).tolist() == [1, 1, 0, 0]
    assert jnp.all(backward(layer, -THETA, key=KEY) == -2 * G)


def test_identity_passes_the_gradient_in_both_modes():
    y, pull = jax.vjp(Identity(TopK(2)), THETA)
    assert y.tolist() == [1, 1, 0, 0] and jnp.all(pull(G)[0] == G)
    assert jnp.all(backward(Identity(minimize(TopK(2))), -THETA) == -G)
    assert jnp.all(jax.jvp(Identity(TopK(2)), (THETA,), (G,))[1] == G)
    projected = backward(Identity(TopK(2), (Plane(), Sphere())))
    assert abs(jnp.sum(projected)) < 1e-6 and abs(inner(projected, THETA)) < 1e-6


def first_change(points, theta, g):
    """Linearized losses: now, after the first change along theta - t g, and the lowest; and the t of that change."""
    values, losses = points @ theta, points @ g
    now = jnp.argmax(values)
    better = losses < losses[now] - 1e-9  # only these gain on the present solution
    times = jnp.where(better, (values[now] - values) / jnp.where(better, losses[now] - losses, 1.0), jnp.inf)
    t = jnp.min(times)
    after = jnp.argmin(times)
    return losses[now], jnp.where(jnp.isfinite(t), losses[after], losses[now]), jnp.min(losses), t


def theorem_1(key):
    """One random polytope: several steps of Identity without a change, then one across the boundary."""
    a, b, c, d = jax.random.split(key, 4)
    used = jnp.where(jnp.arange(8)[:, None] < jax.random.randint(d, (), 1, 9), 1, 0)
    points = jax.random.normal(a, (8, 3)) * used
    theta, g = jax.random.normal(b, (3,)), jax.random.normal(c, (3,))
    now, after, lowest, t = first_change(points, theta, g)
    layer = Identity(Vertices(points))
    step = jnp.where(jnp.isfinite(t), t, 1.0) / 3.5

    def move(theta, _):
        y, pull = jax.vjp(layer, theta)
        return theta - step * pull(g)[0], inner(y, g)

    return now, after, lowest, jnp.isfinite(t), jax.lax.scan(move, theta, length=8)[1]


def test_identity_never_gets_stuck_on_1000_polytopes():
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 1000)
        now, after, lowest, exists, seen = map(np.asarray, jax.jit(jax.vmap(theorem_1))(keys))
    apart = np.abs(seen - now[:, None]) > 1e-9
    changed = np.argmax(apart, axis=1)
    first = np.take_along_axis(seen, changed[:, None], axis=1)[:, 0]
    assert np.sum(np.where(exists, first >= now, apart.any(axis=1))) == 0
    assert np.all(exists == (lowest < now - 1e-9)) and 50 < exists.sum() < 950
    assert np.all(changed[exists] == 4)  # exactly when the line crosses the boundary


@table(
    {"top-k": TopK(2), "costs of ranks": minimize(Ranking())},
    {"argmax": Argmax(), "ranking": Ranking(), "binary choice": BinaryChoice()},
)
def test_blackbox_is_the_gradient_of_its_interpolation(row):
    with jax.enable_x64(True):

        def both(t, lam):
            def interpolation(t):
                s = row.sign * t
                maximum = lambda s: inner(row.oracle.solve(s), s)
                return (maximum(s) - maximum(s - lam * G)) / lam

            differences = jax.vmap(lambda e: (interpolation(t + e) - interpolation(t - e)) / 2e-6)(1e-6 * jnp.eye(4))
            return backward(lambda t, key: Blackbox(row, lam=lam)(t), t), differences

        batch = jax.random.normal(jax.random.key(3), (50, 4))
        slopes, differences = jax.jit(jax.vmap(jax.vmap(both, (None, 0)), (0, None)))(batch, jnp.array([0.3, 3.0]))
        assert jnp.allclose(slopes, differences, atol=1e-6) and jnp.any(slopes != 0)


def test_blackbox_and_identity_agree_toward_a_neighbor():
    y, neighbor = TopK(2)(THETA), jnp.array([1.0, 0.0, 0.0, 1.0])
    toward = (y - neighbor) / 2  # eta = 2
    smallest = 2 * inner(y - neighbor, THETA) / inner(y - neighbor, y - neighbor)
    below, above = (backward(Blackbox(TopK(2), lam=factor * smallest), g=toward) for factor in (0.999, 1.001))
    identity = backward(Identity(TopK(2)), g=toward)
    assert jnp.all(below == 0) and jnp.allclose(above, 2 / (1.001 * smallest) * identity, rtol=1e-6)


@table(
    {
        "pid": (pid_target, lambda p, g: (p(THETA) - p(THETA - 2 * g)) / 2),
        "symmetric": (symmetric_target, lambda p, g: (p(THETA + 2 * g) - p(THETA - 2 * g)) / 4),
        "loss-optimal": (loss_optimal_target, lambda p, g: (p(THETA) - Argmax()(-g)) / 2),
    }
)
def test_imle_is_right_on_average(row):
    target, expectation = row
    layer, g = IMLE(Argmax(), noise=Gumbel(), lam=2.0, target=target), G
    draws = jax.jit(jax.vmap(lambda k: backward(layer, key=k)))(jax.random.split(KEY, 10_000))
    off = jnp.abs(jnp.mean(draws, axis=0) - expectation(jax.nn.softmax, g))
    assert jnp.all(off < 5 * jnp.std(draws, axis=0) / 10_000**0.5 + 1e-7)
    whole = backward(replace(layer, divide=False), key=KEY)
    assert jnp.all(whole == 2 * backward(layer, key=KEY))


def test_adaptive_lam_finds_its_size():
    layer, history = IMLE(TopK(2), noise=Gumbel(), lam=AdaptiveLam(alpha=0.01, step=0.01, goal=2.0)), []
    thetas = jax.random.normal(jax.random.key(4), (64, 10))
    gs = 0.001 * jax.random.normal(jax.random.key(5), (64, 10))

    @jax.jit
    def gradients_of(layer, key):
        return jax.vmap(lambda t, g, k: backward(layer, t, g, k))(thetas, gs, jax.random.split(key, 64))

    for k in jax.random.split(jax.random.key(6), 150):
        gradients = gradients_of(layer, k)
        layer = replace(layer, lam=layer.lam.update(gradients))
        history.append(float(jnp.sum(gradients != 0) / 64))
    assert history[0] < 0.5 and abs(np.mean(history[-50:]) - 2) < 0.3


def test_straight_through_differentiates_the_relaxation():
    layer = StraightThrough(Argmax(), noise=Gumbel(), relaxation=lambda s: jax.nn.softmax(s / 0.5))
    y, slope = layer(THETA, key=KEY), backward(layer, key=KEY)
    noisy = THETA + Gumbel().sample(KEY, THETA.shape, THETA.dtype)
    assert y.tolist() == jax.nn.one_hot(jnp.argmax(noisy), 4).tolist()
    assert jnp.allclose(slope, jax.grad(lambda t: inner(G, jax.nn.softmax(t / 0.5)))(noisy), atol=1e-6)
    known = jax.jvp(StraightThrough(BinaryChoice()), (THETA,), (G,))[1]
    assert jnp.allclose(known, jax.jvp(jax.nn.sigmoid, (THETA,), (G,))[1])


@table({"top-k": TopK(2), "costs": minimize(TopK(2))}, {"argmax": Argmax(), "ranking": Ranking()})
def test_spo_plus_bounds_the_regret(row):
    batch = jax.random.normal(jax.random.key(7), (200, 2, 4))
    values, slopes = jax.jit(jax.vmap(lambda b: jax.value_and_grad(SPOPlus(row))(b[0], b[1])))(batch)
    lost = jax.vmap(lambda b: decision_regret(row, b[0], b[1]))(batch)
    assert jnp.all(values >= lost - 1e-5) and jnp.all(lost >= -1e-6)
    ahead, best = (jax.vmap(row)(x) for x in (2 * batch[:, 0] - batch[:, 1], batch[:, 1]))
    assert jnp.allclose(slopes, row.sign * 2 * (ahead - best))
    assert jnp.allclose(jax.vmap(SPOPlus(row))(batch[:, 1], batch[:, 1]), 0, atol=1e-5)  # right scores cost nothing


@table(LAYERS, MORE_LAYERS)
def test_scores_and_costs_learn_the_same(row):
    """To the last bit, operation by operation; a compiler that fuses them rounds the two sides in its own ways."""
    batch = jax.random.normal(jax.random.key(8), (50, 4))
    run = lambda layer, t: jax.value_and_grad(lambda t: inner(G, layer(t, key=KEY)))(t)
    over = jax.vmap(run, (None, 0))
    (a, slopes), (b, opposite) = over(row(TopK(2)), batch), over(row(minimize(TopK(2))), -batch)
    assert jnp.all(a == b) and jnp.all(slopes == -opposite)


@table(LAYERS, MORE_LAYERS)
def test_strict_types_and_ranks(row):
    for dtype in (jnp.float32, jnp.float64):
        strict = jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise")
        with jax.enable_x64(dtype == jnp.float64), strict[0], strict[1]:
            batch = jax.random.normal(jax.random.key(1), (7, 4), dtype)
            push = jnp.ones(4, dtype).at[0].set(-2)
            run = lambda layer, t, push=push: jax.value_and_grad(lambda t: inner(push, layer(t, key=KEY)))(t)
            values, slopes = jax.jit(jax.vmap(run, (None, 0)))(row(TopK(2)), batch)
            assert values.dtype == slopes.dtype == dtype and slopes.shape == (7, 4)


def test_subsets_and_permutations_as_latent_variables():
    scores, few = jnp.array([2.0, 1.0, 0.0, 0.0, -1.0]), jnp.array([2.0, 1.0, 0.0])
    latent = Identity(TopK(3), (Plane(), Sphere()), SumOfGamma(k=3, tau=1.0))
    subsets = jax.jit(jax.vmap(lambda k: latent(scores, key=k)))(jax.random.split(KEY, 500))
    keys = jax.random.split(jax.random.key(9), 1000)
    orders = jax.jit(jax.vmap(lambda k: Identity(Ranking(), noise=Gumbel())(few, key=k)))(keys)
    assert jnp.all(jnp.sum(subsets, axis=1) == 3) and jnp.all(jnp.sort(orders, axis=1) == jnp.array([1.0, 2, 3]))
    first = jnp.mean((orders[:, 0] == 3).astype(float))  # Plackett-Luce: the largest is first with its softmax
    p = jax.nn.softmax(few)[0]
    assert abs(first - p) < 5 * (p * (1 - p) / len(keys)) ** 0.5


def observed(layer, theta, num=10_000):
    """How often each structure was sampled, by its set of ones."""
    drawn = jax.jit(jax.vmap(lambda k: layer(theta, key=k)))(jax.random.split(KEY, num))
    found, counts = np.unique(np.asarray(drawn), axis=0, return_counts=True)
    return {frozenset(np.flatnonzero(y).tolist()): count / num for y, count in zip(found, counts, strict=True)}


ENDS = list(itertools.combinations(range(4), 2))
WEIGHTS = np.array([1.0, 0.5, -0.5, 0.0, 0.8, -1.0])


def distribution_of_trees(taken=(), parts=(0, 1, 2, 3)):
    """The probability of each spanning tree of four nodes under Gumbel noise (Paulus et al. 2020).

    The next edge is one of those that join two parts, with probability in proportion to exp(weight).
    """
    if len(taken) == 3:
        return {frozenset(taken): 1.0}
    joins = [e for e, (i, j) in enumerate(ENDS) if parts[i] != parts[j]]
    share, found = np.exp(WEIGHTS[joins]) / np.exp(WEIGHTS[joins]).sum(), defaultdict(float)
    for e, p in zip(joins, share, strict=True):
        i, j = (parts[node] for node in ENDS[e])
        for tree, rest in distribution_of_trees((*taken, e), tuple(i if q == j else q for q in parts)).items():
            found[tree] += p * rest
    return found


def test_spanning_trees_as_latent_variables():
    trees, graph = distribution_of_trees(), Graph(*np.array(ENDS).T, 4, directed=False)
    share = observed(Identity(SpanningTree(graph), noise=Gumbel()), jnp.asarray(WEIGHTS, jnp.float32))
    assert len(trees) == 16 and abs(sum(trees.values()) - 1) < 1e-12 and set(share) <= set(trees)
    for tree, p in trees.items():
        assert abs(share.get(tree, 0) - p) < 5 * (p * (1 - p) / 10_000) ** 0.5


def lattice():
    """A 3 x 3 grid with arcs to the right and down: the solver, its six paths as vertices, and scores."""
    arcs = [(n, n + step) for n in range(9) for step in (1, 3) if (n % 3 < 2 if step == 1 else n < 6)]
    routes = itertools.combinations(range(4), 2)
    nodes = [np.cumsum([0, *(1 if step in right else 3 for step in range(4))]) for right in routes]
    paths = np.array([[arc in list(itertools.pairwise(way)) for arc in arcs] for way in nodes], np.float32)
    route = ShortestPath(Graph(*np.array(arcs).T, 9), 0, 8)
    return route, paths, jax.random.normal(jax.random.key(11), (len(arcs),))


def test_paths_as_latent_variables():
    route, paths, scores = lattice()
    assert len(paths) == 6 and np.all(paths.sum(axis=1) == 4)
    wish = jnp.zeros(paths.shape[1]).at[3].set(-1.0)
    layer = IMLE(route, noise=Gumbel(), lam=0.5, target=symmetric_target)
    keys = jax.random.split(KEY, 10_000)
    mean = jnp.mean(jax.jit(jax.vmap(lambda k: backward(layer, scores, wish, k)))(keys), axis=0)
    exact = jax.grad(lambda t: jnp.dot(jax.nn.softmax(paths @ t), paths @ wish))(scores)
    assert jnp.vdot(mean, exact) / jnp.linalg.norm(mean) / jnp.linalg.norm(exact) > 0.95


@table({"Gumbel": Gumbel()}, {"sum of gamma": SumOfGamma(k=4)})
def test_sampled_paths_are_near_the_gibbs_distribution(row):
    route, paths, scores = lattice()
    gibbs = np.asarray(jax.nn.softmax(paths @ scores))
    share = observed(Identity(route, noise=row), scores)
    found = [share.get(frozenset(np.flatnonzero(y).tolist()), 0) for y in paths]
    assert abs(sum(found) - 1) < 1e-9  # nothing but paths
    assert np.abs(np.array(found) - gibbs).sum() / 2 < 0.2  # no noise that is independent per edge is exact


SQUARE = jnp.array([[1.0, 1], [-1, 1], [-1, -1], [1, -1]])


def through_jit(lam):
    return jax.jit(lambda lam: backward(Blackbox(TopK(2), lam=lam)))(jnp.array(lam))


def twice(layer):
    return jax.hessian(lambda t: jnp.sum(layer(t) ** 2))(THETA)


def by_points(make):
    return jax.grad(lambda points: make(Vertices(points))(THETA[:2]).sum())(SQUARE)


REFUSALS = {
    "lam is zero": (lambda: Blackbox(TopK(2), lam=0.0), "lam is 0.0"),
    "lam under jit": (lambda: through_jit(-1.0), "lam is -1.0"),
    "lam of I-MLE": (lambda: IMLE(TopK(2), noise=Gumbel(), lam=-1.0), "lam is -1.0"),
    "I-MLE without noise": (lambda: IMLE(TopK(2), lam=1.0), "IMLE() samples, and needs noise"),
    "target": (lambda: IMLE(TopK(2), noise=Gumbel(), target="left"), "target is 'left'"),
    "no maximizer": (lambda: Identity(Sorting()), "Identity is not made for it"),
    "no key": (lambda: Identity(TopK(2), noise=Normal())(THETA), "needs a key"),
    "sigma": (lambda: Identity(TopK(2), sigma=-1.0), "sigma is -1.0"),
    "sphere at zero": (lambda: Identity(TopK(2), Sphere())(jnp.zeros(4)), "no direction"),
    "plane": (lambda: Identity(BinaryChoice(), Plane())(THETA), "BinaryChoice states no hyperplane"),
    "NaN": (lambda: Identity(TopK(2))(jnp.array([1.0, jnp.nan, 0.0])), "theta[1] is nan"),
    "batch": (lambda: Identity(TopK(2))(jnp.zeros((3, 4))), "use jax.vmap for a batch"),
    "relaxation": (lambda: StraightThrough(TopK(2))(THETA), "no relaxation of TopK is known"),
    "SPO+, shapes": (lambda: SPOPlus(TopK(2))(THETA, TRUTH[:3]), "theta has shape (3,)"),
    "SPO+, no maximizer": (lambda: SPOPlus(Sorting()), "SPO+ has no meaning for it"),
    "derivative in lam": (
        lambda: jax.grad(lambda lam: Blackbox(TopK(2), lam=lam)(THETA).sum())(1.0),
        "the derivative in lam was asked for",
    ),
    "second derivative": (lambda: twice(Blackbox(TopK(2))), "a second derivative of a layer whose gradient is a"),
    "points, identity": (lambda: by_points(Identity), "the numbers that Vertices holds"),
    "points, blackbox": (lambda: by_points(Blackbox), "the numbers that Vertices holds"),
    "points, straight-through": (
        lambda: by_points(lambda s: StraightThrough(s, relaxation=jnp.tanh)),
        "the numbers that Vertices holds",
    ),
}


@table(REFUSALS)
def test_refusals(row):
    refuses(*row)
