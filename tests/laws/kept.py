"""A replica whose keys are on disk: the same histories as ``testing.laws`` runs, with checkpoints, restarts and keys let go in between.

The question: what may a disk change? Nothing that anybody reads. So every history runs twice, with a store and without, and after each step
both must be the same; what a restart finds must be what was there when the checkpoint began.
"""

from __future__ import annotations

from copy import deepcopy
from random import Random
from typing import Any, NamedTuple

from crdtstore.causal import ReplicaId
from crdtstore.commit import FORMAT, Commit, decode_commit, encode_commit
from crdtstore.engine.keyspace import Keyspace
from crdtstore.leaves import DROP, Branch
from crdtstore.residence import Residence, Usage
from crdtstore.storage.memory_state import MemoryState
from crdtstore.storage.protocol import Slice
from crdtstore.storage.rows import CONTESTED, LEAVES, OPERATIONS, PLANS, key_range
from crdtstore.testing.laws import BASE_MS, Bare, World
from crdtstore.testing.strategies import Fold, Step
from crdtstore.types import CrdtType
from tests.laws.test_foreign import KEYS, Foreign

__all__ = ["Kept", "Mirrored", "Twins", "check_counts", "disturb"]

NUMBER = 7
_EVERYTHING = 1 << 40
_INSTANTS = (None, BASE_MS + 2, BASE_MS + 6)
_NOTHING = Slice()


class Remembered(NamedTuple):
    """What a replica remembers beside its leaves, as it is compared."""

    operations: dict[bytes, Any]
    plans: dict[tuple[Any, ...], int]
    contested: set[tuple[Any, Any]]


def remembered(keyspace: Keyspace) -> Remembered:
    operations = {name: keyspace.operations.attempts(name) for name in keyspace.operations._attempts}
    plans = {path: due_ms for path, (due_ms, _) in keyspace.expiry._planned.items()}
    return Remembered(operations, plans, set(keyspace.tree.contested))


class _Moment(NamedTuple):
    """All of a replica that is neither leaves nor ledgers, and what these were, at the beginning of a checkpoint."""

    applied: list[int]
    promised: list[int]
    clock_last: int
    causality: tuple[Any, Any]
    digest: int
    remembered: Remembered


class Kept(Bare):
    """A bare replica with a state store. Mutable."""

    def __init__(self, me: int, replicas: list[ReplicaId], *, has_true_clock: bool = False) -> None:
        super().__init__(me, replicas, has_true_clock=has_true_clock)
        self.store = MemoryState()
        self.restarts = self.checkpoints = self.loads = self.evictions = self.withdrawals = 0
        self._log: list[tuple[int, bytes]] = []
        """All commits that the checkpoint on disk does not hold."""
        self._saved: _Moment | None = None
        self._begun: _Moment | None = None
        self._fresh: list[tuple[int, bytes]] = []
        """What was applied since the checkpoint under way began."""
        self._ledger = 0
        self._written = (0, 0)
        """What the open transaction changed."""
        self._attach(is_empty=True)
        self._first = self._moment()

    def _attach(self, *, is_empty: bool) -> None:
        self.usage = Usage()
        self.residence = Residence(self.keyspace.tree, self.store, NUMBER, self.usage, is_empty=is_empty)
        self.keyspace.tree.residence = self.residence
        for ledger in self.keyspace.ledgers:
            ledger.is_kept = True

    def _moment(self) -> _Moment:
        causality = deepcopy((self.causality.rosters, self.causality.deps))
        there = deepcopy(remembered(self.keyspace))
        return _Moment([*self.applied], [*self.promised], self.clock.last, causality, self.digest, there)

    # --- what happens to any replica

    def apply(self, origin: int, data: bytes) -> None:
        self.keyspace.tree.bring_all(decode_commit(data).effects)
        super().apply(origin, data)
        self._log.append((origin, data))
        self._fresh.append((origin, data))

    # --- checkpoints

    @property
    def is_under_way(self) -> bool:
        return self._begun is not None

    def begin(self) -> None:
        """Begin a checkpoint, unless one is under way; drops of big branches are carried out first, as ``saving`` does."""
        if self._begun is not None:
            return
        while not self.keyspace.tree.is_settled:
            self.keyspace.tree.run_sweeps(_EVERYTHING)
        self._begun = self._moment()
        self._fresh = []
        self._ledger = 0
        self.residence.unsaved.begin()
        for ledger in self.keyspace.ledgers:
            ledger.begin()

    def take(self, limit: int) -> bool:
        """Write the next part; return whether there was one."""
        if self._begun is None or self._is_withdrawn():
            return False
        part = self.residence.unsaved.take(limit) if not self._ledger else None
        if part is not None:
            rows, data_bytes = self.store.write(part)
            self._written = (self._written[0] + rows, self._written[1] + data_bytes)
            self.residence.counted(rows, data_bytes)
            return True
        ledgers = self.keyspace.ledgers
        if not self._ledger:
            self._ledger, self._at = 1, 0
        while self._ledger <= len(ledgers):
            part, self._at = ledgers[self._ledger - 1].take(NUMBER, limit, self._at)
            if part is not None:
                self.store.write(part)
                return True
            self._ledger, self._at = self._ledger + 1, 0
        return False

    def finish(self, limit: int = 3) -> None:
        """Write what is left of the checkpoint under way, and commit it."""
        while self.take(limit):
            pass
        if self._begun is None or self._is_withdrawn():
            return
        self.store.commit()
        self._written = (0, 0)
        self._end(is_saved=True)
        self._saved, self._begun = self._begun, None
        self._log = self._fresh
        self._fresh = []
        self.checkpoints += 1

    def fail(self) -> None:
        """The checkpoint under way fails."""
        if self._begun is None:
            return
        self.store.rollback()
        self.residence.counted(-self._written[0], -self._written[1])
        self._written = (0, 0)
        self._end(is_saved=False)
        self._begun = None

    def _is_withdrawn(self) -> bool:
        """Whether the checkpoint is not to be committed (``Unsaved.is_void``); what of it was written stays in the transaction."""
        if not self.residence.unsaved.is_void:
            return False
        self._end(is_saved=False)
        self._begun = None
        self.withdrawals += 1
        return True

    def _end(self, *, is_saved: bool) -> None:
        self.residence.unsaved.end(is_saved=is_saved)
        for ledger in self.keyspace.ledgers:
            ledger.end(is_saved=is_saved)

    def checkpoint(self, limit: int = 3) -> None:
        self.finish(limit)
        before = self.checkpoints
        while self.checkpoints == before:
            self.begin()
            self.finish(limit)

    # --- memory

    def evict(self) -> None:
        """Let go of every key that may go."""
        before = -1
        while self.residence.evictions != before:
            before = self.residence.evictions
            self.residence.evict(-_EVERYTHING, _EVERYTHING)
            self.residence.evict(-_EVERYTHING, _EVERYTHING)  # those that were read had another turn

    def warm_up(self, limit: int) -> None:
        self.residence.warm_up(limit, _EVERYTHING)

    def restart(self) -> None:
        """Lose the memory; come back from the checkpoint and the log."""
        self.loads, self.evictions = self.loads + self.residence.loads, self.evictions + self.residence.evictions
        self.store.crash()
        self._written = (0, 0)
        self.restarts += 1
        moment = self._saved or self._first
        self.keyspace = Keyspace(self.replicas, self.keyspace.regions)
        self._attach(is_empty=self._saved is None)
        self.keyspace.tree.digest = moment.digest
        for ledger, take in self.keyspace.loaders():
            for name, value in ledger.load(self.store, NUMBER):
                take(name, value)
        assert remembered(self.keyspace) == moment.remembered, "a restart remembers something else than was known then"
        assert self.keyspace.tree.share([]) == moment.digest, (
            "what is on disk is not the state when the checkpoint began"
        )
        self.applied, self.promised = [*moment.applied], [*moment.promised]
        self.clock.last = moment.clock_last
        self.causality.rosters, self.causality.deps = deepcopy(moment.causality)
        log, self._log, self._begun, self._fresh = self._log, [], None, []
        for origin, data in log:
            self.apply(origin, data)
            if origin == self.me:
                self.clock.last = max(self.clock.last, decode_commit(data).hlc)

    # --- what is on disk

    def rows(self, space: int) -> list[bytes]:
        return [path for path, _ in self.store.rows(*key_range(NUMBER, space, []))]

    def check_clean(self) -> None:
        """Everything was deleted and saved: nothing is left behind."""
        for space in (LEAVES, OPERATIONS, PLANS, CONTESTED):
            assert not self.rows(space), f"rows of space {space} were left behind: {self.rows(space)[:3]}"
        assert self.usage == Usage(), f"nothing is there, and {self.usage} is counted"


def disturb(kept: Kept, random: Random) -> None:
    """What no reading shows, or a crash."""
    for _ in range(random.choice((0, 1, 1, 2, 4))):
        what = random.random()
        if what < 0.3:
            kept.begin()
        elif what < 0.5:
            kept.take(random.choice((1, 2, 3)))
        elif what < 0.65:
            kept.finish(random.choice((1, 2, 3)))
        elif what < 0.7:
            kept.fail()
        elif what < 0.85:
            kept.evict()
            check_counts(kept)
        elif what < 0.92:
            kept.warm_up(random.choice((1, 2, 5, 1000)))
        else:
            kept.restart()


def check_counts(kept: Kept) -> None:
    """When nothing is unsaved and everything was let go, nothing is in memory, and nothing is counted."""
    if not len(kept.residence.unsaved) and kept.keyspace.tree.is_settled:
        branches = {name: branch for name, branch in kept.keyspace.tree.root.children.items() if type(branch) is Branch}
        left = {name: list(branch.children) for name, branch in branches.items()}
        assert not any(left.values()), f"these could have gone: {left}"
        if any(kept._written):
            return  # a checkpoint that was withdrawn
        if not any(branch.leaves for branch in branches.values()) and len(branches) == len(
            kept.keyspace.tree.root.children
        ):
            assert kept.usage == Usage(), f"nothing is in memory, and {kept.usage} is counted"


class Twins:
    """Two worlds that are told the same, one of them with stores. Mutable."""

    def __init__(self, crdt: CrdtType, replicas: list[ReplicaId], random: Random, **how: Any) -> None:
        self.crdt = crdt
        self.random = random
        self.plain, self.kept = World(crdt, replicas, **how), World(crdt, replicas, **how)
        has_true_clock = self.plain.replicas[0].has_true_clock
        self.replicas = [Kept(at, replicas, has_true_clock=has_true_clock) for at in range(len(replicas))]
        self.kept.replicas = list(self.replicas)
        self.is_watched = how.get("is_watched", True)

    def run(self, steps: list[Step]) -> None:
        for step in steps:
            disturb(self.replicas[step.replica % len(self.replicas)], self.random)
            self.plain.step(step)
            self.kept.step(step)
            assert self.plain.commits == self.kept.commits, "with a store other commits are made"
            self.compare(step.replica % len(self.replicas))

    def compare(self, at: int) -> None:
        one, other = self.plain.replicas[at], self.replicas[at]
        assert one.applied == other.applied, "with a store other commits are there"
        tree, kept = one.keyspace.tree, other.keyspace.tree
        path = f"things:{self.crdt.name}"
        if self.is_watched or self.random.random() < 0.2:
            for after, prefix in (("", ""), ("a", ""), ("", "b"), ("a", "a")):
                assert list(tree.keys(path, after, prefix)) == list(kept.keys(path, after, prefix)), "other keys"
            key = self.random.choice(("a", "b", "never"))
            for now_ms in _INSTANTS:
                assert one.reading(self.crdt, key, now_ms)[:2] == other.reading(self.crdt, key, now_ms)[:2], key
            assert one.keyspace.etag(path, key) == other.keyspace.etag(path, key), "another etag"
        if tree.is_settled and kept.is_settled:
            assert tree.digest == kept.digest, "with a store the digest is another one"
        there, kept_there = remembered(one.keyspace), remembered(other.keyspace)
        assert there.contested <= kept_there.contested, "a conflict was forgotten"
        assert there.operations.items() <= kept_there.operations.items(), "an operation was forgotten"
        assert self.plain.has_folded or there == kept_there, "what is remembered is something else"

    def settle(self) -> None:
        """To the end: everything reaches everybody, is the same, and stays it over a restart from a checkpoint."""
        self.plain.settle()
        self.kept.settle()
        for at, kept in enumerate(self.replicas):
            self.compare(at)
            kept.checkpoint()
            kept.evict()
            check_counts(kept)
            kept.restart()
            self.compare(at)

    def delete_everything(self) -> None:
        """Everybody's keys go, everything is stable and over: no row may be left."""
        self.settle()
        replica = self.kept.replicas[0]
        effects = [part for key in ("a", "b") for part in (DROP, [f"things:{self.crdt.name}", key], None)]
        seq, hlc = replica.applied[0] + 1, replica.clock.tick(BASE_MS + 9)
        deps, _ = replica.causality.increase(0, replica.applied)
        origin = replica.replicas[0] if seq == 1 else 0
        data = encode_commit(Commit(FORMAT, origin, seq, hlc, deps, "anonymous", [], effects))
        replica.apply(0, data)
        self.kept.commits[0].append(data)
        self.kept.settle()
        for kept in self.replicas:
            tree = kept.keyspace.tree
            tree.run_sweeps(_EVERYTHING)
            kept.keyspace.forget(kept.applied, 1 << 70, _EVERYTHING)
            tree.fold(kept.applied, _EVERYTHING)
            tree.review_contested(_EVERYTHING)
            kept.keyspace.expiry.review(lambda path: False, _EVERYTHING)
            kept.checkpoint()
            kept.check_clean()
            assert not tree.digest, "nothing is there, and the digest is not 0"
            kept.restart()
            assert not kept.keyspace.tree.root.children


class _Told(Bare):
    """A bare replica that remembers in which order it was told."""

    def __init__(self, me: int, replicas: list[ReplicaId], *, has_true_clock: bool = False) -> None:
        super().__init__(me, replicas, has_true_clock=has_true_clock)
        self.log: list[tuple[int, bytes]] = []

    def apply(self, origin: int, data: bytes) -> None:
        super().apply(origin, data)
        self.log.append((origin, data))


class Mirrored(Foreign):
    """Effects that no type knows, at collections too; beside each replica one with a store is told the same. Mutable."""

    def __init__(self, type_name: str, random: Random) -> None:
        super().__init__(type_name, random)
        ids, is_true = self.replicas[0].replicas, self.replicas[0].has_true_clock
        self.told = [_Told(at, ids, has_true_clock=is_true) for at in range(len(ids))]
        self.replicas = list(self.told)
        self.kept = [Kept(at, ids, has_true_clock=is_true) for at in range(len(ids))]
        self.done = [0] * len(ids)

    def step(self, step: Step) -> None:
        super().step(step)
        self.mirror(step.replica)

    def write(self, replica: Bare) -> None:
        super().write(replica)
        self.mirror(replica.me)

    def _fold(self, replica: Bare, step: Fold) -> None:
        self.mirror(replica.me)
        kept, stable = self.kept[replica.me], self.stable(replica)
        kept.keyspace.forget(stable, self.frontier(replica))
        kept.keyspace.tree.fold(stable, step.budget)
        kept.keyspace.tree.run_sweeps(step.budget)
        super()._fold(replica, step)

    def mirror(self, at: int) -> None:
        """Tell the replica with a store what the other was told."""
        told, kept = self.told[at], self.kept[at]
        disturb(kept, self.random)
        for origin, data in told.log[self.done[at] :]:
            kept.apply(origin, data)
        self.done[at] = len(told.log)
        if told.keyspace.tree.is_settled and kept.keyspace.tree.is_settled:
            assert told.digest == kept.digest, "with a store the digest is another one"
        if self.random.random() < 0.3:
            self.compare(at)

    def compare(self, at: int) -> None:
        path = f"things:{self.crdt.name}"
        one, other = self.told[at].keyspace.tree, self.kept[at].keyspace.tree
        if self.random.random() < 0.5:
            assert one.share([path]) == other.share([path]), "the collection is another one"
        there = [
            [
                key for key in bare.keyspace.tree.keys(path) if bare.keyspace.view(path, key).exists
            ]  # a drop may be on its way
            for bare in (self.told[at], self.kept[at])
        ]
        assert there[0] == there[1], "other keys"
        for key in KEYS:
            assert one.share([path, key]) == other.share([path, key]), "another etag"
        assert one.share([]) == other.share([]) == one.digest == other.digest, "the digest is not that of the state"

    def finish(self) -> None:
        """At the end everything is the same, and stays it over a restart from a checkpoint."""
        for at, kept in enumerate(self.kept):
            self.mirror(at)
            kept.checkpoint()
            kept.evict()
            check_counts(kept)
            kept.restart()
            self.compare(at)
