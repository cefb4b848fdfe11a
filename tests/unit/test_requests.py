"""Bad input: every way to ask wrongly is told what was wrong, and nothing changes."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdtstore.engine.rows import Rows
from crdtstore.errors import CODES, CrdtStoreError, problem
from crdtstore.service import Request
from crdtstore.testing.strategies import values
from crdtstore.types import REGISTRY
from crdtstore.values import to_json_bytes
from tests.unit.regions import Regions, op, shop

ADD = op("counter", "k", "add")
BIG = 1 << 8 * 1024
ENDLESS = 10**5_000
"""Python refuses to print it."""
DEEP: Any = reduce(lambda inner, _: [inner], range(990), 1)
"""Deeper than Python prints lists, not deeper than msgpack reads them."""


@pytest.fixture(scope="module")
def asked() -> Regions:
    made = shop("us")
    made.do("us", "declare", domain="shop", collection="orders", type="counter", options={"grow_only": True})
    fields = {"visits": "counter", "card": "or_map"}
    made.do("us", "declare", domain="shop", collection="record", type="or_map", options={"fields": fields})
    return made


def check(asked: Regions, do: str, fields: dict[str, Any], code: str, why: str) -> None:
    engines = asked.services["us"].host.groups
    before = {group: (engine.digest, list(engine.applied), engine.clock.last) for group, engine in engines.items()}
    error = asked.refused("us", do, **fields)
    assert (error.code, why in error.detail) == (code, True), error
    assert error.effect == "none"
    assert CODES[code].error is type(error)
    assert asked.output.persist == []
    assert {
        group: (engine.digest, list(engine.applied), engine.clock.last) for group, engine in engines.items()
    } == before
    to_json_bytes(problem(error))


# --- commits


def commit(*ops: Any, **fields: Any) -> dict[str, Any]:
    return {"domain": "shop", "ops": list(ops), **fields}


def nested(name: str, path: Any, **arguments: Any) -> dict[str, Any]:
    return op("or-map", "k", name, path=path, **arguments)


@pytest.mark.parametrize(
    ("fields", "code", "why"),
    [
        ({}, "bad-request", "domain"),
        ({"domain": "shop"}, "bad-request", "ops"),
        (commit(), "bad-request", "1 to 1000 ops, got 0"),
        (commit(*[ADD] * 1_001), "bad-request", "1 to 1000 ops, got 1001"),
        ({"domain": "shop", "ops": "x"}, "bad-request", "ops must be a list, got text"),
        ({"domain": "shop", "ops": [1]}, "bad-request", "ops[0] must be a map, got an integer"),
        (commit({b"op": "add"}), "bad-request", "str"),
        (commit(ADD, surprise=1), "bad-request", "surprise"),
        (commit(ADD, **{"\ud800": 1}), "bad-request", "Unicode"),
        (commit(ADD, domain="Shop"), "bad-request", "domain is named like"),
        (commit(ADD, domain="x" * 64), "bad-request", "domain is named like"),
        (commit(ADD, domain="_sys"), "bad-request", "domain is named like"),
        (commit(ADD, domain="\ud800"), "bad-request", "domain is named like"),
        (commit(ADD, domain=5), "bad-request", "domain must be text, got an integer"),
        (commit(ADD, domain="other"), "not-declared", "domain other is not declared in region us"),
        (commit(op("other", "k", "add")), "not-declared", "collection shop/other is not declared in region us"),
        (commit(op("Counter", "k", "add")), "bad-request", "collection is named like"),
        (commit(op("counter@counter", "k", "add")), "bad-request", "collection is named like"),
        (commit(op(DEEP, "k", "add")), "bad-request", "collection is named like"),
        (commit(op(ENDLESS, "k", "add")), "bad-request", "collection is named like"),
        (commit(ADD, regions=ENDLESS), "bad-request", "too many digits"),
        (commit({"key": "k", "op": "add"}), "bad-request", "collection is named like"),
        (commit({"collection": "counter", "op": "add"}), "bad-request", "a key is text"),
        (commit(op("counter", "", "add")), "bad-request", "1 to 512 bytes, got 0"),
        (commit(op("counter", "ä" * 257, "add")), "bad-request", "1 to 512 bytes, got 514"),
        (commit(op("counter", ".", "add")), "bad-request", "not . or .."),
        (commit(op("counter", "..", "add")), "bad-request", "not . or .."),
        (commit(op("counter", "a\nb", "add")), "bad-request", "control characters"),
        (commit(op("counter", "a\x85b", "add")), "bad-request", "control characters"),
        (commit(op("counter", "\ud800", "add")), "bad-request", "lone surrogate"),
        (commit(op("counter", "k", "add", if_match=5)), "bad-request", "if_match is an etag"),
        (commit({"collection": "counter", "key": "k"}), "invalid-op", "an op names what to do"),
        (commit({"collection": "counter", "key": "k", "op": 5}), "invalid-op", "an op names what to do"),
        (
            commit(op("counter", "k", "reset")),
            "invalid-op",
            "counter has the operations add, delete, expire, not 'reset'",
        ),
        (commit(op("counter", "k", "add", amount=1, by=2)), "invalid-op", "add takes amount, not by"),
        (commit(op("counter", "k", "add", **{"\ud800": 2})), "invalid-op", "add takes amount"),
        (commit(op("counter", "k", "delete", amount=1)), "invalid-op", "delete takes no arguments"),
        (commit(op("counter", "k", "add", amount=1.5)), "invalid-value", "amount must be an integer, got 1.5"),
        (commit(op("counter", "k", "add", amount=1.0)), "invalid-value", "amount must be an integer"),
        (commit(op("counter", "k", "add", amount=True)), "invalid-value", "amount must be an integer, got true"),
        (commit(op("counter", "k", "add", amount="1")), "invalid-value", "amount must be an integer"),
        (commit(op("counter", "k", "add", amount="\ud800")), "invalid-value", "\\ud800"),
        (commit(op("counter", "k", "add", amount=None)), "invalid-value", "got null"),
        (commit(op("counter", "k", "add", amount=BIG)), "invalid-value", "at most 1024 bytes"),
        (commit(op("orders", "k", "add", amount=-1)), "invalid-value", "grow_only"),
        (commit(op("aw-set", "k", "add")), "invalid-op", "add needs the argument elements"),
        (commit(op("aw-set", "k", "add", elements=[])), "invalid-value", "at least one item"),
        (commit(op("aw-set", "k", "add", elements="x")), "invalid-value", "must be a list"),
        (commit(op("aw-set", "k", "add", elements=list(range(10_001)))), "invalid-value", "at most 10000 items"),
        (
            commit(*(op("aw-set", "k", "add", elements=list(range(9_999))) for _ in range(11))),
            "too-large",
            "100000 effects",
        ),
        (commit(op("aw-set", "k", "add", elements=[1.0])), "invalid-value", "text, an integer or bytes"),
        (commit(op("aw-set", "k", "add", elements=[True])), "invalid-value", "text, an integer or bytes"),
        (commit(op("aw-set", "k", "remove", elements=[["x"]])), "invalid-value", "text, an integer or bytes"),
        (commit(op("lww-register", "k", "set")), "invalid-op", "set needs the argument value"),
        (commit(op("lww-register", "k", "set", value=float("nan"))), "invalid-value", "finite"),
        (commit(op("lww-register", "k", "set", value="x" * (1 << 20))), "invalid-value", "larger than"),
        (commit(op("lww-map", "k", "set", fields={})), "invalid-value", "at least one field"),
        (commit(op("lww-map", "k", "set", fields=["f"])), "invalid-value", "must be a map"),
        (commit(op("lww-map", "k", "set", fields={"a": 1, b"b": 2})), "invalid-value", "must be text"),
        (commit(op("lww-map", "k", "set", fields={1: 1})), "invalid-value", "must be text"),
        (commit(op("lww-map", "k", "set", fields={"f": float("inf")})), "invalid-value", "fields.f must be a finite"),
        (commit(op("lww-map", "k", "unset", fields=[1])), "invalid-value", "each of fields must be text"),
        (commit(op("event-log", "k", "delete")), "not-deletable", "event_log cannot be deleted"),
        (commit(op("event-log", "k", "append", id=5)), "invalid-value", "id must be text"),
        (commit(op("event-log", "k", "expire", ttl_ms=5)), "not-deletable", "event_log cannot expire"),
        (commit(op("g-set", "k", "delete")), "not-deletable", "g_set cannot be deleted"),
        (commit(op("counter", "k", "expire")), "invalid-op", "expire needs the argument ttl_ms"),
        (commit(op("counter", "k", "expire", ttl_ms=0)), "invalid-value", "ttl_ms must be 1 to"),
        (commit(op("counter", "k", "expire", ttl_ms="1")), "invalid-value", "ttl_ms must be"),
        (commit(op("counter", "k", "expire", ttl_ms=1, fields=["f"])), "invalid-op", "expire takes ttl_ms, not fields"),
        (commit(op("lww-map", "k", "expire", ttl_ms=1, fields=[])), "invalid-value", "at least one item"),
        (commit(op("counter", "k", "add", path=["f"])), "invalid-op", "counter is of the type counter"),
        (commit(op("or-map", "k", "add")), "invalid-op", "path leads to an operation of a field"),
        (commit(nested("add", "f")), "invalid-op", "path is a list of steps"),
        (commit(nested("add", [])), "invalid-op", "path is a list of steps"),
        (commit(nested("add", ["f"])), "invalid-op", 'a pair [name, type] such as ["visits", "counter"], got "f"'),
        (commit(nested("add", [["f"]])), "invalid-op", "a pair [name, type]"),
        (commit(nested("add", [["f", "counter", 1]])), "invalid-op", "a pair [name, type]"),
        (commit(nested("add", [["f", "no_such"]])), "invalid-op", "may be of the types aw_set, counter"),
        (commit(nested("add", [["f", ["counter"]]])), "invalid-op", "may be of the types"),
        (commit(nested("add", [[5, "counter"]])), "invalid-value", "the name of a field must be text, got 5"),
        (commit(nested("add", [["\ud800", "counter"]])), "invalid-value", "lone surrogate"),
        (commit(nested("add", [["f" * 513, "counter"]])), "invalid-value", "at most 512 bytes, got 513"),
        (
            commit(nested("add", [["f", "counter"], ["g", "counter"]])),
            "invalid-op",
            'the field "f" is of the type counter',
        ),
        (commit(nested("add", [["m", "or_map"]] * 16 + [["f", "counter"]])), "invalid-op", "at most 16 steps, got 17"),
        (commit(nested("add", DEEP)), "invalid-op", "a pair [name, type]"),
        (
            commit(nested("append", [["f", "counter"]])),
            "invalid-op",
            "counter has the operations add, delete, expire, not",
        ),
        (
            commit(nested("append", [["m", "or_map"]])),
            "invalid-op",
            "or_map has the operations delete, expire, remove, not",
        ),
        (commit(nested("add", [["f", "counter"]], amount="x")), "invalid-value", "amount must be an integer"),
        (commit(nested("delete", [["f", "event_log"]])), "not-deletable", "event_log cannot be deleted"),
        (commit(nested("expire", [["f", "g_set"]], ttl_ms=1)), "not-deletable", "g_set cannot expire"),
        (
            commit(op("record", "k", "add", path=["other"])),
            "invalid-op",
            'declares the fields card, visits, not "other"',
        ),
        (
            commit(op("record", "k", "add", path=[["other", "counter"]])),
            "invalid-op",
            "declares the fields card, visits",
        ),
        (
            commit(op("record", "k", "add", path=[["visits", "aw_set"]])),
            "invalid-op",
            'declared as counter, not as "aw_set"',
        ),
        (commit(op("record", "k", "add", path=[5])), "invalid-op", "declares the fields card, visits, not 5"),
        (commit(op("record", "k", "add", path=[DEEP])), "invalid-op", "declares the fields card, visits"),
        (commit(op("record", "k", "add", path=["card", "visits"])), "invalid-op", "a pair [name, type]"),
        (commit(ADD, op("counter", "k", "add", amount="x")), "invalid-value", "amount must be an integer"),
        (
            commit(*[op("lww-register", str(at), "set", value="x" * 900_000) for at in range(5)]),
            "too-large",
            "at most 4194304 bytes",
        ),
        (commit(ADD, regions=-1), "bad-request", "regions is 0 to 255, got -1"),
        (commit(ADD, wait_ms=-1), "bad-request", "must not be negative"),
        (commit(ADD, wait_ms=True), "bad-request", "wait_ms must be an integer, got true or false"),
        (commit(ADD, wait_ms=1.5), "bad-request", "wait_ms must be an integer, got a number"),
        (commit(ADD, reason="x" * 1_025), "too-large", "reason has at most 1024"),
        (commit(ADD, reason="\ud800"), "invalid-value", "reason must be valid Unicode"),
        (commit(ADD, trace_id="x" * 1_025), "too-large", "trace_id has at most"),
        (commit(ADD, reason=5), "bad-request", "reason must be text or null, got an integer"),
        (commit(ADD, id=""), "bad-request", "1 to 128 bytes"),
        (commit(ADD, id="ä" * 65), "bad-request", "1 to 128 bytes"),
        (commit(ADD, id="\ud800"), "invalid-value", "idempotency key must be valid Unicode"),
        (commit(ADD, id="~x"), "bad-request", "~ and a UUIDv7"),
        (commit(ADD, id="~0199FFFF-0000-7000-8000-000000000000"), "bad-request", "in lower case"),
        (commit(ADD, id="~0199ffff-0000-4000-8000-000000000000"), "bad-request", "~ and a UUIDv7"),
        (commit(ADD, id="~ffffffff-0000-7000-8000-000000000000"), "bad-request", "in the future"),
        (commit(ADD, id="~00000000-0000-7000-8000-000000000000"), "key-expired", "has expired"),
        (commit(ADD, token="x"), "foreign-token", "not made by this cluster"),
        (commit(ADD, token="\ud800"), "foreign-token", "not made by this cluster"),
        (commit(ADD, token="x" * 20_000), "foreign-token", "at most"),
        (commit(op("counter", "k", "add", if_match='"0"')), "precondition-failed", "in this region"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_commit_that_is_wrong(asked: Regions, fields: dict[str, Any], code: str, why: str) -> None:
    check(asked, "commit", fields, code, why)


# --- reads and lists


def at(**fields: Any) -> dict[str, Any]:
    return {"domain": "shop", "collection": "counter", **fields}


def new(**fields: Any) -> dict[str, Any]:
    return {"domain": "shop", "collection": "new", **fields}


@pytest.mark.parametrize(
    ("do", "fields", "code", "why"),
    [
        ("read", at(), "bad-request", "key"),
        ("read", at(key=""), "bad-request", "1 to 512"),
        ("read", at(key="k", collection="other"), "not-declared", "shop/other"),
        ("read", at(key="k", collection="Other"), "bad-request", "is named like"),
        ("read", at(key="k", collection="counter@other"), "bad-request", "there is no type 'other'"),
        ("read", at(key="k", collection="counter@aw_set"), "not-declared", "shop/counter@aw_set"),
        ("read", at(key="k", domain="other"), "not-declared", "domain other"),
        ("read", at(key="k", consistency="strong"), "bad-request", "session or local, got 'strong'"),
        ("read", at(key="k", max_staleness_ms=-1), "bad-request", "must not be negative"),
        ("read", at(key="k", wait_ms="1"), "bad-request", "wait_ms must be an integer, got text"),
        ("read", at(key="k", limit=1), "bad-request", "limit"),
        ("list", at(limit=0), "bad-request", "limit is 1 to 1000"),
        ("list", at(limit=1_001), "bad-request", "limit is 1 to 1000"),
        ("list", at(limit=ENDLESS), "bad-request", "too many digits"),
        ("list", at(wait_ms=-ENDLESS), "bad-request", "too many digits"),
        ("read", at(key="k", max_staleness_ms=-ENDLESS), "bad-request", "too many digits"),
        ("list", at(prefix="\ud800"), "invalid-value", "prefix must be valid Unicode"),
        ("list", at(after="\ud800"), "invalid-value", "after must be valid Unicode"),
        ("list", at(values=1), "bad-request", "values must be true or false"),
        ("list", at(domain="other"), "not-declared", "domain other"),
        ("list", at(collection="other"), "not-declared", "shop/other"),
        ("members", at(key="k", collection="counter"), "invalid-op", "counter has none"),
        ("members", at(key="k", collection="lww-register", has="x"), "invalid-op", "lww_register has none"),
        ("members", at(collection="aw-set"), "bad-request", "key"),
        ("members", at(key="", collection="aw-set"), "bad-request", "1 to 512"),
        ("members", at(key="k", collection="aw-set", limit=0), "bad-request", "limit is 1 to 1000"),
        (
            "members",
            at(key="k", collection="aw-set", after=1.5),
            "invalid-value",
            "after must be text, an integer or bytes",
        ),
        (
            "members",
            at(key="k", collection="aw-set", has=None),
            "invalid-value",
            "has must be text, an integer or bytes",
        ),
        ("members", at(key="k", collection="aw-set", has=BIG), "invalid-value", "has must be an integer of at most"),
        ("members", at(key="k", collection="lww-map", has=5), "invalid-value", "has must be text"),
        ("members", at(key="k", collection="or-map", after=b"x"), "invalid-value", "after must be text"),
        ("members", at(key="k", collection="event-log", after="e"), "invalid-value", 'has no event "e"'),
        ("members", at(key="k", collection="aw-set", domain="other"), "not-declared", "domain other"),
        ("members", at(key="k", collection="other"), "not-declared", "shop/other"),
        ("members", at(key="k", collection="aw-set", consistency="local"), "bad-request", "consistency"),
        ("explain", at(key="k", limit=1_001), "bad-request", "limit is 1 to 1000"),
        ("explain", at(key="."), "bad-request", "not . or .."),
        ("explain", at(key="k", domain="other"), "not-declared", "domain other"),
        ("explain", at(key="k", collection="other"), "not-declared", "shop/other"),
        ("conflicts", {"domain": "other"}, "not-declared", "domain other"),
        ("conflicts", {"domain": "shop", "limit": 0}, "bad-request", "limit is 1 to 1000"),
        ("conflicts", {"domain": "shop", "after": "counter"}, "bad-request", "after is collection/key"),
        ("conflicts", {"domain": "shop", "after": "Counter/k"}, "bad-request", "is named like"),
        ("conflicts", {"domain": "shop", "after": "counter@x/k"}, "bad-request", "there is no type"),
        ("conflicts", {"domain": "shop", "after": "counter/"}, "bad-request", "1 to 512"),
        ("conflicts", {"domain": "shop", "after": "other/k"}, "not-declared", "shop/other"),
        ("conflicts", {"domain": "shop", "after": "\ud800/k"}, "invalid-value", "after must be valid Unicode"),
        ("domain", {"domain": "other"}, "not-declared", "domain other"),
        ("collection", at(collection="other"), "not-declared", "shop/other"),
        ("declare_domain", {"domain": "Shop"}, "bad-request", "domain is named like"),
        ("declare_domain", {"domain": "shop", "owner": 5}, "bad-request", "owner"),
        ("declare", at(type="no_such"), "bad-request", "there is no type 'no_such'; there are aw_set, "),
        ("declare", at(type="aw_set"), "type-mismatch", "is declared as counter"),
        (
            "declare",
            at(type="counter", options={"grow_only": True}),
            "type-mismatch",
            'as counter {"grow_only": false}, not as counter {"grow_only": true}. ',
        ),
        ("declare", at(type="counter", options={"grow_only": 1}), "invalid-value", "must be true or false"),
        ("declare", at(type="counter", options={"lower": True}), "invalid-value", "no option lower"),
        ("declare", at(type="counter", collection="a@counter"), "bad-request", "collection is named like"),
        ("declare", new(type="or_map", options={"fields": 5}), "invalid-value", "must be a map"),
        (
            "declare",
            new(type="or_map", options={"fields": {"a": "no_such"}}),
            "invalid-value",
            'the field "a" must be one',
        ),
        ("declare", new(type="or_map", options={"fields": {"a": 5}}), "invalid-value", "got 5"),
        ("declare", new(type="or_map", options={"fields": {"a": DEEP}}), "invalid-value", "must be one of"),
        ("declare", new(type="or_map", options={"fields": {"\ud800": "counter"}}), "invalid-value", "lone surrogate"),
        ("declare", new(type="or_map", options={"fields": {5: "counter"}}), "invalid-value", "must be text"),
        ("declare", at(type="counter", domain="other"), "not-declared", "domain other"),
        ("status", {"surprise": 1}, "bad-request", "surprise"),
        ("no_such", {}, "bad-request", "there is no request 'no_such'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_request_that_is_wrong(asked: Regions, do: str, fields: dict[str, Any], code: str, why: str) -> None:
    check(asked, do, fields, code, why)


def test_a_staleness_that_no_node_exceeds_nor_prints() -> None:
    made = shop("us")
    assert made.do("us", "read", **at(key="k", max_staleness_ms=ENDLESS))["staleness_ms"] == 0  # there are no others
    made.services["us"].host.groups["shop/0"].rows = Rows(2, 0)
    assert "at most an integer of" in made.refused("us", "read", **at(key="k", max_staleness_ms=ENDLESS)).detail


FIELDS = st.dictionaries(
    st.sampled_from(
        [
            "domain",
            "collection",
            "key",
            "ops",
            "token",
            "wait_ms",
            "type",
            "options",
            "limit",
            "id",
            "owner",
            "consistency",
            "reason",
            "after",
            "has",
        ]
    )
    | st.text(max_size=3),
    values() | st.sampled_from(["shop", "counter", "or-map", "aw-set", "k", {}, []]),
    max_size=6,
)


@given(
    st.sampled_from(["commit", "read", "list", "members", "explain", "conflicts"])
    | st.sampled_from(["declare", "declare_domain", "domain", "collection", "status"]),
    FIELDS,
    st.lists(
        st.dictionaries(
            st.sampled_from(["collection", "key", "op", "amount", "elements", "fields", "path", "ttl_ms"]),
            values()
            | st.sampled_from(["counter", "k", "add", "lww-map", "or-map", "set", "expire", [["f", "counter"]]]),
        ),
        max_size=3,
    ),
)
def test_whatever_is_asked_there_is_one_answer(do: str, fields: dict[str, Any], ops: list[Any]) -> None:
    asked = PLAIN[0]
    if do == "commit" and "ops" not in fields:
        fields = {"domain": "shop", "ops": ops, **fields}
    ticket = asked.ask("us", do, **fields)
    asked.sync("us")
    if asked.answer(ticket) is None:
        asked.tick(60_000)
    answer = asked.answer(ticket)
    assert answer is not None
    to_json_bytes(problem(answer) if isinstance(answer, CrdtStoreError) else answer)


PLAIN = [shop("us")]


def test_every_refusal_is_counted(asked: Regions) -> None:
    service = asked.services["us"]
    before = service.refused_requests.get("not-declared", 0)
    asked.refused("us", "domain", domain="other")
    assert service.refused_requests["not-declared"] == before + 1


def test_a_request_to_a_node_alone_is_answered_in_one_step() -> None:
    made = Regions("us")
    out = made.services["us"].step([Request(1, "status", {}), Request(2, "domain", {"domain": "x"})], made.now_ms)
    assert [ticket for ticket, _ in out.replies] == [1, 2]


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_type_says_what_it_takes(name: str) -> None:
    crdt = REGISTRY[name]
    assert crdt.question.endswith("?")
    assert crdt.mutators
    for mutator in crdt.mutators.values():
        assert mutator.doc
        assert all(argument.kind for argument in mutator.arguments)
