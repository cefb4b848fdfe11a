"""Loose amounts: those of one replica whose operation may be repeated elsewhere, packed.

The question: how does one of them go, when another attempt at its operation counts, without a dict entry for each of them? Sums up to each
amount are kept, as in a run; an amount that is taken out of the middle leaves a hole, and holes are few. What goes at the end takes the
holes before it along, so the last row is always one that is here, and its stamp the newest.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from typing import NamedTuple

from msgspec import Struct

__all__ = ["Loose", "Settled"]

_ROW = struct.Struct("<IQq")


class Settled(NamedTuple):
    """What was cut off in front: the sum of it, and seq and stamp of the newest of it (0, 0: there was none)."""

    total: int
    seq: int
    hlc: int


class Loose(Struct, gc=False):
    """The loose amounts of one replica in a sum.

    Shape:   ``rows`` are (seq, hlc, sum up to it), ascending: packed, 20 bytes each with seq counted from ``first``, or a list when a sum
             is beyond 64 bits. ``gone`` is the sum up to what was cut off in front, ``holes`` what was taken out, ``{seq: amount}``.
    """

    first: int
    rows: bytearray | list[tuple[int, int, int]]
    total: int = 0
    upto: int = 0
    """The sum up to the last row."""
    gone: int = 0
    last_seq: int = 0
    holes: dict[int, int] | None = None

    def append(self, seq: int, hlc: int, amount: int) -> None:
        """Add an amount of a commit not older than those here; several of one commit become one."""
        if self.last_seq == seq:
            del self.rows[-1 if isinstance(self.rows, list) else -_ROW.size :]
        self.last_seq = seq
        upto = self.upto = self.upto + amount
        self.total += amount
        rows = self.rows
        if isinstance(rows, list):
            rows.append((seq, hlc, upto))
            return
        try:
            rows += _ROW.pack(seq - self.first, hlc, upto)  # in place
        except struct.error:  # exact all the same
            self.rows = [*(self._row(at) for at in range(self._length())), (seq, hlc, self.upto)]

    def _length(self) -> int:
        return len(self.rows) if isinstance(self.rows, list) else len(self.rows) // _ROW.size

    def _row(self, at: int) -> tuple[int, int, int]:
        if isinstance(self.rows, list):
            return self.rows[at]
        offset, hlc, upto = _ROW.unpack_from(self.rows, at * _ROW.size)
        return self.first + offset, hlc, upto

    def _index(self, seq: int) -> int:
        """How many rows are not above ``seq``."""
        length = self._length()
        return length if seq >= self.last_seq else bisect_right(range(length), seq, key=lambda at: self._row(at)[0])

    def _sum_before(self, index: int) -> int:
        return self._row(index - 1)[2] if index else self.gone

    def _is_hole(self, seq: int) -> bool:
        return self.holes is not None and seq in self.holes

    def has(self, seq: int) -> bool:
        """Whether the amount of a commit is here."""
        index = self._index(seq)
        return index > 0 and self._row(index - 1)[0] == seq and not self._is_hole(seq)

    @property
    def newest(self) -> tuple[int, int]:
        """Seq and stamp of the newest amount; (0, 0): there is none."""
        return self._row(self._length() - 1)[:2] if self.rows else (0, 0)

    def take(self, seq: int) -> int | None:
        """Take out the amount of one commit; None: it is not here."""
        if not self.has(seq):
            return None
        index = self._index(seq)
        amount = self._row(index - 1)[2] - self._sum_before(index - 1)
        self.total -= amount
        if self.holes is None:
            self.holes = {}
        self.holes[seq] = amount
        self._trim()
        return amount

    def _trim(self) -> None:
        """Let holes at the end go."""
        length, holes = self._length(), self.holes or {}
        while length and holes.pop(self._row(length - 1)[0], None) is not None:
            length -= 1
        del self.rows[length * (1 if isinstance(self.rows, list) else _ROW.size) :]
        self.holes = holes or None
        self.upto = self._sum_before(length)
        self.last_seq = self.newest[0]

    def cut(self, seq: int) -> Settled:
        """Cut off all amounts up to ``seq``.

        Cost:    O(log n + holes); the rows are cut off in front.
        """
        index = self._index(seq)
        if not index:
            return Settled(0, 0, 0)
        holes = self.holes or {}
        missing = sum([amount for at, amount in holes.items() if at <= seq])
        at = index - 1
        while at >= 0 and self._is_hole(self._row(at)[0]):
            at -= 1
        newest_seq, newest_hlc, _ = self._row(at) if at >= 0 else (0, 0, 0)
        upto = self._sum_before(index)
        settled = Settled(upto - self.gone - missing, newest_seq, newest_hlc)
        del self.rows[: index * (1 if isinstance(self.rows, list) else _ROW.size)]
        self.holes = {at: amount for at, amount in holes.items() if at > seq} or None
        self.gone = upto
        self.total -= settled.total
        if not self.rows:
            self.last_seq = 0
        return settled
