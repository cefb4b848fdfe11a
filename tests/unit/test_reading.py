"""Readings: fields of maps, deadlines, lists, pages of members; and what each of them costs and waits for."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from crdtstore import members
from crdtstore.clock import rfc3339
from crdtstore.commit import request_hash
from crdtstore.engine.events import Op
from crdtstore.leaves import PUT
from crdtstore.ops import asked_of
from crdtstore.types import REGISTRY
from tests.unit.regions import Regions, nested, op, read, shop


@pytest.fixture
def made() -> Regions:
    return shop("us", "eu")


def page(made: Regions, collection: str, **fields: Any) -> dict[str, Any]:
    return made.do("us", "members", domain="shop", collection=collection, key="k", **fields)


def pages(made: Regions, collection: str, limit: int) -> list[Any]:
    """All items, page by page."""
    found: list[Any] = []
    after = None
    while True:
        body = page(made, collection, limit=limit, after=after)
        assert len(body["items"]) <= limit
        found += body["items"]
        after = body["next"]
        if after is None:
            return found


# --- fields of maps


def test_an_operation_reaches_a_field_by_its_path(made: Regions) -> None:
    written = made.commit(
        "us",
        nested([["visits", "counter"]], "add", amount=2),
        nested([["tags", "aw_set"]], "add", elements=["vip"]),
        nested([["home", "or_map"], ["city", "lww_register"]], "set", value="Oslo"),
        nested([["home", "or_map"], ["a:b", "counter"]], "add"),
    )
    assert written["values"] == [2, None, "Oslo", 1]
    assert read(made, "us", "or-map")["value"] == {
        "visits": 2,
        "tags": ["vip"],
        "home": {"city": "Oslo", "a:b": 1},
    }
    made.commit("us", nested([["home", "or_map"]], "remove", field="a:b"), nested([["visits", "counter"]], "delete"))
    made.settle()
    assert read(made, "eu", "or-map")["value"] == {"tags": ["vip"], "home": {"city": "Oslo"}}
    made.commit("us", op("or-map", "k", "delete"))
    assert read(made, "us", "or-map")["exists"] is False


def test_declared_fields_are_reached_by_name(made: Regions) -> None:
    options = {"fields": {"visits": "counter", "home": "or_map"}}
    declared = made.do("us", "declare", domain="shop", collection="people", type="or_map", options=options)
    assert declared["options"] == options
    ops = [
        op("people", "k", "add", path=["visits"]),
        op("people", "k", "add", path=[["visits", "counter"]]),
        op("people", "k", "set", path=["home", ["city", "lww_register"]], value="Oslo"),
    ]
    assert made.commit("us", *ops)["values"] == [1, 2, "Oslo"]
    assert read(made, "us", "people")["value"] == {"visits": 2, "home": {"city": "Oslo"}}


def test_what_a_key_was_used_for_includes_the_path(made: Regions) -> None:
    def ask(path: list[Any]) -> int:
        return made.ask("us", "commit", domain="shop", ops=[nested(path, "add")], id="once")

    first = ask([["a", "counter"]])
    made.sync("us")
    again, other, deeper = ask([["a", "counter"]]), ask([["b", "counter"]]), ask([["a", "or_map"], ["a", "counter"]])
    assert made.reply(first)["replayed"] is False
    assert made.reply(again)["replayed"] is True
    assert made.error(other).code == made.error(deeper).code == "key-reused"
    assert read(made, "us", "or-map")["value"] == {"a": 1}


def test_what_was_asked_under_a_key_before_paths_were_is_known_again() -> None:
    add = REGISTRY["counter"].mutators["add"]
    plain = Op(REGISTRY["counter"], "orders:counter", "de", add, {"amount": 3})
    assert asked_of(plain) == ["orders:counter", "de", "add", {"amount": 3}]
    assert asked_of(replace(plain, below=("a:counter",)))[4:] == [["a:counter"]]
    assert request_hash([asked_of(plain)]) == 0xBAA0E6C4D5EB3950


# --- deadlines


def test_a_read_says_when_a_key_ends_and_then_it_is_gone(made: Regions) -> None:
    made.commit("us", op("counter", "k", "add"), op("counter", "other", "add"))
    assert "expires" not in read(made, "us", "counter")
    made.commit("us", op("counter", "k", "expire", ttl_ms=60_000))
    before = read(made, "us", "counter")
    assert (before["value"], before["expires"]) == (1, rfc3339(made.now_ms + 60_000))
    made.settle(500)
    assert read(made, "eu", "counter")["expires"] == before["expires"]
    made.settle(61_000)
    for region in ("us", "eu"):
        gone = read(made, region, "counter")
        assert (gone["value"], gone["exists"]) == (0, False)
        assert gone["etag"] != before["etag"], "or a cache would show it for ever"
        assert "expires" not in gone
        listed = made.do(region, "list", domain="shop", collection="counter")
        assert listed["items"] == [{"key": "other"}]


def test_a_deadline_may_be_ended(made: Regions) -> None:
    made.commit("us", op("counter", "k", "add"))
    made.commit("us", op("counter", "k", "expire", ttl_ms=60_000))
    made.commit("us", op("counter", "k", "expire", ttl_ms=None))
    assert read(made, "us", "counter")["expires"] is None
    made.settle(61_000)
    assert read(made, "us", "counter")["value"] == 1


def test_a_read_says_when_fields_end(made: Regions) -> None:
    made.commit("us", op("lww-map", "k", "set", fields={"a": 1, "b": 2}))
    made.commit("us", op("lww-map", "k", "expire", ttl_ms=60_000, fields=["b"]))
    made.commit("us", nested([["a", "counter"]], "add"), nested([["b", "counter"]], "add"))
    made.commit("us", nested([["b", "counter"]], "expire", ttl_ms=60_000))
    due = rfc3339(made.now_ms + 60_000)
    before = {}
    for collection in ("lww-map", "or-map"):
        before[collection] = shown = read(made, "us", collection)
        assert shown["field_expires"] == {"b": due}
        assert "expires" not in shown
        assert page(made, collection, has="b")["has"] is True
    made.settle(61_000)
    for collection in ("lww-map", "or-map"):
        shown = read(made, "us", collection)
        assert shown["value"] == {"a": 1}
        assert "field_expires" not in shown
        assert shown["etag"] != before[collection]["etag"]
        assert page(made, collection, has="b")["has"] is False
        assert pages(made, collection, 1) == [{"field": "a", "value": 1}]


# --- lists


def test_a_list_shows_what_can_be_read(made: Regions) -> None:
    made.commit("us", op("rw-set", "only-marks", "remove", elements=["x"]), op("rw-set", "some", "add", elements=["x"]))
    made.commit("us", op("rw-set", "a-deadline", "expire", ttl_ms=60_000))
    assert read(made, "us", "rw-set", "only-marks")["exists"] is False
    listed = made.do("us", "list", domain="shop", collection="rw-set", values=True)
    assert listed["items"] == [{"key": "some", "value": ["x"]}]
    assert listed["next"] is None


def test_a_list_is_bounded_in_what_it_looks_at(made: Regions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MAX_LOOKED", 10)
    for number in range(25):
        made.commit("us", op("rw-set", f"k{number:02}", "remove", elements=["x"]))
    made.commit("us", op("rw-set", "z", "add", elements=["x"]))
    found, after, asked = [], "", 0
    while after is not None:
        listed = made.do("us", "list", domain="shop", collection="rw-set", after=after, limit=3)
        found += listed["items"]
        after, asked = listed["next"], asked + 1
    assert found == [{"key": "z"}]
    assert asked == 3


def test_a_list_of_large_values_is_bounded_in_bytes(made: Regions) -> None:
    for number in range(8):
        made.commit("us", op("lww-register", f"k{number}", "set", value="x" * 400_000))
    listed = made.do("us", "list", domain="shop", collection="lww-register", values=True)
    assert [item["key"] for item in listed["items"]] == ["k0", "k1", "k2"]
    assert listed["next"] == "k2"
    assert len(made.do("us", "list", domain="shop", collection="lww-register")["items"]) == 8
    rest = made.do("us", "list", domain="shop", collection="lww-register", values=True, after="k5")
    assert ([item["key"] for item in rest["items"]], rest["next"]) == (["k6", "k7"], None)


# --- members


@pytest.mark.parametrize("collection", ["aw-set", "g-set", "rw-set"])
def test_pages_of_a_set_are_in_the_order_of_elements(made: Regions, collection: str) -> None:
    elements = [3, -5, 1 << 80, "b", "a", "ä", b"\xff", b"", "k"]
    assert page(made, collection) == {"items": [], "next": None, "token": page(made, collection)["token"]}
    made.commit("us", op(collection, "k", "add", elements=elements))
    order = [-5, 3, 1 << 80, "a", "b", "k", "ä", b"", b"\xff"]
    assert read(made, "us", collection)["value"] == order
    for limit in (1, 2, 4, 9, 100):
        assert pages(made, collection, limit) == order
    first = page(made, collection, limit=4)
    assert (first["items"], first["next"]) == ([-5, 3, 1 << 80, "a"], "a")
    assert page(made, collection, after="aa", limit=1)["items"] == ["b"], "what is not in has its place all the same"
    assert page(made, collection, after=b"\xff") | {"token": ""} == {"items": [], "next": None, "token": ""}
    assert [page(made, collection, has=element)["has"] for element in (3, "3", b"a", "a", b"", "")] == [
        True,
        False,
        False,
        True,
        True,
        False,
    ]
    assert set(page(made, collection, has=3)) == {"has", "token"}


@pytest.mark.parametrize("collection", ["aw-set", "rw-set"])
def test_pages_follow_what_is_written_between_them(made: Regions, collection: str) -> None:
    made.commit("us", op(collection, "k", "add", elements=["a", "c", "e", "g"]))
    first = page(made, collection, limit=2)
    assert (first["items"], first["next"]) == (["a", "c"], "c")
    made.commit("us", op(collection, "k", "remove", elements=["c", "e"]))
    made.commit("us", op(collection, "k", "add", elements=["b", "d"]))
    assert page(made, collection, limit=2, after="c")["items"] == ["d", "g"]
    assert pages(made, collection, 2) == ["a", "b", "d", "g"]
    assert page(made, collection, has="e")["has"] is False
    made.commit("us", op(collection, "k", "delete"))
    assert pages(made, collection, 2) == []


def test_an_element_that_a_concurrent_remove_took_is_not_a_member(made: Regions) -> None:
    made.commit("us", op("rw-set", "k", "add", elements=["x", "y"]))
    made.commit("eu", op("rw-set", "k", "remove", elements=["x"]))
    made.settle()
    assert pages(made, "rw-set", 1) == read(made, "us", "rw-set")["value"] == ["y"]
    assert page(made, "rw-set", has="x")["has"] is False


def test_a_page_of_what_is_gone_is_bounded(made: Regions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MAX_LOOKED", 10)
    made.commit("us", op("rw-set", "k", "remove", elements=list(range(25))))
    made.commit("us", op("rw-set", "k", "add", elements=[30]))
    first = page(made, "rw-set")
    assert (first["items"], first["next"]) == ([], 9)
    assert pages(made, "rw-set", 5) == [30]


def test_pages_of_maps_show_fields_and_values(made: Regions) -> None:
    made.commit("us", op("lww-map", "k", "set", fields={"b": 1, "a": None, "": [2]}))
    expected = [{"field": "", "value": [2]}, {"field": "a", "value": None}, {"field": "b", "value": 1}]
    assert pages(made, "lww-map", 1) == pages(made, "lww-map", 3) == expected
    assert [page(made, "lww-map", has=name)["has"] for name in ("a", "", "c")] == [True, True, False]
    made.commit("us", op("lww-map", "k", "unset", fields=["a"]))
    assert page(made, "lww-map", has="a")["has"] is False
    made.commit("us", op("lww-map", "k", "set", fields={name: name * 400_000 for name in "pqrs"}))
    assert [len(page(made, "lww-map", after=after)["items"]) for after in ("b", "r")] == [3, 1]


def test_pages_of_an_or_map_show_each_name_once(made: Regions) -> None:
    made.commit(
        "us",
        nested([["a", "counter"]], "add"),
        nested([["a:b", "lww_register"]], "set", value=1),
        nested([["a-b", "aw_set"]], "add", elements=["x"]),
    )
    made.commit("eu", nested([["a", "aw_set"]], "add", elements=["y"]))
    made.settle()
    value = {"a": ["y"], "a-b": ["x"], "a:b": 1}
    shown = read(made, "us", "or-map")
    assert (shown["value"], shown["conflicts"]) == (value, 1)
    for limit in (1, 2, 10):
        items = pages(made, "or-map", limit)
        assert {item["field"]: item["value"] for item in items} == value
        assert len(items) == 3
    assert [page(made, "or-map", has=name)["has"] for name in ("a", "a:b", "b", "a:counter")] == [
        True,
        True,
        False,
        False,
    ]


def test_what_a_later_version_stores_is_passed_over(made: Regions) -> None:
    made.commit(
        "us",
        op("lww-map", "k", "set", fields={"a": 1}),
        op("event-log", "k", "append", id="e"),
        op("aw-set", "k", "add", elements=["x"]),
        nested([["a", "counter"]], "add"),
    )
    tree = made.services["us"].host.groups["shop/0"].keyspace.tree
    for path in ("lww-map:lww_map", "event-log:event_log", "or-map:or_map"):
        tree.apply(7, 1, [0, 0], [9, [path, "k", 5], "x", PUT, [path, "k", b"y"], "x", 9, [path, "k", "a:later"], 1])
    tree.apply(8, 1, [0, 0], [9, ["aw-set:aw_set", "k", "later"], "x"])
    assert pages(made, "lww-map", 1) == [{"field": "a", "value": 1}]
    assert pages(made, "or-map", 1) == [{"field": "a", "value": 1}]
    assert [event["id"] for event in pages(made, "event-log", 1)] == ["e"]
    assert pages(made, "aw-set", 1) == ["x"]
    assert page(made, "aw-set", has="later")["has"] is False


def test_pages_of_a_log_are_in_the_order_of_its_events(made: Regions) -> None:
    for number in (3, 1, 2):
        made.now_ms += 10
        made.commit("us", op("event-log", "k", "append", id=f"e{number}", body=number))
    whole = read(made, "us", "event-log")["value"]
    assert [event["id"] for event in whole] == ["e3", "e1", "e2"]
    for limit in (1, 2, 3):
        assert pages(made, "event-log", limit) == whole
    assert [page(made, "event-log", has=name)["has"] for name in ("e1", "e4")] == [True, False]
    assert page(made, "event-log", after="e1")["items"] == whole[2:]


def test_pages_of_a_log_stay_in_order_when_an_event_turns_out_to_be_older() -> None:
    made = shop("us", "eu", "ap")
    for number in range(4):
        made.now_ms += 10
        for region in ("eu", "us"):  # the same event, appended where the other is not known yet
            if number < 3 or region == "us":
                made.commit(region, op("event-log", "k", "append", id=f"{region}{number}"))
    made.lose()
    made.commit("ap", op("event-log", "k", "append", id="us3"), op("event-log", "k", "append", id="early"))
    made.lose()
    first = page(made, "event-log", limit=2)
    assert [event["id"] for event in first["items"]] == ["us0", "us1"]
    assert [event["id"] for event in pages(made, "event-log", 1)] == ["us0", "us1", "us2", "us3"]
    made.now_ms -= 40
    made.commit("eu", op("event-log", "k", "append", id="us3"), op("event-log", "k", "append", id="us0", body="later"))
    made.settle(10_000)
    for region in ("us", "eu", "ap"):
        whole = read(made, region, "event-log")
        assert len(whole["value"]) == 8
    for limit in (1, 2, 3, 8):
        assert pages(made, "event-log", limit) == read(made, "us", "event-log")["value"]


def test_an_order_that_is_not_true_any_more_is_made_again(made: Regions) -> None:
    for name in "abcdef":
        made.commit("us", op("event-log", "k", "append", id=name))
        made.now_ms += 10
    assert [event["id"] for event in page(made, "event-log")["items"]] == list("abcdef")
    entry: Any = made.services["us"].host.groups["shop/0"].keyspace.tree.entry("event-log:event_log", "k")
    for moved in ("e", "c"):
        entry.children[moved].hlc = entry.children["b"].hlc - 1  # in place, as a dot that comes into a leaf of several
        whole = read(made, "us", "event-log")["value"]
        start = [event["id"] for event in whole].index(moved) + 1
        assert page(made, "event-log", limit=3, after=moved)["items"] == whole[start : start + 3]
        assert pages(made, "event-log", 1) == whole
    entry.children["f"].hlc = 0
    assert len(pages(made, "event-log", 2)) == 5, "f comes before what was shown already"
    assert pages(made, "event-log", 2) == read(made, "us", "event-log")["value"]


# --- durable first


@pytest.mark.parametrize("do", ["members", "explain", "conflicts", "list"])
def test_every_reading_waits_for_the_disk(made: Regions, do: str) -> None:
    made.settle(500)
    made.ask("us", "commit", domain="shop", ops=[op("aw-set", "k", "add", elements=["x"])])
    where = (
        {} if do == "conflicts" else {"collection": "aw-set"} if do == "list" else {"collection": "aw-set", "key": "k"}
    )
    ticket = made.ask("us", do, domain="shop", **where)
    assert made.answer(ticket) is None
    made.sync("us")
    made.reply(ticket)


@pytest.mark.parametrize("do", ["members", "explain", "conflicts"])
def test_every_reading_waits_for_the_token(made: Regions, do: str) -> None:
    token = made.commit("us", op("aw-set", "k", "add", elements=["x"]))["token"]
    where = {} if do == "conflicts" else {"collection": "aw-set", "key": "k"}
    ticket = made.ask("eu", do, domain="shop", token=token, **where)
    assert made.answer(ticket) is None
    made.flush()
    assert "token" in made.reply(ticket)
