"""Exact forms at the largest scores: right against double precision, or refused with the range that works."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from support import refuses, table

import diffperturb as dp

SCORES, SIZES = np.array([1.0, 0.5, -0.3, 0.9]), [1.0, 1e10, 1e30, 1e35, 1e37, 1e38, 3e38]
TEMPERATURES = [0.1, 1.0, 1e4]


@jax.jit
def values(p, theta, epsilon):
    """Maximum over the size of the scores, maximizer, and the derivative of the maximizer in epsilon."""
    at = lambda epsilon: replace(p, epsilon=epsilon)
    size = jnp.max(jnp.abs(theta))
    return at(epsilon).max(theta) / size, at(epsilon)(theta), jax.jacfwd(lambda e: at(e)(theta))(epsilon)


def in_both(p, size, epsilon):
    """The same in single and in double precision, for scores that both can hold."""
    theta, epsilon = (size * SCORES).astype(np.float32), np.float32(epsilon)
    found = jax.tree.map(np.asarray, values(p, jnp.asarray(theta), jnp.asarray(epsilon)))
    with jax.enable_x64(True):
        return found, jax.tree.map(np.asarray, values(p, jnp.asarray(theta, float), jnp.asarray(epsilon, float)))


PAIRS = {
    "argmax, Gumbel": (dp.Argmax(), dp.Gumbel(), 4e38),
    "argmax, normal": (dp.Argmax(), dp.Normal(), 4e38),
    "top-k, normal": (dp.TopK(2), dp.Normal(), 1.05e37),
    "ranking, normal": (dp.Ranking(), dp.Normal(), 2e36),
    "ranking of values, Gumbel": (dp.Ranking(jnp.array([0.0, 1.0, 5.0, 2.0])), dp.Gumbel(), 1.05e37),
    "binary choice, normal": (dp.BinaryChoice(), dp.Normal(), 7e35),
}
MORE_PAIRS = {
    "argmax, Laplace": (dp.Argmax(), dp.Laplace(), 1.05e37),
    "top-k, Gumbel": (dp.TopK(2), dp.Gumbel(), 1.05e37),
}


@table(PAIRS, MORE_PAIRS)
def test_large_scores_are_right_or_refused(row):
    solver, noise, reach = row
    p, right, refused = dp.Perturbed(solver, noise, method=dp.Exact()), 0, 0
    for size in SIZES:
        for epsilon in TEMPERATURES:
            if size / min(1, epsilon) > reach and reach < 3e38:
                refuses(lambda size=size, epsilon=epsilon: in_both(p, size, epsilon), "this exact form takes at most")
                refused += 1
                continue
            (maximum, y, slope), truth = in_both(p, size, epsilon)
            seen = ~np.isnan(
                slope
            )  # where the square of theta / epsilon overflows, the derivative is NaN and not silent
            assert seen.all() or size / epsilon > 1e19
            assert abs(maximum - truth[0]) <= 1e-5 * (1 + abs(truth[0]) + epsilon / size)
            assert np.allclose(y, truth[1], atol=2e-5) and np.allclose(slope[seen], truth[2][seen], atol=1e-4 / epsilon)
            right += 1
    assert right >= 10 and (refused > 0) == (reach < 3e38)


def test_the_softmax_of_large_quotients_is_not_rounding():
    """theta / epsilon near 1e9 in single precision: the rounding of the quotient is larger than the noise."""
    p = dp.Perturbed(dp.Argmax(), dp.Gumbel(), 0.3, dp.Exact())
    thetas = 3e8 + 32.0 * jax.random.randint(jax.random.key(0), (200, 4), 0, 4)
    found = jax.jit(jax.vmap(p))(thetas)
    best = thetas == jnp.max(thetas, axis=1, keepdims=True)
    assert jnp.allclose(found, best / jnp.sum(best, axis=1, keepdims=True), atol=1e-6)


def test_sorting_is_refused_beyond_its_range():
    p = dp.Perturbed(dp.Sorting(), dp.Normal(), 0.1, dp.Exact())
    assert jnp.all(jnp.isfinite(p(jnp.float32(1e36) * SCORES.astype(np.float32))))
    refuses(
        lambda: p(jnp.float32(1e38) * SCORES.astype(np.float32)),
        "the scores reach 1e+38 at temperature 0.1",
        ValueError,
    )
