"""Deadlines, told in short stories: what ends, what lives on, and what every reader's clock hides."""

from __future__ import annotations

from typing import Any

import pytest

from crdtstore.testing.laws import BASE_MS, World, members
from crdtstore.testing.strategies import DELETE, Call, Deliver, Fold, Write
from crdtstore.types import REGISTRY
from tests.laws.models import Oracle
from tests.laws.test_operations import ONE, OTHER

NAMES = ("us", "eu")
KEY = "k"
DELETABLE = sorted(name for name, crdt in REGISTRY.items() if crdt.deletable)


class Story:
    """A history told in words; every reading is held against the model."""

    def __init__(self, name: str) -> None:
        self.crdt = REGISTRY[name]
        self.world = World(self.crdt, members(NAMES), has_true_clocks=True)
        self.oracle = Oracle(name)

    def write(self, region: str, *calls: Call, at_ms: int) -> None:
        self.world.step(Write(NAMES.index(region), [(KEY, call) for call in calls], at_ms))

    def sees(self, region: str) -> None:
        self.world.step(Deliver(NAMES.index(region), 0, 99))

    def folds(self, region: str) -> None:
        self.world.step(Fold(NAMES.index(region), 100))

    def reads(self, region: str, at_ms: int | None = None) -> Any:
        """The reading at an instant, None when nothing is there."""
        replica = self.world.replicas[NAMES.index(region)]
        now_ms = None if at_ms is None else BASE_MS + at_ms
        value, exists, _ = replica.reading(self.crdt, KEY, now_ms)
        told = self.oracle.reading(self.world.known_to(replica), KEY, now_ms)
        assert (value, exists) == told[:2]
        return value if exists else None


def expire(ttl_ms: int | None, **more: Any) -> Call:
    return Call("expire", {"ttl_ms": ttl_ms, **more})


@pytest.mark.parametrize("name", DELETABLE)
def test_what_has_ended_is_hidden_and_the_next_write_begins_anew(name: str) -> None:
    story = Story(name)
    story.write("us", ONE[name], at_ms=0)
    story.write("us", expire(5), at_ms=1)
    story.sees("eu")
    assert story.reads("eu", 5) is not None
    assert story.reads("eu", 6) is None
    assert story.reads("eu") is not None  # only hidden
    fresh = Story(name)
    fresh.write("eu", ONE[name], at_ms=7)
    story.write("eu", ONE[name], at_ms=7)
    story.sees("us")
    assert story.reads("us", 1_000) == fresh.reads("eu")


@pytest.mark.parametrize("name", DELETABLE)
def test_a_write_puts_the_deadline_again(name: str) -> None:
    """Or a delete that saw the deadline, and not the write, would leave the write without one."""
    story = Story(name)
    story.write("us", ONE[name], expire(5), at_ms=0)
    story.sees("eu")
    story.write("eu", ONE[name], at_ms=1)
    story.write("us", Call(DELETE, {}), at_ms=1)
    story.sees("us")
    assert story.reads("us", 4) is not None
    assert story.reads("us", 5) is None


@pytest.mark.parametrize("name", DELETABLE)
def test_a_deadline_may_come_before_what_it_ends(name: str) -> None:
    story = Story(name)
    story.write("us", expire(5), at_ms=0)
    story.write("us", ONE[name], at_ms=1)
    assert story.reads("us", 4) is not None
    assert story.reads("us", 5) is None


@pytest.mark.parametrize("name", DELETABLE)
def test_a_region_that_did_not_know_the_deadline_wrote_after_it(name: str) -> None:
    """An acknowledged write is not lost, and the key lives on."""
    story = Story(name)
    story.write("us", ONE[name], expire(5), at_ms=0)
    story.write("eu", ONE[name], at_ms=9)
    story.sees("us")
    story.sees("eu")
    assert story.reads("us", 10) is not None
    story.write("us", ONE[name], at_ms=11)
    story.sees("eu")
    assert story.reads("eu", 1_000) is not None


@pytest.mark.parametrize("name", DELETABLE)
def test_null_ends_a_deadline_also_against_concurrent_writes(name: str) -> None:
    story = Story(name)
    story.write("us", ONE[name], expire(5), at_ms=0)
    story.sees("eu")
    story.write("us", expire(None), at_ms=1)
    story.write("eu", ONE[name], at_ms=2)
    story.sees("us")
    assert story.reads("us", 1_000) is not None


@pytest.mark.parametrize(("name", "first", "late"), [("max_register", 9, 3), ("min_register", 3, 9)])
def test_folding_does_not_end_what_a_late_write_keeps(name: str, first: int, late: int) -> None:
    """The late write is not the one that is read, but it is there; folded away, the key would end at one replica only."""
    story = Story(name)
    story.write("us", Call("set", {"value": first}), expire(5), at_ms=0)
    story.write("eu", Call("set", {"value": late}), at_ms=9)
    story.sees("us")
    story.sees("eu")
    story.folds("us")
    assert story.reads("us", 10) == story.reads("eu", 10) == first


@pytest.mark.parametrize("name", ["aw_set", "counter", "lww_map", "mv_register", "or_map", "rw_set"])
def test_deleted_is_deleted_also_before_the_deadline(name: str) -> None:
    story = Story(name)
    story.write("us", ONE[name], expire(5), at_ms=0)
    story.write("us", Call(DELETE, {}), at_ms=1)
    story.write("us", ONE[name], at_ms=2)
    assert story.reads("us", 1_000) is not None


def test_a_field_ends_by_itself() -> None:
    story = Story("lww_map")
    story.write("us", Call("set", {"fields": {"f": 1, "g": 2}}), expire(5, fields=["f"]), at_ms=0)
    assert story.reads("us", 5) == {"g": 2}
    story.write("us", Call("set", {"fields": {"g": 3}}), at_ms=6)
    assert story.reads("us", 6) == {"g": 3}
    story.write("us", Call("set", {"fields": {"f": 4}}), at_ms=7)
    assert story.reads("us", 1_000) == {"f": 4, "g": 3}


def test_a_map_whose_fields_have_all_ended_is_not_there() -> None:
    story = Story("lww_map")
    story.write("us", Call("set", {"fields": {"f": 1}}), expire(5, fields=["f"]), at_ms=0)
    assert story.reads("us", 5) is None


@pytest.mark.parametrize("path", [(("f", "counter"),), (("m", "or_map"), ("f", "counter"))])
def test_a_field_of_a_map_ends_at_any_depth(path: tuple[tuple[str, str], ...]) -> None:
    story = Story("or_map")
    beside = Call("add", {"elements": ["x"]}, (("beside", "aw_set"),))
    story.write("us", beside, Call("add", {"amount": 3}, path), Call("expire", {"ttl_ms": 5}, path), at_ms=0)
    assert story.reads("us", 4) != {"beside": ["x"]}
    assert story.reads("us", 5) == {"beside": ["x"]}
    story.sees("eu")
    story.write("eu", Call("add", {"amount": 1}, path), at_ms=6)
    value = story.reads("eu", 1_000)
    for name, _ in path:
        value = value[name]
    assert value == 1


def test_what_was_removed_stays_out_when_the_key_begins_anew() -> None:
    story = Story("rw_set")
    story.write("us", ONE["rw_set"], expire(5), at_ms=0)
    story.sees("eu")
    story.write("eu", OTHER["rw_set"], at_ms=1)
    story.write("us", Call("add", {"elements": ["y"]}), at_ms=9)
    story.sees("us")
    assert story.reads("us", 10) == ["y"]
