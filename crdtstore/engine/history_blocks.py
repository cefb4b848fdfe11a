"""The blocks of the log in which commits stand that are in memory too: 16 bytes each.

The question: where does a commit stand that leaves memory next? The log has the order in which commits were applied, so a block is known by
its position and by the place in that order behind its last commit.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right

__all__ = ["BLOCK_BYTES", "Blocks"]

BLOCK_BYTES = 16
_GONE = 512
"""So many blocks at the front are waited for, and an eighth of all, before the arrays are moved: O(1) per block that went."""


class Blocks:
    """Mutable. ``cleared`` is the place in the apply order below which nothing is in memory."""

    __slots__ = ("_ends", "_gone", "_positions", "cleared")

    def __init__(self) -> None:
        self._positions, self._ends = array("Q"), array("Q")
        self._gone = 0
        self.cleared = 0

    def __len__(self) -> int:
        return len(self._ends) - self._gone

    @property
    def memory_bytes(self) -> int:
        return BLOCK_BYTES * (len(self._ends) - self._gone)

    def place(self, end: int, position: int) -> None:
        """What has no block yet, up to a place in the apply order, stands in the block at a position."""
        positions, ends = self._positions, self._ends
        if len(ends) > self._gone:
            assert end >= ends[-1], "what was placed is not taken back"
            assert position >= positions[-1], "positions ascend"
            if position == positions[-1]:
                ends[-1] = end
                return
            if end == ends[-1]:
                return
        if end > self.cleared:
            positions.append(position)
            ends.append(end)

    def first_position(self) -> int | None:
        return self._positions[self._gone] if self._gone < len(self._ends) else None

    def first(self) -> tuple[int, int]:
        """Position and end of the first block."""
        return self._positions[self._gone], self._ends[self._gone]

    def clear(self, place: int) -> None:
        """Forget the blocks that end at or before a place in the apply order."""
        gone = bisect_right(self._ends, place, self._gone)
        if gone == self._gone:
            return
        self.cleared = self._ends[gone - 1]
        self._gone = gone
        if gone >= _GONE and gone * 8 >= len(self._ends):
            del self._positions[:gone], self._ends[:gone]
            self._gone = 0

    def count_from(self, shift: int) -> None:
        """Places in the apply order are ``shift`` less from now on; that is not above ``cleared``."""
        del self._positions[: self._gone], self._ends[: self._gone]
        self._gone = 0
        self._ends = array("Q", [end - shift for end in self._ends])
        self.cleared -= shift
