"""Effects that no type of this version writes: of the future, of another implementation, at odd paths.

The question: what may a peer send that nobody here understands? Anything that is well-formed. It must not matter in which causal order it
arrives, when a replica folds, forgets or sweeps; and every reading must survive it (laws L1 and L4).
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from crdtstore.clock import COUNTER_BITS, Clock, physical_ms
from crdtstore.commit import EXPIRY, FORMAT, OPERATION, Commit, decode_commit, encode_commit
from crdtstore.effects import normal_form
from crdtstore.engine.events import Op
from crdtstore.errors import CrdtStoreError, UsageError
from crdtstore.kernel import Tree
from crdtstore.leaves import ADD, DEADLINE, DROP, MARK, MAX, MIN, PUT, SEQ_BITS
from crdtstore.members import members as members_of
from crdtstore.testing.laws import BASE_MS, Bare, World, members
from crdtstore.testing.strategies import Deliver, Fold
from crdtstore.types import REGISTRY
from crdtstore.values import to_json_bytes

FUTURE = 9
HISTORIES = 20
"""Per type; some of the bugs that this found need hundreds."""
MEMBERS = members(["us", "eu", "ap"])
KEYS = "k"
TIMES = (None, BASE_MS + 2, BASE_MS + 5, BASE_MS + 30)
PARTS: dict[str, list[Any]] = {
    "bounded_counter": ["G", "U", "R", "H", "H", "E", MEMBERS[0], "h1", 1],
    "or_map": ["f:counter", "f:text", "f:or_map", "g:rw_set", "f:bounded_counter", "no type", b"x"],
    "text": [b"n1", b"n2", "x"],
}
VALUES: dict[int, list[Any]] = {
    ADD: [0, 1, -2, 1 << 62, 1 << 70],
    PUT: [
        None,
        "v",
        {"a": [1]},
        [3, BASE_MS + 4],
        ["confirmed", 5],
        [b"\x80", "a"],
        [b"\x40", "b"],
        [b"\xff", "z"],
        True,
    ],
    MAX: [1, 1, 5, "a"],
    MIN: [1, 5, "a"],
    MARK: [None],
    DEADLINE: [BASE_MS + 3, BASE_MS + 7, BASE_MS + 20, None, -5, 1 << 300],
    FUTURE: ["v", 1],
    DROP: [None],
}
MIXES = (
    [ADD, PUT, PUT, MAX, MIN, MARK, DROP, DROP, DEADLINE, FUTURE],
    [ADD, DROP, DEADLINE],
    [MAX, MIN, DROP, DEADLINE],
    [PUT, DROP, DEADLINE],
    [PUT, MARK, DROP],
)
ARGUMENTS: dict[str, list[Any]] = {
    "amount": [1, 2],
    "duration": [2],
    "element": ["x"],
    "elements": [["x", 1]],
    "fields": [{"x": 1}],
    "integer": [1],
    "names": [["x", "y"]],
    "natural": [0, 1, 2],
    "orderable": [1, "x"],
    "some_names": [None, ["x"]],
    "text": ["x", "f", "h1", "eu"],
    "ttl": [None, 2],
    "value": ["v"],
}


class Foreign(World):
    """A world whose writes are effects as they come, some under one of three operation ids. Mutable."""

    def __init__(self, type_name: str, random: Random) -> None:
        super().__init__(REGISTRY[type_name], MEMBERS, has_true_clocks=random.random() < 0.5, is_watched=False)
        self.random = random
        self.kinds = random.choice(MIXES)
        self.operations = [self.draw_effects() for _ in range(3)]
        self.expires_ms = BASE_MS + random.choice([4, 1_000])
        self.readings: dict[tuple[int, ...], dict[Any, Any]] = {}

    def draw_path(self) -> list[Any]:
        name, choice = self.crdt.name, self.random.choice
        if self.random.random() < 0.03:
            return [f"things:{name}"]
        parts = PARTS.get(name, ["x", 1])
        return [f"things:{name}", choice(KEYS), *(choice(parts) for _ in range(choice([0, 0, 1, 1, 1, 1, 2])))]

    def draw_effects(self) -> list[Any]:
        effects: list[Any] = []
        for _ in range(self.random.choice([1, 1, 2, 3])):
            kind, path = self.random.choice(self.kinds), self.draw_path()
            if kind != DROP and (MARK in self.kinds or self.random.random() < 0.4):
                effects += (DROP, path, None)  # where marks may be, whoever puts drops what it has seen
            effects += (kind, path, self.random.choice(VALUES[kind]))
        return effects

    def write(self, replica: Bare) -> None:
        choice = self.random.choice
        now_ms, attributes, effects = BASE_MS + choice([0, 1, 2, 3, 5, 8]), [], self.draw_effects()
        if self.random.random() < 0.4:
            number = choice(range(3))
            name = number.to_bytes(16, "big")
            if replica.keyspace.operations.attempts(name):
                return
            if max(now_ms, physical_ms(replica.clock.last)) >= self.expires_ms:
                return
            attributes = [OPERATION, [name, number], EXPIRY, self.expires_ms << COUNTER_BITS]
            effects = list(self.operations[number])
            for at in range(0, len(effects), 3):
                if effects[at] in (PUT, DEADLINE) and self.random.random() < 0.3:
                    effects[at + 2] = choice(VALUES[effects[at]])
        if self.random.random() < 0.8:
            effects = normal_form(effects)
        seq, hlc = replica.applied[replica.me] + 1, replica.clock.tick(now_ms)
        deps, _ = replica.causality.increase(replica.me, replica.applied)
        origin = replica.replicas[replica.me] if seq == 1 else 0
        data = encode_commit(Commit(FORMAT, origin, seq, hlc, deps, "anonymous", attributes, effects))
        self.commits[replica.me].append(data)
        replica.apply(replica.me, data)
        self.check(replica)

    def run_random(self, count: int) -> None:
        for _ in range(count):
            replica, what = self.random.choice(self.replicas), self.random.random()
            if what < 0.4:
                self.write(replica)
            elif what < 0.85:
                self.step(Deliver(replica.me, self.random.randrange(6), self.random.choice([1, 2, 5])))
            else:
                self.step(Fold(replica.me, self.random.choice([1, 100])))
            if self.random.random() < 0.5:
                self.read(replica)
                self.judge(replica)
        self.settle()
        plain = Bare(0, MEMBERS)
        while ready := self.ready(plain, [len(commits) for commits in self.commits]):
            plain.apply(*self.random.choice(ready))
        self.check(plain)
        for replica in (*self.replicas, plain):
            self.read(replica)

    def read(self, replica: Bare) -> None:
        """Every reading survives, and is the one that any replica with this vector has."""
        found: dict[Any, Any] = {}
        for key in KEYS:
            for now_ms in TIMES:
                view = replica.keyspace.view(f"things:{self.crdt.name}", key, now_ms)
                self.crdt.conflicts(view)
                list(self.crdt.explain(view))
                beside = self.crdt.beside(view, MEMBERS[0], replica.keyspace.regions)
                try:
                    page = members_of(self.crdt, view, None, 2).items
                except UsageError:
                    page = []
                etag = replica.keyspace.etag(f"things:{self.crdt.name}", key, now_ms)
                found[key, now_ms] = [to_json_bytes(self.crdt.read(view)), view.exists, repr(beside), repr(page), etag]
        known = self.readings.setdefault(tuple(replica.applied), found)
        assert known == found, f"two readings for the vector {replica.applied}"

    def judge(self, replica: Bare) -> None:
        """An operation on whatever stands there gives effects that a commit may have, or is refused."""
        choice, crdt = self.random.choice, self.crdt
        below: tuple[str, ...] = ()
        if crdt.name == "or_map" and self.random.random() < 0.7:
            part = choice(["f:counter", "f:text", "f:aw_set", "f:or_map", "g:rw_set"])
            crdt, below = REGISTRY[part.rpartition(":")[2]], (part,)
        ops = []
        for _ in range(choice([1, 2])):
            mutator = choice([*crdt.mutators.values(), None] if crdt.deletable else [*crdt.mutators.values()])
            given = {} if mutator is None else {each.name: choice(ARGUMENTS[each.kind]) for each in mutator.arguments}
            arguments = {} if mutator is None else mutator.check(given)
            ops.append(Op(crdt, f"things:{self.crdt.name}", choice(KEYS), mutator, arguments, below=below))
        cut, seq = [*replica.applied], replica.applied[replica.me] + 1
        cut[replica.me] = seq
        hlc = Clock(last=replica.clock.last).tick(BASE_MS + choice([0, 3, 8, 25]))
        try:
            effects, _ = replica.keyspace.judge(ops, replica.me << SEQ_BITS | seq, hlc, cut, choice([None, b"o" * 16]))
        except CrdtStoreError:
            return
        decode_commit(encode_commit(Commit(FORMAT, 0, 2, hlc, [], "anonymous", [], effects)))


@pytest.mark.parametrize("sweep_above", [0, 2, 1 << 30])
@pytest.mark.parametrize("type_name", sorted(REGISTRY))
def test_what_a_type_does_not_know_is_the_same_everywhere(
    type_name: str, sweep_above: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tree, "sweep_above", sweep_above)
    for seed in range(HISTORIES):
        Foreign(type_name, Random(seed)).run_random(30)
