"""One decision: whatever is lost, repeated, late or forgotten before it was durable, never two; and with a fair end one."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdtstore.causal import ReplicaId, make_replica_id
from crdtstore.configuration import Configuration, Member
from crdtstore.engine.membership.register import Proposal, Register
from crdtstore.messages import Ballot, Vote

NODES = ("us", "eu", "ap", "sa", "af")


def configuration(size: int, number: int = 0) -> Configuration:
    members = tuple(Member(make_replica_id(name, at), name) for at, name in enumerate(NODES[:size]))
    return Configuration(number, ((0, b"n" * 16),), members)


class Acceptor:
    """A register and what of it is on disk; what is told waits for the disk. Mutable."""

    def __init__(self) -> None:
        self.register = Register()
        self.disk: tuple[Ballot | None, Vote | None, int] = (None, None, 0)
        self.unsaid: list[tuple[ReplicaId, tuple[object, ...]]] = []

    def sync(self) -> list[tuple[ReplicaId, tuple[object, ...]]]:
        self.disk = (self.register.promised, self.register.accepted, self.register.votes)
        said, self.unsaid = self.unsaid, []
        return said

    def crash(self) -> None:
        self.unsaid = []
        self.register.promised, self.register.accepted, self.register.votes = self.disk


class Forgetful(Acceptor):
    """The plant: it says what is not on its disk."""

    def sync(self) -> list[tuple[ReplicaId, tuple[object, ...]]]:
        said, self.unsaid = self.unsaid, []
        return said


class Council:
    """Members that all propose something of their own, and a wire that keeps every message. Mutable."""

    def __init__(self, size: int, kind: type[Acceptor] = Acceptor) -> None:
        self.configuration = configuration(size)
        self.ids = self.configuration.ids
        self.acceptors = {replica: kind() for replica in self.ids}
        self.proposals: dict[ReplicaId, Proposal] = {}
        self.rounds = dict.fromkeys(self.ids, 0)
        self.wire: list[tuple[ReplicaId, ReplicaId, tuple[object, ...]]] = []
        self.decided: set[Configuration] = set()

    def wanted(self, replica: ReplicaId) -> Configuration:
        """What this one would have decided."""
        rest = tuple(member for member in self.configuration.members if member.replica != replica)
        return Configuration(1, self.configuration.epochs, (*rest, Member(make_replica_id("new", len(replica)), "x")))

    def propose(self, replica: ReplicaId) -> None:
        self.rounds[replica] += 1
        ballot = Ballot(self.rounds[replica], replica)
        self.proposals[replica] = Proposal(ballot, self.wanted(replica))
        self.wire += [(replica, each, ("prepare", ballot)) for each in self.ids]

    def deliver(self, at: int, *, is_kept: bool = False) -> None:
        source, target, words = self.wire[at]
        if not is_kept:
            del self.wire[at]
        kind, acceptor = words[0], self.acceptors[target]
        if kind == "prepare":
            assert isinstance(words[1], Ballot)
            if acceptor.register.prepare(words[1]):
                acceptor.unsaid.append((source, ("promise", words[1], acceptor.register.accepted)))
            else:
                acceptor.unsaid.append((source, ("higher", acceptor.register.promised)))
        elif kind == "accept":
            assert isinstance(words[1], Vote)
            if acceptor.register.accept(words[1]):
                acceptor.unsaid.append((source, ("accepted", words[1].ballot)))
            else:
                acceptor.unsaid.append((source, ("higher", acceptor.register.promised)))
        elif kind == "higher":
            assert isinstance(words[1], Ballot)
            self.rounds[target] = max(self.rounds[target], words[1].round)
        else:
            self._answer(source, target, words)

    def _answer(self, source: ReplicaId, target: ReplicaId, words: tuple[object, ...]) -> None:
        proposal = self.proposals.get(target)
        if proposal is None or proposal.ballot != words[1]:
            return
        if words[0] == "promise":
            accepted = words[2]
            assert accepted is None or isinstance(accepted, Vote)
            if proposal.take_promise(source, accepted, self.configuration):
                assert proposal.chosen is not None
                vote = Vote(proposal.ballot, proposal.chosen)
                self.wire += [(target, each, ("accept", vote)) for each in self.ids]
        elif proposal.chosen is not None and proposal.take_accepted(source, self.configuration):
            self.decided.add(proposal.chosen)

    def sync(self, replica: ReplicaId) -> None:
        self.wire += [(replica, target, words) for target, words in self.acceptors[replica].sync()]

    def crash(self, replica: ReplicaId) -> None:
        """What is not on disk is gone, the proposal too; what it said before may still come."""
        self.acceptors[replica].crash()
        self.proposals.pop(replica, None)
        self.rounds[replica] = 0 if self.acceptors[replica].disk[0] is None else self.acceptors[replica].disk[0].round

    def do(self, random: Random) -> None:
        """Anything happens."""
        replica, do = random.choice(self.ids), random.random()
        if do < 0.08:
            self.propose(replica)
        elif do < 0.13:
            self.crash(replica)
        elif do < 0.4:
            self.sync(replica)
        elif self.wire:
            at = random.randrange(len(self.wire))
            if do < 0.5:
                del self.wire[at]
            else:
                self.deliver(at, is_kept=do < 0.6)

    def end_fairly(self, leader: ReplicaId) -> None:
        """Only one proposes, nothing is lost: some ballot is above all others."""
        for _ in range(4):
            self.propose(leader)
            while self.wire or any(acceptor.unsaid for acceptor in self.acceptors.values()):
                while self.wire:
                    self.deliver(0)
                for replica in self.ids:
                    self.sync(replica)


def run(size: int, seed: int, kind: type[Acceptor] = Acceptor, steps: int = 300) -> Council:
    random, council = Random(seed), Council(size, kind)
    for _ in range(steps):
        council.do(random)
    council.end_fairly(random.choice(council.ids))
    return council


@given(st.integers(1, 5), st.integers(0, 1 << 32))
def test_one_thing_is_decided_and_only_one(size: int, seed: int) -> None:
    council = run(size, seed)
    assert len(council.decided) == 1


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_who_forgets_its_votes_decides_two_things(size: int) -> None:
    """The checker can fail: an acceptor that speaks before its disk has written decides twice."""
    assert any(len(run(size, seed, Forgetful).decided) > 1 for seed in range(400))


@pytest.mark.parametrize("size", [3, 4, 5])
def test_a_proposer_that_passes_over_what_was_accepted_decides_two_things(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Proposal.take_promise
    monkeypatch.setattr(
        Proposal, "take_promise", lambda self, replica, accepted, held: honest(self, replica, None, held)
    )
    assert any(len(run(size, seed).decided) > 1 for seed in range(200))


@pytest.mark.parametrize("size", [2, 4])
def test_half_of_the_members_without_the_oldest_would_decide_two_things(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly half counts only with the oldest among them, or each half would decide."""

    def any_half(self: Configuration, replicas: object) -> bool:
        return 2 * sum(member.replica in replicas for member in self.members) >= len(self.members)  # type: ignore[operator]

    monkeypatch.setattr(Configuration, "is_quorum", any_half)
    assert any(len(run(size, seed).decided) > 1 for seed in range(200))


@pytest.mark.parametrize("size", [2, 4])
def test_half_with_the_oldest_decides_alone(size: int) -> None:
    council = Council(size)
    here = council.ids[: size // 2]
    council.propose(here[0])
    for _ in range(6):
        for at in reversed(range(len(council.wire))):
            if council.wire[at][1] in here:
                council.deliver(at)
        for replica in here:
            council.sync(replica)
    assert council.decided == {council.wanted(here[0])}
    other = Council(size)
    there = other.ids[size // 2 :]
    other.propose(there[0])
    for _ in range(6):
        for at in reversed(range(len(other.wire))):
            if other.wire[at][1] in there:
                other.deliver(at)
        for replica in there:
            other.sync(replica)
    assert other.decided == set(), "the half without the oldest decides nothing"


def test_a_promise_holds_below_and_a_vote_counts_once_for_each() -> None:
    us, eu = configuration(2).ids
    register, value = Register(), configuration(2, 1)
    assert register.prepare(Ballot(2, us))
    assert not register.prepare(Ballot(2, us)), "repeated"
    assert not register.prepare(Ballot(1, eu)), "us-1 < eu-1 does not matter: the round is lower"
    assert not register.accept(Vote(Ballot(1, eu), value))
    assert register.accept(Vote(Ballot(2, us), value))
    assert register.votes == 2
    assert register.prepare(Ballot(3, eu))
    assert register.accepted == Vote(Ballot(2, us), value)
    register.begin_anew()
    assert (register.promised, register.accepted, register.votes) == (None, None, 3), "votes are counted for ever"


def test_what_was_accepted_is_promised_too() -> None:
    """Without it an older value could take the place of one that was decided; a random search finds that once in thousands."""
    us, eu = configuration(2).ids
    register, value, other = Register(), configuration(2, 1), configuration(1, 1)
    assert register.prepare(Ballot(1, us))
    assert register.accept(Vote(Ballot(3, eu), value)), "it need not have promised that very ballot"
    assert not register.prepare(Ballot(2, us))
    assert not register.accept(Vote(Ballot(2, us), other))
    assert register.accepted == Vote(Ballot(3, eu), value)
