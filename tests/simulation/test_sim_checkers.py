"""Checkers told things that cannot be: each says so, and says nothing of what can."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from crdtstore.causal import Dot
from crdtstore_sim.checkers import Bounds, Pages, Receipts, Stability, Values
from crdtstore_sim.facts import Asked, AskedOp, Facts, Group, Span
from crdtstore_sim.plants import plant_of
from crdtstore_sim.reader import Record
from crdtstore_sim.regroup.draw import draw_members
from crdtstore_sim.simulation import run

MEMBERS = ["a-1.0000000000000001", "b-1.0000000000000002", "c-1.0000000000000003"]
SPAN = Span(0, 0, 0, 0)


class World:
    """Facts made by hand: commits are made, applied and durable as the test says."""

    def __init__(self) -> None:
        self.facts = Facts(MEMBERS, lambda: 0, ["a", "b", "c"])
        self.group: Group = self.facts.group("d/0")

    def make(self, origin: int, *ops: AskedOp) -> Record:
        """A commit that has seen what is applied at its maker."""
        deps, seq = tuple(self.group.applied[origin]), len(self.group.records[origin]) + 1
        record = Record(origin, seq, (sum(deps) + 1) << 16, deps, 1, b"")
        record.trace, record.name = f"{origin}/{seq}", f"{origin}:{seq}"
        self.facts.asked[record.trace] = Asked("d", list(ops), None)
        self.group.records[origin].append(record)
        self.facts.note_made(self.group, record)
        self.have(origin, origin, seq)
        return record

    def have(self, node: int, origin: int, seq: int) -> None:
        """A node applies commits of an origin and has them on disk."""
        self.group.applied[node][origin] = self.group.durable[node][origin] = seq

    @property
    def said(self) -> list[str]:
        return [f"{violation.checker}: {violation.detail}" for violation in self.facts.violations]


def takes(*stable: int) -> Any:
    """An engine, as far as the checker of stability looks at it."""
    return SimpleNamespace(stability=SimpleNamespace(stable=list(stable)))


class TestStability:
    def test_what_all_have_may_be_taken_for_stable(self) -> None:
        world = World()
        checker = Stability(world.facts)
        world.make(0)
        for node in (1, 2):
            world.have(node, 0, 1)
        checker.on_step(world.group, 1, takes(1, 0, 0))
        checker.on_made(world.group, world.make(2))
        assert not world.said
        assert checker.has_reached({"d/0": [0, 0, 0]})
        assert not checker.has_reached({"d/0": [1, 0, 0]})
        checker.on_late({"d/0": [1, 0, 0]}, 9)
        assert len(world.said) == 2  # all but b

    def test_what_a_member_lacks_may_not(self) -> None:
        world = World()
        checker = Stability(world.facts)
        world.make(0)
        world.have(1, 0, 1)
        checker.on_step(world.group, 1, takes(1, 0, 0))
        assert world.said == [
            f"stability: d/0: {MEMBERS[1]} takes [1, 0, 0] for stable, {MEMBERS[2]} has [0, 0, 0] on disk"
        ]

    def test_a_commit_under_way_that_has_seen_less_is_noticed_before_it_arrives(self) -> None:
        world = World()
        checker = Stability(world.facts)
        world.make(2)  # c wrote before it heard of a
        world.make(0)
        for node in (1, 2):
            world.have(node, 0, 1)
        checker.on_step(world.group, 1, takes(1, 0, 0))
        [said] = world.said
        assert f"{MEMBERS[2]}:1, which is not there yet, has seen [0, 0, 0]" in said

    def test_it_never_goes_back_but_over_a_crash(self) -> None:
        world = World()
        checker = Stability(world.facts)
        world.make(0)
        for node in (1, 2):
            world.have(node, 0, 1)
        checker.on_step(world.group, 1, takes(1, 0, 0))
        checker.forget(1)
        checker.on_step(world.group, 1, takes(0, 0, 0))
        assert not world.said
        checker.on_step(world.group, 1, takes(1, 0, 0))
        checker.on_step(world.group, 1, takes(0, 0, 0))
        assert "now only [0, 0, 0]" in world.said[0]


class TestBounds:
    def test_who_spends_what_it_has_is_let_alone_and_who_spends_more_is_named(self) -> None:
        world, stock = World(), "stock:bounded_counter"
        checker = Bounds(world.facts)
        touched = [(stock, "k")]
        checker.on_made(world.group, world.make(0, AskedOp(stock, "k", "grant", {"amount": 5})), touched)
        gives = AskedOp(stock, "k", "transfer", {"amount": 2, "to": "b"})
        checker.on_made(world.group, world.make(0, gives), touched)
        world.have(1, 0, 2)
        checker.on_made(world.group, world.make(1, AskedOp(stock, "k", "consume", {"amount": 2})), touched)
        assert not world.said
        checker.on_made(world.group, world.make(1, AskedOp(stock, "k", "consume", {"amount": 1})), touched)
        assert world.said == [f"bounds: d/0: {MEMBERS[1]}:2 spends 1 of stock:bounded_counter/k more than it had"]


class TestPages:
    def _world(self) -> tuple[World, Pages]:
        world = World()
        world.make(0, AskedOp("tags:aw_set", "k", "add", {"elements": ["x", 1, "y"]}))
        return world, Pages(Values(world.facts))

    @pytest.mark.parametrize(
        ("fields", "body", "is_right"),
        [
            ({"limit": 2}, {"items": [1, "x"], "next": "x"}, True),
            ({"limit": 2}, {"items": [1, "x"], "next": None}, False),
            ({"limit": 9}, {"items": [1, "x", "y"], "next": None}, True),
            ({"limit": 9}, {"items": [1, "y"], "next": None}, False),
            ({"has": 1}, {"has": True}, True),
            ({"has": "1"}, {"has": True}, False),
        ],
    )
    def test_a_page_is_a_part_of_the_reading(
        self, fields: dict[str, Any], body: dict[str, Any], is_right: bool
    ) -> None:
        world, pages = self._world()
        pages.on_members(world.group, 0, ("tags:aw_set", "k"), fields, body, SPAN)
        assert bool(world.said) != is_right

    def test_an_explanation_shows_the_reading_and_a_write_that_counts(self) -> None:
        world, pages = self._world()
        at, live = ("tags:aw_set", "k"), [{"counts": True}]
        pages.on_explained(world.group, 0, at, {"value": [1, "x", "y"], "live": live}, SPAN)
        assert not world.said
        pages.on_explained(world.group, 0, at, {"value": [1, "x", "y"], "live": []}, SPAN)
        assert "explains tags:aw_set/k" in world.said[0]

    def test_a_conflict_that_is_left_out_is_noticed(self) -> None:
        world, pages = self._world()
        register = AskedOp("names:lww_register", "k", "set", {"value": 1})
        world.make(1, register)
        world.make(2, register)
        world.have(0, 1, 1)
        world.have(0, 2, 1)
        names = {"names:lww_register"}
        item = {"collection": "names", "key": "k", "type": "lww_register", "conflicts": 1}
        pages.on_conflicts(world.group, 0, names, {"items": [item]}, SPAN, world.group.keys)
        assert not world.said
        pages.on_conflicts(world.group, 0, names, {"items": []}, SPAN, world.group.keys)
        assert "lists as conflicts {}" in world.said[0]
        pages.on_conflicts(
            world.group, 0, set(), {"items": []}, SPAN, world.group.keys
        )  # it had not heard of the collection
        assert len(world.said) == 1


def test_an_operation_that_counts_twice_is_noticed() -> None:
    world = World()
    first, second = (AskedOp("n:counter", "k", "add", {"amount": 1}) for _ in range(2))
    world.make(0, first)
    world.group.records[0][0].expiry_hlc = 100 << 16
    world.group.attempts["x"] = [(world.group.records[0][0], 0)]
    assert world.group.use_of("x", world.make(1, second)) == 0  # b had not heard of it: the same operation
    world.have(2, 0, 1)
    with pytest.raises(ValueError, match="had commit 1 of the same operation"):
        world.group.use_of("x", world.make(2, second))


class TestReceipts:
    DOT = Dot.parse(f"{MEMBERS[0]}:1")

    def test_whoever_has_it_on_disk_may_be_named(self) -> None:
        world = World()
        checker = Receipts(world.facts)
        world.make(0)
        world.have(1, 0, 1)
        checker.on_acknowledged(world.group, 0, self.DOT, ["a", "b"])
        checker.on_awaited(world.group, 0, ["a", "b"], 1, 1_500, SPAN)
        checker.on_awaited(world.group, 0, ["a", "b"], 2, 1_500, Span(0, 0, 1_500, 1_500))
        checker.on_crash(1)
        assert not world.said

    def test_whoever_has_only_applied_it_may_not(self) -> None:
        world = World()
        checker = Receipts(world.facts)
        world.make(0)
        world.group.applied[1][0] = 1
        checker.on_acknowledged(world.group, 0, self.DOT, ["a", "b"])
        assert world.said == [f"receipts: d/0: {MEMBERS[0]} says that b has {self.DOT}, where [0] is durable"]

    def test_whoever_was_named_has_it_after_a_crash(self) -> None:
        world = World()
        checker = Receipts(world.facts)
        world.make(0)
        world.have(1, 0, 1)
        checker.on_acknowledged(world.group, 0, self.DOT, ["a", "b"])
        world.have(1, 0, 0)
        checker.on_crash(2)
        assert not world.said
        checker.on_crash(1)
        assert world.said == [f"receipts: d/0: {MEMBERS[1]} has {MEMBERS[0]}:0 after a crash, and was said to have 1"]

    def test_nobody_gives_up_early_and_names_stand_in_order(self) -> None:
        world = World()
        checker = Receipts(world.facts)
        world.make(0)
        for node in (1, 2):
            world.have(node, 0, 1)
        checker.on_awaited(world.group, 0, ["a", "b"], 2, 1_500, Span(0, 0, 1_499, 1_499))
        checker.on_acknowledged(world.group, 0, self.DOT, ["a", "c", "b"])
        checker.on_acknowledged(world.group, 0, self.DOT, ["b", "a"])
        assert len(world.said) == 3


@pytest.mark.parametrize("seed", range(8))
def test_receipts_are_true_whatever_happens_to_members(seed: int) -> None:
    drawn = draw_members(seed)
    result = run(replace(drawn, work=replace(drawn.work, receipts=0.5)), seed)
    assert result.is_ok, result.violations


@pytest.mark.parametrize("seed", range(4))
def test_receipts_are_true_whatever_happens(seed: int) -> None:
    result = run(plant_of("receipt-when-sent").scenario(seed), seed)
    assert result.is_ok, result.violations
