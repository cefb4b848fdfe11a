"""Bounded counters as requests see them: what waits, what is refused in which words, what a reply and a read show."""

from __future__ import annotations

from typing import Any

import pytest

from crdtstore.errors import HoldEnded, InsufficientRights, ReplicaBehind
from tests.unit.regions import Regions, Reply, op, shop

READ = {"domain": "shop", "collection": "bounded-counter", "key": "k"}


@pytest.fixture
def made() -> Regions:
    """us has granted ten, and all know it."""
    regions = shop("us", "eu", "ap")
    regions.commit("us", do("grant", amount=10))
    regions.settle()
    return regions


def do(name: str, **arguments: Any) -> Reply:
    return op("bounded-counter", "k", name, **arguments)


def ask(made: Regions, region: str, *ops: Reply, **fields: Any) -> int:
    ticket = made.ask(region, "commit", domain="shop", ops=list(ops), **fields)
    made.sync(region)
    return ticket


def test_a_write_waits_for_rights_from_elsewhere(made: Regions) -> None:
    ticket = ask(made, "eu", do("consume", amount=3))
    assert made.answer(ticket) is None
    made.flush()
    assert made.reply(ticket)["values"] == [7]
    rights = made.do("eu", "read", **READ)["rights"]
    assert rights == {"here": 0, "held": 0, "elsewhere": {"us": 7, "ap": 0}}


def test_it_waits_a_second_if_nothing_else_is_asked_for(made: Regions) -> None:
    tickets = {wait_ms: ask(made, "eu", do("consume", amount=3), **fields) for wait_ms, fields in _WAITS.items()}
    made.lose()
    for passed_ms in range(0, 2_000, 50):
        for wait_ms, ticket in tickets.items():
            assert (made.answer(ticket) is not None) == (passed_ms >= wait_ms), f"{wait_ms} after {passed_ms}"
        made.tick(50)
        made.lose()
    error = made.error(tickets[1_000])
    assert isinstance(error, InsufficientRights)
    assert (error.requested, error.here, error.elsewhere, error.by_region) == (3, 0, 10, {"us": 10, "ap": 0})


_WAITS: dict[int, dict[str, Any]] = {0: {"wait_ms": 0}, 300: {"wait_ms": 300}, 1_000: {}, 1_500: {"wait_ms": 1_500}}


def test_no_wait_is_longer_than_the_node_allows() -> None:
    made = shop("us", "eu", max_wait_ms=200)
    made.commit("us", do("grant", amount=10))
    made.settle()
    ticket = ask(made, "eu", do("consume", amount=3), wait_ms=60_000)
    made.lose()
    made.tick(200)
    assert isinstance(made.error(ticket), InsufficientRights)


def test_a_hold_is_named_in_the_reply_and_ended_where_it_was_made(made: Regions) -> None:
    [hold, left] = made.commit("us", do("reserve", amount=4, ttl_ms=60_000), do("consume", amount=1))["values"]
    assert isinstance(hold, str)
    assert left == 5
    assert made.do("us", "read", **READ)["rights"]["held"] == 4
    made.settle()
    elsewhere = made.error(ask(made, "eu", do("confirm", hold=hold)))
    assert isinstance(elsewhere, ReplicaBehind)
    assert elsewhere.regions == ["us"]
    assert made.commit("us", do("confirm", hold=hold))["values"] == [5]
    ended = made.error(ask(made, "us", do("release", hold=hold)))
    assert isinstance(ended, HoldEnded)
    assert ended.more == {"outcome": "confirmed"}


def test_a_reservation_asked_again_in_another_region_names_the_same_hold(made: Regions) -> None:
    made.commit("us", do("transfer", amount=5, to="eu"))
    made.settle()
    names = [
        made.commit(region, do("reserve", amount=4, ttl_ms=60_000), id="order-1")["values"] for region in ("us", "eu")
    ]
    assert names[0] == names[1]
    made.settle()
    assert made.do("ap", "read", **READ)["value"] == 6


def test_what_a_confirmed_hold_is_asked_again_under_its_key_is_answered_again(made: Regions) -> None:
    [hold] = made.commit("us", do("reserve", amount=4, ttl_ms=60_000))["values"]
    replies = [made.commit("us", do("confirm", hold=hold), id="order-1") for _ in range(2)]
    assert [reply["replayed"] for reply in replies] == [False, True]
    assert replies[1]["values"] == [6]


def test_the_bound_is_part_of_the_value() -> None:
    made = shop("us")
    made.do("us", "declare", domain="shop", collection="seats", type="bounded_counter", options={"lower": -5})
    assert made.do("us", "read", domain="shop", collection="seats", key="k")["value"] == -5
    assert made.commit("us", op("seats", "k", "grant", amount=7))["values"] == [2]
    assert made.do("us", "read", domain="shop", collection="seats", key="k")["value"] == 2
    error = made.refused(
        "us", "declare", domain="shop", collection="rooms", type="bounded_counter", options={"lower": 0.5}
    )
    assert error.code == "invalid-value"


@pytest.mark.parametrize(("name", "code"), [("delete", "not-deletable"), ("expire", "not-deletable")])
def test_it_does_not_end(made: Regions, name: str, code: str) -> None:
    arguments = {"ttl_ms": 1_000} if name == "expire" else {}
    assert made.refused("us", "commit", domain="shop", ops=[do(name, **arguments)]).code == code


def test_what_stands_behind_the_value_is_explained(made: Regions) -> None:
    made.commit("us", do("transfer", amount=2, to="eu"))
    live = made.do("us", "explain", **READ)["live"]
    assert [(one["at"], one["value"], one["counts"]) for one in live] == [
        (["granted"], 10, True),
        (["moved", "eu"], 2, True),
    ]
