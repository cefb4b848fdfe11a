"""The handle of a map whose fields are of any type, and the handles of its fields.

The question: how does a request name a field? By its name alone where the collection declares ``fields``, otherwise by
its name and type, so that two regions that use one name for two types both keep what they wrote. Which of the two it is
stands in the declaration, and a handle does no I/O. So a handle names both, which is right in either case, unless the
user has said the ``fields`` where the collection is named, as in ``declare``. In return for that, a field that does not
exist, or is of another type, fails on the line that wrote it, and sets come as sets. Whoever says it wrong is refused
by the node; nothing is ever stored under a wrong path.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Generic, TypeVar, overload

from crdtstore.errors import UsageError
from crdtstore.types import REGISTRY
from crdtstore.values import check_text
from crdtstore_client.handles._base import Expiring, Handle
from crdtstore_client.handles.counters import Counter
from crdtstore_client.handles.event_log import EventLog
from crdtstore_client.handles.flags import DwFlag, EwFlag
from crdtstore_client.handles.lww_map import LwwMap
from crdtstore_client.handles.registers import LwwRegister, MaxRegister, MinRegister, MvRegister
from crdtstore_client.handles.sets import AwSet, GSet, RwSet
from crdtstore_client.handles.text import Text
from crdtstore_client.ops import Op

__all__ = ["NESTED", "OrMap"]

H = TypeVar("H", bound=Handle[Any])
E = TypeVar("E")
V = TypeVar("V")
M = TypeVar("M")


class OrMap(Expiring[M], Generic[M]):
    """What belongs together? Fields of any type: ``customer.counter("visits")`` is the handle of a field.

    Removing a field removes what this region has seen of it: what others wrote meanwhile stays, counters exact.
    """

    type_name = "or_map"
    _readings = dict
    __slots__ = ()

    def remove(self, field: str) -> Op[None]:
        """Remove a field, whatever its type, as far as the region has seen it."""
        return self.op("remove", field=field)

    async def members(self, *, after: str | None = None) -> AsyncIterator[tuple[str, Any]]:
        """Fields and values in the order of names, page by page, for maps too large to be read at once."""
        behind = None if after is None else f"{after}:~"  # behind the field, whatever its type
        async for item in self._members(behind):
            yield item["field"], self._field_value(item["field"], item["value"])

    def decode(self, value: Any) -> M:
        """In the type the user named; otherwise fields that were declared come as their own handles give them."""
        if self._value_type is not None:
            return self._convert(value)  # type: ignore[no-any-return]
        return {name: self._field_value(name, reading) for name, reading in value.items()}  # type: ignore[return-value]

    def _field_value(self, name: str, reading: Any) -> Any:
        type_name = self.declared.get(name)
        return reading if type_name is None else self.field(name, type_name).decode(reading)

    @property
    def declared(self) -> Mapping[str, str]:
        """The types of the fields, as far as the user has said them; empty when any field may be written."""
        return self._options.get("fields") or {}

    def field(self, name: str, type_name: str) -> Handle[Any]:
        """The handle of a field whose type is known at run time only."""
        if type_name not in NESTED:
            crdt = REGISTRY.get(type_name)
            what = f"there is no type {type_name!r:.100}" if crdt is None else f"a {type_name} cannot stand in a map"
            raise UsageError(f"{what}; fields are of {', '.join(NESTED)}. Nothing changed.", code="invalid-value")
        return self._nested(NESTED[type_name], name)

    def _nested(self, kind: type[H], name: str, value_type: Any = None) -> H:
        declared = self.declared
        check_text(name, "a field's name")
        if declared and declared.get(name) != kind.type_name:
            has = f"it is a {declared[name]}" if name in declared else f"there are {', '.join(sorted(declared))}"
            raise UsageError(
                f"{self._domain.name}/{self.collection} declares no field {name!r:.100} of type {kind.type_name}: "
                f"{has}. Nothing changed.",
                code="invalid-op",
            )
        place = self._place.below(name, kind.type_name, is_declared=bool(declared))
        return kind(self._domain, self.collection, self.key, value_type, place=place)

    def counter(self, field: str) -> Counter:
        """How many?"""
        return self._nested(Counter, field)

    @overload
    def lww_register(self, field: str) -> LwwRegister[Any]: ...
    @overload
    def lww_register(self, field: str, value: type[V]) -> LwwRegister[V]: ...
    def lww_register(self, field: str, value: Any = None) -> LwwRegister[Any]:
        """What is it now?"""
        return self._nested(LwwRegister, field, value)

    @overload
    def mv_register(self, field: str) -> MvRegister[Any]: ...
    @overload
    def mv_register(self, field: str, value: type[V]) -> MvRegister[V]: ...
    def mv_register(self, field: str, value: Any = None) -> MvRegister[Any]:
        """What is it now, when a person should decide?"""
        return self._nested(MvRegister, field, value)

    @overload
    def max_register(self, field: str) -> MaxRegister[Any]: ...
    @overload
    def max_register(self, field: str, value: type[V]) -> MaxRegister[V]: ...
    def max_register(self, field: str, value: Any = None) -> MaxRegister[Any]:
        """What is the most?"""
        return self._nested(MaxRegister, field, value)

    @overload
    def min_register(self, field: str) -> MinRegister[Any]: ...
    @overload
    def min_register(self, field: str, value: type[V]) -> MinRegister[V]: ...
    def min_register(self, field: str, value: Any = None) -> MinRegister[Any]:
        """What is the least?"""
        return self._nested(MinRegister, field, value)

    def ew_flag(self, field: str) -> EwFlag:
        """Is it on? A concurrent enable wins."""
        return self._nested(EwFlag, field)

    def dw_flag(self, field: str) -> DwFlag:
        """May it still? A concurrent disable wins."""
        return self._nested(DwFlag, field)

    @overload
    def g_set(self, field: str) -> GSet[Any]: ...
    @overload
    def g_set(self, field: str, element: type[E]) -> GSet[E]: ...
    def g_set(self, field: str, element: Any = None) -> GSet[Any]:
        """Who was ever in?"""
        return self._nested(GSet, field, element)

    @overload
    def aw_set(self, field: str) -> AwSet[Any]: ...
    @overload
    def aw_set(self, field: str, element: type[E]) -> AwSet[E]: ...
    def aw_set(self, field: str, element: Any = None) -> AwSet[Any]:
        """Who is in?"""
        return self._nested(AwSet, field, element)

    @overload
    def rw_set(self, field: str) -> RwSet[Any]: ...
    @overload
    def rw_set(self, field: str, element: type[E]) -> RwSet[E]: ...
    def rw_set(self, field: str, element: Any = None) -> RwSet[Any]:
        """Who may?"""
        return self._nested(RwSet, field, element)

    @overload
    def lww_map(self, field: str) -> LwwMap[dict[str, Any]]: ...
    @overload
    def lww_map(self, field: str, value: type[V]) -> LwwMap[V]: ...
    def lww_map(self, field: str, value: Any = None) -> LwwMap[Any]:
        """What does the record say?"""
        return self._nested(LwwMap, field, value)

    @overload
    def or_map(self, field: str) -> OrMap[dict[str, Any]]: ...
    @overload
    def or_map(self, field: str, value: type[V]) -> OrMap[V]: ...
    def or_map(self, field: str, value: Any = None) -> OrMap[Any]:
        """What belongs together? Fields of any type: What is nested deeper has no declared fields."""
        return self._nested(OrMap, field, value)

    def event_log(self, field: str, body: Any = None) -> EventLog:
        """What happened?"""
        return self._nested(EventLog, field, body)

    def text(self, field: str) -> Text:
        """What do we write together?"""
        return self._nested(Text, field)


NESTED: dict[str, type[Handle[Any]]] = {
    kind.type_name: kind
    for kind in (
        AwSet,
        Counter,
        DwFlag,
        EventLog,
        EwFlag,
        GSet,
        LwwMap,
        LwwRegister,
        MaxRegister,
        MinRegister,
        MvRegister,
        OrMap,
        RwSet,
        Text,
    )
}
