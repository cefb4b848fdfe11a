"""Membership of one group at one replica: which configuration is in force, and what of what is said counts.

The question: when may a replica act on a configuration? When it stands in its log: a promise, a vote, an adopted configuration is durable
before anybody hears of it, and between adopting and its being durable the group says nothing at all. What is said under another
configuration than ours does not count; whoever is behind is told (``Configure``), and two lines that part are an alarm.

What is ordered (a join, an eviction, a final) stands in a queue here until it is done or does not hold any more; whoever has something in
its queue proposes it, waits a random time for its quorum, and tries again in a higher ballot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from msgspec import Struct

from crdtstore.causal import ReplicaId
from crdtstore.configuration import Configuration, ConfigurationId
from crdtstore.engine.growth import count_members
from crdtstore.engine.membership.changes import Change, Evict, Final, is_done, successor
from crdtstore.engine.membership.claims import Claims
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
from crdtstore.engine.membership.register import Proposal, Register
from crdtstore.engine.membership.shape import Shape
from crdtstore.engine.output import Output
from crdtstore.errors import ProtocolError, UsageError
from crdtstore.messages import Accept, Accepted, Ballot, Configure, Prepare, Promise, Regroup, Vote

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
_PATIENCE_MS = 400
"""The least time that a ballot is given; up to twice as long, and longer each time in vain."""

_Then = Callable[[int, Output], None]


class _Order(Struct):
    """A change that is wanted here; ``ticket`` names who waits for it, 0: nobody."""

    change: Change
    ticket: int = 0


class Membership:
    """The configuration of one group at one replica. Mutable; part of the engine."""

    def __init__(self, engine: Engine, random: Random, *, is_installed: bool) -> None:
        self._engine = engine
        self._random = random
        self.register = Register()
        self.claims = Claims(engine)
        self.is_member = True
        self.is_installed = is_installed
        """Whether this replica holds the state of the group: founders do from the start, joiners once they took it over."""
        self.is_leaving = False
        """Set for good when this replica is to leave: it makes no commit any more."""
        self.told: ConfigurationId = engine.configuration.id
        """The configuration that is durable here, and so the one that may be spoken of."""
        self.votes_told = 0
        self.splits: dict[ReplicaId, ConfigurationId] = {}
        """Who was heard under a configuration of another line."""
        self.heard: dict[ReplicaId, tuple[ConfigurationId, int]] = {}
        """Of everybody who spoke under which configuration that was last, and when."""
        self.adoptions = self.ballots = 0
        self.wake_ms = 0
        self._is_told_to_leave = False
        self._orders: list[_Order] = []
        self._proposal: Proposal | None = None
        self._round = 0
        """No ballot of ours is below it: others have promised higher ones."""
        self._tries = 0
        self._retry_ms = 0
        self._due_since_ms: dict[object, int] = {}
        """Since when something is due that any member may propose."""
        self._offered: dict[ReplicaId, tuple[ConfigurationId, int]] = {}
        self._waiting: deque[tuple[int, _Then]] = deque()
        """What follows when a batch is durable."""
        self._adopting = 0
        """How many adoptions are on their way to the disk."""
        self.shape: Shape
        self._put_in_force(engine.configuration)

    # --- what is in force

    @property
    def is_silent(self) -> bool:
        """Whether nothing may be said: what is in force here is not durable yet."""
        return self._adopting > 0

    @property
    def is_removed(self) -> bool:
        """Whether this replica was a member once."""
        return not self.is_member and self._engine.configuration.removal(self._me) is not None

    @property
    def may_issue(self) -> bool:
        return self.is_member and self.is_installed and not self.is_leaving

    @property
    def has_left(self) -> bool:
        """Whether a row of ours may say that no commit of ours follows: all are durable."""
        engine = self._engine
        return self._is_told_to_leave and engine.durability.vector[engine.me] == engine.applied[engine.me]

    @property
    def orders(self) -> list[Change]:
        """What is wanted and not decided yet."""
        return [order.change for order in self._orders]

    @property
    def _me(self) -> ReplicaId:
        return self._engine.replicas[self._engine.me]

    def _put_in_force(self, configuration: Configuration) -> None:
        engine = self._engine
        me = self._me
        for replica in configuration.ids:
            engine.admit(replica)
        for removed in configuration.removed:
            engine.admit(removed.replica)
        engine.configuration = configuration
        awaited = [removed.replica for removed in configuration.removed if removed.final is None]
        count_members(engine, configuration.ids, me, awaited)
        engine.keyspace.regions = {member.replica: member.region for member in configuration.members}
        self.shape = Shape(configuration, engine.replicas)
        self.is_member = engine.me in self.shape.members
        self.register.begin_anew()
        self._proposal = None
        self._retry_ms = self._tries = self._round = 0
        self._due_since_ms.clear()
        self.splits.clear()
        self.wake_ms = 0

    def _adopt(self, configuration: Configuration, out: Output) -> None:
        """Put a later configuration of our line in force; what was heard under the one before counts no more."""
        configuration.check_follows(self._engine.configuration)
        self._put_in_force(configuration)
        self.adoptions += 1
        self.write_down(out)

    def write_down(self, out: Output) -> None:
        """Make what is in force durable; until then nothing is said."""
        configuration = self._engine.configuration
        self._adopting += 1
        out.has_adopted = True

        def then(now_ms: int, out: Output) -> None:
            self._adopting -= 1
            self.told = configuration.id
            if not self._adopting:
                self._on_settled(now_ms, out)

        self._write(Adopted(configuration), out, then)

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
        self._settle_orders(out)

    def installed(self, now_ms: int, out: Output) -> None:
        """The state that the others had is here, and durable."""
        self.is_installed = True

        def then(now_ms: int, out: Output) -> None:
            self._on_settled(now_ms, out)

        self._write(Installed(), out, then)

    def leave(self, out: Output) -> None:
        """Make no commit any more; once all members have ours, one of them evicts this replica."""
        if not self.is_leaving:
            self.is_leaving = True

            def then(now_ms: int, out: Output) -> None:
                self._is_told_to_leave = True

            self._write(Leaving(), out, then)

    def force(self, configuration: Configuration, out: Output) -> None:
        """Put in force what an operator decided (``changes.forced``) without a vote; our line leads there."""
        self._adopt(configuration, out)

    # --- what is durable

    def _write(self, note: Note, out: Output, then: _Then) -> None:
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
            self._restore_votes(note)
        elif isinstance(note, Installed):
            self.is_installed = True
        else:
            self.is_leaving = self._is_told_to_leave = True

    def _restore_votes(self, voted: Voted) -> None:
        register = self.register
        if voted.votes > register.votes:
            register.promised, register.accepted, register.votes = voted.promised, voted.accepted, voted.votes
            self.votes_told = voted.votes

    def _voted(self) -> Voted:
        return Voted(self.register.promised, self.register.accepted, self.register.votes)

    def keep(self) -> bytes:
        """All of it, for a checkpoint."""
        configuration = self._engine.configuration
        return encode(Kept(configuration, self._voted(), self.is_installed, self.is_leaving, self.claims.keep()))

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
        self._restore_votes(kept.voted)
        self.is_installed = kept.is_installed
        self.is_leaving = self._is_told_to_leave = kept.is_leaving
        self.claims.restore(kept.claims)

    # --- what is said

    def hears(self, replica: ReplicaId, message: Regroup | object, now_ms: int, out: Output) -> bool:
        """Take note of who speaks under which configuration; return whether the message counts and is not about members.

        Raises:  ProtocolError when what is said of configurations cannot be.
        """
        engine = self._engine
        said: ConfigurationId = message.configuration  # type: ignore[attr-defined]
        self.heard[replica] = said, now_ms
        if isinstance(message, Configure):
            self._on_configure(replica, message.value, now_ms, out)
            return False
        if said != engine.configuration.id:
            engine.measures.foreign_configuration += 1
            self._offer(replica, now_ms, out)
            return False
        if not self.is_member or engine.configuration.member(replica) is None:
            return False
        self.splits.pop(replica, None)
        if not self.is_installed:
            return False
        if isinstance(message, Prepare | Promise | Accept | Accepted):
            if not self.is_silent:
                self._on_vote(replica, message, now_ms, out)
            return False
        return not self.is_silent

    def _offer(self, replica: ReplicaId, now_ms: int, out: Output) -> None:
        """Show a replica our configuration, not more often than it can be of use."""
        if replica == self._me or self.is_silent:
            return
        configuration = self._engine.configuration
        offered = self._offered.get(replica)
        if offered is None or offered[0] != configuration.id or now_ms - offered[1] >= _AGAIN_MS:
            self._offered[replica] = configuration.id, now_ms
            out.tell.append((replica, Configure(self._engine.group, configuration)))

    def _on_configure(self, replica: ReplicaId, value: Configuration, now_ms: int, out: Output) -> None:
        value.check()
        mine = self._engine.configuration
        if value.id == mine.id:
            value.check_follows(mine)
        elif mine.precedes(value):
            self._adopt(value, out)
        elif value.precedes(mine):
            self._offer(replica, now_ms, out)
        else:
            is_new = replica not in self.splits
            self.splits[replica] = value.id
            self._offer(replica, now_ms, out)
            if is_new:
                raise ProtocolError(f"its configuration {value.id} and ours, {mine.id}, are of lines that parted")

    # --- deciding

    def order(self, change: Change, now_ms: int, out: Output, ticket: int = 0) -> None:
        """Want a change; the answer to ``ticket`` comes out when it is decided or does not hold any more.

        Raises:  UsageError ``membership-changed`` when it does not hold now; nothing changed.
        """
        if is_done(self._engine.configuration, change):
            if ticket:
                out.decided.append((ticket, None))
            return
        if successor(self._engine.configuration, change, self._me) is None:
            raise self._does_not_hold(change)
        if all(order.change != change for order in self._orders) or ticket:
            self._orders.append(_Order(change, ticket))
        self.wake_ms = 0

    def give_up(self, ticket: int) -> None:
        """Who ordered it waits no more, and it is not tried again; it may have been decided all the same."""
        self._orders = [order for order in self._orders if order.ticket != ticket]

    def _does_not_hold(self, change: Change) -> UsageError:
        what = f"the members have changed since, the configuration is {self._engine.configuration.id} now"
        if not isinstance(change, Evict | Final):
            what = "this id was a member before and never will be again"
        return UsageError(f"{what}. Nothing changed.", code="membership-changed")

    def _settle_orders(self, out: Output) -> None:
        """Answer what is done or does not hold any more."""
        configuration, left = self._engine.configuration, []
        for order in self._orders:
            if is_done(configuration, order.change):
                if order.ticket:
                    out.decided.append((order.ticket, None))
            elif successor(configuration, order.change, self._me) is None or not self.is_member:
                if order.ticket:
                    out.decided.append((order.ticket, self._does_not_hold(order.change)))
            else:
                left.append(order)
        self._orders = left

    def _propose(self, now_ms: int, out: Output) -> None:
        """Try to have the first order decided, in a ballot above all that is known of."""
        self._settle_orders(out)
        if not self._orders:
            self._proposal = None
            return
        if self._proposal is not None and now_ms < self._retry_ms:
            return
        configuration, register = self._engine.configuration, self.register
        wanted = successor(configuration, self._orders[0].change, self._me)
        assert wanted is not None
        promised = 0 if register.promised is None else register.promised.round
        ballot = Ballot(max(promised, self._round) + 1, self._me)
        patience_ms = _PATIENCE_MS << min(self._tries, 4)
        self._retry_ms = now_ms + patience_ms + self._random.randrange(patience_ms)
        self._tries += 1
        self.ballots += 1
        register.prepare(ballot)
        proposal = self._proposal = Proposal(ballot, wanted)
        accepted = register.accepted

        def then(now_ms: int, out: Output) -> None:
            self.votes_told = max(self.votes_told, votes)
            if self._proposal is proposal:
                self._tell_members(Prepare(self._engine.group, configuration.id, ballot, votes), out)
                self._on_promise(self._me, accepted, now_ms, out)

        votes = register.votes
        self._write(self._voted(), out, then)

    def _tell_members(self, message: Regroup, out: Output) -> None:
        engine = self._engine
        out.tell += [(engine.replicas[other], message) for other in engine.others]

    def _on_vote(
        self, replica: ReplicaId, message: Prepare | Promise | Accept | Accepted, now_ms: int, out: Output
    ) -> None:
        proposal = self._proposal
        self.claims.note_votes(replica, message.votes)
        if isinstance(message, Prepare):
            self._answer_prepare(replica, message.ballot, out)
        elif isinstance(message, Accept):
            self._answer_accept(replica, message.vote, out)
        elif message.higher is not None:
            self._round = max(self._round, message.higher.round)
        elif proposal is None or proposal.ballot != message.ballot:
            return
        elif isinstance(message, Promise):
            self._on_promise(replica, message.accepted, now_ms, out)
        elif proposal.chosen is not None:
            self._on_accepted(replica, now_ms, out)

    def _answer_prepare(self, replica: ReplicaId, ballot: Ballot, out: Output) -> None:
        engine, register = self._engine, self.register
        about = engine.group, engine.configuration.id, ballot
        if not register.prepare(ballot):
            out.tell.append((replica, Promise(*about, self.votes_told, None, register.promised)))
            return
        self._write_vote(replica, Promise(*about, register.votes, register.accepted), out)

    def _answer_accept(self, replica: ReplicaId, vote: Vote, out: Output) -> None:
        engine, register = self._engine, self.register
        vote.value.check()
        vote.value.check_follows(engine.configuration)
        about = engine.group, engine.configuration.id, vote.ballot
        if not register.accept(vote):
            out.tell.append((replica, Accepted(*about, self.votes_told, register.promised)))
            return
        self._write_vote(replica, Accepted(*about, register.votes), out)

    def _write_vote(self, replica: ReplicaId, answer: Promise | Accepted, out: Output) -> None:
        votes = self.register.votes

        def then(now_ms: int, out: Output) -> None:
            self.votes_told = max(self.votes_told, votes)
            out.tell.append((replica, answer))

        self._write(self._voted(), out, then)

    def _on_promise(self, replica: ReplicaId, accepted: Vote | None, now_ms: int, out: Output) -> None:
        proposal, configuration, register = self._proposal, self._engine.configuration, self.register
        assert proposal is not None
        if not proposal.take_promise(replica, accepted, configuration):
            return
        assert proposal.chosen is not None
        vote = Vote(proposal.ballot, proposal.chosen)
        if not register.accept(vote):  # a higher ballot was promised here meanwhile
            return
        votes = register.votes

        def then(now_ms: int, out: Output) -> None:
            self.votes_told = max(self.votes_told, votes)
            if self._proposal is proposal:
                self._tell_members(Accept(self._engine.group, configuration.id, vote, votes), out)
                self._on_accepted(self._me, now_ms, out)

        self._write(self._voted(), out, then)

    def _on_accepted(self, replica: ReplicaId, now_ms: int, out: Output) -> None:
        proposal = self._proposal
        assert proposal is not None
        assert proposal.chosen is not None
        if proposal.take_accepted(replica, self._engine.configuration):
            self._adopt(proposal.chosen, out)

    # --- time

    def on_tick(self, now_ms: int, out: Output) -> None:
        """Propose what is ordered or due, offer our configuration to those who may not know it."""
        if now_ms < self.wake_ms:
            return
        self.wake_ms = _NEVER
        if self.is_silent:
            self.wake_ms = now_ms + _LOOK_MS
            return
        if not self.is_member or not self.is_installed:
            self.wake_ms = now_ms + _OFFER_MS
            return
        self._order_what_is_due(now_ms, out)
        if self._orders:
            self._propose(now_ms, out)
            self.wake_ms = now_ms + _LOOK_MS
        for replica in self._unaware():
            offered = self._offered.get(replica)
            if offered is None or now_ms - offered[1] >= _OFFER_MS:
                self._offer(replica, now_ms, out)
            self.wake_ms = min(self.wake_ms, now_ms + _OFFER_MS)
        is_pending = len(self.shape.origins) > len(self.shape.members) or self._due_since_ms
        wait_ms = _LOOK_MS if is_pending or self._somebody_leaves() else _OFFER_MS
        self.wake_ms = min(self.wake_ms, now_ms + wait_ms)

    def _unaware(self) -> list[ReplicaId]:
        """Connected replicas that were not heard under our configuration."""
        engine = self._engine
        current = engine.configuration.id
        return [
            replica
            for replica in (engine.replicas[peer] for peer in sorted(engine.connected))
            if replica not in self.heard or self.heard[replica][0] != current
        ]

    def _somebody_leaves(self) -> bool:
        newest = self._engine.rows.newest
        return any((row := newest[other]) is not None and row.is_leaving for other in self._engine.others)

    def _order_what_is_due(self, now_ms: int, out: Output) -> None:
        """What follows from the rows of all members: finals of those who were removed, and that who leaves may go."""
        engine = self._engine
        due: list[Change] = []
        for index in self.shape.origins[len(self.shape.members) :]:
            seq = self._agreed(index)
            if seq is not None:
                due.append(Final(engine.replicas[index], seq, engine.configuration.id))
        for index in engine.others:
            row = engine.rows.newest[index]
            if row is not None and row.is_leaving and self._all_have(index, row.vector[index]):
                due.append(Evict((engine.replicas[index],), engine.configuration.id))
        since = self._due_since_ms
        for change in [change for change in since if change not in due]:
            del since[change]
        for change in due:
            since.setdefault(change, now_ms)
            if now_ms - since[change] >= engine.position * _TURN_MS:
                self.order(change, now_ms, out)

    def _agreed(self, index: int) -> int | None:
        """How many commits of a removed replica all members have, if all have equally many."""
        engine = self._engine
        seq = engine.durability.vector[index]
        rows = [engine.stability.usable(other) for other in engine.others]
        return seq if all(row is not None and row[index] == seq for row in rows) else None

    def _all_have(self, index: int, seq: int) -> bool:
        """Whether all members but that one have so many commits of it."""
        engine = self._engine
        rows = [engine.stability.usable(other) for other in engine.others if other != index]
        is_here = engine.durability.vector[index] >= seq
        return is_here and all(row is not None and row[index] >= seq for row in rows)
