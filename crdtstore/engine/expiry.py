"""Expiry: how a key, or a field of a map, comes to its end, and nothing that was acknowledged with it.

The question: what of a write that nobody who ends the key had seen? Every write to a key with a deadline puts the deadline again, so it
never stands there without one. A write stamped after the deadline begins anew: it drops what it has seen and puts *never*. What has
expired is hidden by every reader's clock at once; it is removed by a drop only when no commit stamped before the deadline can still come.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from sortedcontainers import SortedList

from crdtstore.engine.events import Op
from crdtstore.leaves import DEADLINE, DROP, Branch, Entry, deadline_of, is_expired
from crdtstore.ledger import Ledger
from crdtstore.storage.rows import PLANS

__all__ = ["Expiry", "with_deadlines"]


def with_deadlines(op: Op, entry: Entry, path: list[Any], effects: list[Any], now_ms: int) -> list[Any]:
    """The effects of an operation with what the deadlines above and at what it writes add to them.

    Shape:  ``entry`` is the operation's key, ``path`` the full path of the value it writes, ``now_ms`` its stamp.
    """
    drops: list[Any] = []
    renewals: list[Any] = []

    def meet(at: list[Any], node: Entry, *, is_renewed: bool = True) -> bool:
        """Put the deadline of a node again; return whether everything at it has ended."""
        is_there, due_ms = deadline_of(node)
        if not is_there:
            return False
        has_ended = is_expired(node, now_ms)
        if has_ended:
            drops.extend((DROP, at, None))
        if is_renewed:
            renewals.extend((DEADLINE, at, None if due_ms is None or now_ms >= due_ms else due_ms))
        return has_ended

    node: Entry | None = entry
    for depth in range(2, len(path) + 1):
        is_deleted = op.mutator is None and depth == len(path)
        if node is None or meet(path[:depth], node, is_renewed=not is_deleted) or type(node) is not Branch:
            break
        if depth < len(path):
            node = _child(node, path[depth])
        elif op.crdt.has_fields:
            for at, child in _written(node, path, effects):
                meet(at, child)
    if DEADLINE in effects[::3]:  # what is asked for goes above what was
        return drops + renewals + effects
    return drops + effects + renewals


def _written(node: Branch, path: list[Any], effects: Sequence[Any]) -> list[tuple[list[Any], Entry]]:
    """The fields that effects put something at, with what stands there."""
    depth = len(path)
    paths = [effects[at + 1] for at in range(0, len(effects), 3) if effects[at] != DROP]
    found = [(where[: depth + 1], _child(node, where[depth])) for where in paths if len(where) > depth]
    return [(at, child) for at, child in found if child is not None]


def _child(node: Branch, part: Any) -> Entry | None:
    if node.sweep is not None:
        node.sweep.touch(part)
    return node.children.get(part)


class Expiry:
    """When to look at which path: everything that has a deadline, the earliest first. Mutable."""

    __slots__ = ("_count", "_order", "_planned", "ledger")

    def __init__(self) -> None:
        self._planned: OrderedDict[tuple[Any, ...], tuple[int, int]] = OrderedDict()
        """Per path when to look at it (Unix ms), and a number that tells plans for one instant apart."""
        self._order: SortedList[tuple[int, int, tuple[Any, ...]]] = SortedList()
        self._count = 0
        self.ledger = Ledger(PLANS, lambda path: self._planned[path][0] if path in self._planned else None)

    def __len__(self) -> int:
        return len(self._planned)

    def note(self, effects: Sequence[Any]) -> None:
        """Take note of the deadlines that a commit puts."""
        if DEADLINE in effects[::3]:
            for at in range(0, len(effects), 3):
                if effects[at] == DEADLINE and effects[at + 2] is not None:
                    self.plan(tuple(effects[at + 1]), effects[at + 2])

    def plan(self, path: tuple[Any, ...], due_ms: int) -> None:
        """Look at a path when this instant has passed; at most one plan a path is kept, the earliest."""
        planned = self._planned.get(path)
        if planned is None or due_ms < planned[0]:
            self._forget(path)
            self.ledger.note(path)
            self._count += 1
            self._planned[path] = due_ms, self._count
            self._order.add((due_ms, self._count, path))

    def load(self, path: list[Any], due_ms: int) -> None:
        """Take in what a checkpoint holds."""
        self._count += 1
        self._planned[tuple(path)] = due_ms, self._count
        self._order.add((due_ms, self._count, tuple(path)))

    def _forget(self, path: tuple[Any, ...]) -> None:
        if path in self._planned:
            self.ledger.note(path)
            self._order.remove((*self._planned.pop(path), path))

    def passed(self, before_ms: int, limit: int) -> list[tuple[Any, ...]]:
        """Paths whose planned instant has passed, at most so many; they are planned no more."""
        found: list[tuple[Any, ...]] = []
        while self._order and self._order[0][0] < before_ms and len(found) < limit:
            path = self._order[0][2]
            self._forget(path)
            found.append(path)
        return found

    def review(self, has_deadline: Callable[[tuple[Any, ...]], bool], budget: int) -> None:
        """Look at up to so many plans in turn, and forget those of paths that have no deadline any more: deleted early, they would be
        remembered until it has passed.
        """
        for path in list(islice(self._planned, budget)):
            if has_deadline(path):
                self._planned.move_to_end(path)
            else:
                self._forget(path)
