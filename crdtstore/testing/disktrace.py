"""What a process asked of a disk, in order: the trace that ``tests/shim/diskfaults.c`` writes, and the marks of a test between.

The question: what had been acknowledged when the power went at a given call? The test marks it in the same file: each record is one
append, the kernel orders appends, and a mark that is written after the reply arrived stands behind the sync that the reply waited for.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple, Self

__all__ = ["Event", "EventKind", "Marks", "read_trace"]

_HEAD = struct.Struct("<IHHQQQ")
_MAGIC = 0x63617274


class EventKind(IntEnum):
    """What happened. A sync begins and ends: what was written between is not covered by it."""

    WRITE = 1
    SIZE = 2
    SYNC_BEGUN = 3
    SYNCED = 4
    SYNC_FAILED = 5
    SYNC_DIRECTORY_BEGUN = 6
    DIRECTORY_SYNCED = 7
    CREATE = 8
    OPEN = 9
    RENAME = 10
    UNLINK = 11
    MKDIR = 12
    RMDIR = 13
    NOT_MODELLED = 14
    MARK = 15


class Event(NamedTuple):
    """One record. ``file`` is the inode number; ``name`` the path below the directory; ``to`` where a rename leads.

    ``offset`` is that of a write, a size, or the number that the two records of a sync have in common.
    """

    kind: EventKind
    file: int = 0
    offset: int = 0
    name: str = ""
    to: str = ""
    data: bytes = b""


def read_trace(path: Path) -> list[Event]:
    """All records of a trace; one that is cut short at the end (the process was killed) is left out."""
    return list(_events(path.read_bytes()))


def _events(data: bytes) -> Iterator[Event]:
    at = 0
    while at + _HEAD.size <= len(data):
        magic, kind, name_bytes, file, offset, data_bytes = _HEAD.unpack_from(data, at)
        assert magic == _MAGIC, f"no record at byte {at} of the trace"
        at += _HEAD.size
        if at + name_bytes + data_bytes > len(data):
            return
        name, _, to = data[at : at + name_bytes].decode().partition("\0")
        at += name_bytes
        event = Event(EventKind(kind), file, offset, name, to, data[at : at + data_bytes])
        assert event.kind is not EventKind.NOT_MODELLED, f"{name}: {to} is not modelled, so this trace proves nothing"
        at += data_bytes
        yield event


class Marks:
    """The pen of a test in the trace of a process that runs."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def mark(self, text: str) -> None:
        """Write this behind all that has been recorded."""
        data = text.encode()
        os.write(self._fd, _HEAD.pack(_MAGIC, EventKind.MARK, len(data), 0, 0, 0) + data)

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
