"""Runs: the amounts of one replica in a sum, packed.

The question: what does an add cost that not all members have yet? 16 bytes: its number and the sum up to it. A cut finds its place by
bisection, and folding cuts off the front.
"""

from __future__ import annotations

import struct
from bisect import bisect_right

from msgspec import Struct
from msgspec.structs import replace

from crdtstore.loose import Loose

__all__ = ["Run"]

_PAIR = struct.Struct("=qq")
_pack = _PAIR.pack


class Run(Struct, gc=False):
    """The amounts of one replica in a sum.

    Shape:   ``last_sum`` is the sum of all amounts up to ``last_seq``, of which ``gone`` were removed; earlier such pairs stand in
             ``older``, ascending: packed, 16 bytes each, or a list of pairs when a sum is beyond 64 bits. Most counters need none.
             ``last_seq`` 0: none of these is here. ``loose`` are the amounts that may have to be taken out one by one,
             because their operation may be repeated elsewhere; once stable they are in ``base``. None: there are none.
    Units:   ``weight`` is the hash by which each amount counts in the state digest; ``last_hlc`` the stamp of the last commit in
             the pairs or the base.
    """

    origin: int
    weight: int
    base: int | None = None
    loose: Loose | None = None
    gone: int = 0
    last_seq: int = 0
    last_sum: int = 0
    last_hlc: int = 0
    older: bytearray | list[tuple[int, int]] | None = None

    def append(self, seq: int, amount: int, hlc: int) -> bool:
        """Add an amount of a commit not older than those here, several of one commit become one; return whether there is now
        something to fold that was not before.
        """
        last_seq, last_sum = self.last_seq, self.last_sum
        is_news = False
        if last_seq and last_seq != seq:
            is_news = self.older is None
            self._push(last_seq, last_sum)
        self.last_seq = seq
        self.last_sum = last_sum + amount
        self.last_hlc = hlc
        return is_news

    def fold(self, seq: int) -> None:
        """Make the amounts up to ``seq`` one, once every drop to come covers them all.

        Cost:    O(log n); the packed pairs are cut off in front.
        Source:  DESIGN 2; Baquero, Almeida & Shoker on causal stability.
        """
        if self.loose is not None:
            self._settle(seq)
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
        if isinstance(older, list):
            older.append((seq, total))
            return
        try:
            pair = _pack(seq, total)
        except struct.error:  # exact all the same
            self.older = [*self._pairs(), (seq, total)]
            return
        if older is None:
            self.older = bytearray(pair)
        else:
            older += pair

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
        """Remove all amounts up to ``seq``; return their sum. Every cut covers what is in the base."""
        removed, self.base = self.base or 0, None
        if self.loose is not None:
            removed += self.loose.cut(seq).total
            self._tighten()
        if seq >= self.last_seq:
            removed += self.last_sum - self.gone
            self.gone = self.last_seq = self.last_sum = self.last_hlc = 0
            self.older = None
            return removed
        index, (_, total) = self._older_until(seq)
        if index:
            removed += total - self.gone
            self.gone = total
            older = self.older
            assert older is not None
            del older[: index if isinstance(older, list) else index * _PAIR.size]
        return removed

    def append_loose(self, seq: int, amount: int, hlc: int) -> bool:
        """As ``append``, an amount that may have to be taken out again."""
        loose = self.loose
        is_news = loose is None
        if loose is None:
            loose = self.loose = Loose(seq, bytearray())
        loose.append(seq, hlc, amount)
        return is_news

    def take(self, seq: int) -> int | None:
        """Take out a loose amount; None: it is not here."""
        taken = None if self.loose is None else self.loose.take(seq)
        self._tighten()
        return taken

    def _settle(self, seq: int) -> None:
        """Loose amounts up to ``seq`` are stable now."""
        settled = None if self.loose is None else self.loose.cut(seq)
        if settled is not None and settled.seq:
            self.base = (self.base or 0) + settled.total
            if settled.seq > self.last_seq:
                self.last_hlc = max(self.last_hlc, settled.hlc)
        self._tighten()

    def _tighten(self) -> None:
        if self.loose is not None and not self.loose.rows:
            self.loose = None

    @property
    def is_empty(self) -> bool:
        return not self.last_seq and self.base is None and self.loose is None

    @property
    def newest(self) -> tuple[int, int]:
        """Seq and stamp of the newest dot that is known."""
        pair = (self.last_seq, self.last_hlc)
        return pair if self.loose is None else max(pair, self.loose.newest)

    @property
    def newest_seq(self) -> int:
        return self.last_seq if self.loose is None else max(self.last_seq, self.loose.last_seq)

    @property
    def newest_hlc(self) -> int:
        return self.last_hlc if self.loose is None else max(self.last_hlc, self.loose.newest[1])

    def copy(self) -> Run:
        """A copy that shares nothing that changes."""
        loose = self.loose
        if loose is not None:
            loose = replace(loose, rows=loose.rows[:], holes=dict(loose.holes) if loose.holes else None)
        return replace(self, older=None if self.older is None else self.older[:], loose=loose)

    def total(self) -> int:
        """The sum of the amounts that are here."""
        return self.last_sum - self.gone + (self.base or 0) + (0 if self.loose is None else self.loose.total)
