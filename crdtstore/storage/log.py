"""The commit log of a node: segments in a directory, one sync per write.

The question: what may be done after a write or a sync failed? After an error of the disk, nothing. The kernel may have
dropped the bytes and still show them to a reader, so the log refuses every later write and says why; the next start
reads what is there, writes the last block again and syncs it before anything is built on it. A full disk is not an
error of the disk: the end of the log is where it was, and what did not fit is written again, whole, at the same place.

The writer thread makes few, big C calls, because Python code starves in a thread beside a busy event loop. The
segment after the current one is prepared in the background, or recycled by ``cut``; its header is written together with
its first block.

Source: DESIGN.md 5.
"""

from __future__ import annotations

import fcntl
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Self

from crdtstore.errors import StorageError
from crdtstore.storage import cutting, segment
from crdtstore.storage.crashpoints import reach
from crdtstore.storage.protocol import Entry
from crdtstore.storage.reader import BlockReader
from crdtstore.storage.record import encode_record
from crdtstore.storage.recovery import recover
from crdtstore.storage.segment import OVERHEAD_BYTES

__all__ = ["SEGMENT_BYTES", "SegmentedLog"]

SEGMENT_BYTES = 64 << 20
"""What a segment holds unless the configuration says otherwise."""


class SegmentedLog:
    """A ``CommitLog`` on disk. ``encode`` and ``read`` are anybody's, everything else belongs to one thread at a time.

    ``syncs``, ``records`` and ``bytes_written`` count since the start; ``position`` is the length of the log in bytes
    of blocks, all of them durable; ``torn`` says in words which torn tail ``replay`` removed, if there was one.
    """

    def __init__(self, directory: Path, segment_bytes: int, lock: int) -> None:
        self.directory = directory
        self.syncs = self.records = self.bytes_written = self.position = 0
        self.torn: str | None = None
        self._segment_bytes = segment_bytes
        self._lock = lock
        self._ready = False
        self._failure: StorageError | None = None
        self._ahead: Thread | None = None
        self._reader = BlockReader(directory)
        self._segments: tuple[tuple[int, int], ...] = ()
        """Position and generation of those that hold durable blocks; replaced, never changed: readers look at it."""
        self._names: dict[int, tuple[int, int] | None] = {}
        """Which file each of them is, and the current one."""
        self._needed = 0
        """What is below this position may be gone."""
        self._unneeded: list[int] = []
        """Generations below these that wait for the next cut."""
        # The current segment; generation 0 while there is none.
        self._generation = 0
        self._path = directory
        self._fd = -1
        self._offset = self._size = 0
        self._is_recycled = False
        self._is_soiled = False
        """Whether a write that failed may have left a block at the end."""

    @classmethod
    def open(cls, directory: str | Path, segment_bytes: int = SEGMENT_BYTES) -> Self:
        """Take the log in this directory, which is made if it is not there.

        Raises:  StorageError when another process has it or the directory cannot be used; nothing is changed then.
        """
        directory = Path(directory)
        with segment.naming(directory):
            segment.make_directory(directory)
            lock = _lock(directory)
            for unfinished in directory.glob("*.new"):
                unfinished.unlink()
        return cls(directory, segment_bytes, lock)

    def close(self) -> None:
        """Give the directory back."""
        self._ready = False
        self._join_ahead()
        self._reader.close()
        for fd in (self._fd, self._lock):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def held(self) -> tuple[int, int]:
        """The first position that is held, and how many segments hold durable blocks."""
        segments = self._segments
        return (segments[0][0] if segments else self.position), len(segments)

    def replay(self, needed: int = 0) -> Iterator[tuple[int, list[Entry]]]:
        """All records from the segment that holds ``needed``, in order, each with the position of its block.

        The log can be written once this is exhausted.

        Raises:  StorageError naming file and offset for damage, or when the log does not reach from ``needed`` or below
                 to ``needed`` or above; nothing is changed then.
        """
        assert not self._ready, "replay is the first thing done with a log, and done once"
        tail = yield from recover(self.directory, needed)
        self.position, self.torn = tail.position, tail.torn
        self._segments, self._unneeded, self._needed = tuple(tail.segments), tail.unneeded, needed
        for _, generation in self._segments:
            path = segment.path_of(self.directory, generation)
            with segment.naming(path):
                self._names[generation] = segment.identity_of(path)
        if tail.generation:
            self._use(tail.generation, tail.offset)
        else:
            self._provide(1, OVERHEAD_BYTES)
        self._ready = True

    def encode(self, entries: Sequence[Entry]) -> bytes:
        """One record, for ``write``."""
        return encode_record(entries)

    def write(self, records: Sequence[bytes]) -> int:
        """Append the records as one block and make it durable; return its position.

        Cost:    one checksum, one pwrite, one fdatasync, all in C; a full segment adds the switch to the prepared one.
        Raises:  StorageError. With ``storage-full`` nothing of this counts yet, and it may be tried again. Otherwise it
                 is for ever, every later ``write`` raises it too, and whether these records survive shows at the next
                 start.
        """
        assert self._ready, "write needs a log that was replayed to its end and is not closed"
        if self._failure is not None:
            when = "" if isinstance(self._failure, cutting.SegmentLost) else ", at an earlier write"
            why = f"{self._failure.detail}{when}; nothing was written now"
            raise StorageError(why, code=self._failure.code)
        begin = self.position
        if not records:
            return begin
        try:
            self._append(records)
        except StorageError as error:
            what_now = "this was not written, and may be tried again"
            if error.code != "storage-full":
                self._failure = error
                what_now = "the log takes no more writes until a restart"
            failed = StorageError(f"{error.detail}; {what_now}", code=error.code, **error.more)
            failed.effect = "unknown"
            raise failed from error
        self.records += len(records)
        self.syncs += 1
        return begin

    def read(self, position: int) -> tuple[list[Entry], int]:
        """The entries of the durable block at a position, in order, and the position after it.

        Cost:    a binary search, and one or two calls for bytes that the kernel mostly has.
        Raises:  StorageError naming file and offset when it cannot be read; nothing is changed.
        """
        end = self.position  # first: what is below it is in the segments by now
        segments = self._segments
        at = bisect_right(segments, position, key=lambda each: each[0]) - 1
        if at < 0 or position >= end:
            held = f"it holds positions {segments[0][0] if segments else end} to {end}"
            why = f"{self.directory}: the log has no durable block at position {position}, {held}; nothing was changed"
            raise StorageError(why)
        begins, generation = segments[at]
        if at + 1 < len(segments):
            end = min(end, segments[at + 1][0])
        offset = OVERHEAD_BYTES + position - begins
        entries, taken = self._reader.read(generation, offset, position, end - position)
        return entries, position + taken

    def cut(self, position: int) -> None:
        """Remove the segments that lie wholly below this position; one of them is kept as the next segment.

        While somebody has pinned the log, nothing goes until a later cut.

        Raises:  StorageError; some may be gone then, the others go with a later cut. SegmentLost: one that is needed is not
                 what it was; nothing goes, and it is for ever as when a write fails.
        """
        assert self._ready, "cut needs a log that was replayed to its end and is not closed"
        self._needed = max(self._needed, position)
        try:
            self._check_names()
        except cutting.SegmentLost as error:
            self._failure = error
            raise
        segments, keep = self._segments, self._first(position)
        generations = self._unneeded + [generation for _, generation in segments[:keep]]
        if not generations:
            return
        if cutting.remove(self.directory, generations, self._spare(), self._segment_bytes):
            self._segments, self._unneeded = segments[keep:], []
            self._reader.forget(generations)
            for generation in generations:
                self._names.pop(generation, None)

    def _first(self, position: int) -> int:
        """Which of the segments holds a position."""
        return max(0, bisect_right(self._segments, position, key=lambda each: each[0]) - 1)

    def _check_names(self) -> None:
        needed = self._segments[self._first(self._needed) :]
        cutting.check_names(self.directory, self._names, (generation for _, generation in needed))

    def _append(self, records: Sequence[bytes]) -> None:
        block = segment.make_block(self._generation, self.position, records)
        if max(self._offset, OVERHEAD_BYTES) + len(block) > self._size:
            self._switch(OVERHEAD_BYTES + len(block))
            block = segment.make_block(self._generation, self.position, records)
        data = block if self._offset else self._header() + block
        reach("log-write-before")
        with segment.naming(self._path, self._offset):
            self._is_soiled = True
            segment.write_all(self._fd, data, self._offset)
            reach("log-write-after")
            reach("log-sync-before")
            os.fdatasync(self._fd)
            self._is_soiled = False
        reach("log-sync-after")
        if not self._offset:
            self._segments += ((self.position, self._generation),)
        self._offset += len(data)
        self.position += len(block)
        self.bytes_written += len(data)
        if self._ahead is None and self._offset > self._size // 2:
            self._ahead = Thread(target=self._prepare, args=(self._generation + 1,), name="commit-log-ahead")
            self._ahead.start()

    def _header(self) -> bytes:
        return segment.make_header(self._generation, self.position, is_recycled=self._is_recycled)

    def _switch(self, least_bytes: int) -> None:
        """Go on in a segment with room for this much."""
        reach("log-switch-before")
        self._check_names()
        self._join_ahead()
        generation = self._generation + 1
        if self._generation and not self._offset:
            generation = self._generation  # nothing in it counts: it is replaced, a segment in use is never empty
            self._size = 0  # should that fail, nothing fits here: the file that is open may have lost its name already
        self._provide(generation, least_bytes)
        if generation > self._generation and self._is_soiled:
            # What could not be synced here may be durable all the same; it is written elsewhere now, and counts once.
            with segment.naming(self._path, self._offset):
                segment.write_all(self._fd, bytes(min(OVERHEAD_BYTES, self._size - self._offset)), self._offset)
                os.fdatasync(self._fd)
        self._use(generation, 0)
        reach("log-switch-after")

    def _use(self, generation: int, offset: int) -> None:
        path = segment.path_of(self.directory, generation)
        with segment.naming(path):
            fd = os.open(path, os.O_RDWR)
            size = os.fstat(fd).st_size
            self._names[generation] = segment.identity_of(fd)
        self._is_recycled = segment.read_header(path) is not None
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._size, self._is_soiled = fd, size, False
        self._generation, self._path, self._offset = generation, path, offset

    def _provide(self, generation: int, least_bytes: int) -> None:
        """See to it that there is an unused segment with room for this much."""
        path = segment.path_of(self.directory, generation)
        with segment.naming(path):
            if not path.exists() or path.stat().st_size < least_bytes:
                segment.create(path, max(self._segment_bytes, least_bytes))

    def _spare(self) -> int | None:
        """The segment that a recycled file may become: the first that has no file, and is not being made."""
        first = self._generation + (1 if self._ahead is None or not self._ahead.is_alive() else 2)
        for generation in range(first, self._generation + 3):
            if not segment.path_of(self.directory, generation).exists():
                return generation
        return None

    def _prepare(self, generation: int) -> None:
        # In the background; whoever needs the segment tries again, and reports.
        with suppress(StorageError):
            self._provide(generation, OVERHEAD_BYTES)

    def _join_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.join()
            self._ahead = None


def _lock(directory: Path) -> int:
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(OSError):  # who holds it is told to people only; on a full disk it cannot be
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(fd, 20, 0).decode().strip() or "unknown"
        os.close(fd)
        raise StorageError(
            f"{directory}: the commit log is in use by process {holder}, and only one may have it; nothing was changed"
        ) from None
    except OSError:
        os.close(fd)
        raise
    return fd
