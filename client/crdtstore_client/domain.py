"""Domains and collections: where keys are found, declared, listed and written.

Nothing here does I/O until it is awaited; a domain or a collection is a name with the session of its store.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from crdtstore.errors import UsageError
from crdtstore_client.address import collection_path, data_path, domain_path
from crdtstore_client.handles import HANDLES, AwSet, Consistency, Counter, EventLog, Handle, LwwMap, LwwRegister
from crdtstore_client.link import Call
from crdtstore_client.load import load
from crdtstore_client.ops import Ack, Op, check_op_id, new_op_id

if TYPE_CHECKING:
    from crdtstore_client.store import Store

__all__ = ["Collection", "Domain"]

H = TypeVar("H", bound=Handle[Any])
E = TypeVar("E")
V = TypeVar("V")
M = TypeVar("M")

PAGE = 500


class Collection(Generic[H]):
    """The keys of one collection: ``collection["key"]`` is a handle."""

    __slots__ = ("_domain", "_handle", "_value_type", "name")

    def __init__(self, domain: Domain, name: str, handle: type[H], value_type: Any = None) -> None:
        self._domain = domain
        self._handle = handle
        self._value_type = value_type
        self.name = name

    def __getitem__(self, key: str) -> H:
        data_path(self._domain.name, self.name, key)  # a key that is no text fails here, not at the end of a batch
        return self._handle(self._domain, self.name, key, self._value_type)

    async def items(self, *, prefix: str = "", after: str = "") -> AsyncIterator[tuple[str, Any]]:
        """Keys and values in the order of keys, page by page; keys written meanwhile may or may not be among them."""
        async for page in self._pages(prefix, after, values=True):
            for item in page:
                yield item["key"], self[item["key"]].decode(item["value"])

    async def keys(self, *, prefix: str = "", after: str = "") -> AsyncIterator[str]:
        """Keys in their order."""
        async for page in self._pages(prefix, after, values=False):
            for item in page:
                yield item["key"]

    async def _pages(self, prefix: str, after: str, *, values: bool) -> AsyncIterator[list[dict[str, Any]]]:
        following: str | None = after
        while following is not None:
            body = await self._domain.list_keys(self.name, prefix=prefix, after=following, limit=PAGE, values=values)
            yield body["items"]
            following = body["next"]

    def __repr__(self) -> str:
        return f"<{self._handle.type_name} {self._domain.name}/{self.name}>"


class Domain:
    """One domain in the session of its store."""

    __slots__ = ("_store", "name")

    def __init__(self, store: Store, name: str) -> None:
        domain_path(name)
        self._store = store
        self.name = name

    async def declare(self, collection: str, type: str, **options: Any) -> None:  # noqa: A002 (API)
        """Make a collection of a type; the domain too, if it is not there. Declaring again changes nothing.

        Raises:  UsageError type-mismatch when the collection has another type or other options; nothing changed.
        """
        await self.declare_collection(collection, type, options)

    async def declare_collection(self, collection: str, type_name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """``declare`` for options known at run time only; the declaration as it stands."""
        await self._store.ensure_domain(self.name)
        body = {"type": type_name, "options": dict(options)}
        return await self._store.call(Call("PUT", collection_path(self.name, collection), body, domain=self.name))

    def counter(self, name: str) -> Collection[Counter]:
        """How many?"""
        return Collection(self, name, Counter)

    @overload
    def aw_set(self, name: str) -> Collection[AwSet[Any]]: ...
    @overload
    def aw_set(self, name: str, element: type[E]) -> Collection[AwSet[E]]: ...
    def aw_set(self, name: str, element: Any = None) -> Collection[AwSet[Any]]:
        """Who is in? ``element`` may be any type ``msgspec.convert`` makes of text, an integer or bytes."""
        return Collection(self, name, AwSet, element)

    @overload
    def lww_register(self, name: str) -> Collection[LwwRegister[Any]]: ...
    @overload
    def lww_register(self, name: str, value: type[V]) -> Collection[LwwRegister[V]]: ...
    def lww_register(self, name: str, value: Any = None) -> Collection[LwwRegister[Any]]:
        """What is it now? ``value`` may be any type ``msgspec.convert`` knows."""
        return Collection(self, name, LwwRegister, value)

    @overload
    def lww_map(self, name: str) -> Collection[LwwMap[dict[str, Any]]]: ...
    @overload
    def lww_map(self, name: str, value: type[M]) -> Collection[LwwMap[M]]: ...
    def lww_map(self, name: str, value: Any = None) -> Collection[LwwMap[Any]]:
        """What does the record say? ``value`` is the type of the whole map."""
        return Collection(self, name, LwwMap, value)

    def event_log(self, name: str, body: Any = None) -> Collection[EventLog]:
        """What happened? ``body`` is the type of the events' bodies."""
        return Collection(self, name, EventLog, body)

    def collection(self, name: str, type_name: str) -> Collection[Handle[Any]]:
        """A collection whose type is known at run time only."""
        if type_name not in HANDLES:
            raise UsageError(
                f"this client has no handle for a type {type_name!r:.100}; it has {', '.join(HANDLES)}. Nothing changed.",
                code="invalid-value",
            )
        return Collection(self, name, HANDLES[type_name])

    async def commit(
        self,
        *ops: Op[Any],
        reason: str | None = None,
        regions: int = 0,
        id: str | None = None,  # noqa: A002
        timeout: float | timedelta | None = None,  # noqa: ASYNC109 (one deadline over all attempts)
    ) -> Ack[list[Any]]:
        """Send ops, all of them or nothing; for now all on one key. ``ack.value`` holds the readings after each.

        Raises:  UsageError invalid-op for ops of several keys; what API.md 3 lists.
        """
        sent = [op.use(self) for op in ops]
        op_id = new_op_id() if id is None else check_op_id(id)
        targets = {(op.collection, op.key) for op in ops}
        if len(targets) != 1:
            what = "without ops" if not ops else f"on {len(targets)} keys: commits of many keys come later"
            raise UsageError(f"a commit {what}. Nothing changed.", code="invalid-op")
        body: dict[str, Any] = {"ops": sent}
        if reason is not None:
            body["reason"] = reason
        if regions:
            body["regions"] = regions
        collection, key = targets.pop()
        call = Call("POST", data_path(self.name, collection, key), body, op_id=op_id, domain=self.name)
        reply = await self._store.call(call, timeout)
        values = [op.decode(value) for op, value in zip(ops, reply["values"], strict=True)]
        return Ack(values, reply["dot"], reply["token"], reply["replayed"], tuple(reply["durable_in"]))

    async def load(
        self, ops: Iterable[Op[Any]] | AsyncIterable[Op[Any]], *, progress: Callable[[int], None] | None = None
    ) -> int:
        """Send any number of ops, many at a time, in order per key, not atomic; returns how many were sent.

        ``progress`` is called with the count so far. The first error ends the load and says how many ops are durable.
        """
        return await load(self, ops, progress)

    async def read_key(
        self, collection: str, key: str, consistency: Consistency, max_staleness: float | timedelta | None
    ) -> dict[str, Any]:
        """The reply to a read as it came."""
        query: dict[str, Any] = {"consistency": None if consistency == "session" else consistency}
        if max_staleness is not None:
            query["max_staleness_ms"] = round(seconds_of(max_staleness) * 1000)
        call = Call("GET", data_path(self.name, collection, key), query=query, shows_tokens=consistency != "local")
        return await self._store.call(call)

    async def list_keys(self, collection: str, **query: Any) -> dict[str, Any]:
        """One page of keys as it came; ``query`` as in the API: prefix, after, limit, values."""
        given = {name: value for name, value in query.items() if value != ""}
        return await self._store.call(Call("GET", data_path(self.name, collection), query=given))

    async def describe(self, collection: str) -> dict[str, Any]:
        """The declaration of a collection: ``type`` and ``options``."""
        return await self._store.call(Call("GET", collection_path(self.name, collection)))

    def __repr__(self) -> str:
        return f"<domain {self.name}>"


def seconds_of(duration: float | timedelta) -> float:
    """A duration as users give it."""
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
