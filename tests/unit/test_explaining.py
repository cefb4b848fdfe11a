"""What stands behind values: who wrote what, who lost and why, and where writes met."""

from __future__ import annotations

from typing import Any

import pytest

from crdtstore import explaining
from crdtstore.clock import rfc3339
from crdtstore.engine.growth import count_members
from tests.unit.regions import Regions, nested, op, read, shop


@pytest.fixture
def made() -> Regions:
    return shop("us", "eu")


def explain(made: Regions, region: str, collection: str, **fields: Any) -> dict[str, Any]:
    return made.do(region, "explain", **{"domain": "shop", "collection": collection, "key": "k", **fields})


def conflicts(made: Regions, region: str = "us", **fields: Any) -> dict[str, Any]:
    return made.do(region, "conflicts", domain="shop", **fields)


# --- explain


def test_explain_says_who_lost_and_why(made: Regions) -> None:
    made.commit("us", op("lww-register", "k", "set", value="silver"), reason="renewal")
    made.now_ms += 76
    ticket = made.ask_as("eu", "crm", "commit", domain="shop", ops=[op("lww-register", "k", "set", value="gold")])
    made.sync("eu")
    gold, at_ms = made.reply(ticket)["dot"], made.now_ms
    made.settle(500)
    for region in ("us", "eu"):
        body = explain(made, region, "lww-register")
        assert set(body) == {"value", "type", "live", "not_yet_in", "truncated", "token"}
        assert (body["value"], body["type"], body["truncated"], body["not_yet_in"]) == (
            "gold",
            "lww_register",
            False,
            [],
        )
        assert body["live"][0] == {
            "value": "gold",
            "dot": gold,
            "time": rfc3339(at_ms),
            "region": "eu",
            "author": "crm",
            "reason": None,
            "counts": True,
            "why": "latest of 2 concurrent writes",
        }
        silver = body["live"][1]
        assert [silver[name] for name in ("value", "region", "author", "reason", "counts", "why")] == [
            "silver",
            "us",
            "anonymous",
            "renewal",
            False,
            "concurrent and earlier",
        ]


def test_explain_says_where_it_is_not_yet() -> None:
    made = shop("us", "eu", "ap")
    made.commit("us", op("counter", "k", "add"))
    assert explain(made, "us", "counter")["not_yet_in"] == ["eu", "ap"]
    made.deliver("us", "eu")
    made.sync("eu")
    made.lose()
    assert explain(made, "us", "counter")["not_yet_in"] == ["eu", "ap"], "nobody has said that it has it"
    assert explain(made, "eu", "counter")["not_yet_in"] == ["ap"], "who made it has it"
    made.settle(4_000)
    assert explain(made, "us", "counter")["not_yet_in"] == []
    assert explain(made, "us", "counter", key="never") | {"token": ""} == {
        "value": 0,
        "type": "counter",
        "live": [],
        "not_yet_in": [],
        "truncated": False,
        "token": "",
    }


def test_who_is_no_member_any_more_is_not_waited_for() -> None:
    made = shop("us", "eu", "ap")
    made.commit("us", op("counter", "k", "add"))
    engine = made.services["us"].host.groups["shop/0"]
    assert explain(made, "us", "counter")["not_yet_in"] == ["eu", "ap"]
    count_members(engine, engine.configuration.ids[:2], made.replicas["us"])
    assert explain(made, "us", "counter")["not_yet_in"] == ["eu"]


def test_explain_says_where_below_the_key_a_write_stands(made: Regions) -> None:
    made.commit(
        "us",
        op("aw-set", "k", "add", elements=[1, "a"]),
        nested([["home", "or_map"], ["tags:x", "aw_set"]], "add", elements=["vip"]),
    )
    assert [write["at"] for write in explain(made, "us", "aw-set")["live"]] == [[1], ["a"]]
    [write] = explain(made, "us", "or-map")["live"]
    assert write["at"] == [["home", "or_map"], ["tags:x", "aw_set"], "vip"]
    short = explain(made, "us", "aw-set", limit=1)
    assert ([write["at"] for write in short["live"]], short["truncated"]) == ([[1]], True)
    made.commit("us", op("aw-set", "k", "remove", elements=[1, "a"]))
    assert explain(made, "us", "aw-set")["live"] == []


def test_a_sum_is_shown_under_its_newest_commit_also_when_it_is_folded(made: Regions) -> None:
    made.commit("us", op("counter", "k", "add", amount=2), reason="the first", id="1")
    last = made.commit("us", op("counter", "k", "add", amount=3), reason="the last", id="2")["dot"]
    nested_last = made.commit("eu", nested([["n", "counter"]], "add", amount=4), reason="nested", id="3")["dot"]
    for number in range(5):
        made.commit("us", op("counter", "other", "add"), reason=f"other {number}")
        made.commit("eu", op("counter", "other", "add"), reason=f"other {number}")
    made.settle(10_000)
    folded: Any = made.services["eu"].host.groups["shop/0"].keyspace.tree.entry("counter:counter", "k")
    assert (folded.runs[0].loose, folded.runs[0].last_seq) == (None, 0), "which numbers it had is forgotten"
    for region in ("us", "eu"):
        for collection, dot, reason in (("counter", last, "the last"), ("or-map", nested_last, "nested")):
            [write] = explain(made, region, collection)["live"]
            assert (write["dot"], write["reason"], write["value"]) == (
                dot,
                reason,
                {"counter": 5, "or-map": 4}[collection],
            )


def test_explain_names_another_body_under_one_id(made: Regions) -> None:
    made.commit("eu", op("event-log", "k", "append", id="e", body=1))
    made.commit("us", op("event-log", "k", "append", id="e", body=2))
    made.settle()
    writes = explain(made, "us", "event-log")["live"]
    assert [(write["value"], write["counts"], write["at"]) for write in writes] == [(1, True, ["e"]), (2, False, ["e"])]
    assert "another body" in writes[1]["why"]


# --- conflicts


def clash(made: Regions, *ops: dict[str, Any], other: list[dict[str, Any]]) -> None:
    made.commit("us", *ops)
    made.commit("eu", *other)
    made.settle()


def test_conflicts_of_a_domain_are_listed(made: Regions) -> None:
    assert conflicts(made) | {"token": ""} == {"items": [], "declarations": [], "next": None, "token": ""}
    clash(
        made,
        op("lww-register", "b/c", "set", value=1),
        op("lww-register", "a", "set", value=1),
        op("event-log", "k", "append", id="e", body=1),
        op("event-log", "same", "append", id="e", body=1),
        op("counter", "k", "add"),
        op("lww-map", "m", "set", fields={"x": 1, "y": 1}),
        other=[
            op("lww-register", "b/c", "set", value=2),
            op("lww-register", "a", "set", value=2),
            op("event-log", "k", "append", id="e", body=2),
            op("event-log", "same", "append", id="e", body=1),
            op("counter", "k", "add"),
            op("lww-map", "m", "set", fields={"x": 2, "y": 2}),
        ],
    )
    expected = [
        {"collection": "event-log", "key": "k", "type": "event_log", "conflicts": 1},
        {"collection": "lww-map", "key": "m", "type": "lww_map", "conflicts": 2},
        {"collection": "lww-register", "key": "a", "type": "lww_register", "conflicts": 1},
        {"collection": "lww-register", "key": "b/c", "type": "lww_register", "conflicts": 1},
    ]
    for region in ("us", "eu"):
        assert conflicts(made, region)["items"] == expected
        found, after = [], None
        for _ in range(9):
            body = conflicts(made, region, limit=1, after=after)
            found += body["items"]
            after = body["next"]
            if after is None:
                break
        assert found == expected
    assert conflicts(made, after="lww-register/a")["items"] == expected[3:]
    assert conflicts(made, after="lww-register@lww_register/b/c")["items"] == []
    made.commit("us", op("lww-register", "a", "set", value=3))
    made.settle()
    for region in ("us", "eu"):
        assert [item["key"] for item in conflicts(made, region)["items"]] == ["k", "m", "b/c"]
        tree = made.services[region].host.groups["shop/0"].keyspace.tree
        assert ("lww-register:lww_register", "a") not in tree.contested, "what is settled is not looked at again"


def test_an_add_that_lost_against_a_remove_is_a_conflict_until_all_have_both(made: Regions) -> None:
    made.commit("us", op("rw-set", "k", "add", elements=["x"]))
    made.commit("eu", op("rw-set", "k", "remove", elements=["x"]))
    made.flush()
    assert [item["conflicts"] for item in conflicts(made)["items"]] == [1]
    assert read(made, "us", "rw-set")["exists"] is False


def test_pages_of_conflicts_are_bounded(made: Regions, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"k{number}" for number in range(9)]
    clash(
        made,
        *[op("event-log", name, "append", id="e") for name in names],
        other=[op("event-log", name, "append", id="e", body=name if name > "k6" else None) for name in names],
    )
    tree = made.services["us"].host.groups["shop/0"].keyspace.tree
    assert len(tree.contested) == 9
    monkeypatch.setattr(explaining, "MAX_CANDIDATES", 3)
    first = conflicts(made)
    assert (first["items"], first["next"]) == ([], "event-log@event_log/k2")
    assert len(tree.contested) == 6
    monkeypatch.undo()
    monkeypatch.setattr(explaining, "MAX_WORK", 2)
    second = conflicts(made, after=first["next"])
    assert (second["items"], second["next"]) == ([], "event-log@event_log/k3"), "a key and its only child"
    monkeypatch.undo()
    assert [item["key"] for item in conflicts(made, after=second["next"])["items"]] == ["k7", "k8"]


def test_a_conflict_that_has_expired_is_not_listed(made: Regions) -> None:
    clash(made, op("lww-register", "k", "set", value=1), other=[op("lww-register", "k", "set", value=2)])
    made.commit("us", op("lww-register", "k", "expire", ttl_ms=1_000))
    assert len(conflicts(made)["items"]) == 1
    made.now_ms += 1_000
    assert conflicts(made)["items"] == []


def test_declarations_that_clash_are_listed(made: Regions) -> None:
    fields: dict[str, Any] = {"domain": "shop", "collection": "tags"}
    made.do("us", "declare", **fields, type="aw_set")
    made.now_ms += 1
    made.do("eu", "declare", **fields, type="lww_register")
    made.do("us", "declare", domain="shop", collection="n", type="counter")
    made.do("eu", "declare", domain="shop", collection="n", type="counter", options={"grow_only": True})
    made.commit("us", op("tags", "k", "add", elements=["x"]))
    made.commit("eu", op("tags", "k", "set", value=1))
    made.settle()
    for region in ("us", "eu"):
        assert conflicts(made, region)["declarations"] == [
            {"collection": "n", "serves": "counter", "also": ["counter"]},
            {"collection": "tags", "serves": "aw_set", "also": ["lww_register"]},
        ]
    clash(made, op("tags", "k", "add", elements=["x"]), other=[op("tags", "k", "add", elements=["x"])])
    assert conflicts(made, limit=1, after="tags/k")["declarations"] == [], "they stand on the first page"
    assert made.do("us", "members", domain="shop", collection="tags@aw_set", key="k")["items"] == ["x"]
    assert explain(made, "us", "tags@lww_register")["value"] == 1
