"""What is durable: nothing leaves this replica, and nothing is read, before it is (law L5).

Commits are applied at once, so that the next ones are judged on them, and persisted in numbered batches. Until a batch is durable its
replies are held, its commits are in no row and no frame, and reads of its keys wait for its number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from msgspec import Struct

from crdtstore.commit import Commit
from crdtstore.engine.events import Op
from crdtstore.engine.output import Committed, Refused

__all__ = ["Batch", "Durability"]


class Batch(Struct, frozen=True):
    """A batch on its way to the disk: its number, the vector it leads to, and what waits for it."""

    number: int
    vector: list[int]
    first_own_hlc: int
    replies: list[Committed | Refused]
    commits: list[tuple[int, Commit]]
    keys: set[tuple[str, str]]
    """The keys its commits touch; filled when the first read asks."""

    def touches(self, collection: str, key: str | None) -> bool:
        """Whether one of its commits touches a key; None: any key of the collection."""
        if not self.keys:
            for _, commit in self.commits:
                paths = commit.effects[1::3]
                self.keys.update((path[0], path[1]) if len(path) > 1 else (path[0], "") for path in paths)
        if key is None:
            return any(touched == collection for touched, _ in self.keys)
        return (collection, key) in self.keys or (collection, "") in self.keys


class Durability:
    """The durable vector of a replica and the batches above it. Mutable."""

    __slots__ = ("_batches", "number", "synced", "vector")

    def __init__(self, replicas: int) -> None:
        self.vector = [0] * replicas
        self.number = 0
        """The last batch handed out."""
        self.synced = 0
        """The last batch that is durable."""
        self._batches: deque[Batch] = deque()

    def admit(self) -> None:
        """There is one more replica, of which nothing is here yet."""
        self.vector = [*self.vector, 0]
        for batch in self._batches:
            batch.vector.append(0)

    def hold(
        self, applied: list[int], own_hlc: int, replies: list[Committed | Refused], commits: list[tuple[int, Commit]]
    ) -> int:
        """Open a batch for what was just applied; return its number. ``own_hlc``: stamp of its first own commit, 0: none."""
        self.number += 1
        self._batches.append(Batch(self.number, list(applied), own_hlc, replies, commits, set()))
        return self.number

    def release(self, number: int) -> list[Committed | Refused]:
        """All batches up to ``number`` are durable: the vector moves; return the replies that waited."""
        replies: list[Committed | Refused] = []
        while self._batches and self._batches[0].number <= number:
            batch = self._batches.popleft()
            self.vector = batch.vector
            self.synced = batch.number
            replies += batch.replies
        return replies

    def hold_reply(self, reply: Committed | Refused, ops: Iterable[Op]) -> bool:
        """Let a reply wait until all it shows is durable: its commit, and later ones on the keys read; False when it is."""
        number = max(self.waits_for(op.collection, op.key) for op in ops)
        if isinstance(reply, Committed):  # it may have had no effect on any key
            number = max(number, self._batch_of(reply.origin, reply.seq))
        if not number:
            return False
        next(batch for batch in self._batches if batch.number == number).replies.append(reply)
        return True

    def _batch_of(self, origin: int, seq: int) -> int:
        """The batch that makes a commit durable, 0: it is."""
        if seq <= self.vector[origin]:
            return 0
        return next(batch.number for batch in self._batches if batch.vector[origin] >= seq)

    def waits_for(self, collection: str, key: str | None = None) -> int:
        """The batch a read of this key, or of the whole collection, has to wait for; 0: none."""
        for batch in reversed(self._batches):
            if batch.touches(collection, key):
                return batch.number
        return 0

    def heartbeat_limit(self) -> int | None:
        """A heartbeat must stay below the first own commit that is not durable: its stamp, None when there is none."""
        for batch in self._batches:
            if batch.first_own_hlc:
                return batch.first_own_hlc
        return None
