"""Relaxations against their decisions, their definitions, enumeration and finite differences."""

import itertools
import sys
from dataclasses import replace
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import ALL, refuses, table

from diffperturb.foundations.errors import run_time_checks
from diffperturb.foundations.solver import inner, minimize
from diffperturb.learning.relaxations import (
    GumbelSinkhorn,
    GumbelSoftmax,
    NeuralSort,
    Relaxation,
    RelaxedSubset,
    SoftPermutation,
    SoftSort,
    marginal_error,
)
from diffperturb.solvers.matching import Assignment
from diffperturb.solvers.selection import Argmax, Ranking, Sorting, TopK

THETA, KEY = jnp.array([1.0, 0.5, -0.5, 0.0]), jax.random.key(0)
G = jnp.array([1.0, -2.0, 0.5, 3.0])
STACK = jax.random.normal(jax.random.key(1), (250, 6))
GAPS = np.diff(np.sort(STACK, axis=1), axis=1)
KEYS = jax.random.split(KEY, 10_000)


def within(share, p):
    """Whether shares of 10,000 draws meet probabilities within five standard errors."""
    return np.all(np.abs(share - p) < 5 * np.sqrt(p * (1 - p) / len(KEYS)))


@table({"relaxation": Relaxation, "soft permutation": SoftPermutation})
def test_abstract_classes_name_what_is_missing(row):
    with pytest.raises(TypeError, match="abstract"):
        row()


def test_gumbel_softmax():
    soft, hard = GumbelSoftmax(0.5), GumbelSoftmax(0.5, hard=True)
    slope = lambda layer: jax.grad(lambda t: inner(G, layer(t, key=KEY)))(THETA)
    assert jnp.all(slope(soft) == slope(hard)) and jnp.any(slope(soft) != 0)
    assert jnp.allclose(replace(soft, noise=None)(THETA), jax.nn.softmax(2 * THETA))
    chosen = jax.jit(jax.vmap(lambda k: hard(THETA, key=k)))(KEYS)
    assert within(np.mean(chosen, axis=0), jax.nn.softmax(THETA))  # at any temperature
    assert jnp.all(replace(hard, noise=None)(-THETA) == minimize(Argmax())(THETA))  # costs


def test_relaxed_subset_tends_to_top_k():
    at = jax.jit(jax.vmap(lambda tau, t: RelaxedSubset(tau, None, k=3)(t), (None, 0)))
    subsets, cold = at(0.7, STACK), at(1e-5, STACK)
    assert jnp.allclose(jnp.sum(subsets, axis=1), 3, atol=1e-5) and jnp.all(subsets >= 0)
    assert jnp.mean(jnp.max(subsets, axis=1) > 1) > 0  # an item may come back in a later draw
    clear = np.min(GAPS[:, 2:], axis=1) > 1e-3  # the largest four differ by many temperatures
    assert np.mean(clear) > 0.9 and np.allclose(cold[clear], jax.vmap(TopK(3))(STACK)[clear], atol=1e-4)
    assert jnp.allclose(jnp.sum(RelaxedSubset(0.7, None, k=6)(STACK[0])), 6, atol=1e-5)
    far = RelaxedSubset(1.0, k=2, noise=None)(jnp.log(jnp.array([0.9, 0.1])))
    assert jnp.allclose(far, jnp.array([1.4, 0.6]), atol=1e-6)  # 0.9 + 0.5 and 0.1 + 0.5


def test_hard_subsets_are_drawn_without_replacement():
    weights = np.exp(np.asarray(THETA, float))
    pairs = list(itertools.permutations(range(4), 2))
    samples = [weights[i] / weights.sum() * weights[j] / (weights.sum() - weights[i]) for i, j in pairs]
    inclusion = np.array([sum(p for p, pair in zip(samples, pairs, strict=True) if i in pair) for i in range(4)])
    sample = np.asarray(jax.jit(jax.vmap(lambda k: RelaxedSubset(0.5, k=2, hard=True)(THETA, key=k)))(KEYS))
    assert abs(sum(samples) - 1) < 1e-12 and np.all(np.sum(sample, axis=1) == 2)
    for i, j in itertools.combinations(range(4), 2):  # not only the items, every pair
        p = samples[pairs.index((i, j))] + samples[pairs.index((j, i))]
        assert within(np.mean(np.all(sample[:, (i, j)] == 1, axis=1)), p)
    assert within(np.mean(sample, axis=0), inclusion)


@table(
    {"SoftSort": SoftSort, "NeuralSort": NeuralSort},
    {"SoftSort, p = 2": lambda tau, **kw: SoftSort(tau, power=2.0, **kw)},
)
def test_soft_permutations(row):
    @jax.jit
    @jax.vmap
    def outcomes(t):
        cold = row(1e-6)
        return {
            "matrix": row(0.8)(t),
            "hard": row(0.8, hard=True)(t),
            "sorted": cold.sort(t),
            "ranks": cold.ranks(t),
            "falling": replace(cold, descending=True).ranks(t),
            "warm": row(5.0).ranks(t),
        }

    found, ordered, ranks = outcomes(STACK), jax.vmap(Sorting())(STACK), jax.vmap(Ranking())(STACK)
    order, clear = np.argsort(STACK, axis=1), np.min(GAPS, axis=1) > 0.01
    assert np.mean(clear) > 0.5
    assert np.allclose(found["matrix"].sum(axis=2), 1, atol=1e-5) and jnp.all(found["matrix"] >= 0)
    assert np.all((np.argmax(found["matrix"], axis=2) == order)[clear])  # unimodal, and in order already at 0.8
    assert np.all(found["hard"] == np.eye(6)[order])
    assert np.allclose(found["sorted"][clear], ordered[clear], atol=1e-5)
    assert np.allclose(found["ranks"][clear], ranks[clear], atol=1e-4)
    assert np.allclose(found["falling"][clear], 7 - ranks[clear], atol=1e-4)
    assert np.all((found["warm"] >= 1) & (found["warm"] <= 6))


def test_equal_scores_share_their_positions():
    tied = jnp.array([1.0, 1.0, 0.0])
    for layer in (NeuralSort(1e-3), SoftSort(1e-3)):
        assert jnp.allclose(layer(tied), jnp.array([[0, 0, 1.0], [0.5, 0.5, 0], [0.5, 0.5, 0]]))
        assert jnp.all(replace(layer, hard=True)(tied) == jnp.eye(3)[jnp.array([2, 0, 1])])


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def test_formulas_entry_by_entry_in_the_papers_decreasing_order():
    s, tau = np.asarray(STACK[0], np.float64), 0.8
    down = lambda layer: np.asarray(replace(layer, descending=True)(STACK[0]))
    A = np.array([[abs(a - b) for b in s] for a in s])
    neural = np.array([softmax(((6 + 1 - 2 * i) * s - A @ np.ones(6)) / tau) for i in range(1, 7)])
    soft_sort = np.array([softmax(-np.abs(np.sort(s)[::-1][i] - s) / tau) for i in range(6)])
    assert np.allclose(down(NeuralSort(tau)), neural, atol=1e-5)
    assert np.allclose(down(SoftSort(tau)), soft_sort, atol=1e-5)


SQUARES = jax.random.normal(jax.random.key(3), (250, 4, 4))
TENS = jax.random.normal(jax.random.key(4), (50, 10, 10))


def sinkhorn(s, tau, iterations):
    """exp(s / tau), its rows and columns divided by their sums in turn (..., n, n)."""
    matrix = np.exp(np.asarray(s, np.float64) / tau)
    for _ in range(iterations):
        matrix = matrix / matrix.sum(-1, keepdims=True)
        matrix = matrix / matrix.sum(-2, keepdims=True)
    return matrix


def test_sinkhorn_is_its_definition():
    plain = GumbelSinkhorn(0.3, noise=None)
    matrices = jax.jit(jax.vmap(plain))(SQUARES)
    assert np.allclose(matrices, sinkhorn(SQUARES, 0.3, 20), atol=1e-5)
    assert jnp.allclose(jnp.sum(matrices, axis=1), 1, atol=1e-5)
    assert jnp.all(jax.vmap(replace(plain, hard=True))(-SQUARES) == jax.vmap(minimize(Assignment()))(SQUARES))  # costs


def test_cold_sinkhorn_is_the_best_permutation():
    permutations = np.eye(4)[np.array(list(itertools.permutations(range(4))))]
    worth = np.sort(np.einsum("pij,bij->bp", permutations, SQUARES), axis=1)
    clear = worth[:, -1] - worth[:, -2] > 0.25
    cold = jax.jit(jax.vmap(GumbelSinkhorn(0.02, noise=None, iterations=1000)))(SQUARES)[clear]
    hard = jax.jit(jax.vmap(GumbelSinkhorn(noise=None, hard=True)))(SQUARES)
    assert np.allclose(np.einsum("bij,bij->b", hard, SQUARES), worth[:, -1], atol=1e-5)
    assert np.mean(clear) > 0.6 and np.allclose(cold, hard[clear], atol=0.05)


def test_marginal_error_of_sinkhorn_meets_numpy():
    expected = lambda tau: np.mean(np.max(np.abs(sinkhorn(TENS, tau, 20).sum(axis=2) - 1), axis=1))
    at_20 = jnp.mean(jax.vmap(marginal_error)(jax.jit(jax.vmap(GumbelSinkhorn(0.1, noise=None)))(TENS)))
    assert abs(at_20 - expected(0.1)) < 1e-3 and expected(1.0) < 1e-6 < 1e-2 < expected(0.1)


def test_cold_relaxations_sort_six_scores():
    six = jnp.array([0.3, -0.9, 1.1, 0.5, -0.2, -0.6])
    by_position = GumbelSinkhorn(0.03, None, iterations=200)(jnp.arange(1.0, 7)[:, None] * six[None])
    for matrix in (NeuralSort(0.03)(six), SoftSort(0.03)(six), by_position):
        assert jnp.allclose(matrix, jax.nn.one_hot(jnp.argsort(six), 6), atol=0.1)


LAYERS = {
    "Gumbel-softmax": (GumbelSoftmax(0.7), (4,)),
    "subset": (RelaxedSubset(0.7, None, k=2), (4,)),
    "SoftSort": (SoftSort(0.7), (4,)),
    "Sinkhorn": (GumbelSinkhorn(0.7, None, iterations=5), (3, 3)),
}
SIMILAR = {"NeuralSort": (NeuralSort(0.7), (4,)), "SoftSort, p = 2": (SoftSort(0.7, power=2.0), (4,))}
EVERY = {**LAYERS, **SIMILAR}
USED = EVERY if ALL else {name: LAYERS[name] for name in ("subset", "SoftSort", "Sinkhorn")}


def slopes(t, tau, along, h=1e-5):
    """For each layer: the derivatives along a direction and for the temperature, and the same by differences."""
    found = {}
    for name, (layer, shape) in USED.items():
        f = lambda t, tau, layer=layer: jnp.sum(jnp.sin(3 * replace(layer, temperature=tau)(t, key=jax.random.key(5))))
        x, u = (a[: np.prod(shape)].reshape(shape) for a in (t, along))
        by_score, by_temperature = jax.grad(f, argnums=(0, 1))(x, tau)
        _, forward = jax.jvp(f, (x, tau), (u, 0 * tau))
        steps = jnp.array([h, -h])
        scores = jax.vmap(lambda step, f=f, x=x, u=u: f(x + step * u, tau))(steps)
        temperatures = jax.vmap(lambda step, f=f, x=x: f(x, tau + step))(steps)
        differences = [(v[0] - v[1]) / (2 * h) for v in (scores, temperatures)]
        found[name] = jnp.stack([inner(by_score, u), forward, by_temperature, *differences])
    return found


def test_derivatives_against_finite_differences():
    with jax.enable_x64(True), run_time_checks(False):  # half the time to compile
        t, along = jax.random.normal(jax.random.key(6), (2, 9), jnp.float64)
        for reverse, forward, by_temperature, *differences in jax.jit(slopes)(t, jnp.array(0.7), along).values():
            assert np.allclose([reverse, forward], differences[0], atol=1e-7)
            assert np.allclose(by_temperature, differences[1], atol=1e-7)


def values_and_slopes(layers, t):
    """Value and gradient of each layer in its straight-through form, which holds the relaxation too."""
    loss = lambda t, layer: jnp.sum(layer(t, key=jax.random.key(9)) ** 2)
    return [jax.value_and_grad(loss)(t[: np.prod(shape)].reshape(shape), layer) for layer, shape in layers]


def test_strict_types_and_ranks():
    layers = LAYERS if ALL else USED
    for dtype in (jnp.float32, jnp.float64):
        strict = jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise")
        with jax.enable_x64(dtype == jnp.float64), strict[0], strict[1]:
            hard = [(replace(layer, hard=True), shape) for layer, shape in layers.values()]
            batch = jax.random.normal(jax.random.key(1), (7, 9), dtype)
            both = jax.jit(jax.vmap(lambda t, hard=hard: values_and_slopes(hard, t)))(batch)
            for (values, slopes), (_, shape) in zip(both, hard, strict=True):
                assert values.dtype == slopes.dtype == dtype and slopes.shape == (7, *shape)
                assert jnp.all(jnp.isfinite(values)) and jnp.all(jnp.isfinite(slopes))


def test_extreme_temperatures_and_scores_stay_finite():
    taus = jnp.array([1.0, 0.1, 1e-3, 1e-6, 1e-20])

    @jax.jit
    def sweep(t):
        """The sum, and its gradient, of all layers over all temperatures, without noise."""
        sums = lambda t, tau, layer: jnp.sum(jnp.sin(replace(layer, temperature=tau, noise=None)(t)))
        at = jax.vmap(jax.value_and_grad(sums), (None, 0, None))
        return [at(t[: np.prod(shape)].reshape(shape), taus, layer) for layer, shape in USED.values()]

    for sigma in (1.0, 1e15):
        found = sweep(sigma * jax.random.normal(jax.random.key(6), (9,)))
        assert all(jnp.all(jnp.isfinite(numbers)) for pair in found for numbers in pair)


STRICT = GumbelSinkhorn(0.05, None, iterations=20, tolerance=1e-3)


def without_ott():
    with mock.patch.dict(sys.modules, {"ott.geometry.geometry": None}):
        return GumbelSinkhorn()(SQUARES[0], key=KEY)


REFUSALS = {
    "temperature": (lambda: GumbelSoftmax(0.0), "temperature is 0.0"),
    "temperature under jit": (lambda: jax.jit(lambda tau: SoftSort(tau)(THETA))(-1.0), "temperature is -1.0"),
    "no key": (lambda: GumbelSoftmax()(THETA), "needs a key"),
    "NaN": (lambda: NeuralSort()(jnp.array([1.0, jnp.nan])), "theta[1] is nan"),
    "batch": (lambda: NeuralSort()(jnp.zeros((3, 4))), "use jax.vmap for a batch"),
    "k": (lambda: RelaxedSubset(k=5)(THETA, key=KEY), "k is 5"),
    "not square": (lambda: GumbelSinkhorn()(jnp.zeros((3, 4)), key=KEY), "expected a square (n, n)"),
    "iterations": (lambda: GumbelSinkhorn(iterations=0), "iterations is 0"),
    "power": (lambda: SoftSort(power=0.0), "power is 0.0"),
    "tolerance": (lambda: STRICT(TENS[0]), "take more iterations or a higher temperature"),
    "tolerance in a batch": (lambda: jax.jit(jax.vmap(STRICT))(TENS), "of the batch"),
    "no ott-jax": (without_ott, "pip install 'diffperturb[relaxations]'"),
}


@table(REFUSALS)
def test_refusals(row):
    refuses(*row)
