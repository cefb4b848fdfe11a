"""Real nodes: durable adds over HTTP, from acknowledgement to visibility elsewhere, and what is received twice."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import sys
import time
import urllib.parse
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from crdtstore.testing.processes import LocalCluster

__all__ = ["figures"]

CONNECTIONS = 64
SECONDS = 4.0
PROBES = 200
REGIONS = ("us", "eu", "ap")
_TICKS = os.sysconf("SC_CLK_TCK")


def _call(
    url: str, method: str, path: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """One request with the standard library: a reader that shares nothing with the client."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=30)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
        assert response.status == 200, answer
        return answer
    finally:
        connection.close()


def _declare(url: str) -> None:
    _call(url, "PUT", "/v1/domains/bench", {})
    _call(url, "PUT", "/v1/domains/bench/collections/orders", {"type": "counter"})


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _metric(url: str, name: str) -> float:
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=30)
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition("{")[0].partition(" ")[0] == name)
    finally:
        connection.close()


def _total(url: str) -> int:
    total, after = 0, ""
    while True:
        page = _call(
            url, "GET", f"/v1/data/bench/orders?values=true&limit=1000&after={urllib.parse.quote(after, safe='')}"
        )
        total += sum(item["value"] for item in page["items"])
        if page["next"] is None:
            return total
        after = page["next"]


async def _load(url: str) -> dict[str, Any]:
    host, _, port = urllib.parse.urlsplit(url).netloc.partition(":")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.load",
        host,
        port,
        str(CONNECTIONS),
        str(SECONDS),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), SECONDS + 30)
    result: dict[str, Any] = json.loads(out)
    return result


async def _durable_adds(directory: Path, runs: int) -> list[Figure]:
    """Single durable adds over HTTP at one node that pushes to two others; then kill -9, restart, and read the sum."""
    per_cpu, wall, p99, per_sync = [], [], [], []
    syncs = 0.0
    async with LocalCluster(directory, REGIONS) as cluster:
        url = cluster.url("us")
        await asyncio.to_thread(_declare, url)
        acknowledged = 0
        for _ in range(runs):
            pid = cluster.node("us").pid
            assert pid is not None
            cpu, before = _cpu_seconds(pid), await asyncio.to_thread(_metric, url, "crdtstore_log_syncs_total")
            result = await _load(url)
            spent = _cpu_seconds(pid) - cpu
            run_syncs = await asyncio.to_thread(_metric, url, "crdtstore_log_syncs_total") - before
            assert result["failed"] == 0, result
            acknowledged += result["acknowledged"]
            syncs += run_syncs
            per_cpu.append(result["acknowledged"] / spent)
            wall.append(result["acknowledged"] / result["seconds"])
            p99.append(result["latencies_ms"][int(len(result["latencies_ms"]) * 0.99)])
            per_sync.append(result["acknowledged"] / max(1.0, run_syncs))
        await cluster.kill("us")
        await cluster.start("us")
        read_back = await asyncio.to_thread(_total, url)
        assert read_back == acknowledged, f"acknowledged {acknowledged}, read back {read_back} after kill -9"
    notes = {"syncs": int(syncs), "acknowledged": acknowledged, "read back after kill -9": read_back}
    return [
        Figure(
            f"HTTP single durable adds, {CONNECTIONS} connections",
            "1/CPU-s of the server",
            per_cpu,
            12_000,
            notes=notes,
        ),
        Figure(
            f"HTTP single durable adds, {CONNECTIONS} connections, three nodes and load on this machine", "1/s", wall
        ),
        Figure("commits per sync under that load", "commits", per_sync),
        Figure("latency of these adds, p99", "ms", p99, is_at_least=False),
    ]


def _probe(cluster: LocalCluster, number: int) -> float:
    body = {"ops": [{"op": "add", "amount": 1}]}
    ack = _call(cluster.url("us"), "POST", f"/v1/data/bench/orders/probe-{number % 10}", body)
    at = time.perf_counter()
    _call(
        cluster.url("eu"),
        "GET",
        f"/v1/data/bench/orders/probe-{number % 10}?wait_ms=5000",
        headers={"Crdtstore-Token": ack["token"]},
    )
    return (time.perf_counter() - at) * 1000


async def _visibility(directory: Path, runs: int) -> list[Figure]:
    """From the acknowledgement in one region to a read of it answered in another, both over HTTP."""
    medians, p99 = [], []
    async with LocalCluster(directory, REGIONS) as cluster:
        await asyncio.to_thread(_declare, cluster.url("us"))
        await asyncio.to_thread(_probe, cluster, 0)
        for _ in range(runs):
            latencies = sorted([await asyncio.to_thread(_probe, cluster, number) for number in range(PROBES)])
            medians.append(latencies[PROBES // 2])
            p99.append(latencies[int(PROBES * 0.99)])
        loads = await asyncio.gather(*(_load(cluster.url(region)) for region in REGIONS))
        await _settle(cluster)
        gossip = [
            (await asyncio.to_thread(_call, cluster.url(region), "GET", "/v1/status"))["gossip"] for region in REGIONS
        ]
    received = sum(each["commits_received"] for each in gossip)
    twice = sum(each["commits_received_twice"] for each in gossip)
    notes = {"received": received, "twice": twice, "acknowledged": sum(load["acknowledged"] for load in loads)}
    return [
        Figure("from acknowledged here to readable there, loopback, median", "ms", medians, 5, is_at_least=False),
        Figure("from acknowledged here to readable there, loopback, p99", "ms", p99, 30, is_at_least=False),
        Figure(
            "received twice, all three regions under load",
            "%",
            [100 * twice / received],
            1,
            is_at_least=False,
            notes=notes,
        ),
    ]


async def _settle(cluster: LocalCluster) -> None:
    """Wait until all vectors are equal."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status = [await asyncio.to_thread(_call, cluster.url(region), "GET", "/v1/status") for region in REGIONS]
        vectors = [
            sorted((group["domain"], sorted(group["vector"].items())) for group in each["groups"]) for each in status
        ]
        if vectors[0] == vectors[1] == vectors[2]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the regions did not converge within 60 s")


def figures(runs: int, directory: Path) -> list[Figure]:
    """The figures of real nodes, below ``directory``, which must be on a real disk."""
    return [
        *asyncio.run(_durable_adds(directory / "durable", runs)),
        *asyncio.run(_visibility(directory / "visible", runs)),
    ]
