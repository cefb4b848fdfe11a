"""Replicas with real logs and state stores whose members change: some join, some are evicted, some are in the middle of an install."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import structs

from crdtstore.causal import ReplicaId, make_replica_id
from crdtstore.configuration import SYSTEM_GROUP, Cluster, Member
from crdtstore.engine.engine import Engine
from crdtstore.engine.membership.changes import Evict
from crdtstore.errors import CrdtStoreError
from crdtstore.host import Host, HostOutput
from crdtstore.messages import Message, decode_message
from crdtstore.service import PeerChanged, Received, Service
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.sqlite import SqliteState
from crdtstore_node.identity import LOG_NAME, write_identity
from tests.backup.world import OPTIONS, SEGMENT_BYTES, Replica, World

GROUP = "shop/0"


class Joiner(Replica):
    """A node that no cluster file names."""

    def __init__(self, cluster: Cluster, member: Member, directory: Path, retain_bytes: int) -> None:
        self.me, self.member, self.directory, self.skew_ms = member.replica, member, directory, 0
        self._cluster, self._retain_bytes = cluster, retain_bytes
        directory.mkdir(parents=True)
        write_identity(directory, cluster, self.me)
        self.start()

    def start(self) -> None:
        self.log = SegmentedLog.open(self.directory / LOG_NAME, SEGMENT_BYTES)
        self.store = SqliteState.open(self.directory)
        options = structs.replace(OPTIONS, retain_bytes=self._retain_bytes)
        self.host = Host(self._cluster, self.member, options, random.Random(7), self.store, self.log.read)
        self.host.recover(self.log.replay(self.host.needed))
        self.service = Service(self.host)
        self.replies: dict[int, dict[str, Any] | CrdtStoreError] = {}
        self.sent: list[tuple[ReplicaId, bytes]] = []


class Regrouping(World):
    """``drops`` says what never arrives."""

    def __init__(self, directory: Path, regions: int = 2, **options: Any) -> None:
        self.drops: Callable[[Message], bool] = lambda message: False
        self._directory = directory
        self._on_the_wire: list[tuple[ReplicaId, ReplicaId, bytes]] = []
        super().__init__(directory, regions, **options)

    def join(self, node: str, *, is_waited_for: bool = True, gossip: str = "127.0.0.1:1") -> Joiner:
        """A node that holds nothing comes up, and asks to be let in."""
        member = Member(make_replica_id(node, 100 + len(self.replicas)), node.partition("-")[0], gossip)
        joiner = Joiner(self.cluster, member, self._directory / f"data-{node}", 1 << 20)
        self.replicas.append(joiner)
        self.meet(joiner)
        if is_waited_for:
            self.until(lambda: self.is_installed(joiner))
        return joiner

    def meet(self, one: Replica) -> None:
        for other in self.replicas:
            if other is not one:
                one.step(self.now_ms, PeerChanged(other.me, True))
                other.step(self.now_ms, PeerChanged(one.me, True))

    def stop(self, one: Replica) -> None:
        self.replicas.remove(one)
        one.close()
        for other in self.replicas:
            other.step(self.now_ms, PeerChanged(one.me, False))

    def evict(self, gone: Replica) -> None:
        """And wait until it is settled how many of its commits count."""
        host, out = self.first.host, HostOutput()
        host.order(SYSTEM_GROUP, Evict((gone.me,), self.engine(SYSTEM_GROUP).configuration.id), 0, self.now_ms, out)
        host.finish(self.now_ms, out)
        self.first.step(self.now_ms, *self.first._carry_out(out))
        self.until(
            lambda: all(gone.me in engine.configuration.finals for engine in self.first.host.groups.values()),
        )

    def engine(self, group: str = GROUP, replica: Replica | None = None) -> Engine:
        return (replica or self.first).host.groups[group]

    def is_installed(self, replica: Replica) -> bool:
        groups = replica.host.groups
        return groups.keys() == self.first.host.groups.keys() and all(each.takes_part for each in groups.values())

    def run(self, ms: int) -> None:
        for _ in range(ms // 20):
            self.pass_ms(20)
            self.deliver()

    def until(self, done: Callable[[], bool], most_ms: int = 30_000) -> None:
        for _ in range(most_ms // 20):
            if done():
                return
            self.run(20)
        raise AssertionError(f"not within {most_ms} ms")

    def _collect(self) -> None:
        for replica in self.replicas:
            self._on_the_wire += [(replica.me, peer, data) for peer, data in replica.sent]
            replica.sent.clear()

    def deliver(self, share: float = 1.0) -> None:
        """All that is under way, in order."""
        self._collect()
        going, self._on_the_wire = self._on_the_wire, []
        by_id = {replica.me: replica for replica in self.replicas}
        for source, peer, data in going:
            if peer in by_id and source in by_id and not self.drops(decode_message(data)):
                by_id[peer].step(self.now_ms, Received(source, data))
        self._collect()


@contextmanager
def regrouping(directory: Path, regions: int = 2, **options: Any) -> Iterator[Regrouping]:
    """A shop in which something was written."""
    world = Regrouping(directory, regions, **options)
    try:
        world.declare(0, "shop", "counter", "aw_set")
        world.run(500)
        fill(world, "early", 20)
        yield world
    finally:
        world.close()


def fill(world: World, what: str, count: int) -> None:
    """So many writes at each, keys apart."""
    for at in range(len(world.replicas)):
        for number in range(count):
            world.write(at, f"shop/counter/{what}-{number % 7}", op="add", amount=1)
            world.write(at, f"shop/aw_set/{what}", op="add", elements=[f"{at} {number}"])


def held(host: Host) -> dict[str, tuple[dict[str, int], int]]:
    """Per group who has how many commits there, and the digest; whatever the order in which they came to be known."""
    return {
        name: (
            {str(replica): seq for replica, seq in zip(engine.replicas, engine.applied, strict=True) if seq},
            engine.digest,
        )
        for name, engine in host.groups.items()
        if any(engine.applied)
    }
