"""The driver: the one place where events enter the service and its outputs are carried out.

The question: how often is the service stepped? Once per turn of the event loop, with all that arrived in that turn, so that 64 requests
cost one step, one record and one sync. A write that is done, or a timer, steps at once: somebody is waiting for it.

When the disk fails, nothing becomes durable any more: writes are answered with that, reads of what is durable go on, peers still get
what is durable here, and what they send is left where it is, or every key they write could be read here no more. The same holds while the
disk is full, but that ends when there is room again; and while so much is in no checkpoint, because none can be written, that more would
fill the memory. When the service itself fails, its state may be half changed; then this node stops, and its next start rebuilds the
state from the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from crdtstore.causal import ReplicaId
from crdtstore.engine.events import Persisted, Tick
from crdtstore.errors import CrdtStoreError, StorageError
from crdtstore.host import HostOutput, Rejected
from crdtstore.messages import Frame, Part, Want, decode_message
from crdtstore.saving import Saved
from crdtstore.service import Cancelled, Event, Received, Request, Service
from crdtstore.storage.protocol import NO_ORIGIN, CommitLog, StateStore
from crdtstore_node import asking
from crdtstore_node.asking import DATA, NO_FIELDS, WRITES, Answer, Asked, Asker
from crdtstore_node.clock import WallClock
from crdtstore_node.config import UNSAVED_BYTES
from crdtstore_node.identity import Anchor
from crdtstore_node.logs import event
from crdtstore_node.standing import why_no_data
from crdtstore_node.state_writer import StateWriter
from crdtstore_node.writer import LogWriter

__all__ = ["Driver"]

_log = logging.getLogger(__name__)
_TICK_S = 1.0
"""A tick comes at least so often."""
_LOOK_S = 1.0
_LEAST_S, _STILL_S = 0.001, 0.05
"""And at most so often, whatever the service asks for; less often before the first tick."""


class Driver:
    """One service, its log and its clock. Mutable; lives on one event loop.

    ``send`` and ``rejected`` take what the service wants sent and what it refused of peers; ``crashed`` is told when the service
    failed.
    """

    def __init__(
        self,
        service: Service,
        log: CommitLog,
        clock: WallClock,
        store: StateStore | None = None,
        unsaved_bytes: int = UNSAVED_BYTES,
    ) -> None:
        """``unsaved_bytes``: so much of the log may be in no checkpoint while none can be written."""
        self.service = service
        self.clock = clock
        self.send: Callable[[Sequence[tuple[ReplicaId, bytes]]], None] = lambda sends: None
        self.rejected: Callable[[Rejected], None] = lambda rejected: None
        self.crashed: Callable[[], None] = lambda: None
        self.rejoin: Callable[[str], None] = lambda reason: None
        """Is told when this node is to give up its id."""
        self.failure: StorageError | None = None
        """Why nothing can be made durable any more."""
        self.full: StorageError | None = None
        """Why nothing can be made durable just now: what found no room is written again and again."""
        self.full_times: int = 0
        self.frames_left: int = 0
        self.cut_failures: int = 0
        """How often the disk was full, what peers sent that was left where it is, and how often the log could not be cut."""
        self.unread = 0
        """How many requests needed something that cannot be read."""
        self.unreadable: StorageError | None = None
        """What the last of these needed."""
        self._is_held = self._is_started = False
        self._look_at = 0.0
        self._told: dict[str, str | None] = {}
        """What was last logged of failures that are not this driver's to handle."""
        self.is_crashed = False
        self.steps: int = 0
        self.records: int = 0
        self.commits_logged: int = 0
        self._loop = asyncio.get_running_loop()
        self._log = log
        self._writer = LogWriter(log, self._on_written, self._on_log_failed, self._on_full, self._on_not_cut)
        self._saver = StateWriter(store, self._on_saved) if store is not None else None
        self._unsaved_bytes = unsaved_bytes
        self._events: list[Event] = []
        self._is_scheduled = False
        self._waiting: dict[int, tuple[Callable[[int, Answer], None], int, bool]] = {}
        """By ticket who is to be told, under which number, and whether it is a write."""
        self._ticket = 0
        self._max_waiting = service.host.options.max_waiting
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    @property
    def why_no_writes(self) -> StorageError | None:
        """Why nothing that has to be written is taken, from users or peers; None: it is."""
        if self.failure is not None or self.full is not None:
            return self.failure or self.full
        saving = self.service.host.saving
        if saving is not None and saving.failure is not None and saving.unsaved_bytes > self._unsaved_bytes:
            return saving.failure
        return None

    @property
    def waiting(self) -> int:
        """Requests that are not answered yet."""
        return len(self._waiting)

    def keep(self, anchor: Anchor | None) -> None:
        """Let this say from now on how far the log is durable."""
        self._writer.anchor = anchor

    # --- what enters

    def start(self) -> None:
        """The first tick: from now on the service does what is due. Before it, requests are answered and nothing else happens."""
        self._is_started = True
        self.submit(Tick())

    def submit(self, event: Event) -> None:
        """Let this happen, with everything else of this turn of the loop."""
        self._events.append(event)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._turn)

    def receive(self, peer: ReplicaId, data: bytes) -> None:
        """A peer said this."""
        if self.why_no_writes is not None and _leads_to_commits(data):
            self.frames_left += 1
        else:
            self.submit(Received(peer, data))

    def request(self, do: str, fields: dict[str, Any]) -> tuple[int, asyncio.Future[Answer]]:
        """Ask the service; the future holds the answer or an error as its result. The ticket is for ``forget``.

        Raises:  Unavailable when too many requests wait or nothing can be made durable; nothing changed.
        """
        if len(self._waiting) >= self._max_waiting:
            raise asking.overloaded(self._max_waiting)
        if (why_not := self._why_not(do)) is not None:
            raise why_not
        self._ticket += 1
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[self._ticket] = (partial(asking.settle, future), 0, do in WRITES)
        self.submit(Request(self._ticket, do, fields))
        return self._ticket, future

    def request_all(self, asker: Asker, requests: Sequence[Asked]) -> None:
        """Ask the service all this, in order. What is refused at once is answered before this returns."""
        waiting, events, opened, answered = self._waiting, self._events, asker.open, asker.answered
        is_taken: dict[str, bool] = {}
        for asked in requests:
            do = asked.do
            if do not in is_taken:
                is_taken[do] = self._why_not(do) is None
            if not is_taken[do] or len(waiting) >= self._max_waiting:
                answered(asked.n, self._why_not(do) or asking.overloaded(self._max_waiting))
                continue
            ticket = self._ticket = self._ticket + 1
            n = asked.n
            opened[n] = ticket
            waiting[ticket] = (answered, n, do in WRITES)
            events.append(Request(ticket, do, NO_FIELDS, parsed=asked))
        self._schedule()

    def _why_not(self, do: str) -> CrdtStoreError | None:
        """Why such a request is not taken now."""
        if self.is_crashed:
            return asking.gone()
        if do in DATA and (why_not := why_no_data(self.service.host)) is not None:
            return why_not
        if do in WRITES and (why := self.why_no_writes) is not None:
            return asking.refused(why)
        return None

    def forget(self, ticket: int) -> None:
        """Who asked is gone: a read is forgotten, a write goes on."""
        if self._waiting.pop(ticket, None) is not None:
            self.submit(Cancelled(ticket))

    def forget_all(self, asker: Asker) -> None:
        """The same for all that this one asked."""
        for ticket in asker.open.values():
            self.forget(ticket)
        asker.open.clear()

    async def stop(self) -> None:
        """Make durable what was begun, then end. Nothing may be submitted any more."""
        await self._writer.finish()
        if self.failure is None and not self.is_crashed and (last := self.service.host.close()) is not None:
            self._writer.put(0, self._log.encode([last]))
        if self._saver is not None:
            await self._saver.stop()
        await self._writer.stop()
        await asyncio.sleep(0)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        for ticket in list(self._waiting):
            self._answer(ticket, asking.gone())

    # --- one turn

    def _turn(self) -> None:
        self._is_scheduled = False
        events, self._events = self._events, []
        if not events or self.is_crashed:
            return
        now_ms = self.clock.now_ms()
        try:
            self._carry_out(self.service.step(events, now_ms), now_ms)
        except Exception:
            self._on_crash()
            return
        self.steps += 1
        if self.failure is not None or self.full is not None:
            self._answer_unanswered(events)

    def _carry_out(self, out: HostOutput, now_ms: int) -> None:
        if out.persist:
            self.records += 1
            self.commits_logged += len([entry for entry in out.persist if entry.origin != NO_ORIGIN])
            if self.failure is None:
                self._writer.put(out.persist_number, self._log.encode(out.persist))
        if self._saver is not None and out.save:
            saving = self.service.host.saving
            self._saver.hurry(saving is not None and saving.is_late)
            for save in out.save:
                self._saver.put(save)
        if out.cut is not None:
            self._writer.cut(out.cut)
        if out.send:
            self.send(out.send)
        taken = self._waiting.pop
        for ticket, answer in out.replies:
            waiting = taken(ticket, None)
            if waiting is not None:
                waiting[0](waiting[1], self._refusal(answer) if isinstance(answer, CrdtStoreError) else answer)
        for rejected in out.rejected:
            self.rejected(rejected)
        if out.rejoin is not None:
            self.rejoin(out.rejoin)
        self._arm((out.wake_ms - now_ms) / 1000)

    def _refusal(self, error: CrdtStoreError) -> CrdtStoreError:
        # Its frames hold this very output, which the collector does not see: kept, each refusal would stay for ever.
        error.__traceback__ = error.__context__ = error.__cause__ = None
        if not isinstance(error, StorageError):
            return error
        self.unread += 1
        self.unreadable = error
        return asking.unread(error)

    def _answer(self, ticket: int, answer: Answer) -> None:
        waiting = self._waiting.pop(ticket, None)
        if waiting is not None:
            waiting[0](waiting[1], answer)

    def _arm(self, delay_s: float) -> None:
        at = self._loop.time() + min(max(delay_s, _LEAST_S if self._is_started else _STILL_S), _TICK_S)
        if self._timer is None or at < self._timer_at - 0.0005:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._timer_at = self._loop.call_at(at, self._on_timer), at

    def _on_timer(self) -> None:
        self._timer = None
        self._events.append(
            Tick() if self._is_started else Cancelled(0)
        )  # nobody has that ticket: time passes, and no more
        self._turn()
        if self._loop.time() >= self._look_at:
            self._look_at = self._loop.time() + _LOOK_S
            self._look_for_failures()

    def _on_written(self, number: int, position: int) -> None:
        if self.full is not None:
            self.full = None
            self._hold_or_go_on()
            event(_log, logging.INFO, "the disk has room again, this node takes writes")
        self._events.append(Persisted(number, position))
        self._turn()

    def _on_saved(self, saved: Saved) -> None:
        saving = self.service.host.saving
        assert self._saver is not None
        assert saving is not None
        before = saving.failure
        if saved.failure is not None:
            self._turn()  # what comes of it before the service knows is not done any more
        self._events.append(saved)
        self._turn()
        self._hold_or_go_on()
        if saved.failure is not None:
            self._saver.restart()
            if before is None:
                what = "no checkpoint can be written, which is tried again; the log grows meanwhile"
                event(_log, logging.ERROR, what, detail=saved.failure.detail)
        elif before is not None and saving.failure is None:
            event(_log, logging.INFO, "checkpoints are written again")

    # --- what fails

    def _look_for_failures(self) -> None:
        """What could not be read, or was found to be wrong, stands in the node's log once, not at each attempt."""
        host = self.service.host
        if host.saving is not None:
            self._tell("what is on disk is not what was written there", "scrub", host.saving.scrub.failure)
        self._tell("something on disk cannot be read", "requests", self.unreadable)
        for group, engine in host.groups.items():
            self._tell("something on disk cannot be read", group, engine.failure)

    def _tell(self, what: str, where: str, failure: StorageError | None) -> None:
        detail = None if failure is None else failure.detail
        if detail is not None and detail != self._told.get(where):
            event(_log, logging.ERROR, what, where=where, detail=detail)
        self._told[where] = detail

    def _hold_or_go_on(self) -> None:
        """What the store does by itself waits as long as writes of users do."""
        if self._is_held != (self.why_no_writes is not None):
            self._is_held = not self._is_held
            for engine in self.service.host.groups.values():
                engine.hold(self._is_held)

    def _on_full(self, error: StorageError) -> None:
        """What is not judged yet is not: nothing changed. What waits for the disk is told; it will be written when there is room."""
        self.full = error
        self.full_times += 1
        self._hold_or_go_on()
        event(
            _log, logging.ERROR, "the disk is full, this node takes no writes until there is room", detail=error.detail
        )
        events, self._events = self._events, []
        for each in events:
            if isinstance(each, Request) and each.do in WRITES:
                self._answer(each.ticket, asking.refused(error))
            elif not isinstance(each, Received) or not _leads_to_commits(each.data):
                self._events.append(each)
        for ticket in list(self._waiting):
            self._answer_failed(ticket, error)

    def _on_not_cut(self, error: StorageError) -> None:
        self.cut_failures += 1
        event(_log, logging.WARNING, "the log could not be cut, it is longer than it needs to be", detail=error.detail)

    def _on_log_failed(self, failure: StorageError) -> None:
        if self.failure is not None:
            return
        self.failure = failure
        self._hold_or_go_on()
        event(_log, logging.ERROR, "the commit log failed, this node takes no writes", detail=failure.detail)
        for ticket in list(self._waiting):
            self._answer_failed(ticket, failure)

    def _answer_unanswered(self, events: Sequence[Event]) -> None:
        """Nothing becomes durable, so what was not answered in its own step would wait for long."""
        why = self.failure or self.full
        assert why is not None
        for each in events:
            if isinstance(each, Request) and each.ticket in self._waiting:
                self._answer_failed(each.ticket, why)

    def _answer_failed(self, ticket: int, why: StorageError) -> None:
        if ticket in self.service.receipts:  # durable here: it waits for no disk of ours
            return
        error = asking.unfinished(why, is_write=self._waiting[ticket][2], is_full=why is self.full)
        self._answer(ticket, error)
        self.submit(Cancelled(ticket))

    def _on_crash(self) -> None:
        self.is_crashed = True
        _log.exception("the service failed; this node stops, its next start rebuilds the state from the log")
        for ticket in list(self._waiting):
            self._answer(ticket, asking.gone())
        self.crashed()


def _leads_to_commits(data: bytes) -> bool:
    """Whether what a peer says makes this node write: its commits, parts of an install, or that it wants rights."""
    try:
        return isinstance(decode_message(data), Frame | Want | Part)
    except CrdtStoreError:
        return False  # the service says what is wrong with it
