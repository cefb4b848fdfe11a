"""A heartbeat promises that no later commit is stamped at or below it; neither others' clocks nor a restart may break that."""

from __future__ import annotations

from random import Random

from crdtstore.clock import COUNTER_BITS
from crdtstore.commit import decode_commit
from crdtstore.engine import Engine
from crdtstore.engine.events import Draft, LocalCommit
from tests.engine.wire import GROUP, Wire, op


def test_what_was_promised_while_another_clock_was_ahead_holds_after_a_quick_restart() -> None:
    wire = Wire("us-1", "eu-1")
    wire.connect()
    for _ in range(3):
        wire.deliver("us-1", "eu-1")
        wire.deliver("eu-1", "us-1")
    wire.now_ms += 300  # the clock of us is ahead of that of eu, by less than what counts as drift
    wire.write("us-1", op("counter", "k", "add", amount=1))
    wire.sync("us-1")
    wire.now_ms -= 300
    wire.deliver("us-1", "eu-1")
    wire.sync("eu-1")
    before = wire.engines["eu-1"]
    assert before.applied == [1, 0]
    promised = before.own_row(wire.now_ms).hlc

    again = Engine(GROUP, wire.configuration, wire.replica("eu-1"), wire.cluster.name, wire.options, Random(1))
    for origin, data in (entry for batch in wire.disks["eu-1"] for entry in batch):
        again.recover(origin, data)
    out = again.step(LocalCommit([Draft(1, [op("counter", "k", "add", amount=2)])]), wire.now_ms + 1)
    assert decode_commit(out.persist[0][1]).hlc > promised


def test_a_heartbeat_stays_below_a_commit_that_is_not_durable_and_follows_the_own_clock_otherwise() -> None:
    wire = Wire("us-1")
    us = wire.engines["us-1"]
    wire.write("us-1", op("counter", "k", "add", amount=1))
    made = us.clock.last
    assert us.own_row(wire.now_ms + 50).hlc == made - 1
    wire.sync("us-1")
    assert us.own_row(wire.now_ms + 50).hlc == wire.now_ms + 50 << COUNTER_BITS
