"""What happens to an engine. Every change of a group enters through one of these; time comes with ``step``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from crdtstore.causal import ReplicaId
from crdtstore.configuration import Configuration
from crdtstore.engine.membership.changes import Change
from crdtstore.messages import Ack, Digest, Fetch, Frame, Part, Regroup, Want
from crdtstore.types import CrdtType, Mutator

__all__ = [
    "Approached",
    "Draft",
    "Event",
    "Forced",
    "Installed",
    "Left",
    "LocalCommit",
    "MembershipEvent",
    "Op",
    "Opened",
    "Ordered",
    "PeerChanged",
    "Persisted",
    "Received",
    "Tick",
]


class Op(Struct, frozen=True, gc=False):
    """One checked operation on one key; no mutator means delete."""

    crdt: CrdtType
    collection: str
    """As it stands in paths: ``orders:counter``."""
    key: str
    mutator: Mutator | None
    arguments: Mapping[str, Any]
    if_match: str | None = None
    """The etag the key must have before the commit."""
    below: tuple[str, ...] = ()
    """The path below the key of the value that is written: fields of maps, ``crdt`` being the type there."""
    options: Mapping[str, Any] = {}
    """The options of the collection."""


class Draft(Struct, gc=False):
    """A commit to be made: what its issuer decides; the engine adds dot, stamp and deps."""

    ticket: int
    ops: list[Op]
    author: str = "anonymous"
    attributes: list[Any] = []
    """Attributes other than the operation id, flat, ascending."""
    operation: tuple[bytes, int] | None = None
    expires_ms: int = 0
    """When the operation id expires (Unix ms); only with ``operation``."""
    wait_ms: int = 0
    """How long it may wait for rights of a bounded counter to arrive."""


class Tick(Struct, frozen=True, gc=False):
    """Time has passed."""


class LocalCommit(Struct, frozen=True, gc=False):
    """Users of this replica write."""

    drafts: list[Draft]


class Received(Struct, frozen=True, gc=False):
    """A peer (index of the replica) said something."""

    peer: int
    message: Frame | Digest | Ack | Want | Regroup | Fetch | Part


class Approached(Struct, frozen=True, gc=False):
    """Somebody said something who was never a member of a configuration that is known here."""

    replica: ReplicaId
    message: Frame | Digest | Ack | Want | Regroup | Fetch | Part


class Opened(Struct, frozen=True, gc=False):
    """The group was opened by a configuration that somebody showed, which is not written down yet."""


class Installed(Struct, frozen=True, gc=False):
    """The state of the group was taken over from another member, and is durable."""


class Forced(Struct, frozen=True, gc=False):
    """An operator decided without a vote who the members are."""

    configuration: Configuration


class Left(Struct, frozen=True, gc=False):
    """This replica is to leave."""


class Ordered(Struct, frozen=True, gc=False):
    """A change of the members is wanted; ``ticket`` names who waits for it, 0: nobody."""

    change: Change
    ticket: int = 0


class Persisted(Struct, frozen=True, gc=False):
    """Everything persisted up to this number is durable; what had not been before stands in the block of the log at ``position``."""

    number: int
    position: int = -1
    """-1: the log has no places that could be read again."""


class PeerChanged(Struct, frozen=True, gc=False):
    """A connection to a peer (index of the replica) came or went."""

    peer: int
    is_connected: bool


MembershipEvent = Approached | Opened | Installed | Ordered | Forced | Left
Event = Tick | LocalCommit | Received | Persisted | PeerChanged | MembershipEvent
