"""Scrub: is what is on disk still what was written there?

The question: who would notice a row that has vanished? Nobody who reads: a key that is not there reads as one that never was. So now and
then all rows of a checkpoint are read, a slice at a time, and their state digest is computed anew. It must be the one that the checkpoint
holds, which was kept in memory commit by commit; and of every kind there must be as many rows as were written. They are pinned: what is
written meanwhile is left to the next scrub.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from crdtstore.engine.checkpoint import read_node, read_saved
from crdtstore.errors import PUT_BACK, StorageError
from crdtstore.leaves import Branch
from crdtstore.shares import MODULUS, Shares
from crdtstore.storage.leafrows import decode_leaves
from crdtstore.storage.protocol import StateRows, StateStore
from crdtstore.storage.rows import LEAVES, META, PREFIX_BYTES, key_range, parts_of, row_path

if TYPE_CHECKING:
    from crdtstore.host import Host

__all__ = ["Scrub", "digest_steps", "group_steps"]

_SLICE = 200
_LEAST_PAUSE_MS = 5
_WHAT_NOW = f": rows are missing or too many. {PUT_BACK}"


def digest_steps(rows: StateRows, number: int, members: list[str]) -> Iterator[int]:
    """The state digest of all leaves of a group, computed from its rows: after each slice what it is so far, at last the digest.

    Raises:  StorageError when a row cannot be read or is not what was written.
    """
    shares = Shares(members)  # type: ignore[arg-type]
    total = 0
    start, end = key_range(number, LEAVES, [])
    while found := rows.rows(start, end, _SLICE):
        for where, data in found:
            path = parts_of(where, PREFIX_BYTES)
            leaves = decode_leaves(data, lambda origin, path=path: shares.origin(path, origin))  # type: ignore[misc]
            total += shares.here(path, leaves[0] if len(leaves) == 1 else Branch(leaves, {}))
        start = found[-1][0] + b"\0"
        yield total % MODULUS
    yield total % MODULUS


def group_steps(rows: StateRows, group: str, number: int, count: int) -> Iterator[int]:
    """Check all rows of a group, ``count`` of them by what the checkpoint says; after each slice about how many were new in it.

    Raises:  StorageError when one cannot be read or is not what was written, or when some are missing or too many.
    """
    saved = read_saved(rows, number)
    if saved is None:
        raise StorageError(f"the checkpoint does not hold the group {group} any more{_WHAT_NOW}")
    digest = 0
    for so_far in digest_steps(rows, number, saved.members):
        digest = so_far
        yield _SLICE
    if digest != int.from_bytes(saved.digest, "big"):
        raise StorageError(f"{group}: the rows of the checkpoint do not have its state digest{_WHAT_NOW}")
    found, start, end = 0, row_path(number, META, []), row_path(number + 1, META, [])
    while some := rows.rows(start, end, 5 * _SLICE):
        found += len(some)
        start = some[-1][0] + b"\0"
        yield 0
    if found != count:
        raise StorageError(f"{group}: the checkpoint has {found} rows, it was written with {count}{_WHAT_NOW}")


class Scrub:
    """The scrubs of one node. Mutable; part of the host."""

    def __init__(self, host: Host, store: StateStore) -> None:
        self._host = host
        self._store = store
        self._steps: Iterator[None] | None = None
        self._next_ms = 0
        self.runs = 0
        """How often all of it was found as it should be."""
        self.last_ms: int | None = None
        """When the last one ended."""
        self.rows = 0
        """How far the one under way has come, about."""
        self.failure: StorageError | None = None
        """What the last one found to be wrong; None: nothing."""

    @property
    def is_under_way(self) -> bool:
        return self._steps is not None

    def on_tick(self, now_ms: int) -> int:
        """Go on as far as the rate allows; return when there is more to do (Unix ms)."""
        options = self._host.options
        if not self._next_ms:
            self._next_ms = now_ms + options.scrub_every_ms
        if now_ms < self._next_ms or not options.scrub_rows_per_s:
            return self._next_ms if options.scrub_rows_per_s else now_ms + 3_600_000
        if self._steps is None:
            self._steps, self.rows = self._run(), 0
        try:
            next(self._steps)
        except StopIteration:
            self.runs += 1
            self._end(None, now_ms)
        except StorageError as error:
            self._end(error, now_ms)
        else:
            self._next_ms = now_ms + max(_LEAST_PAUSE_MS, _SLICE * 1000 // options.scrub_rows_per_s)
        return self._next_ms

    def _end(self, failure: StorageError | None, now_ms: int) -> None:
        self._steps = None
        self.failure = failure
        self.last_ms = now_ms
        self._next_ms = now_ms + self._host.options.scrub_every_ms

    def _run(self) -> Iterator[None]:
        pinned = self._store.pin()
        try:
            node = read_node(pinned)
            if node is not None:
                for group, number in node.groups.items():
                    for rows in group_steps(pinned, group, number, node.counts[group]):
                        self.rows += rows
                        yield
        finally:
            pinned.close()
