"""One decision: which configuration follows this one. Single-decree Paxos among the members of a configuration.

The question: how can nobody decide two things, whoever crashes, and however late messages are? A value is decided when a quorum has
accepted it in one ballot. Any two quorums share a member, and who wants to propose in a higher ballot asks a quorum first: of what that
quorum has accepted it proposes the value of the highest ballot. So once a value may be decided nobody proposes another one.
An acceptor's promise and what it accepted are durable before anybody hears of them (``Membership`` sees to that).

Source: Lamport, "Paxos Made Simple", 2001.
"""

from __future__ import annotations

from crdtstore.causal import ReplicaId
from crdtstore.configuration import Configuration
from crdtstore.messages import Ballot, Vote

__all__ = ["Proposal", "Register"]


class Register:
    """What one acceptor has promised and accepted, for the configuration in force. Mutable."""

    __slots__ = ("accepted", "promised", "votes")

    def __init__(self) -> None:
        self.promised: Ballot | None = None
        self.accepted: Vote | None = None
        self.votes = 0
        """How often it promised or accepted anything, in all configurations: who has forgotten a vote counts less of them than a peer
        was told."""

    def prepare(self, ballot: Ballot) -> bool:
        """Promise to take part in nothing below this ballot; False: something higher was promised."""
        if self.promised is not None and ballot <= self.promised:
            return False
        self.promised = ballot
        self.votes += 1
        return True

    def accept(self, vote: Vote) -> bool:
        """Accept a value; False: something higher was promised."""
        if self.promised is not None and vote.ballot < self.promised:
            return False
        self.promised = vote.ballot
        self.accepted = vote
        self.votes += 1
        return True

    def begin_anew(self) -> None:
        """Another configuration is in force; what was voted for its successor is not known yet."""
        self.promised = self.accepted = None


class Proposal:
    """What one proposer tries in one ballot. Mutable."""

    __slots__ = ("ballot", "chosen", "promises", "supporters", "wanted")

    def __init__(self, ballot: Ballot, wanted: Configuration) -> None:
        self.ballot = ballot
        self.wanted = wanted
        self.promises: dict[ReplicaId, Vote | None] = {}
        self.supporters: set[ReplicaId] = set()
        self.chosen: Configuration | None = None
        """What is proposed, once a quorum has promised."""

    def take_promise(self, replica: ReplicaId, accepted: Vote | None, configuration: Configuration) -> bool:
        """An acceptor promised; True once, when a quorum has and ``chosen`` is known."""
        self.promises[replica] = accepted
        if self.chosen is not None or not configuration.is_quorum(self.promises):
            return False
        votes = [vote for vote in self.promises.values() if vote is not None]
        self.chosen = max(votes, key=lambda vote: vote.ballot).value if votes else self.wanted
        return True

    def take_accepted(self, replica: ReplicaId, configuration: Configuration) -> bool:
        """An acceptor accepted ``chosen``; whether it is decided."""
        self.supporters.add(replica)
        return configuration.is_quorum(self.supporters)
