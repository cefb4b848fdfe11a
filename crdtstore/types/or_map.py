"""What belongs together? A map whose fields are of any type, themselves maps if need be.

The question: what if two regions give one name to fields of different types? The type is part of the path, ``name:type``, so both keep
all of their data and cannot damage each other. One of them serves under the name, the alphabetically first, and the other counts as a
conflict until somebody removes the field. A remove takes what it has observed of the field, of whatever type; a concurrent operation on
the field survives, without what the remove has taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from crdtstore.causal import ReplicaId
from crdtstore.errors import UsageError
from crdtstore.leaves import DROP, Branch
from crdtstore.types._base import CrdtType, Text, View, Write, reading_mutator
from crdtstore.values import check_text, show

__all__ = ["OrMap", "part_of", "split_part"]

MAX_FIELDS = 1_000
"""Fields that one declaration may name."""


def part_of(name: str, type_name: str) -> str:
    """The part of a path for a field."""
    return f"{name}:{type_name}"


def split_part(part: str) -> tuple[str, str]:
    """Name and type of a field; a name may contain colons, a type never does."""
    name, _, type_name = part.rpartition(":")
    return name, type_name


class OrMap(CrdtType):
    """A map from names to nested types.

    ``registry`` are all types by name, this one among them; it may be filled after the map is made.
    """

    name = "or_map"
    question = "What belongs together?"
    empty: ClassVar[Any] = {}
    has_fields = True
    options: ClassVar[Mapping[str, Any]] = {"fields": {}}

    def __init__(self, registry: Mapping[str, CrdtType]) -> None:
        super().__init__()
        self._registry = registry

    def check_option(self, name: str, value: Any) -> Any:
        """Of ``fields``: a map from names to types; where it is not empty, other fields are refused."""
        if not isinstance(value, Mapping) or len(value) > MAX_FIELDS:
            raise UsageError(
                f"the option {name} must be a map of at most {MAX_FIELDS:,} names to types, got {show(value)}. "
                "Nothing changed.",
                code="invalid-value",
            )
        known = sorted(crdt.name for crdt in self._registry.values() if crdt.nestable)
        checked: dict[str, str] = {}
        for field in sorted(check_text(field, f"each name in {name}") for field in value):
            if value[field] not in known:
                raise UsageError(
                    f"the type of the field {show(field)} must be one of {', '.join(known)}, got {show(value[field])}. "
                    "Nothing changed.",
                    code="invalid-value",
                )
            checked[field] = value[field]
        return checked

    @reading_mutator
    def remove(self, view: View, field: Text) -> list[Any]:
        """Remove a field as far as this region has seen it."""
        types = {type_name for name, type_name in map(split_part, _parts(view)) if name == field}
        if declared := view.options.get("fields", {}).get(field):
            types.add(declared)
        effects: list[Any] = []
        for type_name in sorted(types):
            effects += (DROP, [part_of(field, type_name)], None)
        return effects

    def read(self, view: View) -> dict[str, Any]:
        return {name: crdt.read(child) for _, name, crdt, child, serves in self._fields(view) if serves}

    def conflicts(self, view: View) -> int:
        """Those of the nested types, and what stands under a name that another type serves."""
        return sum(crdt.conflicts(child) if serves else 1 for _, _, crdt, child, serves in self._fields(view))

    def explain(self, view: View) -> Iterator[Write]:
        for part, name, crdt, child, serves in self._fields(view):
            for write in crdt.explain(child):
                at = (part, *write.at)
                if serves:
                    yield write._replace(at=at)
                else:
                    yield Write(at, write.live, False, f"another type serves under the name {show(name)}")

    def place(self, at: tuple[Any, ...], regions: Mapping[ReplicaId, str]) -> list[Any]:
        """Fields as pairs of name and type."""
        if not at or not isinstance(at[0], str):
            return list(at)
        name, type_name = split_part(at[0])
        crdt = self._registry.get(type_name)
        return [[name, type_name], *(at[1:] if crdt is None else crdt.place(at[1:], regions))]

    def _fields(self, view: View) -> Iterator[tuple[str, str, CrdtType, View, bool]]:
        """What can be read: part, name, type, what stands there, and whether it serves under its name; by name, then type.

        Fields of a type that only a later version knows are passed over.
        """
        found = []
        for part, child in view.children():
            if not isinstance(part, str):
                continue
            name, type_name = split_part(part)
            crdt = self._registry.get(type_name)
            if crdt is not None:
                found.append((name, type_name, part, crdt, child))
        before = None
        for name, _, part, crdt, child in sorted(found, key=lambda field: field[:2]):
            yield part, name, crdt, child, name != before
            before = name


def _parts(view: View) -> list[str]:
    """The fields of which anything is there, also what cannot be read: a mark that is left keeps adds out."""
    entry = view.entry
    if type(entry) is not Branch:
        return []
    if entry.sweep is not None:
        entry.sweep.finish()
    return [part for part in entry.children if isinstance(part, str)]
