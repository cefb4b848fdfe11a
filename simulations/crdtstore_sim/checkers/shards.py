"""Shards: every replica serves a domain by the number it was declared with first, and holds the groups of the greatest.

The question: which declaration is the first? That with the least stamp, of two with the same one that of the lesser replica, among all
commits that ever put a number; whoever hears of it later, or declared another one himself, takes it for the first all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crdtstore.configuration import SYSTEM_GROUP, group_of
from crdtstore.declarations import DOMAINS, Declarations
from crdtstore.engine.engine import Engine
from crdtstore_sim.facts import Facts

__all__ = ["Shards"]


class Shards:
    """Keeps nothing of its own."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def on_end(self, nodes: Sequence[Mapping[str, Engine]]) -> None:
        """All have heard of everything."""
        facts = self._facts
        for domain, numbers in sorted(self._declared().items()):
            wanted = {group_of(domain, shard) for shard in range(max(numbers))}
            for node, engines in enumerate(nodes):
                served = Declarations(engines[SYSTEM_GROUP]).numbers(domain)[0]
                if served != numbers[0]:
                    what = f"serves {domain} by {served} shards; it was declared with {numbers}, in this order"
                    facts.report("shards", f"{facts.members[node]} {what}")
                if missing := wanted - engines.keys():
                    facts.report("shards", f"{facts.members[node]} does not hold {', '.join(sorted(missing))}")

    def _declared(self) -> dict[str, list[int]]:
        """Per domain the numbers it was declared with, the first one first."""
        facts = self._facts
        found: dict[str, list[tuple[int, str, int]]] = {}
        for origin, records in enumerate(facts.group(SYSTEM_GROUP).records):
            for record in records:
                for _, path, value in record.effects():
                    if path[0] == DOMAINS and path[2:] == ["shards"] and value is not None:
                        found.setdefault(path[1], []).append((record.hlc, facts.members[origin], value))
        return {domain: [number for _, _, number in sorted(puts)] for domain, puts in found.items()}
