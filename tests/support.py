"""What tests of all chapters share: how much is tried, and tables of refusals."""

import os
import re

import jax
import pytest

# Every pair, 1,000 instances, 2,000 repetitions: `DIFFPERTURB_TESTS=all make test`.
ALL = os.environ.get("DIFFPERTURB_TESTS") == "all"


def sized(some: int, every: int) -> int:
    """How many to try: `some` by default, `every` one with DIFFPERTURB_TESTS=all."""
    return every if ALL else some


def table(rows: dict, every: dict | None = None):
    """Parametrize a test over the values of named rows; `every` holds rows that only DIFFPERTURB_TESTS=all adds."""
    rows = {**rows, **(every or {})} if ALL else rows
    return pytest.mark.parametrize("row", rows.values(), ids=rows.keys())


def refuses(call, words: str, error: type = Exception) -> None:
    """The call raises an error whose message holds the words, whether it comes at once or from a compiled program."""
    with pytest.raises(error, match=re.escape(words)):
        jax.block_until_ready(call())
