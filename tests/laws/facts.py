"""Commits as the models are told of them, and operations as the models see them.

The question: what is one operation? What was asked under one id, in however many regions: it has the least stamp of its attempts, saw what
any of them saw, and was seen by whoever saw one of them. Nothing of ours is imported but dots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from crdtstore.causal import Dot, ReplicaId

__all__ = ["DELETE", "STEP", "Did", "Model", "Told", "Written", "below", "did", "survivors"]

DELETE = "delete"
"""The operation that every model takes: what it has seen is gone. A field of a map may be removed whatever its type."""

STEP = 4
"""Indexes in a commit are so far apart: deadlines do things before and after an operation (``deadline_model``)."""


class Written(Protocol):
    """A commit as a model is told of it."""

    @property
    def dot(self) -> Dot: ...
    @property
    def hlc(self) -> int: ...
    @property
    def deps(self) -> dict[ReplicaId, int]: ...
    @property
    def calls(self) -> list[tuple[str, Any]]: ...
    @property
    def operation(self) -> int | None: ...


class Did(NamedTuple):
    """One operation on the key, or field, that is looked at."""

    order: tuple[int, str, int, int]
    """(hlc, replica, seq, index in the commit)."""
    dots: frozenset[Dot]
    deps: dict[ReplicaId, int]
    op: str
    arguments: dict[str, Any]
    path: tuple[tuple[str, str], ...] = ()
    attempts: tuple[tuple[int, Dot, dict[ReplicaId, int]], ...] = ()
    """Each commit that made it: stamp, dot and what it had seen; empty: the one above."""

    @property
    def dot(self) -> Dot:
        """The dot that counts."""
        return Dot(ReplicaId(self.order[1]), self.order[2])

    def is_before(self, other: Did) -> bool:
        """Whether ``other`` happened knowing of this."""
        if self.dots == other.dots:
            return self.order[3] < other.order[3]
        return any(dot.seq <= other.deps.get(dot.replica, 0) for dot in self.dots)


class Told(NamedTuple):
    """What a model says: the value, whether there is one, how many writes lost, and the stamp of the newest that is left."""

    value: Any
    exists: bool
    conflicts: int = 0
    newest_hlc: int = 0


Model = Callable[[list[Did]], Told]
"""Operations in the one order of all (hlc, replica, seq, index), to what is read."""


def did(facts: Iterable[Written], key: str) -> list[Did]:
    """The operations on a key, those repeated under one id made one."""
    groups: dict[Any, list[Written]] = {}
    for fact in facts:
        groups.setdefault(fact.dot if fact.operation is None else fact.operation, []).append(fact)
    found = []
    for group in groups.values():
        least = min(group, key=lambda fact: (fact.hlc, fact.dot))
        attempts = tuple((fact.hlc, fact.dot, fact.deps) for fact in group)
        dots = frozenset(fact.dot for fact in group)
        deps: dict[ReplicaId, int] = {}
        for fact in group:
            for replica, seq in fact.deps.items():
                deps[replica] = max(seq, deps.get(replica, 0))
        for at, (where, call) in enumerate(least.calls):
            if where == key:
                order = (least.hlc, *least.dot, STEP * at + 1)
                found.append(Did(order, dots, deps, call.op, call.arguments, call.path, attempts))
    return sorted(found, key=lambda one: one.order)


def survivors(puts: list[Did], drops: list[Did]) -> list[Did]:
    """The puts that no drop has seen."""
    return [put for put in puts if not any(put.is_before(drop) for drop in drops)]


def below(ops: Iterable[Did], step: tuple[str, str]) -> list[Did]:
    """What operations on a map are to one of its fields, ``step`` being its name and type; fields of an lww_map are lww_registers."""
    found = [_below(one, *step) for one in ops]
    return [one for one in found if one is not None]


def _below(one: Did, name: str, type_name: str) -> Did | None:
    given = one.arguments
    if one.path:
        return one._replace(path=one.path[1:]) if one.path[0] == (name, type_name) else None
    if one.op == DELETE or (one.op == "remove" and given["field"] == name):
        return one._replace(op=DELETE, arguments={})
    if one.op == "unset" and name in given["fields"]:
        return one._replace(op=DELETE, arguments={})
    if one.op == "set" and name in given["fields"]:
        return one._replace(arguments={"value": given["fields"][name]})
    return None
