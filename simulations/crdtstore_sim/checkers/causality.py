"""Causal delivery (law L2): a commit is applied only where all that its issuer had seen is applied.

The question: whose word are the deps? Their issuer's, so they are also held against what the issuer had applied when it made the commit.
"""

from __future__ import annotations

from operator import gt

from crdtstore_sim.facts import Facts, Group
from crdtstore_sim.reader import Record

__all__ = ["Causality"]


class Causality:
    """Keeps nothing of its own."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def on_commit(self, group: Group, node: int, record: Record) -> None:
        """Before a commit counts as applied at a node."""
        vector = group.applied[node]
        if record.origin == node:
            if record.deps != tuple(vector):
                self._facts.report(
                    "causality", f"{self._name(group, record)} says {record.deps}, its maker had {vector}"
                )
        elif any(map(gt, record.deps, vector)):
            self._facts.report(
                "causality",
                f"{self._name(group, record)} needs {record.deps}, applied at {self._facts.members[node]} with {vector}",
            )

    def _name(self, group: Group, record: Record) -> str:
        return f"{group.name}: {self._facts.members[record.origin]}:{record.seq}"
