"""Random bits and uniform numbers are those of JAX."""

import jax
import jax.numpy as jnp
import pytest
from support import table

from diffperturb.noise._bits import _threefry, canonical_dtype, random_bits, random_uniform

KEYS = {
    "key": lambda: jax.random.key(7),
    "raw key": lambda: jax.random.PRNGKey(8),
    "another generator": lambda: jax.random.key(9, impl="rbg"),
}
DTYPES = pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64], ids=["float32", "float64"])


@DTYPES
@table(KEYS)
def test_bits(row, dtype):
    with jax.enable_x64(dtype == jnp.float64):
        key = row()
        ours = random_bits(key, (5, 3), dtype)
        assert ours.dtype == (jnp.uint64 if dtype == jnp.float64 else jnp.uint32)
        assert jnp.all(ours == jax.random.bits(key, (5, 3), ours.dtype))


def test_half_precision_goes_to_jax():
    key = jax.random.key(7)
    assert jnp.all(random_bits(key, (5,), jnp.float16) == jax.random.bits(key, (5,), jnp.uint16))


def test_threefry_is_that_of_its_authors():
    """The known answers of Random123's kat_vectors, threefry2x32 with 20 rounds."""
    answers = {
        (0x0,) * 4: (0x6B200159, 0x99BA4EFE),
        (0xFFFFFFFF,) * 4: (0x1CB996FC, 0xBB002BE7),
        (0x13198A2E, 0x03707344, 0x243F6A88, 0x85A308D3): (0xC4923A9C, 0x483DF7A0),
    }
    for words, answer in answers.items():
        assert tuple(int(x) for x in _threefry(*map(jnp.uint32, words))) == answer


@DTYPES
def test_uniform_numbers(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        key = jax.random.key(0)
        assert jnp.all(random_uniform(key, (40,), dtype) == jax.random.uniform(key, (40,), dtype))
        # jax.random.uniform is compiled, and a compiler may round `unit * (high - low) + low` once instead of twice
        ours = jax.jit(lambda key: random_uniform(key, (40,), dtype, -1.5, 2.0))(key)
        assert jnp.all(ours == jax.random.uniform(key, (40,), dtype, -1.5, 2.0))


def test_dtypes_are_those_that_jax_computes_in():
    assert canonical_dtype(float) == jnp.float32
    with jax.enable_x64(True):
        assert canonical_dtype(float) == jnp.float64
