"""The handle of a key: reading, ops by name, explain; what the handles of all types share.

The question: who judges what a method is given? The registry's own mutator, right where the method is called, so a
wrong argument fails on the line that wrote it, in the words the node would use.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import msgspec

from crdtstore.errors import UsageError
from crdtstore.types import REGISTRY
from crdtstore.types._arguments import MAX_TTL_MS
from crdtstore_client.explanation import Explanation
from crdtstore_client.ops import Op, Reading, Rights

if TYPE_CHECKING:
    from crdtstore_client.domain import Domain

__all__ = ["Consistency", "Expiring", "Handle", "Place", "milliseconds"]

K = TypeVar("K", bound=Op[Any])
V = TypeVar("V")

Consistency = Literal["session", "local", "stable"]

_NO_OPTIONS: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Place:
    """Where below its key a handle stands: the fields of or_maps on the way down, outermost first.

    ``wire`` is the same as a request names it: a field alone where the collection declares its type, otherwise
    the field with its type.
    """

    steps: tuple[tuple[str, str], ...] = ()
    wire: tuple[Any, ...] = ()

    def below(self, field: str, type_name: str, *, is_declared: bool) -> Place:
        """The place of a field of the or_map that stands here."""
        step = field if is_declared else [field, type_name]
        return Place((*self.steps, (field, type_name)), (*self.wire, step))


_WHOLE = Place()


class Handle(Generic[V]):
    """One key, or one field of it. Making a handle does no I/O.

    ``options`` are those of the collection as far as the user named them; ``value_type`` is what values are made to be.
    """

    type_name: ClassVar[str]
    _readings: ClassVar[type | tuple[type, ...]] = object
    """What readings of the type look like; asked only where another type may stand in the way."""
    __slots__ = ("_domain", "_options", "_place", "_value_type", "collection", "key")

    def __init__(
        self,
        domain: Domain,
        collection: str,
        key: str,
        value_type: Any = None,
        *,
        place: Place = _WHOLE,
        options: Mapping[str, Any] = _NO_OPTIONS,
    ) -> None:
        self._domain = domain
        self._value_type = value_type
        self._place = place
        self._options = options
        self.collection = collection
        self.key = key

    async def get(self, *, consistency: Consistency = "session", max_staleness: float | timedelta | None = None) -> V:
        """The value; the type's empty one if the key was never written."""
        return (await self.read(consistency=consistency, max_staleness=max_staleness)).value

    async def read(
        self, *, consistency: Consistency = "session", max_staleness: float | timedelta | None = None
    ) -> Reading[V]:
        """The value with what the node knows about it; of a field, what is known is that of its whole key.

        Raises:  UsageError ``type-mismatch`` when the collection is of another type than this handle.
        """
        body = await self._domain.read_key(self.collection, self.key, consistency, max_staleness)
        self._check_type(body["type"])
        value, exists = self._own(body["value"], body["exists"])
        staleness_ms = body.get("staleness_ms")
        return Reading(
            value=self.decode(value),
            exists=exists,
            etag=body["etag"],
            token=body["token"],
            region=body["region"],
            staleness=None if staleness_ms is None else staleness_ms / 1000,
            conflicts=body["conflicts"],
            expires=body.get("expires"),
            field_expires=body.get("field_expires", {}),
            rights=msgspec.convert(body["rights"], Rights) if "rights" in body else None,
        )

    async def explain(self, *, limit: int = 100) -> Explanation[V]:
        """The writes behind the value: who wrote what when, which count and why, and where they are not yet.

        At most ``limit`` writes, those that count first; ``is_truncated`` says that there are more.
        """
        body = await self._domain.explain_key(self.collection, self.key, limit)
        self._check_type(body["type"])
        value, _ = self._own(body["value"], True)
        return Explanation.of(body, self.type_name, self.decode(value), self._place.steps)

    def delete(self) -> Op[None]:
        """Remove what this region has seen of the key; concurrent writes survive."""
        if not REGISTRY[self.type_name].deletable:
            raise UsageError(f"keys of type {self.type_name} cannot be deleted. Nothing changed.", code="not-deletable")
        return self._make(Op, {"op": "delete"}, _nothing)

    def op(self, name: str, **arguments: Any) -> Op[Any]:
        """Any op of the type by its name, with the arguments of the API, for those who know it at run time only."""
        if name == "delete" and not arguments:
            return self.delete()
        shows_value = REGISTRY[self.type_name].shows_value and name != "expire"
        return self._make(Op, self._checked(name, arguments), self._decode_shown if shows_value else _nothing)

    def _checked(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The op as the API names it, judged by the registry."""
        crdt = REGISTRY[self.type_name]
        mutator = crdt.mutators.get(name)
        if mutator is None:
            known = ", ".join([*crdt.mutators, *(["delete"] if crdt.deletable else [])])
            raise UsageError(
                f"{self.type_name} has no operation {name!r:.100}; it has {known}. Nothing changed.", code="invalid-op"
            )
        if self._value_type is not None:
            arguments = msgspec.to_builtins(arguments, builtin_types=(bytes,))
        return {"op": name, **mutator.check(arguments)}

    def _make(self, kind: type[K], fields: dict[str, Any], decode: Callable[[Any], Any]) -> K:
        if self._place.wire:
            fields["path"] = list(self._place.wire)
        return kind(self._domain, self.collection, self.key, fields, decode)

    def decode(self, value: Any) -> V:
        """The value in the type this handle promises."""
        raise NotImplementedError

    def _decode_shown(self, value: Any) -> V | None:
        """The reading after a write, where the node gives one."""
        return None if value is None else self.decode(value)

    async def _members(self, after: Any) -> AsyncIterator[Any]:
        """The items of a large key as they come, page by page; ``after`` as the API takes it."""
        if self._place.steps:
            raise UsageError(
                f"only whole keys are paged; of {self!r}, read the value with get(). Nothing changed.",
                code="invalid-op",
            )
        following = after
        while True:
            body = await self._domain.list_members(self.collection, self.key, after=following)
            for item in body["items"]:
                yield item
            following = body["next"]
            if following is None:
                return

    async def _has(self, member: Any) -> bool:
        """Whether it is among the members; ``member`` as the API takes it."""
        if self._place.steps:
            raise UsageError(
                f"only members of whole keys are looked up; of {self!r}, read the value with get(). Nothing changed.",
                code="invalid-op",
            )
        body = await self._domain.list_members(self.collection, self.key, has=member)
        return bool(body["has"])

    def _plain(self, value: Any) -> Any:
        return value if self._value_type is None else msgspec.to_builtins(value, builtin_types=(bytes,))

    def _check_type(self, declared: str) -> None:
        expected = "or_map" if self._place.steps else self.type_name
        if declared != expected:
            raise UsageError(
                f"{self._domain.name}/{self.collection} is declared as {declared}, not as {expected}. Nothing changed.",
                code="type-mismatch",
            )

    def _own(self, value: Any, exists: bool) -> tuple[Any, bool]:
        """What of the key's value is this handle's, and whether it is there."""
        for field, _ in self._place.steps:
            if not isinstance(value, dict) or field not in value:
                return REGISTRY[self.type_name].empty, False
            value = value[field]
        if self._place.steps and not isinstance(value, self._readings):
            raise UsageError(
                f"{self!r} cannot be read: two types share that name, and another one is read under it. "
                "Nothing changed.",
                code="type-mismatch",
            )
        return value, exists

    def _convert(self, value: Any, value_type: Any = None) -> Any:
        value_type = value_type or self._value_type
        if value_type is None:
            return value
        try:
            return msgspec.convert(value, value_type, builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise UsageError(
                f"{self._where} does not hold what this handle was made for: {error}. Nothing changed.",
                code="invalid-value",
            ) from error

    @property
    def _where(self) -> str:
        below = "".join(f"/{field}" for field, _ in self._place.steps)
        return f"{self._domain.name}/{self.collection}/{self.key}{below}"

    def __repr__(self) -> str:
        return f"<{self.type_name} {self._where}>"


class Expiring(Handle[V]):
    """A handle of a type whose keys may end by themselves."""

    __slots__ = ()

    def expire(self, ttl: float | timedelta | None) -> Op[None]:
        """Let it end after so many seconds from now, in every region alike; None: it does not end by itself.

        Every later write keeps the deadline, except another ``expire``.
        """
        return self.op("expire", ttl_ms=milliseconds(ttl))


def milliseconds(ttl: float | timedelta | None) -> int | None:
    """A time to live as users give it, in the unit of the API; None stays None.

    Raises:  UsageError ``invalid-value``; nothing changed.
    """
    if ttl is None:
        return None
    if isinstance(ttl, timedelta):
        ttl = ttl.total_seconds()
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not math.isfinite(ttl):
        raise UsageError(
            f"ttl must be seconds, a timedelta or None, got {ttl!r:.100}. Nothing changed.", code="invalid-value"
        )
    if not 1 <= (ttl_ms := round(ttl * 1000)) <= MAX_TTL_MS:
        raise UsageError(
            f"ttl must be above 0 and at most {MAX_TTL_MS // 1000:,} seconds, got {ttl!r:.100}. Nothing changed.",
            code="invalid-value",
        )
    return ttl_ms


def _nothing(_: Any) -> None:
    return None
