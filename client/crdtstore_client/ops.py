"""Ops: a write as a value, and what its reply says.

The question: how can one mutator serve a single write, an atomic commit and a bulk load, without a transaction object?
It returns an ``Op``: awaited, it is sent alone; given to ``commit`` or ``load``, it is sent with others. Whoever
forgets it is warned, as with a coroutine that was never awaited, since a lost write is the last thing a store may keep
quiet about.
"""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec import Struct

from crdtstore.errors import UsageError

if TYPE_CHECKING:
    from crdtstore_client.domain import Domain

__all__ = ["Ack", "Op", "Reading", "Rights", "check_op_id", "new_op_id"]

V_co = TypeVar("V_co", covariant=True)

MAX_ID_BYTES = 128
_OWN_ID = re.compile(r"~[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class Ack(Struct, Generic[V_co], frozen=True):
    """The reply to a write: durable in ``durable_in`` when it arrives.

    ``value`` is the reading after the op (a list of them for ``commit``), None for sets, maps, logs and deletes.
    """

    value: V_co
    dot: str
    token: str
    replayed: bool
    durable_in: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rights:
    """Who may consume how much of a bounded counter.

    ``here``: the region that answered; ``held``: what it has set aside; ``elsewhere``: per region what was last heard.
    """

    here: int
    held: int
    elsewhere: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Reading(Generic[V_co]):
    """A value with what the node knows about it. ``staleness`` is in seconds, None until every member was heard of.

    ``expires``: when the key ends by itself (RFC 3339 in UTC), None if it does not; ``field_expires``: the same for fields
    of a map that have an end of their own. ``rights``: of a bounded counter only.
    """

    value: V_co
    exists: bool
    etag: str
    token: str
    region: str
    staleness: float | None
    conflicts: int
    expires: str | None = None
    field_expires: Mapping[str, str] = field(default_factory=dict)
    rights: Rights | None = None


class Op(Generic[V_co]):
    """One op on one key, not sent yet.

    ``stays``: once it may have arrived, it is repeated at that node only. ``prefers``: regions to be asked first.
    """

    __slots__ = ("_decode", "_domain", "_is_used", "collection", "fields", "key", "prefers", "stays")

    def __init__(
        self, domain: Domain, collection: str, key: str, fields: dict[str, Any], decode: Callable[[Any], V_co]
    ) -> None:
        self._is_used = False
        self._domain = domain
        self._decode = decode
        self.collection = collection
        self.key = key
        self.fields = fields
        self.stays = False
        self.prefers: tuple[str, ...] = ()

    def __await__(self) -> Generator[Any, None, Ack[V_co]]:
        return self._send().__await__()

    def _send(self) -> Coroutine[Any, Any, Ack[V_co]]:
        return self._domain.commit_one(self)

    def use(self, domain: Domain) -> dict[str, Any]:
        """The op as it goes over the wire; from now on it counts as sent."""
        self._is_used = True
        if domain is not self._domain and domain.name != self._domain.name:
            raise UsageError(
                f"an op of domain {self._domain.name} was given to domain {domain.name}. Nothing changed.",
                code="invalid-op",
            )
        return {"collection": self.collection, "key": self.key, **self.fields}

    def discard(self) -> None:
        """Say that this op is left unsent on purpose."""
        self._is_used = True

    def decode(self, value: Any) -> V_co:
        """The reading after this op in the type its handle promises."""
        return self._decode(value)

    def __repr__(self) -> str:
        return f"op {self.fields.get('op')} on {self._domain.name}/{self.collection}/{self.key}"

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if not getattr(self, "_is_used", True):
            _warn(f"{self!r} was never sent", RuntimeWarning, source=self)


def new_op_id() -> str:
    """An operation id that expires by itself: ``~`` and a UUID of version 7 (RFC 9562)."""
    ms = f"{time.time_ns() // 1_000_000:012x}"
    random = os.urandom(10).hex()
    variant = "89ab"[int(random[3], 16) & 3]
    return f"~{ms[:8]}-{ms[8:]}-7{random[:3]}-{variant}{random[4:7]}-{random[7:19]}"


def check_op_id(text: str) -> str:
    """A user's own id, or one this client made before.

    Raises:  UsageError (bad-request); nothing changed.
    """
    if not isinstance(text, str) or not text or len(text.encode(errors="replace")) > MAX_ID_BYTES:
        raise UsageError(f"an id is text of 1 to {MAX_ID_BYTES} bytes. Nothing changed.", code="bad-request")
    if not text.isprintable() or text != text.strip():
        raise UsageError("an id is printable, with no space at either end. Nothing changed.", code="bad-request")
    if text.startswith("~") and not _OWN_ID.fullmatch(text):
        raise UsageError("an id that begins with ~ is made by the client itself. Nothing changed.", code="bad-request")
    return text
