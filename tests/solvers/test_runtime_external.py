"""What a user's function returned: arrays of every kind, facts, keys of the memory."""

import numpy as np
import pytest
from support import refuses, table

from diffperturb.solvers._runtime.external_memory import Memory, instance_keys
from diffperturb.solvers._runtime.external_results import Facts, as_solution, check_facts, frozen_fact


def test_booleans_are_solutions():
    assert as_solution([True, False], (2,), np.float32).dtype == bool


@table(
    {
        "None": (None, (2,), "does the function end with a return?"),
        "ragged": ([1, [2]], (2,), "returned a list that is not an array"),
        "complex": (np.ones(2) * 1j, (2,), "dtype complex128, expected numbers"),
        "set": ({0, 1}, (2,), "returned a set of dtype object"),
        "shape": (np.ones(3), (2,), "returned shape (3,), expected (2,)"),
        "large integer": (np.array([2**24 + 1]), (1,), "float32 can't hold exactly"),
    }
)
def test_what_is_not_a_solution_is_refused(row):
    y, shape, words = row
    refuses(lambda: as_solution(y, shape, np.float32), words, ValueError)


SIMPLEX = Facts(normal=frozen_fact(np.ones(3)), level=frozen_fact(1.0), binary=True)


def test_nearly_binary_entries_are_rounded():
    found = check_facts(SIMPLEX, np.array([[0.0, 0.9999, 0.0], [1.0, 0.0, 0.0]]))
    assert found.tolist() == [[0, 1, 0], [1, 0, 0]]


@table(
    {
        "binary": (SIMPLEX, [[1.0, 0, 0], [0.5, 0.5, 0]], 1, "binary=True was stated"),
        "hyperplane": (SIMPLEX, [[1.0, 1.0, 0]], 0, "off the stated hyperplane <a, y> = 1"),
        "radius": (Facts(radius=frozen_fact(1.0)), [[1.0, 1.0]], 0, "longer than the stated radius 1"),
        "infinite": (Facts(), [[0.0, np.inf]], 0, "NaN or an infinite number"),
    }
)
def test_a_solution_against_a_fact_is_refused_with_its_place(row):
    facts, ys, index, words = row
    with pytest.raises(Exception, match=words.replace("<", r"\<")) as seen:
        check_facts(facts, np.array(ys))
    assert seen.value.index == index


def test_facts_are_compared_by_contents():
    assert hash(frozen_fact(np.ones(3))) == hash(frozen_fact(np.ones(3)))
    assert frozen_fact(np.ones(3)) == frozen_fact(np.ones(3)) != frozen_fact(np.ones(2))


def test_keys_tell_scores_and_data_apart():
    keys = instance_keys(np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 1.0]]), [np.ones((1, 4))])
    assert keys[0] == keys[1] != keys[2]
    assert keys[0] != instance_keys(np.array([[1.0, 2.0]]), [np.zeros((1, 4))])[0]


def test_the_memory_drops_what_was_used_least_recently():
    memory = Memory(2)
    memory.keep({b"a": 1, b"b": 2})
    memory.find([b"a"])
    memory.keep({b"c": 3})
    assert memory.find([b"a", b"b", b"c"]) == {b"a": 1, b"c": 3}
