"""4 M keys on disk, and a node that may hold a fraction of them in memory."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
import urllib.parse
from pathlib import Path

from benchmarks.alone import fill, lay_out, put_load, serving, storage_of
from benchmarks.cluster import _call
from benchmarks.figures import Figure
from benchmarks.filling import Inside

__all__ = ["figures"]

KEYS = 4_000_000
BUDGET_BYTES = 64 << 20
RATE = 500
MEMORY_MIB = 320
"""Keys (64), a process without any (70), history (64), caches of SQLite (32), what is unsaved: see docs/architecture.md, Durability."""
_MIB = 1 << 20


class _Memory:
    """What a process has in memory, looked at ten times a second."""

    def __init__(self, pid: int) -> None:
        self.greatest_mib = 0.0
        self._pid = pid
        self._task = asyncio.ensure_future(self._watch())

    @property
    def mib(self) -> float:
        return int(Path(f"/proc/{self._pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / _MIB

    async def _watch(self) -> None:
        while True:
            self.greatest_mib = max(self.greatest_mib, self.mib)
            await asyncio.sleep(0.1)

    def stop(self) -> None:
        self._task.cancel()


async def _scan(url: str, pages: int) -> float:
    """Keys a second, in pages of 1,000 with their values."""
    start, after, count = time.perf_counter(), "", 0
    for _ in range(pages):
        query = f"values=true&limit=1000&after={urllib.parse.quote(after, safe='')}"
        page = await asyncio.to_thread(_call, url, "GET", f"/v1/data/bench/orders?{query}")
        count, after = count + len(page["items"]), page["next"] or ""
    return count / (time.perf_counter() - start)


async def _under_budget(config: Path, disk_bytes: int) -> list[Figure]:
    async with serving(config, memory_bytes=BUDGET_BYTES, checkpoint_ms=5_000) as (url, node, started):
        assert node.pid is not None
        memory = _Memory(node.pid)
        at_start = memory.mib
        cold = await put_load(url, "read", 0, 10, KEYS)
        warm = await put_load(url, "read", 0, 5, 20_000)
        warm = await put_load(url, "read", 0, 5, 20_000)
        written = await put_load(url, "add", 0, 20, KEYS)
        scanned = await _scan(url, 200)
        mixed = await asyncio.gather(
            put_load(url, "read", 0, 15, KEYS, 2), put_load(url, "add", RATE, 15, KEYS, 3), _scan(url, 200)
        )
        status = await storage_of(url)
        memory.stop()
    rate = {name: each["answered"] / each["seconds"] for name, each in (("cold", cold), ("warm", warm), ("w", written))}
    notes = {
        "budget MiB": BUDGET_BYTES >> 20,
        "data on disk MiB": disk_bytes >> 20,
        "MiB at start": round(at_start),
        "resident MiB by estimate, at the end": round(status["state"]["resident_bytes"] / _MIB, 1),
        "resident rows, at the end": status["state"]["resident_rows"],
        "reads/s beside writes and scans": round(mixed[0]["answered"] / mixed[0]["seconds"]),
        "seconds to start": round(started, 2),
    }
    return [
        Figure(
            "4 M keys on disk: greatest memory of the node while it reads, writes and scans at random",
            "MiB",
            [memory.greatest_mib],
            MEMORY_MIB,
            is_at_least=False,
            notes=notes,
        ),
        Figure("reads of random keys of 4 M, mostly cold, over HTTP", "1/s", [rate["cold"]]),
        Figure("reads of 20,000 keys over and over, over HTTP", "1/s", [rate["warm"]]),
        Figure("durable adds to random keys of 4 M, mostly cold, over HTTP", "1/s", [rate["w"]]),
        Figure("keys scanned in pages of 1,000 with values, memory and disk merged", "1/s", [scanned]),
    ]


def figures(directory: Path) -> list[Figure]:
    config = lay_out(directory, ["us"])
    with Inside(config, memory_bytes=BUDGET_BYTES) as node:
        fill(node, KEYS, 8)
        node.checkpoint()
        assert node.store is not None
        disk_bytes = node.store.file_bytes
    found = asyncio.run(_under_budget(config, disk_bytes))
    shutil.rmtree(directory)
    return found
