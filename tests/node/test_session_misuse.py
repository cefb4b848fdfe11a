"""Sessions when something is wrong: who asks for more than there is, sends what is no frame, does not read, says nothing, or is killed."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import aiohttp
import pytest

from crdtstore.errors import StorageError
from crdtstore.values import from_msgpack, to_msgpack
from crdtstore_node.api.session import Session
from crdtstore_node.node import Node
from tests.node.failing import full
from tests.node.running import Lines, Nodes, call, declare, exchange, until
from tests.node.talking import HANDSHAKE, commit, masked, raw, read, read_frame, talk


async def value_of(node: Node, key: str = "k") -> Any:
    return (await call(node, "GET", f"/v1/data/shop/counter/{key}")).body["value"]


async def small(make_nodes: Callable[..., Nodes], **http: int) -> Node:
    node = await make_nodes(http=http).start("us")
    await declare(node, "shop", "counter", "lww_register")
    return node


def session_of(node: Node) -> Session:
    """The only one."""
    (session,) = node.handler.sessions._sessions
    return session


# --- frames


@pytest.mark.parametrize(
    ("frame", "code", "said"),
    [
        (b"", 1007, "a frame is one msgpack map, or an array of maps"),
        (b"hello", 1007, "a frame is one msgpack map, or an array of maps"),
        (b"\xc1", 1007, "a frame is one msgpack map, or an array of maps"),
        (to_msgpack(7), 1007, "a frame is one msgpack map, or an array of maps"),
        (to_msgpack({"n": 1, "do": "status"})[:-1], 1007, "a request is a map with a number n"),
        (to_msgpack({"n": 1, "do": "status"}) + b"\x00", 1007, "a request is a map with a number n"),
        (to_msgpack([{"n": 1, "do": "status"}])[:-1], 1007, "a frame is msgpack, and this one is not"),
        (to_msgpack([{"n": 1, "do": "status"}]) + b"\x00", 1007, "a frame is msgpack, and this one is not"),
        (to_msgpack([[]]), 1007, "a request is a map with a number n"),
        (to_msgpack({}), 1007, "a request is a map with a number n"),
        (to_msgpack({"do": "status"}), 1007, "a request is a map with a number n"),
        (to_msgpack({"n": -1, "do": "status"}), 1007, "a request is a map with a number n"),
        (to_msgpack({"n": 1.0, "do": "status"}), 1007, "a request is a map with a number n"),
        (to_msgpack({"n": "1", "do": "status"}), 1007, "a request is a map with a number n"),
        (to_msgpack({"n": True, "do": "status"}), 1007, "a request is a map with a number n"),
        (to_msgpack({"n": 1 << 64, "do": "status"}), 1007, "a request is a map with a number n"),
        (to_msgpack([commit(1), read(1)]), 1008, "a request has a number n that no other unanswered one has"),
        (b"\xdd\xff\xff\xff\xff", 1008, "4294967295 requests on top of 1 unanswered ones"),
        (b"\xdc\xff\xff" + b"\x80" * 65535, 1008, "65535 requests on top of 1 unanswered ones"),
        (b"\x91" * 5000 + b"\x90", 1007, "a frame is nested too deeply"),
        (b"\x82\xa1x" + b"\x91" * 5000 + b"\x90\xa1n\x01", 1007, "a frame is nested too deeply"),
    ],
)
async def test_what_is_no_frame_closes_the_session_in_words(shop: Node, frame: bytes, code: int, said: str) -> None:
    async with talk(shop) as session:
        await session.send(commit(5))
        await session.socket.send_bytes(frame)
        assert (await session.replies(1))[0]["n"] == 5  # what was taken before is answered
        closed = await session.end()
        assert (closed.code, closed.reason[: len(said)]) == (code, said)
    assert await value_of(shop) == 1
    assert shop.handler.sessions.counts.refused == 1


async def test_text_is_refused(shop: Node) -> None:
    async with talk(shop) as session:
        await session.socket.send_str('{"n": 1, "do": "status"}')
        closed = await session.end()
        assert (closed.code, closed.reason) == (1003, "frames are binary: msgpack")


async def test_a_frame_beyond_the_limit_of_bodies_is_refused_before_it_is_here(
    make_nodes: Callable[..., Nodes],
) -> None:
    node = await small(make_nodes, body_bytes=2048)
    async with talk(node) as session:
        value = "x" * (2048 - len(to_msgpack(commit(1, amount="")) + b"\xda\x00\x00") + 1)
        exactly = commit(1, amount=value)
        assert len(to_msgpack(exactly)) == 2048
        await session.send(exactly)
        (reply,) = await session.replies(1)
        assert reply["problem"]["code"] == "invalid-value"
    reader, writer = await raw(node)
    await read_frame(reader)
    writer.write(b"\x82\xff" + (1 << 40).to_bytes(8, "big"))  # a terabyte is announced, and nothing sent
    assert await read_frame(reader) == (0x88, (1009).to_bytes(2, "big") + b"a frame has at most 2048 bytes")
    writer.transport.abort()


@pytest.mark.parametrize(
    ("head", "payload"),
    [
        (0xC2, b""),  # a reserved bit
        (0x83, b""),  # an opcode nobody knows
        (0x80, b""),  # goes on with what never began
        (0x89, b"x" * 126),  # a long ping
        (0x09, b""),  # half a ping
    ],
    ids=str,
)
async def test_what_is_no_websocket_is_refused(shop: Node, head: int, payload: bytes) -> None:
    reader, writer = await raw(shop)
    await read_frame(reader)
    writer.write(masked(to_msgpack(commit(1))) + masked(payload, head))
    assert (await read_frame(reader))[0] == 0x82
    kind, said = await read_frame(reader)
    assert (kind, int.from_bytes(said[:2], "big")) == (0x88, 1002)
    assert len(said) > 2
    writer.transport.abort()


@pytest.mark.parametrize(
    "change",
    [
        (b"Upgrade: websocket", b"Upgrade: h2c"),
        (b"Connection: Upgrade", b"Connection: keep-alive"),
        (b"Version: 13", b"Version: 12"),
        (base64.b64encode(bytes(16)), b"AAAA"),
        (base64.b64encode(bytes(16)), b"\xff\xff"),
        (b"/v1/session", b"/v1/session?x=1"),
    ],
)
async def test_what_is_no_handshake_is_a_problem(shop: Node, change: tuple[bytes, bytes]) -> None:
    reply = await exchange(shop.api.port, HANDSHAKE.replace(*change))
    assert (reply.status, reply.body["code"]) == (400, "bad-request")
    assert len(shop.handler.sessions) == 0


@pytest.mark.parametrize(
    ("origin", "status"), [("http://evil.example", 403), ("null", 403), ("http://[", 403), ("http://test", 101)]
)
async def test_a_page_of_another_place_opens_no_session(shop: Node, origin: str, status: int) -> None:
    reply = await exchange(shop.api.port, HANDSHAKE.replace(b"\r\n\r\n", f"\r\nOrigin: {origin}\r\n\r\n".encode()))
    assert reply.status == status
    assert shop.handler.outcomes.get("forbidden", 0) == (status == 403)


async def test_other_methods_are_refused(shop: Node) -> None:
    reply = await call(shop, "POST", "/v1/session")
    assert (reply.status, reply.headers["allow"]) == (405, "GET")


async def test_deflate_is_not_agreed_to(shop: Node) -> None:
    async with talk(shop, compress=15) as session:
        assert session.socket.compress == 0
        assert "dot" in await session.ask(**commit(7))


# --- credits and limits


async def test_who_goes_beyond_its_credits_is_closed_and_loses_nothing(make_nodes: Callable[..., Nodes]) -> None:
    node = await small(make_nodes, session_credits=4)
    async with talk(node) as session:
        frames = b"".join(masked(to_msgpack([commit(at), commit(at + 1)])) for at in (0, 2, 4))
        transport = session.socket.get_extra_info("socket")
        assert transport is not None
        session.socket._response.connection.transport.write(frames)  # type: ignore[union-attr]
        replies = await session.replies(4)
        assert {reply["n"] for reply in replies} == {0, 1, 2, 3}
        closed = await session.end()
        assert closed.code == 1008
        assert closed.reason == "2 requests on top of 4 unanswered ones: there are 4 credits"
    assert await value_of(node) == 4
    async with talk(node) as session:
        await session.send(*(commit(number) for number in range(5)))
        assert (await session.end()).code == 1008
    assert await value_of(node) == 4  # nothing of that frame was taken


async def test_a_number_may_be_used_again_only_when_it_was_answered(make_nodes: Callable[..., Nodes]) -> None:
    nodes = make_nodes("eu", "us")
    us = await nodes.start("us")
    await declare(us, "shop", "counter")
    token = (await call(us, "POST", "/v1/data/shop/counter/k", {"ops": [{"op": "add"}]})).body["token"]
    eu = await nodes.start("eu", peers={"us": nodes.ports["eu"][0]})
    await declare(eu, "crm", "counter")
    async with talk(eu) as session:
        for _ in range(3):
            assert "dot" in await session.ask(**commit(7) | {"domain": "crm"})
        await session.send(read(7, token=token, wait_ms=200))
        await session.send(commit(7) | {"domain": "crm"})
        assert (await session.replies(1))[0]["problem"]["code"] == "replica-behind"
        assert (await session.end()).code == 1008


async def test_there_are_so_many_sessions(make_nodes: Callable[..., Nodes]) -> None:
    node = await small(make_nodes, sessions=2)
    async with talk(node), talk(node):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with talk(node):
                pass
        assert refused.value.status == 503
        assert node.handler.outcomes["overloaded"] == 1
    await until(lambda: len(node.handler.sessions) == 0)
    async with talk(node) as session:
        assert "dot" in await session.ask(**commit(7))


async def test_requests_that_find_no_room_get_their_own_problem(make_nodes: Callable[..., Nodes]) -> None:
    node = await make_nodes(engine={"max_waiting": 10}).start("us")
    await declare(node, "shop", "counter")
    async with talk(node) as session:
        await session.send(*(commit(number) for number in range(15)))
        replies = await session.replies(15)
        refused = [reply["n"] for reply in replies if reply.get("problem", {}).get("code") == "overloaded"]
        assert sorted(refused) == [10, 11, 12, 13, 14]
    assert await value_of(node) == 10


async def test_admin_requests_are_none_here(shop: Node) -> None:
    names = ("members_status", "member_leave", "member_evict", "member_force", "member_rejoin", "orphans")
    async with talk(shop) as session:
        for do in (*names, "orphan_apply", "", "none"):
            refused = (await session.ask(do=do))["problem"]
            assert refused["code"] == "bad-request"
            assert refused["detail"].startswith(f"there is no request {do!r}; there are collection, commit,")
        assert (await session.ask(do=7))["problem"]["detail"].startswith("a request says in its field do")
        assert (await session.ask())["problem"]["detail"].startswith("a request says in its field do")


async def test_one_bad_request_does_not_hurt_the_others(shop: Node) -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    async with talk(shop) as session:
        await session.send(
            commit(1),
            commit(2, bad=1, traceparent=trace),
            commit(3, amount=1.5),
            commit(4, collection="none", traceparent=trace),
            commit(5, wait_ms="1"),
            commit(6),
            commit(7, trace_id="mine"),
            read(8, key="\x00", traceparent="malformed"),
        )
        replies = {reply["n"]: reply for reply in await session.replies(8)}
    assert (replies[1]["values"], replies[6]["values"]) == ([1], [2])
    problems = {n: reply["problem"] for n, reply in replies.items() if "problem" in reply}
    assert {n: each["code"] for n, each in problems.items()} == {
        2: "bad-request",
        3: "invalid-value",
        4: "not-declared",
        5: "bad-request",
        7: "bad-request",
        8: "bad-request",
    }
    assert problems[2]["detail"].startswith("there is no field 'bad' here; there are domain, id, ops,")
    assert problems[7]["detail"].startswith("there is no field 'trace_id' here;")
    assert {n: each["trace_id"] for n, each in problems.items() if "trace_id" in each} == {2: "a" * 32, 4: "a" * 32}


async def test_a_write_carries_its_trace(shop: Node) -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    async with talk(shop) as session:
        await session.ask(**commit(7, traceparent=trace))
        (commit_,) = shop.host.groups["shop/0"].history.span(0, 0, 1, 1 << 20)
        assert b"a" * 32 in bytes(commit_)


# --- who does not read, and who says nothing


async def stuffed(node: Node, most: int) -> socket.socket:
    """A session that asks within its credits and reads nothing, until nothing more is read of it."""
    value = {"ops": [{"op": "set", "value": "x" * 100_000}]}
    await call(node, "POST", "/v1/data/shop/lww_register/big", value)
    loop, own = asyncio.get_running_loop(), socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    own.setblocking(False)
    await loop.sock_connect(own, ("127.0.0.1", node.api.port))
    await loop.sock_sendall(own, HANDSHAKE)
    await until(lambda: len(node.handler.sessions) == 1)
    (session,) = node.handler.sessions._sessions
    counts = node.handler.sessions.counts
    for at in range(0, most, 4):
        await loop.sock_sendall(own, masked(to_msgpack([read(at + n, "big", "lww_register") for n in range(4)])))
        if session._is_paused:
            break
        await until(lambda at=at: (counts.requests == at + 4 and not session.open) or session._is_paused)  # type: ignore[misc]
    return own


async def test_who_does_not_read_is_read_no_more_and_holds_nobody_up(make_nodes: Callable[..., Nodes]) -> None:
    node = await small(make_nodes, session_credits=16)
    counts = node.handler.sessions.counts
    own = await stuffed(node, 10_000)
    (session,) = node.handler.sessions._sessions
    loop, asked = asyncio.get_running_loop(), counts.requests
    assert asked < 10_000
    await loop.sock_sendall(own, masked(to_msgpack([read(1 << 20, "big", "lww_register")])))
    async with talk(node) as other:
        assert "dot" in await other.ask(**commit(7))
    transport = session._connection.transport
    assert transport is not None
    assert not transport.is_reading()
    assert counts.requests <= asked + 2  # the other's, and what was on its way when it was stopped
    assert transport.get_write_buffer_size() < (16 + 8) * 100_100
    got = 0
    async with asyncio.timeout(20):  # now it reads, and gets all that it asked for
        while got < (asked + 1) * 100_000:
            got += len(await loop.sock_recv(own, 1 << 20))
    assert transport.is_reading()
    own.close()
    await until(lambda: len(node.handler.sessions) == 0)


async def test_who_lets_replies_pile_up_is_dropped(make_nodes: Callable[..., Nodes], lines: Lines) -> None:
    node = await small(make_nodes, session_credits=1_000, session_buffer_bytes=1 << 20)
    own = await stuffed(node, 10_000)
    assert lines.of("the session of a client was dropped") == []
    (session,) = node.handler.sessions._sessions
    session._take(to_msgpack([read(number, "big", "lww_register") for number in range(100)]))  # that was on its way
    await until(lambda: len(node.handler.sessions) == 0)
    own.close()
    (dropped,) = lines.of("the session of a client was dropped")
    assert dropped["why"] == "too many replies that it does not read"
    assert node.handler.sessions.counts.refused == 1
    assert await value_of(node) == 0  # it serves others


async def test_who_is_silent_is_asked_and_then_dropped(make_nodes: Callable[..., Nodes], lines: Lines) -> None:
    node = await small(make_nodes, session_silence_ms=250)
    reader, writer = await raw(node)  # answers no ping
    async with talk(node) as alive:
        waiting = asyncio.ensure_future(alive.frame())  # aiohttp answers pings while it waits
        await read_frame(reader)
        assert await read_frame(reader) == (0x89, b"")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await read_frame(reader)
        assert [each["why"] for each in lines.of("the session of a client was dropped")] == ["it gave no sign of life"]
        await asyncio.sleep(0.8)
        assert len(node.handler.sessions) == 1
        await alive.send(commit(7))
        assert (await waiting)[0]["n"] == 7
    writer.close()


async def test_who_reads_nothing_for_long_is_dropped(make_nodes: Callable[..., Nodes], lines: Lines) -> None:
    node = await small(make_nodes, session_silence_ms=60, session_credits=16)
    own = await stuffed(node, 10_000)
    await until(lambda: len(node.handler.sessions) == 0)
    own.close()
    assert [each["why"] for each in lines.of("the session of a client was dropped")] == [
        "it did not read its replies for long"
    ]


async def test_pings_are_answered_and_a_close_too(shop: Node) -> None:
    reader, writer = await raw(shop)
    await read_frame(reader)
    writer.write(masked(b"are you there", 0x89) + masked(b"", 0x8A))
    assert await read_frame(reader) == (0x8A, b"are you there")
    writer.write(masked((1000).to_bytes(2, "big"), 0x88))
    assert await read_frame(reader) == (0x88, (1000).to_bytes(2, "big"))
    assert await reader.read() == b""
    await until(lambda: len(shop.handler.sessions) == 0)
    writer.close()


async def test_a_status_that_fails_is_a_problem_as_over_http(shop: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    async with talk(shop) as session:
        for error, code in ((ZeroDivisionError(), "internal"), (StorageError("lost"), "storage-failed")):

            def fail(error: Exception = error) -> Any:
                raise error

            monkeypatch.setattr(session_of(shop), "_status", fail)
            await session.send({"n": 1, "do": "status"}, commit(2))
            replies = {reply["n"]: reply for reply in await session.replies(2)}
            assert replies[1]["problem"]["code"] == code
            assert "dot" in replies[2]


async def test_our_own_fault_closes_the_session_and_no_other(
    shop: Node, monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    async with talk(shop) as session, talk(shop) as other:
        with monkeypatch.context() as patch:
            patch.setattr("crdtstore_node.api.session.decode", lambda frame: 1 / 0)
            await session.send(commit(1))
            closed = await session.end()
            assert closed.code == 1011
        assert [event for event, _ in lines.events].count("a session failed") == 1
        assert "dot" in await other.ask(**commit(7))


# --- a node that fails


async def test_when_the_service_fails_all_are_answered(shop: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    async with talk(shop) as session:
        monkeypatch.setattr(shop.driver.service, "step", lambda events, now_ms: 1 / 0)
        await session.send(commit(1), read(2))
        replies = await session.replies(2)
        assert {reply["problem"]["code"] for reply in replies} == {"internal"}
        await session.send(commit(3))
        assert (await session.replies(1))[0]["problem"]["code"] == "internal"


async def test_a_full_disk_is_told_to_those_who_wait_and_the_session_goes_on(
    shop: Node, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    def refuse(records: Sequence[bytes]) -> int:
        raise full()

    async with talk(shop) as session:
        await session.ask(**commit(7, "old"))
        with monkeypatch.context() as patch:
            patch.setattr(shop.log, "write", refuse)
            await session.send(commit(1), read(2, "old"))
            replies = {reply["n"]: reply for reply in await session.replies(2)}
            told = replies[1]["problem"]
            assert (told["code"], told["effect"], replies[2]["value"]) == ("storage-full", "unknown", 1)
            told = (await session.ask(**commit(7)))["problem"]
            assert (told["code"], told["effect"]) == ("storage-full", "none")
        await until(lambda: shop.driver.full is None)
        assert (await session.ask(**commit(7)))["values"] == [2]  # the one that was unknown took effect


async def test_a_session_that_cannot_be_decoded_never_takes_the_node_down(shop: Node) -> None:
    """Random bytes, as frames and as no frames."""

    async def send(data: bytes) -> None:
        reader, writer = await raw(shop)
        writer.write(data + masked(b"", 0x88))
        async with asyncio.timeout(20):
            assert (await reader.read())[:1] == b"\x82"
        writer.close()

    rng = Random(5)
    sent = []
    for round_ in range(60):
        good = bytearray(to_msgpack([commit(1), read(2), {"n": 3, "do": "status"}]))
        for _ in range(rng.randrange(1, 4)):
            good[rng.randrange(len(good))] = rng.randrange(256)
        sent.append(masked(bytes(good)) if round_ % 2 else rng.randbytes(80))
    await asyncio.gather(*map(send, sent))
    assert from_msgpack((await call(shop, "GET", "/healthz", accept="application/msgpack")).raw) == {"alive": True}
