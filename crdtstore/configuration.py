"""Who holds a group: configurations, and the cluster that founds the first one.

The question: which of two configurations is the later one, or are they of two lines? A group's membership is a line of configurations,
each decided by a quorum of the one before. Each has a number and an id (number, newest nonce); every message between replicas carries
the id, and what was said under one id counts under no other. A line gets a new nonce only when an operator forces a part of the members to
go on without the others. P is an ancestor of Q when Q's line had P's nonce at P's number.

Configuration 0 consists of the founding members with full ids and one nonce, from the cluster file, so that all founders agree without
having met. The order of ``members`` is the order in which they joined; vectors on the wire name ``origins``.

Where nodes consist of several workers, all of them are members of ``_sys``, and each other group is held by one worker of each node: shard
``s`` by worker ``s`` modulo their number. Hence that number is the same everywhere and for ever, and the cluster's nonce follows from it
too: whoever counts otherwise is of another cluster.

Source: DESIGN 4 (configurations).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from crdtstore.causal import MAX_WORKERS, NAME, ReplicaId, machine_of, node_of, parse_replica_id, worker_of
from crdtstore.errors import ProtocolError, UsageError
from crdtstore.leaves import SEQ_MASK

__all__ = [
    "SYSTEM_GROUP",
    "Cluster",
    "Configuration",
    "ConfigurationId",
    "Member",
    "Removed",
    "group_named",
    "group_of",
    "name_of",
    "nonce_with",
]

SYSTEM_GROUP = "_sys/0"
MAX_MEMBERS = 256
MAX_REMOVED = 4_096
"""A replica keeps a vector for everybody who ever was a member, so memory grows with the square of this."""
MAX_NUMBER = 1 << 53
_MAX_NONCE_BYTES = 32
_MAX_GOSSIP = 300


class ConfigurationId(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Names a configuration: its number and the newest nonce of its line."""

    number: int
    nonce: bytes

    def __str__(self) -> str:
        return f"{self.number}.{self.nonce.hex()[:8]}"

    def check(self) -> None:
        """Can there be such a configuration? What peers name is kept, so it has to be small.

        Raises:  ProtocolError.
        """
        if not 0 <= self.number < MAX_NUMBER or len(self.nonce) > _MAX_NONCE_BYTES:
            raise ProtocolError("a configuration is named by a number and a nonce, and these are not")


class Member(msgspec.Struct, array_like=True, frozen=True):
    """A member: its replica id, its region, and where its gossip listener is (host:port)."""

    replica: ReplicaId
    region: str
    gossip: str = ""

    @property
    def node(self) -> str:
        return node_of(self.replica)

    @property
    def machine(self) -> str:
        """The node that it is a worker of, or is."""
        return machine_of(self.node)

    @property
    def worker(self) -> int:
        """Which worker of its node it is."""
        return worker_of(self.node) or 0

    def check(self) -> None:
        """Can there be such a member?

        Raises:  ProtocolError saying why not.
        """
        try:
            parse_replica_id(self.replica)
        except ValueError as error:
            raise ProtocolError(str(error)) from error
        if not NAME.fullmatch(self.region) or len(self.gossip) > _MAX_GOSSIP:
            raise ProtocolError(f"{self.replica} is in no region, or nowhere: {self.region[:63]!r}")


class Removed(msgspec.Struct, array_like=True, frozen=True):
    """A former member. ``final``: so many of its commits count, those after them are orphans; None: not decided yet."""

    member: Member
    final: int | None = None

    @property
    def replica(self) -> ReplicaId:
        return self.member.replica


class Configuration(msgspec.Struct, array_like=True, frozen=True):
    """The members of a group at one point of its line, and everybody who ever was one. A removed id never returns."""

    number: int
    epochs: tuple[tuple[int, bytes], ...]
    """(first number, nonce), ascending."""
    members: tuple[Member, ...]
    removed: tuple[Removed, ...] = ()

    @property
    def id(self) -> ConfigurationId:
        return ConfigurationId(self.number, self.epochs[-1][1])

    @property
    def ids(self) -> tuple[ReplicaId, ...]:
        """The replica ids of the members."""
        return tuple(member.replica for member in self.members)

    @property
    def origins(self) -> tuple[ReplicaId, ...]:
        """Whose commits vectors on the wire count, in order: of everybody else it is settled how many there are."""
        return (*self.ids, *(removed.replica for removed in self.removed if removed.final is None))

    @property
    def finals(self) -> dict[ReplicaId, int]:
        """The removed ids of which it is settled how many of their commits count."""
        return {removed.replica: removed.final for removed in self.removed if removed.final is not None}

    def member(self, replica: str) -> Member | None:
        return next((member for member in self.members if member.replica == replica), None)

    def removal(self, replica: str) -> Removed | None:
        return next((removed for removed in self.removed if removed.replica == replica), None)

    def nonce_at(self, number: int) -> bytes:
        """The nonce that this line had at a number."""
        return [nonce for first, nonce in self.epochs if first <= number][-1]

    def precedes(self, other: Configuration) -> bool:
        """Whether this is an ancestor of the other one, or the same."""
        return self.number <= other.number and other.nonce_at(self.number) == self.epochs[-1][1]

    def is_quorum(self, replicas: Collection[str]) -> bool:
        """Whether these members may decide: more than half of all, or exactly half with the oldest among them."""
        count = sum(member.replica in replicas for member in self.members)
        half = 2 * count - len(self.members)
        return half > 0 or (half == 0 and self.members[0].replica in replicas)

    def check(self) -> None:
        """Is this a configuration at all?

        Raises:  ProtocolError saying what is wrong with it.
        """
        if not self.members or len(self.members) > MAX_MEMBERS or len(self.removed) > MAX_REMOVED:
            raise ProtocolError("a configuration names nobody, or too many")
        everybody = [*self.members, *(removed.member for removed in self.removed)]
        for member in everybody:
            member.check()
        if len({member.replica for member in everybody}) != len(everybody):
            raise ProtocolError("a configuration names somebody twice")
        firsts = [first for first, _ in self.epochs]
        if not firsts or firsts[0] != 0 or sorted(set(firsts)) != firsts or self.number < firsts[-1]:
            raise ProtocolError("a configuration's line does not lead to it")
        for number, nonce in (*self.epochs, (self.number, b"")):
            ConfigurationId(number, nonce).check()
        if any(removed.final is not None and not 0 <= removed.final <= SEQ_MASK for removed in self.removed):
            raise ProtocolError("a configuration counts from zero, and not for ever")

    def check_follows(self, before: Configuration) -> None:
        """Can the line have led from ``before`` to this one? Nobody may vanish, return, or get another final.

        Raises:  ProtocolError saying what cannot be.
        """
        former = {removed.replica: removed.final for removed in self.removed}
        for replica in before.ids:
            if self.member(replica) is None and replica not in former:
                raise ProtocolError(f"{replica} vanished between configurations {before.id} and {self.id}")
        for removed in before.removed:
            if removed.replica not in former or (
                removed.final is not None and former[removed.replica] != removed.final
            ):
                raise ProtocolError(f"{removed.replica} was removed in {before.id} and is not so in {self.id}")
        kept = [replica for replica in before.ids if self.member(replica) is not None]
        if list(self.ids[: len(kept)]) != kept:  # the oldest decides when halves disagree
            raise ProtocolError(f"the members of {before.id} stand in another order in {self.id}")
        if [each.replica for each in before.removed] != [each.replica for each in self.removed[: len(before.removed)]]:
            raise ProtocolError(f"those removed in {before.id} stand in another order in {self.id}")
        if self.number == before.number and self != before:
            raise ProtocolError(f"two configurations {self.id}")


@dataclass(frozen=True, slots=True)
class Cluster:
    """What all nodes agree on before they first meet.

    Shape:   ``members`` are processes: with ``workers`` > 1 so many of each node. ``nonce`` is what peers show each other; ``shared`` the
             one in the cluster file, where that is another (``with_workers``).

    Raises:  UsageError when names or ids are malformed or used twice, or the nonce is not 16 bytes, or a worker is missing.
    """

    name: str
    nonce: bytes
    members: tuple[Member, ...]
    workers: int = 1
    shared: bytes = b""

    def __post_init__(self) -> None:
        if len(self.nonce) != 16:
            raise UsageError(f"the nonce of a cluster is 16 bytes (32 hex digits), got {len(self.nonce)} bytes")
        if not self.members:
            raise UsageError("a cluster has at least one member")
        for name in (self.name, *(member.region for member in self.members)):
            if not NAME.fullmatch(name):
                raise UsageError(f"a cluster or region is named like [a-z][a-z0-9_-]*, got {name[:100]!r}")
        for what in ("replica", "node"):
            names = [getattr(member, what) for member in self.members]
            if len(set(names)) != len(names):
                raise UsageError(f"two members have the same {what}: {', '.join(names)}")
        if not 1 <= self.workers <= MAX_WORKERS:
            raise UsageError(f"a node has 1 to {MAX_WORKERS} workers, got {self.workers}")
        for member in self.members:
            self.check_worker(member.replica)
        if missing := self.missing_workers(self.members):
            raise UsageError(f"no member is worker {missing[0]} of {self.workers}")

    @classmethod
    def with_workers(cls, name: str, shared: bytes, members: tuple[Member, ...], workers: int) -> Cluster:
        """The cluster of a file with this nonce, whose nodes have so many workers.

        Raises:  UsageError as the cluster itself.
        """
        return cls(name, nonce_with(shared, workers), members, workers, shared)

    def check_worker(self, replica: ReplicaId) -> None:
        """Can this one belong here, by the worker that it is?

        Raises:  UsageError saying why not.
        """
        worker = worker_of(node_of(replica))
        if (worker is None) != (self.workers == 1) or (worker or 0) >= self.workers:
            raise UsageError(
                f"{replica} is {'no worker' if worker is None else f'worker {worker}'}, but the nodes of the cluster {self.name} have "
                f"{'one worker each' if self.workers == 1 else f'{self.workers} workers each, called like us-1+0'}"
            )

    def what_else(self, nonce: bytes) -> str:
        """What a nonce stands for that is not this cluster's, in words."""
        shared = self.shared or self.nonce
        for workers in range(1, MAX_WORKERS + 1):
            if nonce == nonce_with(shared, workers):
                return (
                    f"this cluster with workers = {workers}, but here it is {self.workers}: the number is the same at all nodes and never "
                    "changes"
                )
        return "another cluster"

    def configuration(self, group: str) -> Configuration:
        """Configuration 0 of a group: all founders that hold it. Its nonce follows from the cluster's, so two regions that declare one
        domain while they cannot hear each other still mean the same group."""
        nonce = sha256(self.nonce + group.encode()).digest()[:16]
        return Configuration(0, ((0, nonce),), self.holders(group, self.members))

    def beginning(self, group: str, system: Configuration) -> Configuration:
        """Configuration 0 of a group that is declared when others than the founders are the members of ``_sys``."""
        seed = self.nonce + group.encode() + system.id.nonce + system.number.to_bytes(8, "big")
        return Configuration(0, ((0, sha256(seed).digest()[:16]),), self.holders(group, system.members))

    def worker_of(self, group: str) -> int | None:
        """Which worker of each node holds a group; None: all of them."""
        if self.workers == 1 or group == SYSTEM_GROUP:
            return None
        return int(group.rpartition("/")[2]) % self.workers

    def holders(self, group: str, members: tuple[Member, ...]) -> tuple[Member, ...]:
        """Those of the members of ``_sys`` that hold a group."""
        worker = self.worker_of(group)
        return members if worker is None else tuple(member for member in members if member.worker == worker)

    def missing_workers(self, members: Collection[Member]) -> list[int]:
        """The workers that none of these is: nobody would hold their shards."""
        there = {member.worker for member in members}
        return [worker for worker in range(self.workers) if worker not in there]

    def member(self, replica: ReplicaId) -> Member | None:
        return next((member for member in self.members if member.replica == replica), None)


def group_of(domain: str, shard: int = 0) -> str:
    """The name of a domain's group."""
    return f"{domain}/{shard}"


def group_named(name: str) -> str:
    """The group that ``domain``, which has one shard, or ``domain/shard`` stands for."""
    return name if "/" in name else group_of(name)


def name_of(group: str, groups: Collection[str]) -> str:
    """A group in the words of operators: its domain, and, where that has several shards among these groups, the shard: ``shop/3``."""
    domain, _, shard = group.partition("/")
    return domain if shard == "0" and group_of(domain, 1) not in groups else group


def nonce_with(shared: bytes, workers: int) -> bytes:
    """The nonce of a cluster whose file has the nonce ``shared``, when its nodes have so many workers."""
    return shared if workers == 1 else sha256(shared + b"workers" + workers.to_bytes(2, "big")).digest()[:16]
