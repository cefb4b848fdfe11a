"""The commit log in memory, with the crashes of a disk.

The question: what may a power cut take? Everything after the last sync, and of that any tail; so records are first
staged, then synced, and a crash says how many of the staged ones happened to survive. Records are really encoded and
decoded: the simulator runs on the same bytes as a node. Nothing here reads a clock or draws a number.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from crdtstore.errors import StorageError
from crdtstore.storage.protocol import Entry
from crdtstore.storage.record import decode_record, encode_record

__all__ = ["MemoryLog"]

_OVERHEAD_BYTES = 40
"""What a block takes besides its records: any number will do, this is about that of a file."""


class _Block(NamedTuple):
    position: int
    records: tuple[bytes, ...]
    end: int
    upto: int
    """How many records there were since the log began, with these."""


class MemoryLog:
    """A ``CommitLog`` whose sync is a call of its own, so that a simulator can acknowledge later than it is asked.

    What is staged in one call is one block. ``cut`` takes whole stretches of ``segment_bytes``, as a log on disk does;
    with 1 it takes all it may.
    """

    def __init__(self, segment_bytes: int = 1) -> None:
        self._segment_bytes = segment_bytes
        self._blocks: list[_Block] = []
        self._durable = 0
        self._first = (0, 0)
        """Position and number of records before the first block that is left."""

    @property
    def position(self) -> int:
        """Where the next block will begin."""
        return self._blocks[-1].end if self._blocks else self._first[0]

    @property
    def first_position(self) -> int:
        """Where the log begins, after all that was cut."""
        return self._first[0]

    @property
    def durable(self) -> int:
        """How many records a crash cannot take, counted since the log began."""
        return self._durable

    @property
    def staged(self) -> int:
        """How many records there have been, durable or not."""
        return self._blocks[-1].upto if self._blocks else self._first[1]

    def replay(self, needed: int = 0) -> Iterator[tuple[int, list[Entry]]]:
        """All records there are, in order, each with the position of its block.

        Raises:  StorageError when the log begins above ``needed`` or ends below it.
        """
        if not self._first[0] <= needed <= self.position:
            held = f"the log holds positions {self._first[0]} to {self.position}"
            raise StorageError(f"memory: {held}, but everything from {needed} on is needed; nothing was changed")
        for block in list(self._blocks):
            for record in block.records:
                yield block.position, decode_record(record)

    def encode(self, entries: Sequence[Entry]) -> bytes:
        """One record, for ``stage`` or ``write``."""
        return encode_record(entries)

    def stage(self, records: Sequence[bytes]) -> int:
        """Append one block without making it durable; the number to ``sync`` up to for it to be safe."""
        if records:
            begin = self.position
            end = begin + _OVERHEAD_BYTES + sum(map(len, records))
            self._blocks.append(_Block(begin, tuple(records), end, self.staged + len(records)))
        return self.staged

    def sync(self, upto: int | None = None) -> None:
        """Make the blocks of the first ``upto`` records of the log durable, all of them without a number."""
        target = self.staged if upto is None else upto
        assert target <= self.staged, f"sync up to {target} of {self.staged} records"
        self._durable = max(self._durable, self._whole(target))

    def write(self, records: Sequence[bytes]) -> int:
        """Stage and sync in one; the position of the block."""
        begin = self.position
        self.stage(records)
        self.sync()
        return begin

    def read(self, position: int) -> tuple[list[Entry], int]:
        """The entries of the durable block at a position, in order, and the position after it.

        Raises:  StorageError when there is none.
        """
        at = bisect_left(self._blocks, position, key=lambda block: block.position)
        block = self._blocks[at] if at < len(self._blocks) else None
        if block is None or block.position != position or block.upto > self._durable:
            raise StorageError(f"memory: there is no durable block at position {position}; nothing was changed")
        return [entry for record in block.records for entry in decode_record(record)], block.end

    def cut(self, position: int) -> None:
        """Nothing below this position is needed any more; durable blocks in whole stretches below it go."""
        upto = position - position % self._segment_bytes
        gone = 0
        for block in self._blocks:
            if block.end > upto or block.upto > self._durable:
                break
            self._first = (block.end, block.upto)
            gone += 1
        del self._blocks[:gone]

    def crash(self, keep: int = 0) -> int:
        """Lose what was not synced but for its first ``keep`` records; how many were lost. What is left is durable.

        A block is lost whole or not at all.
        """
        before = self.staged
        survive = self._whole(min(self._durable + keep, before))
        while self._blocks and self._blocks[-1].upto > survive:
            self._blocks.pop()
        self._durable = survive
        return before - survive

    def close(self) -> None:
        """Nothing to release; records stay for the next start."""

    def _whole(self, count: int) -> int:
        """How many of the first ``count`` records are in blocks that end there or before."""
        for block in reversed(self._blocks):
            if block.upto <= count:
                return block.upto
        return self._first[1]
