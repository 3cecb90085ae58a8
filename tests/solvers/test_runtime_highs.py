"""HiGHS models: the same solution wherever a solve started, reasons as sentences, programs that are kept, stacks."""

import sys

import numpy as np
import pytest
import scipy.sparse
from support import refuses, table

pytest.importorskip("highspy")

from diffperturb.solvers._runtime.callbacks import UnsolvableError
from diffperturb.solvers._runtime.highs import (
    Pool,
    Program,
    StoppedError,
    each_row,
    is_unique,
    load_highs,
    maximize,
)

ROWS = scipy.sparse.csr_matrix(np.array([[1.0, 1.0]]))
DIRECTIONS = np.array([[1.0, 2.0], [2.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])


def square(**options):
    """The unit square without the corner beyond y1 + y2 = 1.5."""
    return Program(ROWS, [-np.inf], [1.5], np.zeros(2), np.ones(2), **options)


def test_unique_optima_are_known():
    program, found = square(), []
    for direction in DIRECTIONS:
        maximize(program, direction)
        found.append(is_unique(program))
    assert found == [True] * 4 + [False] * 3


def test_the_solution_does_not_depend_on_what_was_solved_before():
    program = square()
    for direction in DIRECTIONS:
        for before in DIRECTIONS:
            maximize(program, before)
            assert np.array_equal(maximize(program, direction), maximize(square(), direction))


def test_the_size_of_the_scores_does_not_matter():
    program = square()
    expected = maximize(program, DIRECTIONS[0])
    for tiny in (1e-30, 1e30):
        assert np.array_equal(maximize(program, tiny * DIRECTIONS[0]), expected)


def test_integer_entries():
    assert maximize(square(integral=[True, True]), DIRECTIONS[0]).tolist() == [0, 1]


def test_a_warm_start_saves_iterations_and_changes_no_solution():
    num = 50
    draw = np.random.default_rng(0)
    mix = scipy.sparse.csr_array(draw.uniform(size=(60, 100)) * (draw.uniform(size=(60, 100)) < 0.3))
    plain = lambda: Program(mix, np.full(60, -np.inf), np.full(60, 5.0), np.zeros(100), np.full(100, np.inf))
    center, steps = draw.uniform(size=100), {}
    for epsilon in (0.01, 0.03, 0.1, 0.3, 1.0):
        noisy, warm = center + epsilon * draw.normal(size=(num, 100)), plain()
        scratch = [plain() for _ in noisy]
        for scores, cold in zip(noisy, scratch, strict=True):
            np.testing.assert_allclose(maximize(warm, scores), maximize(cold, scores), atol=1e-6)
        steps[epsilon] = sum(p.iterations for p in scratch) / num, warm.iterations / num
    assert 15 * steps[0.01][1] < steps[0.01][0]
    assert 2 * steps[0.1][1] < steps[0.1][0] and steps[1.0][1] < 1.5 * steps[1.0][0]


HALF_LINE = lambda: Program(ROWS, [0.0], [np.inf], np.zeros(2), np.full(2, np.inf))


@table(
    {
        "unbounded": (HALF_LINE, "the program is unbounded in the direction of these scores"),
        "infeasible": (
            lambda: Program(ROWS, [3.0], [np.inf], np.zeros(2), np.ones(2)),
            "the program is infeasible: no y keeps all rows and bounds",
        ),
        "late": (lambda: square(time_limit=0.0), "no optimum within the time limit of 0.0 s"),
    }
)
def test_reasons_are_sentences(row):
    make, words = row
    refuses(lambda: maximize(make(), np.ones(2)), words, StoppedError)


def test_a_program_goes_on_after_a_failure():
    program = HALF_LINE()
    refuses(lambda: maximize(program, np.ones(2)), "unbounded", StoppedError)
    assert maximize(program, -np.ones(2)).tolist() == [0, 0]


def test_the_time_limit_is_for_each_solve():
    patient = square(time_limit=0.5)
    for _ in range(3):
        maximize(patient, DIRECTIONS[0])


def test_the_pool_keeps_what_was_used_last_and_lends_to_one_at_a_time():
    pool, made = Pool(room=3), []
    for key in "aabcada":
        with pool.lent(key, lambda key=key: made.append(key) or key.upper()):
            pass
    assert made == list("abcd") and len(pool) == 3  # b was the oldest one when d came
    with pool.lent("a", list) as one, pool.lent("a", list) as other:
        assert one == "A" and other == []  # lent already: another is made
    with pool.lent("e", list, size=4):
        pass
    assert len(pool) == 0  # too large to be kept


TURNING = np.stack([np.cos(np.linspace(0, 6, 200)), np.sin(np.linspace(0, 6, 200))], axis=1)


def test_a_stack_gives_what_single_solves_give():
    programs = Pool(room=4)

    def corner(i):
        with programs.lent("square", square) as program:
            return maximize(program, TURNING[i])

    assert np.array_equal(each_row(corner, 200, 2), [maximize(square(), t) for t in TURNING])


def test_the_first_failure_of_a_stack_is_named():
    def broken(i):
        if i in (150, 70, 71):
            raise StoppedError(f"number {i}")
        return np.zeros(2)

    with pytest.raises(UnsolvableError, match="number 70") as seen:
        each_row(broken, 200, 2)
    assert seen.value.index == 70


def test_without_highs_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "highspy", None)
    words = "LinearProgram needs HiGHS: pip install 'diffperturb[solvers]'"
    refuses(lambda: load_highs("LinearProgram"), words, ImportError)
