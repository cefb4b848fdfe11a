"""Refusals: among honest nodes nobody is refused, nobody is fenced, and users are refused only for reasons that a run can have.

The question: what would a false alarm look like? Like safety: a node that refuses what a peer truthfully says is as far from the others
as one that lost it.
"""

from __future__ import annotations

from crdtstore.engine.engine import Engine
from crdtstore.errors import CrdtStoreError
from crdtstore_sim.facts import Facts

__all__ = ["EXPECTED", "Refusals"]

EXPECTED = {
    "key-expired",
    "key-reused",
    "not-declared",
    "not-ready",
    "overloaded",
    "precondition-failed",
    "replica-behind",
    "storage-failed",
}
"""What may happen to a request that is not wrong in itself."""


class Refusals:
    """Mutable: what was said already."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._fenced: set[tuple[int, str]] = set()

    def on_rejected(self, node: int, peer: str, reason: str) -> None:
        self._facts.report("refusals", f"{self._facts.members[node]} refuses {peer}: {reason}")

    def on_step(self, node: int, engine: Engine) -> None:
        if engine.is_fenced and (node, engine.group) not in self._fenced:
            self._fenced.add((node, engine.group))
            self._facts.report("refusals", f"{engine.group}: {self._facts.members[node]} fenced itself")

    def on_error(self, node: int, error: CrdtStoreError) -> None:
        if error.code not in EXPECTED:
            self._facts.report("refusals", f"{self._facts.members[node]} answers a proper request with {error}")
