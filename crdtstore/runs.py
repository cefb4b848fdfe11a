"""Runs: the amounts of one replica in a sum, packed.

The question: what does an add cost that not all members have yet? 16 bytes: its number and the sum up to it. A cut finds its place by
bisection, and folding cuts off the front.
"""

from __future__ import annotations

import struct
from bisect import bisect_right

from msgspec import Struct

__all__ = ["Run"]

_PAIR = struct.Struct("=qq")


class Run(Struct, gc=False):
    """The amounts of one replica in a sum.

    Shape:   ``last_sum`` is the sum of all amounts up to ``last_seq``, of which ``gone`` were removed; earlier such pairs stand in
             ``older``, ascending: packed, 16 bytes each, or a list of pairs when a sum is beyond 64 bits. Most counters need none.
             ``last_seq`` 0: nothing is here.
    Units:   ``weight`` is the hash by which each amount counts in the state digest; ``last_hlc`` the stamp of the last commit here.
    """

    origin: int
    weight: int
    gone: int = 0
    last_seq: int = 0
    last_sum: int = 0
    last_hlc: int = 0
    older: bytearray | list[tuple[int, int]] | None = None

    def append(self, seq: int, amount: int, hlc: int) -> bool:
        """Add an amount of a commit not older than those here, several of one commit become one; return whether there is now
        something to fold that was not before.
        """
        is_news = False
        if self.last_seq and self.last_seq != seq:
            is_news = self.older is None
            self._push(self.last_seq, self.last_sum)
        self.last_seq = seq
        self.last_sum += amount
        self.last_hlc = hlc
        return is_news

    def fold(self, seq: int) -> None:
        """Make the amounts up to ``seq`` one, once every drop to come covers them all.

        Cost:    O(log n); the packed pairs are cut off in front.
        Source:  DESIGN 2; Baquero, Almeida & Shoker on causal stability.
        """
        older = self.older
        if older is None:
            return
        if seq >= self.last_seq:
            self.older = None
            return
        index, _ = self._older_until(seq)
        if index > 1:
            del older[: index - 1 if isinstance(older, list) else (index - 1) * _PAIR.size]

    def _push(self, seq: int, total: int) -> None:
        older = self.older
        if older is None:
            older = self.older = bytearray()
        if isinstance(older, list):
            older.append((seq, total))
            return
        try:
            older += _PAIR.pack(seq, total)
        except struct.error:  # exact all the same
            self.older = [*self._pairs(), (seq, total)]

    def _pairs(self) -> list[tuple[int, int]]:
        older = self.older or []
        return older if isinstance(older, list) else list(_PAIR.iter_unpack(older))

    def _older_until(self, seq: int) -> tuple[int, tuple[int, int]]:
        """How many of the older pairs are not above ``seq``, and the last of these."""
        older = self.older or []
        if isinstance(older, list):
            index = bisect_right(older, seq, key=lambda pair: pair[0])
            return index, older[index - 1] if index else (0, 0)
        with memoryview(older).cast("q") as numbers, numbers[::2] as seqs:
            index = bisect_right(seqs, seq)
            return index, (numbers[2 * index - 2], numbers[2 * index - 1]) if index else (0, 0)

    def cut(self, seq: int) -> int:
        """Remove all amounts up to ``seq``; return their sum."""
        if seq >= self.last_seq:
            removed = self.last_sum - self.gone
            self.gone = self.last_seq = self.last_sum = 0
            self.older = None
            return removed
        index, (_, total) = self._older_until(seq)
        if not index:
            return 0
        removed, self.gone = total - self.gone, total
        older = self.older
        assert older is not None
        del older[: index if isinstance(older, list) else index * _PAIR.size]
        return removed

    def extract(self, seq: int) -> int:
        """Remove the amount of one commit that is here; return it. Rare: only a repeated operation needs it."""
        amounts: dict[int, int] = {}
        before = self.gone
        for at, total in [*self._pairs(), (self.last_seq, self.last_sum)]:
            amounts[at], before = total - before, total
        extracted = amounts.pop(seq)
        hlc = self.last_hlc
        self.last_seq, self.last_sum, self.older = 0, self.gone, None
        for at, amount in amounts.items():
            self.append(at, amount, hlc)
        return extracted

    def holds(self, seq: int) -> bool:
        return seq == self.last_seq or (seq < self.last_seq and self._older_until(seq)[1][0] == seq)

    def total(self) -> int:
        """The sum of the amounts that are here."""
        return self.last_sum - self.gone
