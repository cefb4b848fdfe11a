"""What stands beside this store on this machine: a bare sync, a bare echo, redis and pycrdt-websocket.

The question: is a figure good? It says little by itself, more beside what the disk, the HTTP library and others do here, in the same run.
``make bench-peers`` installs redis-server (Debian) and pycrdt-websocket (a virtual environment of its own); what is absent is said.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.cluster import _cpu_seconds
from benchmarks.figures import Figure

__all__ = ["figures"]

SYNCS = 3_000
RECORD = 64
CONNECTIONS = 64
PIPELINE = 64
REQUESTS = 200_000
KEYS = 1_000
ECHO_S = 3.0
UPDATES = 20_000
PYCRDT = Path(__file__).parents[1] / "build" / "peers" / "bin" / "python"
_HERE = Path(__file__).parent


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _until_open(port: int) -> None:
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise AssertionError(f"nothing listens on port {port} within 10 s")


@asynccontextmanager
async def _process(command: list[str], port: int, **options: Any) -> AsyncIterator[int]:
    """A server as a process of ours: its pid."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL, **options)
    try:
        await _until_open(port)
        yield process.pid
    finally:
        process.terminate()
        await process.wait()


async def _json_of(*command: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), 120)
    result: dict[str, Any] = json.loads(out)
    return result


# --- the disk


def _sync_loop(path: Path) -> tuple[float, float]:
    """Syncs a second, each of one small record into a file that was written before, and the 99th percentile of one (ms)."""
    took = []
    with path.open("wb", buffering=0) as file:
        file.write(bytes(SYNCS * RECORD))
        os.fsync(file.fileno())
        start = time.perf_counter()
        for at in range(SYNCS):
            begin = time.perf_counter()
            os.pwrite(file.fileno(), b"x" * RECORD, at * RECORD)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - begin)
        seconds = time.perf_counter() - start
    path.unlink()
    return SYNCS / seconds, sorted(took)[int(SYNCS * 0.99)] * 1000


# --- the HTTP library


async def _echo(runs: int) -> list[Figure]:
    port = _free_port()
    http, frames = [], []
    async with _process([sys.executable, "-m", "benchmarks.echo", "serve", str(port)], port) as pid:
        for _ in range(runs):
            cpu = _cpu_seconds(pid)
            told = await _json_of(sys.executable, "-m", "benchmarks.load", "127.0.0.1", str(port), "64", str(ECHO_S))
            http.append(told["acknowledged"] / (_cpu_seconds(pid) - cpu))
            cpu = _cpu_seconds(pid)
            told = await _json_of(sys.executable, "-m", "benchmarks.echo", "load", str(port), str(ECHO_S))
            frames.append(told["answered"] / (_cpu_seconds(pid) - cpu))
    return [
        Figure("beside it: bare aiohttp, a POST answered with a constant, 64 connections", "1/CPU-s", http),
        Figure("beside it: bare aiohttp, WebSocket frames echoed, 64 under way on one connection", "1/CPU-s", frames),
    ]


# --- redis


def _redis_rate(port: int, connections: int, pipeline: int) -> float:
    command = ["redis-benchmark", "-p", str(port), "-t", "incr", "-c", str(connections), "-P", str(pipeline)]
    told = subprocess.run(
        [*command, "-n", str(REQUESTS if pipeline > 1 else REQUESTS // 4), "-r", str(KEYS), "--csv"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return float(told.stdout.splitlines()[-1].split(",")[1].strip('"'))


async def _redis(runs: int, directory: Path) -> AsyncIterator[Figure]:
    for name, sync in (("synced before each answer", ["yes", "always"]), ("nothing on disk", ["no", "no"])):
        await asyncio.to_thread(directory.mkdir)
        port = _free_port()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
        options = ["--appendonly", sync[0], "--appendfsync", sync[1]]
        async with _process([*command, *options], port) as pid:
            for connections, pipeline in ((CONNECTIONS, 1), (1, PIPELINE)):
                wall, per_cpu = [], []
                for _ in range(runs):
                    cpu = _cpu_seconds(pid)
                    wall.append(await asyncio.to_thread(_redis_rate, port, connections, pipeline))
                    spent = _cpu_seconds(pid) - cpu
                    per_cpu.append((REQUESTS if pipeline > 1 else REQUESTS // 4) / max(spent, 0.01))
                what = f"beside it: redis, INCR, {name}, {connections} x {pipeline} under way"
                notes = {"per CPU-second of its process": round(sorted(per_cpu)[len(per_cpu) // 2])}
                yield Figure(what, "1/s", wall, notes=notes)
        shutil.rmtree(directory)


# --- pycrdt-websocket


async def _pycrdt(runs: int) -> Figure:
    """Map entries set by one client until another has them all, over a server in Python."""
    port = _free_port()
    script = str(_HERE / "peer_pycrdt.py")
    rates, per_cpu = [], []
    async with _process([str(PYCRDT), script, "serve", str(port)], port, stderr=asyncio.subprocess.DEVNULL) as pid:
        for run in range(runs):
            cpu = _cpu_seconds(pid)
            told = await _json_of(str(PYCRDT), script, "load", str(port), str(UPDATES), f"room-{run}")
            rates.append(UPDATES / told["seconds"])
            per_cpu.append(UPDATES / max(_cpu_seconds(pid) - cpu, 0.01))
    notes = {"per CPU-second of its server": round(sorted(per_cpu)[len(per_cpu) // 2])}
    return Figure(
        "beside it: pycrdt-websocket, map entries from one client to another, in memory", "1/s", rates, notes=notes
    )


def _all(runs: int, directory: Path) -> Iterator[Figure]:
    syncs = [_sync_loop(directory / "syncs") for _ in range(runs)]
    yield Figure("beside it: bare fdatasync of 64 bytes, one after the other", "1/s", [rate for rate, _ in syncs])
    yield Figure("beside it: the same, p99", "ms", [p99 for _, p99 in syncs], is_at_least=False)
    yield from asyncio.run(_echo(runs))
    if shutil.which("redis-server") and shutil.which("redis-benchmark"):

        async def redis() -> list[Figure]:
            return [figure async for figure in _redis(runs, directory / "redis")]

        yield from asyncio.run(redis())
    else:
        print("redis-server is not installed: make bench-peers")
    if PYCRDT.exists():
        yield asyncio.run(_pycrdt(runs))
    else:
        print("pycrdt-websocket is not installed: make bench-peers")


def figures(runs: int, directory: Path) -> Iterator[Figure]:
    """What others do here; ``directory`` must be on a real disk."""
    directory.mkdir(exist_ok=True)
    return _all(runs, directory)
