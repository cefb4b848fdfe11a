"""Operation ids: the same request, retried in any region, counts once.

The question: two replicas that did not hear each other both accepted the request; which of the two commits counts? In each leaf that
both touch the least in (hlc, replica, seq), and neither once a drop has removed one of them there. Whether one was removed needs no
record: what is applied and no longer in the leaf has been removed, because delivery is causal (kernel, ``_admit``).

Known limits: ids are held for good in this version; forgetting needs stability.
"""

from __future__ import annotations

from msgspec import Struct

from crdtstore.commit import Commit
from crdtstore.errors import Unavailable, UsageError
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

    def heard(self, operation: tuple[bytes, int], expires_ms: int, now_ms: int, clock_ms: int) -> Attempt | None:
        """The commit that answers a request, None when it is new; ``clock_ms``: the newest stamp of this replica.

        Raises:  UsageError ``key-reused`` or ``key-expired``; Unavailable ``not-ready`` where only our own stamps have passed the
                 expiry: a region whose clock did not run ahead can take it. Nothing changed.
        """
        name, request = operation
        attempts = self.attempts(name)
        for attempt in attempts:
            if attempt.request == request:
                return attempt
        if attempts:
            raise UsageError("this idempotency key was used for another request. Nothing changed.", code="key-reused")
        if expires_ms <= now_ms:
            raise UsageError(
                "this idempotency key has expired: whether it was used is not known any more. Nothing changed.",
                code="key-expired",
            )
        if expires_ms <= clock_ms:
            raise Unavailable(
                f"the clock of this node ran ahead, its stamps have passed the expiry of this idempotency key by "
                f"{clock_ms - expires_ms} ms. Nothing changed."
            )
        return None

    def record(self, operation: tuple[bytes, int], dot: int, commit: Commit) -> Siblings | None:
        """Take note of a commit about to be applied; return the commits of the same operation, by leaf (None: there are none)."""
        name, request = operation
        effects = commit.effects
        leaves = tuple(
            [leaf_name(effects[at + 1], effects[at]) for at in range(0, len(effects), 3) if effects[at] != DROP]
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
