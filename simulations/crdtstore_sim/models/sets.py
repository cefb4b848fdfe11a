"""Models of sets: what a removal had not seen stays (add wins), or goes with it (remove wins), or nothing is ever removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crdtstore_sim.models.base import Act, Here, Model, Shown, element_order
from crdtstore_sim.models.history import There

__all__ = ["AwSet", "GSet", "RwSet"]


def _add(here: Here, given: Mapping[str, Any]) -> None:
    for element in given["elements"]:
        here.write((element,), None)


def _remove(here: Here, given: Mapping[str, Any]) -> None:
    for element in given["elements"]:
        here.clear((element,))


class AwSet(Model):
    """An element is in when some add of it was not seen by any removal. Adds end no other adds."""

    acts: Mapping[str, Act] = {"add": _add, "remove": _remove}

    def read(self, there: There, options: Mapping[str, Any]) -> Shown:
        return Shown(sorted((element for element, at in there.below.items() if at.writes), key=element_order))


class GSet(AwSet):
    """An element is in when it was added."""

    deletable = False
    acts: Mapping[str, Act] = {"add": _add}


def _decide(here: Here, given: Mapping[str, Any], is_in: bool) -> None:
    for element in given["elements"]:
        here.clear((element,))
        if is_in:
            here.write((element,), None)
        else:
            here.mark((element,))


class RwSet(Model):
    """An element is in when of the operations on it that no other had seen some are adds and none is a removal."""

    acts: Mapping[str, Act] = {
        "add": lambda here, given: _decide(here, given, True),
        "remove": lambda here, given: _decide(here, given, False),
    }

    def read(self, there: There, options: Mapping[str, Any]) -> Shown:
        elements = [element for element, at in there.below.items() if at.writes and not at.marks]
        lost = sum(bool(at.writes and at.marks) for at in there.below.values())
        return Shown(sorted(elements, key=element_order), 0, lost)
