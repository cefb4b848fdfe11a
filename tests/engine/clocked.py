"""Nodes whose clocks can be set and which stop in every way, on wires that deliver at once, with disks that sync when time passes.

Each may have a state store; then its log is cut as early as it may be, and a start begins with a checkpoint.

Whatever happens, some things are checked at every output: stamps of a replica strictly increase, and none is at or below what one of its
heartbeats promised, in this life or an earlier one; staleness is never negative.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from random import Random
from typing import Any

from crdtstore.causal import ReplicaId
from crdtstore.commit import decode_commit
from crdtstore.configuration import Member
from crdtstore.engine.events import Persisted, Tick
from crdtstore.engine.options import Options
from crdtstore.errors import CrdtStoreError
from crdtstore.host import Host, HostOutput
from crdtstore.messages import Ack, Digest, Row, decode_message
from crdtstore.saving import Save, Saved
from crdtstore.service import Event, PeerChanged, Received, Request, Service
from crdtstore.storage.memory import MemoryLog
from crdtstore.storage.memory_state import MemoryState
from crdtstore_node.clock import WallClock
from tests.engine.wire import START_MS, cluster_of

HOUR_MS = 3_600_000
TEN_YEARS_MS = 3_652 * 24 * HOUR_MS


class Site:
    """A node, its machine and what the machine's clock shows. Mutable."""

    def __init__(self, world: World, replica: ReplicaId) -> None:
        self.world = world
        self.replica = replica
        self.member: Member | None = None
        """Who it is, when it is no founder."""
        self.off_ms = 0
        """How far its clock is ahead."""
        self.log = MemoryLog()
        self.state = MemoryState() if world.has_stores else None
        self.staged: list[tuple[int, int, int]] = []
        self.saves: list[Save] = []
        self.is_up = False
        self.promised: dict[str, int] = defaultdict(int)
        """Per group the latest stamp that was promised, in whatever life."""
        self.made: dict[str, int] = defaultdict(int)
        """Per group the stamp of the last commit."""
        self.service: Service
        self.clock: WallClock

    @property
    def host(self) -> Host:
        return self.service.host

    def start(self, member: Member | None = None) -> None:
        self.member = member or self.member
        host = Host(
            self.world.cluster, self.member or self.replica, self.world.options, Random(1), self.state, self.log.read
        )
        host.recover(self.log.replay(host.needed))
        self.service, self.is_up = Service(host), True
        self.clock = WallClock(lambda: (self.world.time_ms + self.off_ms) / 1000, lambda: self.world.time_ms / 1000)
        self.step(Tick())
        for other in self.world.sites.values():
            if other is not self and other.is_up:
                self.step(PeerChanged(other.replica, True))
                other.step(PeerChanged(self.replica, True))

    def end(self, *, is_orderly: bool) -> None:
        self.is_up = False
        if is_orderly:
            last = self.host.close()
            if last is not None:
                self.log.stage([self.log.encode([last])])
            self.log.sync()
        self.log.crash()
        self.staged, self.saves = [], []
        if self.state is not None:
            self.state.crash()
        for other in self.world.sites.values():
            if other is not self and other.is_up:
                other.step(PeerChanged(self.replica, False))

    def step(self, event: Event) -> HostOutput:
        return self._carry_out(self.service.step([event], self.clock.now_ms()))

    def act(self, happen: Callable[[HostOutput], None]) -> None:
        """Let something happen to the host by itself."""
        out = HostOutput()
        happen(out)
        self.host.finish(self.clock.now_ms(), out)
        self._carry_out(out)

    def _carry_out(self, out: HostOutput) -> HostOutput:
        for group, origin, data in out.persist:
            if group and origin == self.replica:
                stamp = decode_commit(data).hlc
                assert stamp > self.made[group], "stamps of a replica strictly increase"
                assert stamp > self.promised[group], f"stamped {self.promised[group] - stamp} below a promise"
                self.made[group] = stamp
        if out.persist_number:
            position = self.log.position
            self.staged.append((self.log.stage([self.log.encode(out.persist)]), out.persist_number, position))
        self.saves += out.save
        if out.cut is not None:
            self.log.cut(out.cut)
        for peer, data in out.send:
            message = decode_message(data)
            if isinstance(message, Digest | Ack):
                self._note(message.group, message.row)
            self.world.waiting.append((peer, self.replica, data))
        self.world.replies.update(out.replies)
        return out

    def _note(self, group: str, row: Row) -> None:
        assert row.hlc >= 0
        self.promised[group] = max(self.promised[group], row.hlc)

    def sync(self) -> None:
        """The disk has written everything."""
        while self.staged or self.saves:
            if self.staged:
                upto, number, position = self.staged.pop(0)
                self.log.sync(upto)
                self.step(Persisted(number, position))
            else:
                self._save(self.saves.pop(0))

    def _save(self, save: Save) -> None:
        assert self.state is not None
        if save.part is None:
            self.state.commit()
            self.step(Saved(save.number))
        else:
            self.step(Saved(save.number, *self.state.write(save.part)))


class World:
    """Mutable. ``time_ms`` is the true time."""

    def __init__(self, *names: str, has_stores: bool = False, **options: Any) -> None:
        self.cluster = cluster_of(*names)
        self.has_stores = has_stores
        self.options = Options(**{"checkpoint_ms": 100, "history_bytes": 1024, "retain_bytes": 1024, **options})
        self.time_ms = START_MS
        self.waiting: list[tuple[ReplicaId, ReplicaId, bytes]] = []
        self.replies: dict[int, Any] = {}
        self.sites = {member.node: Site(self, member.replica) for member in self.cluster.members}
        self._by_replica = {site.replica: site for site in self.sites.values()}
        self._ticket = 0
        for site in self.sites.values():
            site.start()
        self.run(1_000)

    def run(self, ms: int = 20) -> None:
        """Time passes: everything is delivered and written."""
        end_ms = self.time_ms + ms
        while self.time_ms < end_ms:
            self.time_ms += 20
            for site in self.sites.values():
                if site.is_up:
                    site.step(Tick())
                    site.sync()
            self.deliver()
            for site in self.sites.values():
                if site.is_up:
                    for group in site.service.status(site.clock.now_ms())["groups"]:
                        assert (group["staleness_ms"] or 0) >= 0
                        assert (group["lag_ms"] or 0) >= 0

    def deliver(self) -> None:
        while self.waiting:
            target, source, data = self.waiting.pop(0)
            site = self._by_replica[target]
            if site.is_up and self._by_replica[source].is_up:
                site.step(Received(source, data))

    def ask(self, name: str, do: str, **fields: Any) -> Any:
        """A request and its answer, within a while."""
        self._ticket += 1
        ticket, site = self._ticket, self.sites[name]
        site.step(Request(ticket, do, fields))
        for _ in range(50):
            if ticket in self.replies:
                return self.replies[ticket]
            self.run()
        raise AssertionError(f"no answer to {do} at {name}")

    def write(self, name: str, op: str, collection: str = "visits", key: str = "k", **fields: Any) -> Any:
        asked = {"collection": collection, "key": key, "op": op, **fields.pop("op_fields", {})}
        return self.ask(name, "commit", domain="shop", ops=[asked], **fields)

    def read(self, name: str, collection: str = "visits", key: str = "k") -> Any:
        body = self.ask(name, "read", domain="shop", collection=collection, key=key)
        assert not isinstance(body, CrdtStoreError), body
        assert (body["staleness_ms"] or 0) >= 0
        return body

    def set_clock(self, name: str, ms: int, how: str) -> None:
        """Somebody sets a clock by so much: while the node is running, or over a restart."""
        site = self.sites[name]
        if how == "running":
            site.off_ms += ms
        else:
            site.end(is_orderly=how == "stopped")
            site.off_ms += ms
            self.time_ms += 60
            site.start()
        self.run(1_000)


def shop(*names: str, has_stores: bool = False, **options: Any) -> World:
    """Nodes that share a domain with some collections."""
    world = World(*names, has_stores=has_stores, **options)
    first = names[0]
    world.ask(first, "declare_domain", domain="shop")
    for name, type_name in (("visits", "counter"), ("notes", "lww_register")):
        world.ask(first, "declare", domain="shop", collection=name, type=type_name)
    world.run(1_000)
    return world
