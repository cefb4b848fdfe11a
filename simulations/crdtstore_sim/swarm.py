"""Swarm testing: each seed draws its own scenario, with some kinds of fault and without the others.

The question: why not all faults in every run? Because they hide each other: a network that loses everything never shows what reordering
does. A random subset of kinds, each at a random rate, finds more. Source: Groce et al., "Swarm Testing", ISSTA 2012.
"""

from __future__ import annotations

from itertools import combinations
from random import Random

from msgspec.structs import replace

from crdtstore.engine.options import Options
from crdtstore_sim.scenario import (
    Clocks,
    Crash,
    Cut,
    Disk,
    Latency,
    Network,
    Pause,
    Scenario,
    Step,
    Work,
    names,
)
from crdtstore_sim.timeline import Streams

__all__ = ["draw"]

_KINDS = (
    "loss",
    "duplicate",
    "reorder",
    "split",
    "one-way",
    "partial",
    "for good",
    "crash",
    "pause",
    "slow disk",
    "clocks",
)
_FIRST_S = 1.0
"""Before this no fault happens: the collections are declared."""


def draw(seed: int, mix: str = "basic") -> Scenario:
    """The scenario of a seed; ``mix``: what users work on."""
    drawn = _draw(seed)
    if mix == "basic":
        return drawn
    random = Streams(seed).stream("swarm of types")
    work = replace(
        drawn.work,
        mix=mix,
        writes_per_s=random.choice((30, 60, 60)),
        reads_per_s=random.choice((10, 20)),
        keys=random.choice((1, 1, 2, 3)),
        delete=random.choice((0.02, 0.05, 0.1)),
        expire=random.choice((0, 0.06, 0.15)),
        with_id=random.choice((0.2, 0.5, 0.9)),
        slowest_retry_s=random.choice((0.8, 0.8, 3.0)),
    )
    engine = replace(
        drawn.engine,
        fold_interval_ms=random.choice((20, 100, 1_000)),
        retry_window_ms=random.choice((1_000, 3_000, 86_400_000)),
    )
    sweep_above = random.choice((None, 3, 3, 10))
    return replace(drawn, work=work, engine=engine, sweep_above=sweep_above, seconds=min(drawn.seconds, 6.0))


def _draw(seed: int) -> Scenario:
    drawn = _with_restarts(_draw_faults(seed), Streams(seed).stream("swarm of restarts"))
    drawn = _with_store(drawn, Streams(seed).stream("swarm of stores"))
    return _with_shards(drawn, Streams(seed).stream("swarm of shards"))


def _with_shards(drawn: Scenario, random: Random) -> Scenario:
    """Now and then with several, of which replicas that declare by themselves may want different numbers."""
    if random.random() >= 0.25:
        return drawn
    shards, other = random.choice((2, 3, 5)), random.choice((0, 1, 2, 4))
    work = replace(drawn.work, shards=shards, other_shards=other if drawn.work.is_declared_everywhere else 0)
    return replace(drawn, work=work)


def _with_store(drawn: Scenario, random: Random) -> Scenario:
    """Often with so little memory that keys and history live on disk, and checkpoints in many small parts."""
    if random.random() < 0.3:
        return drawn
    options = replace(
        drawn.engine,
        checkpoint_ms=random.choice((100, 300, 1_000, 3_000)),
        checkpoint_bytes=random.choice((1_024, 4_096, 64 << 20)),
        checkpoint_rows=random.choice((1, 2, 5, 300)),
        memory_bytes=random.choice((1_024, 1_024, 4_096, 1 << 30)),
        history_bytes=random.choice((1_024, 4_096, 64 << 20)),
        retain_bytes=random.choice((1_024, 1_024, 16_384)),
        scrub_every_ms=random.choice((200, 1_000, 3_600_000)),
    )
    disk = drawn.disk
    if random.random() < 0.4:
        disk = replace(disk, save_fails=random.choice((0.01, 0.1, 0.3)), read_fails=random.choice((0, 0, 0.02, 0.2)))
    return replace(drawn, engine=options, disk=disk)


def _with_restarts(drawn: Scenario, random: Random) -> Scenario:
    """Some crashes are stops in order, and over some restarts a clock is set, mostly back and sometimes far.

    Only while the process is down: a node that runs waits a step back out (``WallClock``), and one that waited an hour would do nothing.
    """
    crashes = [replace(crash, is_orderly=random.random() < 0.3) for crash in drawn.crashes]
    steps = list(drawn.steps)
    for crash in crashes if drawn.steps or drawn.clocks.skew_ms > 20 else ():
        up_s = crash.at_s + crash.down_s
        others = [other for other in crashes if other is not crash and other.replica == crash.replica]
        is_down = up_s < drawn.seconds and not any(
            other.at_s < up_s and crash.at_s < other.at_s + other.down_s for other in others
        )
        at_s, ms = (
            random.uniform(crash.at_s, up_s),
            random.choice((-500, -2000, -2000, -60_000, -3_600_000, 700)),
        )
        if is_down and random.random() < 0.6:
            steps.append(Step(replica=crash.replica, at_s=at_s, ms=ms))
    return replace(drawn, crashes=crashes, steps=steps)


def _draw_faults(seed: int) -> Scenario:
    random = Streams(seed).stream("swarm")
    kinds = {kind for kind in _KINDS if random.random() < 0.45}
    count = random.choice((2, 3, 3, 3, 4, 4, 5))
    seconds = float(random.choice((4, 6, 6, 8, 10)))
    replicas = names(count)
    return Scenario(
        name="swarm",
        question=f"Faults: {', '.join(kind for kind in _KINDS if kind in kinds) or 'none'}.",
        replicas=count,
        seconds=seconds,
        settle_s=60,
        work=_work(random),
        network=_network(random, kinds),
        disk=_disk(random, kinds),
        clocks=Clocks(
            skew_ms=random.choice((0, 20, 400, 3000)) if "clocks" in kinds else 20,
            drift_ppm=random.choice((0, 200, 5000)) if "clocks" in kinds else 100,
        ),
        engine=_engine(random),
        cuts=_cuts(random, kinds, replicas, seconds),
        crashes=[
            Crash(replica=random.choice(replicas), at_s=_when(random, seconds), down_s=random.uniform(0.05, 3))
            for _ in range(random.randint(1, 6) if "crash" in kinds else 0)
        ],
        pauses=[
            Pause(replica=random.choice(replicas), at_s=_when(random, seconds), for_s=random.uniform(0.05, 2))
            for _ in range(random.randint(1, 4) if "pause" in kinds else 0)
        ],
        steps=[
            Step(
                replica=random.choice(replicas),
                at_s=_when(random, seconds),
                ms=random.randint(-2000, 2000),
            )
            for _ in range(random.randint(0, 3) if "clocks" in kinds else 0)
        ],
    )


def _when(random: Random, seconds: float) -> float:
    return random.uniform(_FIRST_S, seconds)


def _work(random: Random) -> Work:
    return Work(
        writes_per_s=random.choice((20, 60, 60, 120)),
        reads_per_s=random.choice((5, 20, 40)),
        sessions=random.choice((3, 8, 16)),
        domains=random.choice((1, 1, 1, 2)),
        keys=random.choice((1, 2, 3, 6)),
        delete=random.choice((0, 0.05, 0.15)),
        several=random.choice((0, 0.3, 0.6)),
        roam=random.choice((0, 0.2, 0.6)),
        with_id=random.choice((0, 0.4, 0.9)),
        retry=random.choice((0.1, 0.3, 0.6)),
        is_declared_everywhere=random.random() < 0.3,
    )


def _network(random: Random, kinds: set[str]) -> Network:
    kind = random.choice(("constant", "uniform", "lognormal"))
    return Network(
        latency=Latency(kind=kind, ms=random.choice((1.0, 10.0, 40.0, 120.0)), sigma=random.choice((0.2, 0.6))),  # type: ignore[arg-type]
        loss=random.choice((0.01, 0.1, 0.3)) if "loss" in kinds else 0,
        duplicate=random.choice((0.01, 0.1, 0.3)) if "duplicate" in kinds else 0,
        reorder=random.choice((0.02, 0.2, 0.5)) if "reorder" in kinds else 0,
        detection_s=random.choice((0.5, 2.0, 5.0)),
    )


def _disk(random: Random, kinds: set[str]) -> Disk:
    if "slow disk" not in kinds:
        return Disk()
    return Disk(
        sync_ms=random.choice((0.1, 5.0)),
        slowest_ms=random.choice((10.0, 60.0)),
        stalls=random.choice((0.0, 0.001, 0.01)) if random.random() < 0.5 else 0.0,
    )


def _engine(random: Random) -> Options:
    """Small limits now and then, so that limits are met."""
    if random.random() < 0.6:
        return Options(gossip_interval_ms=random.choice((50, 200)))
    return Options(
        gossip_interval_ms=random.choice((50, 200)),
        ack_delay_ms=random.choice((0, 5, 50)),
        ack_timeout_ms=random.choice((500, 3000)),
        relay_after_ms=random.choice((100, 600)),
        frame_bytes=random.choice((1024, 4096, 256 << 10)),
        window_bytes=random.choice((4096, 16384, 4 << 20)),
        early_bytes=random.choice((1024, 8192, 32 << 20)),
        max_waiting=random.choice((2, 10_000)),
    )


def _cuts(random: Random, kinds: set[str], replicas: list[str], seconds: float) -> list[Cut]:
    cuts = []
    for kind in ("split", "one-way", "partial"):
        for _ in range(random.randint(1, 3) if kind in kinds else 0):
            from_s = _when(random, seconds)
            to_s = min(seconds, from_s + random.choice((0.2, 1.0, 3.0, 8.0)))
            if kind == "split":
                mixed = random.sample(replicas, len(replicas))
                at = random.randint(1, len(mixed) - 1)
                cuts.append(Cut(from_s=from_s, to_s=to_s, groups=f"{''.join(mixed[:at])}|{''.join(mixed[at:])}"))
            else:
                a, b = random.sample(replicas, 2)
                cuts.append(Cut(from_s=from_s, to_s=to_s, links=[f"{a}{'>' if kind == 'one-way' else '-'}{b}"]))
    if "for good" in kinds and len(replicas) > 2:
        cuts.append(Cut(from_s=_when(random, seconds), links=_spare_links(random, replicas)))
    return cuts


def _spare_links(random: Random, replicas: list[str]) -> list[str]:
    """Links that may stay cut for good: a random tree of the others keeps everybody connected."""
    mixed = random.sample(replicas, len(replicas))
    tree = {frozenset((node, random.choice(mixed[:at]))) for at, node in enumerate(mixed) if at}
    spare = [f"{a}-{b}" for a, b in combinations(replicas, 2) if frozenset((a, b)) not in tree]
    return random.sample(spare, random.randint(1, len(spare)))
