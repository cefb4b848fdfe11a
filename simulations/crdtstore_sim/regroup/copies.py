"""Copies of a disk, and putting them back: what administrators, snapshots and failing hardware do.

The question: what is in a copy? What the disk held at one instant, durable things only: the log up to the last sync and the state store as
it was last committed. A copy made at one instant is a disk that a power cut could have left.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from crdtstore.storage.memory import MemoryLog
from crdtstore_sim.disk import SimulatedDisk

__all__ = ["Copy", "copy_of", "put_back"]


class Copy(NamedTuple):
    """What a disk held."""

    time_us: int
    log: MemoryLog
    rows: Any
    commits: int
    vectors: dict[str, tuple[int, ...]]
    """Per group what was durable, by the observer's books."""


def copy_of(disk: SimulatedDisk, time_us: int, vectors: dict[str, tuple[int, ...]]) -> Copy:
    return Copy(time_us, _copied(disk.log), disk.state._rows.copy(), disk.state.commits, vectors)


def put_back(copy: Copy, disk: SimulatedDisk) -> None:
    """The disk of a process that does not run holds what it once held, or what another one did."""
    disk.crash()
    disk.log = _copied(copy.log)
    disk.state._rows = copy.rows.copy()
    disk.state.commits = copy.commits


def _copied(log: MemoryLog) -> MemoryLog:
    copied = MemoryLog(log._segment_bytes)
    copied._blocks, copied._durable, copied._first = list(log._blocks), log._durable, log._first
    copied.crash()
    return copied
