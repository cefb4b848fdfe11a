"""A heartbeat promises that no later commit is stamped at or below it; neither others' clocks nor a restart may break that."""

from __future__ import annotations

from random import Random

from crdtstore.clock import COUNTER_BITS
from crdtstore.commit import decode_commit
from crdtstore.configuration import ConfigurationId
from crdtstore.engine import Engine
from crdtstore.engine.events import Draft, LocalCommit
from crdtstore.engine.rows import Rows
from crdtstore.messages import Row
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
        again.replay.take_all(origin, [data])
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


def test_a_heartbeat_counts_after_a_clock_was_set_back() -> None:
    rows = Rows(2, 0)
    configuration = ConfigurationId(0, b"n")

    def hear(stamp_ms: int, now_ms: int) -> int | None:
        rows.take(1, Row(configuration, [0, 3], stamp_ms << 16, [b"", b""]), [0, 3], now_ms)
        return rows.staleness_ms(now_ms)

    assert hear(1_000, 1_000) == 0
    assert hear(900_000, 2_000) == 0, "a clock far ahead; it counts from its arrival"
    assert hear(3_000, 3_000) == 0, "and set right again: it is no news, but true"
    assert rows.newest[1] is not None
    assert rows.staleness_ms(5_000) == 2_000
