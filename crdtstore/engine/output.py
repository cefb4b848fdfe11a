"""What an engine wants done: one struct, its fields in order of execution.

What is to be sent or replied may be sent at once: the engine has held it back until what it speaks of was durable.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from crdtstore.causal import ReplicaId
from crdtstore.commit import Commit
from crdtstore.errors import CrdtStoreError, Unavailable
from crdtstore.messages import Ack, Digest, Frame, Regroup, Want

__all__ = ["Committed", "Output", "Refused", "doubt", "in_doubt"]


class Committed(Struct, gc=False):
    """A local commit is durable: its dot (index of origin, number); ``values[i]`` is the reading after op i where the type shows it."""

    ticket: int
    origin: int
    seq: int
    values: list[Any]
    is_replayed: bool = False


class Refused(Struct):
    """A local commit was refused; nothing changed."""

    ticket: int
    error: CrdtStoreError


class Output(Struct):
    """The effects of one step. Seen by the garbage collector, as ``Refused`` is: an error may hold the frame that holds it."""

    persist: list[tuple[int, bytes]] = field(default_factory=list)
    """Commits (index of origin, bytes) to write, and notes of the group (-1); ``number`` names them in the event ``Persisted``."""
    number: int = 0
    send: list[tuple[int, Frame | Digest | Ack | Want]] = field(default_factory=list)
    tell: list[tuple[ReplicaId, Regroup]] = field(default_factory=list)
    """What is said about members, also to those who are none."""
    replies: list[Committed | Refused] = field(default_factory=list)
    changed: list[tuple[int, Commit]] = field(default_factory=list)
    """Commits applied in this step, in apply order (index of origin, commit)."""
    rejected: list[tuple[int, str]] = field(default_factory=list)
    """What a peer said that cannot be true: (index of peer, reason); nothing of it was applied."""
    has_adopted: bool = False
    """Another configuration is in force: who of its members is connected has to be said again."""
    decided: list[tuple[int, CrdtStoreError | None]] = field(default_factory=list)
    """What became of orders of changes: (ticket, why it does not hold; None: it is done)."""


def in_doubt(reply: Committed | Refused) -> Committed | Refused:
    """What is answered when a commit became durable under an id that had come to count no more meanwhile."""
    if isinstance(reply, Refused) or reply.is_replayed:
        return reply
    return Refused(reply.ticket, doubt())


def doubt() -> Unavailable:
    """What is said of a write that may go with the id that made it."""
    error = Unavailable(
        "this node was fenced or removed while this was written: whether it counts is not known. Try again in another region; with an "
        "operation id it counts once.",
        code="fenced",
    )
    error.effect = "unknown"
    return error
