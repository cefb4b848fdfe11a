"""The models on histories written by hand: what must be read follows from happens-before alone."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from crdtstore.types import REGISTRY
from crdtstore_sim import models
from crdtstore_sim.models import MODELS, Event, Key, Reading, System, canonical, rights

REPLICAS: list[Any] = ["a-1.0000000000000001", "b-1.0000000000000002"]
A, B = 0, 1
BOTH = (99, 99)


def event(origin: int, seq: int, hlc: int, deps: tuple[int, int], operation: str | None = None) -> Event:
    return Event(origin, seq, hlc, deps, operation, operation or f"{origin}:{seq}")


def at_ms(origin: int, seq: int, ms: int, deps: tuple[int, int], operation: str | None = None) -> Event:
    return event(origin, seq, ms << 16, deps, operation)


def key(type_name: str, *history: tuple[Event, str, dict[str, Any]], options: dict[str, Any] | None = None) -> Key:
    """A key with a history of (commit, operation, arguments); a field of a field … may follow as ``path``."""
    made = Key(MODELS, type_name, REPLICAS, ["a", "b"], options)
    for happened, op, arguments in history:
        made.add(happened, op, arguments)
    return made


def test_the_models_import_nothing_of_ours_but_dots_and_stamps() -> None:
    ours: set[str] = set()
    for path in Path(models.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                ours.add(node.module)
            elif isinstance(node, ast.Import):
                ours |= {name.name for name in node.names}
    others = {name for name in ours if name.startswith("crdtstore") and not name.startswith("crdtstore_sim.models")}
    assert others == {"crdtstore.causal", "crdtstore.clock"}


def test_every_type_has_a_model_with_every_operation() -> None:
    assert sorted(MODELS) == sorted(REGISTRY)
    for name, crdt in REGISTRY.items():
        assert MODELS[name].operations == sorted(crdt.mutators)
        assert MODELS[name].deletable == crdt.deletable


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


class TestRegisters:
    def test_a_multi_value_register_shows_what_nobody_overwrote(self) -> None:
        said = key(
            "mv_register",
            (event(A, 1, 9, (0, 0)), "set", {"value": "a"}),
            (event(B, 1, 5, (0, 0)), "set", {"value": "b"}),
        )
        assert said.reading(BOTH) == Reading(["b", "a"], True, 1)
        said.add(event(A, 2, 12, (1, 1)), "set", {"value": "both"})
        assert said.reading(BOTH) == Reading(["both"], True, 0)

    def test_the_most_and_the_least_outlive_a_delete_that_had_not_seen_them(self) -> None:
        history = (
            (event(A, 1, 1, (0, 0)), "set", {"value": 7}),
            (event(B, 1, 2, (0, 0)), "set", {"value": 3}),
            (event(A, 2, 3, (1, 0)), "delete", {}),
            (event(A, 3, 4, (2, 0)), "set", {"value": 5}),
        )
        assert key("max_register", *history).reading(BOTH).value == 5
        assert key("min_register", *history).reading(BOTH).value == 3
        assert key("max_register", *history, (event(B, 2, 5, (0, 1)), "set", {"value": "a"})).reading(BOTH).value == "a"

    def test_flags_differ_in_who_wins(self) -> None:
        history: Any = (
            (event(A, 1, 1, (0, 0)), "enable", {}),
            (event(A, 2, 2, (1, 0)), "disable", {}),
            (event(B, 1, 3, (1, 0)), "enable", {}),
        )
        assert key("ew_flag", *history).reading(BOTH) == Reading(True, True, 0)
        assert key("ew_flag", *history).reading((2, 0)) == Reading(False, False, 0)
        assert key("dw_flag", *history).reading(BOTH) == Reading(False, True, 1)
        assert key("dw_flag", *history).reading((1, 1)) == Reading(True, True, 0)


class TestSets:
    def test_a_remove_ends_an_add_that_it_had_not_seen_until_it_is_added_again(self) -> None:
        allowed = key(
            "rw_set",
            (event(A, 1, 1, (0, 0)), "add", {"elements": ["x"]}),
            (event(B, 1, 2, (0, 0)), "remove", {"elements": ["x"]}),
        )
        assert allowed.reading(BOTH) == Reading([], False, 0, fading=1)
        allowed.add(event(A, 2, 3, (1, 1)), "add", {"elements": ["x"]})
        assert allowed.reading(BOTH) == Reading(["x"], True, 0)

    def test_an_add_ends_no_other_add(self) -> None:
        members = key(
            "aw_set",
            (event(A, 1, 1, (0, 0), "op#0"), "add", {"elements": ["x"]}),
            (event(B, 1, 2, (0, 0)), "add", {"elements": ["x"]}),
            (event(B, 2, 3, (0, 1), "op#0"), "add", {"elements": ["x"]}),
            (event(A, 2, 4, (1, 0)), "remove", {"elements": ["x"]}),
        )
        assert members.reading(BOTH).value == ["x"]  # the operation is ended, b's own add is not


class TestMaps:
    def _map(self, *history: tuple[Event, str, dict[str, Any], tuple[str, ...]]) -> Key:
        made = key("or_map")
        for happened, op, arguments, path in history:
            made.add(happened, op, arguments, path)
        return made

    def test_removing_a_field_keeps_what_it_had_not_seen_exactly(self) -> None:
        visits = ("visits:counter",)
        both = self._map(
            (event(A, 1, 1, (0, 0)), "add", {"amount": 5}, visits),
            (event(B, 1, 2, (1, 0)), "add", {"amount": 2}, visits),
            (event(A, 2, 3, (1, 0)), "remove", {"field": "visits"}, ()),
        )
        assert both.reading((1, 1)) == Reading({"visits": 7}, True, 0)
        assert both.reading(BOTH) == Reading({"visits": 2}, True, 0)
        assert both.value_at(BOTH, 0, visits) == 2

    def test_two_types_under_one_name_are_a_conflict_until_it_is_removed(self) -> None:
        both = self._map(
            (event(A, 1, 1, (0, 0)), "add", {}, ("f:counter",)),
            (event(B, 1, 2, (0, 0)), "add", {"elements": ["x"]}, ("f:aw_set",)),
            (event(B, 2, 3, (0, 1)), "set", {"value": 1}, ("g:or_map", "h:lww_register")),
        )
        assert both.reading(BOTH) == Reading({"f": ["x"], "g": {"h": 1}}, True, 1)
        both.add(event(A, 2, 4, (1, 2)), "remove", {"field": "f"})
        assert both.reading(BOTH) == Reading({"g": {"h": 1}}, True, 0)


class TestDeadlines:
    def test_a_key_ends_for_everybody_at_once_and_begins_anew_with_the_next_write(self) -> None:
        count = key(
            "counter",
            (at_ms(A, 1, 100, (0, 0)), "add", {"amount": 3}),
            (at_ms(A, 2, 110, (1, 0)), "expire", {"ttl_ms": 50}),
        )
        assert count.reading(BOTH, 159).value == 3
        assert count.reading(BOTH, 160) == Reading(0, False, 0)
        assert count.reading(BOTH) == Reading(3, True, 0, 0, {"expires": "1970-01-01T00:00:00.160Z"})
        assert count.instants([BOTH], 0, 1000) == [0, 160, 1000]
        count.add(at_ms(B, 1, 200, (2, 0)), "add", {"amount": 1})
        assert count.reading(BOTH, 999).value == 1

    def test_every_write_puts_the_deadline_again(self) -> None:
        count = key(
            "counter",
            (at_ms(A, 1, 100, (0, 0)), "add", {"amount": 3}),
            (at_ms(A, 2, 100, (1, 0)), "expire", {"ttl_ms": 50}),
            (at_ms(B, 1, 120, (2, 0)), "add", {"amount": 1}),
            (at_ms(A, 3, 130, (2, 0)), "delete", {}),
        )
        assert count.reading(BOTH, 149).value == 1
        assert not count.reading(BOTH, 150).exists

    def test_who_writes_late_without_having_heard_of_the_deadline_keeps_the_key(self) -> None:
        count = key(
            "counter",
            (at_ms(A, 1, 100, (0, 0)), "add", {"amount": 3}),
            (at_ms(A, 2, 100, (1, 0)), "expire", {"ttl_ms": 50}),
            (at_ms(B, 1, 170, (1, 0)), "add", {"amount": 1}),
        )
        assert count.reading((2, 0), 200).value == 0
        assert count.reading(BOTH, 200).value == 4

    def test_a_field_ends_by_itself(self) -> None:
        record = key(
            "lww_map",
            (at_ms(A, 1, 100, (0, 0)), "set", {"fields": {"f": 1, "g": 2}}),
            (at_ms(A, 2, 100, (1, 0)), "expire", {"ttl_ms": 50, "fields": ["f"]}),
        )
        assert record.reading(BOTH, 149).ends == {"field_expires": {"f": "1970-01-01T00:00:00.150Z"}}
        assert record.reading(BOTH, 150) == Reading({"g": 2}, True, 0)

    def test_the_store_may_remove_what_has_ended_and_nothing_else(self) -> None:
        count = key(
            "counter",
            (at_ms(A, 1, 100, (0, 0)), "add", {"amount": 3}),
            (at_ms(A, 2, 100, (1, 0)), "expire", {"ttl_ms": 50}),
        )
        assert count.system(at_ms(B, 1, 149, (2, 0)), System(0, (), None)) is not None
        count.forget(B, 0)
        assert count.system(at_ms(B, 1, 150, (2, 0)), System(0, (), None)) is None
        assert not count.reading(BOTH).exists


class TestBoundedCounter:
    def _stock(self) -> Key:
        return key(
            "bounded_counter",
            (event(A, 1, 1, (0, 0)), "grant", {"amount": 10}),
            (event(A, 2, 2, (1, 0)), "transfer", {"amount": 4, "to": "b"}),
            (event(B, 1, 3, (2, 0)), "consume", {"amount": 3}),
            (event(A, 3, 4, (2, 0)), "reserve", {"amount": 5, "ttl_ms": 9}),
            options={"lower": 2},
        )

    def test_rights_are_what_was_given_and_not_used(self) -> None:
        stock = self._stock()
        assert stock.reading(BOTH).value == 2 + 10 - 3 - 5
        there = stock.there(BOTH)
        assert [rights(there, replica) for replica in REPLICAS] == [1, 1]

    def test_a_hold_is_sold_or_comes_back(self) -> None:
        stock = self._stock()
        stock.add(event(A, 4, 5, (3, 1)), "confirm", {"hold": "0:3.0"})
        assert stock.reading(BOTH).value == 4
        assert rights(stock.there(BOTH), REPLICAS[A]) == 1
        stock = self._stock()
        stock.add(event(A, 4, 5, (3, 1)), "release", {"hold": "0:3.0"})
        assert rights(stock.there(BOTH), REPLICAS[A]) == 6

    def test_one_operation_in_two_regions_is_one_sale_and_the_other_region_has_its_rights_back(self) -> None:
        stock = self._stock()
        stock.add(event(A, 4, 8, (3, 1), "x#0"), "consume", {"amount": 1})
        stock.add(event(B, 2, 7, (2, 1), "x#0"), "consume", {"amount": 1})
        assert stock.reading(BOTH).value == 3
        assert [rights(stock.there(BOTH), replica) for replica in REPLICAS] == [1, 0]


class TestText:
    def _puts(self, *puts: tuple[bytes, str]) -> list[System]:
        return [System(1, (position,), [position, char]) for position, char in puts]

    def _said(self) -> Key:
        said = key("text")
        first = event(A, 1, 1, (0, 0))
        said.add(first, "insert", {"index": 0, "text": "ac"})
        assert said.seal(first, lambda: self._puts((b"1", "a"), (b"3", "c"))) is None
        return said

    def test_characters_stand_where_their_commits_say(self) -> None:
        said, second = self._said(), event(B, 1, 2, (1, 0))
        said.add(second, "insert", {"index": 1, "text": "b"})
        assert said.seal(second, lambda: self._puts((b"2", "b"))) is None
        assert said.reading(BOTH) == Reading("abc", True, 0)
        assert said.reading((0, 0)) == Reading("", False, 0)

    def test_a_position_that_is_not_at_the_index_is_noticed(self) -> None:
        said, second = self._said(), event(B, 1, 2, (1, 0))
        said.add(second, "insert", {"index": 1, "text": "b"})
        assert "do not stand in this order" in str(said.seal(second, lambda: self._puts((b"4", "b"))))

    def test_characters_that_nobody_typed_are_noticed(self) -> None:
        said, second = self._said(), event(B, 1, 2, (1, 0))
        said.add(second, "insert", {"index": 1, "text": "b"})
        assert "asked for was" in str(said.seal(second, lambda: self._puts((b"2", "x"))))

    def test_a_cut_takes_what_its_region_sees_at_the_index_within_a_commit_too(self) -> None:
        said, second = self._said(), event(B, 1, 2, (1, 0))
        said.add(second, "insert", {"index": 1, "text": "xy"})
        said.add(second, "cut", {"index": 0, "length": 2}, index=1)
        assert said.seal(second, lambda: self._puts((b"2", "y"))) is None
        assert said.reading(BOTH).value == "yc"
        assert said.reading((1, 0)).value == "ac"
