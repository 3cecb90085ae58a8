"""What the checks of arguments accept, and the messages of what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
from support import refuses, table

from diffperturb.foundations.checks import (
    check_count,
    check_finite,
    check_key,
    check_positive,
    check_scores,
    check_vector,
)

REFUSED = {
    "integer scores": (lambda: check_scores([1, 2]), "theta.astype(float)"),
    "a batch": (lambda: check_scores(jnp.zeros((5, 3)), (3,)), "theta has shape (5, 3), expected (3,)"),
    "a batch, the fix": (lambda: check_scores(jnp.zeros((5, 3)), (3,)), "use jax.vmap"),
    "nan": (lambda: check_finite(jnp.array([0.0, jnp.nan])), "theta[1] is nan (1 of 2 entries are not finite)"),
    "inf in jit": (lambda: jax.jit(check_finite)(jnp.array([0.0, jnp.inf])), "theta[1] is inf"),
    "nan in a matrix": (lambda: check_finite(jnp.eye(2).at[1, 0].set(jnp.nan), "costs"), "costs[1, 0] is nan"),
    "negative": (lambda: check_positive(-1.0, "epsilon"), "epsilon is -1.0"),
    "zero in jit": (lambda: jax.jit(lambda e: check_positive(e, "epsilon"))(0.0), "epsilon is 0.0"),
    "infinite": (lambda: check_positive(jnp.inf, "epsilon", "; hint"), "it must be a finite number above 0; hint"),
    "several": (lambda: check_positive(jnp.ones(2), "epsilon"), "epsilon has shape (2,), expected a scalar"),
    "no key": (lambda: check_key(None, "p(theta)"), "p(theta) draws noise and needs a key"),
    "a seed": (lambda: check_key(0), "key is 0 of type int, expected a JAX random key"),
    "floats": (lambda: check_key(jnp.zeros(2)), "array of float32"),
    "keys": (lambda: check_key(jax.random.split(jax.random.key(0), 3)), "expected ONE key"),
    "raw keys": (lambda: check_key(jax.random.split(jax.random.PRNGKey(0), 3)), "expected a JAX random key"),
    "too large": (lambda: check_count(6, "k", most=5), "k is 6, expected from 1 to 5"),
    "too small": (lambda: check_count(0, "k", hint=", the size"), "k is 0, expected at least 1, the size"),
    "a float": (lambda: check_count(2.0, "num_samples"), "expected a whole number"),
    "a bool": (lambda: check_count(True, "num_samples"), "True of type bool, expected a whole number"),
    "a matrix": (lambda: check_vector((4, 2), "argmax"), "argmax got scores of shape (4, 2), expected (d,)"),
    "empty": (lambda: check_vector((0,), "argmax"), "expected (d,) with d >= 1"),
}


@table(REFUSED)
def test_refused(row):
    call, words = row
    refuses(call, words)


def test_accepted():
    assert check_finite(check_scores([1.0, 2.0], (2,))).tolist() == [1.0, 2.0]
    one = check_positive(1, "epsilon")
    assert one == 1.0 and one.dtype == jnp.float32
    for key in (jax.random.key(0), jax.random.PRNGKey(0), np.asarray(jax.random.PRNGKey(0))):
        assert check_key(key) is key
    assert check_count(np.int64(3), "k", most=5) == 3 and type(check_count(np.int64(3), "k")) is int
    assert check_vector((4,), "argmax") == 4
