"""What is durable: nothing leaves this replica, and nothing is read, before it is (law L5).

Commits are applied at once, so that the next ones are judged on them, and persisted in numbered batches. Until a batch is durable its
replies are held, its commits are in no row and no frame, and reads of its keys wait for its number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from crdtstore.engine.output import Committed

__all__ = ["Batch", "Durability"]


class Batch(NamedTuple):
    """A batch on its way to the disk: its number, the vector it leads to, and what waits for it."""

    number: int
    vector: list[int]
    first_own_hlc: int
    replies: list[Committed]
    keys: list[tuple[str, str]]


class Durability:
    """The durable vector of a replica and the batches above it. Mutable."""

    __slots__ = ("_batches", "_unsynced", "number", "synced", "vector")

    def __init__(self, members: int) -> None:
        self.vector = [0] * members
        self.number = 0
        """The last batch handed out."""
        self.synced = 0
        """The last batch that is durable."""
        self._batches: deque[Batch] = deque()
        self._unsynced: dict[tuple[str, str], int] = {}

    def hold(
        self, applied: list[int], first_own_hlc: int, replies: list[Committed], keys: Iterable[tuple[str, str]]
    ) -> int:
        """Open a batch for what was just applied; return its number."""
        self.number += 1
        batch = Batch(self.number, list(applied), first_own_hlc, replies, list(keys))
        self._batches.append(batch)
        for key in batch.keys:
            self._unsynced[key] = self.number
        return self.number

    def release(self, number: int) -> list[Committed]:
        """All batches up to ``number`` are durable: the vector moves; return the replies that waited."""
        replies: list[Committed] = []
        while self._batches and self._batches[0].number <= number:
            batch = self._batches.popleft()
            self.vector = batch.vector
            self.synced = batch.number
            replies += batch.replies
            for key in batch.keys:
                if self._unsynced.get(key) == batch.number:
                    del self._unsynced[key]
        return replies

    def hold_reply(self, reply: Committed, origin: int) -> bool:
        """Let a reply wait for the batch that holds its commit; False when that is durable already."""
        if reply.dot.seq <= self.vector[origin]:
            return False
        next(batch for batch in self._batches if batch.vector[origin] >= reply.dot.seq).replies.append(reply)
        return True

    def waits_for(self, collection: str, key: str) -> int:
        """The batch a read of this key has to wait for; 0: none."""
        return self._unsynced.get((collection, key), 0)

    def heartbeat_limit(self) -> int | None:
        """A heartbeat must stay below the first own commit that is not durable: its stamp, None when there is none."""
        return next((batch.first_own_hlc for batch in self._batches if batch.first_own_hlc), None)
