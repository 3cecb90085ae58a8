"""External solvers: solutions against enumeration under every option, equality, copies, costs, batches, memory."""

import itertools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from solvers.external_functions import fits, greedy, knapsack
from support import refuses, table

from diffperturb import MonteCarlo, Normal, Perturbed, Vertices, external, minimize
from diffperturb.solvers.external import shortfall

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
VALUES = RNG.normal(0.5, 1.0, (1000, 7)).astype(np.float32)
WEIGHTS, ROOM = RNG.integers(1, 6, (1000, 7)), RNG.integers(3, 15, 1000)
PROBLEM = {"data": (jnp.array([3, 4, 2, 5, 1, 3, 2]), 9), "feasible": fits}


@pytest.fixture(scope="module")
def solved():
    """Solutions of all instances, each with its own weights and capacity, in one batch."""

    @jax.jit
    @jax.vmap
    def solve(values, weights, room):
        return external(knapsack, (7,), data=(weights, room), feasible=fits, binary=True)(values)

    return np.asarray(solve(VALUES, WEIGHTS, ROOM))


def test_solutions_against_enumeration(solved):
    choices = np.array(list(itertools.product((0, 1), repeat=7)))
    worth = np.where(choices @ WEIGHTS.T <= ROOM, choices @ VALUES.T, -np.inf)
    assert np.allclose(worth.max(axis=0), (solved * VALUES).sum(axis=1), atol=1e-5)
    assert np.all((solved * WEIGHTS).sum(axis=1) <= ROOM) and set(np.unique(solved)) == {0.0, 1.0}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@table(
    {
        "plain": {},
        "threads": {"workers": 2},
        "a process": {"workers": 1, "processes": True},
        "memory": {"cache": 500},
        "double": {"dtype": np.float64},
    }
)
def test_every_option_gives_the_same_solutions(row, dtype, solved):
    with jax.enable_x64(dtype == jnp.float64), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        solver = external(knapsack, (7,), data=(WEIGHTS, ROOM), **row)
        again = jax.vmap(lambda solver, t: solver(t))(solver, jnp.asarray(VALUES, dtype))
        assert again.dtype == dtype and np.array_equal(again, solved)
        solver.close()


def test_a_first_solver():
    pack = external(knapsack, (5,), data=(jnp.array([3, 4, 2, 5, 1]), 8), feasible=fits, binary=True)
    assert pack(jnp.array([3.0, 5.0, 1.0, 6.0, 0.5])).tolist() == [1, 0, 0, 1, 0]
    assert pack(-jnp.ones(5)).tolist() == [0, 0, 0, 0, 0]
    assert pack.binary and pack.hyperplane((5,)) is None


def test_perturbed_it_is_called_once_per_draw():
    pack = external(knapsack, (5,), data=(jnp.array([3, 4, 2, 5, 1]), 8), feasible=fits, binary=True, name="counted")
    smooth = Perturbed(pack, Normal(), 0.5, MonteCarlo(200))
    slope = jax.jit(jax.grad(lambda t: smooth(t, key=KEY)[1]))(jnp.array([3.0, 5.0, 1.0, 6.0, 0.5]))
    assert (pack.counts.calls, pack.counts.instances) == (200, 200) and slope[1] > 0


def test_equal_options_make_equal_solvers_that_are_compiled_once():
    facts = {"radius": 5**0.5, "hyperplane": (np.zeros(5), 0.0), "cache": 2}
    one, other = external(np.sign, (5,), **facts), external(np.sign, (5,), **facts)
    assert one == other and hash(one) == hash(other) and one.counts is other.counts
    assert one != external(np.sign, (5,)) and one != external(np.sign, (4,), **facts)
    assert float(one.radius((5,))) == np.float32(5**0.5)
    traced = []
    call = jax.jit(lambda solver, t: (traced.append(1), solver.solve(t))[1])
    zero = jnp.zeros(5)
    call(one, zero), call(other, zero)
    assert len(traced) == 1


def test_a_copy_goes_in_and_a_copy_comes_out():
    buffer = np.zeros(2)

    def careless(theta, scale):
        theta *= scale
        buffer[:] = theta
        return buffer

    twice = external(careless, (2,), data=(2.0,))
    one, two = twice(jnp.ones(2)), twice(jnp.zeros(2))
    assert one.tolist() == [2, 2] and two.tolist() == [0, 0]
    assert jax.vmap(twice)(jnp.arange(6.0).reshape(3, 2)).tolist() == [[0, 2], [4, 6], [8, 10]]


def test_data_can_not_be_overwritten():
    vandal = external(lambda theta, data: operator.iadd(data, theta), (2,), data=(jnp.ones(2),), name="vandal")
    refuses(lambda: vandal(jnp.ones(2)), "vandal: raised ValueError: output array is read-only")


def cheapest(costs):
    return costs == costs.min()


def test_costs():
    least = external(cheapest, (3,), costs=True)
    costs = jnp.array([2.0, 1.0, 3.0])
    assert least(costs).tolist() == [0, 1, 0] and least.oracle.counts.calls == 1
    assert minimize(least)(-costs).tolist() == [0, 1, 0]  # the maximizer of scores
    by_vertices = Perturbed(Vertices(jnp.eye(3)), Normal(), 0.5)(-costs, key=KEY)
    assert jnp.allclose(Perturbed(least, Normal(), 0.5)(costs, key=KEY), by_vertices, atol=1e-6)
    assert jnp.max(shortfall(least, jax.random.normal(KEY, (50, 3)))) < 1e-6


def wrong_sign(values, weights, capacity):
    return knapsack(-values, weights, capacity)


def test_shortfall_tells_a_maximizer_from_a_heuristic_and_a_wrong_sign():
    thetas = jnp.asarray(VALUES[:500])
    gaps = [shortfall(external(f, (7,), **PROBLEM), thetas) for f in (knapsack, greedy, wrong_sign)]
    assert jnp.max(gaps[0]) < 1e-5 and 0 < jnp.mean(gaps[1]) < 0.1 * jnp.mean(gaps[2])


def test_a_batched_function_is_called_once_for_all_instances():
    shapes = []

    def window(rows, width):
        """The best run of neighbors in each row (n, d)."""
        shapes.append((rows.shape, width.shape))
        width = int(width[0])
        sums = np.lib.stride_tricks.sliding_window_view(rows, width, axis=1).sum(axis=2)
        place = np.arange(rows.shape[1]) - sums.argmax(axis=1)[:, None]
        return (place >= 0) & (place < width)

    run = external(window, data=(3,), batched=True, hyperplane=(lambda shape: np.ones(shape), 3.0), binary=True)
    thetas = jax.random.normal(KEY, (4, 5, 9))
    y = jax.jit(jax.vmap(jax.vmap(run)))(thetas)
    assert shapes == [((20, 9), (1,))] and run.counts.calls == 1
    spans = np.array([(np.arange(9) >= i) & (np.arange(9) < i + 3) for i in range(7)])
    assert np.allclose((np.asarray(thetas) @ spans.T).max(axis=-1), (np.asarray(y) * thetas).sum(axis=-1), atol=1e-5)
    assert jnp.all(y == jax.vmap(jax.vmap(external(window, data=(3,), batched=True, workers=3)))(thetas))
    assert jax.vmap(run)(jnp.zeros((0, 9))).shape == (0, 9)  # an empty batch makes no call


def test_solutions_are_remembered():
    kept = external(knapsack, (7,), cache=100, **PROBLEM)
    batch = jnp.asarray(np.concatenate([VALUES[:60], VALUES[:20]]))
    call = jax.jit(jax.vmap(kept))
    first, second = np.asarray(call(batch)), np.asarray(call(batch))
    assert np.all(first == second) and np.all(first[:20] == first[60:])
    assert (kept.counts.calls, kept.counts.instances, kept.counts.hits) == (60, 160, 100)
    kept(batch[0]), kept(-batch[0])
    assert (kept.counts.calls, kept.counts.hits) == (61, 101)
