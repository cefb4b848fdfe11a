"""Who a data directory is, and whether it still is who it says.

document     identity.json: the id, and the ids it had before
taking       who may take an id: a founder when told to, a joiner a new one, and a directory that has one keeps it
leaving      giving an id up: what belongs to it goes to ``left/<id>/``
seal         seal.json: which directory of which machine the id was given to
anchor       how far the log was durable, in memory that does not outlive the boot
continuity   what identity, seal and anchor together prove at a start
"""

from __future__ import annotations

from crdtstore_node.identity.anchor import Anchor, anchor_places
from crdtstore_node.identity.continuity import Continuity, Verdict, check_continuity, continue_identity
from crdtstore_node.identity.document import (
    FILE_NAME,
    LOG_NAME,
    Identity,
    Left,
    RestoredFrom,
    mark_joined,
    read_identity,
    write_identity,
)
from crdtstore_node.identity.leaving import LEFT_NAME, finish_leaving, leave_identity
from crdtstore_node.identity.seal import SEAL_NAME
from crdtstore_node.identity.taking import Joining, check_identity, take_identity

__all__ = [
    "FILE_NAME",
    "LEFT_NAME",
    "LOG_NAME",
    "SEAL_NAME",
    "Anchor",
    "Continuity",
    "Identity",
    "Joining",
    "Left",
    "RestoredFrom",
    "Verdict",
    "anchor_places",
    "check_continuity",
    "check_identity",
    "continue_identity",
    "finish_leaving",
    "leave_identity",
    "mark_joined",
    "read_identity",
    "take_identity",
    "write_identity",
]
