"""Progress: once faults and writes end, everybody has everything, everything is durable, and every request is answered, within a bound.

The question: what if a link stays cut for good? Then others must relay: it is enough that all replicas are connected somehow.
"""

from __future__ import annotations

from collections.abc import Sequence

from crdtstore.engine.engine import Engine
from crdtstore_sim.facts import Facts

__all__ = ["Progress"]


class Progress:
    """Keeps nothing of its own."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def is_settled(self, nodes: Sequence[dict[str, Engine]]) -> bool:
        """Whether all vectors are equal and durable, in the same groups."""
        names = sorted(nodes[0])
        if any(sorted(engines) != names for engines in nodes):
            return False
        for name in names:
            first = nodes[0][name].durability.vector
            if any(
                engines[name].durability.vector != first
                or engines[name].applied != first
                or engines[name].early
                or not engines[name].keyspace.tree.is_settled
                for engines in nodes
            ):
                return False
        return True

    def on_late(self, nodes: Sequence[dict[str, Engine]], open_requests: int, bound_s: float) -> None:
        """The bound is reached and the run has not settled."""
        behind = []
        for name in sorted({name for engines in nodes for name in engines}):
            vectors = [engines[name].durability.vector if name in engines else None for engines in nodes]
            if any(vector != vectors[0] for vector in vectors):
                waiting = [len(engines[name].early) if name in engines else 0 for engines in nodes]
                behind.append(f"{name}: {vectors}, waiting for what they depend on {waiting}")
        if behind:
            self._facts.report("progress", f"not equal {bound_s:g} s after the last fault: {'; '.join(behind)}")
        elif open_requests:
            self._facts.report(
                "progress", f"{open_requests} requests without an answer {bound_s:g} s after the last fault"
            )
        elif any(not engine.keyspace.tree.is_settled for engines in nodes for engine in engines.values()):
            self._facts.report("progress", f"a drop is not carried out {bound_s:g} s after the last fault")
        else:
            self._facts.report("progress", f"something is not durable {bound_s:g} s after the last fault")
