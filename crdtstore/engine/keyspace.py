"""The keys of a group: operations judged at the origin, commits applied, readings.

The question: on which state is an operation judged? On what its predecessors in the same commit leave; hence a commit that touches a key
twice, and looks at it, is tried on a scratch copy of its keys first. Judging changes nothing; applying never refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from crdtstore.causal import ReplicaId
from crdtstore.clock import physical_ms
from crdtstore.commit import Commit
from crdtstore.effects import normal_form
from crdtstore.engine.events import Op
from crdtstore.engine.expiry import Expiry, with_deadlines
from crdtstore.engine.operations import Operations
from crdtstore.errors import PreconditionFailed, UsageError
from crdtstore.kernel import Tree
from crdtstore.leaves import DEADLINE, DROP, SEQ_BITS, SEQ_MASK, Branch, Entry, Sum, deadline_of, has_ended
from crdtstore.ledger import Ledger
from crdtstore.types import REGISTRY, Issuer, View

__all__ = ["Keyspace"]

MAX_EFFECTS = 100_000
"""What one request asks for is done before any other is heard."""
_NO_OPTIONS: Mapping[str, Any] = {}
_Issued = tuple[int, int, bytes | None, int]
"""Dot and stamp of the commit to be, its operation id, and the place of an operation in it."""


class Keyspace:
    """State of one group at one replica. Mutable; changed by ``apply`` only, and by what no reading shows: folding and forgetting."""

    __slots__ = ("_nothing", "expiry", "operations", "regions", "replicas", "tree")

    def __init__(self, replicas: list[ReplicaId], regions: Mapping[ReplicaId, str] | None = None) -> None:
        self.replicas = replicas
        self.regions = regions or {}
        self.tree = Tree(replicas)
        self.operations = Operations()
        self.expiry = Expiry()
        self._nothing = View(replicas, None)
        """What an operation sees that does not look."""

    # --- reading

    def view(
        self, collection: str, key: str, now_ms: int | None = None, options: Mapping[str, Any] = _NO_OPTIONS
    ) -> View:
        """A key as it is read at an instant; None: with what has expired."""
        return self._view(self.tree.entry(collection, key), now_ms, options)

    def _view(
        self, entry: Entry | None, now_ms: int | None, options: Mapping[str, Any], issuer: Issuer | None = None
    ) -> View:
        if now_ms is not None and has_ended(entry, now_ms):
            entry = None
        return View(self.replicas, entry, now_ms, options, issuer)

    def etag(self, collection: str, key: str, now_ms: int | None = None) -> str:
        """The key's share of the state digest, hex in quotes; an expired key is as one that was never written."""
        return f'"{self.tree.share([collection, key], now_ms):032x}"'

    def shown(
        self,
        ops: Sequence[Op],
        dot: int,
        operation: bytes | None,
        now_ms: int | None = None,
        *,
        is_brought: bool = False,
    ) -> list[Any]:
        """What a reply shows after each operation of a commit, as of now; null where the type does not show it. Where all keys were
        brought in for the commit itself nothing is read again: it stands, so nothing may fail any more.
        """
        shown: list[Any] = []
        find = self.tree.entry_here if is_brought else self.tree.entry
        for index, op in enumerate(ops):
            if op.crdt.shows_value:
                entry = find(op.collection, op.key)
                shown.append(self._shown(op, entry, now_ms, (dot, 0, operation, index)))
            else:
                shown.append(None)
        return shown

    def _shown(self, op: Op, entry: Entry | None, now_ms: int | None, issued: _Issued) -> Any:
        mutator = op.mutator
        if op.below or (mutator is not None and mutator.reads):
            view = self._see(op, entry, now_ms, issued)
        elif type(entry) is Sum:  # it has no deadline
            view = View(self.replicas, entry, now_ms, op.options)
        else:
            view = self._view(entry, now_ms, op.options)
        return op.crdt.shown(view, mutator.name if mutator is not None else "delete")

    def _see(self, op: Op, entry: Entry | None, now_ms: int | None, issued: _Issued) -> View:
        """What an operation sees of the value that it writes; who issues it is told to those that look."""
        issuer = None
        if op.mutator is not None and op.mutator.reads:
            dot, hlc, operation, index = issued
            issuer = Issuer(self.replicas[dot >> SEQ_BITS], dot & SEQ_MASK, index, hlc, operation, self.regions)
        view = self._view(entry, now_ms, op.options, issuer)
        for part in op.below:
            view = view.child(part)
        return view

    # --- judging

    def judge(
        self, ops: Sequence[Op], dot: int, hlc: int, applied: Sequence[int], operation: bytes | None = None
    ) -> tuple[list[Any], list[Any] | None]:
        """The effects of operations in normal form and, if they had to be tried, the readings after each.

        Shape:   ``applied`` is the vector of what is applied here; the commit, which is ``dot``, sees all of it and itself.
        Raises:  UsageError from a type or for too many effects, PreconditionFailed; nothing changed.
        """
        if len(ops) == 1 and ops[0].if_match is None:  # the hottest case
            op = ops[0]
            effects = self._effects(op, self.tree.entry(op.collection, op.key), (dot, hlc, operation, 0), 0)
            return (effects if len(effects) == 3 else normal_form(effects)), None
        now_ms = physical_ms(hlc)
        for op in ops:
            if op.if_match is not None and (etag := self.etag(op.collection, op.key, now_ms)) != op.if_match:
                raise PreconditionFailed(
                    f"{op.key!r} has the etag {etag} in this region, not {op.if_match}. Nothing changed."
                )
        effects = []
        if len(ops) == 1 or not self._needs_trial(ops):
            for index, op in enumerate(ops):
                entry = self.tree.entry(op.collection, op.key)
                effects += self._effects(op, entry, (dot, hlc, operation, index), len(effects))
            return (effects if len(effects) == 3 else normal_form(effects)), None
        cut = [*applied]
        cut[dot >> SEQ_BITS] = dot & SEQ_MASK
        scratch = self.tree.scratch([(op.collection, op.key) for op in ops])
        values = []
        for index, op in enumerate(ops):
            issued = (dot, hlc, operation, index)
            step = self._effects(op, scratch.entry(op.collection, op.key), issued, len(effects))
            effects += step
            scratch.apply(dot, hlc, cut, normal_form(step))
            entry = scratch.entry(op.collection, op.key)
            values.append(self._shown(op, entry, now_ms, issued) if op.crdt.shows_value else None)
        return normal_form(effects), values

    def _needs_trial(self, ops: Sequence[Op]) -> bool:
        """Whether an operation may look at, or show, what another of the same commit has done."""
        touched: dict[tuple[str, str], list[Op]] = {}
        for op in ops:
            touched.setdefault((op.collection, op.key), []).append(op)
        return any(
            len(group) > 1
            and (
                deadline_of(self.tree.entry(*address))[0]
                or any(op.crdt.shows_value or op.crdt.has_fields or op.below for op in group)
                or any(op.mutator is not None and op.mutator.reads for op in group)
            )
            for address, group in touched.items()
        )

    def _effects(self, op: Op, entry: Entry | None, issued: _Issued, before: int) -> list[Any]:
        """The effects of one operation on full paths; ``before``: the length of those before it in the commit."""
        path = [op.collection, op.key, *op.below]
        if op.mutator is None:
            effects: list[Any] = [DROP, path, None]
        else:
            view = self._see(op, entry, physical_ms(issued[1]), issued) if op.mutator.reads else self._nothing
            effects = op.mutator.effects(op.crdt, view, **op.arguments)
            if len(effects) == 3:  # by far the most frequent
                effects[1] = path + effects[1] if effects[1] else path
            else:
                for at in range(1, len(effects), 3):
                    effects[at] = path + effects[at]
        if entry is not None and (type(entry) is Branch or entry.kind == DEADLINE):  # type: ignore[union-attr]
            effects = with_deadlines(op, entry, path, effects, physical_ms(issued[1]))
        if before + len(effects) > 3 * MAX_EFFECTS:
            raise UsageError(f"a commit has at most {MAX_EFFECTS} effects. Nothing changed.", code="too-large")
        return effects

    # --- applying

    def apply(self, dot: int, commit: Commit, cut: Sequence[int]) -> bool:
        """Apply a commit whose deps are satisfied; return whether it reaches further than to one leaf at a key."""
        effects = commit.effects
        operation = commit.attempt if commit.attributes else None
        if operation is None:
            self.tree.apply(dot, commit.hlc, cut, effects)
        else:
            siblings = self.operations.record(operation, dot, commit, cut)
            self.tree.apply(dot, commit.hlc, cut, effects, siblings, is_repeatable=True)
        if len(effects) == 3 and len(effects[1]) == 2:  # by far the most frequent
            if effects[0] == DEADLINE:
                self.expiry.note(effects)
            return False
        if DEADLINE in effects[::3]:
            self.expiry.note(effects)
        for at in range(1, len(effects), 3):
            if len(effects[at]) > 2 and effects[at][0].endswith(":or_map"):
                self._note_clash(effects[at])
        return True

    def _note_clash(self, path: Sequence[Any]) -> None:
        """A field of a map that is there with two types is a conflict that no leaf shows."""
        entry = self.tree.here(path[:2])
        for part in path[2:]:
            if type(entry) is not Branch or not isinstance(part, str):
                return
            name, _, type_name = part.rpartition(":")
            parts = [f"{name}:{other}" for other in REGISTRY]
            if entry.sweep is not None:
                for other in parts:
                    entry.sweep.touch(other)
            if sum(other in entry.children for other in parts) > 1:
                self.tree.contested[path[0], path[1]] = None
            if type_name != "or_map":
                return
            entry = entry.children.get(part)

    # --- what checkpoints hold

    @property
    def ledgers(self) -> list[Ledger]:
        """What is to be remembered beside the leaves."""
        return [self.operations.ledger, self.expiry.ledger, self.tree.contested.ledger]

    def loaders(self) -> list[tuple[Ledger, Callable[[list[Any], Any], None]]]:
        """The same, with who takes it in again."""
        return list(zip(self.ledgers, (self.operations.load, self.expiry.load, self.tree.contested.load), strict=True))

    # --- what no reading shows

    def forget(self, stable: Sequence[int], frontier_hlc: int, budget: int = 1_000) -> bool:
        """Forget operation ids that no commit to come can carry: all of it is stable, and every member's stamps have passed its expiry.
        Return whether there may be more.
        """
        return self.operations.forget(stable, frontier_hlc, budget)
