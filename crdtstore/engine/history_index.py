"""The commits of a group that left memory: where in the log they stand, and how they are read back.

The question: what must be known of a commit that is not in memory? Nothing of itself, or a peer that stays away for a week would fill the
memory with knowledge. Blocks of the log that follow each other are one *extent*, which is read as a whole; per extent and origin it is
known how far the origin comes in it, how many bytes that makes, and the chain hash there. Beside that each block costs its position.

What is read is held against the chain hash before it counts, so a wrong block is never taken for the right one.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from heapq import merge
from itertools import groupby
from operator import itemgetter

from crdtstore.causal import ReplicaId
from crdtstore.commit import chain_next
from crdtstore.errors import StorageError
from crdtstore.storage.protocol import Entry

__all__ = ["HASH_BYTES", "HistoryIndex", "Read"]

HASH_BYTES = 32
_EXTENT_BYTES, _EXTENT_BLOCKS = 64 << 10, 64
"""An extent is full when it reaches one of them: what a read costs at most, beside its last block."""
_LOADED_EXTENTS, _RECALLED_CHAINS = 2, 256
"""What is remembered of what was read: a sender reads on where it was, and is acknowledged where its frames began."""
_ENTRY_BYTES, _EXTENT_OVERHEAD_BYTES, _COMMIT_OVERHEAD_BYTES = 3 * 8 + HASH_BYTES, 96, 33 + 8 + HASH_BYTES

Read = Callable[[int], tuple[list[Entry], int]]
"""``CommitLog.read``: all entries of the block at a position, and the position after it."""


class _Extent:
    """An extent that was read: of each origin the commits after ``begins[origin]``, and its chain from there if it was checked."""

    __slots__ = ("begins", "bytes", "chains", "commits", "order")

    def __init__(self) -> None:
        self.begins: dict[int, int] = {}
        self.commits: dict[int, list[bytes]] = {}
        self.chains: dict[int, bytearray] = {}
        self.order: list[int] = []
        """The origins of all commits, in apply order."""
        self.bytes = 0


class HistoryIndex:
    """Mutable. Of each origin it knows the commits above the base up to ``ends[origin][-1]``; what follows is in memory."""

    def __init__(
        self, base: Sequence[int], starts: Sequence[bytes], group: str, members: Sequence[ReplicaId], read: Read | None
    ) -> None:
        self._group, self._read = group, read
        self._members = {member: origin for origin, member in enumerate(members)}
        self._extents: list[array[int]] = []
        """The positions of the blocks of each extent; the first one has the number ``_first``."""
        self._first = 0
        self._full_at = 0
        """How many bytes of the last extent there is room for."""
        # Per origin, flat: one place for the base, then one for each extent with commits of it.
        self._numbers = [array("Q", (0,)) for _ in base]
        self.ends = [array("Q", (seq,)) for seq in base]
        self._sizes = [array("Q", (0,)) for _ in base]
        self._chains = [bytearray(start) for start in starts]
        self._loaded: dict[int, _Extent] = {}
        self._recalled: dict[tuple[int, int], bytes] = {}
        self.memory_bytes = _ENTRY_BYTES * len(base)
        """What is held in memory, about."""

    # --- what comes and goes

    def admit(self, replica: ReplicaId, start: bytes) -> None:
        """There is one more origin, with this beginning of its chain, and without commits."""
        self._members[replica] = len(self.ends)
        self._numbers.append(array("Q", (0,)))
        self.ends.append(array("Q", (0,)))
        self._sizes.append(array("Q", (0,)))
        self._chains.append(bytearray(start))
        self.memory_bytes += _ENTRY_BYTES

    def add(self, position: int, parts: Sequence[tuple[int, int, int, bytes]]) -> None:
        """The commits of a block left memory: of each origin in it how far it comes now, in commits and bytes, and the chain there.

        The next block of this group that leaves must be the next one in the log, and both must be whole.
        """
        size = sum(size - self._sizes[origin][-1] for origin, _, size, _ in parts)
        extents = self._extents
        if not extents or self._full_at <= 0 or len(extents[-1]) >= _EXTENT_BLOCKS:
            extents.append(array("Q"))
            self._full_at = _EXTENT_BYTES
            self.memory_bytes += _EXTENT_OVERHEAD_BYTES
        self._full_at -= size
        extents[-1].append(position)
        self.memory_bytes += 8
        number = self._first + len(extents) - 1
        self._unload(number)
        for origin, end, size, chain in parts:
            numbers, ends, sizes, chains = self._of(origin)
            if len(numbers) > 1 and numbers[-1] == number:
                ends[-1], sizes[-1], chains[-HASH_BYTES:] = end, size, chain
            else:
                numbers.append(number)
                ends.append(end)
                sizes.append(size)
                chains += chain
                self.memory_bytes += _ENTRY_BYTES

    def _of(self, origin: int) -> tuple[array[int], array[int], array[int], bytearray]:
        return self._numbers[origin], self.ends[origin], self._sizes[origin], self._chains[origin]

    def forget(self, origin: int, upto: int) -> int:
        """Move the base of an origin to the last end of an extent that is not above ``upto``, so that its chain is known; return it."""
        numbers, ends, sizes, chains = self._of(origin)
        if count := bisect_right(ends, upto) - 1:
            del numbers[:count], ends[:count], sizes[:count]
            del chains[: count * HASH_BYTES]
            self.memory_bytes -= count * _ENTRY_BYTES
        return ends[0]

    def forget_all(self, origin: int, base: int, size: int, chain: bytes) -> None:
        """The base of an origin moves to a commit in memory."""
        self.memory_bytes -= _ENTRY_BYTES * (len(self.ends[origin]) - 1)
        self._numbers[origin], self.ends[origin] = array("Q", (0,)), array("Q", (base,))
        self._sizes[origin] = array("Q", (size,))
        self._chains[origin] = bytearray(chain)

    def trim(self) -> None:
        """Let the extents go that nobody needs any more."""
        needed = min(
            (numbers[1] for numbers in self._numbers if len(numbers) > 1), default=self._first + len(self._extents)
        )
        for number in [number for number in self._loaded if number < needed]:
            self._unload(number)
        gone = self._extents[: needed - self._first]
        self.memory_bytes -= sum(_EXTENT_OVERHEAD_BYTES + 8 * len(extent) for extent in gone)
        del self._extents[: len(gone)]
        self._first = needed

    def _unload(self, number: int) -> None:
        extent = self._loaded.pop(number, None)
        if extent is not None:
            self.memory_bytes -= extent.bytes

    def first_position(self) -> int | None:
        """Where in the log the first extent begins; None when there is none."""
        return self._extents[0][0] if self._extents else None

    # --- what is known without reading

    def size_below(self, origin: int, seq: int) -> int:
        """The bytes up to commit ``seq`` of an origin, or somewhat less: up to the end of an extent."""
        return self._sizes[origin][max(bisect_right(self.ends[origin], seq) - 1, 0)]

    def size_above(self, origin: int, seq: int) -> int:
        """The bytes up to commit ``seq`` of an origin, or somewhat more: up to the end of an extent."""
        return self._sizes[origin][bisect_left(self.ends[origin], seq)]

    # --- what is read; Raises:  StorageError, nothing changed

    def chain(self, origin: int, seq: int) -> bytes:
        """The chain hash after commit ``seq`` of an origin."""
        at = bisect_left(self.ends[origin], seq)
        if self.ends[origin][at] == seq:
            return bytes(self._chains[origin][at * HASH_BYTES : (at + 1) * HASH_BYTES])
        found = self._recalled.get((origin, seq))
        if found is None:
            extent = self._load(self._numbers[origin][at], origin)
            start = (seq - extent.begins[origin]) * HASH_BYTES
            found = bytes(extent.chains[origin][start : start + HASH_BYTES])
            if len(self._recalled) >= _RECALLED_CHAINS:
                del self._recalled[next(iter(self._recalled))]
            self._recalled[origin, seq] = found
        return found

    def commits(self, origin: int, after: int, upto: int) -> Iterator[bytes]:
        """The commits ``after < seq <= upto`` of an origin, as far as they stand here."""
        numbers, ends = self._numbers[origin], self.ends[origin]
        at = bisect_right(ends, after)
        while at < len(ends) and after < upto:
            extent = self._load(numbers[at], origin)
            begin = extent.begins[origin]
            yield from extent.commits[origin][after - begin : upto - begin]
            after = ends[at]
            at += 1

    def lacking(
        self, after: Sequence[int], upto: Sequence[int], origins: Collection[int]
    ) -> Iterator[tuple[int, bytes]]:
        """The commits of some origins above ``after`` and up to ``upto``, as far as they stand here, in apply order."""
        needed = merge(*(self._extents_between(origin, after[origin], upto[origin]) for origin in origins))
        for _, places in groupby(needed, itemgetter(0)):
            for number, origin in places:
                extent = self._load(number, origin)
            seqs = dict(extent.begins)
            for origin in extent.order:
                seqs[origin] = seq = seqs[origin] + 1
                if origin in origins and after[origin] < seq <= upto[origin]:
                    yield origin, extent.commits[origin][seq - extent.begins[origin] - 1]

    def _extents_between(self, origin: int, after: int, upto: int) -> Iterator[tuple[int, int]]:
        """The extents with commits ``after < seq <= upto`` of an origin, and the origin."""
        ends = self.ends[origin]
        for at in range(bisect_right(ends, after), len(ends)):
            if ends[at - 1] >= upto:
                return
            yield self._numbers[origin][at], origin

    def _load(self, number: int, origin: int) -> _Extent:
        """An extent, of which the commits of this origin are what they were."""
        extent = self._loaded.get(number)
        is_new = extent is None
        if extent is None:
            extent = self._read_extent(number)
        if origin not in extent.chains:
            self._check(extent, number, origin)
        if is_new:
            while len(self._loaded) >= _LOADED_EXTENTS:
                self._unload(next(iter(self._loaded)))
            self.memory_bytes += extent.bytes
        self._loaded.pop(number, None)
        self._loaded[number] = extent  # the last one asked for is the last to go
        return extent

    def _check(self, extent: _Extent, number: int, origin: int) -> None:
        """Hold the commits of an origin against its chain."""
        at = bisect_left(self._numbers[origin], number, 1)
        begin = (at - 1) * HASH_BYTES
        chain = bytes(self._chains[origin][begin : begin + HASH_BYTES])
        chains = bytearray(chain)
        for data in extent.commits[origin]:
            chain = chain_next(chain, data)
            chains += chain
        if not self._chains[origin].startswith(chain, begin + HASH_BYTES):
            self._unload(number)
            raise self._wrong(number)
        extent.chains[origin] = chains

    def _read_extent(self, number: int) -> _Extent:
        assert self._read is not None
        positions = self._extents[number - self._first]
        places: dict[int, int] = {}
        for origin, numbers in enumerate(self._numbers):
            at = bisect_left(numbers, number, 1)
            if at < len(numbers) and numbers[at] == number:
                places[origin] = at
        extent = _Extent()
        extent.commits = {origin: [] for origin in places}
        for position in positions:
            for group, member, data in self._read(position)[0]:
                if group == self._group and (origin := self._members.get(member, -1)) in places:
                    extent.commits[origin].append(data)
                    extent.order.append(origin)
        for origin, at in places.items():
            begin, end = self.ends[origin][at - 1 : at + 1]
            extent.begins[origin] = begin
            commits = extent.commits[origin]
            forgotten = len(commits) - (end - begin)
            if forgotten < 0:
                raise self._wrong(number)
            if forgotten:  # before the block left memory
                del commits[:forgotten]
                left = iter(range(forgotten))
                extent.order = [made_by for made_by in extent.order if made_by != origin or next(left, None) is None]
            extent.bytes += sum(map(len, commits)) + _COMMIT_OVERHEAD_BYTES * len(commits)
        return extent

    def _wrong(self, number: int) -> StorageError:
        positions = self._extents[number - self._first]
        return StorageError(
            f"the log from position {positions[0]} to {positions[-1]} does not hold what was written there for {self._group}. "
            "Nothing changed."
        )
