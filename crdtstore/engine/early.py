"""Commits that arrived before what they depend on: a bounded buffer, past whose bound they are dropped and asked for again (P2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from crdtstore.commit import Commit

__all__ = ["Early", "Waiting"]


class Waiting(NamedTuple):
    """A commit that waits; ``start``: the chain hash that must be before it, when a gap kept that from being checked."""

    commit: Commit
    data: bytes
    start: bytes | None


class Early:
    """Commits by origin and number that cannot be applied yet. Mutable."""

    __slots__ = ("_bytes", "_max_bytes", "_reach", "_waiting", "dropped")

    def __init__(self, replicas: int, max_bytes: int) -> None:
        self._waiting: list[dict[int, Waiting]] = [{} for _ in range(replicas)]
        self._reach = [0] * replicas
        self._bytes = 0
        self._max_bytes = max_bytes
        self.dropped = 0

    def admit(self) -> None:
        """There is one more replica."""
        self._waiting.append({})
        self._reach.append(0)

    def clear(self) -> None:
        """Nothing waits any more: it is asked for again, if it counts."""
        count = len(self._waiting)
        self._waiting, self._reach, self._bytes = [{} for _ in range(count)], [0] * count, 0

    def __bool__(self) -> bool:
        return self._bytes > 0

    def __len__(self) -> int:
        return sum(map(len, self._waiting))

    def has(self, origin: int, seq: int) -> bool:
        return seq in self._waiting[origin]

    @property
    def origins(self) -> list[int]:
        """Of whom anything waits."""
        return [origin for origin, waiting in enumerate(self._waiting) if waiting]

    def waits(self, origin: int) -> bool:
        """Whether anything of an origin waits."""
        return bool(self._waiting[origin])

    def data(self, origin: int, seq: int) -> bytes:
        """The bytes of a waiting commit."""
        return self._waiting[origin][seq].data

    def add(self, origin: int, commit: Commit, data: bytes, applied: Sequence[int], start: bytes | None = None) -> None:
        if commit.seq in self._waiting[origin]:
            return
        if self._bytes + len(data) > self._max_bytes:
            self.dropped += 1
            return
        self._waiting[origin][commit.seq] = Waiting(commit, data, start)
        self._bytes += len(data)
        reach = self.reach(origin, applied)
        while reach + 1 in self._waiting[origin]:
            reach += 1
        self._reach[origin] = reach

    def next(self, origin: int, applied: int) -> Waiting | None:
        """The waiting commit that comes next for an origin."""
        return self._waiting[origin].get(applied + 1)

    def reach(self, origin: int, applied: Sequence[int]) -> int:
        """Up to which number an origin's commits are here without a gap, applied or waiting."""
        return max(self._reach[origin], applied[origin])

    def furthest(self, origin: int, applied: int) -> int:
        """The greatest number of an origin that is here, applied or waiting, whatever lacks before it."""
        return max(self._waiting[origin], default=applied)

    def forget(self, origin: int, seq: int) -> None:
        """This commit is applied, or turned out not to be true."""
        waited = self._waiting[origin].pop(seq, None)
        if waited is not None:
            self._bytes -= len(waited.data)

    def drop_from(self, origin: int, seq: int) -> None:
        """This commit is not true, nor is what stands on it: it has to be asked for again."""
        for number in [number for number in self._waiting[origin] if number >= seq]:
            self.forget(origin, number)
        self._reach[origin] = min(self._reach[origin], seq - 1)
