"""Values and rows as text, for terminals and for Markdown."""

import pytest

from diffperturb.evidence.tables import format_value, table

VALUES = {
    "none": (None, ""),
    "symmetric": ({"mean": 0.5, "low": 0.4, "high": 0.6}, "0.5 ± 0.1"),
    "other": ({"mean": 0.9, "low": 0.7, "high": 0.95}, "0.9 [0.7, 0.95]"),
    "unknown interval": ({"mean": 0.9, "low": None, "high": None}, "0.9"),
    "float": (1 / 3, "0.3333"),
    "integer": (123456, "123456"),
    "dictionary": ({"a": 1}, "{'a': 1}"),
    "long": ("x" * 101, "x" * 97 + "..."),
    "just short enough": ("x" * 100, "x" * 100),
}


@pytest.mark.parametrize(("value", "text"), VALUES.values(), ids=VALUES)
def test_a_value(value, text):
    assert format_value(value) == text


def test_digits_and_width():
    assert format_value(1 / 3, digits=2) == "0.33"
    assert format_value("x" * 200, widest=None) == "x" * 200


ROWS = [{"a": 1, "b": None, "c": 0.5}, {"a": 22, "c": None, "d": "x|y"}]


def test_rows_as_aligned_text():
    assert table(ROWS).splitlines() == ["a   c    d", "--  ---  ---", "1   0.5", "22       x|y"]


def test_columns_are_chosen_and_ordered():
    assert table(ROWS, ["c", "b", "a"]).splitlines()[0].split() == ["c", "b", "a"]


def test_rows_as_markdown():
    assert table(ROWS, markdown=True) == "| a | c | d |\n|---|---|---|\n| 1 | 0.5 |  |\n| 22 |  | x\\|y |\n"


def test_no_rows():
    assert table([], ["a"]).splitlines() == ["a", "-"]
