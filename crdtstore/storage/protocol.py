"""What a driver asks of a commit log and of a state store, whichever keeps them.

The question: when may a reply leave? After ``write`` of the log returned and not before, so everything slow or uncertain is in that one
call and nothing else of the log blocks. A *record* is one batch that the engine asked to persist; it is replayed whole or not at all. A
*position* counts the bytes of blocks since the log began: it only grows, and names the block that begins there.

The state store holds ordered rows. What is written becomes visible, and durable, by ``commit`` only: a checkpoint is all there or not at
all.

Source: DESIGN 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct, field

from crdtstore.causal import ReplicaId

__all__ = ["NO_ORIGIN", "CommitLog", "Entry", "Pinned", "Row", "Slice", "StateRows", "StateStore"]


class Entry(NamedTuple):
    """One commit as it is kept: its group, the replica that made it and its canonical bytes."""

    group: str
    origin: ReplicaId
    data: bytes


NO_ORIGIN = ReplicaId("")
"""The origin of entries that are no commits: notes, of a group or, where that is empty too, of the node."""


class CommitLog(Protocol):
    """An append-only list of records that survives a power cut up to the last ``write`` that returned."""

    position: int
    """Where the next block will begin."""

    def replay(self, needed: int = 0) -> Iterator[tuple[int, list[Entry]]]:
        """All records from ``needed`` on, in order, each with the position of its block; to be exhausted once, before the first ``write``.

        Records of some blocks below ``needed`` may come before these: what is kept and removed is whole stretches of the log.

        Raises:  StorageError naming file and offset when something acknowledged cannot be read, or the log does not reach back to
                 ``needed`` or up to it; nothing is changed.
        """

    def encode(self, entries: Sequence[Entry]) -> bytes:
        """One record, for ``write``; pure, and cheap enough for the event loop."""

    def write(self, records: Sequence[bytes]) -> int:
        """Append the records as one block and make it durable; blocks, for a thread that calls nothing else. Return its position.

        Raises:  StorageError. ``storage-full``: nothing of it counts, the same records may be written again. Any other is final, every
                 later ``write`` raises too, and whether the records survive is not known.
        """

    def read(self, position: int) -> tuple[list[Entry], int]:
        """The entries of the durable block at a position, in order, and the position after it.

        Raises:  StorageError naming file and offset when it cannot be read; nothing is changed.
        """

    def cut(self, position: int) -> None:
        """Nothing below this position is needed any more: what lies wholly below it may go."""

    def close(self) -> None:
        """Release files and locks; nothing is written any more."""


Row = tuple[bytes, bytes]
"""Path and data of a row."""


class Slice(Struct):
    """A bounded part of a checkpoint, applied in this order."""

    ranges: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Rows to remove: from the first path up to, without, the second."""
    gone: list[bytes] = field(default_factory=list)
    """Paths of rows to remove."""
    rows: list[Row] = field(default_factory=list)
    """Rows to put."""


class StateRows(Protocol):
    """Ordered rows that can be read."""

    def rows(self, start: bytes, end: bytes, limit: int = -1) -> list[Row]:
        """Rows from ``start`` up to, without, ``end``, ascending, at most so many (-1: all); only what was committed.

        Raises:  StorageError naming file and row when one cannot be read, or is not what was written.
        """


class Pinned(StateRows, Protocol):
    """The rows as they were at one instant."""

    def close(self) -> None:
        """Let them go."""


class StateStore(StateRows, Protocol):
    """Ordered rows on disk. ``write``, ``commit`` and ``rollback`` belong to one thread, ``rows`` to the event loop."""

    def write(self, part: Slice) -> tuple[int, int]:
        """Write into the transaction that the first call opens; return by how much the number of rows and the bytes of data change.

        Raises:  StorageError; then ``rollback`` is to follow.
        """

    def commit(self) -> None:
        """Make what was written visible and durable, all of it.

        Raises:  StorageError: then nothing of it is.
        """

    def rollback(self) -> None:
        """Forget what was written since the last commit."""

    def pin(self) -> Pinned:
        """What is committed now, whatever is committed later."""

    def close(self) -> None:
        """Release files."""
