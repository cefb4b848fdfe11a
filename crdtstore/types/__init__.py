"""The registry of types: one file per type, one line here. Everything that must know all types asks this."""

from __future__ import annotations

from crdtstore.types._base import Argument, CrdtType, Live, Mutator, View
from crdtstore.types.aw_set import AwSet
from crdtstore.types.counter import Counter
from crdtstore.types.event_log import EventLog
from crdtstore.types.lww_map import LwwMap
from crdtstore.types.lww_register import LwwRegister

__all__ = ["REGISTRY", "Argument", "CrdtType", "Live", "Mutator", "View"]

REGISTRY: dict[str, CrdtType] = {
    crdt.name: crdt
    for crdt in (
        AwSet(),
        Counter(),
        EventLog(),
        LwwMap(),
        LwwRegister(),
    )
}
