"""First words: who is let in, what of it counts, and what a peer remembers of this node that it does not know itself."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest

from crdtstore.causal import make_replica_id
from crdtstore.configuration import SYSTEM_GROUP, ConfigurationId, Member
from crdtstore.engine.events import Persisted
from crdtstore.engine.membership.changes import Join
from crdtstore.engine.options import Options
from crdtstore.errors import DecodeError, ProtocolError
from crdtstore.host import Host, HostOutput
from crdtstore.messages import Claim, Configure, Hello, Standing, decode_message, encode_message
from crdtstore.service import Service
from tests.engine.two_nodes import CLUSTER, EU, US, Nodes, hello_of, nodes

AP = Member(make_replica_id("ap-1", 9), "ap", "ap.example:7001")
SHOP = "shop/0"


# --- who is let in


def test_a_member_says_hello() -> None:
    made = nodes()
    assert made.services[US].host.check_hello(hello_of(made, gossip="eu:7")) == Member(EU, "eu", "eu:7")
    us = made.services[EU].host.check_hello(made.services[US].host.hello(None, made.now_ms))
    assert us == CLUSTER.members[0]
    assert not any(service.host.fenced_by for service in made.services.values())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"protocol": 2}, "protocol 2"),
        ({"cluster": b"other"}, "another cluster"),
        ({"node": "eu-2"}, "is not what it says"),
        ({"region": "ap"}, "is not what it says"),
        ({"replica": str(AP.replica)}, "is not what it says"),
        ({"replica": "eu-1", "node": "eu-1"}, "replica id is"),
        ({"replica": str(US), "node": "us-1", "region": "us"}, "reached itself"),
    ],
)
def test_who_is_refused_at_the_door(changes: dict[str, Any], why: str) -> None:
    made = nodes()
    host = made.services[US].host
    with pytest.raises(ProtocolError, match=why):
        host.check_hello(hello_of(made, **changes))
    assert host.fenced_by is None


def test_who_speaks_under_my_id_and_is_not_me_fences_me() -> None:
    made = nodes()
    host = made.services[US].host
    mine = decode_message(host.hello(None, made.now_ms))
    assert isinstance(mine, Hello)
    with pytest.raises(ProtocolError, match="under this node's id"):
        host.check_hello(encode_message(msgspec.structs.replace(mine, process=mine.process ^ 1)))
    assert all(engine.is_fenced for engine in host.groups.values())


def test_the_first_words_are_a_hello_of_this_version() -> None:
    made = nodes()
    host = made.services[US].host
    sender, data = next((sender, data) for sender, data in made.heard if sender == EU)
    with pytest.raises(ProtocolError, match="begins with a hello"):
        host.check_hello(data)
    with pytest.raises(ProtocolError, match="protocol version 9, this node speaks 1"):
        host.check_hello(b"\x09" + data[1:])
    with pytest.raises(DecodeError):
        host.check_hello(b"")
    assert sender == EU


def test_a_group_that_is_not_declared_here_yet_is_no_reason_to_refuse() -> None:
    made = nodes()
    host = Host(CLUSTER, US, Options(), Random(1))
    hello = decode_message(made.services[EU].host.hello(None, made.now_ms))
    assert isinstance(hello, Hello)
    groups = {name: words for name, words in hello.groups.items() if name != SYSTEM_GROUP}
    assert groups
    assert host.check_hello(encode_message(msgspec.structs.replace(hello, groups=groups))).replica == EU
    assert set(host.groups) == {SYSTEM_GROUP}


# --- a stranger


def test_a_stranger_is_greeted_and_nothing_that_it_says_counts() -> None:
    made = nodes()
    words = hello_of(made, replica=str(AP.replica), node="ap-1", region="ap", gossip=AP.gossip)
    host = made.services[US].host
    assert host.check_hello(words) == AP
    fresh = Service(Host(CLUSTER, US, Options(), Random(1)))
    fresh.host.recover((at, [each for each in entries if each.origin == US]) for at, entries in made.logs[US].replay())
    before = {group: (list(each.applied), each.digest, each.rows.newest) for group, each in fresh.host.groups.items()}
    said = HostOutput()
    for sender, data in made.heard:
        if sender == EU:
            fresh.host.receive(AP.replica, data, made.now_ms, said)
    assert {
        group: (list(each.applied), each.digest, each.rows.newest) for group, each in fresh.host.groups.items()
    } == before
    assert said.persist == []
    assert {peer for peer, _ in said.send} <= {AP.replica}
    assert all(isinstance(decode_message(data), Configure) for _, data in said.send)
    assert all(AP.replica not in engine.replicas for engine in fresh.host.groups.values())
    assert fresh.host.roster.member(AP.replica) is None
    for sender, data in made.heard:  # the very same counts when a member says it
        if sender == EU:
            fresh.host.receive(EU, data, made.now_ms, said)
    assert fresh.host.groups[SHOP].applied == host.groups[SHOP].applied


# --- another configuration


def decide(made: Nodes, member: Member) -> list[bytes]:
    """us, the oldest of two, decides by itself that somebody joins; what it says meanwhile reaches nobody."""
    host, said, out = made.services[US].host, [], HostOutput()
    host.order(SHOP, Join(member), 1, made.now_ms, out)
    for _ in range(8):
        host.tick(made.now_ms, out)
        host.finish(made.now_ms, out)
        said += [data for peer, data in out.send if peer == EU]
        number, out = out.persist_number, HostOutput()
        if number:
            host.persisted(Persisted(number), made.now_ms, out)
        made.now_ms += 100
    return said


def test_another_configuration_leads_to_an_exchange_of_configurations() -> None:
    made = nodes()
    decide(made, AP)
    us, eu = (made.services[who].host.groups[SHOP] for who in (US, EU))
    assert (us.configuration.number, eu.configuration.number) == (1, 0)
    made.services[US].host.check_hello(hello_of(made))
    made.services[EU].host.check_hello(hello_of(made, US))
    made.heard.clear()
    made.connect()
    made.pass_time(2_000)
    assert us.configuration == eu.configuration
    told = [
        (sender, message.value.number)
        for sender, data in made.heard
        if isinstance(message := decode_message(data), Configure) and message.group == SHOP
    ]
    assert (US, 1) in told
    assert (EU, 1) in told
    assert not us.is_fenced
    assert not eu.is_fenced
    made.ask(EU, "commit", domain="shop", ops=[{"collection": "counter", "key": "k", "op": "add"}])
    made.pass_time(1_000)
    assert us.applied[:2] == eu.applied[:2] == [1, 2]
    assert us.measures.foreign_configuration > 0 or eu.measures.foreign_configuration > 0


def test_who_is_ahead_takes_nothing_from_who_is_behind_but_shows_its_configuration() -> None:
    made = nodes()
    old = [data for sender, data in made.heard if sender == EU]
    decide(made, AP)
    host = made.services[US].host
    engine, out = host.groups[SHOP], HostOutput()
    before = list(engine.applied), engine.digest
    for data in old:
        host.receive(EU, data, made.now_ms, out)
    shown = [message for peer, data in out.send if isinstance(message := decode_message(data), Configure)]
    assert [message.value for message in shown if message.group == SHOP] == [engine.configuration], "once"
    assert (list(engine.applied), engine.digest) == before
    assert engine.rows.newest == [None] * 3


# --- what a peer remembers of this node


def standing(made: Nodes, group: str = SHOP) -> Standing:
    hello = decode_message(made.services[EU].host.hello(US, made.now_ms))
    assert isinstance(hello, Hello)
    return hello.groups[group]


def claim(made: Nodes, **changes: Any) -> Standing:
    said = standing(made)
    assert said.yours is not None
    return msgspec.structs.replace(said, yours=msgspec.structs.replace(said.yours, **changes))


def test_a_peer_remembers_all_that_it_was_told() -> None:
    made = nodes()
    said, engine = standing(made), made.services[US].host.groups[SHOP]
    assert said.configuration == engine.configuration.id
    assert said.has == 1
    assert said.chain == engine.history.chain(0, 1)
    assert said.vector == {str(US): (1, engine.history.chain(0, 1)), str(EU): (1, engine.history.chain(1, 1))}
    assert said.yours == Claim(engine.configuration.id, {str(US): 1, str(EU): 1}, 0)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda made: claim(made, vector={str(US): 2}), "it had 2 commits of us-1"),
        (lambda made: claim(made, vector={str(US): 1, str(EU): 2}), "it had 2 commits of eu-1"),
        (lambda made: claim(made, vector={str(AP.replica): 1}), "it had 1 commits of ap-1"),
        (lambda made: claim(made, configuration=ConfigurationId(1, b"n" * 16)), "heard it in configuration 1"),
        (lambda made: claim(made, votes=1), "heard of 1 votes"),
        (lambda made: msgspec.structs.replace(standing(made), has=2), "has 2 commits of it"),
        (lambda made: msgspec.structs.replace(standing(made), chain=b"x" * 32), "another history of us-1"),
        (
            lambda made: msgspec.structs.replace(standing(made), vector={str(US): (2, b"x" * 32)}),
            "has 2 commits of this replica",
        ),
        (
            lambda made: msgspec.structs.replace(standing(made), vector={str(US): (1, b"x" * 32)}),
            "another history of us-1",
        ),
    ],
)
def test_what_a_peer_remembers_of_me_and_i_do_not_know_fences_me(change: Any, why: str) -> None:
    made = nodes()
    host = made.services[US].host
    with pytest.raises(ProtocolError, match=why):
        host.check_hello(hello_of(made, groups={SHOP: change(made)}))
    assert host.fenced_by is not None
    assert all(engine.is_fenced and not engine.may_issue for engine in host.groups.values()), "one id is in all groups"
    error = made.ask(US, "commit", domain="shop", ops=[{"collection": "counter", "key": "k", "op": "add"}])
    assert (error.code, error.effect) == ("fenced", "none")


@pytest.mark.parametrize(
    "change",
    [
        lambda made: claim(made, vector={}),
        lambda made: claim(made, vector={str(US): 1, str(AP.replica): 0}),
        lambda made: claim(made, configuration=ConfigurationId(0, b"of another line")),
        lambda made: msgspec.structs.replace(standing(made), yours=None, has=0, chain=b""),
        lambda made: msgspec.structs.replace(standing(made), has=1, chain=b""),
        lambda made: msgspec.structs.replace(standing(made), vector={str(EU): (9, b"not here yet")}),
        lambda made: msgspec.structs.replace(standing(made), vector={str(AP.replica): (9, b"unknown")}),
    ],
)
def test_who_remembers_no_more_than_i_know_is_let_in(change: Any) -> None:
    made = nodes()
    host = made.services[US].host
    assert host.check_hello(hello_of(made, groups={SHOP: change(made)})).replica == EU
    assert host.fenced_by is None


def test_another_history_of_a_peer_is_refused_and_fences_nobody_here() -> None:
    made = nodes()
    host = made.services[US].host
    other = msgspec.structs.replace(standing(made), vector={str(EU): (1, b"x" * 32)})
    with pytest.raises(ProtocolError, match="another history of eu-1"):
        host.check_hello(hello_of(made, groups={SHOP: other}))
    assert host.fenced_by is None


def test_a_peer_that_remembers_more_of_me_fences_me_before_any_write() -> None:
    """us lost its log and comes back under its old id: eu tells it what it has forgotten."""
    made = nodes()
    made.services[US] = Service(Host(CLUSTER, US, Options(), Random(1)))
    us = made.services[US].host
    with pytest.raises(ProtocolError, match="has forgotten what it said"):
        us.check_hello(made.services[EU].host.hello(US, made.now_ms))
    assert us.groups[SYSTEM_GROUP].is_fenced
    error = made.ask(US, "declare_domain", domain="other")
    assert (error.code, error.effect) == ("fenced", "none")
    status = made.services[US].status(made.now_ms)
    assert status["ready"] is False
    assert "takes no write any more" in status["why"]


def test_a_vote_is_remembered_by_who_heard_of_it() -> None:
    """Votes are counted in what peers keep of each other, so one that is forgotten is noticed before another is given."""
    made = nodes()
    said = decide(made, AP)
    host = made.services[EU].host
    for data in said:
        host.receive(US, data, made.now_ms, HostOutput())
    votes = made.services[US].host.groups[SHOP].membership.decision.register.votes
    assert votes == 2, "a promise and what it accepted"
    kept = standing(made).yours
    assert kept is not None
    assert kept.votes == votes
