"""Stamps: strictly rising at their maker, never below what a heartbeat promised, and staleness that never claims too much (law L6).

The question: what does a heartbeat promise? That all commits of its sender up to its stamp are in its vector. Others compute from it how
stale a read may be, so a later commit below the stamp makes them lie.
"""

from __future__ import annotations

from crdtstore.clock import physical_ms
from crdtstore_sim.checkers.durability import Row
from crdtstore_sim.facts import Facts, Group
from crdtstore_sim.reader import Record

__all__ = ["Stamps"]


class Stamps:
    """Mutable only in the facts (what was promised)."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def on_made(self, group: Group, node: int, record: Record) -> None:
        """A node made a commit."""
        records = group.records[node]
        if len(records) > 1 and records[-2].hlc >= record.hlc:
            self._report(group, node, f"commit {record.seq} is stamped {record.hlc}, not after {records[-2].hlc}")
        if record.hlc <= group.promised[node]:
            self._report(
                group,
                node,
                f"commit {record.seq} is stamped {record.hlc}, a heartbeat had promised none up to {group.promised[node]}",
            )

    def on_row(self, group: Group, node: int, row: Row) -> None:
        """A heartbeat leaves a node."""
        self.on_heartbeat(group, node, row.vector[node], row.hlc)

    def on_heartbeat(self, group: Group, node: int, seq: int, hlc: int) -> None:
        """A node says that it made ``seq`` commits up to a stamp."""
        records = group.records[node]
        if seq < len(records) and records[seq].hlc <= hlc:
            self._report(group, node, f"a heartbeat says {hlc} with {seq} commits, the next one is {records[seq].hlc}")
        group.promised[node] = max(group.promised[node], hlc)

    def on_staleness(self, group: Group, node: int, staleness_ms: int | None, now_ms: int) -> None:
        """A read was shown with a bound on its staleness: every commit that is missing is younger."""
        if staleness_ms is None:
            return
        for origin, records in enumerate(group.records):
            at = group.applied[node][origin]
            if origin == node or not self.counts(group, node, origin):
                continue
            if at < len(records) and physical_ms(records[at].hlc) < now_ms - staleness_ms:
                self._report(
                    group,
                    node,
                    f"says it is at most {staleness_ms} ms stale, and lacks {self._facts.members[origin]}:{at + 1}, "
                    f"made {now_ms - physical_ms(records[at].hlc)} ms ago",
                )

    def counts(self, group: Group, node: int, origin: int) -> bool:
        """Whether the reads of a node are to show what an origin makes."""
        return True

    def _report(self, group: Group, node: int, detail: str) -> None:
        self._facts.report("stamps", f"{group.name}: {self._facts.members[node]} {detail}")
