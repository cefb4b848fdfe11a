"""A peer with valid credentials that is broken, or means harm: refused as a whole, counted, and nobody else notices.

Rows and frames of such a peer are in ``test_untrue``, what it remembers of others in ``test_hello``, bytes in ``test_host``, any change of
any message in ``test_mutations``. Here is what it says of members: configurations, votes, in ``test_strangers`` who asks to be let in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from crdtstore.causal import ReplicaId, make_replica_id
from crdtstore.configuration import SYSTEM_GROUP, Configuration, ConfigurationId, Member, Removed
from crdtstore.messages import (
    Accept,
    Accepted,
    Ack,
    Ballot,
    Configure,
    Digest,
    Message,
    Prepare,
    Promise,
    Vote,
    decode_message,
)
from crdtstore.service import Received
from tests.engine.broken import SHOP, Broken, next_of, strangers


@pytest.fixture
def world() -> Broken:
    return Broken()


# --- configurations

BAD_CONFIGURATIONS: list[tuple[str, Callable[[Configuration], Configuration], str]] = [
    ("drops", lambda now: next_of(now, members=now.members[:2]), "vanished"),
    ("drops-removed", lambda now: next_of(now, removed=()), "is not so"),
    (
        "brings-back",
        lambda now: next_of(now, members=(*now.members, now.removed[0].member), removed=()),
        "is not so",
    ),
    ("is-both", lambda now: next_of(now, members=(*now.members, now.removed[0].member)), "twice"),
    ("other-final", lambda now: next_of(now, removed=(Removed(now.removed[0].member, 2),)), "is not so"),
    ("no-final", lambda now: next_of(now, removed=(Removed(now.removed[0].member),)), "is not so"),
    ("another-oldest", lambda now: next_of(now, members=now.members[::-1]), "another order"),
    ("10,000", lambda now: next_of(now, members=(*now.members, *strangers(10_000))), "too many"),
    (
        "10,000-removed",
        lambda now: next_of(now, removed=(*now.removed, *(Removed(each, 0) for each in strangers(10_000)))),
        "too many",
    ),
    ("nobody", lambda now: next_of(now, members=()), "nobody"),
    ("same-id", lambda now: structs.replace(now, members=(*now.members, *strangers(1))), "two configurations"),
    ("no-line", lambda now: next_of(now, epochs=()), "does not lead"),
    ("a-line-to-come", lambda now: next_of(now, epochs=(*now.epochs, (99, b"n"))), "does not lead"),
    ("huge", lambda now: structs.replace(now, number=(1 << 64) - 1), "by a number"),
    ("long-nonce", lambda now: next_of(now, epochs=((0, b"n" * 1_000_000),)), "by a number"),
    ("bad-id", lambda now: next_of(now, members=(*now.members, Member("x" * 99, "x"))), "replica id is"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(
    ("spoil", "why"), [each[1:] for each in BAD_CONFIGURATIONS], ids=[each[0] for each in BAD_CONFIGURATIONS]
)
def test_a_configuration_that_cannot_be(
    world: Broken, spoil: Callable[[Configuration], Configuration], why: str
) -> None:
    for group in (SYSTEM_GROUP, SHOP):
        value = spoil(world.engine("us", group).configuration)
        world.check_refused(Configure(group, value), why)
    world.check_unaffected()


def test_another_line_is_an_alarm_and_no_more(world: Broken) -> None:
    now = world.us.configuration
    other = next_of(now, epochs=((0, b"another line"),))
    world.check_refused(Configure(SHOP, other), "lines that parted")
    assert world.us.membership.splits == {world.replica("ap"): other.id}
    assert world.say(Configure(SHOP, other)) == [], "said once"
    for at in range(200):
        by = make_replica_id("zz-1", at)
        world.say(Configure(SHOP, next_of(now, epochs=((0, at.to_bytes(16)),))), by)
    assert len(world.us.membership.splits) <= 64 + len(world.us.replicas)
    assert world.replica("ap") in world.us.membership.splits, "who is known is not forgotten for strangers"
    world.check_unaffected()


def test_what_is_said_under_a_name_without_end_is_not_kept(world: Broken) -> None:
    row = world.us.own_row(world.time_ms)
    before = dict(world.us.membership.heard)
    for name in (ConfigurationId(1, b"n" * 100_000), ConfigurationId((1 << 64) - 1, b"n"), ConfigurationId(-1, b"n")):
        world.check_refused(Ack(SHOP, name, row), "by a number")
    assert world.us.membership.heard == before


def test_a_digest_with_one_false_row_leaves_nothing_of_the_others(world: Broken) -> None:
    engine = world.us
    row = engine.membership.shape.narrow(engine.own_row(world.time_ms))
    true = structs.replace(row, votes=row.votes + 7)
    false = structs.replace(row, hlc=-1)
    digest = Digest(SHOP, engine.configuration.id, true, [None, false, None], wants_answer=True)
    world.check_refused(digest, "counts from zero")
    world.say(structs.replace(digest, others=[None, None, None]))
    assert engine.membership.claims.keep()[world.replica("ap")].votes == row.votes + 7, "it would have counted"
    world.check_unaffected()


# --- votes

HUGE = 1 << 53


def votes(world: Broken) -> list[tuple[str, Message, str]]:
    engine = world.us
    now, us, ap = engine.configuration, world.replica("us"), world.replica("ap")
    good, mine = next_of(now, members=(*now.members, *strangers(1))), Ballot(7, ap)
    about = SHOP, now.id
    values = [
        ("the same", now, "does not come next"),
        ("one before", structs.replace(now, number=now.number - 1), "does not come next"),
        ("one later", structs.replace(now, number=now.number + 2), "does not come next"),
        ("another epoch", next_of(now, epochs=(*now.epochs, (now.number + 1, b"mine"))), "does not come next"),
        ("without eu", next_of(now, members=(now.members[0],)), "vanished"),
        ("10,000", next_of(now, members=(*now.members, *strangers(10_000))), "too many"),
        ("no line", next_of(now, epochs=()), "does not lead"),
    ]
    found: list[tuple[str, Message, str]] = []
    for name, value, why in values:
        found.append((f"accept {name}", Accept(*about, Vote(mine, value), 1), why))
        promise = Promise(*about, Ballot(7, us), 1, Vote(Ballot(6, ap), value))
        found.append((f"promise {name}", promise, why))
    return [
        *found,
        ("prepare for us", Prepare(*about, Ballot(9, us), 1), "not about"),
        ("prepare for eu", Prepare(*about, Ballot(9, world.replica("eu")), 1), "not about"),
        ("accept for eu", Accept(*about, Vote(Ballot(9, world.replica("eu")), good), 1), "not about"),
        ("promise to itself", Promise(*about, mine, 1, None), "not about"),
        ("accepted by itself", Accepted(*about, mine, 1), "not about"),
        ("round 0", Prepare(*about, Ballot(0, ap), 1), "in round 0"),
        ("round -1", Accept(*about, Vote(Ballot(-1, ap), good), 1), "in round -1"),
        ("round 2^53", Prepare(*about, Ballot(HUGE, ap), 1), "in round"),
        ("round 2^64", Prepare(*about, Ballot((1 << 64) - 1, ap), 1), "in round"),
        ("higher 2^64", Promise(*about, Ballot(1, us), 1, None, Ballot((1 << 64) - 1, ap)), "in round"),
        ("refused by 2^64", Accepted(*about, Ballot(1, us), 1, Ballot((1 << 64) - 1, ap)), "in round"),
        ("2^64 votes", Prepare(*about, mine, (1 << 64) - 1), "votes"),
        ("-1 votes", Prepare(*about, mine, -1), "votes"),
        ("broken before", Promise(*about, Ballot(7, us), 1, Vote(Ballot(8, ap), good)), "broken before"),
        ("broken by zero", Promise(*about, Ballot(7, us), 1, Vote(Ballot(0, ap), good)), "broken before"),
    ]


def test_votes_that_cannot_be(world: Broken) -> None:
    endless = Ballot(7, ReplicaId("x" * 100_000))
    assert len(world.say(Prepare(SHOP, world.us.configuration.id, endless, 1))[0]) < 500, "it goes into a log"
    for name, message, why in votes(world):
        try:
            world.check_refused(message, why)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
    world.check_unaffected()


def test_answers_to_what_was_never_asked_count_for_nothing(world: Broken) -> None:
    now, us = world.us.configuration, world.replica("us")
    good = next_of(now, members=(*now.members, *strangers(1)))
    before = world.us.configuration, world.us.membership.decision.voted()
    for ballot in (Ballot(1, us), Ballot(7, us)):
        for _ in range(3):
            assert world.say(Promise(SHOP, now.id, ballot, 0, None)) == []
            assert world.say(Accepted(SHOP, now.id, ballot, 0)) == []
    assert world.say(Promise(SHOP, now.id, Ballot(7, us), 0, Vote(Ballot(6, world.replica("ap")), good))) == []
    world.run(1_000)
    assert (world.us.configuration, world.us.membership.decision.voted()) == before
    world.check_unaffected()


def test_a_promise_that_lies_does_not_stop_the_others_from_deciding(world: Broken) -> None:
    """ap answers every attempt of us with something it says it accepted; without eu nothing is decided, with it the right thing."""
    world.cut(("us", "eu"))
    answers = world.evict("us", "ap")
    now, us = world.configuration("us"), world.replica("us")
    lie = structs.replace(now, number=now.number + 5)
    for _ in range(20):
        world.run(100)
        promised = world.engine("us", SYSTEM_GROUP).membership.decision.register.promised
        if promised is not None and promised.replica == us:
            assert world.say(Promise(SYSTEM_GROUP, now.id, promised, 0, Vote(Ballot(1, us), lie)))
    assert world.configuration("us") == now
    world.cut()
    world.run(5_000)
    assert answers == [None]
    assert world.members("us") == world.members("eu", SHOP) == ["us", "eu"]


def test_two_attempts_in_one_name_are_told_apart(world: Broken) -> None:
    """The plant of the rule: if a ballot might be anybody's, two values could be accepted in it."""
    now, eu = world.us.configuration, world.replica("eu")
    values = [next_of(now, members=(*now.members, each)) for each in strangers(2)]
    ballot = Ballot(3, eu)
    assert world.say(Accept(SHOP, now.id, Vote(ballot, values[0]), 0), eu) == []
    world.check_refused(Accept(SHOP, now.id, Vote(ballot, values[1]), 0), "not about")
    accepted = world.us.membership.decision.register.accepted
    assert accepted is not None
    assert accepted.value == values[0]


# --- what was said before


def test_what_was_said_under_other_configurations_counts_no_more() -> None:
    class Keeping(Broken):
        kept: list[tuple[ReplicaId, bytes]]

        def deliver(self) -> None:
            self.__dict__.setdefault("kept", []).extend(
                (source, data) for target, source, data in self.waiting if target == self.replica("us")
            )
            super().deliver()

        def replica(self, name: str) -> ReplicaId:
            return next(member.replica for member in self.cluster.members if member.node == name)

    world = Keeping()
    old = []
    for source, data in world.kept:
        message: Any = decode_message(data)
        said = getattr(message, "configuration", None)
        engine = world.sites["us"].host.groups.get(message.group)
        if engine is not None and said is not None and said != engine.configuration.id:
            old.append((source, data))
    kinds = {type(decode_message(data)).__name__ for _, data in old}
    assert kinds >= {"Frame", "Digest", "Ack", "Configure", "Prepare", "Promise", "Accept", "Accepted"} - {
        "Prepare",
        "Accept",
    }
    before, refused = world.state(), world.sites["us"].host.rejected_count
    for source, data in old:
        out = world.sites["us"].step(Received(source, data))
        assert out.persist == []
        assert all(isinstance(decode_message(each), Configure) for _, each in out.send)
    assert world.state() == before
    assert world.sites["us"].host.rejected_count == refused, "it was true when it was said"
    world.check_unaffected()
