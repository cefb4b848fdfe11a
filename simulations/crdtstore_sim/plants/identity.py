"""Bugs in who is who: what peers remember, what joiners take over, what a fenced id may still do, and what is left of it."""

from __future__ import annotations

from typing import Any

from crdtstore.admin.orphaned import Orphaned
from crdtstore.engine.engine import Engine
from crdtstore.engine.events import LocalCommit
from crdtstore.engine.membership.claims import Claims
from crdtstore.engine.membership.membership import Membership
from crdtstore.engine.membership.notes import Voted
from crdtstore.install import arrival, lending
from crdtstore.install.installs import Installs
from crdtstore_sim.plants.base import Plant
from crdtstore_sim.plants.where import busy, often

__all__ = ["IN_IDENTITY"]


# --- who has forgotten


def _nothing_forgotten(check: Any) -> Any:
    """Nobody listens to what peers remember."""
    return lambda self, peer, standing: None


def _own_commits(forgotten: Any) -> Any:
    """A peer that remembers more of others' commits, or of votes, is not listened to."""

    def own(self: Claims, standing: Any) -> str | None:
        made = self._engine.applied[self._engine.me]
        return f"has {standing.has} commits of it, it has made {made}" if standing.has > made else None

    return own


def _speaks_on(step: Any) -> Any:
    """A fenced replica takes no writes, and goes on with everything else."""

    def half(self: Engine, event: Any, now_ms: int) -> Any:
        why = self.fenced_by
        if why is None or isinstance(event, LocalCommit):
            return step(self, event, now_ms)
        self.fenced_by = None
        out = step(self, event, now_ms)
        self.fenced_by = why
        return out

    return half


def _before_durable(write: Any) -> Any:
    """What was voted is said before it is on disk."""

    def early(self: Membership, note: Any, out: Any, then: Any) -> None:
        if not isinstance(note, Voted):
            write(self, note, out, then)
            return
        write(self, note, out, lambda now_ms, out: None)
        then(0, out)

    return early


# --- what a joiner takes over


def _any_snapshot(fits: Any) -> Any:
    return lambda saved, joiner, finals: True


def _unchecked(check_head: Any) -> Any:
    return lambda *rest: None


def _own_clock(landed: Any) -> Any:
    """A joiner's stamps begin at its own clock."""

    def forget(self: Installs, engine: Engine, *rest: Any) -> None:
        engine.clock.last = 0
        landed(self, engine, *rest)

    return forget


# --- what is left


def _one_more(final: Any) -> Any:
    """Of a removed id one commit more counts than does."""

    def more(self: Orphaned, engine: Any, replica: str) -> int | None:
        settled = final(self, engine, replica)
        return None if settled is None else settled + 1

    return more


IN_IDENTITY: dict[str, Plant] = {
    "hello-not-heard": Plant(
        Claims, "check", _nothing_forgotten, "nobody listens to what peers remember", often("roll back", "split")
    ),
    "hello-by-own-entry": Plant(
        Claims,
        "_forgotten",
        _own_commits,
        "a peer that remembers votes, or commits of others, is not listened to",
        often("half forgotten", "roll back", "evict", "split"),
    ),
    "snapshot-of-before": Plant(
        lending,
        "fits",
        _any_snapshot,
        "a joiner takes a snapshot that was begun before it was named",
        busy("join", "copy seen", engine={"checkpoint_ms": 2_000, "gossip_interval_ms": 50}),
        ((arrival, "check_head", _unchecked),),
        first=40,
    ),
    "joiner-by-own-clock": Plant(
        Installs,
        "landed",
        _own_clock,
        "a joiner's stamps begin at its own clock",
        often("join", "copy seen", clocks={"skew_ms": 3_000}),
    ),
    "fenced-speaks": Plant(
        Engine,
        "step",
        _speaks_on,
        "a fenced replica goes on to say what it has, and to vote",
        often("clone", "split"),
        first=70,
    ),
    "votes-before-durable": Plant(
        Membership,
        "write",
        _before_durable,
        "what was voted is said before it is on disk",
        often("die proposing", "evict", "split", disk={"sync_ms": 20.0, "slowest_ms": 60.0}),
    ),
    "orphans-miscounted": Plant(
        Orphaned, "_final", _one_more, "of a removed id one commit more counts", often("copy seen", "split", "evict")
    ),
}
