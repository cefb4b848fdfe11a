"""A region that comes back: how long until it has what it missed, what goes over the wire for it, and what both sides hold meanwhile.

Real nodes. One was cut off while the two others were written to, and its process went on; or it was stopped, and starts again. In both
cases it has missed 100,000 commits of two origins, which depend on each other. Bytes are counted by the peer itself and cover all that was
said to it, hellos and digests included; what they are held against are the bytes of the commits as they stand in the log.

Then a million commits that were made without the peer stream to it. What a process takes at most is read from ``VmHWM``, which is reset
before.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cluster import REGIONS, _call, _cpu_seconds, _declare, _load, _metric, _settle
from benchmarks.figures import Figure
from benchmarks.filling import Inside, adds
from crdtstore.testing.processes import LocalCluster

__all__ = ["figures"]

MISSED = 100_000
MANY = 1_000_000
MANY_MIB = 256
"""Beside a million commits: what of them is kept in memory for peers (64 MiB), and the state that they lead to."""
KEYS = 1_000
PEER = "ap"
_BATCH = 256
_LOOK_S = 0.02
_MOST_S = 300.0


@dataclass(frozen=True)
class _Heal:
    """One time that a peer came back."""

    seconds: float
    """From when the cut ended, or the process was started, until it had everything."""
    connecting: float
    """Of these, until a connection stood again, or the node served."""
    commits: int
    commit_bytes: int
    wire_bytes: int
    twice: int
    sender_cpu: float
    receiver_cpu: float


async def _vector(url: str) -> dict[str, int]:
    status = await asyncio.to_thread(_call, url, "GET", "/v1/status")
    return next((group["vector"] for group in status["groups"] if group["domain"] == "bench"), {})


async def _until(has_come: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + _MOST_S
    while not await has_come():
        assert time.monotonic() < deadline, f"it did not come within {_MOST_S} s"
        await asyncio.sleep(_LOOK_S)


async def _metrics(url: str, *names: str) -> list[float]:
    return [await asyncio.to_thread(_metric, url, name) for name in names]


_COUNTED = (
    "crdtstore_commits_received_total",
    "crdtstore_commits_received_bytes_total",
    "crdtstore_commits_received_twice_total",
    "crdtstore_gossip_received_bytes_total",
)


async def _catch_up(
    cluster: LocalCluster, senders: list[str], receiver: str, begin: Callable[[], Awaitable[None]], *, is_new: bool
) -> _Heal:
    """Let a peer come back; ``is_new``: by a process that was not there before, all of whose counters begin with it."""
    wanted = await _vector(cluster.url(senders[0]))
    pids = [pid for sender in senders if (pid := cluster.node(sender).pid) is not None]
    counted = [0.0] * len(_COUNTED) if is_new else await _metrics(cluster.url(receiver), *_COUNTED)
    pid = cluster.node(receiver).pid
    receiver_cpu = 0.0 if is_new or pid is None else _cpu_seconds(pid)
    sender_cpu = sum(map(_cpu_seconds, pids))
    has = {} if is_new else await _vector(cluster.url(receiver))
    at = time.perf_counter()
    await begin()
    connected = time.perf_counter() if is_new else 0.0
    url = cluster.url(receiver)

    async def has_all() -> bool:
        nonlocal connected
        vector = await _vector(url)
        if not connected and vector != has:
            connected = time.perf_counter()
        return vector == wanted

    await _until(has_all)
    seconds = time.perf_counter() - at
    pid = cluster.node(receiver).pid
    assert pid is not None
    received = [int(now - before) for now, before in zip(await _metrics(url, *_COUNTED), counted, strict=True)]
    return _Heal(
        seconds,
        connected - at,
        received[0],
        received[1],
        received[3],
        received[2],
        sum(map(_cpu_seconds, pids)) - sender_cpu,
        _cpu_seconds(pid) - receiver_cpu,
    )


async def _miss(cluster: LocalCluster) -> None:
    """Write to the two others until that many commits are there that the peer has not."""
    others = [region for region in REGIONS if region != PEER]
    made = 0
    while made < MISSED:
        made += sum(result["acknowledged"] for result in await asyncio.gather(*map(_load, map(cluster.url, others))))

    async def are_even() -> bool:
        first, second = [await _vector(cluster.url(region)) for region in others]
        return first == second

    await _until(are_even)


async def _heals(directory: Path, runs: int, *, is_stopped: bool) -> list[_Heal]:
    found = []
    async with LocalCluster(directory, REGIONS) as cluster:
        await asyncio.to_thread(_declare, cluster.url("us"))
        await _settle(cluster)

        async def heal() -> None:
            cluster.heal()

        async def start() -> None:
            await cluster.start(PEER)

        for _ in range(runs):
            if is_stopped:
                await cluster.stop(PEER)
            else:
                cluster.partition(PEER)
            await _miss(cluster)
            begin = start if is_stopped else heal
            found.append(await _catch_up(cluster, ["us", "eu"], PEER, begin, is_new=is_stopped))
            await _settle(cluster)
    return found


def _per_commit_us(heals: list[_Heal], of: Callable[[_Heal], float]) -> list[float]:
    return [1e6 * of(heal) / heal.commits for heal in heals]


def _figures_of(heals: list[_Heal], how: str, *, is_start: bool) -> list[Figure]:
    connecting = round(max(heal.connecting for heal in heals), 2)
    notes = {
        "missed": min(heal.commits - heal.twice for heal in heals),
        "s until it served, before that" if is_start else "of these s until the first commits": connecting,
        "bytes of a commit": round(sum(heal.commit_bytes for heal in heals) / sum(heal.commits for heal in heals)),
        "received twice": sum(heal.twice for heal in heals),
    }
    name = f"{MISSED:,} commits missed by a peer that {how}"
    bytes_share = [heal.wire_bytes * heal.commits / heal.commit_bytes / (heal.commits - heal.twice) for heal in heals]
    # What a process needs to start is a figure of its own; to find each other again is a part of healing.
    took = [heal.seconds - (heal.connecting if is_start else 0) for heal in heals]
    return [
        Figure(f"{name}: until it has them", "s", took, 2, is_at_least=False, notes=notes),
        Figure(f"{name}: received, over the bytes of what it missed", "x", bytes_share, 1.2, is_at_least=False),
        Figure(f"{name}: CPU of both senders", "us a commit", _per_commit_us(heals, lambda heal: heal.sender_cpu)),
        Figure(f"{name}: CPU of the receiver", "us a commit", _per_commit_us(heals, lambda heal: heal.receiver_cpu)),
    ]


# --- a million


async def _many(directory: Path, commits: int) -> tuple[_Heal, list[int]]:
    """All that one side has made without the other streams to it; by how much both grew meanwhile, sender first (bytes)."""
    regions = ["us", "eu"]
    async with LocalCluster(directory, regions) as cluster:
        await asyncio.to_thread(_declare, cluster.url("us"))

        async def is_declared() -> bool:
            return bool(await _vector(cluster.url("eu")))

        await _until(is_declared)
        config = cluster.config_path("us")
        await cluster.stop("us")
        cluster.partition("eu")
        await asyncio.to_thread(_fill, config, commits)
        await cluster.start("us")  # nobody contradicts: it goes on under its id
        pids = [pid for region in regions if (pid := cluster.node(region).pid) is not None]
        before = [_memory_bytes(pid, "VmRSS") for pid in pids]
        for pid in pids:
            _reset_peak(pid)

        async def heal() -> None:
            cluster.heal()

        found = await _catch_up(cluster, ["us"], "eu", heal, is_new=False)
        return found, [_memory_bytes(pid, "VmHWM") - was for pid, was in zip(pids, before, strict=True)]


def _fill(config: Path, commits: int) -> None:
    """Commits of one add each, to a thousand counters over and over."""
    with Inside(config) as node:
        wake_ms = 0
        for first in range(0, commits, _BATCH):
            node.write([adds((at % KEYS,)) for at in range(first, min(first + _BATCH, commits))])
            if node.now_ms >= wake_ms:
                wake_ms = node.tick()
            while node.saves:
                node.save()


def _memory_bytes(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise LookupError(name)


def _reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _figures_of_many(heal: _Heal, growth: list[int], commits: int) -> list[Figure]:
    name = f"{commits:,} missed commits"
    mib = [each / (1 << 20) for each in growth]
    notes = {"s": round(heal.seconds, 1), "received twice": heal.twice, "MiB of commits": heal.commit_bytes >> 20}
    return [
        Figure(f"{name}: greatest growth of the sender", "MiB", mib[:1], MANY_MIB, is_at_least=False, notes=notes),
        Figure(f"{name}: greatest growth of the receiver", "MiB", mib[1:], MANY_MIB, is_at_least=False),
        Figure(
            f"{name}: received, over their bytes", "x", [heal.wire_bytes / heal.commit_bytes], 1.2, is_at_least=False
        ),
        Figure(f"{name}: CPU of the sender", "us a commit", [1e6 * heal.sender_cpu / heal.commits]),
        Figure(f"{name}: CPU of the receiver", "us a commit", [1e6 * heal.receiver_cpu / heal.commits]),
    ]


def figures(runs: int, directory: Path, only: str = "", commits: int = MANY) -> list[Figure]:
    """The figures of peers that come back, below ``directory``, which must be on a real disk."""
    found: list[Figure] = []
    if only in ("", "cut"):
        found += _figures_of(
            asyncio.run(_heals(directory / "cut", runs, is_stopped=False)), "was cut off", is_start=False
        )
    if only in ("", "stopped"):
        found += _figures_of(
            asyncio.run(_heals(directory / "stopped", runs, is_stopped=True)), "was stopped", is_start=True
        )
    if only in ("", "many"):
        found += _figures_of_many(*asyncio.run(_many(directory / "many", commits)), commits)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.heal", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=Path(__file__).parents[1] / "build")
    parser.add_argument("--only", choices=["cut", "stopped", "many"], default="")
    parser.add_argument("--commits", type=int, default=MANY)
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="heal-") as scratch:
        for figure in figures(arguments.runs, Path(scratch), arguments.only, arguments.commits):
            values = ", ".join(f"{value:.3g}" for value in figure.values)
            print(f"{figure.name}: {values} {figure.unit} (target {figure.target}) {figure.notes or ''}", flush=True)


if __name__ == "__main__":
    main()
