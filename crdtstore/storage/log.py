"""The commit log of a node: segments in a directory, one sync per write.

The question: what may be done after a write or a sync failed? Nothing. The kernel may have dropped the bytes and
still show them to a reader, so the log refuses every later write and says why; the next start reads what is there,
writes the last block again and syncs it before anything is built on it.

The writer thread makes few, big C calls, because Python code starves in a thread beside a busy event loop. The
segment after the current one is prepared in the background and consists of zeros until its header is written together
with its first block.

Source: DESIGN.md 5.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Self

from crdtstore.errors import StorageError
from crdtstore.storage import segment
from crdtstore.storage.protocol import Entry
from crdtstore.storage.record import decode_record, encode_record
from crdtstore.storage.recovery import recover
from crdtstore.storage.segment import OVERHEAD_BYTES

__all__ = ["SEGMENT_BYTES", "SegmentedLog"]

SEGMENT_BYTES = 64 << 20
"""What a segment holds unless the configuration says otherwise."""


class SegmentedLog:
    """A ``CommitLog`` on disk. ``encode`` is the event loop's, everything else belongs to one thread at a time.

    ``syncs``, ``records`` and ``bytes_written`` count since the start; ``position`` is the length of the log in bytes
    of blocks; ``torn`` says in words which torn tail ``replay`` removed, if there was one.
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
        # The current segment; generation 0 while there is none.
        self._generation = 0
        self._path = directory
        self._fd = -1
        self._offset = self._size = 0

    @classmethod
    def open(cls, directory: str | Path, segment_bytes: int = SEGMENT_BYTES) -> Self:
        """Take the log in this directory, which is made if it is not there.

        Raises:  StorageError when another process has it or the directory cannot be used; nothing is changed then.
        """
        directory = Path(directory)
        with segment.naming(directory):
            _make_durable(directory)
            lock = _lock(directory)
            for unfinished in directory.glob("*.new"):
                unfinished.unlink()
        return cls(directory, segment_bytes, lock)

    def close(self) -> None:
        """Give the directory back."""
        self._ready = False
        self._join_ahead()
        for fd in (self._fd, self._lock):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def replay(self, needed: int = 0) -> Iterator[tuple[int, list[Entry]]]:
        """All records, in order, each with the position of its block; the log can be written once this is exhausted.

        Raises:  StorageError naming file and offset for damage; nothing is changed then.
        """
        assert not self._ready, "replay is the first thing done with a log, and done once"
        tail = yield from recover(self.directory)
        self.position, self.torn = tail.position, tail.torn
        self._generation = tail.generation
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
        Raises:  StorageError, and for ever: every later ``write`` raises it too. Whether these records survive shows at
                 the next start.
        """
        assert self._ready, "write needs a log that was replayed to its end and is not closed"
        if self._failure is not None:
            why = f"{self._failure.detail}, at an earlier write; nothing was written now"
            raise StorageError(why, code=self._failure.code)
        begin = self.position
        if not records:
            return begin
        try:
            self._append(records)
        except StorageError as error:
            self._failure = error
            final = StorageError(f"{error.detail}; the log takes no more writes until a restart", code=error.code)
            final.effect = "unknown"
            raise final from error
        self.records += len(records)
        self.syncs += 1
        return begin

    def cut(self, position: int) -> None:
        """Nothing below this position is needed any more: what lies wholly below it may go."""

    def read(self, position: int) -> tuple[list[Entry], int]:
        """The entries of the durable block at a position, in order, and the position after it."""
        for generation in reversed(range(1, self._generation + 1)):
            data = segment.path_of(self.directory, generation).read_bytes()
            header = segment.header_of(data)
            if header is not None and header.position <= position:
                offset = OVERHEAD_BYTES + position - header.position
                block = segment.block_at(data, offset, generation, position)
                if block is not None:
                    entries = [entry for record in block.records for entry in decode_record(record)]
                    return entries, position + block.end - offset
                break
        raise StorageError(f"{self.directory}: there is no block at position {position}")

    def _append(self, records: Sequence[bytes]) -> None:
        data = block = segment.make_block(self._generation, self.position, records)
        if self._offset + len(block) > self._size:
            self._join_ahead()
            self._provide(self._generation + 1, OVERHEAD_BYTES + len(block))
            self._use(self._generation + 1, 0)
            block = segment.make_block(self._generation, self.position, records)
            data = segment.make_header(self._generation, self.position) + block
        with segment.naming(self._path):
            segment.write_all(self._fd, data, self._offset)
            os.fdatasync(self._fd)
        self._offset += len(data)
        self.position += len(block)
        self.bytes_written += len(data)
        if self._ahead is None and self._offset > self._size // 2:
            self._ahead = Thread(target=self._prepare, args=(self._generation + 1,), name="commit-log-ahead")
            self._ahead.start()

    def _use(self, generation: int, offset: int) -> None:
        path = segment.path_of(self.directory, generation)
        with segment.naming(path):
            fd = os.open(path, os.O_RDWR)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._size = fd, os.fstat(fd).st_size
        self._generation, self._path, self._offset = generation, path, offset

    def _provide(self, generation: int, least_bytes: int) -> None:
        """See to it that there is an unused segment with room for this much."""
        path = segment.path_of(self.directory, generation)
        with segment.naming(path):
            if not path.exists() or path.stat().st_size < least_bytes:
                segment.create(path, max(self._segment_bytes, least_bytes))

    def _prepare(self, generation: int) -> None:
        # In the background; whoever needs the segment tries again, and reports.
        with suppress(StorageError):
            self._provide(generation, OVERHEAD_BYTES)

    def _join_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.join()
            self._ahead = None


def _make_durable(directory: Path) -> None:
    """Make the directory and its parents, so that their names survive too."""
    if not directory.is_dir():
        _make_durable(directory.parent)
        directory.mkdir(exist_ok=True)
        segment.sync_directory(directory.parent)


def _lock(directory: Path) -> int:
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
