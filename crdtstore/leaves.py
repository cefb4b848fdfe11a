"""Leaves: what stands at one path, as few bytes and steps as each class allows.

A leaf is ``{dot: value}``. The question: which of its dots does a cut remove, and what is left to read? A dot is held as one integer,
``index of its replica << 48 | seq``, so that the test against a cut is one comparison. Four shapes hold all classes:

* ``One``: a single dot, by far the most frequent (registers, elements of sets, fields of maps, events).
* ``Many``: several dots: concurrent writes of the plain class, and the classes max, min, mark and those of the future.
* ``Sum``: amounts, one ``Run`` of two flat arrays per replica, so that an add costs two machine words and a cut is a bisection.
* ``Branch``: a level of the tree, for paths that go on below, or for several classes at one path.

``shadows`` are dots of one operation of which another dot counts (operation ids, DESIGN 2): ``{shadow: the dot that counts}``. They are
never read and never digested; they are kept because a cut of one of them spends the operation, so the dot that counts goes with it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import Any, Union

from msgspec import Struct

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
    shadows: dict[int, int]


class Run(Struct, gc=False):
    """The amounts of one replica in a sum.

    Shape:   ``seqs`` ascending; ``sums[i]`` is the sum of all amounts up to ``seqs[i]``, of which ``gone`` were removed.
    Units:   ``weight`` is the hash by which each amount counts in the state digest.
    """

    origin: int
    weight: int
    gone: int
    seqs: Any
    sums: Any

    def append(self, seq: int, amount: int) -> None:
        """Add an amount of a commit not older than those here; several of one commit become one."""
        seqs, sums = self.seqs, self.sums
        try:
            if seqs and seqs[-1] == seq:
                sums[-1] += amount
            else:
                sums.append((sums[-1] if sums else self.gone) + amount)
                seqs.append(seq)
        except OverflowError:  # beyond 64 bits: exact all the same, in a list of Python's integers
            self.sums = list(sums)
            self.append(seq, amount)

    def cut(self, seq: int) -> int:
        """Remove all amounts up to ``seq``; return their sum."""
        seqs, sums = self.seqs, self.sums
        index = bisect_right(seqs, seq)
        if not index:
            return 0
        removed: int = sums[index - 1] - self.gone
        self.gone += removed
        del seqs[:index], sums[:index]
        if not seqs:
            self.gone = 0
        return removed

    def extract(self, seq: int) -> int:
        """Remove the amount of one commit; return it. Rare: only a repeated operation needs it."""
        index = bisect_right(self.seqs, seq) - 1
        amount: int = self.sums[index] - (self.sums[index - 1] if index else self.gone)
        del self.seqs[index], self.sums[index]
        rest = [total - amount for total in self.sums[index:]]
        self.sums = list(self.sums[:index]) + rest
        return amount

    def holds(self, seq: int) -> bool:
        index = bisect_right(self.seqs, seq) - 1
        return index >= 0 and bool(self.seqs[index] == seq)

    def total(self) -> int:
        """The sum of the amounts that are here."""
        return int(self.sums[-1]) - self.gone if self.sums else 0


class Sum(Struct, gc=False):
    """A leaf whose value is the sum of its amounts."""

    total: int
    runs: list[Run]
    shadows: dict[int, int]
    kind: int = ADD

    def run_of(self, origin: int) -> Run | None:
        for run in self.runs:
            if run.origin == origin:
                return run
        return None

    def open_run(self, origin: int, weight: int) -> Run:
        run = Run(origin, weight, 0, array("Q"), array("q"))
        self.runs.append(run)
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
    if dot in getattr(leaf, "shadows", ()):
        return True
    if isinstance(leaf, One):
        return leaf.dot == dot
    if isinstance(leaf, Many):
        return dot in leaf.dots
    run = leaf.run_of(dot >> SEQ_BITS)
    return run is not None and run.holds(dot & SEQ_MASK)


def clone(entry: Entry) -> Entry:
    """A copy that shares nothing that changes: the scratch on which the operations of one commit are judged in turn."""
    if isinstance(entry, One):
        return One(entry.kind, entry.dot, entry.hlc, entry.value)
    if isinstance(entry, Many):
        return Many(entry.kind, dict(entry.dots), dict(entry.shadows))
    if isinstance(entry, Sum):
        runs = [Run(run.origin, run.weight, run.gone, run.seqs[:], run.sums[:]) for run in entry.runs]
        return Sum(entry.total, runs, dict(entry.shadows))
    leaves: list[Any] = [clone(leaf) for leaf in entry.leaves]
    return Branch(leaves, {part: clone(child) for part, child in entry.children.items()})
