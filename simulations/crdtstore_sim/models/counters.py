"""Models of counts: sums that lose nothing, and stock that is never oversold."""

from __future__ import annotations

from collections.abc import Mapping
from operator import add
from typing import Any

from crdtstore.causal import ReplicaId
from crdtstore.clock import physical_ms
from crdtstore_sim.models.base import Act, Here, Model, Shown
from crdtstore_sim.models.history import NOTHING, There, Written

__all__ = ["BoundedCounter", "Counter", "rights"]


class Counter(Model):
    """The sum of all adds that no delete had seen."""

    acts: Mapping[str, Act] = {"add": lambda here, given: here.write((), given.get("amount", 1), add)}

    def read(self, there: There, options: Mapping[str, Any]) -> Shown:
        return Shown(sum(write.value for write in there.writes))


_GRANTED, _MOVED, _USED, _HELD = "G", "R", "U", "H"


class BoundedCounter(Model):
    """What was granted, without what was consumed and what is held.

    A replica grants rights to itself and gives them to others; it may use as many as it has and has not used, given away or put aside. A
    hold is its replica's whose reservation counts, until it is dropped.
    """

    deletable = False

    def __init__(self) -> None:
        self.acts: Mapping[str, Act] = {
            "grant": lambda here, given: here.write((_GRANTED,), given["amount"], add),
            "consume": lambda here, given: here.write((_USED,), given["amount"], add),
            "transfer": _transfer,
            "reserve": _reserve,
            "confirm": lambda here, given: _end(here, given["hold"], is_sold=True),
            "release": lambda here, given: _end(here, given["hold"], is_sold=False),
        }

    def read(self, there: There, options: Mapping[str, Any]) -> Shown:
        granted = sum(write.value for write in _at(there, _GRANTED).writes)
        used = sum(write.value for write in _at(there, _USED).writes)
        held = sum(cell.writes[0].value[0] for cell in _at(there, _HELD).below.values() if cell.writes)
        return Shown(options.get("lower", 0) + granted - used - held)


def rights(there: There, replica: ReplicaId) -> int:
    """How much a replica may use, as far as what counts ``there`` tells."""
    total: int = sum(write.value for write in _at(there, _GRANTED).writes if _maker(write) == replica)
    for to, cell in _at(there, _MOVED).below.items():
        total += sum(write.value for write in cell.writes if to == replica)
        total -= sum(write.value for write in cell.writes if _maker(write) == replica)
    total -= sum(write.value for write in _at(there, _USED).writes if _maker(write) == replica)
    holds = [cell.writes[0] for cell in _at(there, _HELD).below.values() if cell.writes]
    total -= sum(write.value[0] for write in holds if _maker(write) == replica)
    return total


def _maker(write: Written) -> ReplicaId:
    return write.order[1]


def _at(there: There, part: Any) -> There:
    return there.below.get(part, NOTHING)


def _transfer(here: Here, given: Mapping[str, Any]) -> None:
    here.write((_MOVED, here.replicas[here.regions.index(given["to"])]), given["amount"], add)


def _reserve(here: Here, given: Mapping[str, Any]) -> None:
    until_ms = physical_ms(here.event.hlc) + given["ttl_ms"]
    here.write((_HELD, f"{here.event.name}.{here.index}"), (given["amount"], until_ms))


def _end(here: Here, hold: str, *, is_sold: bool) -> None:
    held = _at(_at(here.there(), _HELD), hold).writes
    here.clear((_HELD, hold))
    if is_sold and held:
        here.write((_USED,), held[0].value[0], add)
