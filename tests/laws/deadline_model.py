"""Deadlines, told a second time: what they add to the operations that the models of the types see.

The question: which write comes to its end by a deadline? A deadline is a register beside a key, a field of a map, a field of a field.
Every write at or below such a place puts its deadline again; the greatest counts, and never is the greatest. A write stamped at the
deadline or later ends what it has seen at the place, unless something there is stamped so late too, and it puts never. So each commit is
looked at with what its issuer had seen; each attempt at an operation by itself, since each judged for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from crdtstore.causal import ReplicaId
from tests.laws.facts import DELETE, STEP, Did, Model, Written, below, did

__all__ = ["Deadlines"]

Place = tuple[tuple[str, str], ...]
"""Below the key: the steps (name, type) that lead there; a field of an lww_map is an lww_register."""


class _Put(NamedTuple):
    """A deadline that a commit puts at a place."""

    fact: Written
    at: int
    place: Place
    due_ms: int | None


class _End(NamedTuple):
    """A removal of what a commit had seen at a place and below; with ``names`` only of these fields of it."""

    fact: Written
    at: int
    place: Place
    names: Sequence[str] | None = None

    def covers(self, place: Place) -> bool:
        depth = len(self.place)
        if place[:depth] != self.place:
            return False
        return self.names is None or (len(place) > depth and place[depth][0] in self.names)


class _Done(NamedTuple):
    """What a commit does to the deadlines of a key, and what has come to its end by it."""

    puts: list[_Put]
    ends: list[_End]
    wipes: list[Did]


class Deadlines:
    """The deadlines of one key. Mutable: it remembers what each commit has done, which depends only on what that commit had seen."""

    def __init__(self, type_name: str, models: Mapping[str, Model], key: str) -> None:
        self._type_name = type_name
        self._models = models
        self._key = key
        self._done: dict[Any, _Done] = {}

    def applied_to(self, facts: list[Written], now_ms: int | None) -> list[Did]:
        """The operations of these commits with what deadlines have ended, at an instant also for those who read."""
        if not any(where == self._key and call.op == "expire" for fact in facts for where, call in fact.calls):
            return did(facts, self._key)  # mostly
        past = _Past(self, facts)
        ops = past.ops()
        if now_ms is None:
            return ops
        everything = {fact.dot.replica: 1 << 60 for fact in facts}
        hidden: list[Place] = []
        for place in sorted({put.place for put in past.puts}, key=len):
            is_hidden = any(place[: len(other)] == other for other in hidden)
            if not is_hidden and past.has_ended(place, now_ms):
                hidden.append(place)
        last = (1 << 200, "", 0, 0)
        return ops + [Did(last, frozenset(), everything, DELETE, {}, place) for place in hidden]

    def done(self, fact: Written, facts: list[Written]) -> _Done:
        """What a commit does, looked at with those of the given commits that it had seen."""
        if fact.dot not in self._done:
            self._done[fact.dot] = _judge(fact, _Past(self, [one for one in facts if _is_seen(one, fact)]))
        return self._done[fact.dot]

    # what a past asks for

    @property
    def key(self) -> str:
        return self._key

    def newest_ms(self, ops: list[Did], place: Place) -> int:
        type_name = self._type_name
        for step in place:
            ops, type_name = below(ops, step), step[1]
        return self._models[type_name](ops).newest_hlc >> 16


class _Past:
    """What somebody has seen of a key: commits, and of one that is being judged what it has done so far. Mutable."""

    def __init__(self, deadlines: Deadlines, facts: list[Written]) -> None:
        self.deadlines = deadlines
        self.facts = facts
        done = [deadlines.done(fact, facts) for fact in facts]
        self.puts = [put for one in done for put in one.puts]
        self.ends = [end for one in done for end in one.ends]
        self.wipes = [wipe for one in done for wipe in one.wipes]
        self.own: list[Did] = []
        """The operations so far of the commit that is being judged."""

    def ops(self) -> list[Did]:
        """The operations as the models take them: what deadlines ended is deleted."""
        found = [*did(self.facts, self.deadlines.key), *self.own, *self.wipes]
        return sorted([one for one in found if one.op != "expire"], key=lambda one: one.order)

    def due(self, place: Place) -> tuple[bool, int | None]:
        """Whether there is a deadline at a place, and which. Of one operation the least attempt that puts one there counts."""
        puts = [put for put in self.puts if put.place == place]
        ends = [end for end in self.ends if end.covers(place)]
        changes: list[Any] = [*puts, *ends]
        groups: dict[Any, list[_Put]] = {}
        for put in puts:  # what a commit itself takes back was never there
            if not any(one.fact.dot == put.fact.dot and one.at > put.at for one in changes):
                groups.setdefault(put.fact.dot if put.fact.operation is None else put.fact.operation, []).append(put)
        dues: list[int | None] = []
        for group in groups.values():
            others = [change for change in changes if change not in group]
            if not any(_is_seen(put.fact, other.fact) for put in group for other in others):
                dues.append(min(group, key=lambda put: (put.fact.hlc, put.fact.dot)).due_ms)
        return bool(dues), None if None in dues else max((due for due in dues if due is not None), default=None)

    def has_ended(self, place: Place, now_ms: int) -> bool:
        is_there, due_ms = self.due(place)
        if not is_there or due_ms is None or now_ms < due_ms:
            return False
        return self.deadlines.newest_ms(self.ops(), place) < due_ms


def _is_seen(fact: Written, by: Written) -> bool:
    return fact.dot.seq <= by.deps.get(fact.dot.replica, 0)


def _judge(fact: Written, past: _Past) -> _Done:
    """What a commit does that has seen such a past."""
    before = len(past.puts), len(past.ends), len(past.wipes)
    now_ms = fact.hlc >> 16
    for at, (where, call) in enumerate(fact.calls):
        if where == past.deadlines.key:
            index = STEP * at
            _meet(fact, past, index, call)
            _do(fact, past, index, call, now_ms)
    return _Done(past.puts[before[0] :], past.ends[before[1] :], past.wipes[before[2] :])


def _meet(fact: Written, past: _Past, index: int, call: Any) -> None:
    """Deadlines above, at and, for fields of an lww_map, below what an operation writes: they end what is there, or are put again."""
    path: Place = tuple(call.path)
    for place in [path[:depth] for depth in range(len(path) + 1)]:
        if _meet_at(fact, past, index, place, is_renewed=call.op != DELETE or place != path):
            return
    if call.op in ("set", "expire"):
        for name in call.arguments.get("fields") or ():
            _meet_at(fact, past, index, (*path, (name, "lww_register")))


def _meet_at(fact: Written, past: _Past, index: int, place: Place, *, is_renewed: bool = True) -> bool:
    now_ms = fact.hlc >> 16
    is_there, due_ms = past.due(place)
    if not is_there:
        return False
    has_ended = past.has_ended(place, now_ms)
    if has_ended:
        deps: dict[ReplicaId, int] = fact.deps
        past.wipes.append(Did((fact.hlc, *fact.dot, index), frozenset([fact.dot]), deps, DELETE, {}, place))
        past.ends.append(_End(fact, index, place))
    if is_renewed:
        past.puts.append(_Put(fact, index + 2, place, None if due_ms is None or now_ms >= due_ms else due_ms))
    return has_ended


def _do(fact: Written, past: _Past, index: int, call: Any, now_ms: int) -> None:
    """The operation itself."""
    path: Place = tuple(call.path)
    given = call.arguments
    if call.op == DELETE:
        past.ends.append(_End(fact, index + 1, path))
    elif call.op == "unset":
        past.ends.append(_End(fact, index + 1, path, given["fields"]))
    elif call.op == "remove" and "field" in given:
        past.ends.append(_End(fact, index + 1, path, [given["field"]]))
    elif call.op == "expire":
        due_ms = None if given["ttl_ms"] is None else now_ms + given["ttl_ms"]
        names = given.get("fields")
        places = [path] if names is None else [(*path, (name, "lww_register")) for name in names]
        past.puts += [_Put(fact, index + 3, place, due_ms) for place in places]
    order = (fact.hlc, *fact.dot, index + 1)
    past.own.append(Did(order, frozenset([fact.dot]), fact.deps, call.op, given, path))
