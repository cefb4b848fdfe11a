"""What happens to a service: everything enters through one of these, and time comes with ``step``.

The question: what does a driver have to know of requests? That they have a ticket, by which it finds who asked.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from crdtstore.causal import ReplicaId
from crdtstore.engine.events import Persisted, Tick
from crdtstore.saving import Saved

__all__ = ["Cancelled", "Event", "PeerChanged", "Received", "Request"]


class Request(Struct, gc=False):
    """A request of a user: what to do and its fields, as in API.md; ``ticket`` names the answer."""

    ticket: int
    do: str
    fields: dict[str, Any]
    principal: str = "anonymous"
    parsed: Any = None
    """The request as ``requests.parse`` or a session made it, checked; ``fields`` is not looked at then."""


class Cancelled(Struct, frozen=True, gc=False):
    """Who asked is gone: what still waits is forgotten, a write that was judged goes on."""

    ticket: int


class Received(Struct, frozen=True, gc=False):
    """A peer sent bytes."""

    peer: ReplicaId
    data: bytes


class PeerChanged(Struct, frozen=True, gc=False):
    """A connection to a peer came or went."""

    peer: ReplicaId
    is_connected: bool


Event = Request | Cancelled | Received | PeerChanged | Persisted | Saved | Tick
