"""The files of a run: locks, states, and what a notebook records."""

import os

import jax.numpy as jnp
import numpy as np
import pytest
from nbformat import v4
from support import refuses

from diffperturb.evidence.intervals import over_items
from diffperturb.workbench import store
from diffperturb.workbench.parameters import RunFailedError


def test_a_claimed_folder_is_running_and_then_interrupted(tmp_path):
    folder = tmp_path / "some-run"
    with store.claim(folder):
        store.write_json(folder / "run.json", {"status": "running", "pid": os.getpid(), "host": "here"})
        assert store.state(folder)["status"] == "running"
        words = f"is in use by process {os.getpid()} on here: wait for it"
        refuses(lambda: store.claim(folder).__enter__(), words, RunFailedError)
    assert store.state(folder)["status"] == "interrupted"
    assert not list(folder.glob(".run.json*")), "a draft was left behind"


@pytest.mark.parametrize("status", ["done", "failed"])
def test_an_ended_run_keeps_its_status(tmp_path, status):
    store.write_json(tmp_path / "run.json", {"status": status})
    assert store.state(tmp_path)["status"] == status


def test_plain_values():
    assert store.plain({"a": (np.float32(0.5), np.nan), 1: jnp.arange(2)}) == {"a": [0.5, None], "1": [0, 1]}
    assert store.plain([np.inf, None, True, "x", np.bool_(True)]) == [None, None, True, "x", True]
    refuses(lambda: store.plain({"f": print}), "can't be recorded", TypeError)


def test_keys_keep_their_order():
    keys = store._keys({"b": [{"d": 0}], "a": 1})
    found = store._in_order({"a": 1, "b": [{"d": 0}]}, keys)
    assert found == {"b": [{"d": 0}], "a": 1} and list(found) == ["b", "a"]


@pytest.mark.parametrize("name", ["a/b", "", "-a", "a b"])
def test_a_record_needs_a_name_for_a_file(name):
    refuses(lambda: store.record(name, 1), f"the record's name is {name!r}", ValueError)


def output(data, **note):
    return v4.new_output("display_data", data, metadata=note)


def test_records_with_one_name_are_all_kept():
    cell = v4.new_code_cell("", outputs=[output({"application/json": i}, record="x", keys=[]) for i in range(3)])
    found, device = store.records(v4.new_notebook(cells=[cell]))
    assert found == {"x": 0, "x-2": 1, "x-3": 2} and device is None


def test_figures_are_named_by_their_label():
    cells = [
        v4.new_code_cell(source, outputs=[output({"image/png": "AAAA"})])
        for source in ("#| label: fig-a\n", "#| label: fig-a\n", "1")
    ]
    names = list(store.figures(v4.new_notebook(cells=cells)))
    assert names == ["fig-a.png", "fig-a-2.png", "figure-3.png"]


def test_an_estimate_takes_three_columns(tmp_path):
    path = tmp_path / "t.csv"
    store.write_csv(path, [{"M": 1, "accuracy": over_items(0.5, 4)}, {"M": 10, "accuracy": None}])
    lines = path.read_text().splitlines()
    assert lines[0] == "M,accuracy,accuracy low,accuracy high" and lines[2] == "10,,,"


def test_what_is_a_table():
    assert store.is_table([{"M": 1}])
    assert not any(map(store.is_table, ([], {"M": 1}, [1], "x")))
