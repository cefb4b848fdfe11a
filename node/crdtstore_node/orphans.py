"""What a data directory keeps of the ids it had before: the commits of each, read from its log in ``left/<id>/``.

The question: how does a node look into gigabytes of an old log while it serves? Before a request about orphans goes to the service, the
log is read in slices by a thread, with as long a pause after each; what the service then asks for is here. Nothing is written there ever,
so what was found stays true, and damage is passed over: what can still be read may be all that is left of somebody's work.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from crdtstore.admin.orphaned import final_of
from crdtstore.causal import ReplicaId, parse_replica_id
from crdtstore.clock import rfc3339
from crdtstore.commit import head_of
from crdtstore.configuration import group_named
from crdtstore.errors import DecodeError, StorageError
from crdtstore.host import Host
from crdtstore.orphans import Life, last_of, orphans_of
from crdtstore.storage import segment
from crdtstore.storage.inspection import Part, inspect
from crdtstore.storage.protocol import Entry
from crdtstore.storage.record import decode_record
from crdtstore_node.identity import LEFT_NAME, LOG_NAME, read_identity
from crdtstore_node.logs import event

__all__ = ["LeftLives"]

_log = logging.getLogger(__name__)
_SLICE_S = 0.01
_PAGES = 8
"""So many pages of orphans are kept, for who is about to ask for them."""
_PAGE_BYTES = 4 << 20


class _Page(Struct):
    after: int
    commits: list[bytes] = field(default_factory=list)


class LeftLives:
    """The earlier ids of one directory (``crdtstore.orphans.Lives``). Mutable: it remembers what it has read."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._lives: list[Life] = []
        self._made: dict[ReplicaId, dict[str, int]] = {}
        self._pages: OrderedDict[tuple[str, str, int], _Page] = OrderedDict()
        self._is_reading = asyncio.Lock()
        self._first: asyncio.Task[None] | None = None
        self.is_known = False
        """Whether all logs of earlier ids were read once."""

    # --- what the service asks for

    def lives(self) -> list[Life]:
        """The latest first; those that were there at the last ``prepare``."""
        return self._lives

    def made(self, replica: ReplicaId) -> dict[str, int]:
        """Per group how many commits an id made, as far as its log reaches."""
        return self._made.get(replica, {})

    def commits(self, replica: ReplicaId, group: str, after: int, most: int) -> list[bytes]:
        """The first commits of an id in a group above a number, of those that were prepared."""
        for (owner, where, _), page in reversed(self._pages.items()):
            if (owner, where) == (replica, group) and page.after <= after:
                return [data for data in page.commits if head_of(data)[0] > after][:most]
        return []

    # --- reading

    def start(self, host: Host) -> None:
        """Find out in the background how much there is."""
        self._first = asyncio.ensure_future(self._prepare_first(host))

    async def _prepare_first(self, host: Host) -> None:
        try:
            await self.prepare(host, {})
        except (OSError, StorageError) as error:  # whoever asks for it is told
            event(_log, logging.WARNING, "what earlier ids left cannot be read", detail=str(error))

    async def stop(self) -> None:
        """Read no more."""
        if self._first is not None:
            self._first.cancel()
            await asyncio.gather(self._first, return_exceptions=True)

    async def prepare(self, host: Host, asked: dict[str, Any]) -> None:
        """Read what a request about orphans needs.

        Raises:  StorageError when a directory cannot be read.
        """
        async with self._is_reading:
            self._lives = await asyncio.to_thread(self._look)
            for life in self._lives:
                if life.replica not in self._made:
                    last = dict[str, int]()
                    await _in_slices(_noting(self._log(life.replica), life.replica, last))
                    self._made[life.replica] = last
            self.is_known = True
            replica, domain = asked.get("replica"), asked.get("domain")
            if isinstance(domain, str) and replica in self._made:
                await self._read_page(host, ReplicaId(replica), group_named(domain), asked)

    async def _read_page(self, host: Host, replica: ReplicaId, group: str, asked: dict[str, Any]) -> None:
        after, limit = asked.get("after", 0), asked.get("limit", 100)
        engine = host.groups.get(group)
        if engine is None or not isinstance(after, int) or not isinstance(limit, int):
            return  # the service says what is wrong
        final = final_of(host, engine, replica)
        if final is None:
            return
        page = _Page(max(after, final))
        await _in_slices(_gathering(self._log(replica), replica, group, page, min(limit, 1_000) + 1))
        self._pages[replica, group, page.after] = page
        while len(self._pages) > _PAGES:
            self._pages.popitem(last=False)

    def _log(self, replica: str) -> Path:
        return self._data / LEFT_NAME / replica / LOG_NAME

    def _look(self) -> list[Life]:
        """The folders in ``left/``, and what the directory remembers of when and why."""
        identity = read_identity(self._data)
        known = {left.replica: left for left in (identity.left if identity is not None else None) or []}
        found = list[tuple[str, Life]]()
        folder = self._data / LEFT_NAME
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            try:
                replica = parse_replica_id(path.name)
            except ValueError:
                continue
            left = known.get(replica)
            at = left.at if left is not None else rfc3339(int(path.stat().st_mtime * 1000))
            found.append((at, Life(replica, at, left.reason if left is not None else "not known any more")))
        return [life for _, life in sorted(found, key=lambda pair: pair[0], reverse=True)]


async def _in_slices(steps: Iterator[None]) -> None:
    while await asyncio.to_thread(_slice, steps):  # noqa: ASYNC110 - a pause, so that others have their turn
        await asyncio.sleep(_SLICE_S)


def _slice(steps: Iterator[None]) -> bool:
    until = time.perf_counter() + _SLICE_S
    return any(time.perf_counter() >= until for _ in steps)


def _blocks(log: Path) -> Iterator[list[Entry]]:
    """The commits of each block that can be read."""
    if not log.is_dir():
        return
    try:
        for finding in inspect(log):
            if isinstance(finding, Part):
                try:
                    yield [entry for record in segment.records_of(finding.payload) for entry in decode_record(record)]
                except DecodeError:
                    continue
    except StorageError:  # what was read before it counts
        return


def _noting(log: Path, replica: str, last: dict[str, int]) -> Iterator[None]:
    for entries in _blocks(log):
        last_of(entries, replica, last)
        yield


def _gathering(log: Path, replica: str, group: str, page: _Page, most: int) -> Iterator[None]:
    size = 0
    for entries in _blocks(log):
        found = orphans_of(entries, replica, group, page.after)
        page.commits += found
        size += sum(map(len, found))
        if len(page.commits) >= most or size >= _PAGE_BYTES:
            return
        yield
