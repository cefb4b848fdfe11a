"""What a replica does by itself, whether or not anybody writes or speaks to it."""

from __future__ import annotations

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
