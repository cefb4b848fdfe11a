"""Who is no member, or speaks of what is not there: it is answered, and nothing of it stays behind."""

from __future__ import annotations

from time import process_time
from typing import Any

import msgspec
import pytest
from msgspec import structs

from crdtstore.causal import make_replica_id
from crdtstore.configuration import SYSTEM_GROUP, Configuration, ConfigurationId, Member
from crdtstore.errors import ProtocolError
from crdtstore.host import HostOutput
from crdtstore.messages import (
    Ask,
    Ballot,
    Configure,
    Fetch,
    Frame,
    Hello,
    Part,
    Prepare,
    Segment,
    decode_message,
    encode_message,
)
from crdtstore.service import PeerChanged
from tests.engine.broken import SHOP, Broken, next_of, standing, strangers


@pytest.fixture
def world() -> Broken:
    return Broken()


# --- being let in


def test_who_asks_for_another_is_refused(world: Broken) -> None:
    [other, stranger] = strangers(2)
    world.check_refused(Ask(other), "which it is not")
    world.check_refused(Ask(stranger), "which it is not", by=other.replica)
    world.check_refused(Ask(Member(other.replica, "NOWHERE")), "in no region", by=other.replica)
    world.check_refused(Ask(Member(other.replica, "z", "x" * 999)), "nowhere", by=other.replica)
    world.check_refused(Ask(Member("z", "z")), "replica id is", by=other.replica)  # type: ignore[arg-type]
    world.check_unaffected()


def test_who_says_that_it_left_another_nodes_id_evicts_nobody(world: Broken) -> None:
    """A directory that was copied to a node of another name is let in; whose id it was says so itself."""
    [other] = strangers(1)
    assert world.say(Ask(other, str(world.replica("eu"))), by=other.replica) == []
    world.run(2_000)
    assert world.members("us") == ["us", "eu", "ap", "z0"]
    assert world.sites["us"].host.roster._leaving == {}


def test_who_was_removed_is_told_so_and_not_let_in(world: Broken) -> None:
    sa = world.replica("sa")
    before = world.state()
    assert world.say(Ask(Member(sa, "sa")), by=sa) == []
    world.run(1_000)
    assert world.state()[0][1] == before[0][1]
    assert sa not in world.engine("us", SYSTEM_GROUP).configuration.ids


def test_any_number_of_strangers_leaves_little_behind(world: Broken) -> None:
    host = world.sites["us"].host
    now_ms = world.time_ms
    for at in range(300):
        stranger = make_replica_id("zz-1", at)
        world.sites["us"].step(PeerChanged(stranger, True))
        hello = Hello(1, world.cluster.nonce, stranger, "zz-1", "z", {SHOP: standing(world)}, "z:1")
        assert host.check_hello(encode_message(hello)).replica == stranger
        world.say(Ask(Member(stranger, "z"), str(make_replica_id("zz-1", 10_000 + at))), by=stranger)
        world.say(Frame(SHOP, ConfigurationId(at, b"n"), [Segment(0, 0, b"")], [], []), by=stranger)
        world.say(Prepare(SHOP, world.us.configuration.id, Ballot(1, stranger), 1), by=stranger)
        world.sites["us"].step(PeerChanged(stranger, False))
    assert world.time_ms == now_ms
    for engine in host.groups.values():
        membership = engine.membership
        bound = 64 + len(engine.replicas)
        assert len(engine.replicas) == 4
        assert len(membership.heard) <= bound
        assert len(membership._offered) <= bound
        assert len(membership.orders) <= 64
        assert len(membership.claims.keep()) <= 4
    assert host.roster._leaving == {}
    assert len(host.roster._book) == 4
    assert len(host._connected) <= 4
    assert host.fenced_by is None


def test_what_a_stranger_says_of_members_is_counted_and_changes_nothing(world: Broken) -> None:
    """It may be the first to bring a later configuration, for whoever slept; it may not bring one that cannot be."""
    [stranger] = strangers(1)
    now, before, count = world.us.configuration, world.state(), world.us.measures.refused
    bad = [next_of(now, members=now.members[:1]), next_of(now, epochs=()), next_of(now, epochs=((0, b"other"),))]
    for value in bad:
        world.say(Configure(SHOP, value), by=stranger.replica)
    assert world.state() == before
    assert world.us.measures.refused == count + len(bad)
    later = next_of(now, members=(*now.members, stranger))
    world.say(Configure(SHOP, later), by=stranger.replica)
    assert world.us.configuration == later


# --- first words and groups without end


def test_first_words_about_a_thousand_groups_open_none(world: Broken) -> None:
    host, ap = world.sites["us"].host, world.replica("ap")
    groups = {f"g{at}/0": standing(world) for at in range(10_000)}
    began = process_time()
    hello = Hello(1, world.cluster.nonce, ap, "ap", "ap", groups)
    assert host.check_hello(encode_message(hello)).replica == ap
    assert process_time() - began < 2
    assert set(host.groups) == {SYSTEM_GROUP, SHOP}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"configuration": ConfigurationId((1 << 64) - 1, b"n")}, "by a number"),
        ({"configuration": ConfigurationId(1, b"n" * 100_000)}, "by a number"),
    ],
)
def test_first_words_that_name_what_cannot_be(world: Broken, change: dict[str, Any], why: str) -> None:
    before = world.state()
    said = structs.replace(standing(world), **change)
    hello = Hello(1, world.cluster.nonce, world.replica("ap"), "ap", "ap", {SHOP: said})
    with pytest.raises(ProtocolError, match=why):
        world.sites["us"].host.check_hello(encode_message(hello))
    assert world.state() == before


def test_claims_about_replicas_that_nobody_knows_are_not_kept(world: Broken) -> None:
    many = {str(make_replica_id("zz-1", at)): (at, b"x" * 32) for at in range(1, 5_000)}
    said = structs.replace(standing(world), vector=many)
    hello = Hello(1, world.cluster.nonce, world.replica("ap"), "ap", "ap", {SHOP: said})
    before = world.state()
    world.sites["us"].host.check_hello(encode_message(hello))
    assert world.state() == before


@pytest.mark.parametrize(
    "group", ["", "x", "SHOP/0", "shop/", "shop/x", "shop/٣", "shop/99999", "a/b/0", "x" * 100_000 + "/0"]
)
def test_a_group_that_no_domain_has(world: Broken, group: str) -> None:
    value = Configuration(0, ((0, b"n" * 16),), (Member(world.replica("us"), "us"), Member(world.replica("ap"), "ap")))
    world.check_refused(Configure(group, value), "no group is named")
    assert set(world.sites["us"].host.groups) == {SYSTEM_GROUP, SHOP}


def test_only_so_many_groups_are_opened_by_what_somebody_says(world: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crdtstore.roster._MAX_GROUPS", 10)
    value = Configuration(1, ((0, b"n" * 16),), (Member(world.replica("us"), "us"), Member(world.replica("ap"), "ap")))
    refused = [reason for at in range(20) for reason in world.say(Configure(f"g{at}/0", value))]
    assert len(world.sites["us"].host.groups) == 10
    assert len(refused) == 12
    assert "more than 10 groups" in refused[0]


def test_a_frame_of_many_starts_takes_no_time(world: Broken) -> None:
    """Before it was refused each start cost a look at all commits."""
    now = world.us.configuration
    many = 50_000
    frame = Frame(SHOP, now.id, [Segment(0, 0, b"")] * many, [many - 1] * many, [b""] * many)
    began = process_time()
    world.check_refused(frame, "says once where it starts")
    assert process_time() - began < 2
    world.check_unaffected()


# --- parts of snapshots


@pytest.mark.parametrize("has_stores", [False, True])
def test_parts_that_nobody_asked_for(has_stores: bool) -> None:
    world = Broken(has_stores=has_stores)
    now = world.us.configuration.id
    before, groups = world.state(), set(world.sites["us"].host.groups)
    for number in (-(1 << 63), -1, 0, 1, 1 << 40, (1 << 64) - 1):
        for body in (b"", b"\xc1", b"\x90" * 1_000, b"\x91" * 100_000):
            world.say(Part(SHOP, now, b"s" * 16, number, body))
            world.say(Part(SHOP, now, b"", number, body))
            world.say(Part("none/0", now, b"s" * 16, number, body))
        for count in (-(1 << 63), -1, 0, 1, (1 << 64) - 1):
            for snapshot in (b"", b"s" * 16, b"s" * 1_000_000):
                world.say(Fetch(SHOP, now, snapshot, number, count))
    world.run(500)
    assert [each[:3] for each in world.state()] == [each[:3] for each in before]
    assert set(world.sites["us"].host.groups) == groups
    world.check_unaffected()


def test_a_snapshot_is_lent_to_members_only() -> None:
    world = Broken(has_stores=True)
    now, stranger = world.us.configuration.id, make_replica_id("zz-1", 1)
    data = encode_message(Fetch(SHOP, now, b"", 0, 4))
    out = HostOutput()
    world.sites["us"].host.receive(stranger, data, world.time_ms, out)
    assert not [each for _, each in out.send if isinstance(decode_message(each), Part)]
    world.run(500)
    installs = world.sites["us"].host.installs
    assert installs is not None
    assert msgspec.to_builtins(world.sites["us"].host.rejected_count) >= 1
