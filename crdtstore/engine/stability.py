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

    __slots__ = ("_has_news", "_me", "_pending", "_usable", "frontiers", "stable")

    def __init__(self, members: int, me: int) -> None:
        self.stable = [0] * members
        self.frontiers = [0] * members
        """Per origin the stamp up to which everything of it is here; the own entry is not used."""
        self._me = me
        self._usable: list[list[int] | None] = [None] * members
        self._pending: list[list[int] | None] = [None] * members
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
        if not self._has_news and len(self.stable) > 1:
            return False
        self._has_news = False
        rows = [row for member, row in enumerate(self._usable) if member != self._me and row is not None]
        if len(rows) < len(self.stable) - 1:
            return False
        before = self.stable
        self.stable = (
            [max(entry) for entry in zip(before, map(min, durable, *rows), strict=True)] if rows else [*durable]
        )
        return self.stable != before

    def frontier_hlc(self, own_hlc: int) -> int:
        """The stamp that every member's clock has passed, and all commits up to it are here; ``own_hlc`` is this replica's clock."""
        return min(own_hlc if member == self._me else hlc for member, hlc in enumerate(self.frontiers))
