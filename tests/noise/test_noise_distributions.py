"""Every fact that a noise distribution states, compared with integration of its density and with its draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate
from support import refuses, table

import diffperturb as dp
from diffperturb.noise.noise import IIDNoise, Noise

NOISES = {
    "normal": dp.Normal(),
    "gumbel": dp.Gumbel(),
    "centered gumbel": dp.CenteredGumbel(),
    "laplace": dp.Laplace(),
    "logistic": dp.Logistic(),
    "student": dp.StudentT(3.0),
    "power": dp.ExponentialPower(4.0),
}
LINE = np.linspace(-50, 50, 400_000)


def has_pairs(noise) -> bool:
    return type(noise).pair_excess is not IIDNoise.pair_excess


def facts(noise, t=LINE):
    """(stated, by integration) for each fact of a noise with independent entries."""
    g, G, s = map(np.asarray, jax.jit(lambda t: (jnp.exp(noise.log_pdf(t)), noise.cdf(t), noise.score(t)))(t))
    expect = lambda f: integrate.trapezoid(np.where(g > 0, f * g, 0), t)
    area = integrate.cumulative_trapezoid(G, t, initial=0)  # of G below t, so that I(a) = E[area(a + Z)]
    excess = lambda a: (float(noise.pair_excess(a)), expect(np.interp(a + t, t, area)))
    pairs = {"I(0.3)": excess(0.3), "I(-2)": excess(-2.0)} if has_pairs(noise) else {}
    return pairs | {
        "mass": (1.0, expect(1.0)),
        "mean": (noise.mean, expect(t)),
        "variance": (noise.variance, expect((t - noise.mean) ** 2)),
        "fisher": (noise.fisher, expect(np.minimum(s**2, 1e6))),
        "E[s]": (0.0, expect(np.maximum(s, -1e3))),
        "G(0.7)": (float(noise.cdf(0.7)), np.interp(0.7, t, integrate.cumulative_trapezoid(g, t, initial=0))),
    }


@table(NOISES)
def test_stated_facts_are_those_of_the_density(row):
    student = isinstance(row, dp.StudentT)
    with jax.enable_x64(True):
        for fact, (stated, measured) in facts(row).items():
            if student and fact == "variance":
                # of the two tails beyond 50, where the density is 6 sqrt(3) / (pi t^4)
                measured += 12 * 3**0.5 / np.pi / 50
            allowed = 1e-3 if student else 2e-6
            assert abs(stated - measured) < allowed, f"{fact} is stated as {stated} but integrates to {measured}"


def equal_sides(noise, t, h=1e-4):
    """(one side, the other, how near) of each equation."""
    vgrad = lambda f: jax.vmap(jax.grad(f))(t)
    ends = jnp.array([noise.tails[0], noise.reflect(jnp.array(noise.tails[1]))])
    sides = {
        "score": (noise.score(t), -vgrad(noise.log_pdf), 1e-12),
        "icdf": (noise.icdf(noise.cdf(t)), t, 1e-6),
        "icdf by bisection": (IIDNoise.icdf(noise, noise.cdf(t)), t, 1e-5),
        "reflect": (noise.cdf(noise.reflect(t)), 1 - noise.cdf(t), 1e-12),
        "cdf'": (vgrad(noise.cdf), jnp.exp(noise.log_pdf(t)), 1e-12),
        "log_cdf": (jnp.exp(noise.log_cdf(t)), noise.cdf(t), 1e-12),
        "tails": (noise.cdf(ends), jnp.zeros(2), 1e-16),
    }
    if has_pairs(noise):
        ahead = noise.pair_excess
        sides["I(t) - I(-t) = t"] = ahead(t) - ahead(-t), t, 1e-12
        sides["I'"] = vgrad(ahead), (ahead(t + h) - ahead(t - h)) / (2 * h), 1e-7
        sides["I' at a tie"] = jax.grad(ahead)(jnp.zeros(())), jnp.array(0.5), 0.0
    return sides


@table(NOISES)
def test_functions_agree_with_each_other(row):
    with jax.enable_x64(True):
        t = jnp.array([-3.0, -0.8, -0.2, 0.1, 0.45, 0.55, 2.0, 5.0]) / (4 if row == dp.ExponentialPower(4.0) else 1)
        for name, (one, other, near) in jax.jit(equal_sides, static_argnums=0)(row, t).items():
            np.testing.assert_allclose(one, other, rtol=1e-7, atol=near, err_msg=name)


def test_which_noises_state_a_pair_function():
    assert [name for name, noise in NOISES.items() if not has_pairs(noise)] == ["student", "power"]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64], ids=["float32", "float64"])
@table(NOISES)
def test_draws_follow_the_distribution(row, dtype):
    """The share of draws below the 10, 50 and 90 % points, within 5 standard errors."""

    def below(q):
        return row.sample(jax.random.key(0), (30_000,), q.dtype), row.icdf(q)

    with jax.enable_x64(dtype == jnp.float64):
        z, points = jax.jit(below)(q := np.array([0.1, 0.5, 0.9], dtype))
        share = np.mean(np.asarray(z)[:, None] < points, axis=0)
        assert z.dtype == dtype and np.all(abs(share - q) < 5 * np.sqrt(q * (1 - q) / z.size))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64], ids=["float32", "float64"])
def test_normal_draws_are_those_of_jax(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        key = jax.random.key(1)
        assert jnp.all(dp.Normal().sample(key, (9,), dtype) == jax.random.normal(key, (9,), dtype))


def scores(noise):
    return lambda z: noise.score(z).sum()


REFUSED = {
    "laplace, second derivative": (lambda: jax.grad(scores(dp.Laplace()))(jnp.ones(2)), "kink at 0"),
    "power, third derivative": (
        lambda: jax.hessian(scores(dp.ExponentialPower(1.5)))(jnp.ones(2)),
        "ExponentialPower(beta=1.5) has a kink at 0 in this order",
    ),
    "no mean": (lambda: dp.StudentT(0.5).mean, "has no mean"),
    "df": (lambda: dp.StudentT(-1.0), "expected a finite number above 0, degrees of freedom"),
    "beta": (lambda: dp.ExponentialPower(0.5), "expected a finite number of at least 1, an exponent"),
    "no pair function": (lambda: dp.StudentT(3.0).pair_excess(0.0), "StudentT states no closed form for a pair"),
    "no sample": (lambda: Noise().sample(jax.random.key(0), (2,)), "Noise must define sample(key, shape, dtype)"),
    "no log_prob": (lambda: Noise().log_prob(jnp.ones(2)), "Noise must define log_prob(z)"),
    "no log_pdf": (lambda: IIDNoise().log_prob(jnp.ones(2)), "IIDNoise must define log_pdf(t)"),
    "no log_cdf": (lambda: IIDNoise().cdf(jnp.ones(2)), "IIDNoise must define log_cdf(t)"),
}


@table(REFUSED)
def test_refused(row):
    call, words = row
    refuses(call, words)


def test_the_power_density_may_be_differentiated_as_often_as_it_can():
    first = jax.grad(scores(dp.ExponentialPower(1.5)))(jnp.ones(2))
    np.testing.assert_allclose(first, 0.75, rtol=1e-6)
    assert np.isfinite(jax.hessian(scores(dp.ExponentialPower(4.0)))(jnp.zeros(2))).all()
    assert [dp.ExponentialPower(b).smoothness for b in (1.0, 1.5, 2.0, 3.0)] == [1, 2, np.inf, 3]
