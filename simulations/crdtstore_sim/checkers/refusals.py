"""Refusals: among honest nodes nobody is refused, nobody is fenced, and users are refused only for reasons that a run can have.

The question: what would a false alarm look like? Like safety: a node that refuses what a peer truthfully says is as far from the others
as one that lost it.
"""

from __future__ import annotations

from collections.abc import Iterable

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
_BY_TYPE = {
    "bounded_counter": {"hold-ended", "insufficient-rights", "invalid-value"},
    "max_register": {"invalid-value"},
    "min_register": {"invalid-value"},
    "text": {"invalid-value", "too-large"},
}
"""What else may happen where the state has a say: too few rights, a hold that ended, a value of another kind, an index beyond the end."""


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

    def on_error(self, node: int, error: CrdtStoreError, types: Iterable[str]) -> None:
        """``types`` are those of the operations that were asked for."""
        if error.code not in EXPECTED.union(*(_BY_TYPE.get(name, ()) for name in types)):
            self._facts.report("refusals", f"{self._facts.members[node]} answers a proper request with {error}")
