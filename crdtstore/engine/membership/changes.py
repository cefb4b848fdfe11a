"""Changes: what may follow a configuration, and when a change that was wanted is not wanted any more.

The question: against which configuration is a change judged? A join stands for itself. An eviction holds only in the configuration in which
it was ordered: who ordered it looked at that one. A final holds only in the configuration in which all members' rows agreed on it.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct, structs

from crdtstore.causal import ReplicaId
from crdtstore.configuration import MAX_MEMBERS, MAX_REMOVED, Configuration, ConfigurationId, Member, Removed
from crdtstore.errors import ProtocolError

__all__ = ["Change", "Evict", "Final", "Join", "check_value", "forced", "is_done", "successor"]


class Join(Struct, frozen=True):
    """Somebody new, who holds nothing yet."""

    member: Member


class Evict(Struct, frozen=True):
    """Members that are to go, by a member that is not among them."""

    replicas: tuple[ReplicaId, ...]
    at: ConfigurationId
    """The configuration in which it was ordered."""


class Final(Struct, frozen=True):
    """So many commits of a removed replica count."""

    replica: ReplicaId
    seq: int
    at: ConfigurationId
    """The configuration in which all rows agreed."""


Change = Join | Evict | Final


def successor(before: Configuration, change: Change, proposer: ReplicaId) -> Configuration | None:
    """The configuration that follows by a change; None: the change does not hold here."""
    number = before.number + 1
    if isinstance(change, Join):
        member = change.member
        if before.member(member.replica) is not None or before.removal(member.replica) is not None:
            return None
        if len(before.members) >= MAX_MEMBERS or len(before.members) + len(before.removed) >= MAX_REMOVED:
            return None  # all members must be able to go some day
        return structs.replace(before, number=number, members=(*before.members, member))
    if change.at != before.id:
        return None
    if isinstance(change, Evict):
        gone = change.replicas
        if not gone or proposer in gone or any(before.member(replica) is None for replica in gone):
            return None
        return structs.replace(before, number=number, **_without(before, gone))
    removal = before.removal(change.replica)
    if removal is None or removal.final is not None:
        return None
    removed = tuple(structs.replace(each, final=change.seq) if each is removal else each for each in before.removed)
    return structs.replace(before, number=number, removed=removed)


def check_value(before: Configuration, value: Configuration) -> None:
    """Could a vote among the members of ``before`` be about this?

    Raises:  ProtocolError saying why not.
    """
    value.check()
    value.check_follows(before)
    if value.number != before.number + 1 or value.epochs != before.epochs:
        raise ProtocolError(f"{value.id} does not come next after {before.id}")


def is_done(configuration: Configuration, change: Change) -> bool:
    """Whether what a change is about is so already, whoever did it."""
    if isinstance(change, Join):
        return configuration.member(change.member.replica) is not None
    if isinstance(change, Evict):
        return all(configuration.removal(replica) is not None for replica in change.replicas)
    removal = configuration.removal(change.replica)
    return removal is not None and removal.final is not None


def forced(top: Configuration, survivors: Iterable[ReplicaId], nonce: bytes) -> Configuration:
    """What follows ``top`` without a vote: these members, under a new nonce; all others are removed."""
    kept = set(survivors)
    gone = [member.replica for member in top.members if member.replica not in kept]
    number = top.number + 1
    return structs.replace(top, number=number, epochs=(*top.epochs, (number, nonce)), **_without(top, gone))


def _without(before: Configuration, gone: Iterable[ReplicaId]) -> dict[str, tuple[Member, ...] | tuple[Removed, ...]]:
    leaving = set(gone)
    members = tuple(member for member in before.members if member.replica not in leaving)
    return {
        "members": members,
        "removed": (
            *before.removed,
            *(Removed(member) for member in before.members if member.replica in leaving),
        ),
    }
