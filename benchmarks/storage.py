"""The state store on disk: what a key costs, how fast keys that are not in memory are read, and what a checkpoint costs the event loop."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from threading import Event, Thread
from time import perf_counter

from benchmarks.core import NOW_MS
from benchmarks.figures import Figure, repeat
from crdtstore.clock import COUNTER_BITS
from crdtstore.leaves import Run, Sum
from crdtstore.storage.leafrows import encode_leaves
from crdtstore.storage.protocol import Row, Slice
from crdtstore.storage.rows import LEAVES, key_range, row_path
from crdtstore.storage.sqlite import SqliteState

__all__ = ["figures"]

KEYS = 1_000_000
DIRTY = 50_000
READS = 50_000
SLICE = 300
STEP_US = 200
"""How long the busy loop works before it looks for what else there is to do, as it does for a batch of commits."""
COLLECTION = "orders:counter"


def _row(number: int, origins: int = 1, amount: int = 5) -> Row:
    hlc = NOW_MS + number << COUNTER_BITS
    runs = tuple(Run(at, 0, last_seq=number + 1, last_sum=amount, last_hlc=hlc) for at in range(origins))
    data = encode_leaves(Sum(amount * origins, runs))
    assert data is not None
    return row_path(1, LEAVES, [COLLECTION, f"key-{number}"]), data


def _fill(directory: Path, rows: list[Row]) -> SqliteState:
    store = SqliteState.open(directory)
    for at in range(0, len(rows), SLICE):
        store.write(Slice(rows=rows[at : at + SLICE]))
        if at % (SLICE * 500) == 0:
            store.commit()
    store.commit()
    return store


def _bytes_a_key(directory: Path, origins: int) -> float:
    with _fill(directory, sorted(_row(number, origins) for number in range(KEYS))) as store:
        size = store.file_bytes / KEYS
    shutil.rmtree(directory)
    return size


def _reads_per_s(store: SqliteState, random: Random) -> float:
    ranges = [key_range(1, LEAVES, [COLLECTION, f"key-{random.randrange(KEYS)}"]) for _ in range(READS)]
    start = perf_counter()
    for begin, end in ranges:
        assert store.rows(begin, end)
    return READS / (perf_counter() - start)


def _scan_per_s(store: SqliteState) -> float:
    begin, end = key_range(1, LEAVES, [])
    count, start = 0, perf_counter()
    while found := store.rows(begin, end, 10_000):
        count, begin = count + len(found), found[-1][0] + b"\0"
    assert count == KEYS
    return count / (perf_counter() - start)


async def _busy(is_done: Callable[[], bool]) -> list[float]:
    """How much later than it could each turn of a loop comes that never has nothing to do."""
    delays = []
    while not is_done():
        until = perf_counter() + STEP_US / 1e6
        while perf_counter() < until:
            pass
        await asyncio.sleep(0)
        delays.append((perf_counter() - until) * 1e3)
    return delays


def _checkpoint(store: SqliteState, random: Random) -> tuple[float, float, float]:
    """Seconds for the checkpoint beside a busy loop, and the 99th percentile and the greatest of the loop's delays in ms."""
    rows = [_row(number, amount=random.randrange(100)) for number in random.sample(range(KEYS), DIRTY)]
    slices = [Slice(rows=rows[at : at + SLICE]) for at in range(0, DIRTY, SLICE)]
    done, took = Event(), 0.0

    def work() -> None:
        nonlocal took
        start = perf_counter()
        for part in slices:
            store.write(part)
        store.commit()
        took = perf_counter() - start
        done.set()

    writer = Thread(target=work)
    writer.start()
    delays = sorted(asyncio.run(_busy(done.is_set)))
    writer.join()
    return took, delays[len(delays) * 99 // 100], delays[-1]


def _undisturbed() -> float:
    """The 99th percentile of the loop's delays in ms when nothing else is done: what the machine itself adds."""
    until = perf_counter() + 2
    delays = sorted(asyncio.run(_busy(lambda: perf_counter() > until)))
    return delays[len(delays) * 99 // 100]


def figures(runs: int, directory: Path) -> list[Figure]:
    """Of 1 M counters with one origin, in one file."""
    random = Random(1)
    three = _bytes_a_key(directory / "three", 3)
    store = _fill(directory / "one", sorted(map(_row, range(KEYS))))
    size = store.file_bytes / KEYS
    reads = repeat(runs, lambda: _reads_per_s(store, random))
    scans = repeat(runs, lambda: _scan_per_s(store))
    checkpoints = [_checkpoint(store, random) for _ in range(runs)]
    store.close()
    shutil.rmtree(directory / "one")
    took, p99, greatest = (list(column) for column in zip(*checkpoints, strict=True))
    notes = {"bytes with three origins": round(three, 1)}
    return [
        Figure("state store, bytes a key, 1 M counters", "B", [size], 80, is_at_least=False, notes=notes),
        Figure("state store, random reads", "keys/s", reads),
        Figure("state store, rows read in order", "rows/s", scans),
        Figure("checkpoint of 50,000 rows beside a busy loop", "s", took, notes={"cores": os.cpu_count()}),
        Figure(
            "loop delay p99 during that checkpoint",
            "ms",
            p99,
            10,
            is_at_least=False,
            notes={"greatest ms": round(max(greatest), 1), "without a checkpoint ms": round(_undisturbed(), 2)},
        ),
    ]
