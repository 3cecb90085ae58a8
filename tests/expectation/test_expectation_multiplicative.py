"""Multiplicative noise against the formula of an exchange option, and as a loss."""

import jax
import jax.numpy as jnp
from support import refuses, table

import diffperturb as dp

KEY, COSTS = jax.random.key(0), -jnp.array([1.0, 2.0, 4.0])
AT = jnp.array([1.0, 1.3]), jnp.array(0.6)


def margrabe(t, e):
    ratio, ndtr = jnp.log(t[0] / t[1]) / (2**0.5 * e), jax.scipy.special.ndtr
    first = ndtr(ratio)
    value = t[0] * ndtr(ratio + e / 2**0.5) + t[1] * ndtr(e / 2**0.5 - ratio)
    return jnp.stack([first, 1 - first]), value


def of(y, F):
    """Values, first and second derivatives."""
    return lambda t, e: {
        "y": y(t, e),
        "F": F(t, e),
        "J": jax.jacrev(y)(t, e),
        "dy/deps": jax.jacfwd(y, 1)(t, e),
        "dF": jax.grad(F, (0, 1))(t, e),
        "Hessian of F": jax.hessian(F)(t, e),
        "d2F/dtheta deps": jax.jacfwd(jax.grad(F), 1)(t, e),
    }


@table({"leave-one-out": dp.ScoreFunction()}, {"solution": dp.ScoreFunction("solution")})
def test_two_orders_meet_the_price_of_an_exchange_option(row):
    option = lambda e: dp.MultiplicativePerturbed(dp.Argmax(), e, dp.MonteCarlo(2000, jacobian=row))
    estimate = lambda k: of(lambda t, e: option(e)(t, key=k), lambda t, e: option(e).max(t, key=k))(*AT)
    keys = jax.random.split(jax.random.key(1), 64)
    found = jax.jit(jax.vmap(estimate))(keys)
    truth = jax.jit(of(lambda t, e: margrabe(t, e)[0], lambda t, e: margrabe(t, e)[1]))(*AT)

    def deviation(found, truth):
        se = jnp.std(found, axis=0, ddof=1) / len(keys) ** 0.5
        return float(jnp.max(jnp.abs(jnp.mean(found, axis=0) - truth) / jnp.maximum(se, 1e-6)))

    deviations = jax.tree.map(deviation, found, truth)
    assert max(jax.tree.leaves(deviations)) < 5, deviations


def test_signs_stay_and_a_loss_is_learned():
    p = dp.MultiplicativePerturbed(dp.Argmax(), 0.5)
    samples = p.samples(COSTS, key=KEY)
    assert jnp.all(samples.solutions == jax.vmap(dp.Argmax().solve)(-jnp.exp(samples.draws.scores)))
    loss, y = dp.FenchelYoungLoss(p), jnp.array([0.0, 1.0, 0.0])
    before, slope = jax.value_and_grad(loss)(COSTS, y, key=KEY)
    assert 0 < loss(COSTS - 0.3 * slope, y, key=KEY) < before


def test_costs_with_their_own_sign():
    cheapest = dp.MultiplicativePerturbed(dp.minimize(dp.Argmax()), 0.5)
    assert jnp.allclose(
        cheapest.min(-COSTS, key=KEY), -dp.MultiplicativePerturbed(dp.Argmax(), 0.5).max(COSTS, key=KEY)
    )


ZERO = jnp.array([0.0, 1.0])
P = dp.MultiplicativePerturbed(dp.Argmax())
REFUSED = {
    "a zero": (lambda: P(ZERO, key=KEY), "theta has 1 zero(s)", ValueError),
    "a zero, jit": (lambda: jax.jit(lambda t: P(t, key=KEY))(ZERO), "use Perturbed"),
    "a maximum of samples": (lambda: P.samples(COSTS, key=KEY).max, "no maximum to read", TypeError),
    "a minimum of scores": (lambda: P.min(COSTS, key=KEY), "read its perturbed maximum, .max", TypeError),
    "a maximum of costs": (
        lambda: dp.MultiplicativePerturbed(dp.minimize(dp.Argmax())).max(-COSTS, key=KEY),
        "read its perturbed minimum, .min",
        TypeError,
    ),
    "no maximizer": (lambda: dp.MultiplicativePerturbed(dp.Sorting()), "perturb it with Perturbed", TypeError),
    "exact": (
        lambda: dp.MultiplicativePerturbed(dp.Argmax(), 0.5, dp.Exact()),
        "method is Exact(), expected MonteCarlo",
        TypeError,
    ),
    "epsilon 0": (lambda: dp.MultiplicativePerturbed(dp.Argmax(), 0.0), "epsilon is 0.0", ValueError),
}


@table(REFUSED)
def test_refused(row):
    refuses(*row)
