"""Membership of one group at one replica: which configuration is in force, and what of what is said counts.

The question: when may a replica act on a configuration? When it stands in its log: a promise, a vote, an adopted configuration is durable
before anybody hears of it, and between adopting and its being durable the group says nothing at all. What is said under another
configuration than ours does not count; whoever is behind is told (``Configure``), and two lines that part are an alarm.

How an order becomes a decision stands in ``decision.py``, what is due without an order in ``due.py``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, TypeVar

from crdtstore.causal import ReplicaId
from crdtstore.configuration import Configuration, ConfigurationId
from crdtstore.engine import events
from crdtstore.engine.events import Approached, Forced, Left, MembershipEvent, Ordered
from crdtstore.engine.growth import count_members
from crdtstore.engine.membership.changes import Change
from crdtstore.engine.membership.claims import Claims
from crdtstore.engine.membership.decision import Decision
from crdtstore.engine.membership.due import due_changes, is_anything_pending
from crdtstore.engine.membership.notes import (
    Adopted,
    Installed,
    Kept,
    Leaving,
    Note,
    Voted,
    decode_kept,
    decode_note,
    encode,
)
from crdtstore.engine.membership.shape import Shape
from crdtstore.engine.output import Output
from crdtstore.errors import ProtocolError
from crdtstore.messages import (
    Accept,
    Accepted,
    Ack,
    Configure,
    Digest,
    Fetch,
    Frame,
    Part,
    Prepare,
    Promise,
    Regroup,
    Want,
)

if TYPE_CHECKING:
    from crdtstore.engine.engine import Engine

__all__ = ["NOTE", "Membership"]

NOTE = -1
"""In the place of the index of an origin: what is to be written is a note of the group, no commit."""
_NEVER = 1 << 63
_OFFER_MS = 1_000
"""A configuration is offered again so long after it was."""
_AGAIN_MS = 300
"""Who asks often is answered so often."""
_LOOK_MS = 100
_TURN_MS = 250
"""What any member may propose each leaves to those before it for so long."""
_MAX_STRANGERS = 64
_OF_DECISIONS = (Prepare, Promise, Accept, Accepted)
_Then = Callable[[int, Output], None]
_T = TypeVar("_T")


class Membership:
    """The configuration of one group at one replica. Mutable; part of the engine."""

    def __init__(self, engine: Engine, random: Random, *, is_installed: bool) -> None:
        self._engine = engine
        self.decision = Decision(engine, self, random)
        self.claims = Claims(engine)
        self.is_member = True
        self.is_installed = is_installed
        """Whether this replica holds the state of the group: founders do from the start, joiners once they took it over."""
        self.is_leaving = False
        """Set for good when this replica is to leave: it makes no commit any more."""
        self.told: ConfigurationId = engine.configuration.id
        """The configuration that is durable here, and so the one that may be spoken of."""
        self.splits: dict[ReplicaId, ConfigurationId] = {}
        """Who was heard under a configuration of another line."""
        self.heard: dict[ReplicaId, tuple[ConfigurationId, int]] = {}
        """Of everybody who spoke under which configuration that was last, and when."""
        self.adoptions = 0
        self.wake_ms = 0
        self._is_told_to_leave = False
        self._due_since_ms: dict[object, int] = {}
        """Since when something is due that any member may propose."""
        self._offered: dict[ReplicaId, tuple[ConfigurationId, int]] = {}
        self._waiting: deque[tuple[int, _Then]] = deque()
        """What follows when a batch is durable."""
        self._adopting = 0
        """How many adoptions are on their way to the disk."""
        self.is_silent = False
        """Whether nothing may be said: what is in force here is not durable yet."""
        self.shape: Shape
        self._put_in_force(engine.configuration)

    def on_event(self, event: MembershipEvent, now_ms: int, out: Output) -> None:
        """Somebody decided something, or spoke who is unknown here."""
        if isinstance(event, Approached):
            try:
                self.hears(event.replica, event.message, now_ms, out)
            except ProtocolError:
                self._engine.measures.refused += 1
        elif isinstance(event, Ordered):
            self.decision.try_order(event.change, event.ticket, out)
        elif isinstance(event, Forced):
            self.adopt(event.configuration, out)
        elif isinstance(event, Left):
            self._leave(out)
        elif isinstance(event, events.Installed):
            self._installed(out)
        else:
            self.write_down(out)

    # --- what is in force

    @property
    def is_removed(self) -> bool:
        """Whether this replica was a member once."""
        return not self.is_member and self._engine.configuration.removal(self.me) is not None

    @property
    def may_issue(self) -> bool:
        return self.is_member and self.is_installed and not self.is_leaving

    @property
    def has_left(self) -> bool:
        """Whether a row of ours may say that no commit of ours follows: nothing is left to give away, and all are durable."""
        engine = self._engine
        is_all = engine.durability.vector[engine.me] == engine.applied[engine.me]
        return is_all and self._is_told_to_leave and engine.rights.farewell.is_done

    @property
    def orders(self) -> list[Change]:
        """What is wanted and not decided yet."""
        return self.decision.orders

    @property
    def me(self) -> ReplicaId:
        return self._engine.replicas[self._engine.me]

    def _put_in_force(self, configuration: Configuration) -> None:
        engine = self._engine
        me = self.me
        known = {*engine.replicas}
        for replica in (*configuration.ids, *(each.replica for each in configuration.removed)):
            if replica not in known:
                engine.admit(replica)
        self.claims.forget(configuration.finals)
        engine.configuration = configuration
        awaited = [removed.replica for removed in configuration.removed if removed.final is None]
        count_members(engine, configuration.ids, me, awaited)
        for replica in configuration.finals:
            if replica != me:
                engine.causality.settle(engine.replicas.index(replica))
        engine.keyspace.regions = {member.replica: member.region for member in configuration.members}
        self.shape = Shape(configuration, engine.replicas)
        self.is_member = engine.me in self.shape.members
        self.decision.begin_anew()
        self._due_since_ms.clear()
        self.splits.clear()
        self.wake_ms = 0

    def adopt(self, configuration: Configuration, out: Output) -> None:
        """Put a later configuration of our line in force; what was heard under the one before counts no more."""
        configuration.check_follows(self._engine.configuration)
        self._put_in_force(configuration)
        self.adoptions += 1
        self.write_down(out)

    def write_down(self, out: Output) -> None:
        """Make what is in force durable; until then nothing is said."""
        configuration = self._engine.configuration
        self._adopting += 1
        self.is_silent = True
        out.has_adopted = True

        def then(now_ms: int, out: Output) -> None:
            self._adopting -= 1
            self.is_silent = self._adopting > 0
            self.told = configuration.id
            if not self._adopting:
                self._on_settled(now_ms, out)

        self.write(Adopted(configuration, self.is_installed), out, then)

    def _on_settled(self, now_ms: int, out: Output) -> None:
        """What is in force is durable: tell everybody, and begin anew with all who are connected."""
        engine = self._engine
        for peer in sorted(engine.connected):
            self._offer(engine.replicas[peer], now_ms, out)
        for member in engine.configuration.members:  # one that joins may be nobody's peer yet
            self._offer(member.replica, now_ms, out)
        if self.is_installed and self.is_member:
            for peer in engine.others:
                if peer in engine.connected:
                    engine.antientropy.on_peer_changed(peer, True, now_ms, out)
        self.decision.settle(out)

    def _installed(self, out: Output) -> None:
        """The state that the others had is here, and durable."""
        self.is_installed = True

        def then(now_ms: int, out: Output) -> None:
            self._on_settled(now_ms, out)

        self.write(Installed(), out, then)

    def _leave(self, out: Output) -> None:
        """Make no commit any more; once all members have ours, one of them evicts this replica."""
        if not self.is_leaving:
            self.is_leaving = True
            self._engine.rights.wake_ms = 0

            def then(now_ms: int, out: Output) -> None:
                self._is_told_to_leave = True

            self.write(Leaving(), out, then)

    # --- what is durable

    def write(self, note: Note, out: Output, then: _Then) -> None:
        """Have a note written; what follows from it waits until it is durable."""
        engine = self._engine
        out.persist.append((NOTE, encode(note)))
        out.number = engine.durability.hold(engine.applied, 0, [], [])
        self._waiting.append((out.number, then))

    def on_persisted(self, number: int, now_ms: int, out: Output) -> None:
        while self._waiting and self._waiting[0][0] <= number:
            self._waiting.popleft()[1](now_ms, out)

    def recover(self, data: bytes) -> None:
        """Take in a note from the log, in its order.

        Raises:  DecodeError when this version does not know it.
        """
        note = decode_note(data)
        if isinstance(note, Adopted):
            if note.configuration.number > self._engine.configuration.number:
                self._put_in_force(note.configuration)
                self.told = note.configuration.id
        elif isinstance(note, Voted):
            self.decision.restore(note)
        elif isinstance(note, Installed):
            self.is_installed = True
        else:
            self.is_leaving = self._is_told_to_leave = True

    def keep(self) -> bytes:
        """All of it, for a checkpoint."""
        configuration = self._engine.configuration
        return encode(
            Kept(configuration, self.decision.voted(), self.is_installed, self.is_leaving, self.claims.keep())
        )

    def restore(self, data: bytes) -> None:
        """Take in what a checkpoint holds.

        Raises:  DecodeError.
        """
        if not data:  # of a version that had no members to keep
            self._put_in_force(self._engine.configuration)
            return
        kept = decode_kept(data)
        if kept.configuration.number >= self._engine.configuration.number:
            self._put_in_force(kept.configuration)
            self.told = kept.configuration.id
        self.decision.restore(kept.voted)
        self.is_installed = kept.is_installed
        self.is_leaving = self._is_told_to_leave = kept.is_leaving
        self.claims.restore(kept.claims)

    # --- what is said

    def hears(
        self,
        replica: ReplicaId,
        message: Frame | Digest | Ack | Want | Regroup | Fetch | Part,
        now_ms: int,
        out: Output,
    ) -> bool:
        """Take note of who speaks under which configuration; return whether the message counts and is not about members.

        Raises:  ProtocolError when what is said of configurations cannot be.
        """
        engine = self._engine
        if engine.fenced_by is not None:
            return False
        if isinstance(message, Configure):
            message.value.check()  # before it has an id
            message.configuration.check()
            self.note_heard(replica, message.configuration, now_ms)
            self._on_configure(replica, message.value, now_ms, out)
            return False
        said: ConfigurationId = message.configuration
        if said != self.shape.id:
            said.check()
            self.note_heard(replica, said, now_ms)
            engine.measures.foreign_configuration += 1
            self._offer(replica, now_ms, out)
            return False
        self.note_heard(replica, said, now_ms)
        if not self.is_member or replica not in self.shape.names:
            return False
        if self.splits:
            self.splits.pop(replica, None)
        if not self.is_installed:
            return False
        if isinstance(message, _OF_DECISIONS):
            if not self.is_silent:
                self.decision.on_vote(replica, message, now_ms, out)
            return False
        return not self.is_silent

    def note_heard(self, replica: ReplicaId, said: ConfigurationId, now_ms: int) -> None:
        """Somebody spoke under a configuration."""
        self._keep(self.heard, replica, (said, now_ms))

    def _keep(self, table: dict[ReplicaId, _T], replica: ReplicaId, what: _T) -> None:
        """Note something of somebody; of strangers, of whom there may be any number, the last are kept."""
        known = self._engine.replicas
        table.pop(replica, None)
        table[replica] = what
        if len(table) > len(known) + _MAX_STRANGERS:
            del table[next(each for each in table if each not in known)]

    def _offer(self, replica: ReplicaId, now_ms: int, out: Output) -> None:
        """Show a replica our configuration, not more often than it can be of use."""
        if replica == self.me or self.is_silent:
            return
        configuration = self._engine.configuration
        offered = self._offered.get(replica)
        if offered is None or offered[0] != configuration.id or now_ms - offered[1] >= _AGAIN_MS:
            self._keep(self._offered, replica, (configuration.id, now_ms))
            out.tell.append((replica, Configure(self._engine.group, configuration)))

    def _on_configure(self, replica: ReplicaId, value: Configuration, now_ms: int, out: Output) -> None:
        mine = self._engine.configuration
        if value.id == mine.id:
            value.check_follows(mine)
        elif mine.precedes(value):
            self.adopt(value, out)
        elif value.precedes(mine):
            self._offer(replica, now_ms, out)
        else:
            is_new = replica not in self.splits
            self._keep(self.splits, replica, value.id)
            self._offer(replica, now_ms, out)
            if is_new:
                raise ProtocolError(f"its configuration {value.id} and ours, {mine.id}, are of lines that parted")

    # --- time

    def on_tick(self, now_ms: int, out: Output) -> None:
        """Propose what is ordered or due, offer our configuration to those who may not know it."""
        if now_ms < self.wake_ms:
            return
        self.wake_ms = _NEVER
        if self._engine.is_fenced:
            return
        if self.is_silent:
            self.wake_ms = now_ms + _LOOK_MS
            return
        if not self.is_member or not self.is_installed:
            self.wake_ms = now_ms + _OFFER_MS
            return
        self._order_what_is_due(now_ms, out)
        if self.decision.orders:
            self.decision.propose(now_ms, out)
            self.wake_ms = now_ms + _LOOK_MS
        for replica in self._unaware():
            offered = self._offered.get(replica)
            if offered is None or now_ms - offered[1] >= _OFFER_MS:
                self._offer(replica, now_ms, out)
            self.wake_ms = min(self.wake_ms, now_ms + _OFFER_MS)
        is_pending = bool(self._due_since_ms) or is_anything_pending(self._engine)
        self.wake_ms = min(self.wake_ms, now_ms + (_LOOK_MS if is_pending else _OFFER_MS))

    def _order_what_is_due(self, now_ms: int, out: Output) -> None:
        """Any member may order it; those that come later in the order of members wait a while."""
        engine, due, since = self._engine, due_changes(self._engine), self._due_since_ms
        for change in [change for change in since if change not in due]:
            del since[change]
        for change in due:
            since.setdefault(change, now_ms)
            if now_ms - since[change] >= engine.position * _TURN_MS:
                self.decision.order(change, out)

    def _unaware(self) -> list[ReplicaId]:
        """Connected replicas that were not heard under our configuration."""
        engine = self._engine
        current = engine.configuration.id
        return [
            replica
            for replica in (engine.replicas[peer] for peer in sorted(engine.connected))
            if replica not in self.heard or self.heard[replica][0] != current
        ]
