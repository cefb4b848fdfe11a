"""Handles: one class per type of the registry, each with its ops as methods.

The question: why written out, when everything else derives from the registry? Because editors and mypy read classes,
not registries. A test holds both together: same names, same arguments, same defaults.
"""

from __future__ import annotations

from typing import Any

from crdtstore_client.handles._base import Consistency, Expiring, Handle, milliseconds
from crdtstore_client.handles.bounded_counter import BoundedCounter, Hold, Reservation
from crdtstore_client.handles.counters import Counter
from crdtstore_client.handles.event_log import Event, EventLog
from crdtstore_client.handles.flags import DwFlag, EwFlag
from crdtstore_client.handles.lww_map import LwwMap
from crdtstore_client.handles.or_map import NESTED, OrMap
from crdtstore_client.handles.registers import LwwRegister, MaxRegister, MinRegister, MvRegister
from crdtstore_client.handles.sets import AwSet, GSet, RwSet
from crdtstore_client.handles.text import Text

__all__ = [
    "HANDLES",
    "AwSet",
    "BoundedCounter",
    "Consistency",
    "Counter",
    "DwFlag",
    "Event",
    "EventLog",
    "EwFlag",
    "Expiring",
    "GSet",
    "Handle",
    "Hold",
    "LwwMap",
    "LwwRegister",
    "MaxRegister",
    "MinRegister",
    "MvRegister",
    "OrMap",
    "Reservation",
    "RwSet",
    "Text",
    "milliseconds",
]

HANDLES: dict[str, type[Handle[Any]]] = dict(sorted({**NESTED, BoundedCounter.type_name: BoundedCounter}.items()))
