"""Stability: what all members have, and until when all of them have spoken.

The question: from which rows may that be told? A row of m says what m has. It may be used only when everything in it is here too: else m
may have issued, before that row, a commit which is not here yet and has seen less. The newest usable row of each member is kept, and the
oldest that is not usable yet; keeping the newest of those would starve, since there is always a newer one.

``stable`` is what every commit still to arrive has seen (law INV); ``frontier_hlc`` is what every commit still to arrive is stamped above.
Source: DESIGN 4 (rows), with the proof of law L7.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import le

from crdtstore.messages import Row

__all__ = ["Stability"]


class Stability:
    """The stable vector and the frontiers of one replica. Mutable; both only ever grow."""

    __slots__ = ("_awaited", "_has_news", "_pending", "_usable", "frontiers", "others", "stable")

    def __init__(self, replicas: int, me: int) -> None:
        self.others = [at for at in range(replicas) if at != me]
        """The indexes of the other members: their rows are waited for."""
        self._awaited = self.others
        """Whose stamps are waited for: theirs, and of those who are gone but may have left what others have."""
        self.stable = [0] * replicas
        self.frontiers = [0] * replicas
        """Per origin the stamp up to which everything of it is here; the own entry is not used."""
        self._usable: list[list[int] | None] = [None] * replicas
        self._pending: list[list[int] | None] = [None] * replicas
        self._has_news = True

    def admit(self) -> None:
        """There is one more replica, of which nobody has anything yet."""
        self.stable = [*self.stable, 0]
        self.frontiers.append(0)
        for vectors in (self._usable, self._pending):
            vectors[:] = [None if vector is None else [*vector, 0] for vector in vectors]
            vectors.append(None)

    def adopt(self, others: Sequence[int], awaited: Sequence[int] = ()) -> None:
        """From now on these are the other members; rows that were said before count no more, what was stable stays so.

        ``awaited``: who is no member any more, but may have left commits that are not here yet, with any stamps above its frontier.
        """
        self.others, self._awaited = list(others), [*others, *awaited]
        self._usable, self._pending = [None] * len(self.stable), [None] * len(self.stable)
        self._has_news = True

    def take(self, member: int, row: Row, durable: Sequence[int]) -> None:
        """Take in a row of a member, from itself or by way of others."""
        vector = row.vector
        if vector[member] <= durable[member] and row.hlc > self.frontiers[member]:
            self.frontiers[member] = row.hlc
        usable = self._usable[member]
        if usable is not None and all(map(le, vector, usable)):
            return
        if self.is_usable(vector, durable):
            self._usable[member] = vector
            self._has_news = True
        elif self._pending[member] is None:
            self._pending[member] = vector

    def usable(self, member: int) -> Sequence[int] | None:
        """The newest vector of a member that may be used; None: there is none yet."""
        return self._usable[member]

    def is_usable(self, vector: Sequence[int], durable: Sequence[int]) -> bool:
        """Whether everything in a row is here."""
        return all(map(le, vector, durable))

    def applied(self, origin: int, hlc: int) -> None:
        """A commit of an origin was applied here."""
        self.frontiers[origin] = max(self.frontiers[origin], hlc)

    def advance(self, durable: Sequence[int]) -> bool:
        """Move the stable vector as far as the rows allow; return whether it moved."""
        for member, vector in enumerate(self._pending):
            if vector is not None and self.is_usable(vector, durable):
                self._pending[member] = None
                usable = self._usable[member]
                if usable is None or sum(vector) > sum(usable):
                    self._usable[member] = vector
                    self._has_news = True
        if not self._has_news and self.others:
            return False
        self._has_news = False
        rows = [row for member in self.others if (row := self._usable[member]) is not None]
        if len(rows) < len(self.others):
            return False
        before = self.stable
        self.stable = (
            [max(entry) for entry in zip(before, map(min, durable, *rows), strict=True)] if rows else [*durable]
        )
        return self.stable != before

    def frontier_hlc(self, own_hlc: int) -> int:
        """The stamp that every member's clock has passed, and all commits up to it are here; ``own_hlc`` is this replica's clock."""
        return min([own_hlc, *[self.frontiers[origin] for origin in self._awaited]])
