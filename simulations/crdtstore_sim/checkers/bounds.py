"""Bounded counters: whoever spends has the rights to it, and no set of commits reads less than the bound.

The question: when is stock oversold? When the sum says so, it is long too late; a replica that spends what it does not have is noticed at
the commit that spends it.
"""

from __future__ import annotations

from random import Random

from crdtstore.causal import ReplicaId
from crdtstore_sim.facts import Facts, Group
from crdtstore_sim.models import rights
from crdtstore_sim.reader import Record

__all__ = ["Bounds"]

_TYPE = "bounded_counter"


class Bounds:
    """Keeps nothing of its own."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def on_made(self, group: Group, record: Record, touched: list[tuple[str, str]]) -> None:
        """A new commit, known to the models of the keys that it touches."""
        maker = self._facts.members[record.origin]
        for collection, key in touched:
            if not collection.endswith(_TYPE):
                continue
            vector = list(record.deps)
            vector[record.origin] = record.seq
            left = rights(group.keys[collection, key].there(vector), ReplicaId(maker))
            if left < 0:
                self._facts.report(
                    "bounds",
                    f"{group.name}: {maker}:{record.seq} spends {-left} of {collection}/{key} more than it had",
                )
            self._check(group, collection, key, [len(records) for records in group.records], "all together")

    def on_look(self, group: Group, random: Random) -> None:
        """Some key, in the join of what some replicas have."""
        keys = [at for at in group.keys if at[0].endswith(_TYPE)]
        if keys:
            some = random.sample(group.applied, random.randint(1, len(group.applied)))
            vector = [max(entries) for entries in zip(*some, strict=True)]
            self._check(group, *random.choice(keys), vector, f"at {vector}")

    def _check(self, group: Group, collection: str, key: str, vector: list[int], where: str) -> None:
        lower = self._facts.options.get(collection, {}).get("lower", 0)
        value = group.keys[collection, key].reading(vector).value
        if value < lower:
            self._facts.report("bounds", f"{group.name}: {collection}/{key} is {value} {where}, the bound is {lower}")
