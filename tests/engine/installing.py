"""Nodes that join a cluster which goes on writing, on wires that lose, repeat and reorder, with disks that take their time and may crash.

Whatever happens, law L7 is checked at every commit that is applied anywhere: it has seen all that is stable there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from operator import le
from random import Random
from typing import Any

from crdtstore.causal import ReplicaId, make_replica_id
from crdtstore.commit import Commit
from crdtstore.configuration import SYSTEM_GROUP, Cluster, Member
from crdtstore.engine.causality import Resolved
from crdtstore.engine.engine import Engine
from crdtstore.engine.events import Persisted, Tick
from crdtstore.engine.membership.changes import Evict, Join
from crdtstore.engine.options import Options
from crdtstore.engine.stability import Stability
from crdtstore.errors import CrdtStoreError
from crdtstore.host import Host, HostOutput
from crdtstore.messages import Fetch, Message, Part, decode_message, encode_message
from crdtstore.saving import Save, Saved
from crdtstore.service import PeerChanged, Received, Request, Service
from crdtstore.storage.memory import MemoryLog
from crdtstore.storage.memory_state import MemoryState

START_MS = 1_700_000_000_000
GROUP = "d/0"
OPTIONS = Options(checkpoint_ms=60_000, retain_bytes=1 << 16, fold_interval_ms=50, gossip_interval_ms=50)


def member(name: str, number: int) -> Member:
    return Member(make_replica_id(name, number), name[:2])


US, EU, AP, SA = (member(name, at + 1) for at, name in enumerate(("us-1", "eu-1", "ap-1", "sa-1")))
CLUSTER = Cluster("test", b"0123456789abcdef", (US, EU))


def watch_l7(monkeypatch: Any) -> list[str]:
    """Hold every engine to law L7, also of time: what arrives has seen all that is stable, and is stamped above whatever frontier was
    gone by. Return where it did not.
    """
    broken: list[str] = []
    before, frontier_before = Engine.change, Stability.frontier_hlc
    frontiers: dict[int, tuple[Stability, int]] = {}

    def frontier_hlc(self: Stability, own_hlc: int) -> int:
        found = frontier_before(self, own_hlc)
        frontiers[id(self)] = self, max(found, frontiers.get(id(self), (self, 0))[1])
        return found

    def change(self: Engine, origin: int, commit: Commit, resolved: Resolved) -> None:
        before(self, origin, commit, resolved)
        seen = self.causality.deps[origin]
        if origin != self.me and not all(map(le, self.stability.stable, seen)):
            broken.append(f"{self.replicas[self.me]}: commit {commit.seq} of {self.replicas[origin]} had seen {seen}")
        frontier = frontiers.get(id(self.stability), (self.stability, 0))[1]
        if origin != self.me and commit.hlc <= frontier:
            broken.append(
                f"{self.replicas[self.me]}: commit {commit.seq} of {self.replicas[origin]} is stamped too low"
            )

    monkeypatch.setattr(Engine, "change", change)
    monkeypatch.setattr(Stability, "frontier_hlc", frontier_hlc)
    return broken


class Site:
    """A node and its disks. Mutable."""

    def __init__(self, world: World, me: Member) -> None:
        self.world, self.me = world, me
        self.log, self.state = MemoryLog(segment_bytes=1 << 14), MemoryState()
        self.staged: deque[tuple[int, int, int]] = deque()
        self.saves: deque[Save] = deque()
        self.is_up = False
        self.off_ms = 0
        """How far its clock is ahead."""
        self.holds_log = self.holds_state = False
        """Whether a disk does nothing for now."""
        self.starts = 0
        self.service: Service
        self.on_event: Callable[[str], None] = lambda what: None
        """Is told of each part, sync and save before it happens here; may raise."""

    @property
    def host(self) -> Host:
        return self.service.host

    def engine(self, group: str = GROUP) -> Engine:
        return self.host.groups[group]

    @property
    def is_installed(self) -> bool:
        return self.is_up and GROUP in self.host.groups and self.engine().is_installed and self.engine().takes_part

    def start(self) -> None:
        founder = CLUSTER.member(self.me.replica)
        self.starts += 1
        who = self.me.replica if founder else self.me
        host = Host(CLUSTER, who, self.world.options, Random(self.starts), self.state, self.log.read)
        host.recover(self.log.replay(host.needed))
        self.service, self.is_up = Service(host), True
        self.step(Tick())
        for other in self.world.sites.values():
            if other is not self and other.is_up:
                self.world.meet(self, other)

    def crash(self) -> None:
        self.is_up = False
        self.log.crash()
        self.state.crash()
        self.staged.clear()
        self.saves.clear()
        for other in self.world.sites.values():
            if other is not self and other.is_up:
                other.step(PeerChanged(self.me.replica, False))

    def step(self, event: Any) -> HostOutput:
        out = self.service.step([event], self.world.now_ms + self.off_ms)
        if out.persist:
            position = self.log.position
            self.staged.append((self.log.stage([self.log.encode(out.persist)]), out.persist_number, position))
        self.saves += out.save
        if out.cut is not None:
            self.log.cut(out.cut)
        for peer, data in out.send:
            self.world.send(self, peer, data)
        self.world.replies.update(out.replies)
        self.world.rejected += [(self.me.node, each.reason) for each in out.rejected]
        return out

    def sync(self) -> None:
        """The disk has written the oldest of what it was given."""
        if self.staged and not self.holds_log:
            self.on_event("persisted")
            upto, number, position = self.staged.popleft()
            self.log.sync(upto)
            self.step(Persisted(number, position))
        if self.saves and not self.holds_state:
            self.on_event("saved")
            save = self.saves.popleft()
            change = (0, 0) if save.part is None else self.state.write(save.part)
            if save.part is None:
                self.state.commit()
            self.step(Saved(save.number, *change))


class World:
    """Sites, wires between them, one clock. Mutable."""

    def __init__(self, options: Options = OPTIONS, seed: int = 1) -> None:
        self.options, self.random = options, Random(seed)
        self.now_ms = START_MS
        self.replies: dict[int, Any] = {}
        self.rejected: list[tuple[str, str]] = []
        self.waiting: deque[tuple[ReplicaId, ReplicaId, bytes]] = deque()
        self.cut: set[frozenset[ReplicaId]] = set()
        self.edit: Callable[[Site, ReplicaId, Message], list[bytes] | None] = lambda source, peer, message: None
        """What is sent instead of a message; None: as it is."""
        self.parts: list[Part] = []
        self.fetches: list[Fetch] = []
        self._ticket = 0
        self.sites: dict[ReplicaId, Site] = {}
        for founder in CLUSTER.members:
            self.add(founder)

    def add(self, who: Member) -> Site:
        site = self.sites[who.replica] = Site(self, who)
        site.start()
        return site

    def site(self, who: Member) -> Site:
        return self.sites[who.replica]

    def meet(self, one: Site, other: Site) -> None:
        if frozenset((one.me.replica, other.me.replica)) not in self.cut:
            one.step(PeerChanged(other.me.replica, True))
            other.step(PeerChanged(one.me.replica, True))

    def part(self, one: Member, other: Member) -> None:
        """The link between two is cut, and both know."""
        self.cut.add(frozenset((one.replica, other.replica)))
        self.site(one).step(PeerChanged(other.replica, False))
        self.site(other).step(PeerChanged(one.replica, False))

    def heal(self, one: Member, other: Member) -> None:
        self.cut.discard(frozenset((one.replica, other.replica)))
        self.meet(self.site(one), self.site(other))

    def send(self, source: Site, peer: ReplicaId, data: bytes) -> None:
        message = decode_message(data)
        if isinstance(message, Part) and message.group == GROUP:
            self.parts.append(message)
        elif isinstance(message, Fetch) and message.group == GROUP:
            self.fetches.append(message)
        instead = self.edit(source, peer, message)
        for each in [data] if instead is None else instead:
            self.waiting.append((source.me.replica, peer, each))

    # --- time

    def run(self, ms: int, *, step_ms: int = 5, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass: what is on its way arrives, disks write one thing a step."""
        end = self.now_ms + ms
        while self.now_ms < end and not until():
            for site in list(self.sites.values()):
                if site.is_up:
                    site.sync()
            for _ in range(len(self.waiting)):
                source, peer, data = self.waiting.popleft()
                target = self.sites.get(peer)
                if target is not None and target.is_up and frozenset((source, peer)) not in self.cut:
                    if isinstance(decode_message(data), Part):
                        target.on_event("part")
                    target.step(Received(source, data))
            self.now_ms += step_ms
            for site in list(self.sites.values()):
                if site.is_up:
                    site.step(Tick())

    def run_until(self, until: Callable[[], bool], most_ms: int = 60_000, **how: Any) -> None:
        self.run(most_ms, until=until, **how)
        assert until(), f"not within {most_ms} ms"

    # --- users

    def ask(self, who: Member, do: str, **fields: Any) -> Any:
        self._ticket += 1
        ticket = self._ticket
        self.site(who).step(Request(ticket, do, fields))
        self.run_until(lambda: ticket in self.replies, 10_000)
        answer = self.replies[ticket]
        assert not isinstance(answer, CrdtStoreError), answer
        return answer

    def tell(self, who: Member, *ops: dict[str, Any], **fields: Any) -> None:
        """Write without waiting for the answer."""
        self._ticket += 1
        self.site(who).step(Request(self._ticket, "commit", {"domain": "d", "ops": list(ops), **fields}))

    def read(self, who: Member, collection: str, key: str) -> Any:
        return self.ask(who, "read", domain="d", collection=collection, key=key)["value"]

    # --- members

    def join(self, who: Member, sponsor: Member = US) -> Site:
        """Have a member admitted to ``_sys``; the other groups follow by themselves."""
        site = self.sites.get(who.replica) or self.add(who)
        sponsors = self.site(sponsor)
        sponsors.host.order(SYSTEM_GROUP, Join(who), 0, self.now_ms, HostOutput())
        return site

    def evict(self, who: Member, at: Member = US) -> None:
        host = self.site(at).host
        change = Evict((who.replica,), host.groups[SYSTEM_GROUP].configuration.id)
        host.order(SYSTEM_GROUP, change, 0, self.now_ms, HostOutput())

    def is_named(self, who: Member, group: str = GROUP) -> bool:
        """Whether all that are up are in a configuration with this member."""
        return all(
            group in site.host.groups and site.engine(group).configuration.member(who.replica) is not None
            for site in self.sites.values()
            if site.is_up
        )

    # --- what must hold

    def are_equal(self, *who: Member) -> bool:
        engines = [self.site(each).engine() for each in who]
        vectors = [
            {str(replica): seq for replica, seq in zip(engine.replicas, engine.applied, strict=True) if seq}
            for engine in engines
        ]
        return all(vector == vectors[0] for vector in vectors)

    def check_equal(self, *who: Member) -> None:
        """Equal vectors, digests, digests computed anew, chain hashes."""
        assert self.are_equal(*who)
        engines = [self.site(each).engine() for each in who]
        assert len({engine.digest for engine in engines}) == 1, "false convergence"
        for engine in engines:
            assert engine.digest == engine.keyspace.tree.share([]), "rows that do not have their digest"
        heads = [dict(zip(engine.replicas, engine.history.heads, strict=True)) for engine in engines]
        for replica in set(engines[0].replicas):
            assert len({each[replica] for each in heads if replica in each}) == 1


def altered(part: Part, body: bytes) -> bytes:
    return encode_message(Part(part.group, part.configuration, part.snapshot, part.number, body))
