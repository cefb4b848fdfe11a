"""The state store in memory, with the crashes of a disk.

The question: what does a crash take? All that was not committed, and nothing else. Rows are sealed and checked as on a disk, so the
simulator runs on the same bytes as a node. Nothing here reads a clock or draws a number.
"""

from __future__ import annotations

from sortedcontainers import SortedDict

from crdtstore.storage.protocol import Row, Slice
from crdtstore.storage.rows import CHECK_BYTES, seal, unseal

__all__ = ["MemoryState"]

_NAME = "state in memory"


class MemoryState:
    """A ``StateStore`` without a file. Mutable; ``commits`` counts since it was made."""

    def __init__(self) -> None:
        self.commits = 0
        self._rows: SortedDict[bytes, bytes] = SortedDict()
        self._staged: SortedDict[bytes, bytes | None] = SortedDict()
        """What the open transaction puts, or removes (None)."""
        self._pins: list[_Pin] = []

    def rows(self, start: bytes, end: bytes, limit: int = -1) -> list[Row]:
        """Rows from ``start`` up to, without, ``end``, ascending, at most so many (-1: all); only what was committed.

        Raises:  StorageError naming the row that is not what was written.
        """
        return _read(self._rows, None, start, end, limit)

    def write(self, part: Slice) -> tuple[int, int]:
        """Write into the transaction that the first call opens; by how much the number of rows and the bytes of data change."""
        count = size = 0
        for start, end in part.ranges:
            inside = {*self._rows.irange(start, end, (True, False)), *self._staged.irange(start, end, (True, False))}
            for path in sorted(inside):
                change = self._put(path, None)
                count, size = count + change[0], size + change[1]
        removed: list[tuple[bytes, bytes | None]] = [(path, None) for path in part.gone]
        for path, data in [*removed, *seal(part.rows)]:
            change = self._put(path, data)
            count, size = count + change[0], size + change[1]
        return count, size

    def _put(self, path: bytes, data: bytes | None) -> tuple[int, int]:
        before = self._staged[path] if path in self._staged else self._rows.get(path)
        self._staged[path] = data
        rows = (data is not None) - (before is not None)
        return rows, len(data or b"") - len(before or b"") - rows * CHECK_BYTES

    def commit(self) -> None:
        """Make what was written visible and durable."""
        for path, data in self._staged.items():
            for pin in self._pins:
                pin.before.setdefault(path, self._rows.get(path))
            if data is None:
                self._rows.pop(path, None)
            else:
                self._rows[path] = data
        self._staged.clear()
        self.commits += 1

    @property
    def is_open(self) -> bool:
        """Whether something was written and neither committed nor rolled back."""
        return bool(self._staged)

    def rollback(self) -> None:
        """Forget what was written since the last commit."""
        self._staged.clear()

    def crash(self) -> int:
        """Lose what was not committed; how many rows of it there were."""
        lost = len(self._staged)
        self._staged.clear()
        self._pins.clear()
        return lost

    def damage(self, path: bytes, bit: int = 0) -> None:
        """Flip a bit of the data that is kept in a committed row: what a disk may do."""
        data = bytearray(self._rows[path])
        data[bit // 8 % len(data)] ^= 1 << bit % 8
        self._rows[path] = bytes(data)

    def pin(self) -> _Pin:
        """What is committed now, whatever is committed later."""
        pin = _Pin(self._rows, self._pins)
        self._pins.append(pin)
        return pin

    def close(self) -> None:
        """Nothing to release; committed rows stay for the next start."""
        self.rollback()


class _Pin:
    """The rows at one instant: those of the store, but for what changed since (``before``)."""

    def __init__(self, rows: SortedDict[bytes, bytes], pins: list[_Pin]) -> None:
        self.before: SortedDict[bytes, bytes | None] = SortedDict()
        self._rows, self._pins = rows, pins

    def rows(self, start: bytes, end: bytes, limit: int = -1) -> list[Row]:
        assert self in self._pins, "a pin that was closed, or lost in a crash"
        return _read(self._rows, self.before, start, end, limit)

    def close(self) -> None:
        if self in self._pins:
            self._pins.remove(self)


def _read(
    rows: SortedDict[bytes, bytes],
    over: SortedDict[bytes, bytes | None] | None,
    start: bytes,
    end: bytes,
    limit: int,
) -> list[Row]:
    if start >= end or not limit:
        return []
    found: list[Row] = []
    paths = rows.irange(start, end, (True, False))
    if over:
        paths = iter(sorted({*paths, *over.irange(start, end, (True, False))}))
    for path in paths:
        data = over[path] if over and path in over else rows[path]
        if data is not None:
            found.append((path, data))
            if len(found) == limit:
                break
    return unseal(found, _NAME)
