"""Deciding: how an order becomes the next configuration.

The question: who tries, and for how long? Whoever has something in its queue of orders proposes the first of them, waits a random time for
a quorum, and tries again in a higher ballot, longer each time in vain, so that two proposers do not outbid each other for ever. Votes are
written before they are told (``Membership.write``). A decision makes every order be judged anew: it is done, does not hold any more, or is
tried under the configuration that is in force now.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from msgspec import Struct

from crdtstore.causal import ReplicaId
from crdtstore.engine.membership.changes import Change, Evict, Final, Join, check_value, is_done, successor
from crdtstore.engine.membership.notes import Voted
from crdtstore.engine.membership.register import Proposal, Register
from crdtstore.engine.output import Output
from crdtstore.errors import ProtocolError, UsageError
from crdtstore.messages import Accept, Accepted, Ballot, Prepare, Promise, Regroup, Vote

if TYPE_CHECKING:
    from crdtstore.engine.engine import Engine
    from crdtstore.engine.membership.membership import Membership

__all__ = ["Decision"]

_PATIENCE_MS = 400
"""The least time that a ballot is given; up to twice as long, and longer each time in vain."""
MAX_ROUND = 1 << 53
"""Numbers on the wire have an end."""


class _Order(Struct):
    """A change that is wanted here; ``ticket`` names who waits for it, 0: nobody."""

    change: Change
    ticket: int = 0


class Decision:
    """What one replica wants decided, and its part in deciding. Mutable; part of ``Membership``."""

    def __init__(self, engine: Engine, membership: Membership, random: Random) -> None:
        self._engine = engine
        self._membership = membership
        self._random = random
        self.register = Register()
        self.votes_told = 0
        """So many votes of ours are durable: more may not be spoken of."""
        self.ballots = 0
        self._orders: list[_Order] = []
        self._proposal: Proposal | None = None
        self._round = 0
        """No ballot of ours is below it: others have promised higher ones."""
        self._tries = 0
        self._retry_ms = 0

    @property
    def orders(self) -> list[Change]:
        """What is wanted and not decided yet."""
        return [order.change for order in self._orders]

    def begin_anew(self) -> None:
        """Another configuration is in force."""
        self.register.begin_anew()
        self._proposal = None
        self._retry_ms = self._tries = self._round = 0

    def tell_votes(self, votes: int) -> None:
        """So many are durable."""
        self.votes_told = max(self.votes_told, votes)

    def voted(self) -> Voted:
        """What must not be forgotten."""
        return Voted(self.register.promised, self.register.accepted, self.register.votes)

    def restore(self, voted: Voted) -> None:
        """Take in what was voted; what is known already is passed over."""
        register = self.register
        if voted.votes > register.votes:
            register.promised, register.accepted, register.votes = voted.promised, voted.accepted, voted.votes
            self.votes_told = voted.votes

    # --- orders

    def order(self, change: Change, out: Output, ticket: int = 0) -> None:
        """Want a change; the answer to ``ticket`` comes out when it is decided or does not hold any more.

        Raises:  UsageError ``membership-changed`` when it does not hold now; nothing changed.
        """
        if is_done(self._engine.configuration, change):
            if ticket:
                out.decided.append((ticket, None))
            return
        if successor(self._engine.configuration, change, self._membership.me) is None:
            raise self._does_not_hold(change)
        if all(order.change != change for order in self._orders) or ticket:
            self._orders.append(_Order(change, ticket))
        self._membership.wake_ms = 0

    def try_order(self, change: Change, ticket: int, out: Output) -> None:
        """Want a change; what is wrong with it comes out as its answer."""
        try:
            self.order(change, out, ticket)
        except UsageError as error:
            out.decided.append((ticket, error))

    def give_up(self, ticket: int) -> None:
        """Who ordered it waits no more, and it is not tried again; it may have been decided all the same."""
        left = [order for order in self._orders if order.ticket != ticket]
        if len(left) < len(self._orders):
            self._proposal = None  # it may be about just that
        self._orders = left

    def has_room_for(self, join: Join) -> bool:
        """Whether one more may join now: together with it, those who hold the group must still be a quorum. Only they vote; of many who
        join at once, and never come to hold anything, nobody could be evicted.
        """
        engine, membership = self._engine, self._membership
        grown = successor(engine.configuration, join, membership.me)
        older = engine.configuration.ids[: engine.position]  # they were let in before this replica was
        holding = {membership.me, *older, *membership.claims.speakers}
        return grown is None or grown.is_quorum(holding)

    def stop(self) -> None:
        """Decide nothing any more, not even alone: this replica's id may be somebody else's."""
        self._orders, self._proposal = [], None

    def _does_not_hold(self, change: Change) -> UsageError:
        what = f"the members have changed since, the configuration is {self._engine.configuration.id} now"
        if not isinstance(change, Evict | Final):
            what = "this id was a member before and never will be again"
        return UsageError(f"{what}. Nothing changed.", code="membership-changed")

    def settle(self, out: Output) -> None:
        """Answer what is done or does not hold any more."""
        configuration, left = self._engine.configuration, []
        for order in self._orders:
            if is_done(configuration, order.change):
                if order.ticket:
                    out.decided.append((order.ticket, None))
            elif successor(configuration, order.change, self._membership.me) is None or not self._membership.is_member:
                if order.ticket:
                    out.decided.append((order.ticket, self._does_not_hold(order.change)))
            else:
                left.append(order)
        self._orders = left

    # --- proposing

    def propose(self, now_ms: int, out: Output) -> None:
        """Try to have the first order decided that may be now, in a ballot above all that is known of."""
        self.settle(out)
        changes = (change for change in self.orders if not isinstance(change, Join) or self.has_room_for(change))
        change = next(changes, None)
        if change is None:
            self._proposal = None
            return
        if self._proposal is not None and now_ms < self._retry_ms:
            return
        configuration, register = self._engine.configuration, self.register
        wanted = successor(configuration, change, self._membership.me)
        assert wanted is not None
        promised = 0 if register.promised is None else register.promised.round
        ballot = Ballot(max(promised, self._round) + 1, self._membership.me)
        patience_ms = _PATIENCE_MS << min(self._tries, 4)
        self._retry_ms = now_ms + patience_ms + self._random.randrange(patience_ms)
        self._tries += 1
        self.ballots += 1
        register.prepare(ballot)
        proposal = self._proposal = Proposal(ballot, wanted)
        accepted = register.accepted

        def then(now_ms: int, out: Output) -> None:
            self.tell_votes(votes)
            if self._proposal is proposal:
                self._tell_members(Prepare(self._engine.group, configuration.id, ballot, votes), out)
                self._on_promise(self._membership.me, accepted, now_ms, out)

        votes = register.votes
        self._membership.write(self.voted(), out, then)

    def _tell_members(self, message: Regroup, out: Output) -> None:
        engine = self._engine
        out.tell += [(engine.replicas[other], message) for other in engine.others]

    # --- voting

    def on_vote(
        self, replica: ReplicaId, message: Prepare | Promise | Accept | Accepted, now_ms: int, out: Output
    ) -> None:
        self._check(replica, message)
        proposal = self._proposal
        self._membership.claims.note_votes(replica, message.votes)
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

    def _check(self, replica: ReplicaId, message: Prepare | Promise | Accept | Accepted) -> None:
        """Could a member say this?

        Raises:  ProtocolError saying why not; nothing changed.
        """
        ballot, value, proposer = message.ballot, None, self._membership.me
        if isinstance(message, Prepare | Accept):
            proposer = replica  # two who propose in one ballot could have two things decided
        if ballot.replica != proposer:
            raise ProtocolError(f"a vote in a ballot of {ballot.replica[:80]!r}, which it is not about")
        if isinstance(message, Accept):
            value = message.vote.value
        elif isinstance(message, Promise) and message.accepted is not None:
            value = message.accepted.value
            if message.accepted.ballot.round < 1 or message.accepted.ballot >= ballot:
                raise ProtocolError(f"a promise for round {ballot.round} that was broken before it was given")
        higher = message.higher if isinstance(message, Promise | Accepted) else None
        if not 0 < ballot.round < MAX_ROUND or (higher is not None and not 0 < higher.round < MAX_ROUND):
            raise ProtocolError(f"a vote in round {ballot.round}")
        if not 0 <= message.votes <= MAX_ROUND:
            raise ProtocolError(f"{message.votes} votes")
        if value is not None:
            check_value(self._engine.configuration, value)

    def _answer_prepare(self, replica: ReplicaId, ballot: Ballot, out: Output) -> None:
        engine, register = self._engine, self.register
        about = engine.group, engine.configuration.id, ballot
        if not register.prepare(ballot):
            out.tell.append((replica, Promise(*about, self.votes_told, None, register.promised)))
            return
        self._write_vote(replica, Promise(*about, register.votes, register.accepted), out)

    def _answer_accept(self, replica: ReplicaId, vote: Vote, out: Output) -> None:
        engine, register = self._engine, self.register
        about = engine.group, engine.configuration.id, vote.ballot
        if not register.accept(vote):
            out.tell.append((replica, Accepted(*about, self.votes_told, register.promised)))
            return
        self._write_vote(replica, Accepted(*about, register.votes), out)

    def _write_vote(self, replica: ReplicaId, answer: Promise | Accepted, out: Output) -> None:
        votes = self.register.votes

        def then(now_ms: int, out: Output) -> None:
            self.tell_votes(votes)
            out.tell.append((replica, answer))

        self._membership.write(self.voted(), out, then)

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
            self.tell_votes(votes)
            if self._proposal is proposal:
                self._tell_members(Accept(self._engine.group, configuration.id, vote, votes), out)
                self._on_accepted(self._membership.me, now_ms, out)

        self._membership.write(self.voted(), out, then)

    def _on_accepted(self, replica: ReplicaId, now_ms: int, out: Output) -> None:
        proposal = self._proposal
        assert proposal is not None
        assert proposal.chosen is not None
        if proposal.take_accepted(replica, self._engine.configuration):
            self._membership.adopt(proposal.chosen, out)
