"""What a replica does by itself, whether or not anybody writes or speaks to it."""

from __future__ import annotations

from crdtstore.engine.expiry import Expiry
from tests.engine.wire import Wire, op


def test_a_replica_that_is_alone_and_idle_forgets_and_removes() -> None:
    """Nobody's heartbeat moves its clock: time alone must."""
    wire = Wire("us")
    wire.write("us", op("counter", "k", "add"), operation=(b"o" * 16, 1), expires_in_ms=500)
    wire.write("us", op("lww_register", "k", "set", value="v"), op("lww_register", "k", "expire", ttl_ms=500))
    wire.sync()
    keyspace = wire.engines["us"].keyspace
    assert len(keyspace.operations) == 1
    for _ in range(4):
        wire.tick(1_000)
        wire.sync()
    assert len(keyspace.operations) == 0
    assert keyspace.tree.entry("things:lww_register", "k") is None
    assert wire.value("us", "counter", "k") == 1


def test_a_key_that_is_deleted_early_is_not_remembered_until_its_deadline() -> None:
    expiry, there = Expiry(), {("c", "k")}
    for key, due_ms in (("k", 50), ("gone", 1 << 50), ("k", 40), ("k", 60)):
        expiry.plan(("c", key), due_ms)
    assert len(expiry) == 2
    for _ in range(2):
        expiry.review(there.__contains__, 1)
    assert len(expiry) == 1
    assert expiry.passed(40, 9) == []
    assert expiry.passed(41, 9) == [("c", "k")]
    assert expiry.passed(1 << 60, 9) == []
