"""What types read from: a path in the tree, and what stands there.

The question: what may a type see? The dots that are there, one level after the other, and while an operation is judged, who issues it.
Never a clock: what has expired is hidden before a type looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import Struct

from crdtstore.causal import Dot, ReplicaId
from crdtstore.leaves import (
    ADD,
    MARK,
    PUT,
    SEQ_BITS,
    SEQ_MASK,
    Branch,
    Entry,
    One,
    Order,
    Run,
    Sum,
    has_ended,
    has_mark,
    is_visible,
)
from crdtstore.leaves import best as best_of
from crdtstore.values import element_order

__all__ = ["Issuer", "Live", "View", "Write"]

_NO_OPTIONS: Mapping[str, Any] = {}


class Issuer(NamedTuple):
    """Who issues the operation that is being judged.

    Shape:   ``seq`` and ``hlc`` are those of the commit to be, ``index`` the place of the operation in it; ``operation`` is the
             operation id (16 bytes) or None; ``regions`` maps each member of the group to its region.
    """

    replica: ReplicaId
    seq: int
    index: int  # type: ignore[assignment]
    hlc: int
    operation: bytes | None
    regions: Mapping[ReplicaId, str]


class Live(NamedTuple):
    """A dot that is there to be read; sorts in the one order of all writes: (hlc, replica, seq)."""

    hlc: int
    replica: ReplicaId
    seq: int
    value: Any

    @property
    def dot(self) -> Dot:
        return Dot(self.replica, self.seq)


class Write(NamedTuple):
    """One write that stands behind a reading, or lost against another: what ``explain`` shows.

    Shape:   ``at`` is the path below the key, () the key itself.
    """

    at: tuple[Any, ...]
    live: Live
    counts: bool
    why: str


class View(Struct, gc=False):
    """A path in the tree, read only: what types read from.

    ``now_ms``: what has expired by then is not shown; None shows it. ``options`` are those of the collection. ``issuer`` is there while
    an operation is judged.
    """

    replicas: Sequence[ReplicaId]
    entry: Entry | None
    now_ms: int | None = None
    options: Mapping[str, Any] = {}
    issuer: Issuer | None = None

    @property
    def exists(self) -> bool:
        """Whether anything can be read here; marks, deadlines and what a mark hides cannot."""
        return self.entry is not None and is_visible(self.entry, self.now_ms)

    def _leaf(self, kind: int) -> Any:
        entry = self.entry
        if type(entry) is Branch:
            is_hidden = kind != MARK and len(entry.leaves) > 1 and has_mark(entry)
            return None if is_hidden else entry.leaf_of(kind)
        return entry if entry is not None and entry.kind == kind else None  # type: ignore[union-attr]

    def has(self, kind: int) -> bool:
        """Whether there is a dot of this class at this path that no mark hides."""
        return self._leaf(kind) is not None

    def total(self) -> int:
        """The sum of the amounts at this path."""
        entry = self.entry
        if type(entry) is Sum:  # no leaf of another class stands there
            return entry.total
        leaf = self._leaf(ADD)
        return leaf.total if isinstance(leaf, Sum) else 0

    def total_of(self, replica: ReplicaId) -> int:
        """The sum of the amounts at this path that one replica added."""
        return self.totals().get(replica, 0)

    def totals(self) -> dict[ReplicaId, int]:
        """The sums of the amounts at this path, by the replica that added them."""
        leaf = self._leaf(ADD)
        return {self.replicas[run.origin]: run.total() for run in leaf.runs} if isinstance(leaf, Sum) else {}

    def best(self, kind: int) -> Any:
        """The greatest (MAX) or least (MIN) value at this path, None when there is none."""
        leaf = self._leaf(kind)
        return None if leaf is None else best_of(leaf)

    def live(self, kind: int = PUT) -> list[Live]:
        """The dots of one class at this path, oldest first."""
        return self._dots(self._leaf(kind))

    def hidden(self, kind: int = PUT) -> list[Live]:
        """The dots of one class that a mark hides at this path, oldest first; folding takes them together."""
        entry = self.entry
        return self._dots(entry.leaf_of(kind)) if type(entry) is Branch and has_mark(entry) else []

    def _dots(self, leaf: Any) -> list[Live]:
        if leaf is None:
            return []
        if type(leaf) is One:
            return [self._live(leaf.dot, leaf.hlc, leaf.value)]
        if isinstance(leaf, Sum):
            found = [self._sum_of(run) for run in leaf.runs if not run.is_empty]
        else:
            found = [self._live(dot, hlc, value) for dot, (hlc, value) in leaf.dots.items()]
        return sorted(found, key=lambda live: live[:3])

    def _sum_of(self, run: Run) -> Live:
        """The amounts of one replica as one, under the newest of its dots that is known."""
        seq, hlc = run.newest
        return self._live(run.origin << SEQ_BITS | seq, hlc, run.total())

    def _live(self, dot: int, hlc: int, value: Any) -> Live:
        return Live(hlc, self.replicas[dot >> SEQ_BITS], dot & SEQ_MASK, value)

    def children(self) -> Iterator[tuple[Any, View]]:
        """What can be read one level below, in canonical order."""
        if type(self.entry) is not Branch:
            return
        entry = self.entry
        if entry.sweep is not None:
            entry.sweep.finish()
        parts = list(entry.order) if type(entry.order) is Order else sorted(entry.children, key=element_order)
        for part in parts:  # of a list of its own: drops below may end meanwhile, and take a part away
            child = self._child(entry.children.get(part))
            if child.exists:
                yield part, child

    def child(self, part: Any) -> View:
        """What stands at a path one part longer."""
        entry = self.entry
        if type(entry) is not Branch:
            return self._child(None)
        if entry.sweep is not None:
            entry.sweep.touch(part)
        return self._child(entry.children.get(part))

    def _child(self, entry: Entry | None) -> View:
        if self.now_ms is not None and has_ended(entry, self.now_ms):
            entry = None
        return View(self.replicas, entry, self.now_ms, _NO_OPTIONS, self.issuer)

    def order(self, make: Callable[[Branch], Order]) -> Order:
        """The parts one level below as a sorted list that the kernel keeps sorted from the first call on."""
        entry = self.entry
        if type(entry) is not Branch:
            return Order()
        if entry.sweep is not None:
            entry.sweep.finish()
        if entry.order is None:
            entry.order = make(entry)
        return entry.order
