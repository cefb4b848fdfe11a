"""Replicas with real logs and state stores in directories, virtual clocks and a network that delivers when told: what backups are taken of.

The question: what is the truth that a restored state is held against? Not what any replica says. The log of the first replica is never cut
here, so ``truth`` chooses from all of its commits by the definition, as sets, and replays them into a replica that never saw a checkpoint.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import structs

from crdtstore.causal import ReplicaId
from crdtstore.clock import physical_ms
from crdtstore.commit import decode_commit
from crdtstore.configuration import Cluster, Member
from crdtstore.engine.events import Persisted, Tick
from crdtstore.engine.options import Options
from crdtstore.errors import CrdtStoreError, UsageError
from crdtstore.host import Host, HostOutput
from crdtstore.saving import Saved
from crdtstore.service import PeerChanged, Received, Request, Service
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.protocol import NO_ORIGIN, Entry
from crdtstore.storage.record import decode_record
from crdtstore.storage.sqlite import SqliteState
from crdtstore_node.backup.logcopy import read_blocks
from crdtstore_node.backup.restore import restore as restore_backup
from crdtstore_node.identity import LOG_NAME, read_identity, write_identity

NONCE = bytes(15) + b"\1"
START_MS = 1_780_000_000_000
SEGMENT_BYTES = 1 << 16
OPTIONS = Options(
    checkpoint_ms=3_600_000,
    gossip_interval_ms=50,
    relay_after_ms=50,
    fold_interval_ms=20,
    memory_bytes=1 << 20,
    retain_bytes=1024,
)


def make_cluster(regions: int) -> Cluster:
    members = [Member(ReplicaId(f"r{at}-1.{at:016x}"), f"r{at}", "127.0.0.1:1") for at in range(regions)]
    return Cluster("backups", NONCE, tuple(members))


class Replica:
    """One node without a socket. Mutable; driven by ``World``."""

    def __init__(self, cluster: Cluster, at: int, directory: Path, seed: int, skew_ms: int, retain_bytes: int) -> None:
        self.me = cluster.members[at].replica
        self.directory = directory
        self.skew_ms = skew_ms
        write_identity(_made(directory), cluster, self.me)
        self.log = SegmentedLog.open(directory / LOG_NAME, SEGMENT_BYTES)
        self.store = SqliteState.open(directory)
        options = structs.replace(OPTIONS, retain_bytes=retain_bytes)
        self.host = Host(cluster, self.me, options, random.Random(seed), self.store, self.log.read)
        self.host.recover(self.log.replay(self.host.needed))
        self.service = Service(self.host)
        self.replies: dict[int, dict[str, Any] | CrdtStoreError] = {}
        self.sent: list[tuple[ReplicaId, bytes]] = []

    def step(self, now_ms: int, *events: Any) -> None:
        """Let events happen, and at once all that follows from them on the disk."""
        pending = list(events)
        while pending:
            out = self.service.step(pending, now_ms + self.skew_ms)
            pending = self._carry_out(out)

    def _carry_out(self, out: HostOutput) -> list[Any]:
        following: list[Any] = []
        if out.persist:
            position = self.log.write([self.log.encode(out.persist)])
            following.append(Persisted(out.persist_number, position))
        for save in out.save:
            if save.part is None:
                self.store.commit()
                following.append(Saved(save.number))
            else:
                following.append(Saved(save.number, *self.store.write(save.part)))
        self.sent += out.send
        self.replies.update(out.replies)
        return following

    def checkpoint(self, now_ms: int) -> None:
        assert self.host.saving is not None
        before = self.host.saving.checkpoints
        self.host.saving.log_bytes = OPTIONS.checkpoint_bytes  # now
        self.step(now_ms, Tick())
        assert self.host.saving.checkpoints == before + 1

    def close(self) -> None:
        self.log.close()
        self.store.close()


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


class World:
    """A few replicas; ``write`` at any of them, ``deliver`` some of what is under way, ``pass_ms``."""

    def __init__(
        self,
        directory: Path,
        regions: int = 3,
        seed: int = 0,
        skews_ms: tuple[int, ...] = (),
        retain_bytes: int = 1024,
    ) -> None:
        self.cluster = make_cluster(regions)
        self.random = random.Random(seed)
        self.now_ms = START_MS
        self.replicas = [
            Replica(
                self.cluster, at, directory / f"data-{at}", seed + at, skews_ms[at] if skews_ms else 0, retain_bytes
            )
            for at in range(regions)
        ]
        self._under_way: list[tuple[int, ReplicaId, bytes]] = []
        self._ticket = 0
        for replica in self.replicas:
            for other in self.cluster.members:
                if other.replica != replica.me:
                    replica.step(self.now_ms, PeerChanged(other.replica, True))

    @property
    def first(self) -> Replica:
        return self.replicas[0]

    def ask(self, at: int, do: str, **fields: Any) -> dict[str, Any]:
        self._ticket += 1
        replica = self.replicas[at]
        replica.step(self.now_ms, Request(self._ticket, do, fields))
        answer = replica.replies.pop(self._ticket)
        if isinstance(answer, CrdtStoreError):
            raise answer
        return answer

    def declare(self, at: int, domain: str, *types: str, shards: int = 1) -> None:
        self.ask(at, "declare_domain", domain=domain, shards=shards)
        for name in types:
            self.ask(at, "declare", domain=domain, collection=name, type=name)

    def write(self, at: int, address: str, token: str | None = None, **op: Any) -> dict[str, Any]:
        domain, collection, key = address.split("/")
        op = {"collection": collection, "key": key, **op}
        return self.ask(at, "commit", domain=domain, ops=[op], token=token)

    def pass_ms(self, span_ms: int) -> None:
        self.now_ms += span_ms
        for replica in self.replicas:
            replica.step(self.now_ms, Tick())
        self._collect()

    def _collect(self) -> None:
        for at, replica in enumerate(self.replicas):
            self._under_way += [(at, peer, data) for peer, data in replica.sent]
            replica.sent.clear()

    def deliver(self, share: float = 1.0) -> None:
        """Deliver some of what is under way, in any order."""
        self._collect()
        self.random.shuffle(self._under_way)
        count = round(len(self._under_way) * share)
        going, self._under_way = self._under_way[:count], self._under_way[count:]
        by_id = {replica.me: replica for replica in self.replicas}
        for at, peer, data in going:
            by_id[peer].step(self.now_ms, Received(self.replicas[at].me, data))
        self._collect()

    def settle(self) -> None:
        for _ in range(40):
            self.pass_ms(60)
            self.deliver()

    def close(self) -> None:
        for replica in self.replicas:
            replica.close()


@contextmanager
def make_world(directory: Path, regions: int = 3, **options: Any) -> Iterator[World]:
    world = World(directory, regions, **options)
    try:
        yield world
    finally:
        world.close()


def random_life(
    world: World, steps: int, *, checkpoint_at: tuple[int, ...] = (), shards: int = 1
) -> list[dict[str, Any]]:
    """Writes of several types everywhere, while messages take their time; what was acknowledged, each with its instant and region."""
    draw = world.random
    world.declare(0, "shop", "counter", "aw_set", "lww_register", "lww_map", shards=shards)
    world.settle()
    acknowledged: list[dict[str, Any]] = []
    for step in range(steps):
        at = draw.randrange(len(world.replicas))
        key = f"k{draw.randrange(8)}"
        kind = draw.randrange(5)
        if kind == 0:
            body = world.write(at, f"shop/counter/{key}", op="add", amount=draw.randrange(1, 9))
        elif kind == 1:
            body = world.write(
                at, f"shop/aw_set/{key}", op="add", elements=[f"e{draw.randrange(6)}", draw.randrange(4)]
            )
        elif kind == 2:
            body = world.write(at, f"shop/aw_set/{key}", op="remove", elements=[f"e{draw.randrange(6)}"])
        elif kind == 3:
            body = world.write(at, f"shop/lww_register/{key}", op="set", value=step)
        else:
            body = world.write(at, f"shop/lww_map/{key}", op="set", fields={f"f{draw.randrange(3)}": step})
        acknowledged.append({"at": at, "ms": world.now_ms + world.replicas[at].skew_ms, **body})
        if step == steps // 2:
            world.declare(at, "crm", "counter", shards=shards)
        if step > steps // 2 and draw.random() < 0.2:
            with suppress(UsageError):  # its declaration may be on its way
                world.write(at, f"crm/counter/{key}", op="add", amount=1)
        world.pass_ms(draw.randrange(1, 40))
        if draw.random() < 0.7:
            world.deliver(draw.random())
        if step in checkpoint_at:
            world.first.checkpoint(world.now_ms)
    return acknowledged


# --- the truth


def entries_of(data: Path) -> list[Entry]:
    """Every commit in a log that was never cut, in order."""
    blocks = read_blocks(data / LOG_NAME, 0)
    entries = [entry for block in blocks for record in block.records for entry in decode_record(record)]
    return [entry for entry in entries if entry.origin != NO_ORIGIN]


class Told:
    """A commit of the log with all that its issuer had seen, by name."""

    def __init__(self, entry: Entry, before: Told | None) -> None:
        self.entry = entry
        commit = decode_commit(entry.data)
        self.name = (entry.group, str(entry.origin), commit.seq)
        self.ms = physical_ms(commit.hlc)
        self.roster = [*before.roster] if before is not None else [str(entry.origin)]
        self.seen = dict(before.seen) if before is not None else {}
        for at in range(0, len(commit.deps), 2):
            index, increase = commit.deps[at], commit.deps[at + 1]
            if isinstance(index, str):
                self.roster.append(index)
            replica = index if isinstance(index, str) else self.roster[index]
            self.seen[replica] = self.seen.get(replica, 0) + int(increase)
        self.needs = {(entry.group, replica, seq) for replica, seq in self.seen.items()}
        if commit.seq > 1:
            self.needs.add((entry.group, str(entry.origin), commit.seq - 1))


def told(entries: list[Entry]) -> list[Told]:
    last: dict[tuple[str, str], Told] = {}
    found = []
    for entry in entries:
        name = (entry.group, str(entry.origin))
        last[name] = Told(entry, last.get(name))
        found.append(last[name])
    return found


def truth_at(entries: list[Entry], at_ms: int) -> list[Entry]:
    """The greatest set of commits stamped up to an instant that holds all its deps: what violates that is taken out until nothing does."""
    stories = [each for each in told(entries) if each.ms <= at_ms]
    while True:
        names = {each.name for each in stories}
        domains = {"_sys"} | {
            path[1]
            for each in stories
            if each.entry.group == "_sys/0"
            for path in decode_commit(each.entry.data).effects[1::3]
            if path[0] == "domains:lww_map"
        }
        kept = [each for each in stories if each.needs <= names and each.entry.group.partition("/")[0] in domains]
        if len(kept) == len(stories):
            return [each.entry for each in kept]
        stories = kept


def replayed(cluster: Cluster, entries: list[Entry]) -> Host:
    """A replica that never saw a checkpoint."""
    host = Host(cluster, cluster.members[0].replica, OPTIONS, random.Random(0))
    host.recover((at, [entry]) for at, entry in enumerate(entries))
    return host


def state_of(host: Host) -> dict[str, tuple[list[int], int]]:
    """Per group vector and digest, without groups of which there is nothing."""
    return {name: (list(engine.applied), engine.digest) for name, engine in host.groups.items() if any(engine.applied)}


restore = partial(restore_backup, segment_bytes=SEGMENT_BYTES)


class Reader:
    """A restored directory, opened as a node opens it."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        identity = read_identity(directory)
        assert identity is not None
        assert identity.restored_from is not None
        member = Member(ReplicaId(identity.replica), "r0")
        replica = ReplicaId(identity.restored_from.replica)
        source = cluster.member(replica) or Member(replica, "r0")
        self.log = SegmentedLog.open(directory / LOG_NAME, SEGMENT_BYTES)
        self.store = SqliteState.open(directory)
        self.host = Host(cluster, source, OPTIONS, random.Random(0), self.store, self.log.read, member)
        self.host.recover(self.log.replay(self.host.needed))
        self.service = Service(self.host)

    def ask(self, do: str, **fields: Any) -> dict[str, Any] | CrdtStoreError:
        out = self.service.step([Request(1, do, fields)], START_MS + 86_400_000)
        return dict(out.replies)[1]

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.log.close()
        self.store.close()


def readings(host: Host) -> dict[str, Any]:
    """Every key of every collection, as a user reads it."""
    service, found, ticket = Service(host), {}, 0
    for group in host.groups:
        domain = group.partition("/")[0]
        if domain.startswith("_"):
            continue
        for declared in host.declarations.collections(domain):
            ticket += 1
            fields = {"domain": domain, "collection": declared.name, "values": True, "limit": 100}
            body = dict(service.step([Request(ticket, "list", fields)], START_MS + 86_400_000).replies)[ticket]
            assert isinstance(body, dict), body
            found[f"{domain}/{declared.name}"] = {item["key"]: item["value"] for item in body["items"]}
    return found
