"""What each type means, told a second time: from the set of commits and who had seen what (ALGORITHMS 5).

Nothing of ours is imported but dots: no effects, no leaves, no cut. A model looks at every pair of operations and is as slow as that.
Operations repeated under one id are first made one: it has the least stamp of them, saw what any of them saw, and was seen by whoever
saw one of them. A write takes the place of those it has seen, an add to a set of the adds of its element too: ended by a removal that
saw another attempt, it does not give that place back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from crdtstore.causal import Dot, ReplicaId


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
    """One operation on the key that is looked at."""

    order: tuple[int, str, int, int]
    dots: frozenset[Dot]
    deps: dict[ReplicaId, int]
    op: str
    arguments: dict[str, Any]

    @property
    def dot(self) -> Dot:
        """The dot that counts."""
        return Dot(ReplicaId(self.order[1]), self.order[2])

    def is_before(self, other: Did) -> bool:
        """Whether ``other`` happened knowing of this."""
        if self.dots == other.dots:
            return self.order[3] < other.order[3]
        return any(dot.seq <= other.deps.get(dot.replica, 0) for dot in self.dots)


def did(facts: Iterable[Written], key: str) -> list[Did]:
    """The operations on a key, those repeated under one id made one."""
    groups: dict[Any, list[Written]] = {}
    for fact in facts:
        groups.setdefault(fact.dot if fact.operation is None else fact.operation, []).append(fact)
    found = []
    for group in groups.values():
        least = min(group, key=lambda fact: (fact.hlc, fact.dot))
        dots = frozenset(fact.dot for fact in group)
        deps: dict[ReplicaId, int] = {}
        for fact in group:
            for replica, seq in fact.deps.items():
                deps[replica] = max(seq, deps.get(replica, 0))
        for at, (where, call) in enumerate(least.calls):
            if where == key:
                found.append(Did((least.hlc, *least.dot, at), dots, deps, call.op, call.arguments))
    return sorted(found, key=lambda one: one.order)


def _survivors(puts: list[Did], drops: list[Did]) -> list[Did]:
    return [put for put in puts if not any(put.is_before(drop) for drop in drops)]


def _counter(ops: list[Did]) -> tuple[Any, bool, int]:
    adds = _survivors([one for one in ops if one.op == "add"], [one for one in ops if one.op == "delete"])
    return sum(add.arguments.get("amount", 1) for add in adds), bool(adds), 0


def _lww_register(ops: list[Did]) -> tuple[Any, bool, int]:
    live = _survivors([one for one in ops if one.op == "set"], ops)
    return live[-1].arguments["value"] if live else None, bool(live), max(0, len(live) - 1)


def _element_order(element: Any) -> tuple[int, Any]:
    return ((int, str, bytes).index(type(element)), element)


def _aw_set(ops: list[Did]) -> tuple[Any, bool, int]:
    elements = {element for one in ops for element in one.arguments.get("elements", ())}
    present = []
    for element in elements:
        touching = [one for one in ops if one.op == "delete" or element in one.arguments["elements"]]
        if _survivors([one for one in touching if one.op == "add"], touching):
            present.append(element)
    return sorted(present, key=_element_order), bool(present), 0


def _lww_map(ops: list[Did]) -> tuple[Any, bool, int]:
    value, conflicts = {}, 0
    for name in sorted({name for one in ops for name in one.arguments.get("fields", ())}):
        sets = [one for one in ops if one.op == "set" and name in one.arguments["fields"]]
        drops = [one for one in ops if one.op == "delete" or name in one.arguments.get("fields", ())]
        live = _survivors(sets, drops)
        if live:
            value[name] = live[-1].arguments["fields"][name]
            conflicts += len(live) - 1
    return value, bool(value), conflicts


def _event_log(ops: list[Did]) -> tuple[Any, bool, int]:
    first: dict[str, Did] = {}
    bodies: dict[str, list[Any]] = {}
    commits: set[tuple[str, Dot]] = set()
    for one in ops:
        name, body = one.arguments["id"], one.arguments.get("body")
        if (name, one.dot) in commits:
            continue  # an id appended twice in one commit is one entry: the first
        commits.add((name, one.dot))
        first.setdefault(name, one)
        bodies.setdefault(name, [])
        if body not in bodies[name] or any(type(body) is not type(other) for other in bodies[name]):
            bodies[name].append(body)
    value = [
        {"id": name, "body": one.arguments.get("body"), "dot": str(one.dot), "time": _time(one.order[0])}
        for name, one in sorted(first.items(), key=lambda item: (item[1].order[:3], item[0]))
    ]
    return value, bool(value), sum(len(found) > 1 for found in bodies.values())


def _time(hlc: int) -> str:
    ms = hlc >> 16
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{ms % 1000:03d}Z"


MODELS: dict[str, Callable[[list[Did]], tuple[Any, bool, int]]] = {
    "aw_set": _aw_set,
    "counter": _counter,
    "event_log": _event_log,
    "lww_map": _lww_map,
    "lww_register": _lww_register,
}


def reading(type_name: str, facts: Iterable[Written], key: str) -> tuple[Any, bool, int]:
    """Value, whether it exists, number of conflicts."""
    return MODELS[type_name](did(facts, key))
