"""Receipts: whoever is named in a reply to a commit has it on disk, and keeps it whatever happens; and nobody is told before it is time.

The question: whom to believe? Neither the node that answers nor the one that it names: only the disk of the latter, in the moment of the
reply, and again whenever it comes back from a crash.
"""

from __future__ import annotations

from crdtstore.causal import Dot
from crdtstore_sim.facts import Facts, Group, Span

__all__ = ["Receipts"]


class Receipts:
    """Mutable: per group, node and maker the greatest number that a user was told to be durable there."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._told: dict[tuple[str, int, int], int] = {}

    def on_acknowledged(self, group: Group, node: int, dot: Dot, durable_in: list[str]) -> None:
        """A user was told in which regions a commit is safe."""
        facts, origin = self._facts, self._facts.index[dot.replica]
        if durable_in[0] != facts.regions[node] or durable_in[1:] != sorted(set(durable_in[1:])):
            self._report(group, f"{facts.members[node]} names {durable_in}, itself not first or the others in no order")
        for region in durable_in:
            asked = self._in_region(group, node, region)
            having = [at for at in asked or () if dot.seq <= group.durable[at][origin]]
            if asked is not None and not having:
                held = [group.durable[at][origin] for at in asked]
                self._report(group, f"{facts.members[node]} says that {region} has {dot}, where {held} is durable")
            for at in having:
                known = self._told.get((group.name, at, origin), 0)
                self._told[group.name, at, origin] = max(known, dot.seq)

    def _in_region(self, group: Group, node: int, region: str) -> list[int] | None:
        """Of whom one must have what a node says that this region has; None: that cannot be told."""
        return [at for at, where in enumerate(self._facts.regions) if where == region]

    def on_awaited(self, group: Group, node: int, durable_in: list[str], wanted: int, wait_ms: int, span: Span) -> None:
        """The user had asked for so many other regions."""
        if len(durable_in) <= wanted and span.to_ms - span.from_ms < wait_ms:
            self._report(
                group,
                f"{self._facts.members[node]} answers after {span.to_ms - span.from_ms} of {wait_ms} ms with {durable_in}, "
                f"{wanted} others were asked for",
            )

    def on_crash(self, node: int) -> None:
        """A node lost its memory: what it was said to have is still on its disk."""
        for (name, at, origin), seq in self._told.items():
            held = self._facts.groups[name].durable[node][origin]
            if at == node and seq > held:
                self._report(
                    self._facts.groups[name],
                    f"{self._facts.members[node]} has {self._facts.members[origin]}:{held} after a crash, and was said to have {seq}",
                )

    def _report(self, group: Group, detail: str) -> None:
        self._facts.report("receipts", f"{group.name}: {detail}")
