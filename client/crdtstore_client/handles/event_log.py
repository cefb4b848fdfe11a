"""The handle of an event log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypedDict

from crdtstore_client.handles._base import Handle
from crdtstore_client.ops import Op

__all__ = ["Event", "EventLog"]


class Event(TypedDict):
    """One entry of an event log; ``time`` is RFC 3339 in UTC."""

    id: str
    body: Any
    dot: str
    time: str


class EventLog(Handle[list[Event]]):
    """What happened? One entry per id."""

    type_name = "event_log"
    _readings = list
    __slots__ = ()

    def append(self, id: str, body: Any = None) -> Op[None]:  # noqa: A002 (the name of the argument in the API)
        """Append an event; its id makes a repetition harmless."""
        return self.op("append", id=id, body=body)

    async def members(self, *, after: str | None = None) -> AsyncIterator[Event]:
        """Events in their order, page by page, from the one behind the id ``after`` on.

        Events of other regions may still arrive before those already given.
        """
        async for event in self._members(after):
            yield self._event(event)

    def decode(self, value: Any) -> list[Event]:
        return [self._event(event) for event in value]

    def _event(self, event: Any) -> Event:
        return Event(id=event["id"], body=self._convert(event["body"]), dot=event["dot"], time=event["time"])
