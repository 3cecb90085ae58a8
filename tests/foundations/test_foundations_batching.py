"""Conditions of a whole batch, and arrays that are computed once."""

import jax
import jax.numpy as jnp
import pytest

from diffperturb.foundations.batching import agree_along, agreed_axes, any_in_batch, unfused


def test_a_condition_is_reduced_over_the_batch():
    assert jax.vmap(any_in_batch)(jnp.array([False, True])).tolist() == [True, True]
    assert jax.vmap(any_in_batch)(jnp.array([False, False])).tolist() == [False, False]
    assert jax.vmap(jax.vmap(any_in_batch))(jnp.zeros((2, 3), bool).at[1, 2].set(True)).all()


def test_a_branch_stays_a_branch():
    def branch(bad):
        return jax.lax.cond(any_in_batch(bad), lambda: 1, lambda: 0)

    assert str(jax.make_jaxpr(jax.vmap(branch))(jnp.zeros(3, bool))).count("cond[") == 1


def test_axes_are_known_inside_their_block_only():
    with pytest.raises(RuntimeError), agree_along("x"):
        with agree_along("y"):
            assert agreed_axes() == ("x", "y")
        assert agreed_axes() == ("x",)
        raise RuntimeError
    assert agreed_axes() == ()


def test_devices_agree():
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("x",))

    def shared(bad):
        with agree_along("x"):
            return any_in_batch(bad)[None]

    spec = jax.sharding.PartitionSpec("x")
    for bad in (True, False):
        out = jax.shard_map(shared, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)(jnp.array([bad]))
        assert out.tolist() == [bad]


def test_an_array_is_stored():
    stored = jax.jit(jax.vmap(lambda t: unfused(lambda: jnp.arange(3.0), t)))
    assert jnp.all(stored(jnp.zeros((2, 1))) == jnp.arange(3.0))
    assert jnp.all(jnp.isnan(stored(jnp.full((2, 1), jnp.nan))))
