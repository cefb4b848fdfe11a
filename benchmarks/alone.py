"""One node of a cluster by itself, on a directory that was filled without it, and a load on it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import urllib.parse
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.cluster import _call, _declare
from benchmarks.filling import Inside, adds
from crdtstore.testing.processes import NODE_COMMAND, LocalCluster, NodeProcess
from crdtstore_node.config import load, parse_address

__all__ = ["begin_load", "fill", "lay_out", "percentile", "put_load", "result_of", "serving", "storage_of"]

CONNECTIONS = 32


def lay_out(directory: Path, regions: Sequence[str]) -> Path:
    """The configuration of the first region's node, in whose directory nothing is but what is declared."""

    async def make() -> Path:
        async with LocalCluster(directory, regions) as cluster:
            await asyncio.to_thread(_declare, cluster.url(regions[0]))
            return cluster.config_path(regions[0])

    return asyncio.run(make())


def fill(node: Inside, keys: int, per_commit: int) -> None:
    """Add 1 to each key, in batches of 256 commits, with the checkpoints that become due."""
    batch = 256 * per_commit
    wake_ms = 0
    for first in range(0, keys, batch):
        last = min(first + batch, keys)
        node.write([adds(range(at, min(at + per_commit, last))) for at in range(first, last, per_commit)])
        if node.now_ms >= wake_ms:
            wake_ms = node.tick()
        while node.saves:
            node.save()


@asynccontextmanager
async def serving(
    config: Path, command: Sequence[str] = NODE_COMMAND, **engine: int
) -> AsyncIterator[tuple[str, NodeProcess, float]]:
    """The node of a configuration as a process, by itself: its URL, the process, and the seconds until it served."""
    address = parse_address(load(config, {}).api, "api")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CRDTSTORE_")}
    environment |= {f"CRDTSTORE_ENGINE_{name.upper()}": str(value) for name, value in engine.items()}
    node = NodeProcess(
        config.stem,
        [*command, "--config", str(config), "--exit-with-stdin"],
        address=(address.host, address.port),
        log_path=config.with_suffix(".log"),
        env=environment,
    )
    start = time.perf_counter()
    node.spawn()
    await node.wait_ready(300)
    try:
        yield f"http://{address}", node, time.perf_counter() - start
    finally:
        await node.stop()


async def begin_load(url: str, do: str, rate: float, seconds: float, keys: int, seed: int = 1) -> Process:
    host, _, port = urllib.parse.urlsplit(url).netloc.partition(":")
    what = [host, port, do, str(rate), str(CONNECTIONS), str(seconds), str(keys), str(seed)]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.steady", *what, stdout=asyncio.subprocess.PIPE
    )


async def result_of(process: Process) -> dict[str, Any]:
    """What a load that has ended, or was told to end, found."""
    out, _ = await process.communicate()
    result: dict[str, Any] = json.loads(out)
    assert result["failed"] == 0, result["failed"]
    return result


async def put_load(url: str, do: str, rate: float, seconds: float, keys: int, seed: int = 1) -> dict[str, Any]:
    return await result_of(await begin_load(url, do, rate, seconds, keys, seed))


async def storage_of(url: str) -> dict[str, Any]:
    status: dict[str, Any] = (await asyncio.to_thread(_call, url, "GET", "/v1/status"))["storage"]
    return status


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)] if values else 0.0
