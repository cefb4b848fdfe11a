"""Single blocks of a log that is being written.

The question: who may read while another thread writes? Anybody, as long as he reads what is durable, by descriptors of
his own and by position in the file: a durable block never changes until its segment is cut. The few descriptors are
kept under a lock, because a cut closes those of segments that go, or their space would not come free.
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

__all__ = ["BlockReader"]

_MOST_FILES = 4
_GUESS_BYTES = 1 << 14
"""Most blocks are smaller, and need one call."""


class BlockReader:
    """Reads blocks from the segments in a directory, from any thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fds: OrderedDict[int, int] = OrderedDict()
        self._lock = Lock()

    def read(self, generation: int, offset: int, position: int, most_bytes: int) -> tuple[list[Entry], int]:
        """The entries of the block at this offset, which has this position, and the bytes it takes; at most so many.

        Cost:    one pread for a block up to 16 kB, two for a larger one.
        Raises:  StorageError naming file and offset.
        """
        path = segment.path_of(self._directory, generation)
        with self._lock, segment.naming(path, offset):
            fd = self._fd(generation, path)
            data = os.pread(fd, min(_GUESS_BYTES, most_bytes), offset)
            length = segment.block_bytes(data)
            if len(data) < length <= most_bytes:
                data += os.pread(fd, length - len(data), offset + len(data))
        block = segment.block_at(data, 0, generation, position)
        if block is None:
            raise segment.damage(path, offset, f"no valid block of position {position}; nothing was changed")
        try:
            return [entry for record in block.records for entry in decode_record(record)], block.end
        except DecodeError as error:
            why = f"the checksum is right, but this is {error.detail}"
            raise segment.damage(path, offset, why) from error

    def forget(self, generations: Iterable[int]) -> None:
        """These segments go."""
        with self._lock:
            for generation in generations:
                fd = self._fds.pop(generation, None)
                if fd is not None:
                    os.close(fd)

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
