"""Data sets: stratified splits, the digits, and what is refused."""

import sys
from collections import Counter

import numpy as np
import pytest
from support import refuses, table

from diffperturb.evidence.datasets import Images, digits, stratified

LABELS = np.repeat([0, 1, 2], [50, 30, 20])


def test_a_split_keeps_the_shares_and_loses_nothing_and_the_seed_decides():
    train, test = stratified(LABELS, 0.3, seed=0)
    assert Counter(LABELS[test].tolist()) == {0: 15, 1: 9, 2: 6}
    assert sorted([*train, *test]) == list(range(100))
    assert np.array_equal(test, stratified(LABELS, 0.3, seed=0)[1])
    assert not np.array_equal(test, stratified(LABELS, 0.3, seed=1)[1])


@pytest.fixture(scope="module")
def data():
    pytest.importorskip("sklearn")
    return digits(seed=0)


def test_the_digits(data):
    images = np.concatenate([data.train_images, data.test_images])
    assert images.shape == (1797, 8, 8) and images.dtype == np.float32
    assert images.min() == 0 and images.max() == 1
    assert set(data.train_labels.tolist()) == set(data.test_labels.tolist()) == set(range(10))
    assert abs(len(data.test_labels) / 1797 - 0.3) < 10 * 0.5 / 1797  # each class rounds on its own
    assert np.array_equal(data.test_images, digits(seed=0).test_images)
    assert not np.array_equal(data.test_images, digits(seed=1).test_images)


ONE, TWO = np.zeros((1, 8, 8), np.float32), np.zeros(2, np.int32)


@table(
    {
        "share": (lambda: stratified(LABELS, 30, seed=0), "test_share is 30, expected a number between 0 and 1"),
        "small share": (
            lambda: stratified(LABELS, 0.01, seed=0),
            "puts 0 of the 50 items of class 0 into the test set",
        ),
        "whole": (lambda: digits(test_share=1.0), "test_share is 1.0"),
        "lengths": (lambda: Images(ONE, TWO, ONE, TWO, 10, "", "", ""), "1 train images have 2 labels"),
        "overwritten": (lambda: digits().train_images.__setitem__(0, 1.0), "read-only"),
    }
)
def test_bad_input_is_refused(row):
    call, words = row
    refuses(call, words)


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    refuses(digits, 'pip install "diffperturb[experiments]"', ImportError)
