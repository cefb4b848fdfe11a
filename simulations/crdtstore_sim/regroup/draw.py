"""The scenario of a seed, where members change: a few kinds of trouble, each at its own rate, on few machines.

The question: what keeps such runs short? Few keys, little work and one trouble after the other: what goes wrong with members goes wrong
between two messages, not after a thousand commits.
"""

from __future__ import annotations

from random import Random
from typing import get_args

from crdtstore.engine.options import Options
from crdtstore_sim.scenario import Clocks, Disk, Latency, Members, Network, Scenario, Trouble, Work
from crdtstore_sim.timeline import Streams

__all__ = ["NAME", "draw_members"]

NAME = "members"
"""What such scenarios are called; it stands in the command that repeats a run."""
_RARE: dict[str, float] = {"force": 0.12, "clone": 0.25, "leave": 0.35, "join": 0.6, "evict": 0.6, "split": 0.55}
"""How likely a kind is to be in a run; the others are with 0.35."""


def draw_members(seed: int) -> Scenario:
    random = Streams(seed).stream("swarm of members")
    kinds: list[Trouble] = [kind for kind in get_args(Trouble) if random.random() < _RARE.get(kind, 0.35)]
    return Scenario(
        name=NAME,
        question=f"Members change, with: {', '.join(kinds) or 'nothing else'}.",
        replicas=random.choice((2, 3, 3, 3, 4, 4, 5)),
        seconds=float(random.choice((4, 6, 8))),
        settle_s=60,
        work=Work(
            writes_per_s=random.choice((10, 20, 30)),
            reads_per_s=random.choice((2, 6)),
            sessions=random.choice((3, 6)),
            keys=random.choice((1, 2, 3)),
            delete=random.choice((0.05, 0.15)),
            several=0.2,
            roam=random.choice((0.1, 0.5)),
            with_id=random.choice((0, 0.4)),
            types=["counter", "aw_set", "lww_register"],
            shards=_shards(Streams(seed).stream("swarm of shards")),
        ),
        network=_network(random),
        disk=Disk(sync_ms=random.choice((0.2, 5.0)), slowest_ms=random.choice((6.0, 40.0))),
        clocks=Clocks(skew_ms=random.choice((0, 20, 400)), drift_ppm=100),
        engine=_engine(random),
        members=Members(
            kinds=kinds,
            every_s=random.choice((0.15, 0.3, 0.6)),
            newcomers=random.choice((0, 1, 2)) if "join" in kinds else 0,
        ),
    )


def _shards(random: Random) -> int:
    return random.choice((2, 3)) if random.random() < 0.25 else 1


def _network(random: Random) -> Network:
    return Network(
        latency=Latency(kind=random.choice(("constant", "uniform")), ms=random.choice((2.0, 10.0, 40.0))),
        loss=random.choice((0, 0, 0.05, 0.2)),
        duplicate=random.choice((0, 0, 0.05)),
        reorder=random.choice((0, 0, 0.2)),
        detection_s=random.choice((0.5, 1.0)),
    )


def _engine(random: Random) -> Options:
    """Small stores that are written all the time, so that an install takes many parts."""
    return Options(
        gossip_interval_ms=random.choice((50, 100, 200)),
        frame_bytes=random.choice((1024, 4096, 256 << 10)),
        early_bytes=random.choice((1024, 32 << 20)),
        checkpoint_ms=random.choice((100, 300, 1_000)),
        checkpoint_bytes=random.choice((1_024, 64 << 20)),
        checkpoint_rows=random.choice((1, 5, 300)),
        memory_bytes=random.choice((1_024, 1 << 30)),
        history_bytes=random.choice((1_024, 64 << 20)),
        retain_bytes=random.choice((1_024, 16_384)),
    )
