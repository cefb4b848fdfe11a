"""The models on histories written by hand: what must be read follows from happens-before alone."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from crdtstore.types import REGISTRY
from crdtstore_sim import models
from crdtstore_sim.models import MODELS, Event, Key, Reading, canonical

REPLICAS = ["a-1.0000000000000001", "b-1.0000000000000002"]
A, B = 0, 1
BOTH = (99, 99)


def event(origin: int, seq: int, hlc: int, deps: tuple[int, int], operation: str | None = None) -> Event:
    return Event(origin, seq, hlc, deps, operation)


def key(type_name: str, *history: tuple[Event, str, dict[str, Any]]) -> Key:
    made = Key(MODELS[type_name], REPLICAS)  # type: ignore[arg-type]
    for happened, op, arguments in history:
        made.add(happened, op, arguments)
    return made


def test_the_models_import_nothing_of_ours_but_dots_and_stamps() -> None:
    tree = ast.parse(Path(models.__file__).read_text())
    ours = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module is not None}
    plain = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert {name for name in ours | plain if name.startswith("crdtstore")} == {"crdtstore.causal", "crdtstore.clock"}


def test_every_type_has_a_model_with_every_operation() -> None:
    assert sorted(MODELS) == sorted(REGISTRY)
    for name, crdt in REGISTRY.items():
        assert sorted(MODELS[name].touches) == sorted(crdt.mutators)


def test_a_counter_keeps_what_a_delete_had_not_seen() -> None:
    counter = key(
        "counter",
        (event(A, 1, 10, (0, 0)), "add", {"amount": 3}),
        (event(B, 1, 11, (0, 0)), "add", {"amount": 40}),
        (event(A, 2, 12, (1, 0)), "delete", {}),
        (event(A, 3, 13, (2, 0)), "add", {}),
    )
    assert counter.reading(BOTH) == Reading(41, True, 0)
    assert counter.reading((2, 0)) == Reading(0, False, 0)
    assert counter.reading((1, 1)) == Reading(43, True, 0)


def test_a_register_trusts_no_clock_where_one_write_saw_the_other() -> None:
    register = key(
        "lww_register",
        (event(A, 1, 1000, (0, 0)), "set", {"value": "from the future"}),
        (event(B, 1, 5, (1, 0)), "set", {"value": "seen and replaced"}),
    )
    assert register.reading(BOTH) == Reading("seen and replaced", True, 0)


def test_concurrent_registers_go_by_stamp_and_then_by_replica() -> None:
    register = key(
        "lww_register",
        (event(B, 1, 7, (0, 0)), "set", {"value": "b"}),
        (event(A, 1, 7, (0, 0)), "set", {"value": "a"}),
    )
    assert register.reading(BOTH) == Reading("b", True, 1)
    assert register.reading((1, 0)) == Reading("a", True, 0)


def test_an_add_wins_over_a_remove_that_had_not_seen_it() -> None:
    members = key(
        "aw_set",
        (event(A, 1, 1, (0, 0)), "add", {"elements": ["x", 1]}),
        (event(A, 2, 2, (1, 0)), "add", {"elements": ["x"]}),
        (event(B, 1, 3, (1, 0)), "remove", {"elements": ["x", 1, "1"]}),
    )
    assert members.reading((1, 1)) == Reading([], False, 0)
    assert members.reading(BOTH) == Reading(["x"], True, 0)


def test_an_unset_leaves_other_fields_and_what_it_had_not_seen() -> None:
    record = key(
        "lww_map",
        (event(A, 1, 1, (0, 0)), "set", {"fields": {"f": 1, "g": 2}}),
        (event(B, 1, 2, (1, 0)), "unset", {"fields": ["f"]}),
        (event(A, 2, 3, (1, 0)), "set", {"fields": {"f": 5}}),
    )
    assert record.reading((1, 1)) == Reading({"g": 2}, True, 0)
    assert record.reading(BOTH) == Reading({"g": 2, "f": 5}, True, 0)


def test_an_event_appended_twice_is_one_entry_with_a_conflict() -> None:
    log = key(
        "event_log",
        (event(B, 1, 4, (0, 0)), "append", {"id": "e", "body": 1}),
        (event(A, 1, 3, (0, 0)), "append", {"id": "e", "body": True}),
    )
    reading = log.reading(BOTH)
    assert [(entry["id"], entry["body"], entry["dot"]) for entry in reading.value] == [("e", True, f"{REPLICAS[A]}:1")]
    assert reading.conflicts == 1


class TestOneCommit:
    def test_a_clear_takes_what_the_same_commit_wrote_before(self) -> None:
        only = event(A, 1, 1, (0, 0))
        counter = key("counter", (only, "add", {"amount": 3}), (only, "delete", {}), (only, "add", {"amount": 4}))
        assert counter.reading(BOTH).value == 4

    def test_adds_are_summed_and_of_two_events_with_one_id_the_first_stands(self) -> None:
        only = event(A, 1, 1, (0, 0))
        assert key("counter", (only, "add", {"amount": 3}), (only, "add", {"amount": 4})).reading(BOTH).value == 7
        log = key("event_log", (only, "append", {"id": "e", "body": 1}), (only, "append", {"id": "e", "body": 2}))
        assert [entry["body"] for entry in log.reading(BOTH).value] == [1]


class TestOperations:
    def test_of_two_attempts_one_counts(self) -> None:
        counter = key(
            "counter",
            (event(A, 1, 9, (0, 0), "x"), "add", {"amount": 5}),
            (event(B, 1, 4, (0, 0), "x"), "add", {"amount": 5}),
        )
        assert counter.reading(BOTH).value == 5

    def test_a_delete_that_saw_one_attempt_ends_both(self) -> None:
        counter = key(
            "counter",
            (event(A, 1, 1, (0, 0), "x"), "add", {"amount": 5}),
            (event(B, 1, 2, (0, 0), "x"), "add", {"amount": 5}),
            (event(A, 2, 3, (1, 0)), "delete", {}),
        )
        assert counter.reading((1, 1)).value == 5
        assert counter.reading(BOTH) == Reading(0, False, 0)

    def test_a_set_that_was_repeated_after_an_overwrite_stays_overwritten(self) -> None:
        register = key(
            "lww_register",
            (event(A, 1, 1, (0, 0), "x"), "set", {"value": "old"}),
            (event(A, 2, 2, (1, 0)), "set", {"value": "new"}),
            (event(B, 1, 9, (0, 0), "x"), "set", {"value": "old"}),
        )
        assert register.reading((2, 0)).value == "new"
        assert register.reading(BOTH) == Reading("new", True, 0)


def test_what_a_crash_took_is_forgotten() -> None:
    counter = key(
        "counter",
        (event(A, 1, 1, (0, 0)), "add", {"amount": 1}),
        (event(A, 2, 2, (1, 0)), "delete", {}),
        (event(A, 3, 3, (2, 0)), "add", {"amount": 7}),
    )
    counter.forget(A, 1)
    assert counter.reading(BOTH).value == 1


@pytest.mark.parametrize(("left", "right"), [(1, True), (1, 1.0), ("1", b"1"), ([1], [1.0]), ({"a": 0}, {"a": False})])
def test_values_that_python_takes_for_equal_differ(left: Any, right: Any) -> None:
    assert canonical(left) != canonical(right)
    assert canonical({"a": 1, "b": left}) == canonical({"b": left, "a": 1})
