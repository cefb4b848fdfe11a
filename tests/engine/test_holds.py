"""Holds end once, by their owner: confirmed, released, or by themselves when their time has passed; and are forgotten."""

from __future__ import annotations

import pytest

from crdtstore.clock import physical_ms
from crdtstore.commit import decode_commit
from crdtstore.engine.events import Tick
from crdtstore.engine.holds import MAX_ENDED, Agenda
from crdtstore.storage.rows import HOLDS
from crdtstore.types.bounded_counter import KEPT_MS, ended_by
from tests.engine.markets import COLLECTION, TYPE, ask, error, market, pass_time, rights, values, view
from tests.engine.wire import op


def test_a_hold_ends_by_itself_at_its_owner_and_everywhere() -> None:
    wire = market()
    [hold] = values(wire, ask(wire, "us", "reserve", amount=4, ttl_ms=500))
    wire.settle()
    assert rights(wire, "us") == {"here": 6, "held": 4, "elsewhere": {"eu": 0, "ap": 0}}
    pass_time(wire, 600)
    for name in wire.names:
        assert wire.value(name, TYPE, "k") == 10
    refused = error(wire, ask(wire, "us", "confirm", hold=hold))
    assert (refused.code, refused.more["outcome"]) == ("hold-ended", "expired")


def test_the_tick_that_ends_a_hold_comes_in_time() -> None:
    wire = market(gossip_interval_ms=3_600_000, fold_interval_ms=3_600_000)
    wire.tick()
    ask(wire, "us", "reserve", amount=4, ttl_ms=500)
    assert wire.engines["us"].wake_ms <= wire.now_ms + 500
    wire.now_ms += 500
    wire.step("us", Tick())
    assert rights(wire, "us")["held"] == 0


def test_only_the_owner_ends_a_hold() -> None:
    wire = market()
    ask(wire, "us", "reserve", amount=4, ttl_ms=500)
    wire.settle()
    for peer in ("eu", "ap"):
        wire.cut("us", peer)
    for _ in range(20):
        wire.now_ms += 100
        wire.step("eu", Tick())
        wire.sync("eu")
    assert wire.value("eu", TYPE, "k") == 6, "whatever its clock says"


@pytest.mark.parametrize("is_ended_before", [False, True])
def test_holds_are_found_again_after_a_crash(is_ended_before: bool) -> None:
    wire = market()
    [hold] = values(wire, ask(wire, "us", "reserve", amount=4, ttl_ms=2_000))
    if is_ended_before:
        ask(wire, "us", "confirm", hold=hold)
    wire.crash("us")
    assert wire.engines["us"].rights.holds.open == (not is_ended_before)
    wire.connect(("us", "eu"), ("us", "ap"))
    pass_time(wire, 3_000)
    assert wire.value("us", TYPE, "k") == (6 if is_ended_before else 10)


def test_a_hold_that_was_made_twice_is_ended_once() -> None:
    """Both regions that tried the operation own an attempt; what one has ended the other finds gone when its time comes."""
    wire = market()
    ask(wire, "us", "transfer", amount=5, to="eu")
    wire.settle()
    for name in ("us", "eu"):
        operation = (b"0123456789abcdef", 7)
        wire.write(name, op(TYPE, "k", "reserve", amount=4, ttl_ms=1_000), operation=operation)
    hold = f"{b'0123456789abcdef'.hex()}.0"
    ask(wire, "us", "confirm", hold=hold)
    pass_time(wire, 1_500)
    wire.settle()
    wire.check_same()
    assert wire.value("eu", TYPE, "k") == 6
    assert [engine.rights.holds.open for engine in wire.engines.values()] == [0, 0, 0]
    wire.now_ms += KEPT_MS
    wire.tick()
    wire.settle()
    assert not list(view(wire, "ap").child("E").children())


def test_how_a_hold_ended_is_forgotten_after_a_while() -> None:
    wire = market()
    [hold] = values(wire, ask(wire, "us", "reserve", amount=4, ttl_ms=500))
    ask(wire, "us", "release", hold=hold)
    assert [live.value[0] for live in ended_by(view(wire, "us"), hold)] == ["released"]
    wire.now_ms += KEPT_MS - 100
    wire.step("us", Tick())
    assert ended_by(view(wire, "us"), hold)
    wire.now_ms += 100
    wire.step("us", Tick())
    assert not ended_by(view(wire, "us"), hold)
    refused = error(wire, ask(wire, "us", "release", hold=hold))
    assert "not known here" in refused.detail
    assert refused.more["outcome"] is None


def test_of_so_many_holds_it_is_remembered_how_they_ended() -> None:
    wire = market()
    first = None
    for _ in range(MAX_ENDED + 3):
        [hold] = values(wire, ask(wire, "us", "reserve", amount=1, ttl_ms=500))
        first = first or hold
        ask(wire, "us", "release", hold=hold)
    wire.step("us", Tick())
    assert first is not None
    assert not ended_by(view(wire, "us"), first)
    assert len(list(view(wire, "us").child("E").children())) == MAX_ENDED


def test_an_agenda_passes_over_what_is_gone() -> None:
    agenda = Agenda(HOLDS)
    for at in range(200):
        agenda.set(("c", "k", str(at)), at)
    for at in range(0, 200, 2):
        agenda.pop(("c", "k", str(at)))
    agenda.set(("c", "k", "1"), 1_000)
    assert len(agenda) == 100
    assert agenda.next_ms() == 3
    assert [place[2] for place, _ in agenda.take_due(10, 3)] == ["3", "5", "7"]
    for _ in range(1_000):
        agenda.set(("c", "k", "1"), 7)
    assert len(agenda._heap) < 400
    assert [place[2] for place, _ in agenda.take_due(9, 9)] == ["1", "9"]


def test_a_fenced_replica_gives_nothing_and_ends_nothing() -> None:
    wire = market()
    ask(wire, "us", "reserve", amount=4, ttl_ms=500)
    ask(wire, "eu", "consume", wait_ms=1_000, amount=3)
    wire.engines["us"].fence("somebody else writes under its id")
    wire.deliver("eu", "us")
    wire.now_ms += 600
    out = wire.step("us", Tick())
    assert not out.persist
    assert wire.engines["us"].wake_ms > wire.now_ms


def test_stamps_are_those_of_the_clock() -> None:
    wire = market()
    [hold] = values(wire, ask(wire, "us", "reserve", amount=1, ttl_ms=500))
    commit = decode_commit(wire.disks["us"][-1][0][1])
    assert commit.effects[2] == [1, physical_ms(commit.hlc) + 500]
    assert commit.effects[1] == [COLLECTION, "k", "H", hold]
