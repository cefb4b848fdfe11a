"""Members, explanations and conflicts over HTTP: paths, query parameters, both encodings."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from crdtstore.values import to_json_bytes
from crdtstore_node.node import Node
from tests.node.running import JSON, MSGPACK, call, declare

SET = "/v1/data/shop/aw_set/k"


async def add(node: Node, elements: list[Any], path: str = SET) -> None:
    body = {"ops": [{"op": "add", "elements": elements}]}
    assert (await call(node, "POST", path, body, content_type=MSGPACK)).status == 200


def encoded(element: Any) -> str:
    return quote(to_json_bytes(element), safe="")


@pytest.mark.parametrize("media", [JSON, MSGPACK])
async def test_pages_of_members(shop: Node, media: str) -> None:
    elements = [-7, 5, 1 << 80, "5", "a b", "ž/?#&", b"\x00\xff"]
    await add(shop, elements)
    found, query = [], "limit=2"
    while True:
        reply = await call(shop, "GET", f"{SET}/members?{query}", accept=media)
        assert (reply.status, reply.headers["content-type"]) == (200, media)
        assert set(reply.body) == {"items", "next", "token"}
        found += reply.body["items"]
        if reply.body["next"] is None:
            break
        query = f"limit=2&after={encoded(reply.body['next'])}"
    assert found == elements


@pytest.mark.parametrize(
    ("has", "is_in"),
    [
        ("5", False),
        ("%225%22", True),
        ("6", True),
        ("ann", True),
        ("%22ann%22", True),
        ("bob", False),
        ("a%20b", True),
        ("a+b", True),
        ("%7B%22$bytes%22:%22AP8=%22%7D", True),
        ("NaN", False),
        ("%7B%22ann", False),
    ],
)
async def test_what_is_asked_for_is_json_or_text(shop: Node, has: str, is_in: bool) -> None:
    await add(shop, ["5", 6, "ann", "a b", b"\x00\xff"])
    reply = await call(shop, "GET", f"{SET}/members?has={has}")
    assert (reply.status, reply.body["has"]) == (200, is_in)


async def test_no_key_collides_with_members(shop: Node) -> None:
    await add(shop, ["inner"], f"{SET}%2Fmembers")
    await add(shop, ["outer"])
    assert (await call(shop, "GET", f"{SET}/members")).body["items"] == ["outer"]
    assert (await call(shop, "GET", f"{SET}%2Fmembers")).body["value"] == ["inner"]
    assert (await call(shop, "GET", f"{SET}%2fmembers/members")).body["items"] == ["inner"]
    await add(shop, ["named so"], "/v1/data/shop/aw_set/members")
    assert (await call(shop, "GET", "/v1/data/shop/aw_set/members")).body["value"] == ["named so"]
    assert (await call(shop, "GET", "/v1/data/shop/aw_set/members/members")).body["items"] == ["named so"]
    explained = await call(shop, "GET", "/v1/explain/shop/aw_set/k%2Fmembers")
    assert [write["value"] for write in explained.body["live"]] == ["inner"]


@pytest.mark.parametrize(
    ("method", "path", "code", "said"),
    [
        ("GET", f"{SET}/members?has=1.5", "invalid-value", "has must be text, an integer or bytes, got 1.5"),
        ("GET", f"{SET}/members?has=null", "invalid-value", "got null"),
        ("GET", f"{SET}/members?has=%7B%22a%22:1%7D", "invalid-value", "has must be"),
        ("GET", f"{SET}/members?after=true", "invalid-value", "after must be text, an integer or bytes, got true"),
        ("GET", f"{SET}/members?limit=0", "bad-request", "limit is 1 to 1000"),
        ("GET", f"{SET}/members?values=true", "bad-request", "there are: after, limit, has, wait_ms"),
        ("GET", f"{SET}/members?has=%ff", "bad-request", "UTF-8"),
        ("GET", f"{SET}/members/", "no-such-route", "nothing at"),
        ("GET", f"{SET}/others", "no-such-route", "what may stand behind it is /members"),
        ("GET", f"{SET}/members/x", "no-such-route", "write / in it as %2F"),
        ("GET", "/v1/data/shop/counter/k/members", "invalid-op", "counter has none"),
        ("POST", f"{SET}/members", "method-not-allowed", "takes GET, HEAD"),
        ("GET", "/v1/explain/shop/aw_set", "no-such-route", "nothing at"),
        ("GET", "/v1/explain/shop/aw_set/a/b", "no-such-route", "write / in it as %2F"),
        ("GET", "/v1/explain/shop/aw_set/k?limit=x", "bad-request", "limit must be an integer"),
        ("PUT", "/v1/explain/shop/aw_set/k", "method-not-allowed", "takes GET, HEAD"),
        ("GET", "/v1/conflicts/other", "not-declared", "domain other"),
        ("GET", "/v1/conflicts/shop?after=x", "bad-request", "after is collection/key"),
        ("GET", "/v1/conflicts/shop/aw_set", "no-such-route", "nothing at"),
        ("DELETE", "/v1/conflicts/shop", "method-not-allowed", "takes GET, HEAD"),
    ],
)
async def test_what_cannot_be_asked(shop: Node, method: str, path: str, code: str, said: str) -> None:
    reply = await call(shop, method, path)
    assert (reply.body["code"], said in reply.body["detail"]) == (code, True), reply.body
    assert reply.status == reply.body["status"]


@pytest.mark.parametrize("media", [JSON, MSGPACK])
async def test_why_a_value_is_what_it_is(shop: Node, media: str) -> None:
    body = {"ops": [{"op": "set", "value": {"$tier": b"gold"}}], "reason": "upgrade"}
    wrote = await call(shop, "POST", "/v1/data/shop/lww_register/c-42", body, content_type=media)
    reply = await call(shop, "GET", "/v1/explain/shop/lww_register/c-42", accept=media)
    assert reply.headers["content-type"] == media
    [write] = reply.body["live"]
    assert reply.body | {"token": "", "live": []} == {
        "value": {"$tier": b"gold"},
        "type": "lww_register",
        "live": [],
        "not_yet_in": [],
        "truncated": False,
        "token": "",
    }
    assert (write["value"], write["dot"], write["reason"]) == ({"$tier": b"gold"}, wrote.body["dot"], "upgrade")
    assert (write["region"], write["author"], write["counts"], write["why"]) == (
        "us",
        "anonymous",
        True,
        "the latest write",
    )
    conflicts = await call(shop, "GET", "/v1/conflicts/shop?limit=5", accept=media)
    assert conflicts.body | {"token": ""} == {"items": [], "declarations": [], "next": None, "token": ""}
    assert (await call(shop, "HEAD", "/v1/conflicts/shop")).raw == b""


@pytest.mark.parametrize("media", [JSON, MSGPACK])
async def test_fields_of_a_map_are_written_and_expire(shop: Node, media: str) -> None:
    await declare(shop, "crm", "or_map")
    declared = {"type": "or_map", "options": {"fields": {"visits": "counter", "address": "or_map"}}}
    path = "/v1/domains/crm/collections/customers"
    assert (await call(shop, "PUT", path, declared, content_type=media)).body["options"] == declared["options"]
    ops: list[dict[str, Any]] = [
        {"path": ["visits"], "op": "add"},
        {"path": ["address", ["city", "lww_register"]], "op": "set", "value": "Oslo"},
        {"path": ["visits"], "op": "expire", "ttl_ms": 60_000},
        {"op": "expire", "ttl_ms": 120_000},
    ]
    wrote = await call(shop, "POST", "/v1/data/crm/customers/c", {"ops": ops}, content_type=media, accept=media)
    assert wrote.body["values"][:2] == [1, "Oslo"]
    read = await call(shop, "GET", "/v1/data/crm/customers/c", accept=media)
    assert read.body["value"] == {"visits": 1, "address": {"city": "Oslo"}}
    assert set(read.body["field_expires"]) == {"visits"}
    assert read.body["field_expires"]["visits"] < read.body["expires"]
    members = await call(shop, "GET", "/v1/data/crm/customers/c/members?limit=1", accept=media)
    assert members.body["items"] == [{"field": "address", "value": {"city": "Oslo"}}]
    after = encoded(members.body["next"])
    members = await call(shop, "GET", f"/v1/data/crm/customers/c/members?after={after}", accept=media)
    assert members.body["items"] == [{"field": "visits", "value": 1}]
    refused = await call(shop, "POST", "/v1/data/crm/customers/c", {"ops": [{"path": ["x"], "op": "add"}]})
    assert (refused.status, refused.body["code"]) == (422, "invalid-op")
    assert "declares the fields address, visits" in refused.body["detail"]
