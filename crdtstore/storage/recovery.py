"""What a start reads from the segments of a log, and what it may cut.

The question: torn or damaged? A block that is not valid with a valid one after it, in its segment or in a later one,
had been promised: damage, refused by file and offset. With nothing after it, it is what a power cut left of the last
write: cut. (A bit flipped in the very last block looks the same; the hello of a peer that saw the commits
contradicts.)

The log need not begin with the first segment ever written. A start reads from the segment that holds the position it
needs; segments below it are of no use to anybody, a power cut may have left any of them, and they wait for the next
cut.

Source: DESIGN.md 5.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from crdtstore.errors import PUT_BACK, DecodeError, StorageError
from crdtstore.storage import segment
from crdtstore.storage.protocol import Entry
from crdtstore.storage.record import decode_record
from crdtstore.storage.segment import FORMAT, OVERHEAD_BYTES, Header

__all__ = ["Tail", "recover"]


@dataclass(slots=True)
class Tail:
    """Where the log ends: the last segment in use (generation 0: none), the position, and what was cut, in words."""

    generation: int = 0
    position: int = 0
    offset: int = 0
    torn: str | None = None
    segments: list[tuple[int, int]] = field(default_factory=list)
    """Position and generation of each segment that was read."""
    unneeded: list[int] = field(default_factory=list)
    """Generations below these that still have a file."""


def recover(directory: Path, needed: int = 0) -> Generator[tuple[int, list[Entry]], None, Tail]:
    """All records from the segment that holds ``needed``, each with the position of its block; at last the tail.

    The tail is mended and on disk: the last block is written once more, because a sync that failed before this start
    may have left it in memory only, marked as clean.

    Raises:  StorageError naming file and offset for damage; nothing is changed then.
    """
    first = _first(directory, needed)
    tail, data, last_block, is_recycled = Tail(), b"", 0, False
    for generation in count(first):
        path = segment.path_of(directory, generation)
        following = segment.read_bytes(path)
        header = _header(path, following, generation, tail)
        if header is None:
            break
        data, last_block, is_recycled = following, 0, header.is_recycled
        tail.generation, tail.position, tail.offset = generation, header.position, OVERHEAD_BYTES
        tail.segments.append((header.position, generation))
        while block := segment.block_at(data, tail.offset, generation, tail.position):
            end = tail.position + block.end - tail.offset
            if tail.position < needed < end:
                raise _damage(path, tail.offset, f"this block begins below position {needed}, and ends above it")
            for entries in _entries(path, tail.offset, block):
                yield tail.position, entries
            # The header is written, and therefore mended, together with the first block.
            last_block = tail.offset if tail.offset > OVERHEAD_BYTES else 0
            tail.position, tail.offset = end, block.end
        later = segment.find_block(data, tail.offset, generation, tail.position)
        if later is not None:
            raise _damage(path, tail.offset, f"no valid block, but a later one at byte {later}")
    if tail.position < needed:
        path = segment.path_of(directory, tail.generation or first)
        why = f"the log ends at position {tail.position}, but was durable up to {needed} when the state was saved"
        raise _damage(path, tail.offset, why)
    if tail.generation:
        _mend(segment.path_of(directory, tail.generation), tail, data, last_block, is_recycled)
    _drop_unused(directory, tail)
    tail.unneeded = [generation for generation in segment.generations(directory) if generation < first]
    return tail


def _first(directory: Path, needed: int) -> int:
    """The segment that holds a position, or the one that is not there and should."""
    positions: dict[int, int] = {}
    older: list[int] = []
    for generation in segment.generations(directory):
        header = None
        with suppress(StorageError):  # it matters only if this one is needed, and then it is read again
            header = segment.read_header(segment.path_of(directory, generation))
        if header is not None and header.generation == generation:
            positions[generation] = header.position
        elif header is not None and header.generation < generation:
            older.append(header.generation)
        elif header is not None:
            path = segment.path_of(directory, generation)
            raise _damage(path, 0, f"this is segment {header.generation} under the name of another")
    if not positions:
        return _first_of_none(directory, older)
    holding = [generation for generation, position in positions.items() if position <= needed]
    if holding:
        return max(holding)
    begins = min(positions)
    if segment.path_of(directory, begins - 1).exists():
        return begins - 1
    why = f"no file, the log begins at position {positions[begins]}, but everything from {needed} on is needed"
    raise _damage(segment.path_of(directory, begins - 1), 0, why)


def _first_of_none(directory: Path, older: list[int]) -> int:
    """No segment has a valid header of its own: the log is new, or the only header that counts is spoilt."""
    for generation in segment.generations(directory):
        path = segment.path_of(directory, generation)
        if segment.beginning(segment.read_bytes(path), generation, 0) is not None:
            raise _damage(path, 0, "no valid header, but valid blocks")
    if older:
        missing = segment.path_of(directory, max(older) + 1)
        raise _damage(missing, 0, f"no file, but segment {max(older)} was in use and is recycled")
    return 1


def _header(path: Path, data: bytes, generation: int, before: Tail) -> Header | None:
    """The header of a segment to which blocks were written, None for one that is only prepared or not there."""
    header = segment.header_of(data)
    if header is None or header.generation < generation:
        if segment.beginning(data, generation, before.position) is not None:
            raise _damage(path, 0, "no valid header, but valid blocks")
        newest = max(segment.generations(path.parent), default=0)
        for later in range(generation + 1, newest + 1):
            begun = segment.read_header(segment.path_of(path.parent, later))
            if begun is not None and begun.generation == later:
                raise _damage(path, 0, f"no valid header{'' if data else ' (no file)'}, but segment {later} is in use")
        return None
    if header.format != FORMAT:
        raise StorageError(f"{path}: format {header.format}, this program reads format {FORMAT}; nothing was changed")
    if before.generation and header.position != before.position:
        short = segment.path_of(path.parent, before.generation)
        why = f"the log ends at position {before.position} here, but segment {generation} begins at {header.position}"
        raise _damage(short, before.offset, why)
    return header


def _entries(path: Path, offset: int, block: segment.Block) -> list[list[Entry]]:
    try:
        return [decode_record(record) for record in block.records]
    except DecodeError as error:
        raise _damage(path, offset, f"the checksum is right, but this is {error.detail}") from error


def _mend(path: Path, tail: Tail, data: bytes, last_block: int, is_recycled: bool) -> None:
    """Write the last block again, and something that is no block after it."""
    if is_recycled:
        begin = data[tail.offset : tail.offset + OVERHEAD_BYTES]
        wiped = len(begin) if begin.strip(b"\0") else 0
        if segment.resembles_block(begin, tail.generation, tail.position):
            tail.torn = f"{path}: the block at byte {tail.offset} is not whole, was never acknowledged, and was cut"
    else:
        wiped = max(0, segment.used_bytes(data) - tail.offset)
        if wiped:
            tail.torn = f"{path}: {wiped} bytes after byte {tail.offset} are no block, never acknowledged, and were cut"
    with segment.naming(path, last_block):
        fd = os.open(path, os.O_WRONLY)
        try:
            segment.write_all(fd, data[last_block : tail.offset] + bytes(wiped), last_block)
            os.fdatasync(fd)
        finally:
            os.close(fd)


def _drop_unused(directory: Path, tail: Tail) -> None:
    """Keep a prepared segment only when it is all zeros or a recycled one; what was torn in its first write is made anew."""
    for generation in segment.generations(directory):
        if generation <= tail.generation:
            continue
        path = segment.path_of(directory, generation)
        if segment.read_header(path) is None and segment.used_bytes(segment.read_bytes(path)):
            tail.torn = f"{path}: holds no block, nothing in it was acknowledged, and was removed"
            with segment.naming(path):
                path.unlink()


def _damage(path: Path, offset: int, why: str) -> StorageError:
    return segment.damage(
        path,
        offset,
        f"{why}. Acknowledged commits are missing, so this node does not start; nothing was changed. " + PUT_BACK,
    )
