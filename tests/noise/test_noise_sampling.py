"""Sampling schemes: they draw the stated distribution, and their standard errors are right."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from scipy.stats import qmc
from support import refuses, table

import diffperturb as dp
from diffperturb.noise.noise import Noise
from diffperturb.noise.sampling import Sampling, _directions, _sobol_digits, block_means, standard_error


def test_both_members_of_a_pair_have_the_distribution():
    z = dp.Antithetic().draw(dp.Gumbel(), jax.random.key(0), 2000, (1,))
    for member in (z[::2], z[1::2]):
        assert abs(member.mean() - dp.Gumbel().mean) < 5 * (dp.Gumbel().variance / 1000) ** 0.5


def test_symmetric_noise_is_mirrored():
    z = dp.Antithetic().draw(dp.Laplace(), jax.random.key(1), 10, (3,), jnp.float32)
    assert jnp.all(z[::2] == -z[1::2])


def test_standard_errors_know_the_blocks():
    z = {s: s.draw(dp.Normal(), jax.random.key(2), 4000, ()) for s in (dp.IID(), dp.Antithetic())}
    assert standard_error(z[dp.Antithetic()], 2) == 0
    assert 0.9 < standard_error(z[dp.Antithetic()] ** 2, 2) / (2 / 2000) ** 0.5 < 1.1
    assert 0.9 < standard_error(z[dp.IID()] ** 2) / (2 / 4000) ** 0.5 < 1.1
    assert block_means(jnp.array([1.0, 3.0, 10.0, 20.0]), 2).tolist() == [2.0, 15.0]


def test_orthogonal_draws_are_orthogonal_and_normal():
    z = dp.Orthogonal().draw(dp.Normal(), jax.random.key(0), 3, (3,))
    np.testing.assert_allclose((z @ z.T)[~np.eye(3, dtype=bool)], 0, atol=1e-5)
    z = dp.Orthogonal(antithetic=True).draw(dp.Normal(), jax.random.key(0), 6000, (3,))
    assert jnp.all(z[::2] == -z[1::2])
    for column in z.T:  # still standard normal, entry by entry
        assert abs(jnp.mean(column**2) - 1) < 5 * (2 / 6000) ** 0.5
        assert abs(jnp.mean(column < 0.5) - dp.Normal().cdf(0.5)) < 5 * 0.5 / 6000**0.5


def test_without_the_scramble_the_points_are_those_of_scipy():
    ours = np.asarray(_sobol_digits(8, 5)) / 2.0**32
    assert np.allclose(ours, qmc.Sobol(5, scramble=False).random(8))


def test_every_small_interval_holds_one_point():
    for sampling in (dp.Sobol(1), dp.Stratified(1)):
        u = sampling.points(jax.random.key(5), 256, 7, jnp.float32)
        assert jnp.all(jnp.sort(jnp.floor(u * 256), axis=0) == jnp.arange(256)[:, None])


def test_every_cell_of_a_grid_holds_one_sobol_point():
    u = dp.Sobol(1).points(jax.random.key(5), 64, 2, jnp.float32)
    cells = jnp.floor(u * 8) @ jnp.array([8.0, 1.0])
    assert jnp.all(jnp.sort(cells) == jnp.arange(64))


SCHEMES = {
    "iid": dp.IID(),
    "antithetic": dp.Antithetic(),
    "orthogonal": dp.Orthogonal(),
    "orthogonal antithetic": dp.Orthogonal(antithetic=True),
    "stratified": dp.Stratified(),
    "sobol": dp.Sobol(),
}


def smooth(z):
    """A nonlinear function of three entries."""
    return jax.nn.sigmoid(z[..., 0] + z[..., 1] * z[..., 2])


def truth():
    return jnp.mean(smooth(dp.Normal().sample(jax.random.key(6), (1_000_000, 3))))


@table(SCHEMES)
def test_intervals_cover_the_truth_as_often_as_they_should(row):
    """Over 400 keys; 95 % intervals are Student's, because there are few blocks."""
    draws = 96
    block = row.block_size(draws, (3,))

    def estimate(key):
        values = smooth(row.draw(dp.Normal(), key, draws, (3,)))
        return jnp.mean(values), standard_error(values, block)

    mean, error = jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(7), 400))
    exact = truth()
    assert abs(jnp.mean(mean) - exact) < 5 * (jnp.std(mean) / 20 + 3e-4)  # unbiased
    width = stats.t.ppf(0.975, draws // block - 1)
    coverage = float(jnp.mean(jnp.abs(mean - exact) < width * error))
    assert abs(coverage - 0.95) < 5 * (0.95 * 0.05 / 400) ** 0.5


REFUSED = {
    "odd number": (lambda: dp.Antithetic().check(dp.Normal(), 5, (3,)), "take 6, or IID()"),
    "none": (lambda: dp.IID().check(dp.Normal(), 0, (3,)), "num_samples is 0"),
    "a float": (lambda: dp.IID().check(dp.Normal(), 2.5, (3,)), "expected a whole number"),
    "directions": (lambda: dp.Orthogonal().check(dp.Gumbel(), 9, (3,)), "the same in all directions"),
    "part of a block": (
        lambda: dp.Orthogonal().check(dp.Normal(), 10, (3,)),
        "multiples of 3 draws for scores of shape (3,): take 12",
    ),
    "no inverse": (lambda: dp.Sobol().check(Noise(), 16, (3,)), "needs a noise with independent entries"),
    "no mirror": (lambda: dp.Antithetic().check(Noise(), 16, (3,)), "needs a noise with independent entries"),
    "replicates": (lambda: dp.Sobol(replicates=0), "replicates is 0"),
    "too many entries": (lambda: _directions(30_000), "serves up to 21201 entries"),
    "one block": (lambda: standard_error(jnp.ones(2), block=2), "num_samples >= 4"),
    "no draw": (lambda: Sampling().draw(dp.Normal(), None, 2, ()), "Sampling must define draw(noise, key,"),
}


@table(REFUSED)
def test_refused(row):
    call, words = row
    refuses(call, words)
