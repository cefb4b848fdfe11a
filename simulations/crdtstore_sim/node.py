"""A simulated node: the production service and host on a simulated clock, disk and network. It is the driver, and nothing else.

The question: what may a driver decide? When a step happens and which events it holds, never what they mean. Everything that enters is
bytes or a plain request; everything that leaves is carried out in the order of the output.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any, Protocol

from crdtstore.causal import ReplicaId
from crdtstore.configuration import Cluster
from crdtstore.engine.events import Persisted, Tick
from crdtstore.engine.options import Options
from crdtstore.errors import CrdtStoreError, DecodeError, ProtocolError
from crdtstore.host import Host, HostOutput
from crdtstore.saving import Saved
from crdtstore.service import Event, PeerChanged, Received, Request, Service
from crdtstore.storage.protocol import Entry
from crdtstore_sim import scenario
from crdtstore_sim.clocks import NodeClock
from crdtstore_sim.disk import SimulatedDisk
from crdtstore_sim.facts import Span
from crdtstore_sim.network import SimulatedNetwork
from crdtstore_sim.observer import Observer
from crdtstore_sim.timeline import Timeline, Trace

__all__ = ["STORED", "Node", "Users"]

_MESSAGE, _CLOSED, _OPENED, _TICK, _SYNCED, _REQUEST, _CRASH, _START, _SAVED = range(9)
_LONGEST_WAIT_US = 1_000_000
STORED = (
    "checkpoints",
    "failed checkpoints",
    "withdrawn checkpoints",
    "failed saves",
    "failed reads",
    "cuts of the log",
    "keys let go",
    "keys read back",
    "starts from a checkpoint",
    "with more in the log",
    "scrubs",
)
"""What happens to stores, as runs count it."""


class Users(Protocol):
    """Who asks."""

    def on_replies(self, node: Node, replies: list[tuple[int, dict[str, Any] | CrdtStoreError]]) -> None: ...
    def on_crash(self, node: int) -> None: ...


class Node:
    """One node and its machine. Mutable."""

    def __init__(
        self,
        index: int,
        cluster: Cluster,
        timeline: Timeline,
        trace: Trace,
        random: Random,
        clock: NodeClock,
        disk: scenario.Disk,
        options: Options,
        observer: Observer,
        network: SimulatedNetwork,
        replica: ReplicaId | None = None,
    ) -> None:
        """``replica``: its id, when it is no founder."""
        self.index = index
        self.replica = replica or cluster.members[index].replica
        self.clock = clock
        self.is_alive = False
        self.life = 0
        """How often it was started."""
        self._has_begun = False
        """Whether it has a service in this life."""
        self._counts: Counter[str] = Counter()
        """How often what happened to its store, in lives that are over."""
        self.service: Service
        self.workload: Users
        self._cluster = cluster
        self._timeline = timeline
        self._trace = trace
        self._random = random
        self._options = options
        self._observer = observer
        self._network = network
        self._peers = {member.replica: at for at, member in enumerate(cluster.members)}
        self.disk = SimulatedDisk(timeline, random, disk, self._on_synced, self._on_saved)
        self._wake_us = 0
        self._asked_ms: int | None = None
        """When the last step wanted a tick, by the node's own clock."""
        self._steps: list[tuple[int, int, int]] = []
        """When its clock was set, and what it showed before and after."""
        self._held: list[Event] | None = None
        """What has come while the process stands still."""

    # --- life

    def start(self) -> None:
        """Start from what the log holds."""
        self.life += 1
        self.is_alive, self._has_begun = True, False
        self._held = None
        self._observer.facts.told.pop(self.index, None)
        self._trace.note(self._timeline.now_us, _START, self.index)
        host = self._host()
        applied = host.recover(self.disk.log.replay(host.needed))
        if self.disk.state.commits:
            self._counts["starts from a checkpoint"] += 1
            self._counts["with more in the log"] += applied > 0
        self.service = Service(host)
        self._has_begun = True
        self._observer.on_recovered(self.index, host.groups)
        self._asked_ms = None
        self._wake_us = self._timeline.now_us + int(self._random.random() * 100_000)
        self._timeline.at(self._wake_us, self._on_tick, (self.life, self._wake_us))

    def _host(self) -> Host:
        seeded = Random(self._random.random())  # noqa: S311
        return Host(self._cluster, self.replica, self._options, seeded, self.disk.state, self.disk.read_log)

    def crash(self, *, is_orderly: bool = False) -> None:
        """The power goes, or somebody stops the process in order."""
        if not self.is_alive:
            return
        self.is_alive = False
        self._counts += self._lived()
        self._has_begun = False
        self._observer.on_down(self.index, self.service.host.groups)
        if is_orderly:
            last = self.service.host.close()
            self.disk.finish([last] if last is not None else [])
        self._trace.note(self._timeline.now_us, _CRASH, self.index)
        self.disk.crash()
        log = self.disk.log
        self._observer.on_crash(self.index, [entries for _, entries in log.replay(log.first_position)])
        self.workload.on_crash(self.index)

    def _lived(self) -> Counter[str]:
        """What happened to its store in this life."""
        saving = self.service.host.saving
        assert saving is not None
        lived = Counter(
            {
                "checkpoints": saving.checkpoints,
                "failed checkpoints": saving.failures,
                "withdrawn checkpoints": saving.withdrawals,
                "scrubs": saving.scrub.runs,
            }
        )
        for engine in self.service.host.groups.values():
            if engine.checkpoint is None:  # it holds nothing of the group yet
                continue
            lived["keys let go"] += engine.checkpoint.residence.evictions
            lived["keys read back"] += engine.checkpoint.residence.loads
        return lived

    @property
    def storage(self) -> Counter[str]:
        """How often what happened to its store, in all its lives."""
        failed = Counter({"failed saves": self.disk.failed_saves, "failed reads": self.disk.failed_reads})
        return self._counts + failed + (self._lived() if self._has_begun else Counter())

    def pause(self, is_paused: bool) -> None:
        """The process stands still; what comes meanwhile is taken in at once afterwards."""
        if is_paused and self._held is None:
            self._held = []
            self._observer.facts.note_pause(self.index)
        elif not is_paused and self._held is not None:
            events, self._held = self._held, None
            if self.is_alive and events:
                self.step(events)
            self._observer.facts.told.pop(self.index, None)

    @property
    def now_ms(self) -> int:
        return self.clock.now_ms(self._timeline.now_us)

    def span(self, since_us: int, since_ms: int) -> Span:
        """The time since then, when its clock showed ``since_ms``; somebody may have set it meanwhile."""
        shown = [since_ms, self.now_ms]
        for when_us, before_ms, after_ms in self._steps:
            if when_us >= since_us:
                shown += (before_ms, after_ms)
        return Span(since_us, min(shown), max(shown), self.now_ms)

    # --- what comes

    def on_message(self, message: tuple[int, int, bytes]) -> None:
        source, _, data = message
        if not self.is_alive:
            return
        self._trace.note(self._timeline.now_us, _MESSAGE, self.index, data)
        self.step([Received(self._cluster.members[source].replica, data)])

    def on_requests(self, requests: list[Request]) -> None:
        """Users ask, several in one step perhaps."""
        self._trace.note(self._timeline.now_us, _REQUEST, self.index, b"%d" % requests[0].ticket)
        self.step(list(requests))

    def _on_tick(self, argument: tuple[int, int]) -> None:
        if not self.is_alive or argument != (self.life, self._wake_us):  # another tick has taken its place
            return
        self._trace.note(self._timeline.now_us, _TICK, self.index)
        self._wake_us = 0
        self.step([Tick()])

    def _on_synced(self, number: int, position: int, entries: list[Entry]) -> None:
        self._trace.note(self._timeline.now_us, _SYNCED, self.index)
        self._observer.on_synced(self.index, entries)
        self.step([Persisted(number, position)])

    def _on_saved(self, saved: Saved) -> None:
        self._trace.note(self._timeline.now_us, _SAVED, self.index)
        self.step([saved])

    def hello(self, peer: int) -> bytes:
        data = self.service.host.hello(self._cluster.members[peer].replica, self.now_ms)
        self._trace.note(self._timeline.now_us, _OPENED, self.index, data)
        return data

    def check_hello(self, data: bytes) -> int | None:
        try:
            return self._peers[self.service.host.check_hello(data).replica]
        except (ProtocolError, DecodeError) as error:
            self._observer.on_rejected(self.index, "a hello", error.detail, self.service.host.groups)
            return None

    def peer_changed(self, peer: int, is_connected: bool) -> None:
        self.step([PeerChanged(self._cluster.members[peer].replica, is_connected)])

    # --- the step

    def step(self, events: list[Event]) -> None:
        """Hand events in and carry out what comes of them."""
        if self._held is not None:
            self._held += events
            return
        service = self.service
        now_us = self._timeline.now_us
        now_ms = self.clock.now_ms(now_us)
        self.disk.is_asked = True
        out = service.step(events, now_ms)
        self.disk.is_asked = False
        self._carry_out(out, now_us, has_between=len(events) > 1)

    def _carry_out(self, out: HostOutput, now_us: int, *, has_between: bool) -> None:
        service, observer, index = self.service, self._observer, self.index
        if out.persist_number:
            observer.on_applied(index, out.persist, service.host.groups, has_between=has_between)
            self.disk.append(out.persist_number, out.persist)
        if out.save:
            self.disk.save(out.save)
        if out.cut is not None:
            log = self.disk.log
            before = log.first_position
            observer.on_saved(index, self.disk.state, log)
            log.cut(out.cut)
            self._counts["cuts of the log"] += log.first_position > before
            observer.on_cut(index, self.disk.state, log)
        observer.on_stepped(index, service.host.groups)
        if out.send:
            self._send(out.send)
        if out.replies:
            self.workload.on_replies(self, out.replies)
        if out.rejected:
            for rejected in out.rejected:
                observer.on_rejected(index, rejected.peer, rejected.reason, service.host.groups)
        self._wake_at(out.wake_ms, now_us)

    def _send(self, sends: list[tuple[ReplicaId, bytes]]) -> None:
        peers, index, send, on_send = self._peers, self.index, self._network.send, self._observer.on_send
        for peer, data in sends:
            on_send(index, data)
            send(index, peers[peer], data)

    def set_clock_by(self, step_us: int) -> None:
        """Somebody sets its clock: what was asked for comes sooner or later."""
        before_ms = self.now_ms
        self.clock.set_by(step_us)
        self._steps.append((self._timeline.now_us, before_ms, self.now_ms))
        self._asked_ms = None

    def _wake_at(self, wake_ms: int, now_us: int) -> None:
        if wake_ms == self._asked_ms and now_us <= self._wake_us:  # asked before, and a tick no later is on its way
            return
        self._asked_ms = wake_ms
        wake_us = min(max(self.clock.when_us(wake_ms), now_us + 1000), now_us + _LONGEST_WAIT_US)
        before_us = self._wake_us
        if not before_us or wake_us < before_us or before_us < now_us:
            self._wake_us = wake_us
            self._timeline.at(wake_us, self._on_tick, (self.life, wake_us))
