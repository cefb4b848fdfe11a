"""Sessions when nothing is wrong: shapes, order, turns, credits, waiting, many of them, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from crdtstore.values import from_msgpack, to_msgpack
from crdtstore_node.node import Node
from tests.node.running import MSGPACK, Nodes, call, declare, until
from tests.node.talking import HANDSHAKE, commit, masked, raw, read, read_frame, talk


async def test_a_session_says_what_http_says(shop: Node) -> None:
    async with talk(shop) as session:
        wrote = await session.ask(**{**commit(7, amount=3), "id": "order 981", "reason": "order 981"})
        assert wrote == {
            "dot": "us-1.0000000000000001:1",
            "token": wrote["token"],
            "values": [3],
            "replayed": False,
            "durable_in": ["us"],
        }
        again = await session.ask(**{**commit(7, amount=3), "id": "order 981"})
        assert (again["dot"], again["replayed"]) == (wrote["dot"], True)
        over_http = await call(shop, "GET", "/v1/data/shop/counter/k", accept=MSGPACK)
        assert await session.ask(**read(7, token=wrote["token"])) == over_http.body
        listed = await session.ask(do="list", domain="shop", collection="counter", values=True)
        assert listed["items"] == [{"key": "k", "value": 3}]
        explained = await session.ask(do="explain", domain="shop", collection="counter", key="k")
        assert explained["value"] == 3
        status = await session.ask(do="status")
        assert status["node"] == "us-1"
        assert "storage" in status


async def test_domains_and_collections_are_declared(shop: Node) -> None:
    async with talk(shop) as session:
        domain = await session.ask(do="declare_domain", domain="crm", owner="team-crm")
        assert (domain["domain"], domain["owner"]) == ("crm", "team-crm")
        await session.send(
            {"n": 1, "do": "declare", "domain": "crm", "collection": "tags", "type": "aw_set"},
            {
                "n": 2,
                "do": "commit",
                "domain": "crm",
                "ops": [{"collection": "tags", "key": "c", "op": "add", "elements": ["a", b"b", 1 << 80]}],
            },
        )
        replies = {reply["n"]: reply for reply in await session.replies(2)}
        await session.send(
            {"n": 3, "do": "members", "domain": "crm", "collection": "tags", "key": "c", "has": 1 << 80},
            {"n": 4, "do": "members", "domain": "crm", "collection": "tags", "key": "c", "limit": 2},
            {"n": 5, "do": "collection", "domain": "crm", "collection": "tags"},
            {"n": 6, "do": "domain", "domain": "crm"},
            {"n": 7, "do": "conflicts", "domain": "crm"},
        )
        replies |= {reply["n"]: reply for reply in await session.replies(5)}
        assert replies[3]["has"] is True
        assert replies[4]["items"] == [1 << 80, "a"]
        assert replies[5]["type"] == "aw_set"
        assert replies[6]["collections"] == {"tags": "aw_set"}
        assert replies[7]["items"] == []


async def test_writes_of_a_connection_are_committed_in_order(shop: Node) -> None:
    async with talk(shop) as session:
        for at in range(0, 300, 30):
            writes = [
                {
                    "n": at + number,
                    "do": "commit",
                    "domain": "shop",
                    "ops": [{"collection": "lww_register", "key": "last", "op": "set", "value": at + number}],
                }
                for number in range(30)
            ]
            await session.send(*writes)
        replies = {reply["n"]: reply for reply in await session.replies(300)}
        seqs = [int(replies[number]["dot"].rpartition(":")[2]) for number in range(300)]
        assert seqs == list(range(1, 301))
        assert (await session.ask(**read(7, "last", "lww_register")))["value"] == 299


async def test_requests_of_one_frame_are_one_step_one_record_and_one_frame(shop: Node) -> None:
    async with talk(shop) as session:
        await session.ask(**commit(7))
        steps, records = shop.driver.steps, shop.driver.records
        session.frames.clear()
        await session.send(*(commit(number, f"k{number}") for number in range(64)))
        await session.replies(64)
        assert shop.driver.records - records == 1
        assert shop.driver.steps - steps < 10  # the commits, that they are durable, and a tick or two
        assert session.frames == [64]


async def test_a_reply_gives_its_credit_back(make_nodes: Callable[..., Nodes]) -> None:
    node = await make_nodes(http={"session_credits": 4}).start("us")
    await declare(node, "shop", "counter")
    async with talk(node) as session:
        for _ in range(5):
            await session.send(*(commit(number) for number in range(4)))
            assert {reply["values"][0] > 0 for reply in await session.replies(4)} == {True}


async def behind(nodes: Nodes) -> tuple[Node, str]:
    """A node that reaches nobody, with its own domain, and a token that it cannot serve."""
    us = await nodes.start("us")
    await declare(us, "crm", "counter")
    token = (await call(us, "POST", "/v1/data/crm/counter/k", {"ops": [{"op": "add"}]})).body["token"]
    await nodes.stop("us")
    eu = await nodes.start("eu")
    await declare(eu, "shop", "counter")
    return eu, token


async def test_who_waits_for_a_token_holds_nobody_up(make_nodes: Callable[..., Nodes]) -> None:
    eu, token = await behind(make_nodes("eu", "us"))
    async with talk(eu) as session:
        late = {"domain": "crm", "token": token, "wait_ms": 300}
        await session.send(read(1) | late, commit(2) | late, commit(3), read(4))
        assert {reply["n"] for reply in await session.replies(2)} == {3, 4}
        codes = {reply["n"]: reply["problem"]["code"] for reply in await session.replies(2)}
        assert codes == {1: "replica-behind", 2: "replica-behind"}


async def test_many_sessions_are_served_side_by_side(shop: Node) -> None:
    async def one(number: int) -> int:
        async with talk(shop) as session:
            total = 0
            for _ in range(5):
                total += len((await session.ask(**commit(7, f"k{number % 10}")))["values"])
            return total

    assert await asyncio.gather(*(one(number) for number in range(100))) == [5] * 100
    await until(lambda: len(shop.handler.sessions) == 0)
    listed = (await call(shop, "GET", "/v1/data/shop/counter?values=true")).body["items"]
    assert [item["value"] for item in listed] == [50] * 10


async def test_answers_of_sessions_are_counted_with_those_of_http(shop: Node) -> None:
    before = dict(shop.handler.outcomes)
    async with talk(shop) as session:
        await session.send(commit(1), commit(2), read(3), commit(4, collection="none"), commit(5, bad=1))
        await session.replies(5)
        after = shop.handler.outcomes
        assert after["ok"] - before["ok"] == 3
        assert (after["not-declared"], after["bad-request"]) == (1, 1)
        counts = shop.handler.sessions.counts
        assert (len(shop.handler.sessions), counts.requests, counts.frames, counts.refused) == (1, 5, 1, 0)


@pytest.mark.parametrize("pieces", [1, 3])
async def test_a_frame_may_come_in_pieces(shop: Node, pieces: int) -> None:
    payload = to_msgpack([commit(1, "a"), commit(2, "b")])
    cuts = [payload[at : at + len(payload) // pieces + 1] for at in range(0, len(payload), len(payload) // pieces + 1)]
    heads = [0x82 if not at else 0x80 for at in range(len(cuts))]
    heads = [head if at == len(cuts) - 1 else head & 0x7F for at, head in enumerate(heads)]
    data = b"".join(masked(cut, head) for cut, head in zip(cuts, heads, strict=True))
    reader, writer = await raw(shop)
    await read_frame(reader)
    for at in range(len(data)):
        writer.write(data[at : at + 1])
        await asyncio.sleep(0)
    head, reply = await read_frame(reader)
    assert head == 0x82
    assert reply[:1] == b"\x92"  # two replies
    writer.transport.abort()


async def test_a_frame_may_come_with_the_handshake(shop: Node) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", shop.api.port)
    writer.write(HANDSHAKE + masked(to_msgpack(commit(1))))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    assert b"session" in (await read_frame(reader))[1]
    assert from_msgpack((await read_frame(reader))[1])["values"] == [1]
    writer.transport.abort()


async def test_a_session_may_be_idle_for_longer_than_a_connection(make_nodes: Callable[..., Nodes]) -> None:
    node = await make_nodes(http={"keepalive_ms": 100}).start("us")
    await declare(node, "shop", "counter")
    async with talk(node) as session:
        await asyncio.sleep(0.5)
        assert "dot" in await session.ask(**commit(7))


async def test_many_replies_leave_in_several_frames(shop: Node) -> None:
    async with talk(shop) as session:
        big = {"collection": "lww_register", "key": "big", "op": "set", "value": "x" * 300_000}
        await session.ask(do="commit", domain="shop", ops=[big])
        session.frames.clear()
        await session.send(*(read(number, "big", "lww_register") for number in range(20)))
        assert {reply["n"] for reply in await session.replies(20)} == set(range(20))
        assert 7 <= len(session.frames) <= 20
        assert max(session.frames) <= 3


async def test_what_only_a_gone_client_wanted_to_know_is_forgotten(make_nodes: Callable[..., Nodes]) -> None:
    eu, token = await behind(make_nodes("eu", "us"))
    async with talk(eu) as session:
        await session.send(*(read(number, token=token, domain="crm", wait_ms=60_000) for number in range(20)))
        await until(lambda: eu.driver.waiting == 20)
        session.socket._response.close()  # as a process that dies
        await until(lambda: eu.driver.waiting == 0)
    assert len(eu.handler.sessions) == 0
    await until(lambda: not eu.driver.service._waiting)


async def test_writes_of_a_gone_client_go_on(shop: Node) -> None:
    async with talk(shop) as session:
        await session.send(*(commit(number, f"k{number}") for number in range(50)))
        session.socket._response.close()
    await until(lambda: len(shop.handler.sessions) == 0)

    async def listed() -> list[Any]:
        return (await call(shop, "GET", "/v1/data/shop/counter")).body["items"]  # type: ignore[no-any-return]

    found = await listed()
    assert len(found) in (0, 50)  # the frame arrived, or it did not


async def test_a_node_that_stops_answers_what_it_took_and_says_so(make_nodes: Callable[..., Nodes]) -> None:
    nodes = make_nodes("us")
    node = await nodes.start("us")
    await declare(node, "shop", "counter")
    async with talk(node) as session, talk(node) as idle:
        await session.send(*(commit(number) for number in range(500)))
        await until(lambda: node.handler.sessions.counts.requests == 500)
        stopping = asyncio.ensure_future(nodes.stop("us"))
        replies = await session.replies(500)
        assert all("dot" in reply for reply in replies)
        for each in (session, idle):
            closed = await each.end()
            assert closed.code == 1001
        await stopping


async def test_the_own_pages_and_http_go_on_beside_sessions(shop: Node) -> None:
    async with talk(shop) as session:
        await session.ask(**commit(7))
        assert (await call(shop, "GET", "/v1/data/shop/counter/k")).body["value"] == 1
        page = (await call(shop, "GET", "/metrics")).raw.decode()
        assert "crdtstore_sessions 1.0" in page
        assert "crdtstore_session_requests_total 1.0" in page
