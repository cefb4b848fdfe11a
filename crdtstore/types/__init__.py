"""The registry of types: one file per type, one line here. Everything that must know all types asks this."""

from __future__ import annotations

from crdtstore.types._base import Argument, CrdtType, Issuer, Live, Mutator, View, Write
from crdtstore.types.aw_set import AwSet
from crdtstore.types.bounded_counter import BoundedCounter
from crdtstore.types.counter import Counter
from crdtstore.types.dw_flag import DwFlag
from crdtstore.types.event_log import EventLog
from crdtstore.types.ew_flag import EwFlag
from crdtstore.types.g_set import GSet
from crdtstore.types.lww_map import LwwMap
from crdtstore.types.lww_register import LwwRegister
from crdtstore.types.max_register import MaxRegister
from crdtstore.types.min_register import MinRegister
from crdtstore.types.mv_register import MvRegister
from crdtstore.types.or_map import OrMap
from crdtstore.types.rw_set import RwSet
from crdtstore.types.text import Text

__all__ = ["REGISTRY", "Argument", "CrdtType", "Issuer", "Live", "Mutator", "View", "Write"]

REGISTRY: dict[str, CrdtType] = {}
REGISTRY.update(
    (crdt.name, crdt)
    for crdt in (
        AwSet(),
        BoundedCounter(),
        Counter(),
        DwFlag(),
        EventLog(),
        EwFlag(),
        GSet(),
        LwwMap(),
        LwwRegister(),
        MaxRegister(),
        MinRegister(),
        MvRegister(),
        OrMap(REGISTRY),
        RwSet(),
        Text(),
    )
)
