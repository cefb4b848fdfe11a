"""The keys of a group: operations judged at the origin, commits applied, readings.

The question: on which state is an operation judged? On what its predecessors in the same commit leave; hence a commit that touches a key
twice is tried on a scratch copy of its keys first. Judging changes nothing; applying never refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crdtstore.causal import ReplicaId
from crdtstore.commit import Commit
from crdtstore.engine.events import Op
from crdtstore.engine.operations import Operations
from crdtstore.errors import PreconditionFailed, UsageError
from crdtstore.kernel import Tree, normal_form
from crdtstore.leaves import DROP
from crdtstore.types import View

__all__ = ["Keyspace"]

MAX_EFFECTS = 100_000
"""A set add has two an element: what one request asks for is done before any other is heard."""


class Keyspace:
    """State of one group at one replica. Mutable; changed by ``apply`` only."""

    __slots__ = ("operations", "replicas", "tree")

    def __init__(self, replicas: list[ReplicaId]) -> None:
        self.replicas = replicas
        self.tree = Tree(replicas)
        self.operations = Operations()

    def view(self, collection: str, key: str) -> View:
        return View(self.replicas, self.tree.entry(collection, key))

    def etag(self, collection: str, key: str) -> str:
        """The key's share of the state digest, hex in quotes."""
        return f'"{self.tree.share([collection, key]):032x}"'

    def judge(self, ops: Sequence[Op], dot: int, hlc: int, cut: Sequence[int]) -> tuple[list[Any], list[Any] | None]:
        """The effects of operations in normal form and, if they had to be tried, the readings after each.

        Shape:   ``cut`` covers all that is applied here and, in its own entry, the commit itself.
        Raises:  UsageError from a type or for too many effects, PreconditionFailed; nothing changed.
        """
        for op in ops:
            if op.if_match is not None and (etag := self.etag(op.collection, op.key)) != op.if_match:
                raise PreconditionFailed(
                    f"{op.key!r} has the etag {etag} in this region, not {op.if_match}. Nothing changed."
                )
        if len(ops) == 1 or len({(op.collection, op.key) for op in ops}) == len(ops):
            effects: list[Any] = []
            for op in ops:
                effects += _effects(op, self.view(op.collection, op.key), len(effects))
            return (effects if len(effects) == 3 else normal_form(effects)), None
        scratch = self.tree.scratch([(op.collection, op.key) for op in ops])
        effects, values = [], []
        for op in ops:
            view = View(self.replicas, scratch.entry(op.collection, op.key))
            step = _effects(op, view, len(effects))
            effects += step
            scratch.apply(dot, hlc, cut, step)
            values.append(_shown(op, View(self.replicas, scratch.entry(op.collection, op.key))))
        return normal_form(effects), values

    def shown(self, ops: Sequence[Op]) -> list[Any]:
        """The present readings of the keys of operations, null where the type does not show them in a reply."""
        return [_shown(op, self.view(op.collection, op.key)) for op in ops]

    def apply(self, dot: int, commit: Commit, cut: Sequence[int]) -> None:
        """Apply a commit whose deps are satisfied."""
        operation = commit.operation
        siblings = self.operations.record(operation, dot, commit) if operation is not None else None
        self.tree.apply(dot, commit.hlc, cut, commit.effects, siblings)


def _effects(op: Op, view: View, before: int) -> list[Any]:
    """The effects of one operation on full paths; ``before``: the length of those before it in the commit."""
    path = [op.collection, op.key]
    if op.mutator is None:
        return [DROP, path, None]
    effects = op.mutator.effects(op.crdt, view, op.arguments)
    if before + len(effects) > 3 * MAX_EFFECTS:
        raise UsageError(f"a commit has at most {MAX_EFFECTS} effects. Nothing changed.", code="too-large")
    for at in range(1, len(effects), 3):
        effects[at] = path + effects[at]
    return effects


def _shown(op: Op, view: View) -> Any:
    return op.crdt.read(view) if op.crdt.shows_value else None
