"""The commit log in memory, with the crashes of a disk.

The question: what may a power cut take? Everything after the last sync, and of that any tail; so records are first
staged, then synced, and a crash says how many of the staged ones happened to survive. Records are really encoded and
decoded: the simulator runs on the same bytes as a node. Nothing here reads a clock or draws a number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crdtstore.storage.protocol import Entry
from crdtstore.storage.record import decode_record, encode_record

__all__ = ["MemoryLog"]


class MemoryLog:
    """A ``CommitLog`` whose sync is a call of its own, so that a simulator can acknowledge later than it is asked."""

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self._durable = 0

    @property
    def durable(self) -> int:
        """How many records a crash cannot take."""
        return self._durable

    @property
    def staged(self) -> int:
        """How many records there are, durable or not."""
        return len(self._records)

    def replay(self) -> Iterator[list[Entry]]:
        """All records there are, in order."""
        yield from map(decode_record, list(self._records))

    def encode(self, entries: Sequence[Entry]) -> bytes:
        """One record, for ``stage`` or ``write``."""
        return encode_record(entries)

    def stage(self, records: Sequence[bytes]) -> int:
        """Append without making durable; the number to ``sync`` up to for these to be safe."""
        self._records.extend(records)
        return len(self._records)

    def sync(self, upto: int | None = None) -> None:
        """Make the first ``upto`` records of the log durable, all of them without a number."""
        target = len(self._records) if upto is None else upto
        assert target <= len(self._records), f"sync up to {target} of {len(self._records)} records"
        self._durable = max(self._durable, target)

    def write(self, records: Sequence[bytes]) -> None:
        """Stage and sync in one."""
        self.stage(records)
        self.sync()

    def crash(self, keep: int = 0) -> int:
        """Lose what was not synced but for its first ``keep`` records; how many were lost. What is left is durable."""
        survive = min(self._durable + keep, len(self._records))
        lost = len(self._records) - survive
        del self._records[survive:]
        self._durable = survive
        return lost

    def close(self) -> None:
        """Nothing to release; records stay for the next start."""
