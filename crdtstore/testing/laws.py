"""The laws of the store, as functions over any type: what must hold whatever was written, and in whatever order it arrived.

The question: what is the least that has the laws? A keyspace and the rosters of its origins: ``Bare``. No engine, no wire, no disk, so a
history of a dozen steps costs a millisecond and Hypothesis can look at thousands. The engine's own tests run the same histories
over a wire that loses, doubles and reorders.

A law raises AssertionError and says which one is broken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from crdtstore.causal import Dot, ReplicaId, make_replica_id
from crdtstore.clock import Clock
from crdtstore.commit import EXPIRY, FORMAT, OPERATION, Commit, decode_commit, encode_commit
from crdtstore.engine.causality import Causality
from crdtstore.engine.events import Op
from crdtstore.engine.keyspace import Keyspace
from crdtstore.leaves import SEQ_BITS
from crdtstore.testing.strategies import DELETE, Call, Deliver, Step, Write
from crdtstore.types import CrdtType

__all__ = [
    "Bare",
    "Fact",
    "World",
    "check_codec",
    "check_equal",
    "check_normal_form",
    "check_state",
    "members",
    "op_of",
]

BASE_MS = 1_700_000_000_000


def members(names: Sequence[str]) -> list[ReplicaId]:
    """Replica ids for tests: readable, and the same each time."""
    return [make_replica_id(name, at + 1) for at, name in enumerate(names)]


def op_of(crdt: CrdtType, key: str, call: Call) -> Op:
    """A call as the engine takes it, its arguments checked."""
    path = f"things:{crdt.name}"
    if call.op == DELETE:
        return Op(crdt, path, key, None, {})
    mutator = crdt.mutators[call.op]
    return Op(crdt, path, key, mutator, mutator.check(call.arguments))


class Fact(NamedTuple):
    """A commit as a model sees it: no effects, only what was asked, when, and knowing what."""

    dot: Dot
    hlc: int
    deps: dict[ReplicaId, int]
    calls: list[tuple[str, Call]]
    operation: int | None


class Bare:
    """One replica without an engine: makes commits, applies those whose deps are satisfied. Mutable."""

    def __init__(self, me: int, replicas: Sequence[ReplicaId]) -> None:
        self.me = me
        self.replicas = list(replicas)
        self.keyspace = Keyspace(self.replicas)
        self.causality = Causality(self.replicas)
        self.applied = [0] * len(replicas)
        self.clock = Clock()

    def write(self, ops: list[Op], now_ms: int, operation: int | None = None) -> bytes | None:
        """Make a commit and apply it; None when the operation is known here already."""
        attributes: list[Any] = []
        if operation is not None:
            name = operation.to_bytes(16, "big")
            if self.keyspace.operations.attempts(name):
                return None
            attributes = [OPERATION, [name, operation], EXPIRY, now_ms + 1 << 16]
        seq = self.applied[self.me] + 1
        hlc = self.clock.tick(now_ms)
        wire, _ = self.causality.increase(self.me, self.applied)
        cut = [*self.applied]
        cut[self.me] = seq
        effects, _ = self.keyspace.judge(ops, self.me << SEQ_BITS | seq, hlc, cut)
        origin = self.replicas[self.me] if seq == 1 else 0
        data = encode_commit(Commit(FORMAT, origin, seq, hlc, wire, "anonymous", attributes, effects))
        self.apply(self.me, data)
        return data

    def is_ready(self, origin: int, data: bytes) -> bool:
        """Whether this is the next commit of its origin and all that it saw is here."""
        commit = decode_commit(data)
        if commit.seq != self.applied[origin] + 1:
            return False
        return all(self.applied[index] >= seq for index, seq in self.causality.resolve(origin, commit.deps))

    def apply(self, origin: int, data: bytes) -> None:
        commit = decode_commit(data)
        cut = self.causality.advance(origin, commit.seq, self.causality.resolve(origin, commit.deps))
        self.keyspace.apply(origin << SEQ_BITS | commit.seq, commit, cut)
        self.applied[origin] = commit.seq

    @property
    def digest(self) -> int:
        return self.keyspace.tree.digest

    def reading(self, crdt: CrdtType, key: str) -> tuple[Any, bool, int]:
        """Value, whether it exists, number of conflicts."""
        view = self.keyspace.view(f"things:{crdt.name}", key)
        return crdt.read(view), view.exists, crdt.conflicts(view)


class World:
    """Some bare replicas of one group, and every commit that was made. Mutable.

    ``run`` takes steps as Hypothesis draws them and checks, after each, the laws that hold at any time.
    """

    def __init__(self, crdt: CrdtType, replicas: Sequence[ReplicaId]) -> None:
        self.crdt = crdt
        self.replicas = [Bare(at, replicas) for at in range(len(replicas))]
        self.commits: list[list[bytes]] = [[] for _ in replicas]
        self.facts: dict[Dot, Fact] = {}
        self.seen: dict[tuple[int, ...], int] = {}
        """The digest of every vector that any replica had: state is a function of the vector."""

    def run(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self.step(step)

    def step(self, step: Step) -> None:
        replica = self.replicas[step.replica % len(self.replicas)]
        if isinstance(step, Write):
            self._write(replica, step)
        else:
            self._deliver(replica, step)
        self.check(replica)

    def _write(self, replica: Bare, step: Write) -> None:
        deps = dict(zip(replica.replicas, replica.applied, strict=True))
        ops = [op_of(self.crdt, key, call) for key, call in step.calls]
        check_normal_form(replica, ops)
        data = replica.write(ops, BASE_MS + step.at_ms, step.operation)
        if data is None:
            return
        check_codec(data)
        self.commits[replica.me].append(data)
        dot = Dot(replica.replicas[replica.me], replica.applied[replica.me])
        self.facts[dot] = Fact(dot, replica.clock.last, deps, step.calls, step.operation)

    def _deliver(self, replica: Bare, step: Deliver) -> None:
        """Up to ``most`` commits, each time one of those that may come next."""
        for _ in range(step.most):
            ready = self.ready(replica, [len(commits) for commits in self.commits])
            if not ready:
                return
            replica.apply(*ready[step.choice % len(ready)])
            self.check(replica)

    def ready(self, replica: Bare, upto: Sequence[int]) -> list[tuple[int, bytes]]:
        """What a replica may apply next."""
        following = [
            (origin, commits[replica.applied[origin]])
            for origin, commits in enumerate(self.commits)
            if replica.applied[origin] < upto[origin]
        ]
        return [(origin, data) for origin, data in following if replica.is_ready(origin, data)]

    def check_remote(self, replica: Bare) -> None:
        """Effects computed at their origins and applied elsewhere, in another causal order, give the same state."""
        reader = Bare(replica.me, replica.replicas)
        while ready := self.ready(reader, replica.applied):
            reader.apply(*ready[-1])
        check_equal(self.crdt, replica, reader)

    def check(self, replica: Bare) -> None:
        check_state(replica)
        vector = tuple(replica.applied)
        known = self.seen.setdefault(vector, replica.digest)
        assert known == replica.digest, f"false convergence: two digests for the vector {vector}"

    def settle(self) -> None:
        """Everything reaches everybody; then all replicas are the same."""
        for replica in self.replicas:
            self._deliver(replica, Deliver(replica.me, 0, sum(map(len, self.commits))))
            check_equal(self.crdt, self.replicas[0], replica)

    def known_to(self, replica: Bare) -> list[Fact]:
        """The facts in a replica's vector."""
        vector = dict(zip(replica.replicas, replica.applied, strict=True))
        return [fact for dot, fact in self.facts.items() if dot.seq <= vector[dot.replica]]


def check_state(replica: Bare) -> None:
    """The digest that is kept is the one that the state has, and keys come in their order."""
    tree = replica.keyspace.tree
    assert tree.digest == tree.share([]), "the digest kept is not that of the state"
    for collection in tree.root:
        keys = list(tree.keys(collection))
        assert keys == sorted(keys, key=str.encode), f"keys of {collection} out of order"
        assert set(keys) == set(tree.root[collection].children), f"keys of {collection} are not those that are there"


def check_equal(crdt: CrdtType, left: Bare, right: Bare) -> None:
    """Equal vectors: equal digests, equal readings (law L1)."""
    assert left.applied == right.applied, f"{left.applied} against {right.applied}: not everything was delivered"
    assert left.digest == right.digest, "false convergence: equal vectors, different digests"
    path = f"things:{crdt.name}"
    keys = list(left.keyspace.tree.keys(path))
    assert keys == list(right.keyspace.tree.keys(path)), "equal vectors, different keys"
    for key in keys:
        assert left.reading(crdt, key) == right.reading(crdt, key), f"equal vectors, different readings of {key}"
        assert left.keyspace.etag(path, key) == right.keyspace.etag(path, key)


def check_codec(data: bytes) -> None:
    """Decoding and encoding give the same bytes: what is relayed is what was made."""
    commit = decode_commit(data)
    assert encode_commit(commit) == data, "decoding and encoding change a commit"
    assert decode_commit(encode_commit(commit)) == commit


def check_normal_form(replica: Bare, ops: list[Op]) -> None:
    """One commit in normal form does what its operations do one after the other."""
    tree, me = replica.keyspace.tree, replica.me
    seq = replica.applied[me] + 1
    dot, hlc = me << SEQ_BITS | seq, replica.clock.last + 1
    cut = [*replica.applied]
    cut[me] = seq
    keys = sorted({(op.collection, op.key) for op in ops})
    stepwise, at_once = tree.scratch(keys), tree.scratch(keys)
    for op in ops:
        one = Keyspace(replica.replicas)
        one.tree = stepwise
        effects, _ = one.judge([op], dot, hlc, cut)
        stepwise.apply(dot, hlc, cut, effects)
    effects, _ = replica.keyspace.judge(ops, dot, hlc, cut)
    cut[me] = seq - 1  # as every receiver applies it
    at_once.apply(dot, hlc, cut, effects)
    assert stepwise.share([]) == at_once.share([]), f"normal form is not what {len(ops)} steps leave"
    drops = [at for at in range(0, len(effects), 3) if effects[at] == 0]
    assert drops == list(range(0, 3 * len(drops), 3)), "drops come first in normal form"
