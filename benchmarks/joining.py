"""A node that joins a cluster which holds a million keys and is written to: how long it takes, what goes over the wire, what writers feel.

One founder holds everything and serves 500 writes a second, open loop, to random keys; another node joins by itself and has to take all of
it over from that one. It is there when it is a member of all groups, holds them, and answers reads. After each run it is stopped and
evicted, so that the next one begins as the first did. Writers' latencies are compared with those of the seconds before it was started.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.alone import begin_load, fill, lay_out, percentile, result_of, serving, storage_of
from benchmarks.cluster import _call, _cpu_seconds, _metric, _total
from benchmarks.figures import Figure
from benchmarks.filling import Inside
from benchmarks.watched import read_steps
from crdtstore.testing.processes import NODE_COMMAND, NodeProcess, hold_port
from crdtstore_node.config import load as load_config

__all__ = ["figures"]

KEYS = 1_000_000
RATE = 500
BEFORE_S = 12.0
_WARM_S = 2.0
"""Of these nothing is counted."""
_MOST_S = 600.0


@dataclass
class _Join:
    """One run."""

    seconds: float
    received: int
    """Bytes, by the joiner from its peers."""
    state: int
    """Bytes, of the sender's state on disk."""
    before: list[float]
    during: list[float]
    """Latencies of writes (ms)."""
    acknowledged: int
    readable: int
    steps_ms: tuple[float, float]
    """The longest step of the sender on a processor: before, and during the join."""
    notes: dict[str, Any]


def _config_of_joiner(directory: Path, founder: Path, node: str) -> Path:
    """The configuration of a node that asks the founder to let it join."""
    founding = load_config(founder, {})
    with hold_port() as api, hold_port() as gossip:
        ports = api.getsockname()[1], gossip.getsockname()[1]
    path = directory / f"{node}.toml"
    lines = [
        f'node = "{node}"',
        f'region = "{node}"',
        f'cluster_file = "{founding.cluster_file}"',
        f'data = "{directory / node}"',
        f'api = "127.0.0.1:{ports[0]}"',
        f'gossip = "127.0.0.1:{ports[1]}"',
        f'join = ["{founding.gossip}"]',
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


async def _evict(url: str, node: NodeProcess) -> None:
    """Stop a node and let the others go on without it."""
    await node.stop()
    looked = await asyncio.to_thread(_call, url, "GET", "/admin/v1/members")
    body = {"nodes": [node.name], "configuration": looked["configuration"], "yes": True}
    await asyncio.to_thread(_call, url, "POST", "/admin/v1/members/evict", body)
    while True:
        looked = await asyncio.to_thread(_call, url, "GET", "/admin/v1/members")
        if all(len(group["members"]) == 1 and not group["waits_for"] for group in looked["groups"]):
            return
        await asyncio.sleep(0.2)


async def _vector(url: str) -> Any:
    status = await asyncio.to_thread(_call, url, "GET", "/v1/status")
    return sorted((group["domain"], sorted(group["vector"].items())) for group in status["groups"])


async def _join(
    directory: Path, founder: Path, url: str, sender: NodeProcess, keys: int, written: int, run: int
) -> _Join:
    """``written``: the sum of all counters."""
    config = _config_of_joiner(directory, founder, f"eu-{run}")
    address = load_config(config, {}).api_address
    command = [*NODE_COMMAND, "--config", str(config), "--exit-with-stdin"]
    joiner = NodeProcess(
        config.stem, command, address=(address.host, address.port), log_path=config.with_suffix(".log")
    )
    joiner_url = f"http://{address}"
    state = (await storage_of(url))["state"]["bytes"]
    assert sender.pid is not None
    load = await begin_load(url, "add", RATE, _MOST_S, keys, run)
    try:
        begun_ms = time.time() * 1e3
        await asyncio.sleep(_WARM_S + BEFORE_S)
        cpu, start, spawned_ms = _cpu_seconds(sender.pid), time.perf_counter(), time.time() * 1e3
        joiner.spawn()
        assert joiner.pid is not None
        os.setpriority(
            os.PRIO_PROCESS, joiner.pid, 19
        )  # it would be on another machine: what is asked for is what the sender gives it
        await joiner.wait_ready(_MOST_S)
        seconds, ended_ms = time.perf_counter() - start, time.time() * 1e3
        cpu = _cpu_seconds(sender.pid) - cpu
        assert joiner.pid is not None
        joiner_cpu = _cpu_seconds(joiner.pid)
        received = await asyncio.to_thread(_metric, joiner_url, "crdtstore_gossip_received_bytes_total")
        absent = await asyncio.to_thread(_metric, joiner_url, "crdtstore_groups_not_installed")
        assert not absent, "it says it is ready and holds not all groups"
        load.terminate()
        result = await result_of(load)
        while await _vector(url) != await _vector(joiner_url):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        readable = await asyncio.to_thread(_total, joiner_url) - written
    finally:
        if load.returncode is None:
            load.kill()
    there = await storage_of(joiner_url)
    await _evict(url, joiner)
    steps = read_steps(directory / "steps")
    took = result["took"]
    found = _Join(
        seconds,
        int(received),
        state,
        [each for due, each in took if begun_ms + _WARM_S * 1e3 <= due < spawned_ms],
        [each for due, each in took if spawned_ms <= due < ended_ms],
        result["answered"],
        readable,
        (
            max([cpu for at, _, cpu in steps if begun_ms + _WARM_S * 1e3 <= at < spawned_ms], default=0.0),
            max([cpu for at, _, cpu in steps if spawned_ms <= at < ended_ms], default=0.0),
        ),
        {
            "CPU-s of the sender meanwhile": round(cpu, 2),
            "of the joiner": round(joiner_cpu, 2),
            "state on disk there, bytes": there["state"]["bytes"],
            "log there, bytes": there["log"]["bytes"],
        },
    )
    shutil.rmtree(directory / joiner.name)
    return found


async def _joins(directory: Path, founder: Path, keys: int, runs: int) -> list[_Join]:
    command = [sys.executable, "-m", "benchmarks.watched", str(directory / "steps"), "node"]
    async with serving(founder, command, memory_bytes=4 << 30) as (url, sender, _):
        while (await storage_of(url))["state"]["resident_rows"] < keys:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        found = list[_Join]()
        for run in range(1, runs + 1):
            written = keys + sum(each.acknowledged for each in found)
            found.append(await _join(directory, founder, url, sender, keys, written, run))
        return found


def _measure(directory: Path, runs: int, keys: int) -> list[Figure]:
    founder = lay_out(directory, ["us"])
    with Inside(founder) as node:
        fill(node, keys, 1)
        node.checkpoint()
    found = asyncio.run(_joins(directory, founder, keys, runs))
    for each in found:
        assert each.acknowledged == each.readable, f"acknowledged {each.acknowledged}, readable there {each.readable}"
    shutil.rmtree(directory)
    of = f"{keys:,} keys and {RATE} writes/s"
    before = [percentile(each.before, 0.99) for each in found]
    during = [percentile(each.during, 0.99) for each in found]
    middle = sorted(found, key=lambda each: each.seconds)[len(found) // 2]
    notes = {
        **middle.notes,
        "acknowledged": middle.acknowledged,
        "readable at the joiner": middle.readable,
    }
    latencies = {
        "p99 before, ms": round(percentile(sorted(before), 0.5), 2),
        "during": round(percentile(sorted(during), 0.5), 2),
        "p50 before": round(percentile(middle.before, 0.5), 2),
        "p50 during": round(percentile(middle.during, 0.5), 2),
        "greatest before": round(max(middle.before), 1),
        "greatest during": round(max(middle.during), 1),
        "writes during": len(middle.during),
    }
    return [
        Figure(
            f"a node joins a cluster of {of}: until it is a member that serves, process start included",
            "s",
            [each.seconds for each in found],
            is_at_least=False,
            notes=notes,
        ),
        Figure("bytes that it received", "bytes", [float(each.received) for each in found], is_at_least=False),
        Figure(
            "of these for each byte of the sender's state on disk",
            "x",
            [each.received / each.state for each in found],
            is_at_least=False,
        ),
        Figure(
            "write latency p99 over HTTP at the sender meanwhile, over that before",
            "x",
            [after / earlier for after, earlier in zip(during, before, strict=True)],
            2,
            is_at_least=False,
            notes=latencies,
        ),
        Figure(
            "longest step of the sender meanwhile",
            "CPU-ms",
            [each.steps_ms[1] for each in found],
            10,
            is_at_least=False,
            notes={"longest before it": max(each.steps_ms[0] for each in found)},
        ),
    ]


def figures(runs: int, directory: Path, keys: int = KEYS) -> list[Figure]:
    """In a directory of its own, which must be on a real disk."""
    return _measure(directory / "joining", min(runs, 3), keys)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.joining", description="A small trial; prints only.")
    parser.add_argument("--keys", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--directory", type=Path, default=Path("build"))
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.directory.absolute(), prefix="bench-") as scratch:
        for figure in figures(arguments.runs, Path(scratch), arguments.keys):
            print(f"{figure.median:14,.3f} {figure.unit:7} {figure.name}: {figure.values} {figure.notes or ''}")
