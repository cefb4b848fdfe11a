"""A look at a log from outside: all that is sound in it, and all that is not.

The question: what may somebody see who reads files that another process writes? A block that is half there, a segment
that goes while it is read. So what looks wrong is read a second time before it is called wrong, and nothing is ever
changed. Unlike a start, this goes on behind damage, to count all of it. One segment is in memory at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from crdtstore.errors import StorageError
from crdtstore.storage import segment
from crdtstore.storage.segment import OVERHEAD_BYTES, Octets

__all__ = ["Damage", "Finding", "Part", "Prepared", "Started", "Torn", "inspect"]

_PAGE_BYTES = 1 << 12
_SECOND_LOOKS = 3
"""A tail that moves is followed so often."""


class Started(NamedTuple):
    """A segment in use begins here."""

    path: Path
    generation: int
    position: int
    size: int
    is_recycled: bool


class Part(NamedTuple):
    """A valid block. ``payload`` holds as long as the next finding is not asked for."""

    path: Path
    offset: int
    position: int
    size: int
    records: int
    payload: memoryview


class Damage(NamedTuple):
    """Bytes that were promised and are not what was written; ``size`` 0 when nobody can say how many."""

    path: Path
    offset: int
    size: int
    why: str


class Torn(NamedTuple):
    """The end of the log is no block: never acknowledged, or being written just now."""

    path: Path
    offset: int
    size: int


class Prepared(NamedTuple):
    """A segment that waits for its use; ``torn``: so many bytes of a first write that did not get far."""

    path: Path
    size: int
    torn: int


Finding = Started | Part | Damage | Torn | Prepared


class _Reached:
    """How far a segment was read. Mutable."""

    def __init__(self, path: Path, generation: int, position: int, data: Octets, is_recycled: bool) -> None:
        self.path = path
        self.generation = generation
        self.position = position
        self.offset = OVERHEAD_BYTES
        self.data = data
        self.is_recycled = is_recycled

    def walk(self) -> Iterator[Finding]:
        """All valid blocks from here on, and what is between them."""
        while True:
            yield from self._sound()
            later = segment.find_block(self.data, self.offset, self.generation, self.position)
            if later is None:
                return
            if not self._look_again(later):
                yield Damage(self.path, self.offset, later - self.offset, "no valid block")
                self.position += later - self.offset
                self.offset = later

    def drop(self) -> None:
        """Let the bytes go, to make room for another segment."""
        self.data = b""

    def follow(self) -> Iterator[Finding]:
        """What has been written since it was read."""
        if not self.data:
            self.data = _read(self.path)[0]
            yield from self.walk()
        for _ in range(_SECOND_LOOKS):
            if not self._look_again(len(self.data)):
                return
            yield from self.walk()

    def torn(self) -> Torn | None:
        """What stands behind the last block, if that is not what was there before."""
        if self.is_recycled:
            begin = self.data[self.offset : self.offset + OVERHEAD_BYTES]
            is_torn = segment.resembles_block(begin, self.generation, self.position)
            size = min(segment.block_bytes(begin), len(self.data) - self.offset) if is_torn else 0
        else:
            size = max(0, segment.used_bytes(self.data) - self.offset)
        return Torn(self.path, self.offset, size) if size else None

    def _sound(self) -> Iterator[Finding]:
        path, generation, offset, position = self.path, self.generation, self.offset, self.position
        view, block_end = memoryview(self.data), segment.block_end
        while True:
            end, records = block_end(view, offset, generation, position)
            if not end:
                break
            size = end - offset
            yield Part(path, offset, position, size, records, view[offset + OVERHEAD_BYTES : end])
            position += size
            offset = end
        self.offset, self.position = offset, position

    def _look_again(self, end: int) -> bool:
        """Read up to ``end`` once more; whether there is a valid block now."""
        begin = _read(self.path, self.offset, self.offset + OVERHEAD_BYTES)[0]
        if not segment.resembles_block(begin, self.generation, self.position):
            return False
        fresh = _read(self.path, self.offset, end)[0]
        if len(fresh) != end - self.offset or fresh == self.data[self.offset : end]:
            return False
        if not segment.block_end(memoryview(fresh), 0, self.generation, self.position)[0]:
            return False
        self.data = self.data[: self.offset] + fresh + self.data[end:]
        return True


def inspect(directory: Path, needed: int = 0) -> Iterator[Finding]:
    """Everything in the log of a directory, in order. A ``Torn`` comes last but for what is prepared.

    Segments that lie wholly below ``needed`` are passed over: a cut that was not finished leaves any of them.

    Raises:  StorageError when the directory cannot be read, or a segment has another format.
    """
    last: _Reached | None = None
    prepared: list[Prepared] = []
    with segment.naming(directory):
        generations = _needed(directory, segment.generations(directory), needed)
    for generation in generations:
        path = segment.path_of(directory, generation)
        if last is not None:
            last.drop()
        data, unreadable = _read(path)
        if not path.exists():  # cut meanwhile, and all before it too
            last, prepared = None, []
            continue
        for offset, why in unreadable:
            yield Damage(path, offset, _PAGE_BYTES, why)
        started = _started(path, generation, data)
        if isinstance(started, Prepared):
            prepared.append(started)
            continue
        if segment.header_of(data) is None:
            yield Damage(path, 0, OVERHEAD_BYTES, "no valid header, but valid blocks")
        if last is not None:
            yield from _join(last, generation, started.position, directory)
        prepared = []
        yield started
        last = _Reached(path, generation, started.position, data, started.is_recycled)
        del data
        yield from last.walk()
    if last is not None:
        yield from last.follow()
        torn = last.torn()
        if torn is not None:
            yield torn
    for each in prepared:
        if each.torn:
            yield Torn(each.path, 0, each.torn)
        yield each


def _needed(directory: Path, generations: list[int], needed: int) -> list[int]:
    """The segments from the one on that holds a position, as far as headers say it; all of them when none does."""
    if not needed:
        return generations
    found = 0
    for generation in generations:
        header = segment.header_of(_read(segment.path_of(directory, generation), 0, OVERHEAD_BYTES)[0])
        if header is not None and header.generation == generation and header.position <= needed:
            found = generation
    return [generation for generation in generations if generation >= found]


def _started(path: Path, generation: int, data: Octets) -> Started | Prepared:
    """What a segment is, by its header or, without one, by its first block."""
    header = segment.header_of(data)
    if header is not None and header.generation == generation:
        if header.format != segment.FORMAT:
            why = f"{path}: format {header.format}, this program reads format {segment.FORMAT}; nothing was changed"
            raise StorageError(why)
        return Started(path, generation, header.position, len(data), header.is_recycled)
    begins = segment.beginning(data, generation, 0)
    if begins is None:
        return Prepared(path, len(data), segment.used_bytes(data) if header is None else 0)
    return Started(path, generation, begins, len(data), True)


def _join(last: _Reached, generation: int, position: int, directory: Path) -> Iterator[Finding]:
    """What lies between the end of a segment and the beginning of the next one in use."""
    if last.position != position:
        yield from last.follow()
    missing = [segment.path_of(directory, between) for between in range(last.generation + 1, generation)]
    for path in missing:
        what = "no valid header" if path.exists() else "no file"
        size = position - last.position if len(missing) == 1 else 0
        yield Damage(path, 0, size, f"{what}, but segment {generation} is in use")
    if not missing and last.position != position:
        why = f"the log ends at position {last.position} here, but segment {generation} begins at {position}"
        yield Damage(last.path, last.offset, max(0, position - last.position), why)


def _read(path: Path, start: int = 0, end: int | None = None) -> tuple[Octets, list[tuple[int, str]]]:
    """A part of a file, zeros for pages that cannot be read, and which these are; nothing when there is no file."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return b"", []
    except OSError as error:
        return b"", [(0, str(error.strerror))]
    unreadable: list[tuple[int, str]] = []
    try:
        size = os.fstat(fd).st_size
        data = bytearray(max(0, (size if end is None else min(end, size)) - start))
        view = memoryview(data)
        at, step = 0, 1 << 23
        while at < len(data):
            try:
                length = os.preadv(fd, [view[at : at + step]], start + at)
            except OSError as error:
                if step > _PAGE_BYTES:
                    step = _PAGE_BYTES
                    continue
                unreadable.append((start + at, str(error.strerror)))
                length = min(step, len(data) - at)
            if not length:  # it has become shorter
                break
            at += length
    finally:
        os.close(fd)
    return data, unreadable
