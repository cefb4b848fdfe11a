"""Leaves: what stands at one path, as few bytes and steps as each class allows.

A leaf is ``{dot: value}``. The question: which of its dots does a cut remove, and what is left to read? A dot is held as one integer,
``index of its replica << 48 | seq``, so that the test against a cut is one comparison. Four shapes hold all classes:

* ``One``: a single dot, by far the most frequent (registers, elements of sets, fields of maps, events).
* ``Many``: several dots: concurrent writes of the plain class, and the classes max, min, mark, deadline and those of the future.
* ``Sum``: amounts, one flat ``Run`` per replica, so that an add costs 16 bytes and a cut is a bisection.
* ``Branch``: a level of the tree, for paths that go on below, or for several classes at one path.

``shadows`` are dots of one operation of which another dot counts (operation ids, DESIGN 2): ``{shadow: the dot that counts}``. They are
never read and never digested; they are kept because a cut of one of them spends the operation, so the dot that counts goes with it.

What can be read: marks and deadlines cannot, and a mark hides whatever else stands at its very path (remove wins).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol, Union

from msgspec import Struct
from msgspec.structs import replace
from sortedcontainers import SortedKeyList

from crdtstore.clock import physical_ms
from crdtstore.runs import Run
from crdtstore.values import element_order

__all__ = [
    "ADD",
    "BEST",
    "DEADLINE",
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
    "Order",
    "Pending",
    "Run",
    "Sum",
    "ValueOrder",
    "best",
    "choose_again",
    "clone",
    "covers",
    "deadline_of",
    "has_dot",
    "has_ended",
    "has_mark",
    "is_expired",
    "is_visible",
    "narrow",
    "newest_hlc",
    "outlives",
    "spent",
]

DROP, PUT, ADD, MAX, MIN, MARK, DEADLINE = range(7)
"""Effect kinds; those above ``DROP`` are also the leaf classes. A greater kind is one of the future and treated like ``PUT``."""

BEST: dict[int, Callable[[Iterable[Any]], Any]] = {
    MAX: partial(max, key=element_order),
    MIN: partial(min, key=element_order),
}
"""Which value of a leaf of these classes is read. Integers and text have an order even where peers mix them: applying never refuses."""

SEQ_BITS = 48
SEQ_MASK = (1 << SEQ_BITS) - 1


class One(Struct, gc=False):
    """A leaf with a single dot."""

    kind: int
    dot: int
    hlc: int
    value: Any


class Many(Struct, gc=False):
    """A leaf with several dots: ``{dot: (hlc, value)}``; ``best`` is the value that is read of a greatest or least one."""

    kind: int
    dots: dict[int, tuple[int, Any]]
    shadows: dict[int, int] | None = None
    best: Any = None


class Sum(Struct, gc=False):
    """A leaf whose value is the sum of its amounts. A tuple of runs, since the garbage collector passes over tuples of such structs.

    ``singles``: amounts whose operation may be repeated elsewhere, ``{dot: (hlc, amount)}``, until they are stable.
    """

    total: int
    runs: tuple[Run, ...] = ()
    shadows: dict[int, int] | None = None
    kind: int = ADD
    singles: dict[int, tuple[int, int]] | None = None

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


class Pending(Protocol):
    """A drop of a big branch that is carried out in slices (``sweeps``)."""

    cut: list[int]

    def touch(self, part: Any) -> None:
        """Carry it out at one child."""

    def finish(self) -> None:
        """Carry out all of it."""


class Order(SortedKeyList):  # type: ignore[misc]
    """The parts one level below a branch, sorted; made at the first use, kept up to date by the kernel from then on."""

    def __init__(self, parts: Iterable[Any] = (), key: Callable[[Any], Any] = element_order) -> None:
        super().__init__(parts, key=key)


class ValueOrder(Order):
    """An order whose key depends on what stands at a part: thrown away when that changes in place. It keeps the keys that it sorted by."""

    def __init__(self, parts: Iterable[Any], key: Callable[[Any], Any]) -> None:
        self._make = key
        self._known: dict[Any, Any] = {}
        super().__init__(parts, key=self._key_of)

    def _key_of(self, part: Any) -> Any:
        known = self._known.get(part)
        if known is None:
            known = self._known[part] = self._make(part)
        return known

    def discard(self, value: Any) -> None:
        super().discard(value)
        self._known.pop(value, None)


class Branch(Struct, gc=False):
    """A level: the leaves that stand at this very path (one per class) and what goes on below."""

    leaves: list[Leaf]
    children: dict[Any, Any]
    order: Order | None = None
    sweep: Pending | None = None

    def leaf_of(self, kind: int) -> Leaf | None:
        for leaf in self.leaves:
            if leaf.kind == kind:
                return leaf
        return None


Entry = Union[One, Many, Sum, Branch]  # noqa: UP007


# --- what can be read


def best(leaf: Leaf) -> Any:
    """The value that is read of a leaf of a best class; None: it is empty just now."""
    if isinstance(leaf, One):
        return leaf.value
    assert isinstance(leaf, Many)
    return leaf.best


def choose_again(leaf: Many) -> None:
    """Dots of a leaf are gone: which value is read now?"""
    if leaf.kind in BEST:
        values = [value for _, value in leaf.dots.values()]
        leaf.best = BEST[leaf.kind](values) if values else None


def has_mark(entry: Entry) -> bool:
    """Whether a mark stands at this very path."""
    if type(entry) is Branch:
        return any(leaf.kind == MARK for leaf in entry.leaves)
    return entry.kind == MARK  # type: ignore[union-attr]


def is_visible(entry: Entry, now_ms: int | None = None) -> bool:
    """Whether anything can be read at a path or below; with a time: anything that has not expired by then.

    Cost:  O(1) mostly; a branch of which only marks are left is looked through.
    """
    if type(entry) is not Branch:
        return entry.kind not in (MARK, DEADLINE)  # type: ignore[union-attr]
    if now_ms is not None and is_expired(entry, now_ms):
        return False
    if not has_mark(entry) and any(leaf.kind != DEADLINE for leaf in entry.leaves):
        return True
    if entry.sweep is None:
        return any(is_visible(child, now_ms) for child in entry.children.values())
    for part in reversed(entry.children):  # what outlived the drop came last, mostly
        if outlives(entry.children[part], entry.sweep.cut):
            entry.sweep.touch(part)
            if is_visible(entry.children[part], now_ms):
                return True
    return False


def outlives(entry: Entry, cut: Sequence[int]) -> bool:
    """Whether a cut leaves any dot of an entry."""
    if isinstance(entry, One):
        return entry.dot & SEQ_MASK > cut[entry.dot >> SEQ_BITS]
    if isinstance(entry, Sum):
        runs = any(run.last_seq > cut[run.origin] for run in entry.runs)
        return runs or any(not covers(cut, dot) for dot in entry.singles or ())
    if isinstance(entry, Many):
        return any(dot & SEQ_MASK > cut[dot >> SEQ_BITS] for dot in entry.dots)
    return any(outlives(leaf, cut) for leaf in entry.leaves) or any(
        outlives(child, cut) for child in entry.children.values()
    )


def newest_hlc(entry: Entry) -> int:
    """The newest stamp of anything that can be read at a path or below; 0: there is nothing."""
    if isinstance(entry, Branch):
        newest = 0 if has_mark(entry) else max((newest_hlc(leaf) for leaf in entry.leaves), default=0)
        if entry.sweep is not None:
            entry.sweep.finish()
        return max(newest, max((newest_hlc(child) for child in entry.children.values()), default=0))
    if entry.kind in (MARK, DEADLINE):
        return 0
    if isinstance(entry, One):
        return entry.hlc
    if isinstance(entry, Sum):
        singles = [hlc for hlc, _ in entry.singles.values()] if entry.singles else [0]
        return max(*singles, *(run.last_hlc for run in entry.runs))
    return max((hlc for hlc, _ in entry.dots.values()), default=0)


def deadline_of(entry: Entry | None) -> tuple[bool, int | None]:
    """Whether a deadline stands at this very path, and which (Unix ms, None: never). Of several the greatest counts, never is greatest."""
    leaf = entry.leaf_of(DEADLINE) if type(entry) is Branch else entry
    if leaf is None or leaf.kind != DEADLINE:  # type: ignore[union-attr]
        return False, None
    values = [leaf.value] if isinstance(leaf, One) else [value for _, value in leaf.dots.values()]  # type: ignore[union-attr]
    return True, None if None in values else max(values)


def is_expired(entry: Entry, now_ms: int) -> bool:
    """Whether what stands at a path has ended: its deadline has passed, and nothing was written there afterwards.

    A region that has not heard of the deadline may write after it; then the key lives on, or an acknowledged write would be lost.
    """
    _, due_ms = deadline_of(entry)
    return due_ms is not None and now_ms >= due_ms and physical_ms(newest_hlc(entry)) < due_ms


def has_ended(entry: Entry | None, now_ms: int) -> bool:
    """``is_expired`` for whatever may stand somewhere; most entries have no deadline, and this is quick to say so."""
    if entry is None or (type(entry) is not Branch and entry.kind != DEADLINE):  # type: ignore[union-attr]
        return False
    return is_expired(entry, now_ms)


# --- dots


def covers(cut: Sequence[int], dot: int) -> bool:
    """Whether a cut, or a stable vector, covers a dot."""
    return dot & SEQ_MASK <= cut[dot >> SEQ_BITS]


def has_dot(leaf: Leaf, dot: int) -> bool:
    """Whether the leaf still holds a dot of an operation that may be repeated, counted or as a shadow."""
    if isinstance(leaf, One):
        return leaf.dot == dot
    if leaf.shadows and dot in leaf.shadows:
        return True
    if isinstance(leaf, Many):
        return dot in leaf.dots
    return leaf.singles is not None and dot in leaf.singles


def clone(entry: Entry) -> Entry:
    """A copy that shares nothing that changes: the scratch on which the operations of one commit are judged in turn."""
    if isinstance(entry, One):
        return One(entry.kind, entry.dot, entry.hlc, entry.value)
    if isinstance(entry, Many):
        return Many(entry.kind, dict(entry.dots), dict(entry.shadows) if entry.shadows else None, entry.best)
    if isinstance(entry, Sum):
        runs = tuple(replace(run, older=None if run.older is None else run.older[:]) for run in entry.runs)
        singles = dict(entry.singles) if entry.singles else None
        return Sum(entry.total, runs, dict(entry.shadows) if entry.shadows else None, singles=singles)
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
