"""Whom a node dials, where, and how often: as many dialers as there are peers to be dialed, while the peers change.

The question: who dials whom? Of two members the one with the smaller replica id, so that two that come up together do not meet twice. A
node that is no member yet dials the seeds that it was given: nobody knows of it. Those who were removed are dialed too, slowly, until they
have heard of it: they go on as if nothing had been, and perhaps can be reached only so. A node that was removed dials slowly whom it
knows, since how many of its commits count is yet to be said. And who is not where the members think it is dials all of them, as does who
has been alone for a while: perhaps nobody can reach it.

Where a peer is: where the configuration of this node says (``peers``), else where it said itself in its last hello, where the cluster
file says, where the configuration of the group says; one after the other.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import NamedTuple

from crdtstore.causal import ReplicaId
from crdtstore.configuration import SYSTEM_GROUP, Member
from crdtstore.errors import UsageError
from crdtstore.host import Host
from crdtstore_node.config import Address, NodeConfig, parse_address

__all__ = ["Dialers", "Seeds", "Target"]

_log = logging.getLogger(__name__)
_LOOK_S = 0.1
"""So often it is looked whether the peers have changed."""
_ALONE_S = 5.0
"""Who has no connection for so long dials also those who should dial it."""
_SLOW = 10
"""Who need not hurry pauses so much longer."""
_MAX_REMOVED = 16
"""So many of those who were removed are dialed, the last ones."""


class Target(NamedTuple):
    """Somebody to be dialed."""

    name: str
    """For the log: its node, or the address that was given."""
    replica: ReplicaId | None
    """Who has to answer; None: whoever does."""
    addresses: tuple[Address, ...]
    is_slow: bool = False


class Seeds(NamedTuple):
    """Where members were in the life that a node had before."""

    addresses: tuple[Address, ...] = ()
    are_all: bool = False
    """Whether nobody else is to be asked: that life stood in a line of configurations that parted, and is to come over to the other."""


class Dialers:
    """The dialers of one node. Mutable.

    ``dial(target, address)`` makes one connection and carries it to its end; it returns who was there, None when nobody was. ``links``
    holds who is connected now, whoever has dialed.
    """

    def __init__(
        self,
        host: Host,
        config: NodeConfig,
        links: Collection[ReplicaId],
        dial: Callable[[Target, Address], Awaitable[ReplicaId | None]],
        seeds: Seeds | None = None,
    ) -> None:
        self._host = host
        self._config = config
        self._links = links
        self._dial = dial
        self._seeds = seeds or Seeds()
        self._said: dict[ReplicaId, str] = {}
        """Where peers said they are, in this run."""
        self._elsewhere: set[tuple[ReplicaId, Address]] = set()
        """Where somebody else was found than the one who was meant: two lives of a node have one name."""
        self._aware: set[ReplicaId] = set()
        """Those who were removed and have heard of it."""
        self._alone_since: float | None = None
        self._wanted: dict[str, Target] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._looking: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many are dialed."""
        return len(self._wanted)

    # --- life

    def start(self) -> None:
        self._renew()
        self._looking = asyncio.ensure_future(self._look())

    async def stop(self) -> None:
        tasks = [*self._tasks.values()]
        if self._looking is not None:
            tasks.append(self._looking)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def learn(self, peer: Member) -> None:
        """A peer has said where it is."""
        if peer.gossip and self._host.roster.member(peer.replica) is not None:
            self._said[peer.replica] = peer.gossip

    def note_elsewhere(self, replica: ReplicaId, address: Address) -> None:
        """Somebody else is at this address."""
        self._elsewhere.add((replica, address))

    # --- who, and where

    def targets(self) -> dict[str, Target]:
        """Whom to dial now, by what they are known by."""
        host, roster = self._host, self._host.roster
        me, membership = host.me, host.groups[SYSTEM_GROUP].membership
        if roster.is_removed:
            return {member.replica: self._of(member, is_slow=True) for member in roster.members}
        if not membership.is_member:
            return self.seeds()
        known = roster.member(me.replica)
        is_moved = known is not None and bool(me.gossip) and known.gossip != me.gossip
        found = {member.replica: self._of(member) for member in roster.peers if is_moved or me.replica < member.replica}
        if self._is_alone:
            for member in roster.peers:
                found.setdefault(member.replica, self._of(member, is_slow=True))
        for member in self._unaware():
            if me.replica < member.replica and member.replica not in found:
                found[member.replica] = self._of(member, is_slow=True)
        return {str(replica): target for replica, target in found.items() if target.addresses}

    @property
    def _is_alone(self) -> bool:
        since = self._alone_since
        return since is not None and time.monotonic() - since >= _ALONE_S

    def known(self) -> dict[str, Target]:
        """All who hold something that this node holds, whoever has to dial."""
        found = {str(member.replica): self._of(member) for member in self._host.roster.peers}
        return {replica: target for replica, target in found.items() if target.addresses}

    def seeds(self) -> dict[str, Target]:
        """Whom to ask to be let in."""
        own, seeds = self._host.me, self._seeds
        addresses = seeds.addresses if seeds.are_all else self._config.join_addresses or seeds.addresses
        found = [Target(str(each), None, (each,)) for each in addresses]
        if not self._config.join and not seeds.are_all:
            founders = [member for member in self._host.cluster.members if member.node != own.node]
            found += [Target(each.node, None, self._addresses(each)) for each in founders]
        return {f"seed {each.name}": each for each in found if each.addresses and own.gossip != str(each.addresses[0])}

    def _unaware(self) -> list[Member]:
        """Those who were removed and perhaps have not heard of it; not those whose node is back under another id."""
        system = self._host.groups[SYSTEM_GROUP]
        configuration, heard = system.configuration, system.membership.heard
        nodes = {member.node for member in configuration.members}
        for removed in configuration.removed:
            said = heard.get(removed.replica)
            if said is not None and said[0] == configuration.id:
                self._aware.add(removed.replica)
        return [
            removed.member
            for removed in configuration.removed[-_MAX_REMOVED:]
            if removed.replica not in self._aware and removed.member.node not in nodes
        ]

    def _of(self, member: Member, *, is_slow: bool = False) -> Target:
        return Target(member.node, member.replica, self._addresses(member), is_slow)

    def _addresses(self, member: Member) -> tuple[Address, ...]:
        founder = self._host.cluster.member(member.replica)
        said = [self._said.get(member.replica), founder and founder.gossip, member.gossip]
        given = self._config.peers.get(member.node)
        if given and (member.replica, parse_address(given, "peers")) not in self._elsewhere:
            said = [given]
        found: list[Address] = []
        for text in said:
            with suppress(UsageError):  # a peer may say what it likes
                if text and (address := parse_address(text, "gossip")) not in found:
                    found.append(address)
        return tuple(found)

    def next_seeds(self) -> Seeds:
        """Whom this node is to ask when it begins anew."""
        roster, groups = self._host.roster, self._host.groups.values()
        parted = {replica for engine in groups for replica in engine.membership.splits}
        others = [member for replica in sorted(parted) if (member := roster.member(replica)) is not None]
        members = others or roster.peers
        return Seeds(tuple(address for member in members for address in self._addresses(member)), bool(others))

    # --- dialing

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                self._renew()
            except Exception:
                _log.exception("whom to dial could not be found out")

    def _renew(self) -> None:
        if self._links:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = time.monotonic()
        self._wanted = self.targets()
        for key in self._wanted:
            if key not in self._tasks:
                self._tasks[key] = asyncio.ensure_future(self._keep_dialing(key))
        for key in [key for key, task in self._tasks.items() if task.done()]:
            del self._tasks[key]

    async def _keep_dialing(self, key: str) -> None:
        """Dial one for as long as it is wanted; a connection that it has is carried to its end all the same."""
        options = self._config.links
        least, most = options.retry_least_ms / 1000, options.retry_most_ms / 1000
        pause, loop, turn = least, asyncio.get_running_loop(), 0
        behind: ReplicaId | None = None
        while (target := self._wanted.get(key)) is not None:
            if (target.replica or behind) in self._links:  # it was quicker
                await asyncio.sleep(least)
                continue
            began = loop.time()
            try:
                behind = await self._dial(target, target.addresses[turn % len(target.addresses)])
            except Exception:  # whatever a peer does, this goes on dialing it
                _log.exception("a connection to a peer failed", extra={"fields": {"peer": target.name}})
                behind = None
            has_lasted = (
                behind is not None and loop.time() - began >= most
            )  # one that breaks at once is no reason to hurry
            turn += behind is None
            pause = least if has_lasted else min(pause * 2, most)
            slower = _SLOW if target.is_slow else 1
            await asyncio.sleep(pause * slower * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
