"""The direct gradient against enumeration, exact forms, the score-function estimator and formulas."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from support import refuses, sized, table

from diffperturb.exact.exact import Exact
from diffperturb.expectation.monte_carlo import MonteCarlo
from diffperturb.expectation.perturbed import Perturbed
from diffperturb.foundations.solver import Vertices, inner, minimize
from diffperturb.learning.direct import DirectLoss, LossScale, from_positive, to_positive
from diffperturb.learning.fenchel_young import FenchelYoungLoss
from diffperturb.learning.task_losses import LinearLoss, hamming, sorting_loss
from diffperturb.noise.distributions import CenteredGumbel, Gumbel, Normal
from diffperturb.noise.sampling import Antithetic
from diffperturb.noise.scaled import Scaled
from diffperturb.solvers.matching import Assignment
from diffperturb.solvers.selection import Argmax, Ranking, Sorting, TopK

THETA, CHOSEN = jnp.array([1.0, 0.8, 0.3, -0.5]), jnp.array([0.0, 1.0, 1.0, 0.0])
KEY, TASK = jax.random.key(0), hamming(CHOSEN)
REPEATS = jax.random.split(jax.random.key(4), 64)


def test_to_positive_and_back():
    sigmas = jnp.array([1e-4, 1.0, 100.0])
    assert jnp.allclose(to_positive(from_positive(sigmas)), sigmas, rtol=1e-3)
    assert jnp.all(to_positive(jnp.array([-50.0, 0.0, 50.0])) > 0)


def test_without_noise_the_push_must_turn_the_decision():
    at = lambda scale: jax.value_and_grad(DirectLoss(TopK(2), loss_scale=scale))(THETA, TASK, sigma=0)
    lost, slope = at(-1.0)
    assert lost == 2 and slope.tolist() == [1, 0, -1, 0]
    assert jnp.all(at(-0.1)[1] == 0)  # no decision turned
    direct = DirectLoss(TopK(2), method=MonteCarlo(1000))
    by_theta = jax.grad(direct)(THETA, TASK, key=KEY, sigma=0.5)
    assert by_theta[0] > 0 and by_theta[2] < 0


def enumerated(points, scores, sigma, t, z, scale, central):
    """Value and gradients (scores, scales) of a batch, by looking at every vertex."""
    points = points.reshape(len(points), -1)
    flat = scores[:, None] + sigma[:, None] * z  # (batch, M, n)
    best = lambda s: points[np.argmax(s @ points.T, axis=-1)]
    y, up = best(flat), best(flat + scale * t[:, None])
    change = (up - best(flat - scale * t[:, None])) / (2 * scale) if central else (up - y) / scale
    return np.mean(y @ t[..., None], axis=(1, 2)), change.mean(1), (change * z).mean(1)


@table({"costs, one side": (minimize(TopK(2)), False, -0.7), "scores, both sides": (Ranking(), True, 0.5)})
def test_draw_by_draw_against_enumeration(row):
    solver, central, scale = row
    n, direct = sized(100, 500), DirectLoss(solver, Normal(), scale, MonteCarlo(6), central)

    @jax.jit
    @jax.vmap
    def one(key):
        theta, t = jax.random.normal(key, (2, 4))
        sigma = jax.random.uniform(key, (4,))
        f = lambda theta, sigma, common: direct(theta, LinearLoss(t, 3.0), key=key, sigma=common * sigma)
        learned = jax.value_and_grad(f, (0, 1, 2))(theta, sigma, 1.0)
        return (theta, t, sigma, Normal().sample(key, (6, 4))), learned

    with jax.enable_x64(True):
        found = one(jax.random.split(jax.random.key(1), n))
        (theta, t, sigma, z), (value, (by_theta, by_sigma, by_common)) = jax.tree.map(np.asarray, found)
        points = np.asarray(solver.vertices((4,)))
    truth = enumerated(points, solver.sign * theta, sigma, t, z, scale, central)
    assert np.abs(value - 3 - truth[0]).max() < 1e-12
    assert np.abs(by_theta - solver.sign * truth[1]).max() < 1e-12
    assert np.abs(by_sigma - truth[2]).max() < 1e-12
    assert np.abs(by_common - np.sum(truth[2] * sigma, axis=1)).max() < 1e-12


PAIRS = {"top-2": (TopK(2), Normal())}
MORE_PAIRS = {"argmax": (Argmax(), Gumbel()), "ranking": (Ranking(), Normal())}
SCORES, COEFFICIENTS, SIGMA = (0.6, 0.1, -0.4, 0.3), (0.8, -1.0, 0.3, 0.0), 0.7
SIZES, DRAWN_AT = np.geomspace(1e-3, 1.0, 13), np.array([-0.8, -0.2, -0.1, 0.1, 0.2])


@partial(jax.jit, static_argnums=0)
def by_exact_form(pair, theta, t, scales):
    """The true gradients of the expected loss, and the means of the direct gradient at loss scales (n,)."""
    operator = lambda sigma: Perturbed(*pair, sigma, Exact())
    truth = jax.grad(lambda theta, sigma: inner(t, operator(sigma)(theta)), (0, 1))(theta, SIGMA)
    slopes = jax.grad(lambda theta, sigma: operator(sigma).max(theta), (0, 1))
    slopes = jax.vmap(lambda scale: slopes(theta + scale * t, SIGMA))(jnp.append(scales, 0.0))
    return truth, tuple((s[:-1] - s[-1]) / scales.reshape(-1, *(1,) * (s.ndim - 1)) for s in slopes)


def exactly(pair, scales):
    """`by_exact_form` in double precision, as NumPy arrays."""
    with jax.enable_x64(True):
        arguments = (jnp.array(a, float) for a in (SCORES, COEFFICIENTS, scales))
        return jax.tree.map(np.asarray, by_exact_form(pair, *arguments))


@table(PAIRS, MORE_PAIRS)
def test_bias_falls_linearly_and_from_both_sides_quadratically(row):
    truth, answers = exactly(row, np.concatenate([-SIZES, SIZES]))
    for answer, w in zip(answers, truth, strict=True):  # for the scores, for the scale
        below, above = answer[:13], answer[13:]
        for side, order, slack in ((below, 1, 0.03), (above, 1, 0.03), ((below + above) / 2, 2, 0.05)):
            distance = np.linalg.norm(np.reshape(side - w, (13, -1)), axis=1)
            slope = np.polyfit(np.log(SIZES[:6]), np.log(distance[:6]), 1)[0]
            assert abs(slope - order) < slack


def deviation(found, truth):
    """The largest distance of a mean from its truth, in standard errors."""
    return np.max(np.abs(np.mean(found, 0) - truth) / (np.std(found, 0, ddof=1) / len(found) ** 0.5 + 1e-6))


@table(PAIRS, MORE_PAIRS)
def test_estimates_meet_the_exact_bias_and_extrapolate_to_the_truth(row):
    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    @partial(jax.vmap, in_axes=(None, 0))
    def estimate(scale, k):
        direct = DirectLoss(*row, scale, MonteCarlo(2000))
        loss = LinearLoss(jnp.array(COEFFICIENTS))
        f = lambda theta, sigma: direct(theta, loss, key=k, sigma=sigma)
        return jax.grad(f, (0, 1))(jnp.array(SCORES), SIGMA)

    truth, answers = exactly(row, DRAWN_AT)
    found = [np.asarray(a) for a in estimate(jnp.asarray(DRAWN_AT, jnp.float32), REPEATS)]
    for at_scales, exact, w in zip(found, answers, truth, strict=True):
        assert max(deviation(f, e) for f, e in zip(at_scales, exact, strict=True)) < 5
        to_zero = (4 * (at_scales[2] + at_scales[3]) - (at_scales[1] + at_scales[4])) / 6  # no first and second order
        assert deviation(to_zero, w) < 5


def test_assignment_meets_the_score_function_estimator():
    scores, permutations = jax.random.normal(jax.random.key(5), (3, 3)), Vertices(Assignment().vertices((3, 3)))
    task = sorting_loss(jnp.eye(3), jnp.array([0.2, 0.5, 1.0]))

    @jax.jit
    @jax.vmap
    def compared(k):
        a, b, c = jax.random.split(k, 3)
        by_score = lambda theta, sigma: task(Perturbed(permutations, Normal(), sigma, MonteCarlo(4000))(theta, key=a))
        at = lambda e, k: DirectLoss(Assignment(), Normal(), e, MonteCarlo(2000), central=True)
        by_pairs = lambda e, k: jax.value_and_grad(lambda t, sigma: at(e, k)(t, task, key=k, sigma=sigma), (0, 1))
        truth = jax.value_and_grad(by_score, (0, 1))(scores, 0.6)
        both = jax.vmap(lambda e, k: by_pairs(e, k)(scores, 0.6))(jnp.array([0.5, 0.25]), jnp.stack([b, c]))
        return jax.tree.map(lambda w, d: (4 * d[1] - d[0]) / 3 - w, truth, both)

    differences = compared(REPEATS)
    deviations = jax.tree.map(lambda d: jnp.max(jnp.abs(d.mean(0)) / (jnp.std(d, axis=0, ddof=1) / 8)), differences)
    assert max(jax.tree.leaves(deviations)) < 5


def test_one_scale_for_each_score_meets_the_formula():
    """Two options under normal noise: P(first) = Phi((mu_1 - mu_2) / sqrt(sigma_1^2 + sigma_2^2))."""
    means, stds, costs = jnp.array([0.4, 0.0]), jnp.array([0.5, 1.0]), jnp.array([0.0, 1.0])
    formula = lambda m, s: 1 - jax.scipy.special.ndtr((m[0] - m[1]) / jnp.sqrt(jnp.sum(s**2)))
    direct = DirectLoss(Argmax(), Normal(), 0.2, MonteCarlo(4000, Antithetic()), central=True)
    slopes = jax.grad(lambda m, s, k: direct(m, LinearLoss(costs), key=k, sigma=s), (0, 1))
    found = jax.jit(jax.vmap(slopes, (None, None, 0)))(means, stds, REPEATS)
    for f, w in zip(found, jax.grad(formula, (0, 1))(means, stds), strict=True):  # the bias at 0.2 is below 0.002
        assert jnp.all(jnp.abs(f.mean(0) - w) < 5 * f.std(0) / 8 + 0.002)


def test_sigma_is_the_temperature_of_the_softmax():
    theta, sigmas, second = jnp.array([1.0, 0.4, -0.5]), jnp.array([0.3, 1.0, 3.0]), jnp.eye(3)[1]
    direct = DirectLoss(Argmax(), Gumbel(), 0.2, MonteCarlo(4000), central=True)
    share = lambda sigma, k: direct(theta, LinearLoss(second), key=k, sigma=sigma)
    values, slopes = jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(share), (None, 0)), (0, None)))(sigmas, REPEATS)
    truth = jax.vmap(jax.value_and_grad(lambda sigma: jax.nn.softmax(theta / sigma)[1]))(sigmas)
    bias = jnp.array([0.02, 0.002, 0.001])
    assert jnp.all(jnp.abs(values.mean(1) - truth[0]) < 5 * values.std(1) / 8)
    assert jnp.all(jnp.abs(slopes.mean(1) - truth[1]) < 5 * slopes.std(1) / 8 + bias)


def test_structures_are_not_gibbs_and_not_uniform_at_high_noise():
    theta, slack = jnp.array([1.0, 0.4, -0.5]), 5 * 0.5 / 20_000**0.5
    subsets, corners = TopK(2).vertices((3,)), jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    pair_of = jax.vmap(TopK(2).solve)(theta + Gumbel().sample(KEY, (20_000, 3)))
    corner_of = jax.vmap(Vertices(corners).solve)(Normal().sample(KEY, (20_000, 2)))
    shares = lambda found, points: jnp.mean(jnp.all(found[:, None] == points[None], axis=2), axis=0)
    assert jnp.max(jnp.abs(shares(pair_of, subsets) - jax.nn.softmax(subsets @ theta))) > slack
    assert jnp.all(jnp.abs(shares(corner_of, corners) - jnp.array([3, 3, 2]) / 8) < slack)


def test_fenchel_young_learns_a_temperature_from_its_likelihood():
    truth, group = jnp.array([0.5, 2.0]), jnp.arange(2000) % 2
    scores = jax.random.normal(jax.random.key(6), (2000, 4))
    labels = jax.nn.one_hot(jax.random.categorical(jax.random.key(7), scores / truth[group][:, None]), 4)
    lost = lambda e, s, y: FenchelYoungLoss(Perturbed(Argmax(), CenteredGumbel(), e, Exact()))(s, y)

    def likelihood(raw):
        sigma = to_positive(raw)[group]
        return jnp.mean(jax.vmap(lost)(sigma, scores, labels) / sigma)

    descend = lambda raw, _: (raw - 5 * jax.grad(likelihood)(raw), to_positive(raw))
    _, path = jax.jit(lambda raw: jax.lax.scan(descend, raw, length=100))(from_positive(jnp.ones(2)))
    by_temperature = jax.jit(jax.vmap(jax.grad(lost)))(truth[group], scores, labels)
    assert jnp.all(jnp.abs(path[-1] / truth - 1) < 0.2) and by_temperature.min() > 0


GIVEN, WRONG = jnp.array([1.0, 1.0, 0.0, 0.0]), jnp.array([0.0, 0.0, 1.0, 1.0])


def test_learned_scale_tells_right_scores_from_wrong_ones():
    direct, tasks = DirectLoss(TopK(2), loss_scale=-0.25, method=MonteCarlo(20)), (GIVEN, WRONG)

    def step(raw, k):
        def total(raw):
            keys, sigma = jax.random.split(k, 32).reshape(2, 16), to_positive(raw)
            one = lambda y, s, k: direct(GIVEN, hamming(y), key=k, sigma=s)
            return jnp.mean(jax.vmap(jax.vmap(one, (None, None, 0)))(jnp.stack(tasks), sigma, keys), axis=1).sum()

        return raw - 0.2 * jax.grad(total)(raw), to_positive(raw)

    keys = jax.random.split(KEY, 400)
    _, path = jax.jit(lambda raw: jax.lax.scan(step, raw, keys))(from_positive(jnp.ones(2)))
    assert path[-1, 0] < 0.3 and path[-1, 1] > 2


def test_a_push_that_mirrors_the_margin_is_all_bias():
    direct = DirectLoss(TopK(2), method=MonteCarlo(1000))
    slope = jax.grad(lambda s, k: direct(GIVEN, hamming(WRONG), key=k, sigma=s))
    mirrored = jax.jit(jax.vmap(slope, (None, 0)))(1.0, REPEATS)
    assert abs(mirrored.mean()) < 5 * mirrored.std() / 8


def test_loss_scale_grows_until_a_decision_turns():
    direct, theta, history = DirectLoss(Argmax(), loss_scale=LossScale(-0.2)), jnp.array([3.0, 0.0, 1.0]), []

    @jax.jit
    def push(direct, theta):
        lost, slope = jax.value_and_grad(direct)(theta, hamming(jnp.eye(3)[1]), sigma=0)
        return replace(direct, loss_scale=direct.loss_scale.update(slope, lost)), theta - 0.5 * slope, lost

    for _ in range(40):
        direct, theta, lost = push(direct, theta)
        history.append((round(float(direct.loss_scale.value), 3), float(lost)))
    assert history[0] == (-0.22, 2.0) and history[-1][1] == 0 and history[-1][0] == history[-10][0]
    assert -1.7 < history[-1][0] < -1.5  # the push turns the decision once it is beyond half of the lead of 3
    assert LossScale(-0.2).update(jnp.zeros(3), jnp.zeros(2)).value == -0.2
    assert LossScale(-1e6).update(jnp.zeros(3), 1.0).value == -1e6


def test_costs_learn_the_same():
    batch, keys = jax.random.normal(jax.random.key(11), (50, 4)), jax.random.split(KEY, 50)

    def run(solver, t, k):
        direct = DirectLoss(solver, Normal(), -0.8, MonteCarlo(6), central=True)
        return jax.value_and_grad(lambda t, s: direct(t, TASK, key=k, sigma=s), (0, 1))(t, 0.6)

    both = jax.jit(jax.vmap(lambda t, k: (run(TopK(2), t, k), run(minimize(TopK(2)), -t, k))))
    (a, (slope, scale)), (b, (opposite, same)) = both(batch, keys)
    assert jnp.all(a == b) and jnp.all(slope == -opposite) and jnp.all(scale == same) and jnp.any(slope != 0)


def test_strict_types_and_ranks_with_chunks():
    for dtype in (jnp.float32, jnp.float64):
        strict = jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise")
        with jax.enable_x64(dtype == jnp.float64), strict[0], strict[1]:
            batch, y = jax.random.normal(jax.random.key(1), (7, 4), dtype), jnp.array([0, 1, 1, 0], dtype)
            direct = DirectLoss(TopK(2), CenteredGumbel(), -0.5, MonteCarlo(8, Antithetic(), chunk_size=4))
            f = lambda t, s, k, direct=direct, y=y: direct(t, hamming(y), key=k, sigma=s)
            slopes = jax.jit(jax.vmap(jax.value_and_grad(f, (0, 1)), (0, None, 0)))
            lost, (by_theta, by_sigma) = slopes(batch, jnp.asarray(0.5, dtype), jax.random.split(KEY, 7))
            assert lost.dtype == by_theta.dtype == by_sigma.dtype == dtype and by_sigma.shape == (7,)


DIRECT = DirectLoss(TopK(2), Normal(), -0.5, MonteCarlo(64))


def test_both_modes_and_the_derivative_in_the_loss():
    @jax.jit
    def several(theta, t):
        f = lambda theta: DIRECT(theta, TASK, key=KEY)
        by_loss = jax.grad(lambda t: DIRECT(theta, LinearLoss(t), key=KEY))(t)
        undivided = jax.grad(replace(DIRECT, divide=False))(theta, LinearLoss(t), key=KEY)
        mean = Perturbed(TopK(2), Normal(), 1.0, MonteCarlo(64))(theta, key=KEY)
        return jax.jacfwd(f)(theta), jax.jacrev(f)(theta), undivided, by_loss, mean

    forward, reverse, undivided, by_loss, mean = several(THETA, TASK.coefficients)
    assert jnp.allclose(forward, reverse, atol=1e-6) and jnp.any(forward != 0)
    assert jnp.allclose(undivided, 0.5 * reverse) and jnp.allclose(by_loss, mean, atol=1e-6)


def loss_at(sigma, task=TASK, theta=THETA):
    return DIRECT(theta, task, key=KEY, sigma=sigma)


def loss_at_scale(scale):
    return DirectLoss(TopK(2), loss_scale=scale)(THETA, TASK, key=KEY)


def loss_with_noise(scale):
    return DirectLoss(TopK(2), Scaled(Normal(), scale))(THETA, TASK, key=KEY)


THREE = jnp.array([1.0, 1, 1, 0])
REFUSALS = {
    "a label": (lambda: loss_at(1.0, CHOSEN), "hamming(y) for a 0/1 label"),
    "a function": (lambda: loss_at(1.0, jnp.sum), "the loss is given as a function, expected a LinearLoss"),
    "coefficients": (lambda: loss_at(1.0, hamming(CHOSEN[:3])), "coefficients of shape (3,), expected (4,)"),
    "no solution": (lambda: loss_at(1.0, hamming(THREE)), "is not in the polytope of TopK"),
    "NaN in the loss": (
        lambda: loss_at(1.0, LinearLoss(THETA.at[1].set(jnp.nan))),
        "the loss's coefficients[1] is nan",
    ),
    "sigma": (lambda: loss_at(-0.5), "sigma is -0.5; the scale of the noise"),
    "sigma under jit": (lambda: jax.jit(loss_at)(-1.0), "make it with to_positive(raw)"),
    "NaN in sigma": (lambda: jax.jit(jax.grad(loss_at))(jnp.nan), "sigma is nan"),
    "shape of sigma": (lambda: loss_at(jnp.ones(3)), "sigma has shape (3,)"),
    "loss scale": (
        lambda: DirectLoss(TopK(2), loss_scale=0.0),
        "loss_scale is 0.0, expected a finite number other than 0",
    ),
    "loss scale under jit": (lambda: jax.jit(loss_at_scale)(0.0), "loss_scale is 0.0"),
    "no key": (lambda: DIRECT(THETA, TASK), "DirectLoss draws noise and needs a key"),
    "NaN": (lambda: loss_at(1.0, theta=THETA.at[0].set(jnp.nan)), "theta[0] is nan"),
    "batch": (lambda: loss_at(1.0, theta=jnp.zeros((2, 4))), "TopK"),
    "no maximizer": (lambda: DirectLoss(Sorting()), "a loss can't be put inside"),
    "method": (
        lambda: DirectLoss(TopK(2), method=Exact()),
        "method is Exact(), expected MonteCarlo(num_samples)",
    ),
    "derivative in the loss scale": (
        lambda: jax.grad(loss_at_scale)(-1.0),
        "the derivative in loss_scale was asked for",
    ),
    "second derivative": (
        lambda: jax.hessian(lambda theta: loss_at(1.0, theta=theta))(THETA),
        "a second derivative of DirectLoss was asked for",
    ),
    "noise": (lambda: jax.grad(loss_with_noise)(jnp.ones(4)), "its scale is learned as sigma="),
}


@table(REFUSALS)
def test_refusals(row):
    refuses(*row)
