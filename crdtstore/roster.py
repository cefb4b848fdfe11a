"""The roster of a node: who its peers are, who asks to be let in, and how all groups come to have the same members.

The question: who changes the members of a thousand groups? Operators change those of ``_sys``; every other group follows by itself.
Whoever is a member of ``_sys``, and of a group neither a member nor removed, is joined there; whoever was removed from ``_sys`` is evicted
there. Any installed member may propose it, those that stand behind in the order of members somewhat later, so a sponsor or operator who
dies in the middle leaves nothing half done. What is decided once more is no harm: a change that does not hold any more is dropped.

Where nodes consist of several workers, a group follows only those members of ``_sys`` that hold it (``Cluster.holders``).

A node that holds nothing asks the nodes it reaches, again and again, until a configuration names it.
"""

from __future__ import annotations

import re
from random import Random
from typing import TYPE_CHECKING

from crdtstore.admin.holding import Holding
from crdtstore.causal import NAME, ReplicaId, node_of, worker_of
from crdtstore.configuration import SYSTEM_GROUP, Configuration, ConfigurationId, Member
from crdtstore.engine.engine import Engine
from crdtstore.engine.events import Left, Opened
from crdtstore.engine.membership.changes import Change, Evict, Join
from crdtstore.engine.membership.notes import Adopted, decode_kept, decode_note
from crdtstore.errors import ProtocolError, UsageError
from crdtstore.messages import Ask, Configure, Message
from crdtstore.shards import MAX_SHARDS, Division

if TYPE_CHECKING:
    from crdtstore.host import Host, HostOutput

__all__ = ["Roster"]

_ASK_MS = 500
_LOOK_MS = 250
_REST_MS = 1_000
_TURN_MS = 500
"""What any member may propose each leaves to those before it for so long."""
_MAX_ASKING = 64
"""So many that ask to be let in wait at one time."""
_MAX_GROUPS = 4_096
_SHARD = re.compile("0|[1-9][0-9]{0,3}")


class Roster:
    """Who is who for one node. Mutable; part of the host."""

    def __init__(self, host: Host, random: Random) -> None:
        self._host = host
        self._random = random
        self._holding = Holding(host)
        self._book: dict[ReplicaId, Member] = {member.replica: member for member in host.cluster.members}
        self._leaving: dict[ReplicaId, ReplicaId] = {}
        """Ids that were fenced, and the new ids of those who had them."""
        self._due_since_ms: dict[tuple[str, object], int] = {}
        self.leaves: ReplicaId | None = None
        """The id that this node had before it was fenced; whoever lets it in evicts that one."""
        self.wake_ms = 0

    # --- who is who

    def member(self, replica: str) -> Member | None:
        """Where a replica is, or was before it was removed; None: it was never heard of."""
        return self._book.get(ReplicaId(replica))

    def region(self, replica: str) -> str:
        """The region of a replica; its id when it was never heard of."""
        member = self._book.get(ReplicaId(replica))
        return replica if member is None else member.region

    @property
    def members(self) -> list[Member]:
        """The members of ``_sys`` as this node knows them."""
        return list(self._system.configuration.members)

    @property
    def peers(self) -> list[Member]:
        """All nodes that hold something this node holds too."""
        found = {
            member.replica: member for engine in self._host.groups.values() for member in engine.configuration.members
        }
        found.pop(self._host.me.replica, None)
        return list(found.values())

    @property
    def is_member(self) -> bool:
        """Whether this node is a member of ``_sys`` and holds it."""
        return self._system.membership.is_member and self._system.membership.is_installed

    @property
    def is_removed(self) -> bool:
        """Whether this node was removed: it needs a new id to come back."""
        return self._system.membership.is_removed

    @property
    def _system(self) -> Engine:
        return self._host.groups[SYSTEM_GROUP]

    def splits(self, engine: Engine) -> dict[ReplicaId, ConfigurationId]:
        """Who goes by another line of a group, and matters: whoever was removed from ``_sys`` may hold what it declared alone."""
        parted, removal = self._system.membership.splits, self._system.configuration.removal
        splits = engine.membership.splits.items()
        return {replica: there for replica, there in splits if replica in parted or removal(replica) is None}

    def note(self, configuration: Configuration) -> None:
        """A configuration is in force."""
        for removed in configuration.removed:
            self._book[removed.replica] = removed.member
        for member in configuration.members:
            self._book[member.replica] = member
        self.look_again()

    def look_again(self) -> None:
        """Something changed."""
        self.wake_ms = 0

    # --- new groups

    def beginning(self, group: str) -> Configuration | None:
        """In which configuration a group begins that is declared now; None: in that of the founders. If it is open already, though whoever
        declared it was removed with the declaration, it is the one that goes on."""
        host, system = self._host, self._system.configuration
        founders, is_open = host.cluster.configuration(group), group in host.groups
        beginning = host.groups[group].configuration if is_open else host.cluster.beginning(group, system)
        return beginning if beginning != founders and (is_open or system.number) else None

    def check_new(self, division: Division) -> None:
        """Can a domain that is declared nowhere get these groups?

        Raises:  UsageError ``too-large`` when there are too many; ``type-mismatch`` when more are open, of a declaration that went with
                 whoever made it: their keys would be looked for where they are not. Nothing changed.
        """
        host, domain = self._host, division.domain
        there = sum(len(host.declarations.groups(each)) for each in host.declarations.domains())
        if there + division.shards > _MAX_GROUPS:
            raise UsageError(
                f"all domains of a cluster have at most {_MAX_GROUPS} shards; there are {there}, and {domain} asks for "
                f"{division.shards} more. Nothing changed.",
                code="too-large",
            )
        left = [int(shard) for name, _, shard in (group.partition("/") for group in host.groups) if name == domain]
        if left and max(left) >= division.shards:
            raise UsageError(
                f"the domain {domain} was declared with more than {max(left)} shards, by a member that was removed before others knew; its "
                f"data is still here. Declare it with that number, not with {division.shards}. Nothing changed.",
                code="type-mismatch",
            )

    # --- what peers say

    def hear(self, peer: ReplicaId, message: Message, now_ms: int, out: HostOutput) -> None:
        """Something came that is about no group which is open here.

        Raises:  ProtocolError when it cannot be; nothing changed.
        """
        if isinstance(message, Ask):
            self._on_ask(peer, message, now_ms, out)
        elif isinstance(message, Configure):
            self._on_unknown_group(peer, message, now_ms, out)

    def _on_ask(self, peer: ReplicaId, message: Ask, now_ms: int, out: HostOutput) -> None:
        """A node wants to be let in.

        Raises:  ProtocolError when it asks for another, or for nobody; nothing changed.
        """
        host, system, member = self._host, self._system, message.member
        member.check()
        if member.replica != peer:
            raise ProtocolError(f"it asks that {member.replica} be let in, which it is not")
        left = message.leaves
        if left is not None and node_of(ReplicaId(left)) != node_of(peer):
            left = None  # a copy that was started under another name: whose id it was will say so itself
        if not system.takes_part:
            return
        configuration = system.configuration
        if configuration.member(peer) is not None or configuration.removal(peer) is not None:
            host.tell(peer, Configure(system.group, configuration), out)
        elif len(system.membership.orders) < _MAX_ASKING and system.membership.decision.has_room_for(Join(member)):
            self._order(system, Join(member), now_ms, out)  # else it asks again
        if left is not None and configuration.member(left) is not None:
            self._leaving[ReplicaId(left)] = peer
            self.look_again()

    def _on_unknown_group(self, peer: ReplicaId, message: Configure, now_ms: int, out: HostOutput) -> None:
        """Something was said of a group that is not open here: it may name this node before the group's declaration has come. Only a member
        may say so: what was declared by somebody who is none any more, and came to nobody else, is declared nowhere.

        Raises:  ProtocolError for what is no group or no configuration; nothing changed.
        """
        host = self._host
        message.value.check()
        domain, _, shard = message.group.rpartition("/")
        if not NAME.fullmatch(domain) or not _SHARD.fullmatch(shard) or int(shard) >= MAX_SHARDS:
            raise ProtocolError(f"no group is named {message.group[:80]!r}")
        if message.value.member(host.me.replica) is None or self._system.configuration.member(peer) is None:
            return
        if len(host.groups) >= _MAX_GROUPS:
            raise ProtocolError(f"more than {_MAX_GROUPS} groups")
        host.open(message.group, message.value)
        host.step(message.group, Opened(), now_ms, out)

    def recover(self, group: str, data: bytes) -> None:
        """Take in a note of a group from the log.

        Raises:  DecodeError, ProtocolError.
        """
        host = self._host
        if group not in host.groups:
            note = decode_note(data)
            if not isinstance(note, Adopted):
                if host.needed:  # what opened it is cut off: it was not installed, or the checkpoint would name it
                    return
                raise ProtocolError(f"the log holds a note of the group {group}, which is not opened before it")
            host.open(group, note.configuration)
        host.groups[group].membership.recover(data)
        self.note(host.groups[group].configuration)

    def restore(self, group: str, kept: bytes) -> None:
        """Take in what a checkpoint holds of a group that is not installed.

        Raises:  DecodeError.
        """
        host = self._host
        if group not in host.groups:
            host.open(group, decode_kept(kept).configuration)
        host.groups[group].membership.restore(kept)
        self.note(host.groups[group].configuration)

    # --- time

    def on_tick(self, now_ms: int, out: HostOutput) -> None:
        """Ask to be let in, or let groups follow ``_sys``."""
        if now_ms < self.wake_ms:
            return
        self.wake_ms = now_ms + _REST_MS
        system = self._system
        if not system.takes_part:
            if not system.membership.is_member and not self.is_removed:
                self._ask(now_ms, out)
            return
        if self._host.is_leaving and not system.membership.is_leaving:
            self._leave(now_ms, out)
        wanted = [*self._who_left(), *self._what_follows(), *self._who_holds_back(now_ms)]
        before = self._due_since_ms
        self._due_since_ms = {
            (engine.group, change): before.get((engine.group, change), now_ms) for engine, change in wanted
        }
        for engine, change in wanted:
            if now_ms - self._due_since_ms[engine.group, change] >= engine.position * _TURN_MS:
                self._order(engine, change, now_ms, out)
        if wanted:
            self.wake_ms = now_ms + _LOOK_MS

    def _ask(self, now_ms: int, out: HostOutput) -> None:
        host = self._host
        connected = host.connected
        if connected:
            host.tell(self._random.choice(connected), Ask(host.me, self.leaves), out)
        self.wake_ms = now_ms + _ASK_MS

    def _leave(self, now_ms: int, out: HostOutput) -> None:
        """Leave what is left: ``_sys`` when no other group counts on this node any more."""
        others = [engine for group, engine in self._host.groups.items() if group != SYSTEM_GROUP]
        for engine in others:
            if not engine.membership.is_leaving:  # it was declared meanwhile
                self._host.step(engine.group, Left(), now_ms, out)
        if all(engine.membership.is_removed for engine in others):
            self._host.step(SYSTEM_GROUP, Left(), now_ms, out)
        self.wake_ms = now_ms + _LOOK_MS

    def _who_left(self) -> list[tuple[Engine, Change]]:
        """Fenced ids whose nodes are back under new ones. Who came back sees to it itself too: who let it in may have died."""
        system, found = self._system, list[tuple[Engine, Change]]()
        configuration = system.configuration
        if self.leaves is not None and configuration.member(self.leaves) is not None:
            self._leaving[self.leaves] = self._host.me.replica
        for left, new in list(self._leaving.items()):
            if configuration.member(left) is None or left == self._host.me.replica:
                if configuration.removal(left) is not None:
                    del self._leaving[left]
            elif configuration.member(new) is not None and self._has_another(configuration, left, new):
                found.append((system, Evict((left,), configuration.id)))
        return found

    def _has_another(self, configuration: Configuration, left: ReplicaId, new: ReplicaId) -> bool:
        """Whether the shards of the worker that left are held by a third one, too: else nobody could let the new one in there, ever."""
        worker = worker_of(node_of(left))
        return worker is None or any(
            member.worker == worker and member.replica not in {left, new} for member in configuration.members
        )

    def _who_holds_back(self, now_ms: int) -> list[tuple[Engine, Change]]:
        """For whom more of the log is kept than the operator allows."""
        evict = self._holding.evicts(self._system, now_ms)
        return [] if evict is None else [(self._system, evict)]

    def _what_follows(self) -> list[tuple[Engine, Change]]:
        """What has to change in groups so that they have the members of ``_sys``; one change each at a time."""
        configuration, found = self._system.configuration, list[tuple[Engine, Change]]()
        removed = {each.replica for each in configuration.removed}
        for group, engine in self._host.groups.items():
            if group == SYSTEM_GROUP or not engine.takes_part:
                continue
            there = engine.configuration
            gone = tuple(replica for replica in there.ids if replica in removed)
            missing = [
                member
                for member in self._host.cluster.holders(group, configuration.members)
                if there.member(member.replica) is None and there.removal(member.replica) is None
            ]
            if gone:
                found.append((engine, Evict(gone, there.id)))
            elif missing and engine.membership.decision.has_room_for(join := Join(missing[0])):
                found.append((engine, join))
        return found

    def _order(self, engine: Engine, change: Change, now_ms: int, out: HostOutput) -> None:
        if change not in engine.membership.orders:
            self._host.order(engine.group, change, 0, now_ms, out)
            self.wake_ms = now_ms + _LOOK_MS
