"""What cannot be read when it is needed is needed again: nothing is forgotten, and nothing waits for ever."""

from __future__ import annotations

from typing import Any

import pytest

from crdtstore.errors import StorageError
from crdtstore.messages import Frame, decode_message
from tests.engine.wire import Wire, op


def test_what_came_early_and_could_not_be_read_for_is_applied_when_it_comes_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is here already, so what comes again looks like a repetition."""
    wire = Wire("us", "eu")
    wire.connect()
    wire.settle()
    for key in "abc":
        wire.write("us", op("counter", key, "add"))
        wire.sync("us")
    link = wire.links["us", "eu"]
    first = next(data for data in link if isinstance(decode_message(data), Frame))
    link.remove(first)
    wire.deliver("us", "eu")
    engine = wire.engines["eu"]
    assert engine.applied == [0, 0]
    assert len(engine.early) == 2, "they wait for the first"

    def fail(effects: list[Any]) -> None:
        if effects[1][1] == "b":
            raise StorageError("nothing can be read")

    with monkeypatch.context() as patch:
        patch.setattr(type(engine.keyspace.tree), "bring_all", lambda tree, effects: fail(effects))
        wire.receive("us", "eu", first)
        assert engine.applied == [1, 0]
        assert engine.failure is not None
    wire.settle()
    assert engine.applied == [3, 0]
    assert not engine.early
