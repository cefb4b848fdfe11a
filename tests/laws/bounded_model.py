"""What a bounded counter means, told a second time: from the operations that were accepted and who had seen what (ALGORITHMS 5).

Nothing of ours is imported but dots: no effects, no leaves, no cut. Operations tried in several regions under one id are one operation,
which belongs to the least of its attempts in (hlc, replica, seq). A hold is there until an operation that ended it had seen one of the
attempts that made it. Whatever is known of whom, nobody has spent more than it had.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from crdtstore.causal import Dot, ReplicaId

ENDS = ("confirm", "release", "expire")


class Deed(NamedTuple):
    """An operation that was accepted.

    Shape:   ``deps`` is what its issuer had seen; ``order`` its place in the commit; ``operation`` its id, if any; ``to`` the replica to
             which a transfer moves rights; ``hold`` the name of the hold that it makes or ends.
    """

    dot: Dot
    hlc: int
    deps: dict[ReplicaId, int]
    op: str
    amount: int = 0
    order: int = 0
    operation: int | None = None
    to: ReplicaId | None = None
    hold: str | None = None

    def has_seen(self, other: Deed) -> bool:
        if self.dot == other.dot:
            return other.order < self.order
        if self.dot.replica == other.dot.replica:
            return other.dot.seq < self.dot.seq
        return other.dot.seq <= self.deps.get(other.dot.replica, 0)


class Books(NamedTuple):
    """What each replica may spend, what it has put aside, and whose the open holds are."""

    rights: dict[ReplicaId, int]
    held: dict[ReplicaId, int]
    owners: dict[str, ReplicaId]

    @property
    def left(self) -> int:
        """The reading above the bound."""
        return sum(self.rights.values())


def books(deeds: Iterable[Deed]) -> Books:
    """The books as whoever knows these deeds has to keep them."""
    known = list(deeds)
    groups: dict[Any, list[Deed]] = {}
    for deed in known:
        name = deed.dot if deed.operation is None else deed.operation
        groups.setdefault((name, deed.order), []).append(deed)
    rights: dict[ReplicaId, int] = {}
    held: dict[ReplicaId, int] = {}
    owners: dict[str, ReplicaId] = {}

    def book(replica: ReplicaId, amount: int) -> None:
        rights[replica] = rights.get(replica, 0) + amount

    for attempts in groups.values():
        deed = min(attempts, key=lambda one: (one.hlc, one.dot))
        owner = deed.dot.replica
        if deed.op == "grant":
            book(owner, deed.amount)
        elif deed.op in ("consume", "confirm"):
            book(owner, -deed.amount)
        elif deed.op == "transfer":
            assert deed.to is not None
            book(owner, -deed.amount)
            book(deed.to, deed.amount)
        elif deed.op == "reserve" and not _is_ended(attempts, known):
            assert deed.hold is not None
            book(owner, -deed.amount)
            held[owner] = held.get(owner, 0) + deed.amount
            owners[deed.hold] = owner
    return Books(rights, held, owners)


def _is_ended(attempts: list[Deed], known: list[Deed]) -> bool:
    ends = [deed for deed in known if deed.op in ENDS and deed.hold == attempts[0].hold]
    return any(end.has_seen(attempt) for end in ends for attempt in attempts)


def is_ended_somehow(deeds: Iterable[Deed], hold: str) -> bool:
    """Whether anybody ended the hold."""
    return any(deed.op in ENDS and deed.hold == hold for deed in deeds)
