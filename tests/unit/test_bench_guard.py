"""The guard of the benchmarks finds what became dearer, whatever the machine, and nothing else."""

from __future__ import annotations

import time

import pytest

from benchmarks import core, guard
from benchmarks.figures import Figure
from crdtstore.engine.keyspace import Keyspace


def test_what_is_half_as_fast_on_the_same_machine_is_twice_as_dear() -> None:
    held = [Figure("adds", "1/CPU-s", [90.0, 100.0]).as_json()]
    assert guard.dearer([Figure("adds", "1/CPU-s", [50.0, 45.0])], 1.0, held, 1.0) == {"adds": 2.0}


def test_a_slower_machine_is_no_dearer_operation() -> None:
    held = [Figure("adds", "1/CPU-s of the server", [100.0]).as_json()]
    assert guard.dearer([Figure("adds", "1/CPU-s of the server", [50.0])], 3.0, held, 6.0) == {"adds": 1.0}


def test_wall_time_and_what_is_new_are_not_compared() -> None:
    held = [Figure("latency", "ms", [1.0]).as_json(), Figure("gone", "1/CPU-s", [1.0]).as_json()]
    found = [Figure("latency", "ms", [9.0]), Figure("new", "1/CPU-s", [1.0])]
    assert guard.dearer(found, 1.0, held, 1.0) == {}


def test_the_table_marks_what_is_too_dear() -> None:
    lines = guard.table({"adds": 1.26, "reads": 1.24}).splitlines()
    assert [line.endswith("TOO DEAR") for line in lines] == [False, True, False]


def test_a_planted_slowness_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real measure, on few commits: a commit that does its work twice over and more is far beyond the limit."""
    monkeypatch.setattr(core, "COMMITS", 2_560)
    before = [figure.as_json() for figure in core.figures(3)]
    apply = Keyspace.apply

    def slow(self: Keyspace, *arguments: object) -> bool:
        end = time.process_time() + 0.0001
        while time.process_time() < end:
            pass
        return apply(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Keyspace, "apply", slow)
    costs = guard.dearer(core.figures(3), 1.0, before, 1.0)
    assert len(costs) == 2
    assert all(cost > guard.LIMIT for cost in costs.values()), costs
