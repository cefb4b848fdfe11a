"""Reading the log of a node that goes on writing it, and writing a log that a node can start from.

The question: where does a log end that still grows? Where it ended when the copy began, or a busy node would never be copied; at the
latest at the first place where no whole block stands. A block that is just being written looks like damage for a moment, so what stands
there is looked at again before anything is called damage; and the last block may not be durable yet, so its file is synced before it
counts, as the node itself would do: a block that a power cut takes from the node must not be in a backup of it, or two different commits
could bear one number.

The caller has pinned the log (``cutting``), so no segment goes meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from crdtstore.errors import StorageError
from crdtstore.storage import segment
from crdtstore.storage.segment import OVERHEAD_BYTES

__all__ = ["Found", "NewLog", "end_of", "read_blocks"]


class Found(NamedTuple):
    """A block as it stands in the log."""

    position: int
    records: list[bytes]
    end: int


class _File:
    """One segment, read block by block."""

    def __init__(self, path: Path, generation: int) -> None:
        self.path = path
        self.generation = generation
        with segment.naming(path):
            self._fd = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        os.close(self._fd)

    def _read(self, offset: int, length: int) -> bytes:
        parts = []
        while length > 0:
            with segment.naming(self.path, offset):
                part = os.pread(self._fd, length, offset)
            if not part:
                break
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(parts)

    def header(self) -> segment.Header | None:
        header = segment.header_of(self._read(0, OVERHEAD_BYTES))
        return header if header is not None and header.generation == self.generation else None

    def block(self, offset: int, position: int) -> segment.Block | None:
        """The valid block at this offset, whose ``end`` counts from there."""
        head = self._read(offset, OVERHEAD_BYTES)
        if len(head) < OVERHEAD_BYTES or segment.block_bytes(head) > os.fstat(self._fd).st_size - offset:
            return None
        data = head + self._read(offset + len(head), segment.block_bytes(head) - len(head))
        return segment.block_at(data, 0, self.generation, position)

    def end(self, position: int) -> int:
        """The position after the last of the blocks that seem to stand here."""
        offset, size = OVERHEAD_BYTES, os.fstat(self._fd).st_size
        while offset + OVERHEAD_BYTES <= size:
            head = self._read(offset, OVERHEAD_BYTES)
            found = int.from_bytes(head[:8], "little"), int.from_bytes(head[8:16], "little")
            if len(head) < OVERHEAD_BYTES or found != (self.generation, position):
                break
            offset, position = offset + segment.block_bytes(head), position + segment.block_bytes(head)
        return position

    def later_block(self, offset: int, position: int) -> int | None:
        """The offset of a valid block somewhere after this one."""
        rest = self._read(offset, os.fstat(self._fd).st_size - offset)
        found = segment.find_block(rest, 0, self.generation, position)
        return None if found is None else offset + found

    def sync(self) -> None:
        with segment.naming(self.path):
            os.fdatasync(self._fd)


def end_of(log: Path) -> int:
    """The position where a log seems to end, by what its blocks say of their lengths; what is below is still to be checked.

    Cost:    a look at each block of the newest segment.
    Raises:  StorageError naming the file.
    """
    for generation in reversed(segment.generations(log)):
        file = _File(segment.path_of(log, generation), generation)
        try:
            header = file.header()
            if header is not None:
                return file.end(header.position)
        finally:
            file.close()
    return 0


def read_blocks(log: Path, needed: int, until: int = 1 << 63) -> Iterator[Found]:
    """The blocks of a log from this position to the last that begins before ``until``, or its durable end; the caller has pinned it.

    Cost:    one block in memory.
    Raises:  StorageError naming file and offset for damage, or when the log begins later; nothing changed.
    """
    generation = _first(log, needed)
    if generation is None:
        return
    position: int | None = None
    while (position is None or position < until) and (file := _open(log, generation, position)) is not None:
        try:
            header = file.header()
            assert header is not None
            position = header.position if position is None else position
            offset = OVERHEAD_BYTES
            while position < until and (block := _block(file, offset, position)) is not None:
                if position >= needed:
                    yield Found(position, block.records, position + block.end)
                offset, position = offset + block.end, position + block.end
            file.sync()
        finally:
            file.close()
        generation += 1
    assert position is not None
    if position < needed:
        path = segment.path_of(log, generation - 1)
        raise _damage(path, offset, f"the log ends at position {position}, the checkpoint needs it from {needed} on")


def _first(log: Path, needed: int) -> int | None:
    """The segment in which a position lies; None when there is no log yet."""
    found: int | None = None
    for generation in segment.generations(log):
        path = segment.path_of(log, generation)
        file = _File(path, generation)
        try:
            header = file.header()
        finally:
            file.close()
        if header is None:
            continue
        if header.format != segment.FORMAT:
            raise StorageError(f"{path}: format {header.format}, this program reads {segment.FORMAT}. Nothing changed.")
        if header.position <= needed:
            found = generation
        elif found is None:
            raise _damage(
                path, 0, f"the log begins at position {header.position}, the checkpoint needs it from {needed} on"
            )
    if found is None and needed:
        raise _damage(log, 0, f"there is no log, the checkpoint needs it from {needed} on")
    return found


def _open(log: Path, generation: int, position: int | None) -> _File | None:
    """The segment of this generation if it is in use and goes on at this position."""
    path = segment.path_of(log, generation)
    if not path.exists():
        return None
    file = _File(path, generation)
    header = file.header()
    if header is None or (position is not None and header.position != position):
        file.close()
        if header is not None:
            raise _damage(path, 0, f"it begins at position {header.position}, the segment before ends at {position}")
        return None
    return file


def _block(file: _File, offset: int, position: int) -> segment.Block | None:
    """The block here; None at the end of the segment."""
    block = file.block(offset, position)
    if block is None and (later := file.later_block(offset + 1, position + 1)) is not None:
        block = file.block(offset, position)  # it was being written a moment ago
        if block is None:
            raise _damage(file.path, offset, f"no valid block, but a later one at byte {later}")
    return block


def _damage(path: Path, offset: int, why: str) -> StorageError:
    return segment.damage(path, offset, f"{why}; nothing was changed")


class NewLog:
    """A log that is being written for a node that is to start from it. It begins at a position, as after a cut; blocks stand at positions
    of their own: where records were left out the later ones move up. Whole only after ``close``.
    """

    def __init__(self, log: Path, segment_bytes: int, position: int) -> None:
        self.directory = log
        self.position = position
        self._segment_bytes = segment_bytes
        self._generation = 0
        self._fd = -1
        self._offset = self._size = 0
        with segment.naming(log):
            log.mkdir()
        self._next(0)

    def _next(self, least_bytes: int) -> None:
        self._sync()
        self._generation += 1
        self._size = max(self._segment_bytes, OVERHEAD_BYTES + least_bytes)
        path = self._path
        with segment.naming(path):
            segment.create(path, self._size)
            self._fd = os.open(path, os.O_RDWR)
            segment.write_all(self._fd, segment.make_header(self._generation, self.position), 0)
        self._offset = OVERHEAD_BYTES

    @property
    def _path(self) -> Path:
        return segment.path_of(self.directory, self._generation)

    def write(self, records: Sequence[bytes]) -> None:
        """Append one block.

        Raises:  StorageError naming the file.
        """
        block = segment.make_block(self._generation, self.position, records)
        if self._offset + len(block) > self._size:
            self._next(len(block))
            block = segment.make_block(self._generation, self.position, records)
        with segment.naming(self._path):
            segment.write_all(self._fd, block, self._offset)
        self._offset += len(block)
        self.position += len(block)

    def close(self) -> None:
        """Make it durable.

        Raises:  StorageError naming the file.
        """
        self._sync()
        with segment.naming(self.directory):
            segment.sync_directory(self.directory)

    def _sync(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                with segment.naming(self._path):
                    os.fsync(fd)
            finally:
                os.close(fd)
