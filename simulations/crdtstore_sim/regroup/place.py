"""A machine and its lives: each has an id and a disk of its own, and is the production service driven as in every run.

The question: when does a machine go on under its id, and when does it take a new one? It goes on after a crash, and when its disk was put
back without its noticing; then the others must notice. It begins a new life when its disk is gone or plainly a copy, when it was fenced,
and when the operator tells it to after it was removed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from crdtstore import orphans
from crdtstore.causal import ReplicaId, make_replica_id
from crdtstore.configuration import SYSTEM_GROUP, Configuration, Member
from crdtstore.engine.membership.changes import Evict
from crdtstore.errors import DecodeError, ProtocolError, UsageError
from crdtstore.host import Host, HostOutput
from crdtstore.service import PeerChanged, Received, Request
from crdtstore_sim.clocks import NodeClock
from crdtstore_sim.node import Node
from crdtstore_sim.regroup.copies import Copy, put_back
from crdtstore_sim.regroup.links import Parcel

if TYPE_CHECKING:
    from crdtstore_sim.regroup.world import World

__all__ = ["Life", "Place"]

_OPERATOR = -1
"""The ticket of an operator's questions."""
_RENEW_US = 150_000
_MOST_COPIES = 8


class Life(Node):
    """One id on one disk. ``peers`` is who is connected, by id, and at which place."""

    def __init__(self, world: World, place: Place, index: int, member: Member, leaves: ReplicaId | None) -> None:
        random = Random(f"{world.seed}/life {index}")  # noqa: S311
        scenario = world.scenario
        super().__init__(
            index,
            world.cluster,
            world.timeline,
            world.trace,
            random,
            place.clock,
            scenario.disk,
            scenario.engine,
            world.watch,
            world.network,
            member.replica,
        )
        self.workload = world.users
        self.place = place
        self.member = member
        self.leaves = leaves
        """The id that its machine had before, if it is still somebody's member."""
        self.is_over = False
        """Whether its machine goes on under another id."""
        self._world = world
        self._peers: dict[ReplicaId, int] = {}
        self._names: dict[int, ReplicaId] = {}

    @property
    def is_founder(self) -> bool:
        return self._cluster.member(self.replica) is not None

    @property
    def host(self) -> Host:
        return self.service.host

    @property
    def is_fenced(self) -> bool:
        return self.service.host.fenced_by is not None

    def _host(self) -> Host:
        seeded = Random(self._random.random())  # noqa: S311
        host = Host(self._cluster, self.member, self._options, seeded, self.disk.state, self.disk.read_log)
        host.roster.leaves = self.leaves
        return host

    def start(self) -> None:
        self._peers.clear()
        self._names.clear()
        super().start()
        self.service.administration.orphaned.left = self.place

    def crash(self, *, is_orderly: bool = False) -> None:
        super().crash(is_orderly=is_orderly)
        self._peers.clear()

    # --- peers

    def hello_to(self, peer: Life) -> bytes:
        data = self.service.host.hello(peer.replica, self.now_ms)
        self._trace.note(self._timeline.now_us, 2, self.index, data)
        return data

    def hear_hello(self, data: bytes, peer: Life) -> bool:
        """Whether who speaks is heard."""
        self._world.note_heard(peer.index, self.index)
        try:
            self.service.host.check_hello(data)
        except (ProtocolError, DecodeError) as error:
            self._world.count(f"hello refused: {_kind(error.detail)}")
            return False
        return True

    def meet(self, peer: Life, is_connected: bool) -> None:
        """A connection with a place came or went."""
        place = peer.place.index
        if is_connected:
            self._names[place] = peer.replica
            self._peers[peer.replica] = place
            self.step([PeerChanged(peer.replica, True)])
        else:
            replica = self._names.pop(place, None)
            if replica is not None and self._peers.get(replica) == place:
                del self._peers[replica]
                self.step([PeerChanged(replica, False)])

    def on_parcel(self, source: int, parcel: Parcel) -> None:
        """A message arrives; one of an earlier life of either side went with its connection."""
        name = self._names.get(source)
        if not self.is_alive or parcel.target != self.index or name is None or self._peers.get(name) != source:
            return
        if parcel.turns != (self._world.places[source].turns, self.place.turns):
            return
        self._trace.note(self._timeline.now_us, 0, self.index, parcel.data)
        self._world.note_heard(parcel.source, self.index)
        self.step([Received(name, parcel.data)])

    def _send(self, sends: list[tuple[ReplicaId, bytes]]) -> None:
        world, here = self._world, self.place.index
        for replica, data in sends:
            place = self._peers.get(replica)
            target = world.places[place].life if place is not None else None
            if place is None or target is None:
                continue
            self._observer.on_send(self.index, data)
            parcel = Parcel(data, self.index, target.index, (self.place.turns, target.place.turns))
            world.network.send(here, place, parcel)
            if world.trouble.strikes(self.place, world.places[place], data):
                return

    # --- orders

    def evict(self, replicas: Sequence[str]) -> None:
        """Throw members out, as things stand here just now."""
        configuration = self._world.system(self).configuration
        self._world.watch.configurations.on_ordered(replicas, configuration.id)
        change = Evict(tuple(ReplicaId(replica) for replica in replicas), configuration.id)
        self._order(lambda now_ms, out: self.host.order(SYSTEM_GROUP, change, 0, now_ms, out))

    def leave(self) -> None:
        """Be a member no more."""
        self._order(self.host.leave)

    def force(self, group: str, configuration: Configuration) -> None:
        """Go by a configuration that nobody voted for."""
        self._order(lambda now_ms, out: self.host.force(group, configuration, now_ms, out))

    def _order(self, do: Callable[[int, HostOutput], None]) -> None:
        out, now_us, now_ms = HostOutput(), self._timeline.now_us, self.now_ms
        try:
            do(now_ms, out)
        except (UsageError, ProtocolError) as error:
            self._world.count(f"order refused: {error.code}")
        self.host.finish(now_ms, out)
        self._carry_out(out, now_us, has_between=False)

    def asked(self, do: str, fields: dict[str, Any]) -> Any:
        """What an operator is answered who asks for something that is known at once."""
        now_us = self._timeline.now_us
        out = self.service.step([Request(_OPERATOR, do, fields)], self.now_ms)
        answers = [answer for ticket, answer in out.replies if ticket == _OPERATOR]
        out.replies = [reply for reply in out.replies if reply[0] != _OPERATOR]
        self._carry_out(out, now_us, has_between=False)
        return answers[0] if answers else None

    def step(self, events: list[Any]) -> None:
        super().step(events)
        if self.is_alive and self._held is None:
            self._world.on_stepped(self)


def _kind(detail: str) -> str:
    words = [word for word in detail.split() if not any(sign.isdigit() for sign in word)]
    return " ".join(words[:6])


class Place:
    """A machine. Mutable; as the connections see it, it is one party all the time."""

    def __init__(self, world: World, index: int, name: str, clock: NodeClock) -> None:
        self.index = index
        self.name = name
        self.clock = clock
        self.life: Life | None = None
        self.is_blocked = False
        """Cut off until the end."""
        self.is_given_up = False
        """Nobody starts it any more."""
        self.turns = 0
        """How often its disk was put back."""
        self.left: list[Life] = []
        """Its earlier lives whose logs are still there, the latest first."""
        self.has_lost_disk = False
        """Whether the log of the present life is not kept when it ends."""
        self.copies: list[Copy] = []
        self._world = world
        self._waits = False

    @property
    def is_alive(self) -> bool:
        return self.life is not None and self.life.is_alive

    # --- as a party

    def hello(self, peer: int) -> bytes:
        other = self._world.places[peer].life
        assert self.life is not None
        assert other is not None
        return self.life.hello_to(other)

    def check_hello_of(self, data: bytes, peer: int) -> bool:
        other = self._world.places[peer].life
        assert self.life is not None
        assert other is not None
        heard = self.life.hear_hello(data, other)
        self._world.on_stepped(self.life)
        return heard

    def check_hello(self, data: bytes) -> int | None:
        raise NotImplementedError

    def peer_changed(self, peer: int, is_connected: bool) -> None:
        other = self._world.places[peer].life
        if self.life is not None and other is not None:
            self.life.meet(other, is_connected)

    # --- life

    def begin(self, leaves: ReplicaId | None = None, founder: Member | None = None) -> bool:
        """Take a new id and an empty disk; False: there are no ids left."""
        world = self._world
        index = world.next_life()
        if index is None:
            self.is_given_up = True
            return False
        member = founder or Member(
            make_replica_id(f"{self.name}-1", world.identities.getrandbits(64)), self.name, f"{self.name}:1"
        )
        if founder is None:
            world.watch.begin(index, member.replica, self.name)
        self._live(Life(world, self, index, member, leaves))
        return True

    def begin_copy(self, of: Life, copy: Copy) -> bool:
        """Start what was copied from another machine, under its id."""
        index = self._world.next_life()
        if index is None:
            return False
        self._world.watch.begin_copy(index, of.index)
        self._world.copied.add(of.index)
        life = Life(self._world, self, index, of.member, None)
        put_back(copy, life.disk)
        self._live(life)
        return True

    def _live(self, life: Life) -> None:
        if self.life is not None:
            self.life.is_over = True
            if not self.has_lost_disk:
                self.left.insert(0, self.life)
        self.has_lost_disk = False
        self.life = life
        self.copies.clear()
        self._world.lives[life.index] = life
        self._start()

    def _start(self) -> None:
        assert self.life is not None
        self.life.start()
        self._world.links.on_restart(self.index)
        self._world.on_stepped(self.life)

    def crash(self, *, is_orderly: bool = False) -> None:
        if self.is_alive:
            assert self.life is not None
            self.life.crash(is_orderly=is_orderly)
            self._world.links.on_crash(self.index)

    def restart(self) -> None:
        """Go on under the same id."""
        if not self.is_alive and self.life is not None and not self.is_given_up and not self.life.is_over:
            self._start()

    def go_back(self, copy: Copy) -> None:
        """The disk is as it was earlier, and nobody here knows. Everybody whom it reaches is heard before anything else."""
        assert self.life is not None
        self.crash()
        self.turns += 1
        self.copies = [kept for kept in self.copies if kept.time_us <= copy.time_us]  # the others are of what never was
        put_back(copy, self.life.disk)
        self._world.watch.put_back(self.life.index)
        self._start()
        self._world.links.connect_now(self.index)

    def renew(self, leaves: ReplicaId | None) -> None:
        """Begin a new life, a little later."""
        if self._waits or self.is_given_up:
            return
        self._waits = True
        self._world.timeline.after(_RENEW_US, self._on_renew, leaves)

    def _on_renew(self, leaves: ReplicaId | None) -> None:
        self._waits = False
        self.crash(is_orderly=True)
        self.begin(leaves)

    # --- what earlier lives left

    def lives(self) -> list[orphans.Life]:
        return [orphans.Life(life.replica, "2023-11-14T22:13:20Z", "it began anew") for life in self.left]

    def _entries(self, replica: str) -> list[Any]:
        logs = [life.disk.log for life in self.left if life.replica == replica]
        return [entry for log in logs[:1] for _, entries in log.replay(log.first_position) for entry in entries]

    def made(self, replica: ReplicaId) -> dict[str, int]:
        last: dict[str, int] = {}
        orphans.last_of(self._entries(replica), replica, last)
        return last

    def commits(self, replica: ReplicaId, group: str, after: int, most: int) -> list[bytes]:
        return orphans.orphans_of(self._entries(replica), replica, group, after)[:most]

    def keep(self, copy: Copy) -> None:
        """Somebody copies the disk."""
        self.copies.append(copy)
        del self.copies[: max(0, len(self.copies) - _MOST_COPIES)]
