"""The models: what a key must read, told from the set of commits and their happens-before alone.

The question: how can a reading be wrong although all replicas agree? Only a second definition can tell. A model knows no tree, no leaf and
no engine: it has what users asked for, each request's dot, stamp and deps, and the sentences of ALGORITHMS 5. ``history`` says what counts
of what was written, ``key`` what deadlines do, and each of the other files what the types of one family read.

Nothing of ours is imported but dots and the hybrid clock.
"""

from __future__ import annotations

from crdtstore_sim.models.base import Model, canonical
from crdtstore_sim.models.counters import BoundedCounter, Counter, rights
from crdtstore_sim.models.history import Event
from crdtstore_sim.models.key import Key, Reading, System
from crdtstore_sim.models.maps import LwwMap, OrMap, part_of
from crdtstore_sim.models.registers import DwFlag, EwFlag, Extreme, LwwRegister, MvRegister
from crdtstore_sim.models.sequences import EventLog, Text
from crdtstore_sim.models.sets import AwSet, GSet, RwSet

__all__ = ["MODELS", "Event", "Key", "Model", "Reading", "System", "canonical", "part_of", "rights"]

MODELS: dict[str, Model] = {}
MODELS |= {
    "aw_set": AwSet(),
    "bounded_counter": BoundedCounter(),
    "counter": Counter(),
    "dw_flag": DwFlag(),
    "event_log": EventLog(),
    "ew_flag": EwFlag(),
    "g_set": GSet(),
    "lww_map": LwwMap(),
    "lww_register": LwwRegister(),
    "max_register": Extreme(max),
    "min_register": Extreme(min),
    "mv_register": MvRegister(),
    "or_map": OrMap(MODELS),
    "rw_set": RwSet(),
    "text": Text(),
}
"""By the name of the type, one line per type; a type without a model is only held to convergence."""
