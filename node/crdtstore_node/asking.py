"""Who asks the service, and what is said when it cannot be asked or does not answer.

The question: what does somebody pay who asks a thousand things at once? No future for each: an ``Asker`` is told of every answer by a plain
call, in the turn of the loop in which it came, and knows its requests by numbers of its own.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from crdtstore.errors import CrdtStoreError, StorageError, Unavailable
from crdtstore_node.writer import RETRY_S

__all__ = [
    "DATA",
    "NO_FIELDS",
    "WRITES",
    "Answer",
    "Asked",
    "Asker",
    "gone",
    "overloaded",
    "refused",
    "settle",
    "unfinished",
    "unread",
]

WRITES = frozenset(
    ("commit", "declare", "declare_domain", "member_evict", "member_force", "member_leave", "orphan_apply")
)
NO_FIELDS: dict[str, Any] = {}
DATA = WRITES | {"collection", "conflicts", "domain", "explain", "list", "members", "read"}
"""Requests about what is stored, or that change it."""
Answer = dict[str, Any] | CrdtStoreError


class Asked(Protocol):
    """A request that is decoded and checked; ``n`` is the number its asker knows it by."""

    @property
    def do(self) -> str: ...

    @property
    def n(self) -> int: ...


class Asker(Protocol):
    """Who asks much, and wants no future for each."""

    open: dict[int, int]
    """Its requests that are not answered: number to ticket."""

    def answered(self, n: int, answer: Answer) -> None:
        """One of them is answered, and open no more."""


def settle(future: asyncio.Future[Answer], _: int, answer: Answer) -> None:
    """Who asked one thing waits for a future."""
    if not future.done():
        future.set_result(answer)


def unfinished(why: StorageError, *, is_write: bool, is_full: bool) -> Unavailable:
    """What is said to those who wait when nothing becomes durable any more, or while the disk is full."""
    if not is_write:
        what = "This cannot be read here now."
    elif is_full:
        what = "This write takes effect when there is room, and may before that be repeated under its key."
    else:
        what = "Whether this write survives shows at the next start."
    error = Unavailable(f"{why.detail}. {what}", code=_storage_code(why), retry_after=_retry_after(why))
    if is_write:
        error.effect = "unknown"
    return error


def gone() -> CrdtStoreError:
    return Unavailable("this node stops. Ask another region.", code="internal", retry_after=1.0)


def overloaded(most: int) -> CrdtStoreError:
    return Unavailable(
        f"{most} requests wait on this node already. Nothing changed.", code="overloaded", retry_after=1.0
    )


def refused(why: StorageError) -> Unavailable:
    return Unavailable(f"{why.detail}. Nothing changed.", code=_storage_code(why), retry_after=_retry_after(why))


def unread(why: StorageError) -> StorageError:
    """What a user is told: which file it is, and what can be done, stands in the status and the log, for those who can."""
    return StorageError(
        "this cannot be read from the disk of this node; another region may have it. Nothing changed.", code=why.code
    )


def _retry_after(why: StorageError) -> float:
    return RETRY_S if why.code == "storage-full" else 5.0


def _storage_code(failure: StorageError) -> str:
    return failure.code if failure.code == "storage-full" else "storage-failed"
