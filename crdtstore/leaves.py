"""Leaves: what stands at one path, as few bytes and steps as each class allows.

A leaf is ``{dot: value}``. The question: which of its dots does a cut remove, and what is left to read? A dot is held as one integer,
``index of its replica << 48 | seq``, so that the test against a cut is one comparison. Four shapes hold all classes:

* ``One``: a single dot, by far the most frequent (registers, elements of sets, fields of maps, events).
* ``Many``: several dots: concurrent writes of the plain class, and the classes max, min, mark and those of the future.
* ``Sum``: amounts, one flat ``Run`` per replica, so that an add costs 16 bytes and a cut is a bisection.
* ``Branch``: a level of the tree, for paths that go on below, or for several classes at one path.

``shadows`` are dots of one operation of which another dot counts (operation ids, DESIGN 2): ``{shadow: the dot that counts}``. They are
never read and never digested; they are kept because a cut of one of them spends the operation, so the dot that counts goes with it.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Union

from msgspec import Struct
from msgspec.structs import replace

__all__ = [
    "ADD",
    "DROP",
    "MARK",
    "MAX",
    "MIN",
    "PUT",
    "SEQ_BITS",
    "SEQ_MASK",
    "Branch",
    "Entry",
    "Leaf",
    "Many",
    "One",
    "Run",
    "Sum",
    "clone",
    "has_dot",
    "narrow",
    "spent",
]

DROP, PUT, ADD, MAX, MIN, MARK = range(6)
"""Effect kinds; those above ``DROP`` are also the leaf classes. A greater kind is one of the future and treated like ``PUT``."""

SEQ_BITS = 48
SEQ_MASK = (1 << SEQ_BITS) - 1


class One(Struct, gc=False):
    """A leaf with a single dot."""

    kind: int
    dot: int
    hlc: int
    value: Any


class Many(Struct, gc=False):
    """A leaf with several dots: ``{dot: (hlc, value)}``."""

    kind: int
    dots: dict[int, tuple[int, Any]]
    shadows: dict[int, int] | None = None


_PAIR = struct.Struct("=qq")


class Run(Struct, gc=False):
    """The amounts of one replica in a sum.

    Shape:   ``last_sum`` is the sum of all amounts up to ``last_seq``, of which ``gone`` were removed; earlier such pairs stand in
             ``older``, ascending: packed, 16 bytes each, or a list of pairs when a sum is beyond 64 bits. Most counters need none.
             ``last_seq`` 0: nothing is here.
    Units:   ``weight`` is the hash by which each amount counts in the state digest.
    """

    origin: int
    weight: int
    gone: int = 0
    last_seq: int = 0
    last_sum: int = 0
    older: bytearray | list[tuple[int, int]] | None = None

    def append(self, seq: int, amount: int) -> None:
        """Add an amount of a commit not older than those here; several of one commit become one."""
        if self.last_seq and self.last_seq != seq:
            self._push(self.last_seq, self.last_sum)
        self.last_seq = seq
        self.last_sum += amount

    def _push(self, seq: int, total: int) -> None:
        older = self.older
        if older is None:
            older = self.older = bytearray()
        if isinstance(older, list):
            older.append((seq, total))
            return
        try:
            older += _PAIR.pack(seq, total)
        except struct.error:  # exact all the same
            self.older = [*self._pairs(), (seq, total)]

    def _pairs(self) -> list[tuple[int, int]]:
        older = self.older or []
        return older if isinstance(older, list) else list(_PAIR.iter_unpack(older))

    def _older_until(self, seq: int) -> tuple[int, tuple[int, int]]:
        """How many of the older pairs are not above ``seq``, and the last of these."""
        older = self.older or []
        if isinstance(older, list):
            index = bisect_right(older, seq, key=lambda pair: pair[0])
            return index, older[index - 1] if index else (0, 0)
        with memoryview(older).cast("q") as numbers, numbers[::2] as seqs:
            index = bisect_right(seqs, seq)
            return index, (numbers[2 * index - 2], numbers[2 * index - 1]) if index else (0, 0)

    def cut(self, seq: int) -> int:
        """Remove all amounts up to ``seq``; return their sum."""
        if seq >= self.last_seq:
            removed = self.last_sum - self.gone
            self.gone = self.last_seq = self.last_sum = 0
            self.older = None
            return removed
        index, (_, total) = self._older_until(seq)
        if not index:
            return 0
        removed, self.gone = total - self.gone, total
        older = self.older
        assert older is not None
        del older[: index if isinstance(older, list) else index * _PAIR.size]
        return removed

    def extract(self, seq: int) -> int:
        """Remove the amount of one commit that is here; return it. Rare: only a repeated operation needs it."""
        amounts: dict[int, int] = {}
        before = self.gone
        for at, total in [*self._pairs(), (self.last_seq, self.last_sum)]:
            amounts[at], before = total - before, total
        extracted = amounts.pop(seq)
        self.last_seq, self.last_sum, self.older = 0, self.gone, None
        for at, amount in amounts.items():
            self.append(at, amount)
        return extracted

    def holds(self, seq: int) -> bool:
        return seq == self.last_seq or (seq < self.last_seq and self._older_until(seq)[1][0] == seq)

    def total(self) -> int:
        """The sum of the amounts that are here."""
        return self.last_sum - self.gone


class Sum(Struct, gc=False):
    """A leaf whose value is the sum of its amounts. A tuple of runs, since the garbage collector passes over tuples of such structs."""

    total: int
    runs: tuple[Run, ...] = ()
    shadows: dict[int, int] | None = None
    kind: int = ADD

    def run_of(self, origin: int) -> Run | None:
        for run in self.runs:
            if run.origin == origin:
                return run
        return None

    def open_run(self, origin: int, weight: int) -> Run:
        run = Run(origin, weight)
        self.runs = (*self.runs, run)
        return run


Leaf = Union[One, Many, Sum]  # noqa: UP007 - msgspec structs in a runtime alias


class Branch(Struct, gc=False):
    """A level: the leaves that stand at this very path (one per class) and what goes on below."""

    leaves: list[Leaf]
    children: dict[Any, Any]

    def leaf_of(self, kind: int) -> Leaf | None:
        for leaf in self.leaves:
            if leaf.kind == kind:
                return leaf
        return None


Entry = Union[One, Many, Sum, Branch]  # noqa: UP007


def has_dot(leaf: Leaf, dot: int) -> bool:
    """Whether the leaf still holds the dot, counted or as a shadow."""
    if isinstance(leaf, One):
        return leaf.dot == dot
    if leaf.shadows and dot in leaf.shadows:
        return True
    if isinstance(leaf, Many):
        return dot in leaf.dots
    run = leaf.run_of(dot >> SEQ_BITS)
    return run is not None and run.holds(dot & SEQ_MASK)


def clone(entry: Entry) -> Entry:
    """A copy that shares nothing that changes: the scratch on which the operations of one commit are judged in turn."""
    if isinstance(entry, One):
        return One(entry.kind, entry.dot, entry.hlc, entry.value)
    if isinstance(entry, Many):
        return Many(entry.kind, dict(entry.dots), dict(entry.shadows) if entry.shadows else None)
    if isinstance(entry, Sum):
        runs = tuple(replace(run, older=None if run.older is None else run.older[:]) for run in entry.runs)
        return Sum(entry.total, runs, dict(entry.shadows) if entry.shadows else None)
    leaves: list[Any] = [clone(leaf) for leaf in entry.leaves]
    return Branch(leaves, {part: clone(child) for part, child in entry.children.items()})


def spent(shadows: dict[int, int] | None, cut: Sequence[int]) -> list[int]:
    """Dots that lose their right to count because the cut covers one of their operation; the shadows go with them."""
    if not shadows:
        return []
    covered = {dot for pair in shadows.items() for dot in pair if dot & SEQ_MASK <= cut[dot >> SEQ_BITS]}
    gone = {counted for shadow, counted in shadows.items() if shadow in covered or counted in covered}
    for shadow in [shadow for shadow, counted in shadows.items() if counted in gone]:
        del shadows[shadow]
    return sorted(gone)


def narrow(leaf: Many) -> Leaf | None:
    """The smallest shape for what is left in a leaf."""
    if not leaf.dots:
        return None
    if len(leaf.dots) > 1 or leaf.shadows:
        return leaf
    [(dot, (hlc, value))] = leaf.dots.items()
    return One(leaf.kind, dot, hlc, value)
