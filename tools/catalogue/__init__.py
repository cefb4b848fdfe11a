"""What the page of types says of each type: one file per type, one line here, in the order of the page."""

from __future__ import annotations

from tools.catalogue import (
    aw_set,
    bounded_counter,
    counter,
    dw_flag,
    event_log,
    ew_flag,
    g_set,
    lww_map,
    lww_register,
    max_register,
    min_register,
    mv_register,
    or_map,
    rw_set,
    text,
)
from tools.catalogue._entry import Case, Cost, Entry, Example, Op, do

__all__ = ["CATALOGUE", "Case", "Cost", "Entry", "Example", "Op", "do"]

CATALOGUE: dict[str, Entry] = {
    "counter": counter.ENTRY,
    "bounded_counter": bounded_counter.ENTRY,
    "lww_register": lww_register.ENTRY,
    "mv_register": mv_register.ENTRY,
    "max_register": max_register.ENTRY,
    "min_register": min_register.ENTRY,
    "ew_flag": ew_flag.ENTRY,
    "dw_flag": dw_flag.ENTRY,
    "g_set": g_set.ENTRY,
    "aw_set": aw_set.ENTRY,
    "rw_set": rw_set.ENTRY,
    "lww_map": lww_map.ENTRY,
    "or_map": or_map.ENTRY,
    "event_log": event_log.ENTRY,
    "text": text.ENTRY,
}
