"""What a driver asks of a commit log, whichever keeps it.

The question: when may a reply leave? After ``write`` returned and not before, so everything slow or uncertain is in
that one call and nothing else of the log blocks. A *record* is one batch that the engine asked to persist; it is
replayed whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from crdtstore.causal import ReplicaId

__all__ = ["CommitLog", "Entry"]


class Entry(NamedTuple):
    """One commit as it is kept: its group, the replica that made it and its canonical bytes."""

    group: str
    origin: ReplicaId
    data: bytes


class CommitLog(Protocol):
    """An append-only list of records that survives a power cut up to the last ``write`` that returned."""

    def replay(self) -> Iterator[list[Entry]]:
        """All records in order; to be exhausted once, before the first ``write``.

        Raises:  StorageError naming file and offset when something acknowledged cannot be read; nothing is changed.
        """

    def encode(self, entries: Sequence[Entry]) -> bytes:
        """One record, for ``write``; pure, and cheap enough for the event loop."""

    def write(self, records: Sequence[bytes]) -> None:
        """Append the records and make them durable; blocks, for a thread that calls nothing else.

        Raises:  StorageError; it is final, every later ``write`` raises too. Whether the records survive is not known.
        """

    def close(self) -> None:
        """Release files and locks; nothing is written any more."""
