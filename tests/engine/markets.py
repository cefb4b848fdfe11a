"""Three regions that sell from one bounded counter: what the tests of rights, holds and schedules share."""

from __future__ import annotations

from typing import Any

from crdtstore.engine.output import Committed, Refused
from crdtstore.messages import Want
from crdtstore.types import REGISTRY, View
from tests.engine.wire import Wire, flush, op

TYPE = "bounded_counter"
COLLECTION = f"things:{TYPE}"


def market(**options: int) -> Wire:
    """Three regions, of which us holds ten rights and all know it."""
    wire = Wire("us", "eu", "ap", **options)
    wire.connect()
    ask(wire, "us", "grant", amount=10)
    wire.settle()
    flush(wire)
    return wire


def ask(wire: Wire, name: str, do: str, wait_ms: int = 0, key: str = "k", **arguments: Any) -> int:
    ticket = wire.write(name, op(TYPE, key, do, **arguments), wait_ms=wait_ms)
    wire.sync(name)
    return ticket


def pass_time(wire: Wire, ms: int, step_ms: int = 10) -> None:
    """Everything is written and arrives, while time passes."""
    for _ in range(0, ms, step_ms):
        wire.sync()
        flush(wire)
        wire.tick(step_ms)
    wire.sync()
    flush(wire)


def error(wire: Wire, ticket: int) -> Any:
    answer = wire.answer_to(ticket)
    assert isinstance(answer, Refused), answer
    return answer.error


def values(wire: Wire, ticket: int) -> list[Any]:
    answer = wire.answer_to(ticket)
    assert isinstance(answer, Committed), answer
    return answer.values


def rights(wire: Wire, name: str, key: str = "k") -> dict[str, Any]:
    engine = wire.engines[name]
    view = engine.keyspace.view(COLLECTION, key)
    found: dict[str, Any] = REGISTRY[TYPE].beside(view, wire.replica(name), engine.keyspace.regions)["rights"]
    return found


def view(wire: Wire, name: str, key: str = "k") -> View:
    return wire.engines[name].keyspace.view(COLLECTION, key)


def wants(wire: Wire, source: str, target: str) -> list[Want]:
    return [message for message in wire.sent(source, target) if isinstance(message, Want)]
