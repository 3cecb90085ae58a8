"""Wrong input is never silent in the losses and layers: a sentence where a plausible number stood, or the right number."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import refuses, table

import diffperturb as dp
from diffperturb.learning import AdaptiveLam, decision_regret, informed_margin, perturbed_scores, symmetric_target
from diffperturb.learning.task_losses import LinearLoss, hamming

THETA, G, KEY = jnp.array([1.0, 0.8, -0.5, 0.2]), jnp.array([1.0, -1.0, 0.0, 0.5]), jax.random.key(0)
LABEL = jnp.array([0.0, 1.0, 1.0, 0.0])


def backward(layer, g=G, theta=THETA):
    """The gradient that a layer sends to theta when g arrives from above."""
    return jax.grad(lambda theta: dp.inner(g, layer(theta, key=KEY)))(theta)


DIFFERENCES = {
    "blackbox": dp.Blackbox(dp.TopK(2), lam=2.0),
    "blackbox, both sides": dp.Blackbox(dp.minimize(dp.TopK(2)), side="both"),
    "I-MLE": dp.IMLE(dp.TopK(2), noise=dp.Gumbel(), lam=AdaptiveLam()),
    "I-MLE, symmetric": dp.IMLE(dp.TopK(2), noise=dp.Gumbel(), target=symmetric_target),
}


@table(DIFFERENCES)
def test_a_gradient_from_above_that_is_not_finite_is_refused(row):
    one, bad = partial(backward, row), G.at[1].set(jnp.nan)
    refuses(lambda: one(bad), "arrives from above is nan at [1] (1 of 4 entries", ValueError)
    refuses(lambda: jax.jit(one)(G.at[3].set(jnp.inf)), "arrives from above is inf at [3]")
    refuses(lambda: jax.jit(jax.vmap(one))(jnp.stack([G, bad])), "is nan at [1] (1 of 4 entries are not finite)")
    assert jnp.all(jnp.isfinite(jax.jit(one)(G)))


@table({"identity": dp.Identity(dp.TopK(2)), "straight-through": dp.StraightThrough(dp.Argmax())})
def test_other_layers_pass_nan_on(row):
    assert jnp.isnan(backward(row, G.at[1].set(jnp.nan))).any()


def test_the_size_of_the_gradient_does_not_matter_to_an_adaptive_push():
    layer = dp.Blackbox(dp.TopK(2), lam=AdaptiveLam(4.0))
    sizes = jnp.array([1e-30, 1e-10, 1.0, 1e10, 1e30])
    found = jax.jit(jax.vmap(lambda size: backward(layer, size * G)))(sizes)
    assert jnp.any(found[2] != 0) and jnp.allclose(found / sizes[:, None], found[2][None], rtol=1e-5)


def test_a_path_learns_in_the_headline_example():
    """12 x 12 grids of costs, the Hamming loss, `Blackbox` over the solver as it comes."""
    layer = dp.Blackbox(dp.minimize(dp.GridPath()), lam=20.0)
    costs = jax.random.uniform(jax.random.key(1), (3, 12, 12), minval=0.5, maxval=2.0)
    wanted = jax.vmap(dp.minimize(dp.GridPath()))(costs[::-1])

    def lost(costs, wanted):
        return hamming(wanted)(layer(costs))

    slopes = jax.jit(jax.vmap(jax.grad(lost)))(costs, wanted)
    y, solver = jax.vmap(layer)(costs), jax.vmap(dp.minimize(dp.GridPath()))
    clipped = solver(jnp.maximum(costs + 20 * (1 - 2 * wanted), 0))
    assert jnp.all(slopes == (clipped - y) / 20) and jnp.all(jnp.any(slopes[::2] != 0, axis=(1, 2)))
    moved = costs[0]
    for _ in range(40):
        moved = jnp.maximum(moved - 2 * jax.grad(lost)(moved, wanted[0]), 0.01)
    assert lost(moved, wanted[0]) < lost(costs[0], wanted[0])
    refuses(lambda: layer(-costs[0]), "costs are below zero")  # what the layer itself is given is still refused


def test_an_undirected_path_survives_a_push_and_a_directed_one_keeps_its_signs():
    edges = jnp.array([[0, 0, 1, 2], [1, 2, 3, 3]])
    costs, wanted = jnp.array([1.0, 2.0, 1.0, 2.0]), jnp.array([0.0, 1.0, 0.0, 1.0])
    for directed in (False, True):
        path = dp.minimize(dp.ShortestPath(dp.solvers.Graph(*edges, 4, directed=directed), 0, 3))
        slope = jax.grad(lambda c, path=path: hamming(wanted)(dp.Blackbox(path, lam=4.0)(c)))(costs)
        assert jnp.all(slope == (wanted - jnp.array([1.0, 0.0, 1.0, 0.0])) / 4)


@pytest.mark.parametrize("side", ["lower", "upper", "both"])
def test_each_side_is_the_gradient_of_its_interpolation(side):
    with jax.enable_x64(True):
        points = dp.Ranking().vertices((4,)).astype(float)
        thetas, g = jax.random.normal(jax.random.key(3), (30, 4)), jnp.asarray(np.asarray(G), float)
        best = lambda s: jnp.max(points @ s)  # by enumeration
        lower = lambda s: (best(s) - best(s - 0.7 * g)) / 0.7
        upper = lambda s: (best(s + 0.7 * g) - best(s)) / 0.7
        mean = lambda s: (lower(s) + upper(s)) / 2
        f = {"lower": lower, "upper": upper, "both": mean}[side]
        differences = lambda s: jax.vmap(lambda e: (f(s + e) - f(s - e)) / 2e-6)(1e-6 * jnp.eye(4))
        truth = jax.jit(jax.vmap(differences))(thetas)
        layer = dp.Blackbox(dp.Ranking(), lam=0.7, side=side)
        found = jax.jit(jax.vmap(lambda t: backward(layer, g, t)))(thetas)
        assert jnp.allclose(found, truth, atol=1e-6) and jnp.any(found != 0)


EXACT = {
    "argmax": (dp.Argmax(), dp.Gumbel(), 1e5, jnp.array([1.0, 0, 0, 0])),
    "top-k": (dp.TopK(2), dp.Normal(), 1e5, jnp.array([1.0, 1, 0, 0])),
    "ranking": (dp.Ranking(), dp.Normal(), 1e4, jnp.array([4.0, 3, 1, 2])),
}


@table(EXACT)
def test_the_exact_loss_is_never_below_zero_by_rounding(row):
    solver, noise, size, y = row
    loss = dp.FenchelYoungLoss(dp.Perturbed(solver, noise, 0.1, dp.Exact()))
    thetas = size * (1 + THETA[None] + 0.01 * jax.random.normal(KEY, (200, 4)))
    lost, slopes = jax.jit(jax.vmap(jax.value_and_grad(lambda t: loss(t, y))))(thetas)
    regret = lambda t: dp.exact.form(solver, noise).maximum(t, jnp.float32(0.1)) - dp.inner(y, t + 0.1 * noise.mean)
    raw = jax.jit(jax.vmap(regret))(thetas)
    assert jnp.min(lost) >= 0 and jnp.all(lost <= jnp.maximum(raw, 0))
    assert jnp.min(raw) < 0 or isinstance(noise, dp.Gumbel)  # the softmax has no such rounding
    assert jnp.allclose(slopes, jax.vmap(loss.perturbed)(thetas) - y, atol=1e-6)  # rounding has no gradient


def test_a_hamming_loss_of_a_stack_has_a_constant_for_each_label():
    labels = jnp.array([[1.0, 1, 1, 0], [1.0, 0, 0, 0]])
    stacked, each = hamming(labels), jax.vmap(hamming)(labels)
    found = [jax.vmap(lambda loss, y: loss(y))(loss, labels[::-1]) for loss in (stacked, each)]
    assert found[0].tolist() == found[1].tolist() == [2.0, 2.0]
    direct = jax.vmap(lambda loss: dp.DirectLoss(dp.BinaryChoice())(THETA, loss, sigma=0))(stacked)
    assert direct.tolist() == [float(jnp.sum(jnp.abs((THETA > 0) - y))) for y in labels]


RANKS = jnp.array([4.0, 4.0, 1.0, 1.0])  # has the sum of a ranking, and is none


# The same solutions, from a solver that states no membership test: only what was solved can prove a label wrong.
LISTED = dp.Vertices(dp.Ranking().vertices((4,)).astype(float))


def direct_loss(y, theta=THETA, solver=None):
    return dp.DirectLoss(solver or dp.Ranking(), dp.Normal())(theta, LinearLoss(G, 0.0, y), key=KEY)


def fit(observations, solver=None, **options):
    model = dp.Perturbed(solver or dp.Ranking(), dp.Normal(), method=dp.MonteCarlo(300))
    return dp.estimate(model, observations, key=KEY, **options)


def margin(y=LABEL, alpha=0.5):
    return informed_margin(dp.TopK(2), THETA, y, alpha)


def push(lam):
    return backward(dp.Blackbox(dp.TopK(2), lam=lam))


def on_plane(normal):
    return dp.Plane(normal)(THETA, dp.Argmax())


SEEN = jax.vmap(dp.Ranking())(jax.random.normal(KEY, (40, 4)))
LABELS = {
    "direct": (lambda: direct_loss(RANKS), "is not in the polytope of Ranking"),
    "direct, by its solves": (
        lambda: direct_loss(RANKS, solver=LISTED),
        "is not in the polytope of Vertices: at scores that were solved",
    ),
    "direct, compiled": (lambda: jax.jit(jax.grad(direct_loss, 1))(RANKS, THETA), "is not in the polytope of Ranking"),
    "direct, in a batch": (lambda: jax.vmap(direct_loss)(jnp.stack([SEEN[0], RANKS])), "not in the polytope"),
    "observation": (lambda: fit(SEEN.at[7].set(RANKS)), "the label [4. 4. 1. 1.] is not in the polytope of Ranking"),
    "observation, by its dual point": (
        lambda: fit(SEEN.at[7].set(RANKS), solver=LISTED),
        "observation 7, [4. 4. 1. 1.], is outside the polytope",
    ),
    "observation off the plane": (lambda: fit(SEEN.at[7].set(1.0)), "not in the polytope of Ranking"),
    "margin": (lambda: margin(jnp.ones(4)), "not in the polytope of TopK"),
    "margin of NaN": (lambda: margin(alpha=jnp.nan), "alpha is nan, expected a finite margin >= 0"),
    "margin below 0": (lambda: jax.jit(lambda a: margin(alpha=a))(-1.0), "alpha is -1.0"),
    "margins": (lambda: margin(alpha=jnp.ones(4)), "alpha has shape (4,)"),
    "loss of a batch": (lambda: hamming(LABEL)(jnp.zeros((3, 4))), "y has shape (3, 4), expected (4,)"),
    "constants": (lambda: LinearLoss(THETA, jnp.ones(3))(LABEL), "a constant of shape (3,)"),
}
DERIVATIVES = {
    "regret": (lambda: jax.grad(partial(decision_regret, dp.TopK(2)))(THETA, G), "of decision_regret in theta"),
    "regret, points": (
        lambda: jax.grad(lambda p: decision_regret(dp.Vertices(p), THETA, G))(jnp.eye(4)),
        "the numbers that Vertices holds",
    ),
    "alpha": (lambda: jax.grad(lambda a: push(AdaptiveLam(a)).sum())(1.0), "the derivative in lam was asked for"),
    "update": (lambda: jax.grad(lambda g: AdaptiveLam().update(g).alpha)(G[None]), "AdaptiveLam.update"),
    "update, average": (
        lambda: jax.grad(lambda a: AdaptiveLam(1.0, a).update(G[None]).alpha)(0.5),
        "AdaptiveLam.update",
    ),
}
NUMBERS = {
    "alpha": (lambda: AdaptiveLam(float("nan")), "alpha is nan"),
    "alpha is 0": (lambda: AdaptiveLam(0.0), "alpha is 0.0"),
    "alpha, compiled": (lambda: jax.jit(lambda a: push(AdaptiveLam(a)))(jnp.nan), "alpha is nan"),
    "alphas": (lambda: push(AdaptiveLam(jnp.ones(3))), "alpha has shape (3,)"),
    "goal": (lambda: AdaptiveLam(goal=0.0), "goal is 0.0"),
    "step": (lambda: AdaptiveLam(step=-1.0), "step is -1.0"),
    "decay": (lambda: AdaptiveLam(decay=1.0), "decay is 1.0, expected a number from 0 to below 1.0"),
    "average": (lambda: AdaptiveLam(average=float("nan")), "average is nan"),
    "one gradient": (lambda: AdaptiveLam().update(G), "gradients have shape (4,), expected (n, *event shape)"),
    "gradients": (lambda: AdaptiveLam().update(G[None] * jnp.nan), "gradients[0, 0] is nan"),
    "push": (lambda: backward(dp.Blackbox(dp.TopK(2), lam=3e38), 2 * G), "leaves the range of float32"),
    "side": (lambda: dp.Blackbox(dp.TopK(2), side="left"), "side is 'left', expected one of 'lower', 'upper', 'both'"),
    "prior": (lambda: fit(SEEN, prior_weight=jnp.array(jnp.nan)), "prior_weight is nan"),
    "prior below 0": (lambda: fit(SEEN, prior_weight=-1.0), "prior_weight is -1.0"),
    "priors": (lambda: fit(SEEN, prior_weight=jnp.ones(4)), "prior_weight has shape (4,)"),
    "normal": (lambda: on_plane(jnp.full(4, jnp.nan)), "the normal is [nan nan nan nan], expected finite numbers"),
    "no normal": (lambda: jax.jit(on_plane)(jnp.zeros(4)), "the normal is [0. 0. 0. 0.]"),
    "shape of the normal": (lambda: on_plane(jnp.ones(3)), "the normal has shape (3,), expected (4,)"),
    "projection": (
        lambda: dp.Identity(dp.TopK(2), (lambda t: t / 0,))(THETA),
        "theta after noise and projections[0] is inf",
    ),
    "sigma": (
        lambda: perturbed_scores(THETA, dp.TopK(2), (), dp.Normal(), jnp.array(-1.0), KEY),
        "sigma is -1.0, expected a finite number >= 0",
    ),
    "sigmas": (
        lambda: perturbed_scores(THETA, dp.TopK(2), (), dp.Normal(), jnp.ones((3, 1)), KEY),
        "sigma has shape (3, 1)",
    ),
    "SPO+": (lambda: dp.SPOPlus(dp.TopK(2))(2e38 * THETA, THETA), "2 theta - truth[0] is inf"),
    "direct, pushed too far": (
        lambda: jax.grad(dp.DirectLoss(dp.TopK(2), loss_scale=3e38))(3e38 * THETA, LinearLoss(THETA), sigma=0),
        "the noisy or pushed scores leave the range",
    ),
}


@table(LABELS)
def test_labels_outside_are_refused(row):
    refuses(*row)


@table(DERIVATIVES)
def test_derivatives_that_would_be_zero_are_refused(row):
    refuses(*row, TypeError)


@table(NUMBERS)
def test_numbers_that_make_no_sense_are_refused(row):
    refuses(*row)


def test_labels_inside_pass():
    assert jnp.isfinite(direct_loss(SEEN[0])) and jnp.isfinite(direct_loss(jnp.full(4, 2.5)))
    found, weighted = fit(SEEN), jax.jit(lambda w: fit(SEEN, prior_weight=w).theta)(0.5)
    assert jnp.all(jnp.isfinite(found.std_error)) and jnp.sum(weighted**2) < jnp.sum(found.theta**2)


def test_the_derivative_of_the_regret_in_the_true_scores_stays():
    truth = jax.grad(lambda t: decision_regret(dp.TopK(2), THETA, t))(THETA[::-1])
    assert truth.tolist() == (dp.TopK(2)(THETA[::-1]) - dp.TopK(2)(THETA)).tolist()


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_normals_of_any_size(size):
    assert jnp.allclose(on_plane(size * jnp.ones(4)), on_plane(None), atol=1e-6)


def test_every_loss_takes_a_key():
    p = dp.Perturbed(dp.TopK(2), dp.Normal(), 1.0, dp.MonteCarlo(4))
    losses = (dp.FenchelYoungLoss(p), LABEL), (dp.DirectLoss(dp.TopK(2)), hamming(LABEL)), (dp.SPOPlus(dp.TopK(2)), G)
    assert all(jnp.isfinite(loss(THETA, target, key=KEY)) for loss, target in losses)
    assert dp.SPOPlus(dp.TopK(2))(THETA, G) == dp.SPOPlus(dp.TopK(2))(THETA, G, key=KEY)


def relaxed(kind, options, theta, temperature):
    layer = kind(temperature, **options)
    return layer(theta), jax.grad(lambda t, s: jnp.sum(jnp.sin(kind(s, **options)(t))), (0, 1))(theta, temperature)


SORTS = {
    "NeuralSort": (dp.NeuralSort, {}),
    "SoftSort": (dp.SoftSort, {}),
    "SoftSort, squares": (dp.SoftSort, {"power": 2.0}),
    "SoftSort, cubes": (dp.SoftSort, {"power": 3.0}),
}


@table(SORTS)
def test_soft_permutations_of_scores_of_any_size(row):
    kind, options = row
    sizes = [1e-3, 1.0, 1e20, 1e35, 1e37, 3e38]
    for temperature in (0.1, 1.0, 1e4):
        run = jax.jit(jax.vmap(partial(relaxed, kind, options), (0, None)))
        thetas = np.array(sizes)[:, None] * np.array([[1.0, 0.5, -1.0, 0.9]])
        found = jax.tree.map(np.asarray, run(jnp.asarray(thetas, jnp.float32), jnp.float32(temperature)))
        with jax.enable_x64(True):
            narrow = np.asarray(thetas, np.float32).astype(float)
            truth = jax.tree.map(np.asarray, run(jnp.asarray(narrow), jnp.asarray(np.float32(temperature), float)))
        for f, t in zip(jax.tree.leaves(found), jax.tree.leaves(truth), strict=True):
            assert np.allclose(f, t, rtol=1e-3, atol=1e-5)
