"""Operation ids: the same request, retried in any region, counts once.

The question: two replicas that did not hear each other both accepted the request; which of the two commits counts? In each leaf that
both touch the least in (hlc, replica, seq), and neither once a drop has removed one of them there. Whether one was removed needs no
record: what is applied and no longer in the leaf has been removed, because delivery is causal (kernel, ``_admit``).

Known limits: ids are held for good in this version; forgetting needs stability.
"""

from __future__ import annotations

from msgspec import Struct

from crdtstore.commit import Commit
from crdtstore.kernel import Sibling, Siblings, leaf_name
from crdtstore.leaves import DROP

__all__ = ["Attempt", "Operations"]


class Attempt(Struct, frozen=True, gc=False):
    """One commit of an operation: its dot (index form), its stamp, what was asked, and the leaves it put something at."""

    dot: int
    hlc: int
    request: int
    leaves: tuple[int, ...]


class Operations:
    """All operations this replica has applied commits of. Mutable."""

    __slots__ = ("_attempts",)

    def __init__(self) -> None:
        self._attempts: dict[bytes, Attempt | list[Attempt]] = {}

    def __len__(self) -> int:
        return len(self._attempts)

    def attempts(self, operation: bytes) -> list[Attempt]:
        """The commits of an operation that are applied here, oldest first."""
        known = self._attempts.get(operation)
        if known is None:
            return []
        return known if isinstance(known, list) else [known]

    def record(self, operation: tuple[bytes, int], dot: int, commit: Commit) -> Siblings | None:
        """Take note of a commit about to be applied; return the commits of the same operation, by leaf (None: there are none)."""
        name, request = operation
        effects = commit.effects
        leaves = tuple(
            leaf_name(effects[at + 1], effects[at]) for at in range(0, len(effects), 3) if effects[at] != DROP
        )
        attempt = Attempt(dot, commit.hlc, request, leaves)
        known = self.attempts(name)
        if not known:
            self._attempts[name] = attempt
            return None
        self._attempts[name] = [*known, attempt]
        siblings: dict[int, list[Sibling]] = {}
        for other in known:
            for leaf in other.leaves:
                siblings.setdefault(leaf, []).append(Sibling(other.hlc, other.dot))
        return siblings
