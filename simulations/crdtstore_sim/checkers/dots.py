"""Dots (laws L2 and L3): each commit is created once, by its owner, with one content, and applied once, in its place, without a gap.

The question: how is a second application seen? The observer counts per node and origin; the next commit written must be the next one
there is, byte for byte, and the engine's own vector must say the same.
"""

from __future__ import annotations

from crdtstore.engine.engine import Engine
from crdtstore_sim.facts import Facts, Group
from crdtstore_sim.reader import Record

__all__ = ["Dots"]


class Dots:
    """Mutable only in the facts."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def read_next(self, group: Group, node: int, origin: int, data: bytes) -> Record | None:
        """The record of what a node wrote; None (and a violation) when it is not the next there is."""
        try:
            return group.next_record(node, origin, data)
        except (ValueError, IndexError, TypeError) as error:
            self._facts.report("dots", f"{group.name}: {self._facts.members[node]} applied {error}")
            return None

    def on_step(self, group: Group, node: int, engine: Engine) -> None:
        """After a step: the engine's books and the observer's agree."""
        if engine.applied != group.applied[node]:
            self._facts.report(
                "dots",
                f"{group.name}: {self._facts.members[node]} says it applied {engine.applied}, it wrote {group.applied[node]}",
            )
            group.applied[node] = list(engine.applied)  # say it once
