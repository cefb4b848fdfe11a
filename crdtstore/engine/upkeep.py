"""Upkeep: what a replica does by itself so that its state stays small, a slice at a time.

The question: how long may it hold up everybody else? Every tick does a bounded number of small things: goes on with the drops of big
branches, folds what is stable, forgets operation ids and conflicts that are over, removes what has expired. None of it can be seen in a
reading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crdtstore.clock import physical_ms
from crdtstore.engine.output import Output
from crdtstore.errors import StorageError
from crdtstore.leaves import DROP, Branch, deadline_of, is_expired

if TYPE_CHECKING:
    from crdtstore.engine.engine import Engine

__all__ = ["Upkeep"]

SWEEP_SLICE = 500
FOLD_SLICE = 2_000
FORGET_SLICE = 2_000
REVIEW_SLICE = 1_000
REMOVE_SLICE = 500
COLD_SLICE = 50
"""So many keys that are on disk only are read in one go: for each of them everybody waits."""
AGAIN_MS = 5_000
"""What could not be read is looked at again so much later."""
REMOVE_AFTER_MS = 5_000
"""Any member may remove what has expired; each leaves it to those before it for so long, or all would do it at once."""


class Upkeep:
    """The upkeep of one replica, in rounds. Mutable; part of the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._next_ms = 0
        self._to_fold = 0
        """At how many paths this round has yet to look."""
        self._forgets = False
        self._removes = False
        self._cold_looks = 0
        """At how many keys on disk this round may look yet."""
        self.wake_ms = 0

    def on_tick(self, now_ms: int, out: Output) -> None:
        """Do the next slice of everything."""
        engine = self._engine
        tree, stability = engine.keyspace.tree, engine.stability
        tree.run_sweeps(SWEEP_SLICE)
        if now_ms >= self._next_ms:
            self._next_ms = now_ms + engine.options.fold_interval_ms
            if stability.advance(engine.durability.vector):
                self._to_fold = tree.dirty_count
            self._forgets = self._removes = True
            tree.review_contested(REVIEW_SLICE)
            self._cold_looks = COLD_SLICE
            engine.keyspace.expiry.review(self._has_deadline, REVIEW_SLICE)
        if self._forgets or self._removes:
            own_hlc = engine.promises.limit(engine.clock.read(now_ms), now_ms)  # what comes is stamped later, here too
            frontier_hlc = stability.frontier_hlc(own_hlc)
            if self._forgets:
                self._forgets = engine.keyspace.forget(stability.stable, frontier_hlc, FORGET_SLICE)
            if self._removes:
                self._removes = engine.may_issue and self._remove_expired(physical_ms(frontier_hlc), now_ms, out)
        if self._to_fold:
            self._to_fold -= max(1, tree.fold(stability.stable, min(self._to_fold, FOLD_SLICE)))
        is_busy = self._to_fold > 0 or self._forgets or self._removes or not tree.is_settled
        self.wake_ms = now_ms + 1 if is_busy else self._next_ms

    def _has_deadline(self, path: tuple[Any, ...]) -> bool:
        """Whether there is anything to end at a path; of what is on disk only a few are looked at, and the others have their turn later."""
        tree = self._engine.keyspace.tree
        if not tree.is_cold(path):
            return deadline_of(tree.at(path))[1] is not None
        if not self._cold_looks or tree.residence is None:
            return True
        self._cold_looks -= 1
        try:
            entry = next((found for _, found in tree.residence.cold(path)), None)
        except StorageError as error:
            self._engine.note_unreadable(error)
            return True
        for part in path[2:]:
            entry = entry.children.get(part) if isinstance(entry, Branch) else None
        return deadline_of(entry)[1] is not None

    def _remove_expired(self, frontier_ms: int, now_ms: int, out: Output) -> bool:
        """Drop what has ended, once no commit stamped before its end can still come: what the drop does not see begins anew. Return whether
        there may be more.
        """
        engine = self._engine
        expiry, tree = engine.keyspace.expiry, engine.keyspace.tree
        before_ms = frontier_ms - engine.position * REMOVE_AFTER_MS
        effects: list[Any] = []
        most = REMOVE_SLICE if tree.residence is None or tree.residence.is_whole else COLD_SLICE
        paths = expiry.passed(before_ms, most)
        for path in paths:
            try:
                entry = tree.at(path)
            except StorageError as error:
                engine.note_unreadable(error)
                expiry.plan(path, before_ms + AGAIN_MS)
                continue
            is_there, due_ms = deadline_of(entry)
            if entry is None or not is_there or due_ms is None:
                continue
            if due_ms >= before_ms:
                expiry.plan(path, due_ms)
            elif is_expired(entry, before_ms):
                effects += (DROP, list(path), None)
        if effects:
            engine.issue(effects, "expired", now_ms, out)
        return len(paths) == most
