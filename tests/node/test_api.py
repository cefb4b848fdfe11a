"""What the API answers when nothing is wrong: shapes, both encodings, tokens, idempotency, headers, connections."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from crdtstore_node.node import Node
from tests.node.running import JSON, MSGPACK, Lines, Nodes, call, declare, exchange, read_reply, until

KEY = "/v1/data/shop/counter/k"
ADD: dict[str, Any] = {"ops": [{"op": "add", "amount": 1}]}


async def test_shapes_are_those_of_the_documentation(shop: Node) -> None:
    wrote = await call(shop, "POST", KEY, {**ADD, "reason": "order 981", "regions": 0, "wait_ms": 5})
    assert wrote.status == 200
    assert wrote.headers["content-type"] == JSON
    assert wrote.body == {
        "dot": "us-1.0000000000000001:1",
        "token": wrote.body["token"],
        "values": [1],
        "replayed": False,
        "durable_in": ["us"],
    }
    read = await call(shop, "GET", KEY)
    assert read.body == {
        "value": 1,
        "exists": True,
        "type": "counter",
        "etag": read.headers["etag"],
        "token": read.body["token"],
        "region": "us",
        "staleness_ms": 0,
        "conflicts": 0,
    }
    assert re.fullmatch('"[0-9a-f]+"', read.headers["etag"])
    absent = await call(shop, "GET", "/v1/data/shop/aw_set/none")
    assert (absent.status, absent.body["value"], absent.body["exists"]) == (200, [], False)
    collection = await call(shop, "GET", "/v1/domains/shop/collections/counter")
    assert collection.body == {
        "domain": "shop",
        "collection": "counter",
        "type": "counter",
        "options": {"grow_only": False},
        "token": collection.body["token"],
    }
    domain = await call(shop, "PUT", "/v1/domains/shop", {"owner": "team-shop", "description": "orders"})
    assert (domain.body["owner"], domain.body["description"]) == ("team-shop", "orders")
    assert (await call(shop, "GET", "/v1/domains/shop")).body["collections"]["aw_set"] == "aw_set"


@pytest.mark.parametrize("media", [JSON, MSGPACK])
async def test_values_come_back_as_they_went(shop: Node, media: str) -> None:
    big = -(1 << 200) - 7
    value = {"$a": b"\x00\xff", "n": [None, True, 1.5, big, 1 << 64, -(1 << 63)], "t": "žluťoučký 🐎", "": {}}
    set_ = {"ops": [{"op": "set", "value": value}]}
    wrote = await call(shop, "POST", "/v1/data/shop/lww_register/v", set_, content_type=media, accept=media)
    assert wrote.status == 200, wrote
    read = await call(shop, "GET", "/v1/data/shop/lww_register/v", accept=media)
    assert read.headers["content-type"] == media
    assert read.body["value"] == value
    added = {"ops": [{"op": "add", "elements": ["a", b"a", 1, 1 << 80]}]}
    assert (await call(shop, "POST", "/v1/data/shop/aw_set/s", added, content_type=media)).status == 200
    assert (await call(shop, "GET", "/v1/data/shop/aw_set/s", accept=media)).body["value"] == [1, 1 << 80, "a", b"a"]


@pytest.mark.parametrize("media", [JSON, MSGPACK])
async def test_an_add_beyond_64_bits_works_end_to_end(shop: Node, media: str) -> None:
    huge = (1 << 8190) + 1
    for amount, total in ((huge, huge), (-1, huge - 1), (1 << 64, huge - 1 + (1 << 64))):
        ops = {"ops": [{"op": "add", "amount": amount}]}
        wrote = await call(shop, "POST", KEY, ops, content_type=media, accept=media)
        assert wrote.body["values"] == [total]
    assert (await call(shop, "GET", KEY, accept=media)).body["value"] == total


async def test_keys_hold_any_character_when_encoded(shop: Node) -> None:
    keys = {
        "a%2Fb": "a/b",
        "a:b": "a:b",
        "%25": "%",
        "%C5%BE": "ž",
        "a+b": "a+b",
        "a%20b": "a b",
        "%23%3F": "#?",
        "~": "~",
    }
    for encoded in keys:
        assert (await call(shop, "POST", f"/v1/data/shop/counter/{encoded}", ADD)).status == 200
    listed = (await call(shop, "GET", "/v1/data/shop/counter")).body
    assert [item["key"] for item in listed["items"]] == sorted(keys.values(), key=str.encode)
    again = await call(shop, "GET", "/v1/data/%73hop/counter/%61%2fb")
    assert again.body["value"] == 1
    assert (await call(shop, "GET", "http://any.host/v1/data/shop/counter/a:b")).body["value"] == 1


async def test_lists_are_paged(shop: Node) -> None:
    for number in range(7):
        await call(shop, "POST", f"/v1/data/shop/counter/k{number}", ADD)
    first = (await call(shop, "GET", "/v1/data/shop/counter?limit=3&prefix=k&values=true")).body
    assert first["items"] == [{"key": f"k{number}", "value": 1} for number in range(3)]
    assert first["next"] == "k2"
    last = (await call(shop, "GET", "/v1/data/shop/counter?limit=4&after=k2")).body
    assert [item["key"] for item in last["items"]] == ["k3", "k4", "k5", "k6"]
    assert last["next"] is None
    assert (await call(shop, "GET", "/v1/data/shop/counter?prefix=%6b3")).body["items"] == [{"key": "k3"}]


async def test_an_idempotency_key_counts_once(shop: Node) -> None:
    headers = {"Idempotency-Key": "order 981"}
    first = (await call(shop, "POST", KEY, ADD, headers=headers)).body
    again = (await call(shop, "POST", KEY, ADD, headers=headers)).body
    assert (first["replayed"], again["replayed"]) == (False, True)
    assert first["dot"] == again["dot"]
    other = await call(shop, "POST", KEY, {"ops": [{"op": "add", "amount": 2}]}, headers=headers)
    assert (other.status, other.body["code"]) == (422, "key-reused")
    assert (await call(shop, "GET", KEY)).body["value"] == 1
    many = await asyncio.gather(
        *(call(shop, "POST", KEY, ADD, headers={"Idempotency-Key": "at once"}) for _ in range(8))
    )
    assert sorted(reply.body["replayed"] for reply in many) == [False] + [True] * 7
    assert (await call(shop, "GET", KEY)).body["value"] == 2


async def test_an_etag_is_a_precondition_and_a_validator(shop: Node) -> None:
    await call(shop, "POST", KEY, ADD)
    etag = (await call(shop, "GET", KEY)).headers["etag"]
    same = await call(shop, "GET", KEY, headers={"If-None-Match": f'"x", W/{etag}'})
    assert (same.status, same.raw, same.headers["etag"]) == (304, b"", etag)
    assert (await call(shop, "GET", KEY, headers={"If-None-Match": "*"})).status == 304
    assert (await call(shop, "GET", "/v1/data/shop/counter/none", headers={"If-None-Match": "*"})).status == 200
    op = {"op": "add", "amount": 1, "if_match": etag}
    assert (await call(shop, "POST", KEY, {"ops": [op]})).status == 200
    stale = await call(shop, "POST", KEY, {"ops": [op]})
    assert (stale.status, stale.body["code"], stale.body["effect"]) == (412, "precondition-failed", "none")
    assert (await call(shop, "GET", KEY, headers={"If-None-Match": etag})).body["value"] == 2


async def test_a_token_is_waited_for_and_then_refused_with_who_can_serve(make_nodes: Callable[..., Nodes]) -> None:
    nodes = make_nodes("eu", "us")
    us = await nodes.start("us")
    await call(us, "PUT", "/v1/domains/shop")
    await call(us, "PUT", "/v1/domains/shop/collections/counter", {"type": "counter"})
    token = (await call(us, "POST", KEY, ADD)).body["token"]
    for _ in range(2):
        token = (await call(us, "POST", KEY, ADD, headers={"Crdtstore-Token": token})).body["token"]
    eu = await nodes.start("eu")
    read = await call(eu, "GET", f"{KEY}?wait_ms=5000", headers={"Crdtstore-Token": token})
    assert (read.status, read.body["value"]) == (200, 3)
    await nodes.stop("eu")
    token = (await call(us, "POST", KEY, ADD)).body["token"]
    peers = {"us": nodes.ports["eu"][0]}  # where no gossip listener is, so eu cannot catch up
    eu = await nodes.start("eu", peers=peers)
    behind = await call(eu, "GET", f"{KEY}?wait_ms=30", headers={"Crdtstore-Token": token})
    assert (behind.status, behind.body["code"], behind.body["effect"]) == (503, "replica-behind", "none")
    assert behind.headers["retry-after"] == "1"
    assert behind.body["retryable"] is True
    write = await call(eu, "POST", KEY, {**ADD, "wait_ms": 0}, headers={"Crdtstore-Token": token})
    assert (write.status, write.body["code"]) == (503, "replica-behind")
    local = await call(eu, "GET", f"{KEY}?consistency=local", headers={"Crdtstore-Token": token})
    assert (local.status, local.body["value"]) == (200, 3)


async def test_a_reader_that_goes_away_is_forgotten(make_nodes: Callable[..., Nodes]) -> None:
    nodes = make_nodes("eu", "us")
    us = await nodes.start("us")
    await call(us, "PUT", "/v1/domains/shop")
    token = (await call(us, "PUT", "/v1/domains/shop/collections/counter", {"type": "counter"})).body["token"]
    eu = await nodes.start("eu", peers={"us": nodes.ports["eu"][0]})
    _, writer = await asyncio.open_connection("127.0.0.1", eu.api.port)
    writer.write(f"GET {KEY}?wait_ms=60000 HTTP/1.1\r\nHost: t\r\nCrdtstore-Token: {token}\r\n\r\n".encode())
    await until(lambda: eu.driver.waiting == 1)
    writer.transport.abort()
    await until(lambda: eu.driver.waiting == 0)


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (None, JSON),
        ("*/*", JSON),
        (MSGPACK, MSGPACK),
        ("application/json, application/msgpack", MSGPACK),
        ("application/json;q=0.9, application/msgpack;q=0.5", JSON),
        ("application/msgpack;q=0", JSON),
        ("application/msgpack;q=x", JSON),
        ("text/html, */*;q=0.1", JSON),
        ("text/html", JSON),
    ],
)
async def test_an_answer_is_in_the_form_that_was_asked_for(shop: Node, accept: str | None, media: str) -> None:
    reply = await call(shop, "GET", KEY, accept=accept)
    assert reply.headers["content-type"] == media
    assert reply.body["value"] == 0


async def test_the_charset_of_json_may_be_named(shop: Node) -> None:
    for media in ("application/json; charset=utf-8", 'Application/JSON;Charset="UTF-8"'):
        assert (await call(shop, "POST", KEY, ADD, content_type=media)).status == 200


async def test_pages_of_the_node(shop: Node) -> None:
    assert (await call(shop, "GET", "/healthz")).body == {"alive": True}
    assert (await call(shop, "GET", "/readyz")).body == {"ready": True}
    status = (await call(shop, "GET", "/v1/status")).body
    assert (status["node"], status["region"], status["cluster"], status["ready"], status["why"]) == (
        "us-1",
        "us",
        "test",
        True,
        None,
    )
    assert [group["domain"] for group in status["groups"]] == ["_sys", "shop"]
    assert status["peers"] == []
    head = await call(shop, "HEAD", "/readyz")
    assert (head.status, head.raw) == (200, b"")
    assert (await call(shop, "HEAD", KEY)).headers["etag"] == (await call(shop, "GET", KEY)).headers["etag"]


async def test_one_connection_carries_many_requests(shop: Node) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", shop.api.port)
    request = f"POST {KEY} HTTP/1.1\r\nHost: t\r\nContent-Type: {JSON}\r\nContent-Length: 33\r\n\r\n".encode()
    request += b'{"ops":[{"op":"add","amount":1}]}'
    for number in range(3):
        writer.write(request)
        assert (await read_reply(reader)).body["values"] == [number + 1]
    writer.write(b"GET /nowhere HTTP/1.1\r\nHost: t\r\n\r\n")
    assert (await read_reply(reader)).status == 404
    writer.write(request * 20)  # pipelined
    for number in range(20):
        assert (await read_reply(reader)).body["values"] == [number + 4]
    writer.close()


async def test_who_waits_to_be_told_to_send_is_told(shop: Node) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", shop.api.port)
    head = (
        f"POST {KEY} HTTP/1.1\r\nHost: t\r\nContent-Type: {JSON}\r\nContent-Length: 33\r\nExpect: 100-continue\r\n\r\n"
    )
    writer.write(head.encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b'{"ops":[{"op":"add","amount":1}]}')
    assert (await read_reply(reader)).body["values"] == [1]
    writer.close()


async def test_writes_at_once_share_a_sync(shop: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    before, write = shop.log.syncs, shop.log.write

    def write_slowly(records: Sequence[bytes]) -> int:
        time.sleep(0.005)
        return write(records)

    monkeypatch.setattr(shop.log, "write", write_slowly)
    replies = await asyncio.gather(*(call(shop, "POST", f"/v1/data/shop/counter/k{n}", ADD) for n in range(100)))
    assert [reply.body["values"] for reply in replies] == [[1]] * 100
    assert len({reply.body["dot"] for reply in replies}) == 100
    assert shop.log.syncs - before < 60


async def test_too_many_requests_are_refused(make_nodes: Callable[..., Nodes]) -> None:
    nodes = make_nodes("eu", "us", engine={"max_waiting": 2})
    us = await nodes.start("us")
    await call(us, "PUT", "/v1/domains/shop")
    token = (await call(us, "PUT", "/v1/domains/shop/collections/counter", {"type": "counter"})).body["token"]
    eu = await nodes.start("eu", peers={"us": nodes.ports["eu"][0]})
    headers = {"Crdtstore-Token": token}
    slow = [asyncio.ensure_future(call(eu, "GET", f"{KEY}?wait_ms=500", headers=headers)) for _ in range(2)]
    await until(lambda: eu.driver.waiting == 2)
    refused = await call(eu, "GET", KEY)
    assert (refused.status, refused.body["code"], refused.headers["retry-after"]) == (503, "overloaded", "1")
    assert [(await each).body["code"] for each in slow] == ["replica-behind"] * 2


async def test_too_many_connections_are_closed(make_nodes: Callable[..., Nodes]) -> None:
    node = await make_nodes(http={"connections": 2}).start("us")
    writers = [(await asyncio.open_connection("127.0.0.1", node.api.port))[1] for _ in range(2)]
    await until(lambda: node.server.connections == 2)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await exchange(node.api.port, b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n")
    for writer in writers:
        writer.close()
    await until(lambda: node.server.connections == 0)
    assert (await call(node, "GET", "/healthz")).status == 200


async def test_stopping_finishes_what_is_in_flight(
    make_nodes: Callable[..., Nodes], lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = make_nodes()
    node = await nodes.start("us")
    await declare(node, "shop", "counter")
    may_write, write = threading.Event(), node.log.write

    def write_later(records: Sequence[bytes]) -> int:
        may_write.wait(5)
        return write(records)

    monkeypatch.setattr(node.log, "write", write_later)
    idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", node.api.port)
    writing = asyncio.ensure_future(call(node, "POST", KEY, ADD))
    await until(lambda: node.driver.waiting == 1)
    stopping = asyncio.ensure_future(nodes.stop("us"))
    assert await idle_reader.read() == b""
    refusal = node.why_not_ready()
    assert refusal is not None
    assert refusal.code == "leaving"
    with pytest.raises(OSError):  # noqa: PT011 - refused or reset, as the kernel likes
        await call(node, "GET", "/healthz")
    may_write.set()
    assert (await writing).body["values"] == [1]
    await stopping
    idle_writer.close()
    assert lines.of("stopped") == [{}]
    node = await nodes.start("us", is_bootstrap=False)
    assert (await call(node, "GET", KEY)).body["value"] == 1
