"""Learning learns: every method with every solver that it fits, on planted problems."""

import pytest

from diffperturb.planted import fit_pair, pairs


@pytest.mark.parametrize(("solver", "method"), pairs())
def test_learning_reduces_loss_error_and_regret(solver, method):
    learned = fit_pair(solver, method)
    for what in ("loss", "error", "regret"):
        fell, standard_error = learned.gain(what)
        assert fell > 3 * standard_error, f"{what}: {getattr(learned, what).tolist()}"
