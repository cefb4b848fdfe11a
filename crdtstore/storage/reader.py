"""Blocks of a log that is being written.

The question: who may read while another thread writes? Anybody, as long as he reads what is durable, by descriptors of
his own and by position in the file: a durable block never changes until its segment is cut. The few descriptors are
kept under a lock, because a cut closes those of segments that go, or their space would not come free.

Who reads one block after the other, for a peer that comes back, gets them out of spans that are read at once: a block holds
what was written in one moment, which may be a single commit. A span ends where the log is durable, since what is behind that
may still be replaced.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from threading import Lock

from crdtstore.errors import DecodeError
from crdtstore.storage import segment
from crdtstore.storage.protocol import Entry
from crdtstore.storage.record import decode_record
from crdtstore.storage.segment import OVERHEAD_BYTES

__all__ = ["BlockReader"]

_MOST_FILES = 4
_GUESS_BYTES = 1 << 14
"""Most blocks are smaller, and need one call."""
_SPAN_BYTES = 1 << 18


class BlockReader:
    """Reads blocks from the segments in a directory, from any thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fds: OrderedDict[int, int] = OrderedDict()
        self._lock = Lock()
        self._next = (0, 0)
        """Generation and offset behind the block that was read last."""
        self._span, self._span_at = b"", (0, 0)
        """Durable bytes that were read ahead, and where they begin."""

    def read(self, generation: int, offset: int, position: int, most_bytes: int) -> tuple[list[Entry], int]:
        """The entries of the block at this offset, which has this position, and the bytes it takes; at most so many.

        Cost:    one pread for a block up to 16 kB, two for a larger one; for blocks one after the other one for each 256 kB.
        Raises:  StorageError naming file and offset.
        """
        with self._lock:
            begin = offset - self._span_at[1]
            data = self._span
            is_there = generation == self._span_at[0] and 0 <= begin <= len(data) - OVERHEAD_BYTES
            if not is_there or begin + segment.block_bytes(data[begin : begin + OVERHEAD_BYTES]) > len(data):
                begin, data = 0, self._bytes_at(generation, offset, most_bytes)
            block = segment.block_at(data, begin, generation, position)
            if block is None and data is self._span:  # whoever can be read at all may be read better now
                self._span = b""
                begin, data = 0, self._bytes_at(generation, offset, most_bytes)
                block = segment.block_at(data, begin, generation, position)
            if block is None:
                self._span = b""
                path = segment.path_of(self._directory, generation)
                raise segment.damage(path, offset, f"no valid block of position {position}; nothing was changed")
            taken = block.end - begin
            self._next = (generation, offset + taken)
        try:
            return [entry for record in block.records for entry in decode_record(record)], taken
        except DecodeError as error:
            why = f"the checksum is right, but this is {error.detail}"
            raise segment.damage(segment.path_of(self._directory, generation), offset, why) from error

    def _bytes_at(self, generation: int, offset: int, most_bytes: int) -> bytes:
        """The block that begins here, and what else was read with it."""
        path, is_next = segment.path_of(self._directory, generation), self._next == (generation, offset)
        with segment.naming(path, offset):
            fd = self._fd(generation, path)
            data = os.pread(fd, min(_SPAN_BYTES if is_next else _GUESS_BYTES, most_bytes), offset)
            length = segment.block_bytes(data)
            if len(data) < length <= most_bytes:
                data += os.pread(fd, length - len(data), offset + len(data))
        if is_next:
            self._span, self._span_at = data, (generation, offset)
        return data

    def forget(self, generations: Iterable[int]) -> None:
        """These segments go."""
        with self._lock:
            for generation in generations:
                fd = self._fds.pop(generation, None)
                if fd is not None:
                    os.close(fd)
            self._span = b""

    def close(self) -> None:
        """Release the files."""
        self.forget(list(self._fds))

    def _fd(self, generation: int, path: Path) -> int:
        fd = self._fds.get(generation)
        if fd is None:
            if len(self._fds) >= _MOST_FILES:
                os.close(self._fds.popitem(last=False)[1])
            fd = self._fds[generation] = os.open(path, os.O_RDONLY)
        self._fds.move_to_end(generation)
        return fd
