"""Installs: how replicas that join come to have the state of their groups. One per node: it lends to others, and takes over itself.

The question: who may be installed, and how often? A member that holds nothing of its group, once. ``lending`` proves why the state that
it begins with keeps the laws, ``arrival`` how it becomes its own at one instant, ``landing`` what follows.

Source: DESIGN 4 (join and install).
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from crdtstore.causal import ReplicaId
from crdtstore.engine.engine import Engine
from crdtstore.errors import ProtocolError
from crdtstore.install.arrival import Arrival
from crdtstore.install.lending import Lending
from crdtstore.messages import Fetch, Part
from crdtstore.storage.protocol import StateStore

if TYPE_CHECKING:
    from crdtstore.host import Host, HostOutput
    from crdtstore.saving import Saving

__all__ = ["Installs"]

MOST_ARRIVALS = 4
_LOOK_MS = 250


class Installs:
    """Mutable; part of the host of a node that has a state store."""

    def __init__(self, host: Host, saving: Saving, store: StateStore, random: Random) -> None:
        self.host, self.saving, self.random = host, saving, random
        self.lending = Lending(host, store, random)
        self.arrivals: dict[str, Arrival] = {}
        self.installed = 0
        """How many groups were taken over in this life."""
        self.last_record = 0
        """The last record of the log that holds history of a group that is being installed."""
        self.wake_ms = 0
        self._look_ms = 0

    @property
    def has_room(self) -> bool:
        """Whether one more group may begin: of very many at a time none would get anywhere."""
        return sum([arrival.is_fetching for arrival in self.arrivals.values()]) < MOST_ARRIVALS

    # --- events

    def receive(self, engine: Engine, peer: ReplicaId, message: Fetch | Part, now_ms: int, out: HostOutput) -> None:
        """A member of the same configuration asks for parts, or sends one.

        Raises:  ProtocolError when it cannot be one.
        """
        if message.configuration != engine.configuration.id or engine.membership.is_silent or engine.is_fenced:
            return
        if engine.configuration.member(peer) is None:
            raise ProtocolError(f"{engine.group}: not a member")
        if isinstance(message, Fetch):
            self.lending.on_fetch(engine, peer, message, now_ms, out)
        elif (arrival := self.arrivals.get(engine.group)) is not None:
            arrival.on_part(peer, message, now_ms, out)
        self._plan()

    def on_tick(self, now_ms: int, out: HostOutput) -> None:
        """Time has passed."""
        if now_ms >= self._look_ms:
            self._look_ms = now_ms + _LOOK_MS
            for group, engine in self.host.groups.items():
                if not engine.is_installed and engine.membership.is_member and group not in self.arrivals:
                    self.arrivals[group] = Arrival(self, engine)
        for group, arrival in list(self.arrivals.items()):
            if arrival.is_idle and not self.host.groups[group].membership.is_member:
                del self.arrivals[group]
            else:
                arrival.on_tick(now_ms, out)
        if now_ms >= self.lending.wake_ms:
            self.lending.on_tick(now_ms, out)
        self._plan()

    def on_persisted(self, number: int, position: int, now_ms: int, out: HostOutput) -> None:
        """The log is durable up to a record."""
        if self.arrivals:
            for arrival in self.arrivals.values():
                arrival.on_persisted(number, position, now_ms, out)
            self._plan()

    def _plan(self) -> None:
        times = [arrival.wake_ms for arrival in self.arrivals.values()]
        self.wake_ms = min([self._look_ms, self.lending.wake_ms, *times])

    def landed(self, engine: Engine, now_ms: int, out: HostOutput) -> None:
        """A group is here: in the store, in the log and in memory."""
        del self.arrivals[engine.group]
        self.installed += 1
        self.host.installed(engine, now_ms, out)
