"""Sessions: durable adds over WebSockets to a node by itself, and to one of three; latency at half of that load.

By itself: what a process can do. One of three, with the load generator on the same cores: what this machine can do; the other two take
their share of it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.alone import lay_out, percentile, put_load, serving
from benchmarks.cluster import REGIONS, _cpu_seconds, _declare
from benchmarks.figures import Figure
from crdtstore.testing.processes import LocalCluster

__all__ = ["figures"]

SECONDS = 4.0
TASKS = 64
KEYS = 1_000


async def _told(*command: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", *command, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), SECONDS + 30)
    result: dict[str, Any] = json.loads(out)
    assert result["failed"] == 0, result
    return result


class _Rates:
    """What some runs of one load found: a second, a CPU-second of the server, p99 in ms, and what the load told."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.per_cpu: list[float] = []
        self.p99: list[float] = []
        self.told: dict[str, Any] = {}

    async def take(self, pid: Callable[[], int], *command: str) -> None:
        cpu = _cpu_seconds(pid())
        told = self.told = await _told(*command)
        self.per_cpu.append(told["acknowledged"] / (_cpu_seconds(pid()) - cpu))
        self.wall.append(told["acknowledged"] / told["seconds"])
        self.p99.append(percentile(told.get("latencies_ms", []), 0.99))


async def _of_sessions(url: str, pid: Callable[[], int], runs: int, sessions: int, outstanding: int) -> _Rates:
    host, _, port = urllib.parse.urlsplit(url).netloc.partition(":")
    rates = _Rates()
    for _ in range(runs):
        await rates.take(pid, "benchmarks.session_load", host, port, str(sessions), str(outstanding), str(SECONDS))
    return rates


async def _alone(directory: Path, runs: int) -> list[Figure]:
    config = await asyncio.to_thread(lay_out, directory, ["us"])
    async with serving(config) as (url, node, _):
        pid = node.pid
        assert pid is not None
        piped = await _of_sessions(url, lambda: pid, runs, 1, TASKS)
        single = await _of_sessions(url, lambda: pid, runs, TASKS, 1)
        clients = {}
        for transport in ("session", "http"):
            clients[transport] = _Rates()
            cpu_us = []
            for _ in range(runs):
                await clients[transport].take(lambda: pid, "benchmarks.client_load", url, str(TASKS), "3", transport)
                cpu_us.append(clients[transport].told["cpu_us"])
            clients[transport].told["cpu_us"] = percentile(cpu_us, 0.5)
    piped_name = f"session: durable adds of {TASKS} tasks over one session, a node by itself"
    client_notes = {"CPU us an add in the client": round(clients["session"].told["cpu_us"], 1)}
    return [
        Figure(piped_name, "1/s", piped.wall, 80_000),
        Figure(f"{piped_name}, of the server", "1/CPU-s", piped.per_cpu, 150_000),
        Figure(
            f"session: durable adds, {TASKS} sessions, one under way on each, a node by itself",
            "1/s",
            single.wall,
            25_000,
        ),
        Figure("the same, of the server", "1/CPU-s", single.per_cpu),
        Figure("the same, p99", "ms", single.p99, is_at_least=False),
        Figure(
            f"Python client: durable adds of {TASKS} tasks over its session",
            "1/s",
            clients["session"].wall,
            notes=client_notes,
        ),
        Figure(
            "Python client: the same over HTTP",
            "1/s",
            clients["http"].wall,
            notes={"CPU us an add in the client": round(clients["http"].told["cpu_us"], 1)},
        ),
    ]


async def _at_half(directory: Path, runs: int) -> Figure:
    """A node that has done nothing before: what was written to it at full load would still be on its way into checkpoints."""
    config = await asyncio.to_thread(lay_out, directory, ["us"])
    p99 = []
    async with serving(config) as (url, _, _):
        half = len((await put_load(url, "add", 0, SECONDS, KEYS))["took"]) / SECONDS / 2
        for run in range(runs):
            took = [ms for _, ms in (await put_load(url, "add", half, SECONDS, KEYS, run))["took"]]
            p99.append(percentile(took[len(took) // 10 :], 0.99))
    name = "write latency p99 over HTTP at half of what 32 connections reach, from when each was due, a node by itself"
    return Figure(name, "ms", p99, 3, is_at_least=False, notes={"a second": round(half)})


async def _of_three(directory: Path, runs: int) -> list[Figure]:
    async with LocalCluster(directory, REGIONS) as cluster:
        url = cluster.url("us")
        await asyncio.to_thread(_declare, url)
        pid = cluster.node("us").pid
        assert pid is not None
        piped = await _of_sessions(url, lambda: pid, runs, 1, TASKS)
    name = f"session: durable adds of {TASKS} tasks over one session, one of three nodes, all on this machine"
    return [Figure(name, "1/s", piped.wall), Figure(f"{name}, of the server", "1/CPU-s", piped.per_cpu)]


def figures(runs: int, directory: Path) -> list[Figure]:
    """The figures of sessions, below ``directory``, which must be on a real disk."""
    return [
        asyncio.run(_at_half(directory / "half", runs)),
        *asyncio.run(_alone(directory / "sessions", runs)),
        *asyncio.run(_of_three(directory / "sessions of three", runs)),
    ]
