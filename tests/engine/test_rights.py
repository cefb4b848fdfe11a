"""Rights move to where they are needed: asked for, given, asked for ahead; whatever is lost or said twice."""

from __future__ import annotations

from typing import Any

import pytest

from crdtstore.commit import REASON, decode_commit
from crdtstore.engine.demand import Demand
from crdtstore.engine.events import Received
from crdtstore.engine.output import Committed
from crdtstore.errors import InsufficientRights
from crdtstore.messages import Want, decode_message, encode_message
from tests.engine.markets import COLLECTION, TYPE, ask, error, market, pass_time, rights, values, wants
from tests.engine.wire import Wire, flush, op

# --- asking and giving


def test_who_lacks_rights_asks_the_richest_and_is_served_in_one_round() -> None:
    wire = market()
    ticket = ask(wire, "eu", "consume", wait_ms=1_000, amount=3)
    assert wire.answer_to(ticket) is None
    [want] = wants(wire, "eu", "us")
    assert (want.collection, want.key, want.amount, want.waits) == (COLLECTION, "k", 3, 3)
    assert not wants(wire, "eu", "ap")
    flush(wire)
    assert values(wire, ticket) == [7]
    wire.settle()
    wire.check_same()
    assert rights(wire, "ap") == {"here": 0, "held": 0, "elsewhere": {"us": 7, "eu": 0}}


def test_a_gift_is_an_ordinary_commit_of_the_store() -> None:
    wire = market()
    ask(wire, "eu", "consume", wait_ms=1_000, amount=3)
    flush(wire)
    [_, [(_, data)]] = wire.disks["us"][:2]
    commit = decode_commit(data)
    assert (commit.author, commit.attribute(REASON)) == ("crdtstore", "rights that eu asked for")


def test_a_reservation_and_a_transfer_wait_for_rights_too() -> None:
    wire = market()
    held = ask(wire, "eu", "reserve", wait_ms=1_000, amount=3, ttl_ms=60_000)
    moved = ask(wire, "ap", "transfer", wait_ms=1_000, amount=2, to="eu")
    pass_time(wire, 300)
    [hold] = values(wire, held)
    assert values(wire, moved) == [7]
    assert rights(wire, "eu")["held"] == 3
    assert values(wire, ask(wire, "eu", "confirm", hold=hold)) == [7]


def test_who_cannot_be_served_is_refused_when_the_wait_is_over_with_what_others_seem_to_have() -> None:
    wire = market()
    wire.cut("us", "eu")
    wire.cut("us", "ap")
    ticket = ask(wire, "eu", "consume", wait_ms=300, amount=3)
    for _ in range(29):
        wire.tick(10)
        assert wire.answer_to(ticket) is None
    wire.tick(10)
    refused = error(wire, ticket)
    assert isinstance(refused, InsufficientRights)
    assert (refused.requested, refused.here, refused.elsewhere) == (3, 0, 10)
    assert refused.by_region == {"us": 10, "ap": 0}
    assert refused.code == "insufficient-rights"
    assert "Nothing changed" in refused.detail


def test_who_does_not_want_to_wait_is_refused_at_once_but_asks_all_the_same() -> None:
    wire = market()
    ticket = ask(wire, "eu", "consume", amount=3)
    assert isinstance(error(wire, ticket), InsufficientRights)
    flush(wire)
    assert values(wire, ask(wire, "eu", "consume", amount=3)) == [7], "the next one finds them"


def test_nobody_waits_for_what_nobody_has() -> None:
    wire = market()
    ticket = ask(wire, "eu", "consume", wait_ms=60_000, amount=11)
    assert error(wire, ticket).requested == 11
    assert not wants(wire, "eu", "us")


def test_several_are_asked_when_the_richest_has_too_little() -> None:
    wire = market()
    ask(wire, "us", "transfer", amount=4, to="ap")
    wire.settle()
    flush(wire)
    ticket = ask(wire, "eu", "consume", wait_ms=1_000, amount=9)
    assert [len(wants(wire, "eu", other)) for other in ("us", "ap")] == [1, 1]
    flush(wire)
    pass_time(wire, 100)
    assert values(wire, ticket) == [1]


def test_two_who_wait_for_what_the_other_has_do_not_both_give() -> None:
    wire = market()
    ask(wire, "us", "consume", amount=4)
    ask(wire, "us", "transfer", amount=3, to="eu")
    wire.settle()
    flush(wire)
    first = ask(wire, "us", "consume", wait_ms=1_000, amount=5)
    second = ask(wire, "eu", "consume", wait_ms=1_000, amount=5)
    pass_time(wire, 1_500)
    assert values(wire, first) == [1]
    assert error(wire, second).requested == 5


def test_those_who_wait_are_served_in_the_order_in_which_they_came() -> None:
    wire = market()
    tickets = [ask(wire, "eu", "consume", wait_ms=1_000, amount=4) for _ in range(3)]
    pass_time(wire, 1_500)
    assert [values(wire, ticket) for ticket in tickets[:2]] == [[6], [2]]
    assert error(wire, tickets[2]).requested == 4


def test_a_grant_serves_who_waits() -> None:
    wire = market()
    ask(wire, "us", "transfer", amount=4, to="eu")
    wire.settle()
    flush(wire)
    for peer in ("eu", "ap"):
        wire.cut("us", peer)
    ticket = ask(wire, "us", "consume", wait_ms=1_000, amount=7)
    assert wire.answer_to(ticket) is None, "eu could help, were it there"
    ask(wire, "us", "grant", amount=1)
    wire.sync("us")
    assert values(wire, ticket) == [4]


def test_a_release_serves_who_waits() -> None:
    wire = market()
    ask(wire, "us", "transfer", amount=4, to="eu")
    wire.settle()
    flush(wire)
    for peer in ("eu", "ap"):
        wire.cut("us", peer)
    [hold] = values(wire, ask(wire, "us", "reserve", amount=5, ttl_ms=60_000))
    ticket = ask(wire, "us", "consume", wait_ms=1_000, amount=3)
    assert wire.answer_to(ticket) is None, "eu could help, were it there"
    ask(wire, "us", "release", hold=hold)
    assert values(wire, ticket) == [7]


def test_the_number_of_those_who_wait_is_bounded() -> None:
    wire = market(max_parked=2)
    wire.cut("us", "eu")
    wire.cut("us", "ap")
    tickets = [ask(wire, "eu", "consume", wait_ms=1_000, amount=1) for _ in range(3)]
    assert [wire.answer_to(ticket) is None for ticket in tickets] == [True, True, False]


def test_only_those_are_judged_again_who_can_be_served_or_never_will() -> None:
    wire = market()
    ask(wire, "us", "transfer", amount=2, to="ap")
    wire.settle()
    flush(wire)
    wire.cut("us", "eu")
    tickets = [ask(wire, "eu", "consume", wait_ms=10_000, amount=amount) for amount in (9, 8, 1, 2, 1)]
    wire.lose("eu", "ap")
    parked = wire.engines["eu"].rights._parked
    before = {ticket: parked[ticket].error for ticket in tickets}
    ask(wire, "ap", "grant", amount=5)
    flush(wire)
    assert {ticket: held.error for ticket, held in parked.items()} == before, "nothing has come here: nobody was tried"
    ask(wire, "ap", "transfer", amount=2, to="eu")
    wire.deliver("ap", "eu")
    wire.sync("eu")
    assert [wire.answer_to(ticket) is not None for ticket in tickets] == [False, False, True, False, True]


def test_who_waits_is_refused_as_soon_as_nobody_can_have_enough() -> None:
    wire = market()
    wire.cut("us", "eu")
    ticket = ask(wire, "eu", "consume", wait_ms=60_000, amount=8)
    ask(wire, "us", "consume", amount=5)
    assert wire.answer_to(ticket) is None
    pass_time(wire, 2_000)
    assert error(wire, ticket).by_region == {"us": 5, "ap": 0}


def test_a_request_asked_again_while_the_first_waits_counts_once() -> None:
    wire = market()
    operation = (b"0123456789abcdef", 7)
    first = wire.write("eu", op(TYPE, "k", "consume", amount=3), operation=operation, wait_ms=1_000)
    again = wire.write("eu", op(TYPE, "k", "consume", amount=3), operation=operation, wait_ms=1_000)
    pass_time(wire, 300)
    answers = [wire.answer_to(ticket) for ticket in (first, again)]
    assert all(isinstance(answer, Committed) for answer in answers)
    assert [answer.is_replayed for answer in answers if isinstance(answer, Committed)] == [False, True]
    assert wire.value("us", TYPE, "k") == 7


def test_an_answered_reservation_names_its_hold_again() -> None:
    wire = market()
    operation = (b"0123456789abcdef", 7)
    names = []
    for name in ("us", "us", "eu"):
        reserve = op(TYPE, "k", "reserve", amount=3, ttl_ms=60_000)
        ticket = wire.write(name, reserve, operation=operation, wait_ms=1_000)
        wire.settle()
        names += values(wire, ticket)
    assert names == [f"{operation[0].hex()}.0"] * 3


# --- what is lost, late, or said twice


def test_a_lost_want_is_said_again() -> None:
    wire = market()
    ticket = ask(wire, "eu", "consume", wait_ms=1_000, amount=3)
    wire.lose("eu", "us")
    pass_time(wire, 200)
    assert wire.answer_to(ticket) is None
    pass_time(wire, 200)
    assert values(wire, ticket) == [7]


def test_a_lost_gift_comes_by_anti_entropy_and_is_not_given_again() -> None:
    wire = market()
    ticket = ask(wire, "eu", "consume", wait_ms=5_000, amount=3)
    wire.deliver("eu", "us")
    wire.sync("us")
    assert wire.lose("us", "eu")
    for _ in range(200):
        if wire.answer_to(ticket) is None:
            pass_time(wire, 10)
    assert values(wire, ticket) == [7]
    assert wire.engines["eu"].rights.wants_sent > 1
    assert wire.engines["us"].rights.wants_served == 1


def test_wants_are_repeated_less_and_less() -> None:
    wire = market()
    ask(wire, "eu", "consume", wait_ms=60_000, amount=3)
    sent = 0
    for _ in range(600):
        wire.sync()
        sent += len(wants(wire, "eu", "us"))
        wire.lose("eu", "us")
        wire.lose("us", "eu")
        wire.tick(100)
    assert 10 <= sent <= 25


def test_a_want_that_is_said_twice_is_served_once() -> None:
    wire = market()
    ask(wire, "eu", "consume", wait_ms=1_000, amount=3)
    [data] = [data for data in wire.links["eu", "us"] if isinstance(decode_message(data), Want)]
    flush(wire)
    for _ in range(5):
        wire.receive("eu", "us", data)
        flush(wire)
    assert wire.engines["us"].rights.wants_served == 1
    assert rights(wire, "us")["here"] == 7


def test_a_want_that_is_said_twice_is_served_once_even_after_a_crash() -> None:
    wire = market()
    ask(wire, "eu", "consume", wait_ms=1_000, amount=3)
    [data] = [data for data in wire.links["eu", "us"] if isinstance(decode_message(data), Want)]
    flush(wire)
    wire.crash("us")
    wire.connect(("us", "eu"), ("us", "ap"))
    wire.receive("eu", "us", data)
    assert wire.engines["us"].rights.wants_served == 0


@pytest.mark.parametrize("changed", [{"amount": 0}, {"amount": -3}, {"collection": "things:counter"}, {"key": "other"}])
def test_a_want_that_cannot_be_served_changes_nothing(changed: dict[str, Any]) -> None:
    wire = market()
    us = wire.engines["us"]
    fields: dict[str, Any] = {"collection": COLLECTION, "key": "k", "amount": 3, "waits": 3, "seen": 1} | changed
    want = Want(us.group, us.configuration.id, **fields)
    assert decode_message(encode_message(want)) == want
    out = wire.step("us", Received(1, want))
    assert not out.persist
    assert not out.rejected


def test_a_gift_that_is_not_durable_is_not_there_yet() -> None:
    """The giver crashes before its gift is on disk: it never left, so nobody has it, and it is there again."""
    wire = market()
    ticket = ask(wire, "eu", "consume", wait_ms=60_000, amount=3)
    wire.deliver("eu", "us")
    assert rights(wire, "us")["here"] == 7
    wire.crash("us")
    assert rights(wire, "us")["here"] == 10
    wire.connect(("us", "eu"), ("us", "ap"))
    pass_time(wire, 6_000)
    assert values(wire, ticket) == [7]


def test_amounts_beyond_what_a_message_carries_arrive_in_pieces() -> None:
    wire = market()
    ask(wire, "us", "grant", amount=1 << 64)
    wire.settle()
    flush(wire)
    ticket = ask(wire, "eu", "consume", wait_ms=1_000, amount=1 << 63)
    pass_time(wire, 500)
    assert values(wire, ticket) == [(1 << 64) - (1 << 63) + 10]


def test_a_commit_may_wait_for_rights_of_several_keys_beside_other_writes() -> None:
    wire = market(max_demand_keys=1)
    ask(wire, "ap", "grant", amount=5, key="other")
    wire.settle()
    flush(wire)
    ops = [op(TYPE, "k", "consume", amount=2), op("counter", "k", "add"), op(TYPE, "other", "consume", amount=3)]
    ticket = wire.write("eu", *ops, wait_ms=1_000)
    assert [want.key for want in (*wants(wire, "eu", "us"), *wants(wire, "eu", "ap"))] == ["k", "other"]
    pass_time(wire, 500)
    assert values(wire, ticket) == [8, 1, 2]
    assert wire.value("eu", "counter", "k") == 1


# --- demand


@pytest.mark.parametrize(("amount", "waits", "given"), [(5, 0, 2), (1, 0, 1), (5, 1, 2), (5, 5, 3), (2, 5, 2)])
def test_a_giver_keeps_what_it_is_about_to_need_but_for_those_who_wait(amount: int, waits: int, given: int) -> None:
    wire = market()
    ask(wire, "us", "consume", amount=4)
    us = wire.engines["us"]
    wire.step("us", Received(1, Want(us.group, us.configuration.id, COLLECTION, "k", amount, waits, 1)))
    assert rights(wire, "us")["here"] == 6 - given


def test_a_region_that_sells_asks_ahead() -> None:
    wire = market()
    ask(wire, "us", "grant", amount=90)
    ask(wire, "us", "transfer", amount=10, to="eu")
    wire.settle()
    flush(wire)
    for _ in range(6):
        ask(wire, "eu", "consume", amount=1)
        pass_time(wire, 300)
    assert rights(wire, "eu")["here"] >= 6, "it has what it sold lately, and was never refused"
    assert all(isinstance(answer, Committed) for _, answer in wire.replies)
    assert wire.engines["eu"].rights.wants_sent <= 4


def test_a_region_that_sells_nothing_asks_for_nothing() -> None:
    wire = market()
    for _ in range(20):
        ask(wire, "us", "consume", amount=1) if rights(wire, "us")["here"] else None
        pass_time(wire, 500)
    assert [engine.rights.wants_sent for engine in wire.engines.values()] == [0, 0, 0]


def test_demand_is_what_was_spent_lately() -> None:
    demand = Demand(10_000, 2)
    for second, amount in ((0, 5), (5, 7), (5, 1), (9, -1)):
        demand.note(("c", "k"), second * 1_000, amount)
    assert demand.recent(("c", "k"), 9_000) == 12
    assert demand.recent(("c", "k"), 10_000) == 7
    assert demand.recent(("c", "k"), 15_000) == 0
    assert demand.recent(("c", "k"), 90_000) == 0
    assert not len(demand)
    for name in "abc":
        demand.note((name, name), 0, 1)
    assert [demand.recent((name, name), 0) for name in "abc"] == [0, 1, 1]


def test_a_confirmed_hold_is_demand_once() -> None:
    wire = market()
    [hold] = values(wire, ask(wire, "us", "reserve", amount=4, ttl_ms=60_000))
    ask(wire, "us", "confirm", hold=hold)
    assert wire.engines["us"].rights._demand.recent((COLLECTION, "k"), wire.now_ms) == 4


def test_the_same_schedule_says_the_same() -> None:
    def words(seed: int) -> list[str]:
        said: list[str] = []
        wire = Wire("us", "eu", "ap", seed=seed)
        wire.watch = lambda where, what: said.append(f"{where} {what}")
        wire.connect()
        ask(wire, "us", "grant", amount=10)
        for name in ("eu", "ap", "eu"):
            ask(wire, name, "consume", wait_ms=500, amount=2)
            pass_time(wire, 300)
        return said

    assert words(3) == words(3)
