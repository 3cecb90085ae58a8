"""Solvers on real data, where the environment names a folder that has them."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffperturb.foundations.solver import minimize
from diffperturb.solvers.grid_paths import GridPath, _grid_path_in_xla


@pytest.fixture
def warcraft():
    """Costs (2, 12, 12) and shortest paths of two real Warcraft maps."""
    if "DIFFPERTURB_DATA" not in os.environ:
        pytest.skip("DIFFPERTURB_DATA is not set: it names the folder that holds warcraft/warcraft_two_instances.npz")
    path = Path(os.environ["DIFFPERTURB_DATA"]) / "warcraft" / "warcraft_two_instances.npz"
    if not path.exists():
        pytest.skip(f"{path.name} is not in the warcraft folder of DIFFPERTURB_DATA")
    return np.load(path)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("route", ["solver", "xla"])
def test_the_paths_of_real_maps_cost_what_their_labels_cost(warcraft, dtype, route):
    with jax.enable_x64(dtype == jnp.float64):
        costs = jnp.asarray(warcraft["costs"], dtype)
        corners = jnp.array([0, 143], jnp.int32)
        solve = minimize(GridPath()) if route == "solver" else lambda c: _grid_path_in_xla(True, c, corners)
        y = np.asarray(jax.vmap(solve)(costs))
    exact = warcraft["costs"].astype(float)
    ours, labels = ((p * exact).sum((1, 2)) for p in (y, warcraft["paths"]))
    assert ours[0] == 26.998046875
    assert np.array_equal(ours, labels)
