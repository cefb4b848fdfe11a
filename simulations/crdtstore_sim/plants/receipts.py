"""Bugs in write receipts: a region is named that does not have the commit, or nobody waits for it."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace as altered

from crdtstore.engine.engine import Engine
from crdtstore.receipts import Receipts
from crdtstore_sim.plants.base import Plant
from crdtstore_sim.scenario import Scenario
from crdtstore_sim.swarm import draw

__all__ = ["IN_RECEIPTS"]


def _when_sent(reached: Any) -> Any:
    """Whoever was sent a commit counts as having it."""

    def sent(self: Receipts, engine: Engine, origin: int) -> dict[str, int]:
        found: dict[str, int] = reached(self, engine, origin)
        if origin == engine.me:
            for member in engine.configuration.members:
                progress = engine.antientropy.peers.get(engine.replicas.index(member.replica))
                if progress is not None:
                    found[member.region] = max(found[member.region], progress.sent)
        return found

    return sent


def _when_applied(own_row: Any) -> Any:
    """Acknowledgements count what is applied and not durable yet, with its true hashes."""

    def applied(self: Engine, now_ms: int) -> Any:
        row = own_row(self, now_ms)
        chains = [self.history.chain(origin, seq) for origin, seq in enumerate(self.applied)]
        return altered(row, vector=list(self.applied), chains=chains)

    return applied


def _of_anybody(reached: Any) -> Any:
    """What one region has counts for all."""

    def most(self: Receipts, engine: Engine, origin: int) -> dict[str, int]:
        found: dict[str, int] = reached(self, engine, origin)
        return dict.fromkeys(found, max(found.values(), default=0))

    return most


def _one_less(wait: Any) -> Any:
    """One region fewer is waited for."""

    def less(self: Receipts, engine: Any, committed: Any, wanted: int, deadline_ms: int, body: Any) -> None:
        wait(self, engine, committed, max(1, wanted - 1), deadline_ms, body)

    return less


def _waiting(seed: int) -> Scenario:
    """The scenario of a seed, in which every second commit waits for other regions."""
    scenario = draw(seed)
    return altered(scenario, work=altered(scenario.work, receipts=0.5), replicas=max(3, scenario.replicas))


IN_RECEIPTS: dict[str, Plant] = {
    "receipt-when-sent": Plant(
        Receipts, "_reached", _when_sent, "whoever was sent a commit counts as having it", _waiting
    ),
    "receipt-when-applied": Plant(
        Engine, "own_row", _when_applied, "rows count what is applied and not durable yet", _waiting
    ),
    "receipt-of-anybody": Plant(Receipts, "_reached", _of_anybody, "what one region has counts for all", _waiting),
    "receipt-of-fewer": Plant(Receipts, "wait", _one_less, "one region fewer is waited for", _waiting),
}
