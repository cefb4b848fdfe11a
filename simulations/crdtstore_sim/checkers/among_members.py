"""The laws of stability, stamps and stores, where members change: whose word counts is a matter of the configuration.

The question: who must have what a node takes for stable? Every member of the node's own configuration that holds the state. One that joins
takes over a state which has it; one that was removed, or whose disk is not what it was, is nobody's business any more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from operator import lt

from crdtstore.commit import head_of
from crdtstore.engine.checkpoint import Saved
from crdtstore.engine.engine import Engine
from crdtstore.storage.memory import MemoryLog
from crdtstore.storage.protocol import StateStore
from crdtstore_sim.checkers.receipts import Receipts
from crdtstore_sim.checkers.stability import Stability
from crdtstore_sim.checkers.stamps import Stamps
from crdtstore_sim.checkers.stores import Stores
from crdtstore_sim.facts import Facts, Group
from crdtstore_sim.reader import Record

__all__ = ["ReceiptsAmongMembers", "StabilityAmongMembers", "StampsAmongMembers", "StoresAmongMembers"]

Judged = Callable[[int, str], Collection[int]]
"""By node and group: the lives that belong to its configuration, hold the state and have forgotten nothing."""


class ReceiptsAmongMembers(Receipts):
    """A region is its members in the configuration of the node that answers; none of them may have forgotten anything."""

    def __init__(self, facts: Facts, judged: Judged, members: Callable[[int, str], Collection[int]]) -> None:
        """``members``: by node and group, the lives that belong to its configuration."""
        super().__init__(facts)
        self._judged, self._members = judged, members

    def _in_region(self, group: Group, node: int, region: str) -> list[int] | None:
        if region == self._facts.regions[node]:
            return [node]
        judged = self._judged(node, group.name)
        there = [life for life in self._members(node, group.name) if self._facts.regions[life] == region]
        return there if there == [] or all(life in judged for life in there) else None


class StabilityAmongMembers(Stability):
    """Mutable: what each node took for stable after its last step, in the order of lives, and until which stamp it had heard all."""

    def __init__(self, facts: Facts, judged: Judged) -> None:
        super().__init__(facts)
        self._judged = judged
        self._raw: dict[tuple[str, int], tuple[list[int], list[int]]] = {}
        self._frontier: dict[tuple[str, int], int] = {}

    def on_commit(self, group: Group, node: int, record: Record) -> None:
        super().on_commit(group, node, record)
        frontier = self._frontier.get((group.name, node), 0)
        if record.origin != node and record.hlc <= frontier:
            maker = self._facts.members[record.origin]
            self._report(group, node, f"had heard everything up to {frontier}, {maker}:{record.seq} is of {record.hlc}")

    def on_made(self, group: Group, record: Record) -> None:
        for (name, node), stable in self._stable.items():
            if name != group.name or node == record.origin or not any(map(lt, record.deps, stable)):
                continue
            if record.origin in self._judged(node, name):
                self._late(group, node, record, stable)

    def on_stepped(self, group: Group, node: int, engine: Engine, order: Sequence[int]) -> None:
        """After a step: did the stable vector move, or the stamps? ``order``: the lives of the engine's entries."""
        at, stability = (group.name, node), engine.stability
        self._frontier[at] = max(self._frontier.get(at, 0), stability.frontier_hlc(engine.clock.last))
        known = self._raw.get(at)
        if known is not None and known[0] is stability.stable and known[1] == stability.stable:
            return
        self._raw[at] = stability.stable, list(stability.stable)
        stable = [0] * len(self._facts.members)
        for life, seq in zip(order, stability.stable, strict=True):
            stable[life] = seq
        before = self._stable.get(at)
        if stable == before:
            return
        self._stable[at] = stable
        if before is not None and any(map(lt, stable, before)):
            self._report(group, node, f"took {before} for stable, now only {stable}")
        for member in self._judged(node, group.name):
            durable = group.durable[member]
            if any(map(lt, durable, stable)):
                self._report(
                    group, node, f"takes {stable} for stable, {self._facts.members[member]} has {durable} on disk"
                )
            records, have = group.records[member], group.applied[node][member]
            if have < len(records) and any(map(lt, records[have].deps, stable)):
                self._late(group, node, records[have], stable)

    def stable(self, node: int, group: str) -> Sequence[int]:
        return self._stable.get((group, node), [0] * len(self._facts.members))

    def on_unstable(self, wanted: Mapping[str, Sequence[int]], nodes: Collection[int], bound_s: float) -> None:
        """The bound is reached: who of these does not know yet that everybody has everything?"""
        for name, vector in wanted.items():
            for node in nodes:
                if any(map(lt, self.stable(node, name), vector)):
                    said = f"still takes only {list(self.stable(node, name))} for stable"
                    group = self._facts.groups[name]
                    self._report(group, node, f"{said}, {bound_s:g} s after everybody had {list(vector)}")

    def forget(self, node: int) -> None:
        super().forget(node)
        for name in self._facts.groups:
            self._raw.pop((name, node), None)
            self._frontier.pop((name, node), None)


class StampsAmongMembers(Stamps):
    """A read is as stale as what it lacks of members."""

    def __init__(self, facts: Facts, judged: Judged) -> None:
        super().__init__(facts)
        self._judged = judged

    def counts(self, group: Group, node: int, origin: int) -> bool:
        return origin in self._judged(node, group.name)


class StoresAmongMembers(Stores):
    """Vectors on disk are in the order of the replicas that the checkpoint names."""

    def __init__(self, facts: Facts, judged: Judged) -> None:
        super().__init__(facts)
        self._judged = judged
        self._log: MemoryLog

    def _check(self, group: Group, node: int, saved: Saved) -> None:
        members = self._judged(node, group.name)
        if node in members:
            vectors = self._spread(saved, saved.applied), self._spread(saved, saved.base)
            self._check_vectors(group, node, saved, *vectors, members)

    def on_saved(self, node: int, state: StateStore, log: MemoryLog) -> None:
        self._log = log
        super().on_saved(node, state, log)

    def _is_there_again(self, group: str, origin: int, seq: int) -> bool:
        """Whether a commit stands in the log a second time: an install that came to nothing leaves what it had written."""
        index, found = self._facts.index, 0
        for _, entries in self._log.replay(self._log.first_position):
            for name, maker, data in entries:
                found += name == group and maker in index and index[maker] == origin and head_of(data)[0] == seq
        return found > 1

    def _check_below(self, node: int, saved: Saved, origin: int, seq: int) -> None:
        if node not in self._judged(node, saved.group):
            return
        base, applied = self._spread(saved, saved.base), self._spread(saved, saved.applied)
        if seq > min(base[origin], applied[origin]) and not self._is_there_again(saved.group, origin, seq):
            who = self._facts.members[origin]
            self._report(node, saved.group, f"will not replay {who}:{seq}, its history begins above {base}")

    def _spread(self, saved: Saved, vector: Sequence[int]) -> list[int]:
        spread = [0] * len(self._facts.members)
        for replica, seq in zip(saved.members, vector, strict=True):
            spread[self._facts.index[replica]] = seq
        return spread
