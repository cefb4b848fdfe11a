"""What of a log may go, and who holds it back.

The question: what is left when the power goes in between? Removed names become durable in any order, so a start takes
any of the segments below what it needs as there or not. One of them becomes the next segment under a new name, as it
is: its blocks are of an older generation, so nothing of them is valid there, and 64 MB of zeros need not be written.

A reader that copies segments holds them by a shared lock on the file ``pin``; while somebody does, nothing goes.

Source: DESIGN.md 5.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from crdtstore.errors import StorageError
from crdtstore.storage import segment
from crdtstore.storage.crashpoints import reach

__all__ = ["PIN_NAME", "SegmentLost", "check_names", "pinned", "remove"]

PIN_NAME = "pin"


class SegmentLost(StorageError):
    """A segment that is needed is not under its name any more: the log takes no writes until a restart."""


def check_names(directory: Path, opened: Mapping[int, tuple[int, int] | None], generations: Iterable[int]) -> None:
    """See whether the next start would find these segments: a descriptor goes on writing into a file that has lost its name.

    Cost:    a call for each.
    Raises:  SegmentLost naming the first that is gone, or is not the file that was ``opened`` under its generation.
    """
    for generation in generations:
        path = segment.path_of(directory, generation)
        with segment.naming(path):
            found = segment.identity_of(path)
        if found != opened[generation]:
            raise SegmentLost(f"{path}: was removed or replaced while it was in use", file=str(path))


@contextmanager
def pinned(directory: Path) -> Iterator[None]:
    """No segment goes while this is held, by however many readers; blocks only while a cut is going on.

    Raises:  StorageError when the lock cannot be had.
    """
    path = directory / PIN_NAME
    with segment.naming(path):
        fd = _open(path)
    try:
        with segment.naming(path):
            fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


def remove(directory: Path, generations: Sequence[int], spare: int | None, spare_bytes: int) -> bool:
    """Remove segments; one of ``spare_bytes`` becomes segment ``spare``. Return False, and do nothing, when they are pinned.

    Raises:  StorageError; then some of them may be gone.
    """
    path = directory / PIN_NAME
    with segment.naming(path):
        fd = _open(path)
    try:
        with segment.naming(path):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(directory, generations, spare, spare_bytes)
    except StorageError as error:
        if isinstance(error.__cause__, BlockingIOError):
            return False
        raise
    finally:
        os.close(fd)
    return True


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)


def _remove(directory: Path, generations: Sequence[int], spare: int | None, spare_bytes: int) -> None:
    with segment.naming(directory):
        recycled = None if spare is None else _recyclable(directory, generations, spare_bytes)
        for generation in generations:
            if generation != recycled:
                reach("log-remove-before")
                segment.path_of(directory, generation).unlink(missing_ok=True)
                reach("log-remove-after")
        if recycled is not None and spare is not None:
            reach("log-recycle-before")
            segment.path_of(directory, recycled).rename(segment.path_of(directory, spare))
            reach("log-recycle-after")
        segment.sync_directory(directory)


def _recyclable(directory: Path, generations: Sequence[int], spare_bytes: int) -> int | None:
    """The newest segment that has the usual size and a header of its own: one made for a huge batch is not kept."""
    for generation in reversed(generations):
        path = segment.path_of(directory, generation)
        header = segment.read_header(path)
        if header is not None and header.generation == generation and path.stat().st_size == spare_bytes:
            return generation
    return None
