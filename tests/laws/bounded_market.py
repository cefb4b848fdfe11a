"""Regions that sell from one bounded counter, held against a model that knows no effects.

After every step: what was accepted had rights at its origin, what was refused had not; every replica reads what the model says; and no join
of the states of replicas is below the bound.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, NamedTuple

from crdtstore.causal import Dot, ReplicaId
from crdtstore.clock import Clock
from crdtstore.commit import EXPIRY, FORMAT, OPERATION, Commit, decode_commit, encode_commit, request_hash
from crdtstore.engine.causality import Causality
from crdtstore.engine.events import Op
from crdtstore.engine.keyspace import Keyspace
from crdtstore.errors import CrdtStoreError, HoldEnded, InsufficientRights, ReplicaBehind
from crdtstore.leaves import SEQ_BITS
from crdtstore.testing.laws import members
from crdtstore.types import REGISTRY, View
from crdtstore.types.bounded_counter import EXPIRED, account, end_hold, live_hold
from tests.laws.bounded_model import Books, Deed, books, is_ended_somehow

NAMES = ("us", "eu", "ap")
REPLICAS = members(NAMES)
REGIONS = dict(zip(REPLICAS, NAMES, strict=True))
COLLECTION, KEY = "stock:bounded_counter", "sku-7"
TYPE = REGISTRY["bounded_counter"]
LOWER = -2
OPTIONS = {"lower": LOWER}
BASE_MS = 1_700_000_000_000


class Do(NamedTuple):
    """A region is asked for something; ``operation``: under this id, which means the same wherever it is used."""

    region: int
    op: str
    amount: int = 1
    other: int = 0
    """Which region a transfer is for; which of the holds so far is meant."""
    ttl_ms: int = 50
    operation: int | None = None


class Deliver(NamedTuple):
    """A region receives up to so many commits of others."""

    region: int
    choice: int
    most: int


class Sync(NamedTuple):
    """What a region wrote and received is durable, and answered."""

    region: int


class Crash(NamedTuple):
    """A region forgets what is not durable."""

    region: int


class Expire(NamedTuple):
    """A region ends its holds whose time has passed."""

    region: int


Step = Do | Deliver | Sync | Crash | Expire


class Till:
    """One region: its keys, its log, and how much of that is durable. Mutable."""

    def __init__(self, me: int) -> None:
        self.me = me
        self.name = REPLICAS[me]
        self.log: list[tuple[int, bytes]] = []
        self.durable = 0
        self._start()

    def _start(self) -> None:
        self.keyspace = Keyspace(list(REPLICAS), REGIONS)
        self.causality = Causality(list(REPLICAS))
        self.applied = [0] * len(REPLICAS)
        self.clock = Clock()

    def crash(self) -> None:
        log = self.log[: self.durable]
        self._start()
        self.log = []
        for origin, data in log:
            self.apply(origin, data)
            if origin == self.me:
                self.clock.last = max(self.clock.last, decode_commit(data).hlc)

    def view(self) -> View:
        return self.keyspace.view(COLLECTION, KEY, options=OPTIONS)

    def is_known(self, operation: int | None) -> bool:
        return operation is not None and bool(self.keyspace.operations.attempts(operation.to_bytes(16, "big")))

    def write(
        self, ops: list[Op], effects: list[Any], now_ms: int, operation: int | None, request: str = ""
    ) -> tuple[int, list[Any]]:
        """Commit operations, or effects if there are none; return the stamp and what a reply shows.

        ``request``: what was asked for under the operation id.

        Raises:  what the type raises; nothing changed.
        """
        name = operation.to_bytes(16, "big") if operation is not None else None
        attributes = [OPERATION, [name, request_hash([request])], EXPIRY, BASE_MS << 20] if name else []
        seq, last = self.applied[self.me] + 1, self.clock.last
        dot = self.me << SEQ_BITS | seq
        hlc = self.clock.tick(now_ms)
        cut = [*self.applied]
        cut[self.me] = seq
        if ops:
            try:
                effects, values = self.keyspace.judge(ops, dot, hlc, cut, name)
            except CrdtStoreError:
                self.clock.last = last
                raise
        deps, _ = self.causality.increase(self.me, self.applied)
        origin = self.name if seq == 1 else 0
        self.apply(self.me, encode_commit(Commit(FORMAT, origin, seq, hlc, deps, "anonymous", attributes, effects)))
        return hlc, (values if ops and values is not None else self.keyspace.shown(ops, dot, name))

    def is_ready(self, origin: int, data: bytes) -> bool:
        deps = self.causality.resolve(origin, decode_commit(data).deps)
        return all(self.applied[index] >= seq for index, seq in deps)

    def apply(self, origin: int, data: bytes) -> None:
        commit = decode_commit(data)
        cut = self.causality.advance(origin, commit.seq, self.causality.resolve(origin, commit.deps))
        self.keyspace.apply(origin << SEQ_BITS | commit.seq, commit, cut)
        self.applied[origin] = commit.seq
        self.log.append((origin, data))

    def own(self) -> list[bytes]:
        """Its durable commits: what others may receive."""
        return [data for origin, data in self.log[: self.durable] if origin == self.me]


class Market:
    """The regions, and every deed that was not lost. Mutable."""

    def __init__(self) -> None:
        self.tills = [Till(at) for at in range(len(REPLICAS))]
        self.deeds: dict[Dot, list[Deed]] = {}
        self.holds: list[tuple[str, int]] = []
        """Name and amount of every hold that was ever made."""
        self.deadlines: dict[str, dict[ReplicaId, int]] = {}
        self.asked: dict[int, Do] = {}
        self.now_ms = BASE_MS

    def run(self, steps: list[Step]) -> None:
        for step in steps:
            self.now_ms += 10
            self.step(step)
            self.check()
        for _ in range(2):
            for till in self.tills:
                till.durable = len(till.log)
            for till in self.tills:
                self.deliver(till, 0, 1_000)
        assert len({tuple(till.applied) for till in self.tills}) == 1
        assert len({till.keyspace.tree.digest for till in self.tills}) == 1, "false convergence"
        self.check()

    def step(self, step: Step) -> None:
        till = self.tills[step.region]
        if isinstance(step, Do):
            self.do(till, step)
        elif isinstance(step, Deliver):
            self.deliver(till, step.choice, step.most)
        elif isinstance(step, Sync):
            till.durable = len(till.log)
        elif isinstance(step, Crash):
            till.crash()
            for dot in [dot for dot in self.deeds if dot.replica == till.name and dot.seq > till.applied[till.me]]:
                del self.deeds[dot]
        else:
            self.expire(till)

    # --- what is known

    def known(self, vector: list[int]) -> list[Deed]:
        upto = dict(zip(REPLICAS, vector, strict=True))
        return [deed for dot, deeds in self.deeds.items() if dot.seq <= upto[dot.replica] for deed in deeds]

    def check(self) -> None:
        for till in self.tills:
            told, seen = books(self.known(till.applied)), account(till.view())
            assert TYPE.read(till.view()) == LOWER + told.left, "the reading is not what the model says"
            assert _shown(seen.rights) == _shown(told.rights), "rights are not what the model says"
            assert _shown(seen.held) == _shown(told.held)
        for count in range(1, len(self.tills) + 1):
            for some in combinations(self.tills, count):
                join = [max(seqs) for seqs in zip(*(till.applied for till in some), strict=True)]
                told = books(self.known(join))
                assert told.left >= 0, "oversold"
                assert all(rights >= 0 for rights in told.rights.values()), "somebody spent what it did not have"

    # --- steps

    def deliver(self, till: Till, choice: int, most: int) -> None:
        for _ in range(most):
            ready = []
            for other in self.tills:
                at = till.applied[other.me]
                if other is not till and len(own := other.own()) > at and till.is_ready(other.me, own[at]):
                    ready.append((other.me, own[at]))
            if not ready:
                return
            till.apply(*ready[choice % len(ready)])

    def do(self, till: Till, step: Do) -> None:
        if step.operation is not None:
            if step.op == "grant":
                return  # the exception: see the type
            asked = self.asked.setdefault(step.operation, step)
            step = asked._replace(region=step.region)
        if till.is_known(step.operation):
            return
        if step.op in ("confirm", "release"):
            self.end(till, step)
            return
        arguments: dict[str, Any] = {"amount": step.amount}
        deed = Deed(Dot(till.name, 0), 0, {}, step.op, step.amount, operation=step.operation)
        if step.op == "transfer":
            others = [replica for replica in REPLICAS if step.operation is None or replica != REPLICAS[0]]
            to = others[step.other % len(others)]
            if to == till.name:
                return
            arguments["to"] = REGIONS[to]
            deed = deed._replace(to=to)
        elif step.op == "reserve":
            arguments["ttl_ms"] = step.ttl_ms
        here = self.before(till).rights.get(till.name, 0)
        try:
            values = self.commit(till, deed, arguments)
        except InsufficientRights as error:
            _check_refused(error, here, step.amount)
            return
        assert step.op == "grant" or here >= step.amount, "spent without rights"
        if step.op == "reserve":
            self.holds.append((values[0], step.amount))
            self.deadlines.setdefault(values[0], {})[till.name] = self.now_ms + step.ttl_ms

    def end(self, till: Till, step: Do) -> None:
        if not self.holds:
            return
        hold, amount = self.holds[step.other % len(self.holds)]
        known = self.known(till.applied)
        owner = books(known).owners.get(hold)
        deed = Deed(Dot(till.name, 0), 0, {}, step.op, amount, operation=step.operation, hold=hold)
        try:
            self.commit(till, deed, {"hold": hold})
        except ReplicaBehind as error:
            _check_elsewhere(error, till, owner, hold)
        except HoldEnded as error:
            passed = owner == till.name and step.op == "confirm" and self.now_ms >= self.deadlines[hold][till.name]
            assert owner is None or passed
            outcome = error.more["outcome"]
            assert outcome == EXPIRED or not passed
            assert outcome is not None or not is_ended_somehow(known, hold)
        else:
            assert owner == till.name, "a hold was ended by somebody else than its owner"

    def expire(self, till: Till) -> None:
        for hold, owner in books(self.known(till.applied)).owners.items():
            live = live_hold(till.view(), hold)
            assert live is not None
            if owner == till.name and live.value[1] <= self.now_ms:
                effects = end_hold(hold, EXPIRED, self.now_ms)
                for at in range(1, len(effects), 3):
                    effects[at] = [COLLECTION, KEY, *effects[at]]
                deps = self.vector(till)
                hlc, _ = till.write([], effects, self.now_ms, None)
                self.note(till, Deed(Dot(till.name, 0), hlc, deps, "expire", hold=hold))

    def before(self, till: Till) -> Books:
        return books(self.known(till.applied))

    def vector(self, till: Till) -> dict[ReplicaId, int]:
        return dict(zip(REPLICAS, till.applied, strict=True))

    def commit(self, till: Till, deed: Deed, arguments: dict[str, Any]) -> list[Any]:
        deps = self.vector(till)
        mutator = TYPE.mutators[deed.op]
        op = Op(TYPE, COLLECTION, KEY, mutator, mutator.check(arguments), options=OPTIONS)
        hlc, values = till.write([op], [], self.now_ms, deed.operation)
        self.note(till, deed._replace(hlc=hlc, deps=deps, hold=values[0] if deed.op == "reserve" else deed.hold))
        return values

    def note(self, till: Till, deed: Deed) -> None:
        dot = Dot(till.name, till.applied[till.me])
        self.deeds[dot] = [deed._replace(dot=dot)]


def _check_refused(error: InsufficientRights, here: int, amount: int) -> None:
    assert here < amount, "refused what could have been served"
    assert (error.here, error.requested) == (here, amount)
    assert all(seen >= 0 for seen in error.by_region.values())


def _check_elsewhere(error: ReplicaBehind, till: Till, owner: ReplicaId | None, hold: str) -> None:
    assert owner != till.name
    assert error.regions == [REGIONS[owner] if owner is not None else hold.split(".", maxsplit=1)[0]]


def _shown(amounts: dict[ReplicaId, int]) -> dict[ReplicaId, int]:
    return {replica: amount for replica, amount in amounts.items() if amount}
