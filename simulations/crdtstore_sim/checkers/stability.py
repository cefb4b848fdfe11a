"""Stability (law L7): every commit applied at i has seen all that i takes for stable, and what is folded shows in no reading.

The question: when does a wrong stable vector do harm? Long after it was wrong, if ever: only when a drop meets what was folded too
early. So it is held against the truth the moment it moves: all members have what it names, on disk, and every commit that is not here
yet, wherever it is just now, has seen it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import lt
from typing import Any

from crdtstore.engine.engine import Engine
from crdtstore.types import REGISTRY
from crdtstore_sim.facts import Facts, Group, shown
from crdtstore_sim.models import canonical
from crdtstore_sim.reader import Record

__all__ = ["Stability"]

_ALL = 1_000_000


class Stability:
    """Mutable: what each node took for stable after its last step."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._stable: dict[tuple[str, int], list[int]] = {}

    def on_commit(self, group: Group, node: int, record: Record) -> None:
        """Before a commit counts as applied at a node: the law itself."""
        stable = self._stable.get((group.name, node))
        if stable is not None and any(map(lt, record.deps, stable)):
            self._late(group, node, record, stable)

    def on_made(self, group: Group, record: Record) -> None:
        """A new commit is on its way to everybody."""
        for node in range(len(self._facts.members)):
            stable = self._stable.get((group.name, node))
            if node != record.origin and stable is not None and any(map(lt, record.deps, stable)):
                self._late(group, node, record, stable)

    def on_step(self, group: Group, node: int, engine: Engine) -> None:
        """After a step: did the stable vector move?"""
        stable = engine.stability.stable
        before = self._stable.get((group.name, node))
        if stable == before:
            return
        self._stable[group.name, node] = list(stable)
        if before is not None and any(map(lt, stable, before)):
            self._report(group, node, f"took {before} for stable, now only {stable}")
        for member, durable in enumerate(group.durable):
            if any(map(lt, durable, stable)):
                self._report(
                    group, node, f"takes {stable} for stable, {self._facts.members[member]} has {durable} on disk"
                )
        for origin, records in enumerate(group.records):  # deps of an origin only grow, so the first is enough
            at = group.applied[node][origin]
            if at < len(records) and any(map(lt, records[at].deps, stable)):
                self._late(group, node, records[at], stable)

    def on_fold(self, group: Group, node: int, engine: Engine, at: tuple[str, str] | None) -> None:
        """Fold now, whatever is due: digest and reading stay, at any instant."""
        keyspace = engine.keyspace
        if not keyspace.tree.is_settled:
            return
        instants: list[int | None] = [None]
        if at is not None:
            instants += sorted(set(group.keys[at].there(group.applied[node]).due_times()))[:4]
        digest, before = engine.digest, [self._reading(group, engine, at, now_ms) for now_ms in instants]
        keyspace.tree.fold(engine.stability.stable, _ALL)
        after = [self._reading(group, engine, at, now_ms) for now_ms in instants]
        anew = keyspace.tree.share([])
        if engine.digest != digest or anew != digest:
            self._report(
                group,
                node,
                f"folds, and the digest {digest:032x} becomes {engine.digest:032x}, that of its state {anew:032x}",
            )
        for now_ms, one, other in zip(instants, before, after, strict=True):
            if canonical(one) != canonical(other):
                when = "" if now_ms is None else f", at {now_ms},"
                self._report(group, node, f"folds, and {at}{when} reads {shown(other)} in the place of {shown(one)}")

    def _reading(self, group: Group, engine: Engine, at: tuple[str, str] | None, now_ms: int | None) -> Any:
        if at is None:
            return None
        view = engine.keyspace.view(*at, now_ms, self._facts.options.get(at[0], {}))
        return [REGISTRY[at[0].partition(":")[2]].read(view), view.exists]

    def _behind(self, wanted: Mapping[str, Sequence[int]]) -> list[tuple[str, int]]:
        nothing = [0] * len(self._facts.members)
        return [
            (name, node)
            for name, vector in wanted.items()
            for node in range(len(self._facts.members))
            if any(map(lt, self._stable.get((name, node), nothing), vector))
        ]

    def has_reached(self, wanted: Mapping[str, Sequence[int]]) -> bool:
        """Whether all that everybody has is known to be stable everywhere; ``wanted``: per group a vector."""
        return not self._behind(wanted)

    def on_late(self, wanted: Mapping[str, Sequence[int]], bound_s: float) -> None:
        """The bound is reached: who does not know yet that everybody has everything?"""
        for name, node in self._behind(wanted):
            stable = self._stable.get((name, node))
            self._report(
                self._facts.groups[name],
                node,
                f"still takes only {stable} for stable, {bound_s:g} s after everybody had {list(wanted[name])}",
            )

    def forget(self, node: int) -> None:
        """A node lost its memory."""
        for name in self._facts.groups:
            self._stable.pop((name, node), None)

    def _late(self, group: Group, node: int, record: Record, stable: Sequence[int]) -> None:
        self._report(
            group,
            node,
            f"takes {list(stable)} for stable, {self._facts.members[record.origin]}:{record.seq}, which is not there yet, "
            f"has seen {list(record.deps)}",
        )

    def _report(self, group: Group, node: int, detail: str) -> None:
        self._facts.report("stability", f"{group.name}: {self._facts.members[node]} {detail}")
