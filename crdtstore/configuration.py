"""Who holds a group: configurations, and the cluster that founds the first one.

A group's membership is a line of configurations. Each has a number and an id (number, newest nonce); every message between replicas
carries the id, and what was said under one id counts under no other. Configuration 0 consists of the founding members with full ids
and one nonce, from the cluster file, so that all founders agree without having met.

The order of ``members`` is the order of vectors on the wire and of replica indexes in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import msgspec

from crdtstore.causal import NAME, ReplicaId, node_of
from crdtstore.errors import UsageError

__all__ = ["SYSTEM_GROUP", "Cluster", "Configuration", "ConfigurationId", "Member", "group_of"]

SYSTEM_GROUP = "_sys/0"


class ConfigurationId(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Names a configuration: its number and the newest nonce of its line."""

    number: int
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Configuration:
    """The members of a group, in the order they joined."""

    id: ConfigurationId
    members: tuple[ReplicaId, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """A founding member: its replica id, its region, and where its gossip listener is (host:port)."""

    replica: ReplicaId
    region: str
    gossip: str = ""

    @property
    def node(self) -> str:
        return node_of(self.replica)


@dataclass(frozen=True, slots=True)
class Cluster:
    """What all nodes agree on before they first meet.

    Raises:  UsageError when names or ids are malformed or used twice, or the nonce is not 16 bytes.
    """

    name: str
    nonce: bytes
    members: tuple[Member, ...]

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

    def configuration(self, group: str) -> Configuration:
        """Configuration 0 of a group: all founders. Its nonce follows from the cluster's, so two regions that declare one domain
        while they cannot hear each other still mean the same group."""
        nonce = sha256(self.nonce + group.encode()).digest()[:16]
        return Configuration(ConfigurationId(0, nonce), tuple(member.replica for member in self.members))

    def member(self, replica: ReplicaId) -> Member | None:
        return next((member for member in self.members if member.replica == replica), None)


def group_of(domain: str, shard: int = 0) -> str:
    """The name of a domain's group."""
    return f"{domain}/{shard}"
