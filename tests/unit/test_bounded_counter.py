"""The bounded counter as its users meet it: what each operation refuses, and in which words; what reads show."""

from __future__ import annotations

from typing import Any

import pytest

from crdtstore.causal import ReplicaId
from crdtstore.engine.output import Committed, Refused
from crdtstore.errors import CODES, HoldEnded, InsufficientRights, ReplicaBehind, UsageError, from_problem, problem
from crdtstore.leaves import ADD, PUT, SEQ_BITS, Branch, Many, One
from crdtstore.testing.laws import members
from crdtstore.types import REGISTRY, Issuer, View
from crdtstore.types.bounded_counter import account, hold_name, live_hold
from tests.engine.wire import Wire, flush, op

TYPE = "bounded_counter"
CRDT = REGISTRY[TYPE]


@pytest.fixture
def wire() -> Wire:
    """Three regions that do not hear each other; us holds ten rights and all know it."""
    wire = Wire("us", "eu", "ap")
    wire.connect()
    do(wire, "us", "grant", amount=10)
    wire.settle()
    for pair in (("us", "eu"), ("us", "ap"), ("eu", "ap")):
        wire.cut(*pair)
    return wire


def do(wire: Wire, name: str, *calls: Any, operation: tuple[bytes, int] | None = None, **arguments: Any) -> list[Any]:
    """What a reply shows.

    Raises:  what the reply is, if it is an error.
    """
    given = [(calls[0], arguments)] if arguments else calls
    ticket = wire.write(name, *[op(TYPE, "k", call, **fields) for call, fields in given], operation=operation)
    wire.sync(name)
    answer = wire.answer_to(ticket)
    if isinstance(answer, Refused):
        raise answer.error
    assert isinstance(answer, Committed)
    return answer.values


def view_of(wire: Wire, name: str = "us", options: dict[str, Any] | None = None) -> View:
    return wire.engines[name].keyspace.view(f"things:{TYPE}", "k", options=options or {})


# --- operations


def test_the_reply_to_each_operation_shows_what_is_left(wire: Wire) -> None:
    assert do(wire, "us", "grant", amount=5) == [15]
    assert do(wire, "us", "consume", amount=3) == [12]
    assert do(wire, "us", "transfer", amount=3, to="eu") == [12]
    [hold] = do(wire, "us", "reserve", amount=4, ttl_ms=1_000)
    assert wire.value("us", TYPE, "k") == 8
    assert do(wire, "us", "release", hold=hold) == [12]


def test_the_operations_of_a_commit_are_judged_in_order_each_on_what_those_before_it_leave(wire: Wire) -> None:
    assert do(wire, "eu", ("grant", {"amount": 3}), ("consume", {"amount": 2}), ("consume", {"amount": 1})) == [
        13,
        11,
        10,
    ]
    with pytest.raises(InsufficientRights) as refused:
        do(wire, "eu", ("grant", {"amount": 3}), ("consume", {"amount": 2}), ("consume", {"amount": 2}))
    assert (refused.value.here, refused.value.requested) == (1, 2)
    with pytest.raises(InsufficientRights):
        do(wire, "eu", ("consume", {"amount": 3}), ("grant", {"amount": 3}))
    assert wire.value("eu", TYPE, "k") == 10, "all of it or nothing"


def test_a_hold_may_be_made_and_confirmed_in_one_commit(wire: Wire) -> None:
    reserve = {"amount": 2, "ttl_ms": 1_000}
    assert do(wire, "us", ("reserve", reserve), ("reserve", reserve))[0].endswith(".0")
    name = f"{wire.replica('us')}:3.1"
    values = do(wire, "us", ("consume", {"amount": 1}), ("reserve", reserve), ("confirm", {"hold": name}))
    assert values == [5, name, 3]
    assert account(view_of(wire)).held == {wire.replica("us"): 4}


@pytest.mark.parametrize(
    ("call", "arguments", "says"),
    [
        ("grant", {"amount": 0}, "at least 1"),
        ("consume", {"amount": -1}, "at least 1"),
        ("consume", {"amount": 1.5}, "integer"),
        ("consume", {"amount": True}, "integer"),
        ("reserve", {"amount": 1, "ttl_ms": 0}, "ttl_ms"),
        ("confirm", {"hold": 7}, "hold"),
    ],
)
def test_what_arguments_may_not_be(call: str, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        CRDT.mutators[call].check(arguments)
    assert refused.value.code == "invalid-value"
    assert "Nothing changed" in refused.value.detail


def test_a_hold_has_an_end(wire: Wire) -> None:
    with pytest.raises(UsageError, match="ttl_ms must be an integer, got null") as refused:
        do(wire, "us", "reserve", amount=1, ttl_ms=None)
    assert refused.value.code == "invalid-value"


@pytest.mark.parametrize(("to", "says"), [("us", "own region"), ("mars", 'region "mars"')])
def test_a_transfer_names_another_region(wire: Wire, to: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        do(wire, "us", "transfer", amount=1, to=to)
    assert refused.value.code == "invalid-value"
    assert "(eu, ap)" in refused.value.detail


def test_a_transfer_goes_to_the_first_member_of_a_region() -> None:
    wire = Wire("us-1", "eu-1", "eu-2")
    do(wire, "us-1", "grant", amount=10)
    do(wire, "us-1", "transfer", amount=4, to="eu")
    assert account(view_of(wire, "us-1")).rights == {wire.replica("us-1"): 6, wire.replica("eu-1"): 4}
    with pytest.raises(UsageError, match="own region"):
        do(wire, "eu-2", "transfer", amount=1, to="eu")


def test_insufficient_rights_say_who_has_how_much(wire: Wire) -> None:
    with pytest.raises(InsufficientRights) as refused:
        do(wire, "eu", "consume", amount=3)
    error = refused.value
    assert (error.requested, error.here, error.by_region, error.elsewhere) == (3, 0, {"us": 10, "ap": 0}, 10)
    assert error.detail == (
        "3 were asked for, this region holds the rights to 0; others appear to hold: us 10. Nothing changed."
    )
    document = problem(error)
    assert (document["status"], document["effect"], document["retryable"]) == (409, "none", True)
    assert (document["requested"], document["here"], document["elsewhere"]) == (3, 0, {"us": 10, "ap": 0})
    again = from_problem(document)
    assert isinstance(again, InsufficientRights)
    assert again.elsewhere == 10


def test_rights_that_look_negative_are_shown_as_none(wire: Wire) -> None:
    """Two regions that both spent one grant, against what the type says of grants."""
    operation = (b"0123456789abcdef", 1)
    for name in ("eu", "ap"):
        do(wire, name, "grant", amount=5, operation=operation)
        do(wire, name, "consume", amount=5)
    wire.connect()
    flush(wire)
    wire.check_same()
    assert wire.value("us", TYPE, "k") == 5, "below what us may still sell: the books do not hide it"
    assert CRDT.beside(view_of(wire), wire.replica("us"), wire.engines["us"].keyspace.regions) == {
        "rights": {"here": 10, "held": 0, "elsewhere": {"eu": 0, "ap": 0}}
    }


# --- holds


def test_how_a_hold_ends(wire: Wire) -> None:
    for outcome in ("confirm", "release"):
        [hold] = do(wire, "us", "reserve", amount=2, ttl_ms=1_000)
        do(wire, "us", outcome, hold=hold)
        for again in ("confirm", "release"):
            with pytest.raises(HoldEnded, match=f"was {outcome}") as refused:
                do(wire, "us", again, hold=hold)
            assert refused.value.more["outcome"].startswith(outcome)
            assert CODES[refused.value.code].status == 409
    assert wire.value("us", TYPE, "k") == 8


def test_a_hold_is_confirmed_before_its_deadline_and_released_until_its_owner_ends_it(wire: Wire) -> None:
    holds = [do(wire, "us", "reserve", amount=2, ttl_ms=1_000)[0] for _ in range(2)]
    wire.now_ms += 999
    do(wire, "us", "confirm", hold=holds[0])
    wire.now_ms += 1
    with pytest.raises(HoldEnded, match="expired at 20") as refused:
        do(wire, "us", "confirm", hold=holds[1])
    assert refused.value.more["outcome"] == "expired"
    assert wire.value("us", TYPE, "k") == 6, "it counts until its owner drops it"
    do(wire, "us", "release", hold=holds[1])
    assert wire.value("us", TYPE, "k") == 8


def test_only_where_a_hold_was_made_can_it_be_ended(wire: Wire) -> None:
    [hold] = do(wire, "us", "reserve", amount=2, ttl_ms=60_000)
    for call in ("confirm", "release"):
        with pytest.raises(ReplicaBehind) as refused:  # eu has not even heard of it, but its name says where it is from
            do(wire, "eu", call, hold=hold)
        assert refused.value.regions == ["us"]
    wire.connect()
    wire.settle()
    with pytest.raises(ReplicaBehind, match="belongs to region us") as refused:
        do(wire, "eu", "confirm", hold=hold)
    assert (refused.value.code, refused.value.regions, refused.value.retryable) == ("replica-behind", ["us"], True)
    do(wire, "us", "confirm", hold=hold)
    wire.settle()
    with pytest.raises(HoldEnded, match="was confirmed"):
        do(wire, "eu", "confirm", hold=hold)


@pytest.mark.parametrize("hold", ["nonsense", "", "us:1.0", "us.0000000000000001:9.0", "00.0"])
def test_a_hold_that_nobody_made(wire: Wire, hold: str) -> None:
    with pytest.raises(HoldEnded, match="not known here") as refused:
        do(wire, "us", "confirm", hold=hold)
    assert refused.value.more["outcome"] is None


def test_a_hold_is_named_after_its_operation_or_its_commit() -> None:
    us = ReplicaId("us.0000000000000001")
    issuer = Issuer(us, 7, 2, 0, None, {})
    assert hold_name(issuer) == "us.0000000000000001:7.2"
    assert hold_name(issuer._replace(operation=bytes(16))) == f"{'0' * 32}.2"


# --- readings


def test_reading_adds_the_bound(wire: Wire) -> None:
    assert CRDT.read(view_of(wire, options={"lower": -3})) == 7
    assert CRDT.read(View([], None, options={"lower": 5})) == 5
    assert CRDT.read(View([], None)) == CRDT.empty == 0


def test_the_bound_is_an_integer() -> None:
    assert CRDT.check_options({}) == {"lower": 0}
    assert CRDT.check_options({"lower": -(1 << 70)}) == {"lower": -(1 << 70)}
    for lower in (1.5, True, "0", None):
        with pytest.raises(UsageError, match="lower") as refused:
            CRDT.check_options({"lower": lower})
        assert refused.value.code == "invalid-value"
    with pytest.raises(UsageError, match="no option upper"):
        CRDT.check_options({"upper": 9})


def test_it_is_neither_deleted_nor_nested_nor_does_it_expire() -> None:
    assert not CRDT.deletable
    assert not CRDT.nestable
    assert sorted(CRDT.mutators) == ["confirm", "consume", "grant", "release", "reserve", "transfer"]


def test_explain_shows_every_cell(wire: Wire) -> None:
    do(wire, "us", "transfer", amount=3, to="eu")
    do(wire, "us", "consume", amount=1)
    kept, ended = (do(wire, "us", "reserve", amount=2, ttl_ms=1_000)[0] for _ in range(2))
    do(wire, "us", "release", hold=ended)
    shown = [(write.at, write.live.value, write.counts, write.why) for write in CRDT.explain(view_of(wire))]
    eu = wire.replica("eu")
    sums, held, how = shown[:3], *shown[3:]
    assert sums == [
        (("G",), 10, True, "sum of its region"),
        (("R", eu), 3, True, "sum of its region"),
        (("U",), 1, True, "sum of its region"),
    ]
    assert held[:3] == (("H", kept), 2, True)
    assert held[3].startswith("held until 2023-11-14T22:13:2")
    assert how == (("E", ended), "released", False, "hold released")
    assert CRDT.place(("R", eu), {eu: "eu"}) == ["moved", "eu"]
    assert CRDT.place(("H", kept), {}) == ["hold", kept]
    assert CRDT.conflicts(view_of(wire)) == 0


def test_what_a_later_version_stores_is_passed_over(wire: Wire) -> None:
    tree, hlc = wire.engines["us"].keyspace.tree, 1 << 40
    path = [f"things:{TYPE}", "k"]
    stored: list[tuple[int, list[Any], Any]] = [
        (PUT, ["H", "odd"], "later"),
        (PUT, ["H", "odder"], [1, 2, 3]),
        (PUT, ["E", "odd"], 7),
        (ADD, ["R", 7], 3),
        (ADD, ["X"], 3),
        (ADD, ["H", "sum"], 3),
    ]
    for at, (kind, below, value) in enumerate(stored):
        tree.apply(2 << SEQ_BITS | at + 1, hlc + at, [9, 9, at], [kind, [*path, *below], value])
    view = view_of(wire)
    assert CRDT.read(view) == 10
    assert account(view).held == {}
    assert live_hold(view, "odd") is None
    assert any(why == "held in an unknown form" for *_, why in CRDT.explain(view))
    with pytest.raises(HoldEnded):
        do(wire, "us", "confirm", hold="odd")


def test_a_hold_that_stands_in_several_dots_counts_by_the_one_that_is_read() -> None:
    replicas = members(("us", "eu"))
    many = Many(PUT, {1: (5, [3, 9]), 1 << SEQ_BITS | 1: (4, [3, 8])})
    one = One(PUT, 2, 5, [2, 9])
    view = View(replicas, Branch([], {"H": Branch([], {"a": many, "b": one})}))
    assert account(view).held == {replicas[0]: 2, replicas[1]: 3}


def test_spending_costs_the_same_beside_many_holds(wire: Wire) -> None:
    """What is put aside is added up as holds come and go; a look at each would be as many."""
    do(wire, "us", "grant", amount=10_000)
    holds = [do(wire, "us", "reserve", amount=1 + at % 3, ttl_ms=60_000)[0] for at in range(200)]
    tally = view_of(wire).child("H").entry.order  # type: ignore[union-attr]
    assert tally is not None
    for hold in holds[::2]:
        do(wire, "us", "release", hold=hold)
    assert view_of(wire).child("H").entry.order is tally  # type: ignore[union-attr]
    assert account(view_of(wire)).held == {wire.replica("us"): sum(1 + at % 3 for at in range(1, 200, 2))}
    for hold in holds[1::2]:
        do(wire, "us", "confirm", hold=hold)
    assert account(view_of(wire)).held == {}
