"""Everything users may get wrong, against a real node: what is answered, and that nothing changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from crdtstore.errors import CODES
from crdtstore_node.node import Node
from tests.node.running import JSON, MSGPACK, Lines, Nodes, Reply, call, exchange

KEY = "/v1/data/shop/counter/k"
ADD: dict[str, Any] = {"ops": [{"op": "add", "amount": 1}]}


def is_problem(reply: Reply, code: str) -> dict[str, Any]:
    """The document, once it is known to be a whole one."""
    document: dict[str, Any] = reply.body
    assert document.get("code") == code, document
    assert reply.status == document["status"] == CODES[code].status
    assert document["type"] == f"urn:crdtstore:problem:{code}"
    assert document["title"] == CODES[code].title
    assert document["effect"] == "none"
    assert isinstance(document["retryable"], bool)
    assert "Traceback" not in reply.raw.decode(errors="replace")
    assert 'File "' not in reply.raw.decode(errors="replace")
    return document


def unchanged(node: Node) -> tuple[Any, ...]:
    """What must not move when something is refused."""
    groups = node.host.groups
    return tuple((name, list(engine.applied), engine.digest) for name, engine in groups.items())


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


BODIES = [
    # unknown domain, collection, operation, argument, field
    ("/v1/data/none/counter/k", ADD, "not-declared", "the domain none is not declared"),
    ("/v1/data/shop/none/k", ADD, "not-declared", "shop/none is not declared"),
    (KEY, {"ops": [{"op": "append", "amount": 1}]}, "invalid-op", "add"),
    (KEY, {"ops": [{"amount": 1}]}, "invalid-op", "in the field op"),
    (KEY, {"ops": [{"op": "add", "amuont": 1}]}, "invalid-op", "amuont"),
    (KEY, {**ADD, "raeson": "x"}, "bad-request", "raeson"),
    (KEY, {**ADD, "domain": "shop"}, "bad-request", "domain"),
    (KEY, {**ADD, "token": "AQ"}, "bad-request", "token"),
    (KEY, {**ADD, "id": "x"}, "bad-request", "'id'"),
    # an op that contradicts the path
    (KEY, {"ops": [{"op": "add", "amount": 1, "key": "other"}]}, "bad-request", "key 'k'"),
    (KEY, {"ops": [{"op": "add", "amount": 1, "collection": "aw_set"}]}, "bad-request", "collection 'counter'"),
    # wrong types
    (KEY, {"ops": [{"op": "add", "amount": 1.5}]}, "invalid-value", "amount must be an integer, got 1.5"),
    (KEY, {"ops": [{"op": "add", "amount": 1.0}]}, "invalid-value", "got 1.0"),
    (KEY, {"ops": [{"op": "add", "amount": True}]}, "invalid-value", "got true"),
    (KEY, {"ops": [{"op": "add", "amount": "1"}]}, "invalid-value", 'got "1"'),
    (KEY, {"ops": [{"op": "add", "amount": None}]}, "invalid-value", "got null"),
    (KEY, {"ops": {"op": "add"}}, "bad-request", "ops must be a list"),
    (KEY, {"ops": ["add"]}, "bad-request", "an op is a map"),
    (KEY, {"ops": []}, "bad-request", "1 to 1000 ops"),
    (KEY, {}, "bad-request", "ops"),
    (KEY, {**ADD, "reason": 5}, "bad-request", "reason"),
    (KEY, {**ADD, "regions": 1}, "bad-request", "regions says how many other regions"),
    (KEY, {**ADD, "regions": "0"}, "bad-request", "regions"),
    (KEY, {**ADD, "wait_ms": -1}, "bad-request", "wait_ms"),
    (KEY, {**ADD, "wait_ms": True}, "bad-request", "wait_ms"),
    (KEY, {"ops": [{"op": "add", "amount": 1, "if_match": 5}]}, "bad-request", "if_match"),
    (KEY, {"ops": [{"op": ["add"], "amount": 1}]}, "invalid-op", "op"),
    ("/v1/data/shop/aw_set/k", {"ops": [{"op": "add", "elements": "x"}]}, "invalid-value", "elements"),
    ("/v1/data/shop/aw_set/k", {"ops": [{"op": "add", "elements": [1.5]}]}, "invalid-value", "1.5"),
    ("/v1/data/shop/lww_map/k", {"ops": [{"op": "set", "fields": [1]}]}, "invalid-value", "fields"),
    ("/v1/data/shop/event_log/k", {"ops": [{"op": "delete"}]}, "not-deletable", "event_log"),
    (KEY, {"ops": [{"op": "delete", "amount": 1}]}, "invalid-op", "no arguments"),
    # too large, too deep
    (KEY, {"ops": [{"op": "add", "amount": 10**2470}]}, "invalid-value", "1024"),
    (KEY, {"ops": [{"op": "add", "amount": 10**2490}]}, "bad-request", "1024"),
    (KEY, {"ops": [{"op": "add", "amount": 1 << 8190}] * 2}, "invalid-value", "sum of the amounts"),
    (KEY, {"ops": ADD["ops"] * 1001}, "bad-request", "1001"),
    (KEY, {**ADD, "reason": "x" * 1025}, "too-large", "reason"),
    ("/v1/data/shop/lww_register/k", {"ops": [{"op": "set", "value": deep(40)}]}, "invalid-value", "32 levels"),
    ("/v1/data/shop/lww_register/k", {"ops": [{"op": "set", "value": "x" * (1 << 20)}]}, "invalid-value", "1048576"),
    # names
    ("/v1/data/Shop/counter/k", ADD, "bad-request", '"Shop"'),
    ("/v1/data/_sys/counter/k", ADD, "bad-request", '"_sys"'),
    ("/v1/data/shop/counter@counter/k", ADD, "bad-request", "collection"),
    ("/v1/data/shop/counter/.", ADD, "bad-request", "not . or .."),
    ("/v1/data/shop/counter/%2E%2E", ADD, "bad-request", "not . or .."),
    ("/v1/data/shop/counter/", ADD, "bad-request", "1 to 512 bytes"),
    ("/v1/data/shop/counter/" + "k" * 513, ADD, "bad-request", "513"),
    ("/v1/data/shop/counter/a%00b", ADD, "bad-request", "control"),
    ("/v1/data/shop/counter/a%7Fb", ADD, "bad-request", "control"),
    # percent escapes, judged on the raw path
    ("/v1/data/shop/counter/%ff", ADD, "bad-request", "UTF-8"),
    ("/v1/data/shop/counter/%e2%82", ADD, "bad-request", "UTF-8"),
    ("/v1/data/shop/counter/%ed%a0%80", ADD, "bad-request", "UTF-8"),
    ("/v1/data/shop/counter/%zz", ADD, "bad-request", "two hex digits"),
    ("/v1/data/shop/counter/100%", ADD, "bad-request", "two hex digits"),
    ("/v1/data/sh%6/counter/k", ADD, "bad-request", "two hex digits"),
    # paths
    ("/v1/data/shop/counter/a/b", ADD, "no-such-route", "%2F"),
    ("/v1/data/shop", ADD, "no-such-route", "nothing at"),
    ("/v2/data/shop/counter/k", ADD, "no-such-route", "nothing at"),
    ("//v1/data/shop/counter/k", ADD, "no-such-route", "nothing at"),
    ("/", ADD, "no-such-route", "nothing at"),
    (KEY + "?wait_ms=5", ADD, "bad-request", "there is no query parameter 'wait_ms'"),
    (KEY + "#x", ADD, "bad-request", "fragment"),
]


@pytest.mark.parametrize("media", [JSON, MSGPACK])
@pytest.mark.parametrize(("path", "body", "code", "said"), BODIES)
async def test_a_commit_that_cannot_be(shop: Node, path: str, body: Any, code: str, said: str, media: str) -> None:
    before = unchanged(shop)
    reply = await call(shop, "POST", path, body, content_type=media, accept=media)
    assert reply.headers["content-type"] == (MSGPACK if media == MSGPACK else "application/problem+json")
    document = is_problem(reply, code)
    assert said in document["detail"]
    assert document["detail"].endswith("Nothing changed.")
    assert unchanged(shop) == before


RAW = [
    (b"{", JSON, "bad-request", "cannot be read"),
    (b"", JSON, "bad-request", "empty"),
    (b"[]", JSON, "bad-request", "a map of fields, got []. "),
    (b"null", JSON, "bad-request", "a map of fields, got null. "),
    (b'{"ops": [{"op": "add", "op": "add", "amount": 1}]}', JSON, "bad-request", '"op" stands there twice'),
    (b'{"ops": [], "ops": []}', JSON, "bad-request", '"ops" stands there twice'),
    (b'{"ops": [{"op": "add", "amount": NaN}]}', JSON, "bad-request", "NaN"),
    (b'{"ops": [{"op": "add", "amount": 1e999}]}', JSON, "invalid-value", "integer"),
    (b'{"ops": [{"op": "add", "amount": ' + b"9" * 5000 + b"}]}", JSON, "bad-request", "digits"),
    (b'{"ops": [{"op": "add", "amount": 1}], "reason": "\\ud800"}', JSON, "invalid-value", "surrogate"),
    (b'{"ops": [{"op": "add", "amount": {"$bytes": "="}}]}', JSON, "bad-request", "base64"),
    (b'{"ops": [{"op": "add", "$x": 1}]}', JSON, "bad-request", "$x"),
    (b'\xff{"ops": []}', JSON, "bad-request", "UTF-8"),
    (b'{"a":' * 100_000, JSON, "bad-request", "cannot be read"),
    (b"\x81" * 100_000, MSGPACK, "bad-request", "cannot be read"),
    (b"\x81", MSGPACK, "bad-request", "cannot be read"),
    (b"\xc1", MSGPACK, "bad-request", "cannot be read"),
    (b"\x80\x80", MSGPACK, "bad-request", "cannot be read"),
    (b"\xdf\xff\xff\xff\xff", MSGPACK, "bad-request", "cannot be read"),
    (b"\x82\xa3ops\x90\xa3ops\x90", MSGPACK, "bad-request", "twice"),
    (b"\x81\x01\x02", MSGPACK, "bad-request", "cannot be read"),
    (b"\x81\xc4\x03ops\x90", MSGPACK, "bad-request", "no field"),
    (b"\x81\xa3ops\xc7\x01\x01\x05", MSGPACK, "bad-request", "64 bits"),
    (b"\x81\xa3ops\xc7\x01\x05\x05", MSGPACK, "bad-request", "extension 5"),
    (b"\x81\xa3ops\x91\x82\xa2op\xa3add\xa6amount\xd6\xff\x00\x00\x00\x00", MSGPACK, "invalid-value", "integer"),
    (b"\x81\xa3ops\x91\x82\xa2op\xa3add\xa6amount\xa1\xff", MSGPACK, "bad-request", "cannot be read"),
    (b'{"ops": []}', None, "unsupported-media-type", "no Content-Type"),
    (b'{"ops": []}', "text/plain", "unsupported-media-type", "text/plain"),
    (b'{"ops": []}', "application/json; charset=latin-1", "unsupported-media-type", "latin-1"),
    (b"a=b", "application/x-www-form-urlencoded", "unsupported-media-type", "form"),
]


@pytest.mark.parametrize(("raw", "media", "code", "said"), RAW, ids=range(len(RAW)))
async def test_a_body_that_cannot_be_read(shop: Node, raw: bytes, media: str | None, code: str, said: str) -> None:
    before = unchanged(shop)
    document = is_problem(await call(shop, "POST", KEY, raw=raw, content_type=media), code)
    assert said in document["detail"]
    assert document["detail"].endswith("Nothing changed.")
    assert unchanged(shop) == before


QUERIES = [
    ("/v1/data/shop/counter/k?consistancy=local", "there is no query parameter 'consistancy'"),
    ("/v1/data/shop/counter/k?as_of=AQ", "as_of"),
    ("/v1/data/shop/counter/k?wait_ms=1&wait_ms=2", "twice"),
    ("/v1/data/shop/counter/k?wait_ms=1.5", "integer"),
    ("/v1/data/shop/counter/k?wait_ms=%D9%A3", "integer"),
    ("/v1/data/shop/counter/k?wait_ms=", "integer"),
    ("/v1/data/shop/counter/k?wait_ms", "no value"),
    ("/v1/data/shop/counter/k?wait_ms=" + "9" * 30, "18 digits"),
    ("/v1/data/shop/counter/k?wait_ms=-1", "negative"),
    ("/v1/data/shop/counter/k?consistency=stable", "session or local"),
    ("/v1/data/shop/counter/k?consistency=%ff", "UTF-8"),
    ("/v1/data/shop/counter/k?&", "''"),
    ("/v1/data/shop/counter?values=1", "true or false"),
    ("/v1/data/shop/counter?values=True", "true or false"),
    ("/v1/data/shop/counter?limit=0", "1 to 1000"),
    ("/v1/data/shop/counter?limit=1001", "1 to 1000"),
    ("/v1/status?x=1", "none here"),
]


@pytest.mark.parametrize(("path", "said"), QUERIES)
async def test_a_query_that_cannot_be(shop: Node, path: str, said: str) -> None:
    document = is_problem(await call(shop, "GET", path), "bad-request")
    assert said in document["detail"]


DECLARATIONS = [
    ("/v1/domains/Shop", {}, "bad-request", "domain"),
    ("/v1/domains/_sys", {}, "bad-request", "domain"),
    ("/v1/domains/shop", {"owner": 5}, "bad-request", "owner"),
    ("/v1/domains/shop", {"onwer": "x"}, "bad-request", "onwer"),
    ("/v1/domains/none/collections/c", {"type": "counter"}, "not-declared", "none"),
    ("/v1/domains/shop/collections/c", {"type": "countre"}, "bad-request", "counter"),
    ("/v1/domains/shop/collections/c", {}, "bad-request", "type"),
    ("/v1/domains/shop/collections/c", {"type": "counter", "options": {"x": 1}}, None, "x"),
    ("/v1/domains/shop/collections/c", {"type": "counter", "options": {"grow_only": 1}}, None, "grow_only"),
    ("/v1/domains/shop/collections/c", {"type": "counter", "options": []}, "bad-request", "options"),
    ("/v1/domains/shop/collections/C", {"type": "counter"}, "bad-request", "collection"),
    ("/v1/domains/shop/collections/counter", {"type": "aw_set"}, "type-mismatch", "counter"),
    ("/v1/domains/shop/collections/counter", {"type": "counter", "options": {"grow_only": True}}, "type-mismatch", ""),
]


@pytest.mark.parametrize(("path", "body", "code", "said"), DECLARATIONS)
async def test_a_declaration_that_cannot_be(shop: Node, path: str, body: Any, code: str | None, said: str) -> None:
    before = unchanged(shop)
    reply = await call(shop, "PUT", path, body)
    document = is_problem(reply, code or reply.body["code"])
    assert 400 <= reply.status < 500
    assert said in document["detail"]
    assert document["detail"].endswith("Nothing changed.")
    assert unchanged(shop) == before


METHODS = [
    ("DELETE", KEY, "GET, HEAD, POST"),
    ("PUT", KEY, "GET, HEAD, POST"),
    ("POST", "/v1/data/shop/counter", "GET, HEAD"),
    ("POST", "/v1/domains/shop", "GET, HEAD, PUT"),
    ("POST", "/v1/status", "GET, HEAD"),
    ("PATCH", "/metrics", "GET, HEAD"),
    ("OPTIONS", "/readyz", "GET, HEAD"),
]


@pytest.mark.parametrize(("method", "path", "allow"), METHODS)
async def test_a_method_that_a_path_does_not_take(shop: Node, method: str, path: str, allow: str) -> None:
    reply = await call(shop, method, path)
    assert is_problem(reply, "method-not-allowed")["detail"].startswith(f"this path takes {allow}, not {method}")
    assert reply.headers["allow"] == allow


async def test_reads_of_what_is_not_there(shop: Node) -> None:
    is_problem(await call(shop, "GET", "/v1/data/none/counter/k"), "not-declared")
    is_problem(await call(shop, "GET", "/v1/data/shop/none/k"), "not-declared")
    is_problem(await call(shop, "GET", "/v1/data/shop/none"), "not-declared")
    is_problem(await call(shop, "GET", "/v1/domains/none"), "not-declared")
    is_problem(await call(shop, "GET", "/v1/domains/shop/collections/none"), "not-declared")
    is_problem(await call(shop, "GET", "/v1/nothing"), "no-such-route")
    document = is_problem(await call(shop, "GET", KEY, raw=b"{}"), "bad-request")
    assert "takes no body" in document["detail"]


HEADERS = [
    ({"Crdtstore-Token": "AQ"}, "foreign-token"),
    ({"Crdtstore-Token": "x" * 20_000}, "foreign-token"),
    ({"Crdtstore-Token": "\udcff"}, "foreign-token"),
    ({"Idempotency-Key": ""}, "bad-request"),
    ({"Idempotency-Key": "x" * 129}, "bad-request"),
    ({"Idempotency-Key": "~not-a-uuid"}, "bad-request"),
    ({"Idempotency-Key": "\udcff"}, "invalid-value"),
    ({"If-Match": '"x"'}, "bad-request"),
    ({"If-None-Match": "*"}, "bad-request"),
    ({"Content-Encoding": "gzip"}, "unsupported-media-type"),
    ({"Idempotency-Key": "a", "idempotency-key": "b"}, "bad-request"),
]


@pytest.mark.parametrize(("headers", "code"), HEADERS, ids=range(len(HEADERS)))
async def test_a_header_that_cannot_be(shop: Node, headers: dict[str, str], code: str) -> None:
    before = unchanged(shop)
    document = is_problem(await call(shop, "POST", KEY, ADD, headers=headers), code)
    assert document["detail"].endswith("Nothing changed.")
    assert unchanged(shop) == before


async def test_a_body_larger_than_the_limit(shop: Node) -> None:
    before = unchanged(shop)
    size = (4 << 20) + 1
    document = is_problem(await call(shop, "POST", KEY, raw=b" " * size), "too-large")
    assert document["detail"] == "a body has at most 4194304 bytes. Nothing changed."
    head = f"POST {KEY} HTTP/1.1\r\nHost: t\r\nContent-Type: {JSON}\r\n"
    announced = await exchange(shop.api.port, (head + f"Content-Length: {size}\r\n\r\n").encode())
    is_problem(announced, "too-large")
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    chunked = await exchange(shop.api.port, (head + "Transfer-Encoding: chunked\r\n\r\n").encode() + chunk * 65)
    is_problem(chunked, "too-large")
    just = json.dumps({**ADD, "ops": [{"op": "add", "amount": 1.5}]}).encode().ljust(4 << 20)
    is_problem(await call(shop, "POST", KEY, raw=just), "invalid-value")
    assert unchanged(shop) == before


async def test_a_body_that_does_not_arrive(make_nodes: Callable[..., Nodes]) -> None:
    node = await make_nodes(http={"body_timeout_ms": 50}).start("us")
    head = f"POST {KEY} HTTP/1.1\r\nHost: t\r\nContent-Type: {JSON}\r\nContent-Length: 100\r\n\r\n{{"
    document = is_problem(await exchange(node.api.port, head.encode()), "bad-request")
    assert document["detail"] == "the body did not arrive within 50 ms. Nothing changed."
    reader, writer = await asyncio.open_connection("127.0.0.1", node.api.port)
    writer.write(head.encode())
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    assert (await call(node, "GET", "/healthz")).status == 200


NOT_HTTP = [
    b"GET /v1/data/shop/counter/\xc5\xbe HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET /v1/data/shop/counter/\xff HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET /v1/data/shop/counter/a b HTTP/1.1\r\nHost: t\r\n\r\n",
    b"hello\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: t\r\nX: " + b"x" * 30_000 + b"\r\n\r\n",
    b"GET /" + b"x" * 30_000 + b" HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET / HTTP/1.1\r\nHo\x00st: t\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 60,
]


@pytest.mark.parametrize("data", NOT_HTTP, ids=range(len(NOT_HTTP)))
async def test_what_is_not_http(shop: Node, data: bytes, lines: Lines) -> None:
    reply = await exchange(shop.api.port, data)
    assert reply.headers["content-type"] == "application/problem+json"
    document = reply.body
    assert reply.status in (400, 404)
    assert document["detail"].endswith("Nothing changed.")
    assert "Traceback" not in reply.raw.decode()
    assert lines.of("a request failed") == []


async def test_our_own_failure_is_no_stack_trace(shop: Node, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError("the secret of the house")

    monkeypatch.setattr(shop.driver, "request", lambda *_: fail())
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    reply = await call(shop, "POST", KEY, ADD, headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    assert reply.status == 500
    assert reply.body["code"] == "internal"
    assert reply.body["effect"] == "unknown"
    assert reply.body["trace_id"] == trace
    assert b"secret" not in reply.raw
    assert b"Zero" not in reply.raw
    assert lines.of("a request failed") == [{"trace_id": trace}]
    reply = await call(shop, "GET", KEY)
    assert len(reply.body["trace_id"]) == 32


async def test_the_trace_of_a_caller_is_in_the_problem(shop: Node) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    reply = await call(shop, "GET", "/nowhere", headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    assert reply.body["trace_id"] == trace
    for malformed in ("x", f"01-{trace}-00f067aa0ba902b7-01", f"00-{'0' * 32}-00f067aa0ba902b7-01"):
        assert "trace_id" not in (await call(shop, "GET", "/nowhere", headers={"traceparent": malformed})).body


async def test_random_bodies_are_refused_or_taken(shop: Node) -> None:
    """Bodies that are nearly right: every answer is a problem of ours or a commit, never a failure."""
    odd = [None, True, -1, 1.5, "", "x", b"x", [], {}, [1], {"a": 1}, 1 << 70, msgpack.Timestamp(1, 1)]
    for name in ("ops", "reason", "regions", "wait_ms"):
        for value in odd:
            reply = await call(shop, "POST", KEY, raw=_packed({**ADD, name: value}), content_type=MSGPACK)
            assert reply.status in (200, 400, 413, 422), (name, value, reply)
    for collection, argument in (("counter", "amount"), ("aw_set", "elements"), ("lww_map", "fields")):
        for op in ("add", "set", "remove", "unset", "append", "delete", *map(str, odd)):
            for value in odd:
                raw = _packed({"ops": [{"op": op, argument: value}]})
                reply = await call(shop, "POST", f"/v1/data/shop/{collection}/k", raw=raw, content_type=MSGPACK)
                assert reply.status in (200, 400, 422), (op, value, reply)
    assert not shop.driver.is_crashed


def _packed(body: Any) -> bytes:
    """Also what the store itself would never pack."""
    return msgpack.packb(body, default=lambda big: msgpack.ExtType(1, big.to_bytes(9, "big")))  # type: ignore[no-any-return]
