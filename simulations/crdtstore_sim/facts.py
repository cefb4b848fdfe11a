"""The facts of a run, told by an observer who sees every node's disk and wire, and believes none of their books.

The question: what may a checker take for true? Not what an engine says of itself. Here stands what was written to which disk in which
order, read again by the second reader: per group the commits there are, per node what is applied and what is durable.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import gt
from typing import Any, NamedTuple

from crdtstore.commit import head_of
from crdtstore.shards import Division
from crdtstore.storage.protocol import Entry
from crdtstore_sim.models import MODELS, Event, Key, System
from crdtstore_sim.reader import Record, Roster, read_commit

__all__ = ["Asked", "AskedOp", "Facts", "Group", "Span", "Violation", "keys_of"]


class Violation(NamedTuple):
    """A law that did not hold."""

    checker: str
    time_us: int
    detail: str


class AskedOp(NamedTuple):
    """One operation as a user asked for it; ``collection`` with its type, ``path`` the fields below the key, with their types."""

    collection: str
    key: str
    op: str
    arguments: dict[str, Any]
    path: tuple[str, ...] = ()

    @property
    def type_name(self) -> str:
        """The type that the operation is one of."""
        return (self.path[-1] if self.path else self.collection).rpartition(":")[2]


class Span(NamedTuple):
    """Between question and answer: since when it was open, and between which times the clock of the node that was asked has been."""

    since_us: int
    from_ms: int
    to_ms: int
    now_ms: int


class Asked(NamedTuple):
    """A commit as a user asked for it."""

    domain: str
    ops: list[AskedOp]
    operation: str | None


class Group:
    """One group: its commits, and how far each node is. Mutable."""

    __slots__ = (
        "applied",
        "attempts",
        "digests",
        "durable",
        "keys",
        "members",
        "moments",
        "name",
        "promised",
        "records",
        "rosters",
    )

    def __init__(self, name: str, members: list[str]) -> None:
        count = len(members)
        self.name = name
        self.members = members
        self.records: list[list[Record]] = [[] for _ in members]
        self.rosters = [Roster(member) for member in members]
        self.applied = [[0] * count for _ in members]
        self.durable = [[0] * count for _ in members]
        self.moments: list[list[tuple[int, tuple[int, ...]]]] = [[] for _ in members]
        """Per node the vectors it stood at after its steps, and since when."""
        self.promised = [0] * count
        """Per node the latest stamp it said no later commit of its own would be below."""
        self.digests: dict[tuple[int, ...], int] = {}
        self.keys: dict[tuple[str, str], Key] = {}
        """The models, by collection and key."""
        self.attempts: dict[str, list[tuple[Record, int]]] = {}
        """Per idempotency key its commits, and how often it had been used, forgotten and used again by then."""

    def next_record(self, node: int, origin: int, data: bytes) -> Record:
        """The commit that a node says it applied next of an origin: known already, or new and its own.

        Raises:  ValueError saying what is wrong with it.
        """
        records, at = self.records[origin], self.applied[node][origin]
        if at < len(records):
            record = records[at]
            if record.data != data:
                raise ValueError(f"other bytes than those of commit {at + 1} of {self.members[origin]}")
            return record
        if origin != node:
            raise ValueError(f"a commit of {self.members[origin]} after its number {at}, which it never made")
        record = read_commit(data, origin, self.members, self.rosters[origin], records[-1] if records else None)
        records.append(record)
        return record

    def stood_at(self, node: int, since_us: int) -> list[tuple[int, ...]]:
        """The vectors of what was applied at a node at any moment since then, the newest first, as far as all of it is durable now."""
        durable = self.durable[node]
        found = []
        for time_us, vector in reversed(self.moments[node]):
            if not any(map(gt, vector, durable)):
                found.append(vector)
            if time_us < since_us:
                break
        return found

    def use_of(self, operation: str, record: Record) -> int:
        """The how manieth use of its id a commit belongs to: another one when its maker had seen all that came of the one before.

        Raises:  ValueError when that had not expired by then: it counts twice.
        """
        attempts = self.attempts.setdefault(operation, [])
        use = 0
        for other, of_use in attempts:
            if other.seq <= record.deps[other.origin] and of_use >= use:
                use = of_use + 1
                if record.hlc <= other.expiry_hlc:
                    raise ValueError(
                        f"was made by somebody who had commit {other.seq} of the same operation, not expired"
                    )
        attempts.append((record, use))
        return use

    def forget(self, origin: int, after: int) -> None:
        """A crash took an origin's newest commits, which nobody else may have seen."""
        del self.records[origin][after:]
        for name, attempts in self.attempts.items():
            self.attempts[name] = [one for one in attempts if one[0].origin != origin or one[0].seq <= after]
        records = self.records[origin]
        self.rosters[origin].names[records[-1].roster_size if records else 1 :] = []
        for key in self.keys.values():
            key.forget(origin, after)
        self.digests = {vector: digest for vector, digest in self.digests.items() if vector[origin] <= after}


class Facts:
    """All facts of a run. Mutable; violations are collected here."""

    def __init__(self, members: list[str], now_us: Callable[[], int], regions: list[str] | None = None) -> None:
        self.members = members
        self.regions = regions or members
        """Where the members are, in their order."""
        self.options: dict[str, dict[str, Any]] = {}
        """Of collections (with their type) what they were declared with."""
        self.index = {member: at for at, member in enumerate(members)}
        self.groups: dict[str, Group] = {}
        self.asked: dict[str, Asked] = {}
        """Every commit that a user asked for, by its trace id."""
        self.violations: list[Violation] = []
        self.windows_us: list[tuple[int, int]] = []
        """Per commit of users when it was made, and how long after that the last replica applied it."""
        self.now_us = now_us
        self.told: dict[int, dict[str, list[int]]] = {}
        """Per node that stands still, what it had been told to be durable: its disk goes on without it."""
        self._everybody = (1 << len(members)) - 1

    def report(self, checker: str, detail: str) -> None:
        self.violations.append(Violation(checker, self.now_us(), detail))

    def group(self, name: str) -> Group:
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = Group(name, self.members)
        return group

    # --- what happens

    def note_made(self, group: Group, record: Record) -> list[tuple[str, str]]:
        """A new commit: hand it to the models of its keys. Returns the keys (collection, key) that it touches."""
        record.made_us = self.now_us()
        record.missing_at = self._everybody
        asked = self.asked.get(record.trace) if record.trace is not None else None
        if asked is None and not record.is_system:
            return []
        operation = self._operation(group, record, asked)
        event = Event(record.origin, record.seq, record.hlc, record.deps, operation, record.name)
        touched: dict[tuple[str, str], Key] = {}
        problems: list[tuple[str, str | None]] = []
        if asked is None:
            for kind, path, value in record.effects():
                if (key := self._key(group, path[0], path[1])) is not None:
                    touched[path[0], path[1]] = key
                    problems.append((f"{path[0]}/{path[1]}", key.system(event, System(kind, tuple(path[2:]), value))))
        else:
            for index, one in enumerate(asked.ops):
                if (key := self._key(group, one.collection, one.key)) is not None:
                    touched[one.collection, one.key] = key
                    key.add(event, one.op, one.arguments, one.path, index)
        for (collection, name), key in touched.items():
            effects = partial(_effects_at, record, [collection, name])
            problems.append((f"{collection}/{name}", key.seal(event, effects)))
        for where, problem in problems:
            if problem is not None:
                self.report("model values", f"{group.name}: commit {record.name} on {where} {problem}")
        return list(touched)

    def _operation(self, group: Group, record: Record, asked: Asked | None) -> str | None:
        """The operation that a commit is an attempt at, None when it is one of its own."""
        if asked is None or asked.operation is None:
            return None
        try:  # what asks for something else is another operation, if its region could not know that the key was taken
            return f"{asked.operation}#{group.use_of(asked.operation, record)} {_request(asked.ops)}"
        except ValueError as error:
            self.report("model values", f"{group.name}: commit {record.name} {error}")
            return asked.operation

    def _key(self, group: Group, collection: str, name: str) -> Key | None:
        """The model of a key; None for a type that has none."""
        key = group.keys.get((collection, name))
        type_name = collection.partition(":")[2]
        if key is None and type_name in MODELS:
            options = self.options.get(collection)
            key = group.keys[collection, name] = Key(MODELS, type_name, self.members, self.regions, options)  # type: ignore[arg-type]
        return key

    def note_applied(self, group: Group, node: int, record: Record) -> None:
        group.applied[node][record.origin] = record.seq
        if record.missing_at:
            record.missing_at &= ~(1 << node)
            if not record.missing_at and record.trace is not None:
                self.windows_us.append((record.made_us, self.now_us() - record.made_us))

    def note_durable(self, node: int, entries: list[Entry]) -> None:
        """A sync returned: these entries are safe."""
        index = self.index
        for name, origin, _ in entries:
            self.groups[name].durable[node][index[origin]] += 1

    def note_pause(self, node: int) -> None:
        self.told[node] = {name: list(group.durable[node]) for name, group in self.groups.items()}

    def told_durable(self, group: Group, node: int) -> list[int]:
        """What a node surely knows to be durable, and so shows to whoever asks."""
        told = self.told.get(node)
        return group.durable[node] if told is None else told.get(group.name, [0] * len(self.members))

    def note_crash(self, node: int, survived: list[list[Entry]]) -> None:
        """A node lost its memory and the end of its log; what is left is what was durable, and what its log holds beyond that."""
        reached = {name: list(group.durable[node]) for name, group in self.groups.items()}
        for entries in survived:
            for name, origin, data in entries:
                vector, at = reached[name], self.index[origin]
                vector[at] = max(vector[at], head_of(data)[0])
        for name, group in self.groups.items():
            vector = reached[name]
            for maker, after in enumerate(vector):
                if maker != node:
                    for record in group.records[maker][after : group.applied[node][maker]]:
                        record.missing_at |= 1 << node if record.missing_at else 0
            if vector[node] < group.applied[node][node]:
                self._forget(group, node, vector[node])
            group.applied[node] = list(vector)
            group.durable[node] = list(vector)
            group.moments[node] = [(self.now_us(), tuple(vector))]

    def _forget(self, group: Group, node: int, after: int) -> None:
        for other in range(len(self.members)):
            if other != node and group.applied[other][node] > after:
                self.report(
                    "durability",
                    f"{group.name}: {self.members[node]} lost commit {after + 1} of its own in a crash, which "
                    f"{self.members[other]} has",
                )
                return  # the commit is a fact: others live on with it
        group.forget(node, after)


def keys_of(group: Group, division: Division, shard: int) -> dict[tuple[str, str], Key]:
    """The models of the keys that a group serves: one may also hold what was written to others under another number of shards."""
    if division.shards == 1:
        return group.keys
    return {at: model for at, model in group.keys.items() if division.shard_of(at[0].partition(":")[0], at[1]) == shard}


_DEFAULTS: dict[tuple[str, str], dict[str, Any]] = {
    ("counter", "add"): {"amount": 1},
    ("event_log", "append"): {"body": None},
    ("lww_map", "expire"): {"fields": None},
}
"""What is meant by operations that leave an argument out."""


def _request(ops: list[AskedOp]) -> str:
    """What was asked for, such that two that mean the same are the same."""
    meant = []
    for op in ops:
        arguments = {**_DEFAULTS.get((op.type_name, op.op), {}), **op.arguments}
        for name, value in arguments.items():
            if name in {"elements", "fields"} and isinstance(value, list):
                arguments[name] = sorted({(type(item).__name__, item) for item in value}, key=repr)
        meant.append((op.collection, op.key, op.op, sorted(arguments.items()), op.path))
    return repr(meant)


def _effects_at(record: Record, at: list[str]) -> list[System]:
    """What a commit does at a key."""
    return [System(kind, tuple(path[2:]), value) for kind, path, value in record.effects() if path[:2] == at]


def shown(value: Any) -> str:
    """A value in a message: short."""
    text = repr(value)
    return text if len(text) <= 300 else text[:300] + "…"
