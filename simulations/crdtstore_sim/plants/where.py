"""Where bugs in members and identity are looked for: scenarios with the trouble that shows them, often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace as altered

from crdtstore_sim.regroup.draw import draw_members
from crdtstore_sim.scenario import Latency, Scenario, Trouble

__all__ = ["CHANGES", "busy", "late", "often"]


def often(*kinds: Trouble, **changes: Any) -> Callable[[int], Scenario]:
    """The scenario of a seed with these kinds of trouble, often."""

    def drawn(seed: int) -> Scenario:
        scenario = draw_members(seed)
        members = scenario.members
        assert members is not None
        newcomers = max(1, members.newcomers) if "join" in kinds else 0
        members = altered(members, kinds=list(kinds), every_s=0.2, newcomers=newcomers)
        scenario = altered(scenario, members=members, replicas=max(3, scenario.replicas))
        for part, fields in changes.items():
            now = getattr(scenario, part)
            scenario = altered(scenario, **{part: altered(now, **fields) if isinstance(fields, dict) else fields})
        return scenario

    return drawn


CHANGES: tuple[Trouble, ...] = ("split", "crash", "join", "evict", "leave")


def busy(*kinds: Trouble, **changes: Any) -> Callable[[int], Scenario]:
    """The same, with much to write, and messages that are long under way and overtake each other."""
    network = {"latency": Latency(kind="uniform", ms=40.0), "reorder": 0.3, "loss": 0.1}
    work = {"writes_per_s": 90.0, "sessions": 12, "roam": 0.5, "with_id": 0.0}
    return often(*kinds, network=network, work=work, **changes)


def late(seed: int) -> Scenario:
    """What is lost comes again late, so that much waits for what it depends on; and members are thrown out all the time."""
    engine = {
        "gossip_interval_ms": 50,
        "relay_after_ms": 2_000,
        "ack_timeout_ms": 3_000,
        "resend_after_ms": 1_000,
        "early_bytes": 32 << 20,
        "memory_bytes": 1 << 30,
        "checkpoint_ms": 1_000,
    }
    scenario = busy("split", "evict", engine=engine)(seed)
    assert scenario.members is not None
    return altered(
        scenario,
        replicas=4,
        seconds=8.0,
        members=altered(scenario.members, every_s=0.12),
        network=altered(scenario.network, loss=0.35, reorder=0.0),
        work=altered(scenario.work, writes_per_s=150.0, sessions=16, reads_per_s=1.0),
    )
