"""Workers and pools: outcomes, deaths, time limits, functions that travel, and what ends with what."""

import importlib.util
import operator
import os
import sys
import threading
import time

import numpy as np
import pytest
from support import refuses

from diffperturb.solvers._runtime.pools import Pool
from diffperturb.solvers._runtime.workers import Process, Thread, attempt, portable

needs_cloudpickle = pytest.mark.skipif(not importlib.util.find_spec("cloudpickle"), reason="cloudpickle")
KINDS = {"threads": (Thread, lambda fn: fn), "processes": (Process, portable)}


@pytest.fixture(params=KINDS)
def pool(request):
    """Makes pools of one kind, and closes them."""
    kind, form = KINDS[request.param]
    made = []

    def make(size, fn):
        made.append(Pool(size, kind, form(fn)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_an_attempt_returns_a_value_or_a_fault():
    assert attempt(np.sqrt, np.array([4.0, 0.0]), ()).y.tolist() == [2.0, 0.0]
    assert isinstance(attempt(operator.getitem, np.ones(2), (5,)).fault, IndexError)


def test_outcomes_come_in_the_order_of_the_calls(pool):
    outcomes = pool(2, np.sqrt).run([(np.array([1.0, i]), ()) for i in range(100)])
    assert [o.y[1] for o in outcomes] == [np.sqrt(i) for i in range(100)]


def test_a_call_beyond_the_limit_is_given_up_and_the_pool_works_on(pool):
    sleepers = pool(1, time.sleep)
    late = sleepers.run([(0.0, ()), (5.0, ()), (0.0, ())], limit=0.1)
    assert late[0].fault is None and isinstance(late[1].fault, TimeoutError) and late[2] is None
    assert sleepers.run([(0.0, ())], limit=1.0)[0].fault is None


def test_an_exception_carries_the_traceback_of_its_worker():
    broken = Pool(1, Process, portable(operator.getitem))
    [outcome] = broken.run([(np.ones(2), (5,))])
    broken.close()
    assert isinstance(outcome.fault, IndexError) and "in a worker process" in outcome.fault.__notes__[0]


def test_the_death_of_a_worker_is_an_outcome():
    died = Process(portable(os._exit))
    died.start()
    [outcome] = died.outcomes([(3, ())])
    died.stop()
    assert str(outcome.fault) == "the worker process ended with exit code 3 during the call"
    fatal = Pool(2, Process, portable(os._exit))
    [outcome] = fatal.run([(7, ())])
    fatal.close()
    assert "exit code 7" in str(outcome.fault)


@needs_cloudpickle
def test_a_closure_travels_as_a_whole():
    offset = 10.0
    local = Pool(1, Process, portable(lambda theta: theta + offset))
    [outcome] = local.run([(np.ones(2), ())])
    local.close()
    assert outcome.y.tolist() == [11.0, 11.0]


@needs_cloudpickle
def test_what_refers_to_a_lock_can_not_travel():
    lock = threading.Lock()
    refuses(lambda: portable(lambda theta: lock), "open files, locks and models of a solver inside", TypeError)


def test_without_cloudpickle_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    refuses(lambda: portable(lambda theta: theta), "put it into a module that can be imported, or pip install")


def test_workers_end_with_a_pool_that_nobody_uses_any_more():
    roots = Pool(2, Process, portable(np.sqrt))
    roots.run([(np.ones(2), ())] * 100)
    children = [worker.process for worker in roots.workers]
    del roots
    assert children and all(child.wait(timeout=10) is not None for child in children)
