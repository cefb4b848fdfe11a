"""What a host wants done: one struct, its fields in order of execution."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from crdtstore.causal import ReplicaId
from crdtstore.errors import CrdtStoreError
from crdtstore.saving import Save
from crdtstore.storage.protocol import Entry

__all__ = ["HostOutput", "Rejected"]


class Rejected(Struct, frozen=True, gc=False):
    """A peer said what cannot be true; nothing of it was applied."""

    peer: ReplicaId
    reason: str


class HostOutput(Struct):
    """What a driver has to do, in order of execution. Seen by the garbage collector: an error in it may hold the frame that holds it."""

    persist: list[Entry] = field(default_factory=list)
    """To be written as one record; then ``Persisted(persist_number)`` is due."""
    persist_number: int = 0
    save: list[Save] = field(default_factory=list)
    """For the state store, in order; each is followed by the event ``Saved`` with its number."""
    cut: int | None = None
    """Nothing in the log below this position is needed any more."""
    send: list[tuple[ReplicaId, bytes]] = field(default_factory=list)
    replies: list[tuple[int, dict[str, Any] | CrdtStoreError]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    wake_ms: int = 0
    """When the next ``Tick`` has something to do (Unix ms)."""
    rejoin: str | None = None
    """Why this node is to give up its id and to join under a new one; None: it is not."""
