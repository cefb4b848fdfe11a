"""What a start reads from the segments of a log, and what it may cut.

The question: torn or damaged? A block that is not valid with a valid one after it, in its segment or in a later one,
had been promised: damage, refused by file and offset. With nothing after it, it is what a power cut left of the last
write: cut. (A bit flipped in the very last block looks the same; the hello of a peer that saw the commits
contradicts.)

Source: DESIGN.md 5.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from crdtstore.errors import DecodeError, StorageError
from crdtstore.storage import segment
from crdtstore.storage.protocol import Entry
from crdtstore.storage.record import decode_record
from crdtstore.storage.segment import FORMAT, OVERHEAD_BYTES

__all__ = ["Tail", "recover"]


@dataclass(slots=True)
class Tail:
    """Where the log ends: the last segment in use (generation 0: none), the position, and what was cut, in words."""

    generation: int = 0
    position: int = 0
    offset: int = 0
    torn: str | None = None


def recover(directory: Path) -> Generator[tuple[int, list[Entry]], None, Tail]:
    """All records in order, each with the position of its block; at last the tail, mended and on disk.

    The last block is written once more: a sync that failed before this start may have left it in memory only, marked
    as clean.

    Raises:  StorageError naming file and offset for damage; nothing is changed then.
    """
    tail, data, last_block = Tail(), b"", 0
    for generation in count(1):
        path = segment.path_of(directory, generation)
        following = _read(path)
        if not _is_begun(path, following, tail):
            break
        data, last_block = following, 0
        tail.generation, tail.offset = generation, OVERHEAD_BYTES
        while block := segment.block_at(data, tail.offset, generation, tail.position):
            for entries in _entries(path, tail.offset, block):
                yield tail.position, entries
            # The header is written, and therefore mended, together with the first block.
            last_block = tail.offset if tail.offset > OVERHEAD_BYTES else 0
            tail.position += block.end - tail.offset
            tail.offset = block.end
        later = segment.find_block(data, tail.offset, generation, tail.position)
        if later is not None:
            raise _damage(path, tail.offset, f"no valid block, but a later one at byte {later}")
    if tail.generation:
        _mend(segment.path_of(directory, tail.generation), tail, data, last_block)
    _drop_unused(directory, tail)
    return tail


def _read(path: Path) -> bytes:
    with segment.naming(path):
        return path.read_bytes() if path.exists() else b""


def _is_begun(path: Path, data: bytes, before: Tail) -> bool:
    """Whether blocks were written to this segment; ``before`` is the end of the one before it."""
    generation = before.generation + 1
    header = segment.header_of(data)
    if header is None or header.generation != generation:
        if segment.find_block(data, OVERHEAD_BYTES, generation, before.position) is not None:
            raise _damage(path, 0, "no valid header, but valid blocks")
        newest = max(segment.generations(path.parent), default=0)
        for later in range(generation + 1, newest + 1):
            begun = segment.header_of(_read(segment.path_of(path.parent, later)))
            if begun is not None and begun.generation == later:
                raise _damage(path, 0, f"no valid header{'' if data else ' (no file)'}, but segment {later} is in use")
        return False
    if header.format != FORMAT:
        raise StorageError(f"{path}: format {header.format}, this program reads format {FORMAT}; nothing was changed")
    if header.position != before.position:
        short = segment.path_of(path.parent, before.generation) if before.generation else path
        why = f"the log ends at position {before.position} here, but segment {generation} begins at {header.position}"
        raise _damage(short, before.offset, why)
    return True


def _entries(path: Path, offset: int, block: segment.Block) -> list[list[Entry]]:
    try:
        return [decode_record(record) for record in block.records]
    except DecodeError as error:
        raise _damage(path, offset, f"the checksum is right, but this is {error.detail}") from error


def _mend(path: Path, tail: Tail, data: bytes, last_block: int) -> None:
    torn = max(0, segment.used_bytes(data) - tail.offset)
    if torn:
        tail.torn = f"{path}: {torn} bytes after byte {tail.offset} are no block, never acknowledged, and were cut"
    with segment.naming(path):
        fd = os.open(path, os.O_WRONLY)
        try:
            segment.write_all(fd, data[last_block : tail.offset] + bytes(torn), last_block)
            os.fdatasync(fd)
        finally:
            os.close(fd)


def _drop_unused(directory: Path, tail: Tail) -> None:
    """Keep a prepared segment only when it is all zeros; one that was torn in its first write is made anew."""
    for generation in segment.generations(directory):
        path = segment.path_of(directory, generation)
        if generation > tail.generation and segment.used_bytes(_read(path)):
            tail.torn = f"{path}: holds no block, nothing in it was acknowledged, and was removed"
            with segment.naming(path):
                path.unlink()


def _damage(path: Path, offset: int, why: str) -> StorageError:
    return StorageError(
        f"{path}: damaged at byte {offset}: {why}. Acknowledged commits are missing, so this node does not start; "
        "nothing was changed. Restore the file, or rejoin with an empty directory",
        file=str(path),
        offset=offset,
    )
