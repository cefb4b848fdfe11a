"""Domains: where collections are declared and their keys read, listed, explained and written.

Nothing here does I/O until it is awaited; a domain is a name with the session of its store.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from crdtstore.errors import UsageError
from crdtstore_client.address import check_part, place
from crdtstore_client.catalogue import Catalogue
from crdtstore_client.explanation import Conflict
from crdtstore_client.handles import Consistency
from crdtstore_client.link import Call
from crdtstore_client.load import load
from crdtstore_client.ops import Ack, Op, check_op_id, new_op_id

if TYPE_CHECKING:
    from crdtstore_client.store import Store

__all__ = ["Domain"]

V = TypeVar("V")

PAGE = 500


class Domain(Catalogue):
    """One domain in the session of its store."""

    __slots__ = ("_store", "name")

    def __init__(self, store: Store, name: str) -> None:
        check_part(name, "the domain")
        self._store = store
        self.name = name

    async def declare(self, collection: str, type: str, **options: Any) -> None:  # noqa: A002 (API)
        """Make a collection of a type; the domain too, if it is not there. Declaring again changes nothing.

        Raises:  UsageError type-mismatch when the collection has another type or other options; nothing changed.
        """
        await self.declare_collection(collection, type, options)

    async def declare_domain(
        self, *, shards: int | None = None, owner: str | None = None, description: str | None = None
    ) -> dict[str, Any]:
        """Declare the domain, or change its owner or description; what is not given stays as it is. Its declaration as it stands.

        ``shards``: into how many groups its keys are divided, 1 if it is not given; fixed when the domain is declared. A
        commit is atomic within one of them.

        Raises:  UsageError type-mismatch when it has another number of shards; nothing changed.
        """
        given = {"shards": shards, "owner": owner, "description": description}
        fields = {name: value for name, value in given.items() if value is not None}
        return await self._store.call(Call("declare_domain", {"domain": self.name, **fields}))

    async def declare_collection(self, collection: str, type_name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """``declare`` for options known at run time only; the declaration as it stands."""
        await self._store.ensure_domain(self.name)
        fields = {**place(self.name, collection), "type": type_name, "options": dict(options)}
        return await self._store.call(Call("declare", fields))

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
        fields: dict[str, Any] = {"domain": self.name, "ops": sent, "id": op_id}
        if reason is not None:
            fields["reason"] = reason
        if regions:
            fields["regions"] = regions
        call = Call("commit", fields)
        call.stays = any(op.stays for op in ops)
        call.prefers = tuple(dict.fromkeys(region for op in ops for region in op.prefers))
        reply = await self._store.call(call, timeout)
        values = [op.decode(value) for op, value in zip(ops, reply["values"], strict=True)]
        return Ack(values, reply["dot"], reply["token"], reply["replayed"], tuple(reply["durable_in"]))

    async def commit_one(self, op: Op[V]) -> Ack[V]:
        """``commit`` of one op, and its reading alone: what awaiting the op does."""
        call = Call("commit", {"domain": self.name, "ops": [op.use(self)], "id": new_op_id()})
        call.stays, call.prefers = op.stays, op.prefers
        reply = await self._store.call(call)
        value = op.decode(reply["values"][0])
        return Ack(value, reply["dot"], reply["token"], reply["replayed"], tuple(reply["durable_in"]))

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
        fields: dict[str, Any] = place(self.name, collection, key)
        if consistency != "session":
            fields["consistency"] = consistency
        if max_staleness is not None:
            fields["max_staleness_ms"] = round(seconds_of(max_staleness) * 1000)
        return await self._store.call(Call("read", fields, shows_tokens=consistency != "local"))

    async def list_keys(self, collection: str, **query: Any) -> dict[str, Any]:
        """One page of keys as it came; ``query`` as in the API: prefix, after, limit, values."""
        given = {name: value for name, value in query.items() if value not in {None, ""}}
        return await self._store.call(Call("list", {**place(self.name, collection), **given}))

    async def list_members(
        self, collection: str, key: str, *, after: Any = None, has: Any = None, limit: int = PAGE
    ) -> dict[str, Any]:
        """One page of the members of a large key as it came; with ``has``, whether that one is among them."""
        fields: dict[str, Any] = place(self.name, collection, key)
        if has is not None:
            fields["has"] = has
        else:
            fields["limit"] = limit
            if after is not None:
                fields["after"] = after
        return await self._store.call(Call("members", fields))

    async def explain_key(self, collection: str, key: str, limit: int) -> dict[str, Any]:
        """The writes behind a value as they came."""
        return await self._store.call(Call("explain", {**place(self.name, collection, key), "limit": limit}))

    async def list_conflicts(self, *, after: str | None = None, limit: int = PAGE) -> dict[str, Any]:
        """One page of keys with conflicts as it came, and the declarations that clash."""
        fields: dict[str, Any] = {"domain": self.name, "limit": limit}
        if after is not None:
            fields["after"] = after
        return await self._store.call(Call("conflicts", fields))

    async def conflicts(self, *, after: str | None = None) -> AsyncIterator[Conflict]:
        """What needs a look, page by page: declarations that clash, then keys whose value does not show all its writes.

        ``after``: continue behind ``collection/key``, without the declarations.
        """
        following, is_first = after, after is None
        while True:
            body = await self.list_conflicts(after=following)
            for clash in body["declarations"] if is_first else ():
                also = tuple(map(str, clash["also"]))
                yield Conflict(
                    collection=clash["collection"], key=None, type=str(clash["serves"]), conflicts=len(also), also=also
                )
            for item in body["items"]:
                yield msgspec.convert(item, Conflict)
            following, is_first = body["next"], False
            if following is None:
                return

    async def describe(self, collection: str) -> dict[str, Any]:
        """The declaration of a collection: ``type`` and ``options``."""
        return await self._store.call(Call("collection", place(self.name, collection)))

    def __repr__(self) -> str:
        return f"<domain {self.name}>"


def seconds_of(duration: float | timedelta) -> float:
    """A duration as users give it."""
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
