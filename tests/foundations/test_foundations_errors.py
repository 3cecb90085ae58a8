"""Run-time errors in every mode, and derivatives that are refused."""

import jax
import jax.numpy as jnp
import pytest
from support import refuses, table

from diffperturb.foundations.errors import RunTimeValueError, error_if, refuse_derivative, run_time_checks


def safe_sqrt(x):
    return jnp.sqrt(error_if(x, x < 0, lambda x: f"square root of {x}: give a number >= 0", x))


def pair(x):
    """A pytree through a check of two numbers."""
    x = error_if({"a": x, "b": 2}, x < 0, lambda x, y: f"{x} and {y}", x, x + 1)
    return x["a"] * x["b"]


FAULTS = {
    "plain": (lambda: safe_sqrt(jnp.float32(-1)), "square root of -1.0"),
    "jit": (lambda: jax.jit(safe_sqrt)(-1.0), "square root of -1.0"),
    "jit of vmap": (
        lambda: jax.jit(jax.vmap(safe_sqrt))(jnp.array([1.0, -2.0])),
        "-2.0: give a number >= 0 [instance 1 of the batch]",
    ),
    "two batch axes": (
        lambda: jax.vmap(jax.vmap(safe_sqrt))(jnp.ones((2, 3)).at[1, 2].set(-2.0)),
        "[instance (1, 2) of the batch]",
    ),
    "jit of vmap of grad": (
        lambda: jax.jit(jax.vmap(jax.grad(safe_sqrt)))(jnp.array([-2.0])),
        "[instance 0 of the batch]",
    ),
    "jit of hessian": (lambda: jax.jit(jax.hessian(safe_sqrt))(-3.0), "square root of -3.0"),
    "a pytree": (lambda: jax.jit(pair)(-3.0), "-3.0 and -2.0"),
}


@table(FAULTS)
def test_a_fault_is_an_error_in_every_mode(row):
    call, words = row
    refuses(call, words)


def test_the_kind_of_error():
    with pytest.raises(RunTimeValueError):
        safe_sqrt(jnp.float32(-1))
    assert issubclass(RunTimeValueError, ValueError)


def test_sound_numbers_pass_unchanged():
    assert jax.jit(jax.vmap(jax.grad(safe_sqrt)))(jnp.array([1.0, 4.0])).tolist() == [0.5, 0.25]
    assert jax.jit(pair)(3.0) == 6.0
    assert jnp.isclose(jax.jit(jax.hessian(safe_sqrt))(4.0), -1 / 32)


def test_checks_can_be_switched_off():
    with run_time_checks(False):
        assert jnp.isnan(safe_sqrt(jnp.float32(-1))) and jnp.isnan(jax.jit(lambda x: safe_sqrt(x))(-1.0))
        with run_time_checks(True):
            refuses(lambda: safe_sqrt(jnp.float32(-1)), "square root of -1.0")
    refuses(lambda: safe_sqrt(jnp.float32(-1)), "square root of -1.0")


def test_a_refused_derivative():
    kept = refuse_derivative({"weights": jnp.ones(2)}, "the derivative of the weights was asked for")
    assert kept["weights"].tolist() == [1, 1]
    assert jax.jit(jax.grad(lambda t: t * refuse_derivative(3.0, "no")))(2.0) == 3
    assert jax.jit(lambda t: refuse_derivative(t, "no"))(2.0) == 2.0
    assert jax.grad(lambda t: refuse_derivative(jnp.int32(2), "no") * t)(1.0) == 2.0
    fixed = lambda t: refuse_derivative(t, "the scores are fixed")
    for derivative in (jax.grad, jax.jacfwd, jax.hessian):
        refuses(lambda: derivative(fixed)(1.0), "the scores are fixed", TypeError)  # noqa: B023
