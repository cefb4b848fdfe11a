"""The laws of the store, as functions over any type: what must hold whatever was written, and in whatever order it arrived.

The question: what is the least that has the laws? A keyspace and the rosters of its origins: ``Bare``. No engine, no wire, no disk, so a
history of a dozen steps costs a millisecond and Hypothesis can look at thousands. The engine's own tests run the same histories
over a wire that loses, doubles and reorders.

A law raises AssertionError and says which one is broken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from operator import le
from typing import Any, NamedTuple

from crdtstore.causal import Dot, ReplicaId, make_replica_id
from crdtstore.clock import COUNTER_BITS, Clock, physical_ms
from crdtstore.commit import EXPIRY, FORMAT, OPERATION, Commit, decode_commit, encode_commit
from crdtstore.engine.causality import Causality
from crdtstore.engine.events import Op
from crdtstore.engine.keyspace import Keyspace
from crdtstore.errors import CrdtStoreError
from crdtstore.leaves import SEQ_BITS
from crdtstore.testing.strategies import DELETE, Call, Deliver, Fold, Step, Write
from crdtstore.types import REGISTRY, CrdtType
from crdtstore.types.or_map import part_of
from crdtstore.values import pack

__all__ = [
    "Bare",
    "Fact",
    "World",
    "check_codec",
    "check_equal",
    "check_explained",
    "check_normal_form",
    "check_same",
    "check_state",
    "members",
    "op_of",
    "regions_of",
]

_NUMBERED = ("bounded_counter", "text")
"""Types that name what they write after the place of the operation in its commit: one by one it would be another name."""
BASE_MS = 1_700_000_000_000


def members(names: Sequence[str]) -> list[ReplicaId]:
    """Replica ids for tests: readable, and the same each time."""
    return [make_replica_id(name, at + 1) for at, name in enumerate(names)]


def regions_of(replicas: Iterable[ReplicaId]) -> dict[ReplicaId, str]:
    """The region of each replica: the name of its node."""
    return {replica: replica.rpartition(".")[0] for replica in replicas}


def op_of(crdt: CrdtType, key: str, call: Call) -> Op:
    """A call as the engine takes it, its arguments checked."""
    collection = f"things:{crdt.name}"
    below = tuple(part_of(name, type_name) for name, type_name in call.path)
    nested = REGISTRY[call.path[-1][1]] if call.path else crdt
    if call.op == DELETE:
        return Op(nested, collection, key, None, {}, below=below)
    mutator = nested.mutators[call.op]
    return Op(nested, collection, key, mutator, mutator.check(call.arguments), below=below)


class Fact(NamedTuple):
    """A commit as a model sees it: no effects, only what was asked, when, and knowing what."""

    dot: Dot
    hlc: int
    deps: dict[ReplicaId, int]
    calls: list[tuple[str, Call]]
    operation: int | None


class Bare:
    """One replica without an engine: makes commits, applies those whose deps are satisfied. Mutable."""

    def __init__(self, me: int, replicas: Sequence[ReplicaId], *, has_true_clock: bool = False) -> None:
        self.me = me
        self.replicas = list(replicas)
        self.keyspace = Keyspace(self.replicas, regions_of(self.replicas))
        self.causality = Causality(self.replicas)
        self.applied = [0] * len(replicas)
        self.clock = Clock()
        self.promised = [0] * len(replicas)
        """Per origin the stamp of its last commit that is applied here."""
        self.has_true_clock = has_true_clock
        """Whether stamps from elsewhere move the clock, as they do unless a clock is far off."""

    def write(
        self, ops: list[Op], now_ms: int, operation: int | None = None, expires_ms: int = BASE_MS + 1_000
    ) -> bytes | None:
        """Make a commit and apply it; None when the operation is known here already, or its id has expired.

        Raises:  what a type refuses; nothing changed.
        """
        attributes: list[Any] = []
        name = None if operation is None else operation.to_bytes(16, "big")
        if name is not None:
            if self.keyspace.operations.attempts(name) or max(now_ms, physical_ms(self.clock.last)) >= expires_ms:
                return None
            attributes = [OPERATION, [name, operation], EXPIRY, expires_ms << COUNTER_BITS]
        seq = self.applied[self.me] + 1
        last = self.clock.last
        hlc = self.clock.tick(now_ms)
        wire, _ = self.causality.increase(self.me, self.applied)
        cut = [*self.applied]
        cut[self.me] = seq
        try:
            effects, _ = self.keyspace.judge(ops, self.me << SEQ_BITS | seq, hlc, cut, name)
        except CrdtStoreError:
            self.clock.last = last
            raise
        origin = self.replicas[self.me] if seq == 1 else 0
        data = encode_commit(Commit(FORMAT, origin, seq, hlc, wire, "anonymous", tuple(attributes), effects))
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
        self.promised[origin] = commit.hlc
        if self.has_true_clock:
            self.clock.observe(commit.hlc, physical_ms(commit.hlc))

    @property
    def digest(self) -> int:
        return self.keyspace.tree.digest

    def reading(self, crdt: CrdtType, key: str, now_ms: int | None = None) -> tuple[Any, bool, int]:
        """Value, whether it exists, number of conflicts; as at an instant, or with what has expired."""
        view = self.keyspace.view(f"things:{crdt.name}", key, now_ms)
        return crdt.read(view), view.exists, crdt.conflicts(view)


class World:
    """Some bare replicas of one group, and every commit that was made. Mutable.

    ``run`` takes steps as Hypothesis draws them and checks, after each, the laws that hold at any time. Not so if it only ``is_watched``
    at its end: what a check looks at has every drop carried out, so a drop in slices goes on only where nobody looks. Operation ids
    expire after ``id_window_ms``.
    """

    def __init__(
        self,
        crdt: CrdtType,
        replicas: Sequence[ReplicaId],
        *,
        has_true_clocks: bool = False,
        id_window_ms: int = 1_000,
        is_watched: bool = True,
    ) -> None:
        self.crdt = crdt
        self.replicas = [Bare(at, replicas, has_true_clock=has_true_clocks) for at in range(len(replicas))]
        self.commits: list[list[bytes]] = [[] for _ in replicas]
        self.facts: dict[Dot, Fact] = {}
        """In the order in which they were made."""
        self.seen: dict[tuple[int, ...], int] = {}
        """The digest of every vector that any replica had: state is a function of the vector."""
        self.rows: list[list[list[int]]] = [[[0] * len(replicas)] for _ in replicas]
        """Every vector that a replica has had."""
        self.has_folded = False
        self._expires_ms = BASE_MS + id_window_ms
        self._is_watched = is_watched

    def run(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self.step(step)

    def step(self, step: Step) -> None:
        replica = self.replicas[step.replica % len(self.replicas)]
        if isinstance(step, Write):
            self._write(replica, step)
        elif isinstance(step, Deliver):
            self._deliver(replica, step)
        else:
            self._fold(replica, step)
        self.check(replica)

    def _write(self, replica: Bare, step: Write) -> None:
        deps = dict(zip(replica.replicas, replica.applied, strict=True))
        ops = [op_of(self.crdt, key, call) for key, call in step.calls]
        try:
            if self._is_watched:
                check_normal_form(replica, ops, BASE_MS + step.at_ms)
            data = replica.write(ops, BASE_MS + step.at_ms, step.operation, self._expires_ms)
        except CrdtStoreError:
            assert replica.applied == list(deps.values()), "what was refused has changed something"
            return
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

    def _fold(self, replica: Bare, step: Fold) -> None:
        """As an engine would that knows the vectors of all: fold below them, forget what nobody can attempt any more, sweep."""
        digest, tree, stable = replica.digest, replica.keyspace.tree, self.stable(replica)
        was_settled = tree.is_settled
        replica.keyspace.forget(stable, self.frontier(replica))
        tree.fold(stable, step.budget)
        assert not was_settled or digest == replica.digest, "folding changes the digest"
        tree.run_sweeps(step.budget)
        self.has_folded = True

    def stable(self, replica: Bare) -> list[int]:
        """What a replica may take for applied everywhere: of each other the newest vector in which nothing is missing here.

        A vector that names a commit not yet here says too much: that commit was made not knowing what it names besides.
        """
        usable = [
            next(row for row in reversed(rows) if all(map(le, row, replica.applied)))
            for other, rows in enumerate(self.rows)
            if other != replica.me
        ]
        return [min(each) for each in zip(replica.applied, *usable, strict=True)]

    def frontier(self, replica: Bare) -> int:
        """The stamp below which no commit will arrive at a replica any more: the least of what others have promised it.

        The clock of another counts only once all of its commits are here.
        """
        return min(
            other.clock.last if replica.applied[origin] == len(self.commits[origin]) else replica.promised[origin]
            for origin, other in enumerate(self.replicas)
        )

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
        self.rows[replica.me].append([*replica.applied])
        if self._is_watched:
            check_state(replica)
        if not replica.keyspace.tree.is_settled:
            return
        vector = tuple(replica.applied)
        known = self.seen.setdefault(vector, replica.digest)
        assert known == replica.digest, f"false convergence: two digests for the vector {vector}"

    def settle(self) -> None:
        """Everything reaches everybody; then all replicas are the same."""
        for replica in self.replicas:
            self._deliver(replica, Deliver(replica.me, 0, sum(map(len, self.commits))))
            replica.keyspace.tree.run_sweeps(1 << 30)
            self.check(replica)
            check_equal(self.crdt, self.replicas[0], replica, is_exact=not self.has_folded)

    def known_to(self, replica: Bare) -> list[Fact]:
        """The facts in a replica's vector."""
        vector = dict(zip(replica.replicas, replica.applied, strict=True))
        return [fact for dot, fact in self.facts.items() if dot.seq <= vector[dot.replica]]


def check_state(replica: Bare) -> None:
    """The digest that is kept is the one that the state has, and keys come in their order."""
    tree = replica.keyspace.tree
    assert tree.digest == tree.share([]), "the digest kept is not that of the state"
    for collection, branch in tree.root.children.items():
        keys = list(tree.keys(collection))
        assert keys == sorted(keys, key=str.encode), f"keys of {collection} out of order"
        assert set(keys) == set(branch.children), f"keys of {collection} are not those that are there"


def check_equal(crdt: CrdtType, left: Bare, right: Bare, *, is_exact: bool = True) -> None:
    """Equal vectors: equal digests, equal readings (law L1). Conflicts are compared if ``is_exact``: folding ends those which no commit
    to come can decide otherwise.
    """
    assert left.applied == right.applied, f"{left.applied} against {right.applied}: not everything was delivered"
    assert left.digest == right.digest, "false convergence: equal vectors, different digests"
    path = f"things:{crdt.name}"
    keys = [key for key in left.keyspace.tree.keys(path) if left.keyspace.view(path, key).exists]
    for key in keys:
        for now_ms in (None, BASE_MS + 2, BASE_MS + 6):
            check_same(left.reading(crdt, key, now_ms), right.reading(crdt, key, now_ms), key, is_exact=is_exact)
        assert left.keyspace.etag(path, key) == right.keyspace.etag(path, key)
    there = [key for key in right.keyspace.tree.keys(path) if right.keyspace.view(path, key).exists]
    assert keys == there, "equal vectors, different keys"


def check_same(left: tuple[Any, bool, int], right: tuple[Any, bool, int], what: str, *, is_exact: bool = True) -> None:
    """Two readings are the same, on the wire too: 1, 1.0 and true differ there."""
    assert left[:2] == right[:2], f"{what}: {left[:2]} against {right[:2]}"
    assert pack(left[0]) == pack(right[0]), f"{what}: equal only in Python"
    assert not is_exact or left[2] == right[2], f"{what}: {left[2]} conflicts against {right[2]}"


def check_explained(crdt: CrdtType, replica: Bare, key: str) -> None:
    """What stands behind a reading is named, at each place first what counts; and where writes lost there is more than one."""
    view = replica.keyspace.view(f"things:{crdt.name}", key)
    writes = list(crdt.explain(view))
    assert not view.exists or any(write.counts for write in writes), f"nothing counts behind the reading of {key}"
    assert not crdt.conflicts(view) or len(writes) > 1, f"no conflict is named behind the reading of {key}"
    done: set[tuple[Any, ...]] = set()
    for before, write in pairwise(writes):
        if write.at != before.at:
            done.add(before.at)
        assert write.at not in done, f"{write.at} is explained in two places"
        assert write.at != before.at or before.counts or not write.counts, f"{write.at} begins with what does not count"
    assert all(write.why for write in writes)


def check_codec(data: bytes) -> None:
    """Decoding and encoding give the same bytes: what is relayed is what was made."""
    commit = decode_commit(data)
    assert encode_commit(commit) == data, "decoding and encoding change a commit"
    assert decode_commit(encode_commit(commit)) == commit


def check_normal_form(replica: Bare, ops: list[Op], now_ms: int) -> None:
    """One commit in normal form does what its operations do one after the other."""
    if any(op.crdt.name in _NUMBERED for op in ops):
        return
    tree, me = replica.keyspace.tree, replica.me
    seq = replica.applied[me] + 1
    dot, hlc = me << SEQ_BITS | seq, Clock(last=replica.clock.last).tick(now_ms)
    cut = [*replica.applied]
    cut[me] = seq
    keys = sorted({(op.collection, op.key) for op in ops})
    stepwise, at_once = tree.scratch(keys), tree.scratch(keys)
    for op in ops:
        one = Keyspace(replica.replicas, regions_of(replica.replicas))
        one.tree = stepwise
        effects, _ = one.judge([op], dot, hlc, cut)
        stepwise.apply(dot, hlc, cut, effects)
    effects, _ = replica.keyspace.judge(ops, dot, hlc, cut)
    cut[me] = seq - 1  # as every receiver applies it
    at_once.apply(dot, hlc, cut, effects)
    assert stepwise.share([]) == at_once.share([]), f"normal form is not what {len(ops)} steps leave"
    drops = [at for at in range(0, len(effects), 3) if effects[at] == 0]
    assert drops == list(range(0, 3 * len(drops), 3)), "drops come first in normal form"
