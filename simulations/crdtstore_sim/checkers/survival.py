"""Survival: what members were told that is safe everybody has at the end; of those who were removed exactly what the final says, and the
rest of it is known as orphans.

The question: which loss is allowed? That of commits whose maker was removed before anybody else had them, or whose disk was lost. Nothing
that a member of the last configuration ever acknowledged may be missing anywhere.
"""

from __future__ import annotations

from collections.abc import Collection

from crdtstore.configuration import Configuration
from crdtstore_sim.checkers.durability import Durability
from crdtstore_sim.facts import Facts, Group

__all__ = ["Survival"]


class Survival:
    """Mutable: how many orphans there were."""

    def __init__(self, facts: Facts, durability: Durability) -> None:
        self._facts = facts
        self._durability = durability
        self.orphans = 0

    def on_end(
        self, group: Group, configuration: Configuration, nodes: Collection[int], outside: Collection[int]
    ) -> None:
        """All is over: ``nodes`` are the members, ``outside`` those whose disk was lost or put back."""
        facts = self._facts
        finals = configuration.finals
        for origin, replica in enumerate(facts.members):
            acknowledged = self._durability.acknowledged(group.name, origin)
            final = finals.get(replica)  # type: ignore[call-overload]
            if final is not None:
                self._on_removed(group, origin, final, nodes)
                self.orphans += sum(seq > final for seq in acknowledged)
                counted = {seq: data for seq, data in acknowledged.items() if seq <= final}
            elif configuration.member(replica) is not None or not acknowledged or origin in outside:
                counted = dict(acknowledged)
            else:
                self._report(group, f"{replica} was told that {len(acknowledged)} commits are safe, and is forgotten")
                continue
            if origin in outside:
                continue
            for node in nodes:
                self._check(group, node, origin, counted)

    def _on_removed(self, group: Group, origin: int, final: int, nodes: Collection[int]) -> None:
        """Of a removed one everybody has what counts, and not more was made."""
        replica, made = self._facts.members[origin], len(group.records[origin])
        if final > made:
            self._report(group, f"{final} commits of {replica} count, it made {made}")
        for node in nodes:
            if group.applied[node][origin] != final:
                has = group.applied[node][origin]
                self._report(group, f"{final} commits of {replica} count, {self._facts.members[node]} has {has}")

    def _check(self, group: Group, node: int, origin: int, acknowledged: dict[int, bytes]) -> None:
        held, records = group.durable[node][origin], group.records[origin]
        lost = [
            seq
            for seq, data in acknowledged.items()
            if seq > held or seq > len(records) or records[seq - 1].data != data
        ]
        if lost:
            dots = ", ".join(f"{self._facts.members[origin]}:{seq}" for seq in lost[:5])
            self._report(group, f"{self._facts.members[node]} lacks {len(lost)} acknowledged at the end: {dots}")

    def _report(self, group: Group, detail: str) -> None:
        self._facts.report("survival", f"{group.name}: {detail}")
