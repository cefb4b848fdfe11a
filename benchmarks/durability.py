"""State on disk under load: what a checkpoint does to writes, memory under its budget, starts, what keeping state costs.

Directories are filled in this process (``filling``), then served by a real node process. One figure takes minutes where millions of keys
are filled, so these run by ``--only durability`` and not in ``make bench``.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from random import Random

from benchmarks import budget
from benchmarks.alone import fill, lay_out, percentile, put_load, serving, storage_of
from benchmarks.cluster import REGIONS, _cpu_seconds
from benchmarks.figures import Figure
from benchmarks.filling import Inside, adds
from crdtstore.causal import ReplicaId
from crdtstore.storage import segment
from crdtstore.storage.log import SEGMENT_BYTES
from crdtstore.storage.protocol import Entry
from crdtstore.storage.record import encode_record

__all__ = ["figures"]

KEYS = 1_000_000
BEYOND = 100_000
DIRTY = 50_000
FEW = 60_000
RATE = 500
CYCLES = 5
CYCLE_MS = 20_000
"""From the end of one checkpoint to the next."""
_NEVER_MS = 86_400_000
LOG_BYTES = 1 << 30


# --- 1 M keys: filling, starting, writing beside a checkpoint


def _restart(config: Path, runs: int) -> list[tuple[float, float]]:
    """Seconds until the node serves, process start included, and its CPU seconds."""

    async def start() -> tuple[float, float]:
        async with serving(config, checkpoint_ms=_NEVER_MS) as (_, node, took):
            assert node.pid is not None
            cpu = _cpu_seconds(node.pid)
            await node.kill()
        return took, cpu

    return [asyncio.run(start()) for _ in range(runs)]


async def _make_dirty(url: str, seed: int, among: int) -> None:
    """Change random keys until so many have changes that no checkpoint holds."""
    while (unsaved := (await storage_of(url))["checkpoint"]["unsaved_keys"]) < DIRTY:
        await put_load(url, "add", 0, max(0.2, (DIRTY - unsaved) / 20_000), among, seed + unsaved)


async def _beside_checkpoints(
    config: Path, among: int
) -> tuple[list[list[float]], list[list[float]], list[int], list[int]]:
    """Of each cycle the latencies while a checkpoint of about ``DIRTY`` keys ran, and those before it; how long it took (ms), and of how
    many keys it was.
    """
    during: list[list[float]] = []
    before: list[list[float]] = []
    took_ms: list[int] = []
    dirty: list[int] = []
    async with serving(config, checkpoint_ms=CYCLE_MS, scrub_rows_per_s=0, memory_bytes=4 << 30) as (url, _, _):
        while (await storage_of(url))["state"]["resident_rows"] < among:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        for cycle in range(20 * CYCLES):
            await _make_dirty(url, cycle, among)
            checkpoint = (await storage_of(url))["checkpoint"]
            count, ended_ms = checkpoint["count"], (checkpoint["age_ms"] or 0) - checkpoint["took_ms"]
            seconds = (CYCLE_MS - (ended_ms if count else 0)) / 1e3 + 12  # a checkpoint takes 5 to 6 s of it
            load = asyncio.ensure_future(put_load(url, "add", RATE, seconds, among, cycle))
            await asyncio.sleep(1)
            while not load.done() and (checkpoint := (await storage_of(url))["checkpoint"])["count"] == count:
                keys = checkpoint["unsaved_keys"]
                await asyncio.sleep(0.2)
            took = (await load)["took"]
            checkpoint = (await storage_of(url))["checkpoint"]
            begin_ms = time.time() * 1e3 - checkpoint["age_ms"]
            within = [each for due, each in took if begin_ms - 5 <= due <= begin_ms + checkpoint["took_ms"] + 5]
            if checkpoint["count"] != count + 1 or not within:
                continue  # it came too early
            during.append(within)
            before.append([each for due, each in took[RATE // 2 :] if due < begin_ms - 100])
            took_ms.append(checkpoint["took_ms"])
            dirty.append(keys)
            if len(during) == CYCLES:
                break
    return during, before, took_ms, dirty


def _steps_beside_checkpoint(node: Inside) -> tuple[list[float], list[float], float, float]:
    """CPU time (ms) of the steps of a host that takes writes while a checkpoint of ``DIRTY`` leaves runs: those, and without one; then
    the first step of it, and CPU us of the loop a dirty leaf.
    """
    random = Random(2)
    for _ in range(0, DIRTY, 1_000):
        node.write([adds(random.sample(range(KEYS), 1_000))])
    gc.collect()
    gc.freeze()
    node.steps_ms.clear()
    for _ in range(1_000):
        node.write([adds([random.randrange(KEYS)]) for _ in range(16)])
    without = node.steps_ms[:]
    node.steps_ms.clear()
    node.begin()
    first = node.steps_ms[0]
    spent = 0.0
    while node.saves:
        before = len(node.steps_ms)
        node.save()
        spent += sum(node.steps_ms[before:])
        node.write([adds([random.randrange(KEYS)]) for _ in range(16)])
    gc.unfreeze()
    return node.steps_ms[:], without, first, (first + spent) * 1e3 / DIRTY


def _local_adds(node: Inside) -> float:
    """Adds a CPU second of the host, in batches of 64, to keys that are in memory."""
    random = Random(4)
    batches = [[adds([random.randrange(1_000)]) for _ in range(64)] for _ in range(500)]
    for batch in batches[:20]:
        node.write(batch)
    node.steps_ms.clear()
    for batch in batches[20:]:
        node.write(batch)
    return 480 * 64 / (sum(node.steps_ms) / 1e3)


def _without_store(node: Inside) -> float:
    """The same without a state store."""
    host = node.host
    host.saving = None
    for engine in host.groups.values():
        engine.checkpoint = engine.keyspace.tree.residence = None
        for ledger in (*engine.keyspace.ledgers, *engine.rights.ledgers):
            ledger.is_kept = False
    return _local_adds(node)


def _start_figure(name: str, starts: list[tuple[float, float]]) -> Figure:
    notes = {"CPU-s": round(min(cpu for _, cpu in starts), 2)}
    return Figure(name, "s", [took for took, _ in starts], 5, is_at_least=False, notes=notes)


def _million(directory: Path, runs: int) -> Iterator[Figure]:
    config = lay_out(directory, REGIONS)
    with Inside(config) as node:
        begun = time.process_time()
        fill(node, KEYS, 1)
        filled = time.process_time() - begun
        node.checkpoint()
        assert node.store is not None
        a_key = node.store.file_bytes / KEYS
    yield Figure("1 M keys added in one process, a commit each, checkpoints included", "1/CPU-s", [KEYS / filled])
    yield Figure("state on disk after that", "bytes a key", [a_key], 80, is_at_least=False)
    name = "start with 1 M keys and 1 M commits behind the checkpoint, process start included"
    yield _start_figure(name, _restart(config, runs))
    with Inside(config) as node:
        random = Random(3)
        for _ in range(0, BEYOND, 64):
            node.write([adds([random.randrange(KEYS)]) for _ in range(64)])
    yield _start_figure("the same with 100,000 commits beyond the checkpoint", _restart(config, runs))
    with Inside(config) as node:
        node.checkpoint()
        steps, without, first, a_leaf = _steps_beside_checkpoint(node)
        notes = {
            "p99": round(percentile(steps, 0.99), 2),
            "the step that begins it": round(first, 2),
            "longest without one": round(max(without), 2),
        }
        yield Figure(
            "longest step of the host while a checkpoint of 50,000 leaves runs",
            "CPU-ms",
            [max(steps)],
            10,
            is_at_least=False,
            notes=notes,
        )
        yield Figure("CPU of the event loop a dirty leaf of a checkpoint", "us", [a_leaf])
        with_store = [_local_adds(node) for _ in range(runs)]
        without_store = [_without_store(node) for _ in range(runs)]
        yield Figure(
            "local adds with a state store, against the same without one",
            "x",
            [sorted(without_store)[runs // 2] / each for each in with_store],
            is_at_least=False,
            notes={"a CPU second, with": round(max(with_store)), "without": round(max(without_store))},
        )
    yield _latency_figure("1 M", *asyncio.run(_beside_checkpoints(config, KEYS)))
    shutil.rmtree(directory)


def _few(directory: Path) -> Iterator[Figure]:
    """The same of a state that is hardly larger than what changes: few pages hold it all."""
    config = lay_out(directory, REGIONS)
    with Inside(config) as node:
        fill(node, FEW, 1)
        node.checkpoint()
    yield _latency_figure(f"{FEW:,}", *asyncio.run(_beside_checkpoints(config, FEW)))
    shutil.rmtree(directory)


def _latency_figure(
    of: str, during: list[list[float]], before: list[list[float]], took_ms: list[int], dirty: list[int]
) -> Figure:
    usual = [percentile(each, 0.99) for each in before]
    return Figure(
        f"write latency p99 at {RATE}/s over HTTP while a checkpoint of 50,000 leaves of {of} runs",
        "ms",
        [percentile(each, 0.99) for each in during],
        10,
        is_at_least=False,
        notes={
            "p50": round(percentile(list(chain.from_iterable(during)), 0.5), 2),
            "greatest": round(max(map(max, during)), 1),
            "writes": sum(map(len, during)),
            "dirty keys": percentile(list(map(float, dirty)), 0.5),
            "checkpoint took ms": percentile(list(map(float, took_ms)), 0.5),
            "without one p50": round(percentile(list(chain.from_iterable(before)), 0.5), 2),
            "without one p99": round(percentile(usual, 0.5), 2),
        },
    )


# --- a large log


def _make_log(directory: Path) -> Path:
    """Segments of blocks as a busy node writes them, eight commits of 200 bytes each; return one in the middle."""
    directory.mkdir(parents=True)
    us = ReplicaId("us-1.0123456789abcdef")
    payload = [encode_record([Entry("shop/0", us, bytes([number]) * 200) for number in range(8)])]
    position = generation = 0
    while position < LOG_BYTES:
        generation += 1
        data = bytearray(segment.make_header(generation, position))
        while len(data) + len(block := segment.make_block(generation, position, payload)) <= SEGMENT_BYTES:
            data += block
            position += len(block)
        segment.path_of(directory, generation).write_bytes(data.ljust(SEGMENT_BYTES, b"\0"))
    return segment.path_of(directory, generation // 2)


def _verify(directory: Path, runs: int) -> Figure:
    """The command finds one flipped byte in a log of 1 GB."""
    path = _make_log(directory / "log")
    with path.open("r+b") as file:
        file.seek(SEGMENT_BYTES // 3)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    took, spent = [], 0.0
    for _ in range(runs):
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "crdtstore.cli", "log", "verify", str(directory)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        took.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        assert done.returncode != 0, done
        assert path.name in done.stdout + done.stderr, done
    shutil.rmtree(directory)
    name, notes = "`crdtstore log verify` finds one flipped byte in a log of 1 GB", {"CPU-s": round(spent, 2)}
    return Figure(name, "s", took, 10, is_at_least=False, notes=notes)


def figures(runs: int, directory: Path) -> Iterator[Figure]:
    """In directories of their own; each figure as soon as it is there."""
    yield from _few(directory / "few")
    yield from _million(directory / "million", min(runs, 3))
    yield from budget.figures(directory / "many")
    yield _verify(directory / "verify", min(runs, 3))
