"""The commits of a group in memory, as bytes, in the order they were applied, with the chain of hashes per origin.

The question: what does a peer lack, and in which order may it be sent? Per origin the commits are consecutive; across origins the order
in which they were applied here is a causal order, so a prefix of it can always be applied by whoever has what came before.

Flat arrays: beside its bytes a commit costs 32 bytes of chain and 24 of index.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Sequence
from heapq import merge

from crdtstore.commit import chain_next

__all__ = ["History"]

_HASH_BYTES = 32


class History:
    """Mutable; only ever appended to."""

    __slots__ = ("_chains", "_commits", "_count", "_positions", "_sizes", "heads")

    def __init__(self, starts: Sequence[bytes]) -> None:
        """``starts[i]`` is the chain hash before the first commit of replica ``i``."""
        self.heads = list(starts)
        self._chains = [bytearray(start) for start in starts]
        self._commits: list[list[bytes]] = [[] for _ in starts]
        self._sizes = [array("Q", (0,)) for _ in starts]
        self._positions = [array("Q") for _ in starts]
        self._count = 0

    def append(self, origin: int, data: bytes) -> None:
        """Take in the next commit of an origin."""
        head = chain_next(self.heads[origin], data)
        self.heads[origin] = head
        self._chains[origin] += head
        self._commits[origin].append(data)
        sizes = self._sizes[origin]
        sizes.append(sizes[-1] + len(data))
        self._positions[origin].append(self._count)
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def chain(self, origin: int, seq: int) -> bytes:
        """The chain hash after commit ``seq`` of an origin; 0 gives the start."""
        if seq == len(self._commits[origin]):  # the hottest case
            return self.heads[origin]
        return bytes(self._chains[origin][seq * _HASH_BYTES : (seq + 1) * _HASH_BYTES])

    def has_chain(self, origin: int, seq: int, chain: bytes) -> bool:
        """Whether this is the chain hash after commit ``seq`` of an origin."""
        return len(chain) == _HASH_BYTES and self._chains[origin].startswith(chain, seq * _HASH_BYTES)

    def commit(self, origin: int, seq: int) -> bytes:
        return self._commits[origin][seq - 1]

    def size(self, origin: int, after: int, upto: int) -> int:
        """Bytes of the commits ``after < seq <= upto`` of an origin."""
        sizes = self._sizes[origin]
        return sizes[upto] - sizes[after]

    def span(self, origin: int, after: int, upto: int, max_bytes: int) -> list[bytes]:
        """Consecutive commits of an origin: at least one, then as many as fit."""
        sizes, end = self._sizes[origin], after + 1
        limit = sizes[after] + max_bytes
        while end < upto and sizes[end + 1] <= limit:
            end += 1
        return self._commits[origin][after:end]

    def lacking(
        self, vector: Sequence[int], upto: Sequence[int], origins: Collection[int], max_bytes: int
    ) -> list[tuple[int, bytes]]:
        """Commits of some origins above ``vector`` and up to ``upto``, in apply order: what a bounded receiver can always use."""
        found: list[tuple[int, bytes]] = []
        for _, origin, seq in merge(*(self._places(origin, vector[origin], upto[origin]) for origin in origins)):
            data = self._commits[origin][seq]
            max_bytes -= len(data)
            if found and max_bytes < 0:
                break
            found.append((origin, data))
        return found

    def _places(self, origin: int, after: int, upto: int) -> Iterator[tuple[int, int, int]]:
        """Where in the apply order the commits of an origin stand: position, origin, index."""
        return ((self._positions[origin][at], origin, at) for at in range(after, upto))
