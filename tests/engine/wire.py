"""Engines on a fake wire and fake disks: nothing moves, is lost or becomes durable unless a test says so.

Whatever happens, some things are checked at every output: nothing that is not durable is sent, named in a row or answered (law L5), and
a heartbeat stays below every commit that it does not count.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from operator import le
from random import Random
from typing import Any

from crdtstore.causal import ReplicaId
from crdtstore.commit import Commit, decode_commit
from crdtstore.configuration import Cluster, Configuration, Member
from crdtstore.engine import Engine, Options
from crdtstore.engine.causality import Resolved
from crdtstore.engine.events import Draft, Event, LocalCommit, Op, PeerChanged, Persisted, Received, Tick
from crdtstore.engine.output import Committed, Output, Refused
from crdtstore.messages import Ack, Digest, Frame, Row, Want, decode_message, encode_message
from crdtstore.testing.laws import members, op_of
from crdtstore.testing.strategies import DELETE, Call
from crdtstore.types import REGISTRY

GROUP = "shop/0"
START_MS = 1_700_000_000_000
Words = Frame | Digest | Ack | Want


def cluster_of(*names: str) -> Cluster:
    """A cluster for tests; the region of ``us-1`` is ``us``."""
    return Cluster(
        "test",
        b"0123456789abcdef",
        tuple(Member(replica, name[:2]) for replica, name in zip(members(names), names, strict=True)),
    )


def op(type_name: str, key: str, name: str, **arguments: Any) -> Op:
    """An operation on ``things:<type>``."""
    crdt = REGISTRY[type_name]
    path = f"things:{crdt.name}"
    if name == DELETE:
        return Op(crdt, path, key, None, {}, arguments.get("if_match"))
    if_match = arguments.pop("if_match", None)
    mutator = crdt.mutators[name]
    return Op(crdt, path, key, mutator, mutator.check(arguments), if_match)


def call_op(type_name: str, key: str, call: Call) -> Op:
    return op_of(REGISTRY[type_name], key, call)


class Watched(Engine):
    """An engine that holds itself to law L7 at every commit that it applies."""

    def change(self, origin: int, commit: Commit, resolved: Resolved) -> None:
        super().change(origin, commit, resolved)
        seen = list(self.causality.deps[origin])
        assert origin == self.me or all(map(le, self.stability.stable, seen)), (
            f"L7: commit {commit.seq} of {self.replicas[origin]} had seen {seen}, {self.stability.stable} is stable here"
        )


class Wire:
    """Engines of one group, links between them, their disks, one clock. Mutable."""

    def __init__(self, *names: str, seed: int = 1, **options: Any) -> None:
        self.cluster = cluster_of(*names)
        self.configuration: Configuration = self.cluster.configuration(GROUP)
        self.names = list(names)
        self.options = Options(**options)
        self.seed = seed
        self.now_ms = START_MS
        self.links: dict[tuple[str, str], deque[bytes]] = defaultdict(deque)
        self.connected: set[frozenset[str]] = set()
        self.disks: dict[str, list[list[tuple[int, bytes]]]] = {name: [] for name in names}
        """Per node its log: one list per batch, in order."""
        self.synced = dict.fromkeys(names, 0)
        """How many of these are durable."""
        self.numbers: dict[str, list[int]] = {name: [] for name in names}
        self.replies: list[tuple[str, Committed | Refused]] = []
        self.rejected: list[tuple[str, str]] = []
        self.watch: Callable[[str, str], None] = lambda where, what: None
        self._heartbeats = dict.fromkeys(names, 0)
        self._ticket = 0
        self.engines = {name: self._engine(name) for name in names}

    def _engine(self, name: str) -> Engine:
        me = self.configuration.ids[self.names.index(name)]
        return Watched(GROUP, self.configuration, me, self.cluster.name, self.options, Random(self.seed))

    def replica(self, name: str) -> ReplicaId:
        return self.configuration.ids[self.names.index(name)]

    # --- what may happen

    def step(self, name: str, event: Event) -> Output:
        out = self.engines[name].step(event, self.now_ms)
        self._check(name, out)
        if out.persist:
            self.disks[name].append(list(out.persist))
            self.numbers[name].append(out.number)
            assert out.number == self.engines[name].durability.number, "what is persisted has a number that comes back"
            self.watch(name, f"persists {' '.join(self.dot(origin, data) for origin, data in out.persist)}")
        for peer, message in out.send:
            data = encode_message(message)
            assert encode_message(decode_message(data)) == data
            self.links[name, self.names[peer]].append(data)
            self.watch(name, f"to {self.names[peer]}: {self.words(message)}")
        for reply in out.replies:
            self.replies.append((name, reply))
            self.watch(name, self.answer(reply))
        for peer, reason in out.rejected:
            self.rejected.append((name, reason))
            self.watch(name, f"refuses {self.names[peer]}: {reason}")
        return out

    def write(
        self,
        name: str,
        *ops: Op,
        operation: tuple[bytes, int] | None = None,
        expires_in_ms: int = 60_000,
        wait_ms: int = 0,
    ) -> int:
        """A user of this replica writes; returns the ticket."""
        self._ticket += 1
        expires_ms = self.now_ms + expires_in_ms if operation else 0
        draft = Draft(self._ticket, list(ops), operation=operation, expires_ms=expires_ms, wait_ms=wait_ms)
        before = self.engines[name].clock.last
        self.step(name, LocalCommit([draft]))
        last = self.engines[name].clock.last
        assert last == before or last > self._heartbeats[name], "a commit is stamped above every heartbeat before it"
        return self._ticket

    def answer_to(self, ticket: int) -> Committed | Refused | None:
        return next((reply for _, reply in self.replies if reply.ticket == ticket), None)

    def sync(self, *names: str) -> None:
        """The disks of these nodes (all) have written everything."""
        for name in names or self.names:
            for number in self.numbers[name]:
                self.synced[name] += 1
                self.step(name, Persisted(number))
            self.numbers[name] = []

    def tick(self, ms: int = 0) -> None:
        self.now_ms += ms
        for name in self.names:
            self.step(name, Tick())

    def connect(self, *pairs: tuple[str, str]) -> None:
        for left, right in pairs or [(a, b) for a in self.names for b in self.names if a < b]:
            self.connected.add(frozenset((left, right)))
            self.step(left, PeerChanged(self.names.index(right), True))
            self.step(right, PeerChanged(self.names.index(left), True))

    def cut(self, left: str, right: str) -> None:
        """The connection is gone and both know; what was on its way is lost."""
        self.connected.discard(frozenset((left, right)))
        for a, b in ((left, right), (right, left)):
            self.links[a, b].clear()
            self.step(a, PeerChanged(self.names.index(b), False))

    def deliver(self, source: str, target: str, most: int = 1_000_000) -> int:
        """What is on its way arrives, in order; returns how much it was."""
        link, count = self.links[source, target], 0
        while link and count < most:
            self.receive(source, target, link.popleft())
            count += 1
        return count

    def receive(self, source: str, target: str, data: bytes) -> Output:
        message = decode_message(data)
        assert isinstance(message, Words)
        return self.step(target, Received(self.names.index(source), message))

    def lose(self, source: str, target: str) -> int:
        """What is on its way is lost, and nobody knows."""
        count = len(self.links[source, target])
        self.links[source, target].clear()
        return count

    def crash(self, name: str, keep: int = 0) -> None:
        """A power cut: unsynced batches are lost but for the first ``keep``; the node starts again from its log.

        Starting takes longer than clocks may differ, so heartbeats from before the crash stay true.
        """
        self.now_ms += self.options.max_drift_ms + 1
        for pair in [pair for pair in self.connected if name in pair]:
            (other,) = pair - {name}
            self.connected.discard(pair)
            self.links[name, other].clear()
            self.links[other, name].clear()
            self.step(other, PeerChanged(self.names.index(name), False))
        del self.disks[name][self.synced[name] + keep :]
        self.synced[name] = len(self.disks[name])
        self.numbers[name] = []
        engine = self.engines[name] = self._engine(name)
        for batch in self.disks[name]:
            for origin, data in batch:
                engine.replay.take_all(origin, [data])

    def settle(self, most_ms: int = 20_000, *, without: tuple[str, ...] = ()) -> None:
        """Time passes, everything is delivered and written, until all have the same; a deadline says when that is too long."""
        names = [name for name in self.names if name not in without]
        end = self.now_ms + most_ms
        while True:
            self.sync(*names)
            for source in names:
                for target in names:
                    self.deliver(source, target)
            if len({tuple(self.engines[name].durability.vector) for name in names}) == 1 and not any(
                self.numbers.values()
            ):
                return
            assert self.now_ms < end, f"not the same after {most_ms} ms: {self.vectors()}"
            self.tick(50)

    # --- what is to be seen

    def vectors(self) -> dict[str, list[int]]:
        return {name: list(engine.durability.vector) for name, engine in self.engines.items()}

    def value(self, name: str, type_name: str, key: str) -> Any:
        return REGISTRY[type_name].read(self.engines[name].keyspace.view(f"things:{type_name}", key))

    def sent(self, source: str, target: str) -> list[Words]:
        """What is on its way."""
        messages = [decode_message(data) for data in self.links[source, target]]
        return [message for message in messages if isinstance(message, Words)]

    def frames(self, source: str, target: str) -> list[Frame]:
        return [message for message in self.sent(source, target) if isinstance(message, Frame)]

    def check_same(self) -> None:
        """Equal vectors, digests and digests computed anew."""
        engines = list(self.engines.values())
        assert len({tuple(engine.applied) for engine in engines}) == 1, self.vectors()
        assert len({engine.digest for engine in engines}) == 1, "false convergence"
        for engine in engines:
            assert engine.digest == engine.keyspace.tree.share([])
            assert engine.history.heads == engines[0].history.heads

    # --- what must always hold

    def _durable(self, name: str) -> list[int]:
        vector = [0] * len(self.names)
        for batch in self.disks[name][: self.synced[name]]:
            for origin, _ in batch:
                vector[origin] += 1
        return vector

    def _check(self, name: str, out: Output) -> None:
        durable, me = self._durable(name), self.names.index(name)
        for peer, message in out.send:
            if isinstance(message, Frame):
                at = {index: segment.after for index, segment in enumerate(message.segments)}
                for index in message.order or [0] * len(message.commits):
                    at[index] += 1
                    assert at[index] <= durable[message.segments[index].origin], "a commit left before it was durable"
            elif isinstance(message, Want):
                assert message.seen <= durable[peer], "a want names what is not durable"
            else:
                self._check_row(name, me, message.row, durable)
        for reply in out.replies:
            if isinstance(reply, Committed):
                assert reply.seq <= durable[reply.origin], "an answer left before its commit was durable"

    def _check_row(self, name: str, me: int, row: Row, durable: list[int]) -> None:
        assert all(said <= had for said, had in zip(row.vector, durable, strict=True)), (
            "a row names what is not durable"
        )
        self._heartbeats[name] = max(self._heartbeats[name], row.hlc)
        for batch in self.disks[name][self.synced[name] :]:
            for origin, data in batch:
                assert origin != me or decode_commit(data).hlc > row.hlc, (
                    "a heartbeat passes over a commit it does not count"
                )

    # --- words for people

    def dot(self, origin: int, data: bytes) -> str:
        return f"{self.names[origin]}:{decode_commit(data).seq}"

    def words(self, message: Words) -> str:
        if isinstance(message, Frame):
            order = message.order or [0] * len(message.commits)
            dots = [
                self.dot(message.segments[at].origin, data) for at, data in zip(order, message.commits, strict=True)
            ]
            return f"frame {' '.join(dots)}"
        if isinstance(message, Want):
            return f"wants {message.amount} of {message.key}"
        vector = " ".join(f"{name}={seq}" for name, seq in zip(self.names, message.row.vector, strict=True))
        if isinstance(message, Ack):
            return f"ack {vector}"
        asks = ", again from there" if message.is_missing else ", and you?" if message.wants_answer else ""
        return f"digest {vector}{asks}"

    def answer(self, reply: Committed | Refused) -> str:
        if isinstance(reply, Refused):
            return f"refused: {reply.error.code}"
        again = " (replayed)" if reply.is_replayed else ""
        return f"answers {self.names[reply.origin]}:{reply.seq}{again} {reply.values}"


def pair(**options: int) -> Wire:
    """Two engines that have heard each other, with nothing on its way."""
    wire = Wire("us", "eu", **options)
    wire.connect()
    wire.settle()
    flush(wire)
    return wire


def flush(wire: Wire) -> None:
    """Let everything that is on its way arrive, without any time passing."""
    while any(wire.deliver(source, target) for source, target in list(wire.links)):
        wire.sync()


def add(wire: Wire, name: str, amount: int = 1, key: str = "k") -> int:
    return wire.write(name, op("counter", key, "add", amount=amount))
