"""The Python client of crdtstore: see ``connect``."""

from crdtstore.errors import (
    AccessError,
    Compacted,
    CrdtStoreError,
    HoldEnded,
    InsufficientRights,
    NotReplicated,
    OutcomeUnknown,
    PreconditionFailed,
    ReplicaBehind,
    Unavailable,
    UsageError,
)
from crdtstore_client.domain import Collection, Domain
from crdtstore_client.handles import AwSet, Counter, Event, EventLog, Handle, LwwMap, LwwRegister
from crdtstore_client.link import traceparent
from crdtstore_client.ops import Ack, Op, Reading
from crdtstore_client.status import GroupStatus, PeerStatus, Status
from crdtstore_client.store import Store, connect
from crdtstore_client.transport import NotSent, ReplyLost, Response, Transport

__all__ = [
    "AccessError",
    "Ack",
    "AwSet",
    "Collection",
    "Compacted",
    "Counter",
    "CrdtStoreError",
    "Domain",
    "Event",
    "EventLog",
    "GroupStatus",
    "Handle",
    "HoldEnded",
    "InsufficientRights",
    "LwwMap",
    "LwwRegister",
    "NotReplicated",
    "NotSent",
    "Op",
    "OutcomeUnknown",
    "PeerStatus",
    "PreconditionFailed",
    "Reading",
    "ReplicaBehind",
    "ReplyLost",
    "Response",
    "Status",
    "Store",
    "Transport",
    "Unavailable",
    "UsageError",
    "connect",
    "traceparent",
]
