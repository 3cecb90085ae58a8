"""Intervals contain the true value as often as they say."""

import numpy as np
from support import refuses

from diffperturb.evidence.intervals import over_items, over_seeds


def contains(interval, truth) -> bool:
    return interval["low"] <= truth <= interval["high"]


def test_coverage():
    rng = np.random.default_rng(0)
    by_seeds = np.mean([contains(over_seeds(rng.normal(3, 2, 5)), 3) for _ in range(4000)])
    by_items = np.mean([contains(over_items(rng.binomial(540, 0.97) / 540, 540), 0.97) for _ in range(4000)])
    assert abs(by_seeds - 0.95) < 5 * (0.95 * 0.05 / 4000) ** 0.5
    assert abs(by_items - 0.95) < 0.025  # a binomial share is discrete


def test_a_share_of_one_stays_in_range():
    assert over_items(1.0, 10)["high"] <= 1 and over_items(1.0, 10)["low"] > 0.7


def test_one_seed_is_refused():
    refuses(lambda: over_seeds([1.0]), "an interval over seeds needs at least two seeds", ValueError)
