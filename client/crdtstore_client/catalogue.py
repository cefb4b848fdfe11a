"""The catalogue: one method per type of the registry, each giving a collection of that type.

The question: which type does a user's own type of values go with? ``value``, ``element`` and ``body`` may be anything
``msgspec.convert`` knows (dataclass, Struct, TypedDict, UUID, datetime, Enum); without it values are plain JSON types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from crdtstore.errors import UsageError
from crdtstore_client.collection import Collection
from crdtstore_client.handles import (
    HANDLES,
    AwSet,
    BoundedCounter,
    Counter,
    DwFlag,
    EventLog,
    EwFlag,
    GSet,
    Handle,
    LwwMap,
    LwwRegister,
    MaxRegister,
    MinRegister,
    MvRegister,
    OrMap,
    RwSet,
    Text,
)

if TYPE_CHECKING:
    from crdtstore_client.domain import Domain

__all__ = ["Catalogue"]

H = TypeVar("H", bound=Handle[Any])
E = TypeVar("E")
V = TypeVar("V")
M = TypeVar("M")


class Catalogue:
    """What ``Domain`` offers of each type. No I/O."""

    __slots__ = ()

    def _keys(
        self, name: str, handle: type[H], value_type: Any = None, options: Mapping[str, Any] | None = None
    ) -> Collection[H]:
        return Collection(cast("Domain", self), name, handle, value_type, options)

    def collection(
        self, name: str, type_name: str, options: Mapping[str, Any] | None = None
    ) -> Collection[Handle[Any]]:
        """A collection whose type is known at run time only; ``options`` as it was declared with, if it is an or_map."""
        if type_name not in HANDLES:
            raise UsageError(
                f"this client has no handle for a type {type_name!r:.100}; it has {', '.join(HANDLES)}. Nothing changed.",
                code="invalid-value",
            )
        return self._keys(name, HANDLES[type_name], None, options)

    def counter(self, name: str) -> Collection[Counter]:
        """How many?"""
        return self._keys(name, Counter)

    def bounded_counter(self, name: str) -> Collection[BoundedCounter]:
        """How many are left?"""
        return self._keys(name, BoundedCounter)

    @overload
    def lww_register(self, name: str) -> Collection[LwwRegister[Any]]: ...
    @overload
    def lww_register(self, name: str, value: type[V]) -> Collection[LwwRegister[V]]: ...
    def lww_register(self, name: str, value: Any = None) -> Collection[LwwRegister[Any]]:
        """What is it now? The latest write wins."""
        return self._keys(name, LwwRegister, value)

    @overload
    def mv_register(self, name: str) -> Collection[MvRegister[Any]]: ...
    @overload
    def mv_register(self, name: str, value: type[V]) -> Collection[MvRegister[V]]: ...
    def mv_register(self, name: str, value: Any = None) -> Collection[MvRegister[Any]]:
        """What did they all say? Each of several concurrent values, for a person to decide."""
        return self._keys(name, MvRegister, value)

    @overload
    def max_register(self, name: str) -> Collection[MaxRegister[Any]]: ...
    @overload
    def max_register(self, name: str, value: type[V]) -> Collection[MaxRegister[V]]: ...
    def max_register(self, name: str, value: Any = None) -> Collection[MaxRegister[Any]]:
        """What was the most? ``value`` may be any type made of integers or of text."""
        return self._keys(name, MaxRegister, value)

    @overload
    def min_register(self, name: str) -> Collection[MinRegister[Any]]: ...
    @overload
    def min_register(self, name: str, value: type[V]) -> Collection[MinRegister[V]]: ...
    def min_register(self, name: str, value: Any = None) -> Collection[MinRegister[Any]]:
        """What was the least? ``value`` may be any type made of integers or of text."""
        return self._keys(name, MinRegister, value)

    def ew_flag(self, name: str) -> Collection[EwFlag]:
        """Has anybody said yes? A concurrent enable wins."""
        return self._keys(name, EwFlag)

    def dw_flag(self, name: str) -> Collection[DwFlag]:
        """Do all agree? A concurrent disable wins."""
        return self._keys(name, DwFlag)

    @overload
    def g_set(self, name: str) -> Collection[GSet[Any]]: ...
    @overload
    def g_set(self, name: str, element: type[E]) -> Collection[GSet[E]]: ...
    def g_set(self, name: str, element: Any = None) -> Collection[GSet[Any]]:
        """Who was ever there? ``element`` may be any type made of text, an integer or bytes."""
        return self._keys(name, GSet, element)

    @overload
    def aw_set(self, name: str) -> Collection[AwSet[Any]]: ...
    @overload
    def aw_set(self, name: str, element: type[E]) -> Collection[AwSet[E]]: ...
    def aw_set(self, name: str, element: Any = None) -> Collection[AwSet[Any]]:
        """Who is in? ``element`` may be any type made of text, an integer or bytes."""
        return self._keys(name, AwSet, element)

    @overload
    def rw_set(self, name: str) -> Collection[RwSet[Any]]: ...
    @overload
    def rw_set(self, name: str, element: type[E]) -> Collection[RwSet[E]]: ...
    def rw_set(self, name: str, element: Any = None) -> Collection[RwSet[Any]]:
        """Who is still allowed? ``element`` may be any type made of text, an integer or bytes."""
        return self._keys(name, RwSet, element)

    @overload
    def lww_map(self, name: str) -> Collection[LwwMap[dict[str, Any]]]: ...
    @overload
    def lww_map(self, name: str, value: type[M]) -> Collection[LwwMap[M]]: ...
    def lww_map(self, name: str, value: Any = None) -> Collection[LwwMap[Any]]:
        """What does the record say? ``value`` is the type of the whole map."""
        return self._keys(name, LwwMap, value)

    @overload
    def or_map(self, name: str, *, fields: Mapping[str, str] | None = None) -> Collection[OrMap[dict[str, Any]]]: ...
    @overload
    def or_map(self, name: str, value: type[M], *, fields: Mapping[str, str] | None = None) -> Collection[OrMap[M]]: ...
    def or_map(
        self, name: str, value: Any = None, *, fields: Mapping[str, str] | None = None
    ) -> Collection[OrMap[Any]]:
        """What belongs together? ``value`` is the type of the whole map.

        ``fields``: the same as in ``declare(name, "or_map", fields={"visits": "counter"})``, if it was declared so. Without
        it everything works too, but a field that was not declared is refused by the node and not where it is written,
        and readings of the map are plain JSON: the sets in it are lists.
        """
        return self._keys(name, OrMap, value, {"fields": dict(fields or {})})

    def event_log(self, name: str, body: Any = None) -> Collection[EventLog]:
        """What happened? ``body`` is the type of the events' bodies."""
        return self._keys(name, EventLog, body)

    def text(self, name: str) -> Collection[Text]:
        """What does it say? Characters in an order."""
        return self._keys(name, Text)
