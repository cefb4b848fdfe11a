"""Handles: one class per type of the registry, each with its ops as methods.

The question: why written out, when everything else derives from the registry? Because editors and mypy read classes,
not registries. A test holds both together: same names, same arguments, same defaults. What a method is given is checked
by the registry's own mutator right where it is called, so a wrong argument fails on the line that wrote it, in the
words the node would use.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypedDict, TypeVar

import msgspec

from crdtstore.errors import UsageError
from crdtstore.types import REGISTRY
from crdtstore_client.ops import Op, Reading

if TYPE_CHECKING:
    from crdtstore_client.domain import Domain

__all__ = ["HANDLES", "AwSet", "Consistency", "Counter", "Event", "EventLog", "Handle", "LwwMap", "LwwRegister"]

V = TypeVar("V")
E = TypeVar("E")
M = TypeVar("M")

Consistency = Literal["session", "local", "stable"]


class Event(TypedDict):
    """One entry of an event log; ``time`` is RFC 3339 in UTC."""

    id: str
    body: Any
    dot: str
    time: str


class Handle(Generic[V]):
    """One key. Making a handle does no I/O."""

    type_name: ClassVar[str]
    __slots__ = ("_domain", "_value_type", "collection", "key")

    def __init__(self, domain: Domain, collection: str, key: str, value_type: Any = None) -> None:
        self._domain = domain
        self._value_type = value_type
        self.collection = collection
        self.key = key

    async def get(self, *, consistency: Consistency = "session", max_staleness: float | timedelta | None = None) -> V:
        """The value; the type's empty one if the key was never written."""
        return (await self.read(consistency=consistency, max_staleness=max_staleness)).value

    async def read(
        self, *, consistency: Consistency = "session", max_staleness: float | timedelta | None = None
    ) -> Reading[V]:
        """The value with what the node knows about it.

        Raises:  UsageError ``type-mismatch`` when the collection is of another type than this handle.
        """
        body = await self._domain.read_key(self.collection, self.key, consistency, max_staleness)
        if body["type"] != self.type_name:
            raise UsageError(
                f"{self._domain.name}/{self.collection} is declared as {body['type']}, not as {self.type_name}. "
                "Nothing changed.",
                code="type-mismatch",
            )
        staleness_ms = body.get("staleness_ms")
        return Reading(
            value=self.decode(body["value"]),
            exists=body["exists"],
            etag=body["etag"],
            token=body["token"],
            region=body["region"],
            staleness=None if staleness_ms is None else staleness_ms / 1000,
            conflicts=body["conflicts"],
        )

    def delete(self) -> Op[None]:
        """Remove what this region has seen of the key; concurrent writes survive."""
        if not REGISTRY[self.type_name].deletable:
            raise UsageError(f"keys of type {self.type_name} cannot be deleted. Nothing changed.", code="not-deletable")
        return Op(self._domain, self.collection, self.key, {"op": "delete"}, _nothing)

    def op(self, name: str, **arguments: Any) -> Op[Any]:
        """Any op of the type by its name, for those who know it at run time only."""
        crdt = REGISTRY[self.type_name]
        if name == "delete" and not arguments:
            return self.delete()
        mutator = crdt.mutators.get(name)
        if mutator is None:
            known = ", ".join([*crdt.mutators, *(["delete"] if crdt.deletable else [])])
            raise UsageError(
                f"{self.type_name} has no operation {name!r:.100}; it has {known}. Nothing changed.", code="invalid-op"
            )
        if self._value_type is not None:
            arguments = msgspec.to_builtins(arguments, builtin_types=(bytes,))
        decode = self.decode if crdt.shows_value else _nothing
        return Op(self._domain, self.collection, self.key, {"op": name, **mutator.check(arguments)}, decode)

    def decode(self, value: Any) -> V:
        """The value in the type this handle promises."""
        raise NotImplementedError

    def _convert(self, value: Any) -> Any:
        if self._value_type is None:
            return value
        try:
            return msgspec.convert(value, self._value_type, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            where = f"{self._domain.name}/{self.collection}/{self.key}"
            raise UsageError(
                f"{where} does not hold what this handle was made for: {error}. Nothing changed.", code="invalid-value"
            ) from error

    def __repr__(self) -> str:
        return f"<{self.type_name} {self._domain.name}/{self.collection}/{self.key}>"


class Counter(Handle[int]):
    """How many?"""

    type_name = "counter"
    __slots__ = ()

    def add(self, amount: int = 1) -> Op[int]:
        """Add an amount, which may be negative."""
        return self.op("add", amount=amount)

    def decode(self, value: Any) -> int:
        return int(value)


class AwSet(Handle[frozenset[E]]):
    """Who is in? An add wins over a concurrent remove."""

    type_name = "aw_set"
    __slots__ = ()

    def add(self, *elements: E) -> Op[None]:
        """Add elements."""
        return self.op("add", elements=elements)

    def remove(self, *elements: E) -> Op[None]:
        """Remove elements as far as the region has seen them added."""
        return self.op("remove", elements=elements)

    def decode(self, value: Any) -> frozenset[E]:
        return frozenset(self._convert(element) for element in value)


class LwwRegister(Handle[V | None], Generic[V]):
    """What is it now? The latest write wins."""

    type_name = "lww_register"
    __slots__ = ()

    def set(self, value: V) -> Op[V]:
        """Replace the value."""
        return self.op("set", value=value)

    def decode(self, value: Any) -> V | None:
        return None if value is None else self._convert(value)


class LwwMap(Handle[M], Generic[M]):
    """What does the record say? The latest write of each field wins."""

    type_name = "lww_map"
    __slots__ = ()

    def set(self, fields: Mapping[str, Any]) -> Op[None]:
        """Replace the values of these fields."""
        return self.op("set", fields=fields)

    def unset(self, *fields: str) -> Op[None]:
        """Remove fields as far as the region has seen them."""
        return self.op("unset", fields=fields)

    def decode(self, value: Any) -> M:
        return self._convert(value)  # type: ignore[no-any-return]


class EventLog(Handle[list[Event]]):
    """What happened? One entry per id."""

    type_name = "event_log"
    __slots__ = ()

    def append(self, id: str, body: Any = None) -> Op[None]:  # noqa: A002 (the name of the argument in the API)
        """Append an event; its id makes a repetition harmless."""
        return self.op("append", id=id, body=body)

    def decode(self, value: Any) -> list[Event]:
        return [Event(id=e["id"], body=self._convert(e["body"]), dot=e["dot"], time=e["time"]) for e in value]


def _nothing(_: Any) -> None:
    return None


HANDLES: dict[str, type[Handle[Any]]] = {
    handle.type_name: handle for handle in (AwSet, Counter, EventLog, LwwMap, LwwRegister)
}
