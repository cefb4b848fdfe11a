"""The HTTP transport against small servers on loopback: what goes over the wire, and what is told when it fails."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from crdtstore.errors import UsageError, problem
from crdtstore.values import to_json_bytes, to_msgpack, unpack
from crdtstore_client import NotSent, OutcomeUnknown, ReplyLost, Unavailable, connect
from crdtstore_client.address import collection_path, data_path, domain_path, split_address, with_query
from crdtstore_client.http import HttpTransport

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
BIG = -(1 << 8000)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw_server(answer: bytes | None) -> AsyncIterator[str]:
    """Reads one request and answers with these bytes, or with nothing; then closes, or keeps silent for None."""
    silent: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            silent.append(writer)
            return
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in silent:
            writer.close()
        await server.wait_closed()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def answer(body: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=to_msgpack(body), content_type="application/msgpack")


@pytest.mark.parametrize(
    ("key", "escaped"),
    [
        ("de", "de"),
        ("a/b:c", "a%2Fb%3Ac"),
        ("x/../y", "x%2F..%2Fy"),
        ("..", "%2E%2E"),
        (".", "%2E"),
        ("%ff", "%25ff"),
        ("ä ?#&+", "%C3%A4%20%3F%23%26%2B"),
    ],
)
async def test_keys_arrive_as_they_were_escaped(key: str, escaped: str) -> None:
    seen: list[str] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        seen.append(request.raw_path)
        return answer({})

    path = with_query(data_path("shop", "orders", key), {"wait_ms": 5, "values": True, "prefix": "ü/", "after": None})
    async with serving(handler) as url:
        transport = HttpTransport()
        await transport.request(url, "GET", path, body=None, headers={}, timeout=2)
        await transport.close()
    assert seen == [f"/v1/data/shop/orders/{escaped}?wait_ms=5&values=true&prefix=%C3%BC%2F"]


def test_paths_and_addresses() -> None:
    assert data_path("shop", "orders@counter") == "/v1/data/shop/orders%40counter"
    assert domain_path("a/b") == "/v1/domains/a%2Fb"
    assert collection_path("shop", "orders") == "/v1/domains/shop/collections/orders"
    assert split_address("shop/orders/a/b", 3) == ["shop", "orders", "a/b"]
    assert split_address("shop/orders", 2) == ["shop", "orders"]
    for address, parts in (("shop/orders", 3), ("shop//de", 3), ("shop", 2), ("shop/orders/de", 2), ("", 3)):
        with pytest.raises(UsageError, match="an address is domain/collection"):
            split_address(address, parts)


async def test_bodies_are_msgpack_with_integers_of_any_size() -> None:
    async def handler(request: web.BaseRequest) -> web.Response:
        assert request.headers["Content-Type"] == request.headers["Accept"] == "application/msgpack"
        assert request.headers["Idempotency-Key"] == "~x"
        return answer({"echo": unpack(await request.read())})

    async with serving(handler) as url:
        transport = HttpTransport()
        body = {"amount": BIG, "raw": b"\xff", "text": "ä", "list": [None, True, 0.5]}
        reply = await transport.request(url, "POST", "/", body=body, headers={"Idempotency-Key": "~x"}, timeout=2)
        await transport.close()
    assert reply.status == 200
    assert reply.body == {"echo": body}
    assert reply.headers["content-type"] == "application/msgpack"


async def test_problems_may_come_as_json() -> None:
    document = problem(UsageError("no such thing. Nothing changed.", code="invalid-op", trace_id="abc"))

    async def handler(_: web.BaseRequest) -> web.Response:
        return web.Response(status=422, body=to_json_bytes(document), content_type="application/problem+json")

    async with serving(handler) as url, connect(url) as store:
        with pytest.raises(UsageError, match="no such thing") as caught:
            await store.domain("shop").counter("orders")["de"].get()
    assert (caught.value.code, caught.value.trace_id) == ("invalid-op", "abc")


async def test_a_refused_connection_was_not_sent() -> None:
    transport = HttpTransport()
    with pytest.raises(NotSent, match="cannot connect"):
        await transport.request(f"http://127.0.0.1:{free_port()}", "GET", "/", body=None, headers={}, timeout=2)
    with pytest.raises(NotSent):
        await transport.request("http://nowhere.invalid", "GET", "/", body=None, headers={}, timeout=2)
    await transport.close()


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/msgpack\r\nContent-Length: 1\r\n\r\n\xc1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        None,
    ],
)
async def test_no_whole_answer_is_a_lost_reply(reply: bytes | None) -> None:
    async with raw_server(reply) as url:
        transport = HttpTransport()
        with pytest.raises(ReplyLost):
            await transport.request(url, "POST", "/", body={}, headers={}, timeout=0.3)
        await transport.close()


async def test_a_store_over_http_fails_over_and_tells_what_it_does_not_know() -> None:
    seen: list[tuple[str, str]] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        if request.path == "/v1/status":
            return answer({"node": "eu-1", "region": "eu", "ready": True})
        seen.append((request.headers["Idempotency-Key"], request.raw_path))
        body = unpack(await request.read())
        total = body["ops"][0]["amount"]
        return answer(
            {"dot": "eu-1.0123456789abcdef:1", "token": "t", "values": [total], "replayed": False, "durable_in": ["eu"]}
        )

    async with raw_server(b"") as broken:
        async with serving(handler) as url, connect(broken, url, timeout=2) as store:
            ack = await store.domain("shop").counter("orders")["a/b"].add(BIG)
            assert ack.value == BIG
            assert store.token == "t"
            assert store.region == "eu"
        assert seen[0][0].startswith("~")
        assert seen[0][1] == "/v1/data/shop/orders/a%2Fb"
        async with connect(broken, timeout=0.3) as store:
            with pytest.raises(OutcomeUnknown) as caught:
                await store.domain("shop").counter("orders")["de"].add()
            assert str(caught.value.op_id).startswith("~")
    async with connect(f"http://127.0.0.1:{free_port()}", timeout=0.3) as store:
        with pytest.raises(Unavailable, match="Nothing changed") as refused:
            await store.domain("shop").counter("orders")["de"].add()
        assert refused.value.code == "unreachable"


async def test_many_requests_share_connections() -> None:
    ports: set[Any] = set()

    async def handler(request: web.BaseRequest) -> web.Response:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername"))
        return answer({"node": "us-1", "region": "us", "ready": True})

    async with serving(handler) as url, connect(url) as store:
        for _ in range(20):
            await store.status()
    assert len(ports) == 1


async def test_a_closed_transport_opens_nothing_again() -> None:
    transport = HttpTransport()
    await transport.close()
    with pytest.raises(NotSent, match="closed"):
        await transport.request("http://127.0.0.1:1", "GET", "/readyz", body=None, headers={}, timeout=1.0)
