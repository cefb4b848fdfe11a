"""Operation ids: a history with an operation issued in several regions reads like the history with one of them (ALGORITHMS 1)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import pytest

from crdtstore.testing.laws import Bare, World, check_equal, members
from crdtstore.testing.strategies import DELETE, Call, Deliver, Write
from crdtstore.types import REGISTRY
from tests.laws.models import reading

NAMES = ("us", "eu", "ap")


class Examples(dict[str, Call]):
    """A call per type; of a type without one it says where it belongs."""

    def __missing__(self, name: str) -> Call:
        raise AssertionError(f"ONE and OTHER in tests/laws/test_operations.py have no call for {name}")


ADD_TO_FIELD = Call("add", {"amount": 3}, (("f", "counter"),))
ONE = Examples(
    {
        "aw_set": Call("add", {"elements": ["x"]}),
        "bounded_counter": Call("grant", {"amount": 3}),
        "counter": Call("add", {"amount": 3}),
        "dw_flag": Call("enable", {}),
        "event_log": Call("append", {"id": "e", "body": 1}),
        "ew_flag": Call("enable", {}),
        "g_set": Call("add", {"elements": ["x"]}),
        "lww_map": Call("set", {"fields": {"f": 1}}),
        "lww_register": Call("set", {"value": 1}),
        "max_register": Call("set", {"value": 1}),
        "min_register": Call("set", {"value": 2}),
        "mv_register": Call("set", {"value": 1}),
        "or_map": ADD_TO_FIELD,
        "rw_set": Call("add", {"elements": ["x"]}),
        "text": Call("insert", {"index": 0, "text": "x"}),
    }
)
OTHER = Examples(
    {
        "aw_set": Call("remove", {"elements": ["x"]}),
        "bounded_counter": Call("grant", {"amount": 10}),
        "counter": Call("add", {"amount": 10}),
        "dw_flag": Call("disable", {}),
        "event_log": Call("append", {"id": "e", "body": 2}),
        "ew_flag": Call("disable", {}),
        "g_set": Call("add", {"elements": ["y"]}),
        "lww_map": Call("unset", {"fields": ["f"]}),
        "lww_register": Call("set", {"value": 2}),
        "max_register": Call("set", {"value": 2}),
        "min_register": Call("set", {"value": 1}),
        "mv_register": Call("set", {"value": 2}),
        "or_map": Call("remove", {"field": "f"}),
        "rw_set": Call("remove", {"elements": ["x"]}),
        "text": Call("cut", {"index": 0, "length": 1}),
    }
)
AFTERWARDS = {
    "bounded_counter": 13,
    "counter": 13,
    "g_set": ["x", "y"],
    "lww_register": 2,
    "max_register": 2,
    "min_register": 1,
    "mv_register": [2],
}
"""What is read when OTHER came after ONE; of what is not here nothing is left, or the model has said what it is."""
DELETABLE = sorted(name for name, crdt in REGISTRY.items() if crdt.deletable)


class Story:
    """A history told in words; ``end`` delivers it in every causal order and gives the one reading of all."""

    def __init__(self, name: str) -> None:
        self.crdt = REGISTRY[name]
        self.world = World(self.crdt, members(NAMES))

    def write(self, region: str, *calls: Call, at_ms: int, operation: int | None = None) -> None:
        self.world.step(Write(NAMES.index(region), [("k", call) for call in calls], at_ms, operation))

    def sees(self, region: str) -> None:
        """A region comes to have everything that was written so far."""
        self.world.step(Deliver(NAMES.index(region), 0, 9))

    def end(self) -> Any:
        self.world.settle()
        first = self.world.replicas[0]
        for reader in self._readers():
            check_equal(self.crdt, first, reader)
        told = reading(self.crdt.name, self.world.facts.values(), "k")
        assert first.reading(self.crdt, "k") == told
        return told

    def _readers(self) -> Iterator[Bare]:
        """A replica for each preference among origins: together they apply the commits in very different orders."""
        for order in permutations(range(len(NAMES))):
            reader = Bare(0, self.world.replicas[0].replicas)
            upto = [len(commits) for commits in self.world.commits]
            while ready := dict(self.world.ready(reader, upto)):
                origin = next(origin for origin in order if origin in ready)
                reader.apply(origin, ready[origin])
                self.world.check(reader)
            yield reader


@pytest.mark.parametrize("name", sorted(REGISTRY))
@pytest.mark.parametrize("stamps", [(1, 2), (2, 1), (1, 1)])
def test_two_attempts_have_one_effect(name: str, stamps: tuple[int, int]) -> None:
    twice = Story(name)
    twice.write("us", ONE[name], at_ms=stamps[0], operation=7)
    twice.write("eu", ONE[name], at_ms=stamps[1], operation=7)
    once = Story(name)
    at_us = (stamps[0], "us") < (stamps[1], "eu")
    once.write("us" if at_us else "eu", ONE[name], at_ms=min(stamps), operation=7)
    assert twice.end() == once.end()


@pytest.mark.parametrize("name", sorted(REGISTRY))
@pytest.mark.parametrize("seer", ["us", "eu"])
def test_a_later_write_that_saw_one_attempt_stays_the_later(name: str, seer: str) -> None:
    """Without the rule a retried ``set`` undoes the write that followed the first attempt."""
    story = Story(name)
    story.write("us", ONE[name], at_ms=1, operation=7)
    story.write("eu", ONE[name], at_ms=2, operation=7)
    story.write(seer, OTHER[name], at_ms=3)
    value = story.end()[0]
    if name in AFTERWARDS:
        assert value == AFTERWARDS[name]
    elif name == "event_log":
        assert [event["body"] for event in value] == [1]
    elif name in DELETABLE:
        assert not value


@pytest.mark.parametrize("name", DELETABLE)
@pytest.mark.parametrize("seer", ["us", "eu", "ap"])
def test_a_delete_that_saw_one_attempt_only_ends_the_operation(name: str, seer: str) -> None:
    story = Story(name)
    if seer == "ap":
        story.write("us", ONE[name], at_ms=2, operation=7)
        story.sees("ap")
        story.write("eu", ONE[name], at_ms=1, operation=7)
    else:
        story.write("us", ONE[name], at_ms=1, operation=7)
        story.write("eu", ONE[name], at_ms=2, operation=7)
    story.write(seer, Call(DELETE, {}), at_ms=3)
    value, exists, _ = story.end()
    assert not exists
    assert not value


@pytest.mark.parametrize("name", DELETABLE)
def test_a_delete_that_saw_no_attempt_leaves_the_operation(name: str) -> None:
    story = Story(name)
    story.write("us", ONE[name], at_ms=1, operation=7)
    story.write("eu", ONE[name], at_ms=2, operation=7)
    story.write("ap", Call(DELETE, {}), at_ms=3)
    assert story.end()[1]


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_retry_where_the_first_attempt_is_known_is_no_commit(name: str) -> None:
    story = Story(name)
    story.write("us", ONE[name], at_ms=1, operation=7)
    story.sees("ap")
    story.write("ap", ONE[name], at_ms=2, operation=7)
    assert len(story.world.facts) == 1
    story.end()


@pytest.mark.parametrize("name", DELETABLE)
def test_an_id_put_and_dropped_in_one_commit(name: str) -> None:
    story = Story(name)
    calls = (ONE[name], Call(DELETE, {}))
    story.write("us", *calls, at_ms=1, operation=7)
    story.write("eu", *calls, at_ms=2, operation=7)
    story.write("ap", ONE[name], at_ms=0)
    told = story.end()
    alone = Story(name)
    alone.write("ap", ONE[name], at_ms=0)
    assert told == alone.end()


@pytest.mark.parametrize("name", DELETABLE)
def test_an_id_dropped_and_put_in_one_commit(name: str) -> None:
    story = Story(name)
    story.write("ap", ONE[name], at_ms=0)
    story.sees("us")
    story.write("us", Call(DELETE, {}), ONE[name], at_ms=1, operation=7)
    story.write("eu", Call(DELETE, {}), ONE[name], at_ms=2, operation=7)
    value, exists, _ = story.end()
    assert exists
    if name == "counter":
        assert value == 3


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_three_attempts_and_a_seer_of_the_last(name: str) -> None:
    story = Story(name)
    story.write("us", ONE[name], at_ms=1, operation=7)
    story.write("eu", ONE[name], at_ms=3, operation=7)
    story.write("ap", ONE[name], at_ms=2, operation=7)
    story.write("eu", OTHER[name], at_ms=4)
    story.write("us", ONE[name], at_ms=9, operation=7)  # known there: no commit
    assert len(story.world.facts) == 4
    story.end()


@pytest.mark.parametrize("name", ["aw_set", "ew_flag", "max_register"])
def test_an_attempt_that_does_not_count_has_removed_nothing(name: str) -> None:
    """A retry beside an earlier write of the same is ended with the first attempt; the earlier write is not."""
    story = Story(name)
    story.write("ap", ONE[name], at_ms=0)
    story.write("us", ONE[name], at_ms=1, operation=7)
    story.write("ap", ONE[name], at_ms=2, operation=7)
    story.write("us", Call(DELETE, {}), at_ms=3)
    assert story.end()[1]


def test_a_spent_operation_leaves_no_trace() -> None:
    """An attempt that arrives after its sibling was removed makes no key, no empty level and no digest."""
    story = Story("aw_set")
    story.write("us", ONE["aw_set"], at_ms=1, operation=7)
    story.write("eu", ONE["aw_set"], at_ms=2, operation=7)
    story.write("us", OTHER["aw_set"], at_ms=3)
    assert story.end() == ([], False, 0)
    for replica in story.world.replicas:
        assert replica.keyspace.tree.root.children == {}
        assert replica.digest == 0
