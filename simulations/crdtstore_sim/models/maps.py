"""Models of maps: per field the specification of what is nested, on the operations that no removal of the field had seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crdtstore.clock import rfc3339
from crdtstore_sim.models.base import Act, Here, Model, Shown
from crdtstore_sim.models.history import There

__all__ = ["LwwMap", "OrMap", "part_of"]


def part_of(name: str, type_name: str) -> str:
    """A field of an or_map: name and type together say which."""
    return f"{name}:{type_name}"


class _Fields(Model):
    """What both maps have in common: fields that may end by themselves."""

    def name_of(self, part: str) -> str:
        return part

    def ends(self, there: There) -> dict[str, Any]:
        fields: dict[str, str] = {}
        for part in sorted(part for part, at in there.below.items() if at.exists):
            due_ms = there.below[part].due_ms
            if due_ms is not None:
                fields.setdefault(self.name_of(part), rfc3339(due_ms))
        return {**super().ends(there), **({"field_expires": fields} if fields else {})}


class LwwMap(_Fields):
    """Per field the greatest in (hlc, replica) among the writes that no other set or unset of it had seen."""

    def __init__(self) -> None:
        self.acts: Mapping[str, Act] = {"set": _set, "unset": _unset}

    def read(self, there: There, options: Mapping[str, Any]) -> Shown:
        written = {name: at.writes for name, at in there.below.items() if at.writes}
        fields = {name: writes[-1].value for name, writes in written.items()}
        return Shown(fields, sum(len(writes) - 1 for writes in written.values()))

    def fields(self, op: str, given: Mapping[str, Any]) -> Sequence[Any]:
        return list(given.get("fields") or ()) if op in {"set", "expire"} else ()


def _set(here: Here, given: Mapping[str, Any]) -> None:
    for name, value in given["fields"].items():
        here.clear((name,))
        here.write((name,), value)


def _unset(here: Here, given: Mapping[str, Any]) -> None:
    for name in given["fields"]:
        here.clear((name,))


class OrMap(_Fields):
    """Per field, which is a name and a type, what that type reads; of several types under one name the first in the alphabet.

    ``models`` are those of all types; it may be filled later.
    """

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = models
        self.acts: Mapping[str, Act] = {"remove": self._remove}

    def name_of(self, part: str) -> str:
        return part.rpartition(":")[0]

    def _remove(self, here: Here, given: Mapping[str, Any]) -> None:
        for type_name in self._models:
            here.clear((part_of(given["field"], type_name),))

    def read(self, there: There, options: Mapping[str, Any]) -> Shown:
        parts = sorted((*part.rpartition(":")[::2], part) for part, at in there.below.items() if at.exists)
        value: dict[str, Any] = {}
        conflicts = fading = 0
        for name, type_name, part in parts:
            if name in value:
                conflicts += 1
                continue
            shown = self._models[type_name].read(there.below[part], {})
            value[name] = shown.value
            conflicts += shown.conflicts
            fading += shown.fading
        return Shown(value, conflicts, fading)
