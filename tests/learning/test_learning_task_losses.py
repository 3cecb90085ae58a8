"""Task losses: their coefficients against the definitions, over all solutions."""

import itertools

import jax
import jax.numpy as jnp
from support import refuses, table

from diffperturb.learning.task_losses import (
    LinearLoss,
    hamming,
    linear_loss,
    linearize,
    sorting_loss,
    weighted_hamming,
)
from diffperturb.solvers.matching import Assignment
from diffperturb.solvers.selection import BinaryChoice, Ranking, TopK

CHOSEN, THREE = jnp.array([0.0, 1.0, 1.0, 0.0]), jnp.array([1.0, 1, 1, 0])
X = jnp.array([0.3, 0.9, 0.1, 0.8, 0.5])
LABEL = jax.nn.one_hot(jnp.argsort(-X), X.size)  # descending: the largest number in the first place


def permutations():
    return Assignment().vertices((5, 5)).astype(X.dtype)


def squared_distance(y):
    return jnp.sum((LABEL @ X - y @ X) ** 2)


def zero_one(y):
    return jnp.any(y != CHOSEN)


def jaccard(y):
    return 1 - jnp.sum(y * CHOSEN) / jnp.sum(y + CHOSEN - y * CHOSEN)


def test_hamming_counts_the_differences():
    corners = BinaryChoice().vertices((4,))
    assert jnp.all(jax.vmap(hamming(CHOSEN))(corners) == jnp.sum(corners != CHOSEN, axis=1))


def test_losses_of_permutations_are_their_definitions():
    all_of_them = permutations()
    exact, papers = (jax.vmap(loss(LABEL, X))(all_of_them) for loss in (sorting_loss, weighted_hamming))
    assert len(all_of_them) == 120
    assert jnp.allclose(exact, jnp.sum((LABEL @ X - all_of_them @ X) ** 2, axis=1), atol=1e-6)
    assert jnp.allclose(papers, jnp.sum(X**2 * (LABEL - all_of_them) ** 2, axis=(1, 2)), atol=1e-6)
    assert sorting_loss(LABEL, X)(LABEL) == 0 and abs(weighted_hamming(LABEL, X)(LABEL)) < 1e-6
    slight, grave = (LABEL[jnp.array(order)] for order in ((1, 0, 2, 3, 4), (4, 1, 2, 3, 0)))
    assert sorting_loss(LABEL, X)(slight) < sorting_loss(LABEL, X)(grave)
    assert weighted_hamming(LABEL, X)(slight) > weighted_hamming(LABEL, X)(grave)


def test_linear_loss_reads_the_coefficients():
    found = jax.jit(lambda y: linear_loss(squared_distance, Assignment(), y))(LABEL)
    all_of_them = permutations()
    truth = jnp.sum((LABEL @ X - all_of_them @ X) ** 2, axis=1)
    assert jnp.allclose(jax.vmap(found)(all_of_them), truth, atol=1e-5)
    ranks = jnp.array([2.0, 4.0, 1.0, 3.0])
    by_rank = jax.jit(lambda y: linear_loss(lambda other: jnp.sum((other - y) ** 2), Ranking(), y))(ranks)
    orders = jnp.asarray(list(itertools.permutations([1.0, 2, 3, 4])))
    assert jnp.allclose(jax.vmap(by_rank)(orders), jnp.sum((orders - ranks) ** 2, axis=1), atol=1e-4)


def test_linearize_is_the_tangent_at_the_label():
    tangent, step = linearize(jaccard, CHOSEN), 1e-3 * jnp.array([0.0, -1.0, -0.5, 0.0])
    assert jnp.allclose(tangent(CHOSEN), 0, atol=1e-6) and jnp.all(tangent.label == CHOSEN)
    assert jnp.allclose(tangent(CHOSEN + step), jaccard(CHOSEN + step), atol=1e-5)
    assert jnp.allclose(tangent.coefficients, jax.grad(jaccard)(CHOSEN))


def under_jit(f):
    return jax.jit(lambda y: linear_loss(f, TopK(2), y).coefficients)(CHOSEN)


REFUSALS = {
    "zero-one": (lambda: linear_loss(zero_one, TopK(2), CHOSEN), "it is 1.0, and the coefficients from single entries"),
    "zero-one, value": (lambda: linear_loss(zero_one, TopK(2), CHOSEN), "make it 0.0"),
    "jaccard under jit": (lambda: under_jit(jaccard), "not linear over"),
    "label": (lambda: linear_loss(jnp.sum, TopK(2), THREE), "is not in the polytope of TopK"),
    "no scalar": (lambda: linear_loss(lambda y: y, TopK(2), CHOSEN), "the loss returned shape (4,)"),
    "not binary": (lambda: hamming(jnp.array([2.0, 1.0])), "linear for entries 0 and 1 only"),
    "no permutation": (lambda: sorting_loss(jnp.zeros((3, 3)), jnp.ones(3)), "one 1 in each row"),
    "shapes": (lambda: sorting_loss(jnp.eye(3), jnp.ones(4)), "expected (n, m) and (m,)"),
}


@table(REFUSALS)
def test_refusals(row):
    refuses(*row)


def test_a_loss_is_a_pytree_under_vmap():
    labels = jnp.stack([CHOSEN, CHOSEN[::-1]])
    losses = jax.vmap(hamming)(labels)
    assert isinstance(losses, LinearLoss) and losses.coefficients.shape == (2, 4)
    assert jax.vmap(lambda loss, y: loss(y))(losses, labels[::-1]).tolist() == [0.0, 0.0]
