"""Projections: derivatives, extreme sizes, which solvers keep their solution, noise and margins, dtypes, refusals."""

import jax
import jax.numpy as jnp
import pytest
from support import refuses, table

import diffperturb as dp
from diffperturb.learning import (
    Projection,
    collapse_report,
    first_part,
    informed_margin,
    keeps_solution,
    perturbed_scores,
    project,
)

THETA, LABEL = jnp.array([2.0, 1.0, 0.0, -1.0]), jnp.array([1.0, 1, 0, 0])
BOTH = (dp.Plane(), dp.Sphere())


def test_the_plane():
    assert dp.Plane()(THETA, dp.TopK(2)).tolist() == [1.5, 0.5, -0.5, -1.5]
    assert jnp.all(dp.Plane()(jnp.full(4, 0.1), dp.TopK(2)) == 0)
    jacobian = jax.jacrev(lambda t: dp.Plane()(t, dp.TopK(2)))(THETA)
    assert jnp.allclose(jacobian, jnp.eye(4) - 1 / 4) and jnp.allclose(jacobian @ jacobian, jacobian)


@pytest.mark.parametrize("theta", [[3.0, 4.0], [-1.0, 2.0, 0.5]])
def test_the_derivative_of_the_sphere_is_the_printed_one(theta):
    t = jnp.array(theta)
    norm = jnp.linalg.norm(t)
    printed = jnp.eye(t.size) / norm - jnp.outer(t, t) / norm**3  # Sahoo et al. 2022, eq. 15
    assert jnp.allclose(jax.jacrev(lambda t: dp.Sphere()(t, dp.Argmax()))(t), printed, atol=1e-6)


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_the_sphere_neither_overflows_nor_underflows(size):
    theta = jnp.array([3.0, 4.0]) * size
    assert jnp.allclose(dp.Sphere()(theta, dp.Argmax()), jnp.array([0.6, 0.8]))


def test_plane_and_sphere():
    both = project(BOTH, THETA, dp.TopK(2))
    assert abs(jnp.sum(both)) < 1e-6 and abs(jnp.linalg.norm(both) - 1) < 1e-6
    pull = jax.vjp(lambda t: project(BOTH, t, dp.TopK(2)), THETA)[1]
    push = pull(jnp.array([5.0, 4.0, 4.0, 4.0]))[0]  # mostly along the normal
    assert abs(jnp.sum(push)) < 1e-6 and abs(dp.inner(push, THETA)) < 1e-6


SOLVERS = {
    "argmax": dp.Argmax(),
    "top-k": dp.TopK(2),
    "ranking": dp.Ranking(),
    "costs": dp.minimize(dp.Ranking()),
}


@table(SOLVERS)
def test_projections_keep_the_solution(row):
    thetas = jax.random.normal(jax.random.key(0), (1000, 5))
    assert all(jnp.all(keeps_solution(p, row, thetas)) for p in (dp.Plane(), dp.Sphere(), BOTH))


def test_a_map_that_changes_solutions_is_found():
    thetas = jax.random.normal(jax.random.key(0), (1000, 5))
    assert jnp.all(keeps_solution(dp.Sphere(), dp.BinaryChoice(), thetas))
    centered = keeps_solution(dp.Plane(jnp.ones(5)), dp.BinaryChoice(), thetas)  # these solutions share no hyperplane
    assert 0.0 < jnp.mean(centered) < 0.9


def test_noise_with_a_schedule():
    key, margin = jax.random.key(1), first_part(0.4, steps=50)
    noisy = perturbed_scores(THETA, dp.TopK(2), (), dp.TwoPoint(), 0.4, key)
    assert jnp.allclose(jnp.abs(noisy - THETA), 0.2)
    assert jnp.all(perturbed_scores(THETA, dp.TopK(2), (), dp.TwoPoint(), margin(0), key) == noisy)
    assert jnp.all(perturbed_scores(THETA, dp.TopK(2), (), dp.TwoPoint(), margin(50), key) == THETA)


def test_the_informed_margin():
    assert informed_margin(dp.TopK(2), THETA, LABEL, 0.5).tolist() == [1.75, 0.75, 0.25, -0.75]
    assert informed_margin(dp.minimize(dp.TopK(2)), -THETA, LABEL, 0.5).tolist() == [-1.75, -0.75, -0.25, 0.75]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtypes_jit_vmap_and_grad(dtype):
    with jax.enable_x64(dtype == jnp.float64), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        batch = jax.random.normal(jax.random.key(1), (7, 5), dtype)

        def prepare(theta, key):
            return perturbed_scores(theta, dp.Ranking(), BOTH, dp.Normal(), 0.3, key)

        out = jax.jit(jax.vmap(prepare, (0, None)))(batch, jax.random.key(0))
        assert out.dtype == dtype and jnp.allclose(jnp.sum(out**2, axis=1), 1)
        gradient = jax.grad(lambda t, k: jnp.sum(prepare(t, k) ** 3))
        slope = jax.jit(jax.vmap(gradient, (0, None)))(batch, jax.random.key(0))
        assert slope.dtype == dtype and jnp.all(jnp.abs(jnp.sum(slope, axis=1)) < 1e-5)
        assert jax.tree.leaves(jax.jit(lambda b: collapse_report(dp.Ranking(), b))(batch))[0].dtype == dtype


@jax.jit
def both_for_the_argmax(theta):
    return project(BOTH, theta, dp.Argmax())


REFUSALS = {
    "no plane": (lambda: project(dp.Plane(), THETA, dp.BinaryChoice()), "BinaryChoice states no hyperplane"),
    "normal": (
        lambda: project(dp.Plane(jnp.ones(3)), THETA, dp.Argmax()),
        "the normal has shape (3,), expected (4,)",
    ),
    "zero": (lambda: project(dp.Sphere(), jnp.zeros(3), dp.Argmax()), "they have no direction"),
    "equal, compiled": (lambda: both_for_the_argmax(jnp.full(3, 0.1)), "The scores collapsed: add noise"),
    "a class": (lambda: project(dp.Plane, THETA, dp.Argmax()), "is not a projection"),
    "another shape": (lambda: project(lambda t: t[:2], THETA, dp.Argmax()), "expected the same dtype and shape"),
    "no method": (lambda: project(Projection(), THETA, dp.Argmax()), "must define __call__(theta, solver)"),
    "no key": (
        lambda: perturbed_scores(THETA, dp.Argmax(), (), dp.Normal()),
        "Normal noise draws noise and needs a key",
    ),
    "label": (lambda: informed_margin(dp.TopK(2), THETA, jnp.ones(4), 1.0), "not in the polytope of TopK"),
    "ranks": (lambda: informed_margin(dp.Ranking(), THETA, LABEL, 1.0), "those of Ranking may have others"),
    "label shape": (lambda: informed_margin(dp.TopK(2), THETA, jnp.ones(3), 1.0), "the label y has shape (3,)"),
    "steps": (lambda: first_part(0.1, -1), "steps is -1"),
}


@table(REFUSALS)
def test_refusals(row):
    refuses(*row)
