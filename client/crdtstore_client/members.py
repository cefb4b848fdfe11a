"""Members: what one node says about who belongs to the cluster, and what it keeps of ids that were given up.

The question: whose word is it? One node's, about a configuration that it knows by its number and a random word; two nodes
may know different ones. So every answer carries the name of who gave it, and an order names the configuration that its
giver looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from crdtstore.causal import machine_of
from crdtstore.errors import UsageError

__all__ = [
    "Installing",
    "Member",
    "MemberGroup",
    "Members",
    "OnlyThere",
    "Orphan",
    "OrphanChange",
    "Orphans",
    "OrphansOfDomain",
    "Quorum",
    "Removed",
    "ShardClash",
    "Split",
    "life_dot",
    "matching",
    "number_of",
    "short_replica",
]

MIN_PREFIX = 4
"""So much of the random part of a replica id may stand for it."""
SHORT_RANDOM = 8


class OnlyThere(msgspec.Struct, frozen=True, kw_only=True):
    """Commits of a member that no other member is known to have; None: it was not heard, nobody knows."""

    commits: int | None = None


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A member as the node that was asked sees it."""

    replica: str
    node: str
    region: str
    gossip: str = ""
    is_self: bool = False
    connected: bool = False
    heard_ms: float | None = None
    is_installed: bool | None = None
    is_leaving: bool = False
    only_there: OnlyThere = OnlyThere()


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """An id that was removed; ``final``: up to where its commits count, per domain, None until that is decided."""

    replica: str
    node: str
    region: str
    final: dict[str, int | None] = {}


class Quorum(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the node reaches as many members as a change needs."""

    needed: str = ""
    reachable: bool = True
    reached: list[str] = []


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """A replica whose configuration contradicts the node's own."""

    replica: str
    node: str
    configuration: str
    domain: str = "_sys"


class Installing(msgspec.Struct, frozen=True, kw_only=True):
    """A group whose state is on its way from another replica; so many parts have come."""

    of: str
    parts: int = 0


class MemberGroup(msgspec.Struct, frozen=True, kw_only=True):
    """One group: who is in it, which removed ids have no final yet, what is kept because of whom."""

    domain: str
    shard: int = 0
    configuration: str = ""
    members: list[str] = []
    waits_for: list[str] = []
    installing: Installing | None = None
    held_back_bytes: int = 0
    held_back_by: str | None = None

    @property
    def name(self) -> str:
        return f"{self.domain}/{self.shard}"

    def has_settled(self, replica: str) -> bool:
        """Whether it knows that this one was removed, and how many of its commits count."""
        return replica not in self.waits_for and replica not in self.members


class ShardClash(msgspec.Struct, frozen=True, kw_only=True):
    """A domain that was declared with several numbers of shards: the one that serves, and the others."""

    domain: str
    serves: int
    also: list[int] = []


class Members(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer of one node; ``state``: member, joining, leaving, removed, fenced, unproven."""

    node: str
    region: str
    replica: str
    cluster: str = ""
    state: str = "member"
    why: str | None = None
    configuration: str = ""
    members: list[Member] = []
    removed: list[Removed] = []
    quorum: Quorum = Quorum()
    split: list[Split] = []
    orders: list[str] = []
    shards: list[ShardClash] = []
    groups: list[MemberGroup] = []
    what_now: list[str] = []

    @classmethod
    def of(cls, body: dict[str, Any]) -> Members:
        """From a body of ``/admin/v1/members``; fields of newer nodes are ignored."""
        return msgspec.convert(body, cls)

    def unsettled(self) -> dict[str, list[str]]:
        """Ids that were removed, with the groups in which it is not settled how many of their commits count."""
        gone = [each.replica for each in self.removed]
        gone += [replica for group in self.groups for replica in group.waits_for]
        found = {each: [group.name for group in self.groups if not group.has_settled(each)] for each in gone}
        return {replica: groups for replica, groups in found.items() if groups}

    def names(self, replica: str) -> str:
        """What a replica is called: its node, where that names one id only, otherwise with the begin of its random part."""
        known: list[Member | Removed] = [*self.members, *self.removed]
        nodes = [each.node for each in known if each.replica == replica]
        same = {each.replica for each in known if nodes and each.node == nodes[0]}
        return nodes[0] if len(same) == 1 else short_replica(replica)

    def each_worker(self, names: Iterable[str]) -> list[str]:
        """The same names, with all workers of a node in the place of its own."""
        found = list[str]()
        for name in names:
            workers = [each.replica for each in self.members if machine_of(each.node) == name != each.node]
            found += workers or [name]
        return found

    def was_removed(self, name: str) -> str | None:
        """The replica id, if the name means none of the members but one that was removed; the latest of that name."""
        gone = [] if matching(name, self.members) else matching(name, self.removed)
        return gone[-1].replica if gone else None

    def find(self, name: str) -> Member:
        """The member that a node name, a replica id or the unambiguous begin of one means.

        Raises:  UsageError, nothing changed.
        """
        found: list[Member] = matching(name, self.members)
        if len(found) == 1:
            return found[0]
        if found:
            which = ", ".join(short_replica(each.replica) for each in found)
            raise UsageError(f"{name[:100]} may be any of {which}; say which. Nothing changed.", code="bad-request")
        if matching(name, self.removed):
            raise UsageError(
                f"{name[:100]} is no member of {self.configuration} any more: it was removed. Nothing changed.",
                code="bad-request",
            )
        known = ", ".join(each.node for each in self.members)
        raise UsageError(
            f"{name[:100]} is no member of {self.configuration}; the members are {known}. Nothing changed.",
            code="bad-request",
        )


class OrphansOfDomain(msgspec.Struct, frozen=True, kw_only=True):
    """How many commits an id that was given up had made in a domain, and how many of them are above its final."""

    final: int | None = None
    made: int = 0
    orphans: int = 0


class Orphans(msgspec.Struct, frozen=True, kw_only=True):
    """What one node keeps of one id that it gave up."""

    replica: str
    left: str | None = None
    why: str | None = None
    domains: dict[str, OrphansOfDomain] = {}

    @property
    def count(self) -> int:
        return sum(each.orphans for each in self.domains.values())


class OrphanChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a commit did to one key, in a sentence."""

    collection: str
    key: str
    type: str = ""
    what: str = ""


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """A commit that no other region has; ``applied``: the dot under which it was made anew. ``data`` is base64."""

    dot: str
    time: str = ""
    author: str | None = None
    reason: str | None = None
    changes: list[OrphanChange] = []
    applied: str | None = None
    data: str = ""


def number_of(configuration: str) -> int:
    """How many changes a configuration is away from the founding one."""
    number = configuration.partition(".")[0]
    return int(number) if number.isdigit() else -1


def short_replica(replica: str) -> str:
    """A replica id as tables show it: the node and the begin of the random part."""
    node, dot, rest = replica.rpartition(".")
    return f"{node}{dot}{rest[:SHORT_RANDOM]}"


def life_dot(dot: str) -> str:
    """A dot where several ids of one node are spoken of."""
    replica, colon, seq = dot.rpartition(":")
    return f"{short_replica(replica)}{colon}{seq}"


def matching(name: str, known: Iterable[Any]) -> list[Any]:
    """Those that a replica id, a node name or the begin of an id means."""
    everybody = list(known)
    rules: tuple[Callable[[Any], bool], ...] = (
        lambda each: each.replica == name,
        lambda each: each.node == name,
        lambda each: _is_begin(name, each.replica),
        lambda each: machine_of(each.node) == name,
    )
    return next((found for rule in rules if (found := [each for each in everybody if rule(each)])), [])


def _is_begin(name: str, replica: str) -> bool:
    node, _, random = replica.rpartition(".")
    part = name.removeprefix(f"{node}.")
    return len(part) >= MIN_PREFIX and random.startswith(part)
