"""External solvers: what is refused, with the name of the solver, the place in the batch and the scores."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from solvers.external_functions import fatal, fragile, sleeper
from support import refuses, table

from diffperturb import MonteCarlo, Normal, Perturbed, external
from diffperturb.solvers._runtime.callbacks import CallbackError

KEY = jax.random.key(0)
BATCH = jnp.ones((3, 4, 2)).at[2, 1, 0].set(-7.0)
LOST = jnp.ones((3, 2)).at[1, 0].set(-1.0)


def test_an_exception_on_plain_numbers_carries_the_instance_and_its_cause():
    with pytest.raises(CallbackError, match="fragile: raised ZeroDivisionError: no way out") as seen:
        external(fragile, (2,))(jnp.array([-1.0, 2.0]))
    assert seen.value.instance.tolist() == [-1, 2] and isinstance(seen.value.__cause__, ZeroDivisionError)


def test_an_exception_in_a_batch_names_the_place():
    weak = external(fragile, (2,))
    words = "fragile: raised ZeroDivisionError: no way out; theta = [-7.  1.] [instance (2, 1) of the batch]"
    for run in (jax.vmap(jax.vmap(weak)), jax.jit(jax.vmap(jax.vmap(weak)))):
        refuses(lambda run=run: run(BATCH), words)
        assert weak.last_fault.place == (2, 1) and weak.last_fault.instance.tolist() == [-7, 1]
        assert isinstance(weak.last_fault.__cause__, ZeroDivisionError)
    perturbed = jax.jit(lambda t: Perturbed(weak, Normal(), 1.0, MonteCarlo(50))(t, key=KEY))
    refuses(lambda: perturbed(jnp.zeros(2)), "fragile: raised ZeroDivisionError")


def test_halving_finds_the_instance_that_fails_a_batched_function():
    whole = external(lambda rows: 1 / 0 if rows.min() < 0 else rows > 0, (2,), batched=True, name="whole")
    refuses(lambda: jax.jit(jax.vmap(jax.vmap(whole)))(BATCH), "[instance (2, 1) of")
    assert whole.counts.calls <= 2 + 2 * np.log2(12) and whole.last_fault.instance.tolist() == [-7, 1]


PAIR = np.array([2, 5])


@table(
    {
        "shape": (np.ones(3), {}, "returned shape (3,), expected (2,)"),
        "None": (None, {}, "returned None, expected a solution"),
        "strings": (np.array(["a", "b"]), {}, "returned a ndarray of dtype <U1, expected numbers"),
        "complex": (np.ones(2) * 1j, {}, "returned a ndarray of dtype complex128, expected numbers"),
        "dict": ({1: 2}, {}, "returned a dict of dtype object, expected numbers"),
        "ragged": ([[1, 2], 3], {}, "returned a list that is not an array"),
        "NaN": (np.array([1.0, np.nan]), {}, "returned NaN or an infinite number"),
        "overflow": (np.array([1.0, 1e300]), {}, "returned NaN or an infinite number"),  # in single precision
        "infeasible": (PAIR, {"feasible": lambda y: y.max() < 5}, "returned a solution that feasible rejects"),
        "feasible raises": (PAIR, {"feasible": lambda y: y[int(y[1])] == 0}, "feasible raised IndexError"),
        "feasible is odd": (
            PAIR,
            {"feasible": lambda y: y[1] != 5 or 0.5},
            "feasible returned an array of float64",
        ),
        "binary": (PAIR, {"binary": True}, "returned an entry other than 0 and 1, but binary"),
        "radius": (PAIR, {"radius": 3.0}, "returned a solution longer than the stated radius 3"),
    }
)
def test_a_wrong_solution_is_refused_alone_and_in_a_compiled_batch(row):
    y, options, words = row
    solver = external(lambda theta: y if theta[0] == 1 else theta, (2,), name="odd", **options)
    batch = jnp.zeros((3, 2)).at[2].set(1.0)
    refuses(lambda: solver(batch[2]), f"odd: {words}")
    refuses(lambda: jax.jit(jax.vmap(solver))(batch), f"odd: {words}")
    assert solver.last_fault.place == (2,) and solver.last_fault.instance.tolist() == [1, 1]


def test_a_wrong_stack_is_refused():
    rows = external(lambda rows: rows[0], (2,), batched=True, name="rows")
    refuses(lambda: jax.vmap(rows)(BATCH[0]), "returned shape (2,), expected (4, 2)")
    judged = external(lambda rows: rows, (2,), batched=True, feasible=lambda ys: ys[:, 0] < 3, name="judged")
    words = "judged: returned a solution that feasible rejects; theta = [4. 5.] [instance 2 of the batch]"
    refuses(lambda: jax.vmap(judged)(jnp.arange(10.0).reshape(5, 2)), words)


@table(
    {
        "a thread": ({}, "runs on in its thread"),
        "a process": ({"processes": True, "workers": 1}, "was killed"),
    }
)
def test_a_call_beyond_its_time_limit_is_refused_and_the_solver_works_on(row):
    options, end = row
    hanging = external(sleeper, (2,), time_limit=0.2, **options)
    words = f"sleeper: gave no solution within the time limit of 0.2 s, and {end}"
    refuses(lambda: jax.jit(jax.vmap(hanging))(LOST), words)
    assert hanging.last_fault.place == (1,)
    assert hanging(jnp.ones(2)).tolist() == [1, 1]
    hanging.close()


def test_the_death_of_a_process_is_an_error_and_the_solver_works_on():
    deadly = external(fatal, (2,), processes=True, workers=1)
    words = "fatal: the worker process ended with exit code 3 during the call; theta = [-1.  1.] [instance 1 of"
    refuses(lambda: jax.vmap(deadly)(LOST), words)
    assert deadly(jnp.ones(2)).tolist() == [1, 1]
    deadly.close()


def test_an_exception_in_a_process_keeps_its_traceback():
    apart = external(fragile, (2,), processes=True, workers=1)
    refuses(lambda: apart(-jnp.ones(2)), "fragile: raised ZeroDivisionError: no way out; theta = [-1. -1.]")
    assert "no way out" in apart.last_fault.__cause__.__notes__[0].splitlines()[-1]
    apart.close()


weak = lambda: external(fragile, (2,))


@table(
    {
        "shape": (lambda: weak()(jnp.ones(3)), "fragile got scores of shape (3,), expected (2,)"),
        "fn": (lambda: external(5, (2,)), "fn is 5, expected a function"),
        "feasible": (lambda: external(fragile, (2,), feasible=5), "feasible is 5, expected a function"),
        "unhashable": (lambda: external(type("F", (list,), {"__call__": len})(), (2,)), "can't be hashed"),
        "workers": (lambda: external(fragile, (2,), workers=-1), "workers is -1"),
        "time limit": (lambda: external(fragile, (2,), time_limit=0), "time_limit is 0, expected seconds"),
        "cache": (lambda: external(fragile, (2,), cache=-1), "cache is -1"),
        "dtype": (lambda: external(fragile, (2,), dtype=int), "dtype is int64; scores are floating-point numbers"),
        "data": (lambda: external(fragile, (2,), data=np.ones(3)), "data is a ndarray, expected a tuple of arrays"),
        "strings": (lambda: external(fragile, (2,), data=("graph",)), "data holds a str, expected arrays of numbers"),
        "integers": (lambda: external(fragile, (2,), data=(np.array([2**40]),)), "that JAX would cut"),
        "hyperplane": (lambda: external(fragile, (2,), hyperplane=np.ones(2)), "expected (a, b) with <a, y> = b"),
        "no fact": (lambda: weak().radius((2,)), "fragile states no radius: pass radius= to external"),
        "NaN": (lambda: weak()(jnp.array([1.0, jnp.nan])), "theta[1] is nan"),
    }
)
def test_what_is_wrong_with_the_options_is_refused_at_once(row):
    call, words = row
    refuses(call, words)


def test_a_function_that_can_not_travel_is_refused_at_once():
    lock = threading.Lock()
    call = lambda: external(lambda theta: theta if lock else theta, (2,), processes=True)
    refuses(call, "can't be sent to another process", TypeError)
