"""Disks that fail on command: a log and a state store in memory, and a driver on both."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from crdtstore.causal import make_replica_id
from crdtstore.configuration import Cluster, Member
from crdtstore.engine.options import Options
from crdtstore.errors import CrdtStoreError, StorageError
from crdtstore.host import Host
from crdtstore.service import Service
from crdtstore.storage.memory_state import MemoryState
from crdtstore.storage.protocol import Entry, Row, Slice
from crdtstore.storage.record import decode_record, encode_record
from crdtstore_node.clock import WallClock
from crdtstore_node.driver import Driver

ME = Member(make_replica_id("us-1", 1), "us")
CLUSTER = Cluster("test", bytes(16), (ME,))


def full(where: str = "0000000001.log") -> StorageError:
    return StorageError(f"{where}: No space left on device; this was not written", code="storage-full")


def broken(where: str = "0000000001.log") -> StorageError:
    return StorageError(f"{where}: Input/output error at offset 4096")


class FailingLog:
    """A ``CommitLog`` in memory: blocks at positions 0, 100, 200, …; ``failure`` is raised by every write, ``unreadable`` by every read."""

    def __init__(self) -> None:
        self.blocks: list[list[bytes]] = []
        self.failure: StorageError | None = None
        self.unreadable: StorageError | None = None
        self.uncuttable: StorageError | None = None
        self.tried: list[list[bytes]] = []
        """What was to be written, also when it failed."""
        self.cuts: list[int] = []
        self.position = 0

    def replay(self, needed: int = 0) -> Iterator[tuple[int, list[Entry]]]:
        for at, block in enumerate(self.blocks):
            for record in block:
                yield at * 100, decode_record(record)

    def encode(self, entries: Sequence[Entry]) -> bytes:
        return encode_record(entries)

    def write(self, records: Sequence[bytes]) -> int:
        self.tried.append(list(records))
        if self.failure is not None:
            raise self.failure
        self.blocks.append(list(records))
        self.position = len(self.blocks) * 100
        return self.position - 100

    def read(self, position: int) -> tuple[list[Entry], int]:
        if self.unreadable is not None:
            raise self.unreadable
        return [entry for record in self.blocks[position // 100] for entry in decode_record(record)], position + 100

    def cut(self, position: int) -> None:
        if self.uncuttable is not None:
            raise self.uncuttable
        self.cuts.append(position)

    def close(self) -> None:
        pass


class FailingState(MemoryState):
    """A state store whose calls fail when told to, and wait when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: dict[str, StorageError] = {}
        """By the name of the call that fails."""
        self.go = threading.Event()
        self.go.set()
        self.calls: list[str] = []
        self.unreadable: Callable[[bytes, bytes], StorageError | None] = lambda start, end: None

    def _enter(self, call: str) -> None:
        self.go.wait(5)
        self.calls.append(call)
        if call in self.failures:
            raise self.failures[call]

    def write(self, part: Slice) -> tuple[int, int]:
        self._enter("write")
        return super().write(part)

    def commit(self) -> None:
        self._enter("commit")
        super().commit()

    def rollback(self) -> None:
        self.calls.append("rollback")
        super().rollback()

    def rows(self, start: bytes, end: bytes, limit: int = -1) -> list[Row]:
        error = self.unreadable(start, end)
        if error is not None:
            raise error
        return super().rows(start, end, limit)


class Shop:
    """A driver with a domain and a collection of counters, on disks that fail."""

    def __init__(self, log: FailingLog, state: FailingState, unsaved_bytes: int = 1 << 30, **options: Any) -> None:
        self.log, self.state = log, state
        chosen = Options(**{"checkpoint_ms": 100, **options})
        host = Host(CLUSTER, ME.replica, chosen, random.Random(1), state, log.read)
        host.recover(log.replay(host.needed))
        self.driver = Driver(Service(host), log, WallClock(), state, unsaved_bytes)
        self.driver.start()

    @property
    def host(self) -> Host:
        return self.driver.service.host

    async def declare(self) -> None:
        await self.ask("declare_domain", domain="shop")
        await self.ask("declare", domain="shop", collection="counter", type="counter")

    async def ask(self, do: str, **fields: Any) -> Any:
        async with asyncio.timeout(5):
            return await self.driver.request(do, fields)[1]

    def start_add(self, key: str = "k") -> asyncio.Future[Any]:
        ops = [{"collection": "counter", "key": key, "op": "add", "amount": 1}]
        return self.driver.request("commit", {"domain": "shop", "ops": ops})[1]

    async def add(self, key: str = "k") -> Any:
        async with asyncio.timeout(5):
            return await self.start_add(key)

    async def value(self, key: str = "k") -> Any:
        body = await self.ask("read", domain="shop", collection="counter", key=key)
        return body["value"] if isinstance(body, dict) else body


@asynccontextmanager
async def running(log: FailingLog, state: FailingState, **options: Any) -> AsyncIterator[Shop]:
    shop = Shop(log, state, **options)
    try:
        yield shop
    finally:
        log.failure = None
        state.go.set()
        await shop.driver.stop()


def told(error: Any) -> tuple[str, int, str]:
    assert isinstance(error, CrdtStoreError), error
    return error.code, error.status, error.effect
