"""The commits of a group that somebody may still lack, as bytes, in the order they were applied, with the chain of hashes per origin.

The question: what does a peer lack, and in which order may it be sent? Per origin the commits are consecutive; across origins the order
in which they were applied here, and stand in the log, is a causal order: whoever has what came before can apply any prefix of it.

Of each origin the history begins above a *base*: what is below, all members have. The newest commits are in memory, those that stand in
the log longest leave it when they are more than a budget (``history_index``) and are read back when somebody asks. Whatever has to read
raises StorageError when that fails, and nothing changed then.

Flat arrays: beside its bytes a commit in memory costs 32 bytes of chain and 20 of index, a block of the log with commits of this group 16.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from heapq import merge
from itertools import accumulate, islice
from itertools import chain as joined
from operator import ge

from crdtstore.causal import ReplicaId
from crdtstore.commit import chain_all, chain_next
from crdtstore.engine.history_blocks import BLOCK_BYTES, Blocks
from crdtstore.engine.history_index import HASH_BYTES, HistoryIndex, Read

__all__ = ["History"]

_COMMIT_BYTES = 33 + HASH_BYTES + 20
_MOST_PLACES = 1 << 32
_GONE = 512
"""So many at the front of an array are waited for, and an eighth of it: then it is moved, at O(1) per commit that went."""


class History:
    """Mutable; grows by ``append``, becomes durable by ``place``, shrinks by ``forget``.

    Cost:  append O(1), place O(origins), forget O(origins) and O(1) per commit that goes.
    """

    def __init__(
        self,
        starts: Sequence[bytes],
        base: Sequence[int] | None = None,
        group: str = "",
        members: Sequence[ReplicaId] = (),
        read: Read | None = None,
        budget_bytes: int = 1 << 62,
    ) -> None:
        """``starts[i]`` is the chain hash after commit ``base[i]`` of replica ``i``; without ``read`` all stays in memory."""
        self.base = list(base) if base is not None else [0] * len(starts)
        """Per origin, how far nothing is known any more; not to be changed from outside."""
        self.heads = list(starts)
        self.budget_bytes = budget_bytes
        self.can_read = read is not None
        self._index = HistoryIndex(self.base, starts, group, members, read)
        # Per origin, flat, with one place per commit after ``_starts``; the first ``_firsts`` of them have gone.
        self._starts = list(self.base)
        self._firsts = [0] * len(starts)
        self._commits: list[list[bytes]] = [[] for _ in starts]
        self._chains = [bytearray(start) for start in starts]
        self._sizes = [array("Q", (0,)) for _ in starts]
        self._order = [array("I") for _ in starts]
        self._count = 0
        """The place of the next commit in the apply order."""
        self._blocks = Blocks()
        self.placed = list(self.base)
        """What stands in the log, and is known where."""
        self._offset = sum(self.base)

    # --- what comes and goes

    def admit(self, replica: ReplicaId, start: bytes) -> None:
        """There is one more origin, with this beginning of its chain, and without commits."""
        self.base.append(0)
        self.heads.append(start)
        self._index.admit(replica, start)
        self._starts.append(0)
        self._firsts.append(0)
        self._commits.append([])
        self._chains.append(bytearray(start))
        self._sizes.append(array("Q", (0,)))
        self._order.append(array("I"))
        self.placed = [*self.placed, 0]

    def append(self, origin: int, data: bytes) -> None:
        """Take in the next commit of an origin."""
        try:
            self._order[origin].append(self._count)
        except OverflowError:
            self._count_anew()
            self._order[origin].append(self._count)
        self._count += 1
        head = chain_next(self.heads[origin], data)
        self.heads[origin] = head
        self._chains[origin] += head
        self._commits[origin].append(data)
        sizes = self._sizes[origin]
        sizes.append(sizes[-1] + len(data))

    def extend(self, origin: int, commits: Sequence[bytes]) -> None:
        """Take in commits of an origin that follow each other, with none of another between them."""
        if self._count + len(commits) >= _MOST_PLACES:
            self._count_anew()
        self._order[origin].extend(range(self._count, self._count + len(commits)))
        self._count += len(commits)
        chains = [self.heads[origin], *chain_all(self.heads[origin], commits)]
        self.heads[origin] = chains[-1]
        self._chains[origin] += b"".join(chains[1:])
        self._commits[origin] += commits
        sizes = self._sizes[origin]
        sizes.extend(islice(accumulate(map(len, commits), initial=sizes[-1]), 1, None))

    def _count_anew(self) -> None:
        """Let the apply order begin with what is in memory: 32 bits are enough for that, not for all that ever was."""
        shift = self._blocks.cleared
        for origin, order in enumerate(self._order):
            self._compact(origin)
            self._order[origin] = array("I", [place - shift for place in order])
        self._blocks.count_from(shift)
        self._count -= shift
        self._offset += shift

    def place(self, vector: Sequence[int], position: int) -> None:
        """The commits up to ``vector``, which was what had been applied at some moment, are durable: those that have no place yet stand
        in the block at ``position``. Several calls may name the same block; positions ascend.
        """
        self._blocks.place(sum(vector) - self._offset, position)
        self.placed = list(vector)
        if self.can_read and len(self._blocks) > 1:
            self._leave_memory()

    def forget(self, stable: Sequence[int]) -> None:
        """Move the base: all up to ``stable``, as far as it is placed, goes; of an extent that left memory all or nothing."""
        base, index = self.base, self._index
        has_moved = False
        for origin, (known, placed) in enumerate(zip(stable, self.placed, strict=True)):
            upto = min(known, placed)
            if upto <= base[origin]:
                continue
            has_moved = True
            if upto < index.ends[origin][-1]:
                base[origin] = index.forget(origin, upto)
                continue
            base[origin] = upto
            at = upto - self._starts[origin]
            index.forget_all(origin, upto, self._sizes[origin][at], self._chain_at(origin, at))
            self._drop(origin, at)
        if has_moved:
            index.trim()
            kept = [order[first] for order, first in zip(self._order, self._firsts, strict=True) if first < len(order)]
            self._blocks.clear(min(kept, default=self._count))

    def _leave_memory(self) -> None:
        """As long as there is too much in memory, the oldest block leaves it; the newest one stays, for it may not be whole."""
        blocks, index = self._blocks, self._index
        excess = self.memory_bytes - self.budget_bytes
        while excess > 0 and len(blocks) > 1:
            excess -= BLOCK_BYTES + index.memory_bytes
            position, end = blocks.first()
            parts: list[tuple[int, int, int, bytes]] = []
            for origin, order in enumerate(self._order):
                first = self._firsts[origin]
                at = bisect_left(order, end, first)
                if at > first:
                    sizes = self._sizes[origin]
                    excess -= sizes[at] - sizes[first] + _COMMIT_BYTES * (at - first)
                    parts.append((origin, self._starts[origin] + at, sizes[at], self._chain_at(origin, at)))
                    self._drop(origin, at)
            blocks.clear(end)
            if parts:
                index.add(position, parts)
            excess += index.memory_bytes

    def _drop(self, origin: int, upto: int) -> None:
        """The first commits of an origin are not in memory any more."""
        first, commits = self._firsts[origin], self._commits[origin]
        commits[first:upto] = [b""] * (upto - first)
        self._firsts[origin] = upto
        if upto >= _GONE and upto * 8 >= len(commits):
            self._compact(origin)

    def _compact(self, origin: int) -> None:
        first = self._firsts[origin]
        del self._commits[origin][:first], self._sizes[origin][:first], self._order[origin][:first]
        del self._chains[origin][: first * HASH_BYTES]
        self._starts[origin] += first
        self._firsts[origin] = 0

    # --- what is here

    def __len__(self) -> int:
        """How many commits are kept, in memory or in the log."""
        return sum(map(len, self._commits)) + sum(self._starts) - sum(self.base)

    @property
    def memory_bytes(self) -> int:
        """What is held in memory, about."""
        total = self._blocks.memory_bytes + self._index.memory_bytes
        for sizes, first in zip(self._sizes, self._firsts, strict=True):
            total += sizes[-1] - sizes[first] + _COMMIT_BYTES * (len(sizes) - first)
        return total

    def first_position(self) -> int | None:
        """The block of the oldest commit that is kept, or one not far before it; None when none is kept that has a place.

        A commit that has no place yet is going to stand behind all that do.
        """
        return self._blocks.first_position() if (found := self._index.first_position()) is None else found

    def reaches(self, vector: Sequence[int]) -> bool:
        """Whether all is kept that somebody lacks who has this."""
        return all(map(ge, vector, self.base))

    def holds(self, origin: int, seq: int) -> bool:
        """Whether this commit is kept."""
        return self.base[origin] < seq <= self._starts[origin] + len(self._commits[origin])

    def is_in_memory(self, origin: int, seq: int) -> bool:
        """Whether nothing has to be read for this commit and those after it."""
        return seq > self._starts[origin] + self._firsts[origin]

    # --- what is known of one origin

    def chain(self, origin: int, seq: int) -> bytes:
        """The chain hash after commit ``seq`` of an origin; at the base it is known too.

        Raises:  LookupError below the base, StorageError.
        """
        at = seq - self._starts[origin]
        if at == len(self._commits[origin]):  # the hottest case
            return self.heads[origin]
        if at >= self._firsts[origin]:
            return self._chain_at(origin, at)
        self._check_kept(origin, seq, self.base[origin])
        return self._index.chain(origin, seq)

    def _chain_at(self, origin: int, at: int) -> bytes:
        return bytes(self._chains[origin][at * HASH_BYTES : (at + 1) * HASH_BYTES])

    def has_chain(self, origin: int, seq: int, chain: bytes) -> bool:
        """Whether this is the chain hash after commit ``seq`` of an origin; below the base nobody can tell, and it may be.

        Raises:  StorageError.
        """
        if len(chain) != HASH_BYTES:
            return False
        at = seq - self._starts[origin]
        if at >= self._firsts[origin]:
            return self._chains[origin].startswith(chain, at * HASH_BYTES)
        return seq < self.base[origin] or self._index.chain(origin, seq) == chain

    def commit(self, origin: int, seq: int) -> bytes:
        """A commit that ``holds`` says is kept.

        Raises:  LookupError for any other, StorageError.
        """
        at = seq - self._starts[origin] - 1
        if at >= self._firsts[origin]:
            return self._commits[origin][at]
        self._check_kept(origin, seq, self.base[origin] + 1)
        return next(self._index.commits(origin, seq - 1, seq))

    def _check_kept(self, origin: int, seq: int, first: int) -> None:
        if seq < first:
            raise LookupError(f"commit {seq} of origin {origin} is not kept: all members have {self.base[origin]}")

    def size(self, origin: int, after: int, upto: int) -> int:
        """Bytes of the commits ``after < seq <= upto`` of an origin; never less, and 0 when there is none.

        Each end that is not in memory may add up to an extent, for which nothing is read: a window closes somewhat early.
        """
        after = max(after, self.base[origin])
        if after >= upto:
            return 0
        sizes, start, first = self._sizes[origin], self._starts[origin], self._firsts[origin]
        end = sizes[upto - start] if upto - start >= first else self._index.size_above(origin, upto)
        return end - (sizes[after - start] if after - start >= first else self._index.size_below(origin, after))

    def span(self, origin: int, after: int, upto: int, max_bytes: int) -> list[bytes]:
        """Consecutive commits of an origin: at least one, then as many as fit. They begin at the base if ``after`` is below it.

        Raises:  StorageError.
        """
        start, found = self._starts[origin], list[bytes]()
        after = max(after, self.base[origin])
        if after - start < self._firsts[origin]:
            for data in self._index.commits(origin, after, upto):
                max_bytes -= len(data)
                if found and max_bytes < 0:
                    return found
                found.append(data)
            after = self._index.ends[origin][-1]
        if after >= upto:
            return found
        sizes, begin, upto = self._sizes[origin], after - start, upto - start
        limit = sizes[begin] + max_bytes
        end = begin if found else begin + 1
        while end < upto and sizes[end + 1] <= limit:
            end += 1
        return found + self._commits[origin][begin:end]

    # --- what is known of all origins

    def lacking(
        self, vector: Sequence[int], upto: Sequence[int], origins: Collection[int], max_bytes: int
    ) -> list[tuple[int, bytes]]:
        """Commits of some origins above ``vector`` and up to ``upto``, in apply order: what a bounded receiver can always use, if it
        ``reaches`` the history; else they begin at the base.

        Raises:  StorageError.
        """
        after = list(map(max, vector, self.base))
        found: list[tuple[int, bytes]] = []
        for origin, data in joined(self._index.lacking(after, upto, origins), self._in_memory(after, upto, origins)):
            max_bytes -= len(data)
            if found and max_bytes < 0:
                break
            found.append((origin, data))
        return found

    def _in_memory(
        self, after: Sequence[int], upto: Sequence[int], origins: Collection[int]
    ) -> Iterator[tuple[int, bytes]]:
        for _, origin, at in merge(*(self._places(origin, after[origin], upto[origin]) for origin in origins)):
            yield origin, self._commits[origin][at]

    def _places(self, origin: int, after: int, upto: int) -> Iterator[tuple[int, int, int]]:
        """Where in the apply order the commits of an origin in memory stand: place, origin, index."""
        start, order = self._starts[origin], self._order[origin]
        first = max(after - start, self._firsts[origin])
        return ((order[at], origin, at) for at in range(first, upto - start))
