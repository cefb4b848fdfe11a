"""Declarations: idempotent, refused when they differ, and kept on both sides when two regions could not hear each other."""

from __future__ import annotations

import pytest

from crdtstore.clock import COUNTER_BITS
from crdtstore.commit import Commit, encode_commit
from crdtstore.configuration import SYSTEM_GROUP
from crdtstore.engine.events import Received as EngineReceived
from crdtstore.leaves import PUT
from crdtstore.messages import Frame, Segment
from tests.unit.regions import Regions, op, shop


def test_a_domain_is_declared_once_and_its_fields_may_change() -> None:
    made = Regions("us", "eu")
    first = made.do("us", "declare_domain", domain="shop", owner="team-shop")
    assert {name: first[name] for name in ("domain", "owner", "description", "collections")} == {
        "domain": "shop",
        "owner": "team-shop",
        "description": None,
        "collections": {},
    }
    applied = list(made.services["us"].host.groups[SYSTEM_GROUP].applied)
    again = made.do("us", "declare_domain", domain="shop")
    assert again["owner"] == "team-shop", "what is not named is not changed"
    assert made.services["us"].host.groups[SYSTEM_GROUP].applied == applied, "and no commit is made"
    changed = made.do("us", "declare_domain", domain="shop", description="orders", owner=None)
    assert (changed["owner"], changed["description"]) == (None, "orders")
    made.settle()
    seen = made.do("eu", "domain", domain="shop")
    assert (seen["owner"], seen["description"]) == (None, "orders")


def test_a_collection_is_declared_once() -> None:
    made = shop("us")
    first = made.do("us", "declare", domain="shop", collection="orders", type="counter", options={"grow_only": True})
    assert {name: first[name] for name in ("domain", "collection", "type", "options")} == {
        "domain": "shop",
        "collection": "orders",
        "type": "counter",
        "options": {"grow_only": True},
    }
    applied = list(made.services["us"].host.groups[SYSTEM_GROUP].applied)
    assert (
        made.do("us", "declare", domain="shop", collection="orders", type="counter", options={"grow_only": True})[
            "type"
        ]
        == "counter"
    )
    assert made.services["us"].host.groups[SYSTEM_GROUP].applied == applied
    error = made.refused("us", "declare", domain="shop", collection="orders", type="aw_set")
    assert (error.code, error.status) == ("type-mismatch", 409)
    assert made.do("us", "collection", domain="shop", collection="orders")["options"] == {"grow_only": True}
    assert made.do("us", "collection", domain="shop", collection="orders@counter")["type"] == "counter"
    assert made.do("us", "domain", domain="shop")["collections"]["orders"] == "counter"


def test_what_is_declared_may_be_used_in_the_same_step_and_is_known_after_it_is_durable() -> None:
    made = Regions("us")
    asked = [
        made.ask("us", "declare_domain", domain="shop"),
        made.ask("us", "declare", domain="shop", collection="orders", type="counter"),
        made.ask("us", "commit", domain="shop", ops=[op("orders", "k", "add")]),
        made.ask("us", "domain", domain="shop"),
        made.ask("us", "declare_domain", domain="shop"),
    ]
    assert [made.answer(ticket) for ticket in asked] == [None] * 5
    made.sync("us")
    assert made.reply(asked[2])["values"] == [1]
    assert made.reply(asked[3])["collections"] == {"orders": "counter"}
    assert made.reply(asked[4])["domain"] == "shop"


def test_the_token_of_a_declaration_makes_another_region_wait_for_it() -> None:
    made = shop("us", "eu")
    token = made.do("us", "declare", domain="shop", collection="late", type="counter")["token"]
    early = made.refused("eu", "read", domain="shop", collection="late", key="k")
    assert early.code == "not-declared"
    ticket = made.ask("eu", "read", domain="shop", collection="late", key="k", token=token)
    assert made.answer(ticket) is None
    made.flush()
    assert made.reply(ticket)["value"] == 0


def concurrent() -> Regions:
    """us declares seats a counter, eu, which cannot hear it, later a set; both write."""
    made = shop("us", "eu")
    made.do("us", "declare", domain="shop", collection="seats", type="counter")
    made.lose()
    made.now_ms += 1
    made.do("eu", "declare", domain="shop", collection="seats", type="aw_set")
    made.commit("us", op("seats", "k", "add", amount=5))
    made.commit("eu", op("seats", "k", "add", elements=["x"]))
    made.lose()
    return made


@pytest.mark.parametrize("region", ["us", "eu"])
def test_of_two_declarations_the_earlier_serves_and_the_other_stays_readable(region: str) -> None:
    made = concurrent()
    assert made.do("eu", "read", domain="shop", collection="seats", key="k", wait_ms=0)["value"] == ["x"], (
        "not heard yet"
    )
    made.settle(10_000)
    read = made.do(region, "read", domain="shop", collection="seats", key="k")
    assert (read["type"], read["value"]) == ("counter", 5)
    other = made.do(region, "read", domain="shop", collection="seats@aw_set", key="k")
    assert (other["type"], other["value"]) == ("aw_set", ["x"])
    assert made.do(region, "list", domain="shop", collection="seats@aw_set", values=True)["items"] == [
        {"key": "k", "value": ["x"]}
    ]
    assert made.do(region, "collection", domain="shop", collection="seats")["type"] == "counter"
    assert made.do(region, "domain", domain="shop")["collections"]["seats"] == "counter"
    assert [declared.crdt.name for declared in made.services[region].host.declarations.all_of("shop", "seats")] == [
        "counter",
        "aw_set",
    ]
    assert (
        made.refused(region, "commit", domain="shop", ops=[op("seats", "k", "add", elements=["y"])]).code
        == "invalid-op"
    )
    assert made.refused(region, "declare", domain="shop", collection="seats", type="aw_set").code == "type-mismatch"


def test_a_domain_declared_on_both_sides_is_one_group() -> None:
    made = Regions("us", "eu")
    for region in ("us", "eu"):
        made.do(region, "declare_domain", domain="shop", owner=region)
        made.do(region, "declare", domain="shop", collection="orders", type="counter")
        made.commit(region, op("orders", "k", "add"))
        made.lose()
    made.settle(10_000)
    for region in ("us", "eu"):
        assert made.do(region, "read", domain="shop", collection="orders", key="k")["value"] == 2
    digests = {made.services[region].host.groups["shop/0"].digest for region in ("us", "eu")}
    assert len(digests) == 1


def test_commits_may_arrive_before_the_declaration_of_their_collection() -> None:
    """They are applied at once and read once it is there."""
    made = shop("us", "eu")
    made.do("us", "declare", domain="shop", collection="late", type="counter")
    late = list(made.links["us", "eu"])
    made.lose()
    made.commit("us", op("late", "k", "add"))
    made.deliver("us", "eu")
    made.sync("eu")
    assert made.services["eu"].host.groups["shop/0"].applied[0] == 1
    assert made.refused("eu", "read", domain="shop", collection="late", key="k").code == "not-declared"
    made.links["us", "eu"].extend(late)
    made.deliver("us", "eu")
    made.sync("eu")
    assert made.do("eu", "read", domain="shop", collection="late", key="k")["value"] == 1


@pytest.mark.parametrize(
    "effects",
    [
        [PUT, ["collections:event_log", "shop/odd", "no_such_type"], {"type": "no_such_type", "options": {}}],
        [PUT, ["collections:event_log", "shop/odd", "counter"], "not a map"],
        [PUT, ["collections:event_log", "shop/odd", "counter"], {"type": "counter", "options": 5}],
        [PUT, ["collections:event_log", "shop/odd", "counter"], {"type": "counter", "options": {"later": True}}],
        [PUT, ["collections:event_log", "shop/odd", "or_map"], {"type": "or_map", "options": {"fields": 5}}],
        [PUT, ["domains:lww_map", "Not A Name", "owner"], None],
        [PUT, ["domains:lww_map", "odd"], "a leaf in the place of a map"],
    ],
)
def test_declarations_of_a_later_version_are_passed_over(effects: list[object]) -> None:
    made = shop("us", "eu")
    engine = made.services["us"].host.groups[SYSTEM_GROUP]
    head = engine.history.chain(1, 0)
    origin = made.replicas["eu"]
    data = encode_commit(Commit(1, str(origin), 1, made.now_ms << COUNTER_BITS, [], "x", [], effects))
    frame = Frame(SYSTEM_GROUP, engine.configuration.id, [Segment(1, 0, head)], [], [data])
    host = made.services["us"].host
    host._step_all([engine], EngineReceived(1, frame), made.now_ms, made.output)
    assert engine.applied[1] == 1
    assert made.refused("us", "collection", domain="shop", collection="odd").code == "not-declared"
    assert "odd" not in made.do("us", "domain", domain="shop")["collections"]
    assert made.do("us", "conflicts", domain="shop")["declarations"] == []
    ticket = made.ask("us", "declare", domain="shop", collection="odd", type="counter")
    made.sync("us")
    reply = made.answer(ticket)
    assert isinstance(reply, dict) or reply.code == "not-declared", "one answer, and the node goes on"


def test_options_of_a_type_have_defaults() -> None:
    made = shop("us")
    assert made.do("us", "declare", domain="shop", collection="plain", type="counter")["options"] == {
        "grow_only": False
    }
    assert (
        made.do("us", "declare", domain="shop", collection="plain", type="counter", options={"grow_only": False})[
            "type"
        ]
        == "counter"
    )
