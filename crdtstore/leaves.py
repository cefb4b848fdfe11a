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
    "is_seen",
    "is_visible",
    "narrow",
    "newest_below",
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
        self.runs = (*self.runs, run) if self.runs else (run,)
        return run


Leaf = Union[One, Many, Sum]  # noqa: UP007 - msgspec structs in a runtime alias


class Pending(Protocol):
    """A drop of a big branch that is carried out in slices (``sweeps``)."""

    def touch(self, part: Any) -> None:
        """Carry it out at one child."""

    def shows(self, now_ms: int | None) -> bool:
        """Whether anything can be read of what it has still to be carried out at."""

    def surrender(self) -> dict[Any, Any]:
        """The children at which it is still to be carried out; it has nothing to do any more."""

    def finish(self) -> None:
        """Carry out all of it."""


class Order(SortedKeyList):  # type: ignore[misc]
    """The parts one level below a branch, sorted; made at the first use, kept up to date by the kernel from then on."""

    def __init__(self, parts: Iterable[Any] = (), key: Callable[[Any], Any] = element_order) -> None:
        super().__init__(parts, key=key)

    @property
    def has_any(self) -> bool:
        """Whether it still holds anything."""
        return bool(len(self))

    def shrink(self, count: int) -> int:
        """Let go of up to so many parts, since nobody needs the order any more; return of how many."""
        count = min(count, len(self))
        for _ in range(count):
            self.pop()
        return count


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

    @property
    def has_any(self) -> bool:
        return bool(self._known or len(self))

    def shrink(self, count: int) -> int:
        known = min(count, len(self._known))
        for _ in range(known):
            self._known.popitem()
        return max(known, super().shrink(count))


class Branch(Struct, gc=False):
    """A level: the leaves that stand at this very path (one per class) and what goes on below.

    Shape:   ``newest`` says per replica that no dot with a greater seq was put below; only a big branch under a key has it.
             While a drop is still being carried out (``sweep``), ``children`` are those at which that is done.
    """

    leaves: list[Leaf]
    children: dict[Any, Any]
    order: Order | None = None
    sweep: Pending | None = None
    newest: dict[int, int] | None = None

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
    branches = []
    for child in entry.children.values():
        if type(child) is Branch:
            branches.append(child)
        elif child.kind not in (MARK, DEADLINE):
            return True
    if any(is_visible(branch, now_ms) for branch in branches):  # not while going through: drops may end in between
        return True
    return entry.sweep is not None and entry.sweep.shows(now_ms)


def outlives(entry: Entry, cut: Sequence[int]) -> bool:
    """Whether a cut may leave any dot of an entry."""
    if isinstance(entry, One):
        return entry.dot & SEQ_MASK > cut[entry.dot >> SEQ_BITS]
    if isinstance(entry, Sum):
        return any(run.newest_seq > cut[run.origin] for run in entry.runs)
    if isinstance(entry, Many):
        return any(dot & SEQ_MASK > cut[dot >> SEQ_BITS] for dot in entry.dots)
    if entry.newest is not None:
        is_below = not is_seen(entry, cut)
    else:
        is_below = entry.sweep is not None or any(outlives(child, cut) for child in entry.children.values())
    return is_below or any(outlives(leaf, cut) for leaf in entry.leaves)


def is_seen(branch: Branch, cut: Sequence[int]) -> bool:
    """Whether a cut is known to cover all that is below a branch."""
    return branch.newest is not None and all(seq <= cut[origin] for origin, seq in branch.newest.items())


def newest_hlc(entry: Entry) -> int:
    """The newest stamp of anything that can be read at a path or below; 0: there is nothing."""
    if isinstance(entry, Branch):
        newest = 0 if has_mark(entry) else max((newest_hlc(leaf) for leaf in entry.leaves), default=0)
        if entry.sweep is not None:
            entry.sweep.finish()
        children = list(entry.children.values())  # drops below may end while each is looked at
        return max(newest, max(map(newest_hlc, children), default=0))
    if entry.kind in (MARK, DEADLINE):
        return 0
    if isinstance(entry, One):
        return entry.hlc
    if isinstance(entry, Sum):
        return max(run.newest_hlc for run in entry.runs)
    return max((hlc for hlc, _ in entry.dots.values()), default=0)


def deadline_of(entry: Entry | None) -> tuple[bool, int | None]:
    """Whether a deadline stands at this very path, and which (Unix ms, None: never). Of several the greatest counts, never is greatest.

    A mark hides it, as it does all that stands at its path: folding takes both.
    """
    leaf = entry.leaf_of(DEADLINE) if type(entry) is Branch else entry
    if leaf is None or leaf.kind != DEADLINE or (type(entry) is Branch and has_mark(entry)):  # type: ignore[union-attr]
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


def newest_below(branch: Branch) -> dict[int, int]:
    """Per replica the greatest seq of what stands below a branch, or more."""
    newest: dict[int, int] = {}
    for child in branch.children.values():
        if type(child) is not Branch:
            dots = _newest_dots(child)
        else:
            below = newest_below(child) if child.newest is None else child.newest
            dots = [origin << SEQ_BITS | seq for origin, seq in below.items()]
            dots += [dot for leaf in child.leaves for dot in _newest_dots(leaf)]
        for dot in dots:
            newest[dot >> SEQ_BITS] = max(dot & SEQ_MASK, newest.get(dot >> SEQ_BITS, 0))
    return newest


def _newest_dots(leaf: Leaf) -> list[int]:
    if isinstance(leaf, One):
        return [leaf.dot]
    if isinstance(leaf, Many):
        return list(leaf.dots)
    return [run.origin << SEQ_BITS | run.newest_seq for run in leaf.runs]


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
    run = leaf.run_of(dot >> SEQ_BITS)
    return run is not None and run.loose is not None and run.loose.has(dot & SEQ_MASK)


def clone(entry: Entry) -> Entry:
    """A copy that shares nothing that changes: the scratch on which the operations of one commit are judged in turn."""
    if isinstance(entry, One):
        return One(entry.kind, entry.dot, entry.hlc, entry.value)
    if isinstance(entry, Many):
        return Many(entry.kind, dict(entry.dots), dict(entry.shadows) if entry.shadows else None, entry.best)
    if isinstance(entry, Sum):
        runs = tuple(run.copy() for run in entry.runs)
        return Sum(entry.total, runs, dict(entry.shadows) if entry.shadows else None)
    leaves: list[Any] = [clone(leaf) for leaf in entry.leaves]
    newest = None if entry.newest is None else dict(entry.newest)
    return Branch(leaves, {part: clone(child) for part, child in entry.children.items()}, newest=newest)


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
