"""Convergence (law L1): equal vectors, equal digests, equal readings. If not, it is false convergence, the worst alarm there is.

The question: how are two moments compared that are far apart? By the vector: whoever ever stands at one must have the digest that the
first one had there. Sometimes, and at the end, the digest is computed anew from the state, since an incremental one can drift unseen.
"""

from __future__ import annotations

from typing import Any

from crdtstore.engine.engine import Engine
from crdtstore_sim.facts import Facts, Group, shown
from crdtstore_sim.models import canonical

__all__ = ["Convergence"]


class Convergence:
    """Mutable: the first reading seen per vector and key, of the whole readings at the end."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._first: dict[tuple[str, tuple[int, ...], str, str], tuple[Any, Any]] = {}

    def on_step(self, group: Group, node: int, engine: Engine) -> None:
        if not engine.keyspace.tree.is_settled:  # a big drop is under way: the digest is that of the state afterwards
            return
        vector = tuple(group.applied[node])
        digest = engine.digest
        if group.digests.setdefault(vector, digest) != digest:
            self._facts.report(
                "convergence",
                f"{group.name}: at {vector} the digest was {group.digests[vector]:032x}, "
                f"at {self._facts.members[node]} it is {digest:032x}",
            )

    def on_scrub(self, group: Group, node: int, engine: Engine) -> None:
        """Compute the digest anew."""
        anew = engine.keyspace.tree.share([])
        if anew != engine.digest:
            self._facts.report(
                "convergence",
                f"{group.name}: {self._facts.members[node]} keeps the digest {engine.digest:032x}, its state has {anew:032x}",
            )

    def on_reading(self, group: Group, node: int, collection: str, key: str, reading: Any) -> None:
        """A reading at what is applied just now. Conflicts are left to the models: some are forgotten, each replica in its time."""
        value = canonical([reading.value, reading.exists])
        at = group.name, tuple(group.applied[node]), collection, key
        first, first_reading = self._first.setdefault(at, (value, reading))
        if first != value:
            self._facts.report(
                "convergence",
                f"{group.name}/{collection}/{key} reads {shown(reading)} at {self._facts.members[node]}, "
                f"and read {shown(first_reading)} elsewhere with the same commits",
            )

    def forget(self) -> None:
        """A crash took commits back: vectors may mean something else from now on."""
        self._first.clear()
