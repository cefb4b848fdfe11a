"""A start from the log: where it goes on, and what it must not take from before."""

from __future__ import annotations

from crdtstore.engine.events import LocalCommit
from tests.engine.wire import Wire, add, flush, pair


def test_a_start_from_the_log_goes_on_where_it_ended() -> None:
    wire = Wire("us", "eu", "ap")
    wire.connect()
    for name in ("us", "eu", "ap", "us"):
        add(wire, name)
        wire.settle()
    before = wire.engines["us"]
    vector, rosters, deps = list(before.applied), before.causality.rosters, before.causality.deps
    wire.crash("us")
    after = wire.engines["us"]
    assert after is not before
    assert after.applied == after.durability.vector == vector
    assert (after.causality.rosters, after.causality.deps) == (rosters, deps)
    assert after.history.heads == before.history.heads
    assert after.digest == before.digest
    add(wire, "us")
    assert after.clock.last > before.clock.last
    wire.connect()
    wire.settle()
    wire.check_same()


def test_own_stamps_never_run_backward_over_a_start() -> None:
    wire = Wire("us", "eu")
    add(wire, "us")
    wire.sync()
    first = wire.engines["us"].clock.last
    wire.crash("us")
    wire.now_ms -= 60_000
    wire.step("us", LocalCommit([]))
    assert wire.engines["us"].clock.last == first
    wire._heartbeats["us"] = 0
    add(wire, "us")
    assert wire.engines["us"].clock.last == first + 1


def test_a_poisoned_stamp_of_another_does_not_drag_the_clock_after_a_start() -> None:
    wire = pair(max_drift_ms=500)
    wire.now_ms += 86_400_000
    add(wire, "eu")
    wire.sync("eu")
    wire.now_ms -= 86_400_000
    wire.deliver("eu", "us")
    wire.sync("us")
    us = wire.engines["us"]
    assert us.applied == [0, 1]
    assert us.clock.drifted == 1
    assert us.clock.last >> 16 <= wire.now_ms
    wire.crash("us")
    us = wire.engines["us"]
    add(wire, "us")
    assert us.clock.last >> 16 == wire.now_ms


def test_a_window_is_measured_for_what_was_written_since_the_start() -> None:
    wire = pair()
    add(wire, "us")
    wire.settle()
    wire.tick(300)
    wire.settle()
    wire.crash("us")
    wire.connect()
    wire.settle()
    for _ in range(10):
        wire.tick(100)
        flush(wire)
    us = wire.engines["us"].measures.window_ms
    assert us.count == 0, "what all had before the start is not measured again"
    add(wire, "us")
    for _ in range(10):
        wire.sync()
        flush(wire)
        wire.tick(50)
    assert us.count == 1
    assert us.greatest <= 100


def test_a_stamp_of_the_future_makes_nobody_fresh_after_a_start() -> None:
    """Staleness counts from when something arrived, which the log does not say: from our own commit before it, then."""
    wire = pair()
    add(wire, "us")
    wire.settle()
    own_ms = wire.now_ms
    wire.now_ms += 86_400_000
    add(wire, "eu")
    wire.sync("eu")
    wire.now_ms -= 86_400_000
    wire.deliver("eu", "us")
    wire.sync("us")
    wire.crash("us")
    us = wire.engines["us"]
    assert us.applied == [1, 1]
    assert us.rows.staleness_ms(own_ms + 3_600_000) >= 3_600_000
    wire.connect()
    wire.settle()
    flush(wire)
    assert us.rows.staleness_ms(wire.now_ms) == 0


def test_a_start_without_own_commits_knows_no_staleness_until_it_hears() -> None:
    wire = pair()
    add(wire, "eu")
    wire.settle()
    wire.crash("us")
    assert wire.engines["us"].rows.staleness_ms(wire.now_ms) is None
    wire.connect()
    wire.settle()
    flush(wire)
    assert wire.engines["us"].rows.staleness_ms(wire.now_ms) is not None
