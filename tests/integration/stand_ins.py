"""Stand-ins for nodes as processes, and waiting for what happens in them: what is tested with them is the supervision, not the store."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from crdtstore.testing.processes import LocalCluster, http_get
from crdtstore_node.dev import control

STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in_node.py")))
DEADLINE_S = 20.0
SILENCE_S = 0.2  # ten times as long as the stand-ins' pause between two words


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - it is in another process
            await asyncio.sleep(0.02)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the deadline passed"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    return control.process_start(pid) is not None


async def heard(cluster: LocalCluster, region: str) -> dict[str, int]:
    status, body = await http_get(cluster.node(region).address, "/heard")
    assert status == 200
    counts: dict[str, int] = json.loads(body)
    return counts


async def hears(cluster: LocalCluster, region: str) -> set[str]:
    """Whom a region hears within a moment."""
    before = await heard(cluster, region)
    await asyncio.sleep(SILENCE_S)
    after = await heard(cluster, region)
    return {node.removesuffix("-1") for node in after if after[node] > before.get(node, 0)}


async def until_hears(cluster: LocalCluster, region: str, peers: set[str]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await hears(cluster, region) != peers:
            pass
