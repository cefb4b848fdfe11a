"""The session of the client against a small server on loopback: frames, order, credits, deadlines, and what a bad server may do."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest
from aiohttp import web

from crdtstore.errors import AccessError, UsageError
from crdtstore.values import to_msgpack
from crdtstore_client import Domain, NotSent, OutcomeUnknown, ReplyLost, Store, Unavailable, connect, session_line
from crdtstore_client.http import HttpTransport
from crdtstore_client.session_line import Line
from crdtstore_client.session_transport import SessionTransport
from tests.client.fake_session import FakeNode, Message, Session, hang, listening
from tests.client.fakes import FakeCluster
from tests.client.test_retries import until

BIG = -(1 << 8000)


@asynccontextmanager
async def open_shop(node: FakeNode, timeout: float = 3.0, **options: Any) -> AsyncIterator[tuple[Store, Domain]]:  # noqa: ASYNC109
    async with connect(node.url, timeout=timeout, **options) as store:
        shop = store.domain("shop")
        await shop.declare("orders", "counter")
        await shop.declare("names", "lww_register")
        node.frames.clear()
        node.over_http.clear()
        node.cluster.seen.clear()
        yield store, shop


def transport_of(store: Store) -> SessionTransport:
    transport = store._link.transport
    assert isinstance(transport, SessionTransport)
    return transport


def line_of(store: Store) -> Line:
    (line,) = transport_of(store)._lines.values()
    return line


def write(amount: int = 1, key: str = "de", op_id: str = "an id") -> Message:
    op = {"collection": "orders", "key": key, "op": "add", "amount": amount}
    return {"domain": "shop", "ops": [op], "id": op_id}


# --- frames and order


async def test_what_tasks_ask_in_one_turn_goes_in_one_frame() -> None:
    async with listening(FakeNode()) as node, open_shop(node) as (_, shop):
        orders = shop.counter("orders")
        acks = await asyncio.gather(*(orders[f"k{n}"].add(n) for n in range(100)))
        assert [ack.value for ack in acks] == list(range(100))
        assert [len(frame) for frame in node.frames] == [100]
        assert await asyncio.gather(*(orders[f"k{n}"].get() for n in range(100))) == list(range(100))
        assert [len(frame) for frame in node.frames] == [100, 100]
        assert not node.over_http
        assert node.handshakes == 1


async def test_answers_in_any_order_reach_their_callers() -> None:
    async def backwards(_: Session, messages: list[Message]) -> list[Message]:
        return messages[::-1]

    async with listening(FakeNode(behave=backwards)) as node, open_shop(node) as (_, shop):
        orders = shop.counter("orders")
        acks = await asyncio.gather(*(orders[f"k{n}"].add(n) for n in range(50)))
        assert [ack.value for ack in acks] == list(range(50))
        with pytest.raises(UsageError, match="not-declared"):
            await shop.counter("never")["de"].add()


async def test_a_task_keeps_its_order_and_so_do_ops_started_in_order() -> None:
    async with listening(FakeNode()) as node, open_shop(node) as (_, shop):
        names = shop.lww_register("names")

        async def one(task: int) -> None:
            for n in range(5):
                await names[f"k{task}"].set(n)

        await asyncio.gather(*(one(task) for task in range(20)))
        node.frames.clear()
        await asyncio.gather(*(names["k"].set(n) for n in range(200)))
        assert [message["ops"][0]["value"] for message in node.writes] == list(range(200))
        assert await names["k"].get() == 199


async def test_order_is_kept_over_credits_that_run_out_and_a_session_that_is_opened() -> None:
    node = FakeNode(hello={"session": 1, "credits": 3})
    async with listening(node), connect(node.url, timeout=5) as store:
        shop = store.domain("shop")
        node.cluster.domains.add("shop")
        node.cluster.collections["shop", "names"] = {"type": "lww_register", "options": {}}
        await asyncio.gather(*(shop.lww_register("names")["k"].set(n) for n in range(50)))
        assert [message["ops"][0]["value"] for message in node.writes] == list(range(50))
        assert max(len(frame) for frame in node.frames) == 3
        assert node.handshakes == 1


async def test_values_that_msgpack_has_no_numbers_for() -> None:
    async with listening(FakeNode()) as node, open_shop(node) as (_, shop):
        assert (await shop.counter("orders")["a/b"].add(BIG)).value == BIG
        assert await shop.counter("orders")["a/b"].get() == BIG
        value = {"raw": b"\x00\xff", "deep": [[1, 2.5, None]]}
        await shop.lww_register("names")["ä ?"].set(value)
        assert await shop.lww_register("names")["ä ?"].get() == value
        assert not node.over_http


async def test_what_is_no_request_of_the_session_goes_over_http() -> None:
    async with listening(FakeNode()) as node, open_shop(node) as (store, _):
        assert (await store.status()).region == "us"
        assert not node.frames


async def test_frames_are_as_long_as_the_node_takes_and_longer_requests_go_over_http() -> None:
    node = FakeNode(hello={"session": 1, "credits": 1000, "frame_bytes": 2000})
    async with listening(node), open_shop(node) as (_, shop):
        names = shop.lww_register("names")
        await asyncio.gather(*(names[f"k{n}"].set("x" * 100) for n in range(40)))
        assert all(len(to_msgpack(frame)) <= 2000 for frame in node.frames)
        assert len(node.frames) > 1
        assert not node.over_http
        await names["long"].set("x" * 3000)
        assert node.over_http == [("POST", "/v1/data/shop/names/long")]
        assert await names["long"].get() == "x" * 3000


async def test_a_load_has_many_keys_in_one_frame() -> None:
    async with listening(FakeNode()) as node, open_shop(node) as (_, shop):
        orders = shop.counter("orders")
        assert await shop.load(orders[f"k{n % 500}"].add(1) for n in range(2000)) == 2000
        assert await orders["k7"].get() == 4
        assert len(node.frames) < 2000 / 20


# --- credits and deadlines


async def test_no_more_is_asked_than_there_are_credits_for() -> None:
    most = 0

    async def slowly(session: Session, messages: list[Message]) -> None:
        nonlocal most
        most = max(most, len(session.open))
        for message in messages:
            await session.answer([message])

    node = FakeNode(hello={"session": 1, "credits": 4}, behave=slowly)
    async with listening(node), open_shop(node) as (store, shop):
        orders = shop.counter("orders")
        await asyncio.gather(*(orders["de"].add(1) for _ in range(50)))
        assert most == 4
        await node.sessions[0].grant(6)
        await until(lambda: line_of(store)._wires[-1]._credits == 10)
        await asyncio.gather(*(orders["de"].add(1) for _ in range(50)))
        assert most == 10
        assert await orders["de"].get() == 100


async def test_without_a_credit_in_time_nothing_was_sent() -> None:
    held: list[tuple[Session, list[Message]]] = []

    async def hold(session: Session, messages: list[Message]) -> None:
        held.append((session, messages))

    node = FakeNode(hello={"session": 1, "credits": 1})
    async with listening(node), open_shop(node) as (store, shop):
        node.behave = hold
        transport = transport_of(store)
        first = asyncio.create_task(transport.ask(node.url, "commit", write(op_id="first"), None, monotonic() + 0.3))
        await until(lambda: bool(held))
        with pytest.raises(NotSent, match="in time"):
            await transport.ask(node.url, "commit", write(op_id="second"), None, monotonic() + 0.1)
        with pytest.raises(ReplyLost, match="in time"):
            await first
        with pytest.raises(Unavailable, match="Nothing changed"):  # the credit is still out
            await shop.commit(shop.counter("orders")["de"].add(5), timeout=0.1)
        node.behave = None
        await held[0][0].answer(held[0][1])  # too late for its caller, but it gives the credit back
        assert (await shop.counter("orders")["de"].add(5)).value == 6
        assert [message["id"] for message in node.writes][:1] == ["first"]
        assert len(node.writes) == 2


async def test_who_gives_up_before_it_was_sent_sent_nothing() -> None:
    held: list[tuple[Session, list[Message]]] = []

    async def hold(session: Session, messages: list[Message]) -> None:
        held.append((session, messages))

    node = FakeNode(hello={"session": 1, "credits": 2})
    async with listening(node), open_shop(node) as (store, _):
        node.behave = hold
        transport = transport_of(store)
        tasks = [
            asyncio.create_task(transport.ask(node.url, "commit", write(op_id=str(n)), None, monotonic() + 3.0))
            for n in range(5)
        ]
        await until(lambda: bool(held))
        tasks[0].cancel()  # was sent
        tasks[3].cancel()  # was not
        await asyncio.sleep(0)
        node.behave = None
        await held[0][0].answer(held[0][1])
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(each, asyncio.CancelledError) for each in done] == [True, False, False, True, False]
        assert [message["id"] for message in node.writes] == ["0", "1", "2", "4"]
        assert not line_of(store)._outbox
        assert not line_of(store)._wires[-1].unanswered


async def test_a_node_that_owes_answers_and_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_line, "SILENT_SECONDS", 0.05)

    async def swallow(_: Session, __: list[Message]) -> None:
        return None

    node = FakeNode(hello={"session": 1, "credits": 1})
    async with listening(node), open_shop(node) as (store, shop):
        node.behave = swallow
        with pytest.raises(OutcomeUnknown):
            await shop.commit(shop.counter("orders")["de"].add(5), timeout=0.2)
        node.behave = None
        await until(lambda: not line_of(store)._wires)
        assert (await shop.counter("orders")["de"].add(5)).value == 5
        assert node.handshakes == 2


# --- nodes without a session


async def not_found(_: web.Request) -> web.StreamResponse:
    return web.Response(status=404)


async def a_page(_: web.Request) -> web.StreamResponse:
    return web.Response(text="<h1>welcome</h1>")


async def cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize("refuse", [not_found, a_page, cut, hang])
async def test_where_there_is_no_session_http_is_spoken_and_later_it_is_tried_again(
    refuse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_line, "HANDSHAKE_SECONDS", 0.1)
    async with listening(FakeNode(refuse=refuse)) as node, connect(node.url, timeout=3) as store:
        shop = store.domain("shop")
        await shop.declare("orders", "counter")
        orders = shop.counter("orders")
        await asyncio.gather(*(orders["de"].add(1) for _ in range(20)))
        assert await orders["de"].get() == 20
        assert len(node.over_http) == 23
        assert node.handshakes <= 2  # aiohttp asks once more where an idle connection was cut
        node.refuse = None
        line_of(store)._retry_at = 0.0
        before = node.handshakes
        await asyncio.gather(*(orders["de"].add(1) for _ in range(5)))  # nobody waits for the attempt
        assert len(node.over_http) == 28
        await until(lambda: bool(line_of(store)._wires))
        assert node.handshakes == before + 1
        assert await orders["de"].get() == 25
        assert len(node.over_http) == 28
        assert len(node.messages) == 1


async def test_the_pauses_between_attempts_grow() -> None:
    async with listening(FakeNode(refuse=not_found)) as node, connect(node.url, timeout=3) as store:
        await store.domain("shop").declare("orders", "counter")
        line = line_of(store)
        pauses = []
        for _ in range(10):
            line._retry_at = 0.0
            with pytest.raises(UsageError):
                await store.domain("shop").counter("x")["y"].get()
            await until(lambda: line._opening is None)
            pauses.append(line._pause)
        assert pauses == sorted(pauses)
        assert pauses[-1] == session_line.LONGEST_PAUSE_SECONDS


async def test_nobody_there_is_not_sent_and_one_attempt_serves_all() -> None:
    attempts = 0

    class Counting(HttpTransport):
        async def open_session(self, url_base: str, authorization: str | None) -> Any:
            nonlocal attempts
            attempts += 1
            return await super().open_session(url_base, authorization)

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        transport = SessionTransport()
        transport._http = Counting()
        done = await asyncio.gather(
            *(transport.ask(url, "commit", write(), None, monotonic() + 2.0) for _ in range(50)), return_exceptions=True
        )
        assert all(isinstance(each, NotSent) and "cannot connect" in str(each) for each in done)
        assert attempts == 1
        await transport.close()
        with pytest.raises(NotSent, match="closed"):
            await transport.ask(url, "commit", write(), None, monotonic() + 2.0)


async def test_a_fault_while_one_is_opened_lets_nobody_wait() -> None:
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))

    async def fails(url: str, authorization: str | None) -> Any:
        raise RuntimeError("something nobody thought of")

    line = Line("http://127.0.0.1:1", fails)
    async with asyncio.timeout(2.0):
        for _ in range(2):
            assert await line.ask("read", {"domain": "shop"}, None, monotonic() + 60.0) is None, "over HTTP"
        await until(lambda: bool(said))
    assert "nobody thought of" in str(said[0]["exception"])
    await line.close()


async def test_a_refused_credential_is_told_and_a_renewed_one_opens_another_session() -> None:
    async def guard(session: Session, messages: list[Message]) -> list[Message]:
        if node.authorizations[-1] == "Bearer old":
            for message in messages:
                await session.say({"n": message["n"], "problem": {"status": 401, "code": "unauthenticated"}})
            return []
        return messages

    secrets = iter(["old", "new"])

    async def auth() -> str:
        return next(secrets)

    node = FakeNode(behave=guard)
    async with listening(node), connect(node.url, auth=auth, timeout=3) as store:
        await store.domain("shop").declare("orders", "counter")
        assert node.authorizations == ["Bearer old", "Bearer new"]
        assert (await store.domain("shop").counter("orders")["de"].add(1)).value == 1
        await until(lambda: len(line_of(store)._wires) == 1)
    node = FakeNode(refuse=lambda _: _forbidden())
    async with listening(node), connect(node.url, auth="wrong", timeout=3) as store:
        node.cluster.fail("http://us", AccessError("who are you?", code="unauthenticated"))
        with pytest.raises(AccessError):
            await store.domain("shop").declare("orders", "counter")


async def _forbidden() -> web.StreamResponse:
    return web.Response(status=403)


# --- connections that end


async def test_a_request_whose_reply_is_lost_is_repeated_under_its_id() -> None:
    times = 0

    async def die_once(session: Session, messages: list[Message]) -> list[Message] | None:
        nonlocal times
        if any(message["do"] == "commit" for message in messages):
            times += 1
            if times <= 2:
                for message in messages:
                    await session.serve(message)
                session.cut()
                return None
        return messages

    async with listening(FakeNode(behave=die_once)) as node, open_shop(node) as (_, shop):
        orders = shop.counter("orders")
        acks = await asyncio.gather(*(orders["de"].add(1) for _ in range(10)))
        assert all(ack.replayed for ack in acks)
        assert await orders["de"].get() == 10
        ids = [message["id"] for message in node.writes]
        assert len(set(ids)) == 10


async def test_what_was_not_written_is_carried_by_the_next_connection() -> None:
    async with listening(FakeNode()) as node, open_shop(node) as (store, _):
        transport = transport_of(store)
        wire = line_of(store)._wires[-1]
        connection = wire._socket._conn
        assert connection is not None
        assert connection.transport is not None
        connection.transport.close()  # nobody was told yet
        replies = await asyncio.gather(
            *(transport.ask(node.url, "commit", write(op_id=str(n)), None, monotonic() + 2.0) for n in range(5))
        )
        assert [reply.body["values"] for reply in replies] == [[n] for n in range(1, 6)]
        assert [message["id"] for message in node.writes] == list("01234")
        assert node.handshakes == 2


async def test_what_waits_for_credits_when_the_connection_ends_is_not_lost_and_not_doubled() -> None:
    async def die_once(session: Session, messages: list[Message]) -> list[Message] | None:
        if len(node.sessions) == 1:
            session.cut()
            return None
        return messages

    node = FakeNode(hello={"session": 1, "credits": 2})
    async with listening(node), open_shop(node) as (store, _):
        node.behave = die_once
        transport = transport_of(store)
        done = await asyncio.gather(
            *(transport.ask(node.url, "commit", write(op_id=str(n)), None, monotonic() + 2.0) for n in range(6)),
            return_exceptions=True,
        )
        assert [isinstance(each, ReplyLost) for each in done] == [True, True, False, False, False, False]
        assert [message["id"] for message in node.writes] == list("012345")


async def test_a_node_that_was_started_again_is_reached_again() -> None:
    async with listening(FakeNode()) as node, open_shop(node) as (_, shop):
        port = int(node.url.rpartition(":")[2])
        orders = shop.counter("orders")
        await orders["de"].add(1)
        await node.sessions[-1].ws.close(code=1001, message=b"this node stops")
        async with listening(FakeNode(node.cluster), 0) as other:
            assert port != int(other.url.rpartition(":")[2])
        await orders["de"].add(1)
        assert await orders["de"].get() == 2
        assert node.handshakes == 2


@pytest.mark.parametrize(
    "hello",
    [
        b"\xc1",
        b"",
        [],
        {},
        {"session": 2, "credits": 5},
        {"session": 1},
        {"session": 1, "credits": 0},
        {"session": 1, "credits": -1},
        {"session": 1, "credits": True},
        {"session": 1, "credits": "many"},
        {"session": 1, "credits": 1 << 40},
        {"session": 1, "credits": 5, "frame_bytes": "x"},
    ],
)
async def test_who_does_not_begin_as_a_session_does_is_spoken_to_over_http(hello: Any) -> None:
    async with listening(FakeNode(hello=hello)) as node, open_shop(node) as (_, shop):
        assert (await shop.counter("orders")["de"].add(5)).value == 5
        assert len(node.over_http) == 1
        assert not node.frames
        assert node.handshakes == 1


BROKEN: list[Callable[[Session, int], Any]] = [
    lambda session, n: session.ws.send_bytes(b"\xc1"),
    lambda session, n: session.ws.send_bytes(to_msgpack("hello")),
    lambda session, n: session.ws.send_bytes(to_msgpack([1])),
    lambda session, n: session.ws.send_str("{}"),
    lambda session, n: session.ws.send_bytes(to_msgpack({"n": n + 1000})),
    lambda session, n: session.ws.send_bytes(to_msgpack({"n": "1"})),
    lambda session, n: session.ws.send_bytes(to_msgpack({"n": [1]})),
    lambda session, n: session.ws.send_bytes(to_msgpack({"n": n, "problem": "no"})),
    lambda session, n: session.ws.send_bytes(to_msgpack({"n": n, "problem": {}})),
    lambda session, n: session.ws.send_bytes(to_msgpack({"credits": -1})),
    lambda session, n: session.ws.send_bytes(to_msgpack({"credits": 1 << 20})),
    lambda session, n: session.ws.send_bytes(to_msgpack({"credits": None})),
    lambda session, n: session.ws.send_bytes(to_msgpack({})),
    lambda session, n: session.ws.close(code=1008, message=b"too many"),
    lambda session, n: session.ws._writer.transport.write(b"\xff\xff\xff\xff") or asyncio.sleep(0),  # type: ignore[union-attr,func-returns-value]
]


@pytest.mark.parametrize("broken", BROKEN)
async def test_after_a_broken_frame_what_was_sent_has_lost_its_reply_and_http_goes_on(broken: Any) -> None:
    async def misbehave(session: Session, messages: list[Message]) -> None:
        await broken(session, messages[0]["n"])

    async with listening(FakeNode()) as node, open_shop(node) as (store, shop):
        node.behave = misbehave
        transport = transport_of(store)
        with pytest.raises(ReplyLost):
            await transport.ask(node.url, "commit", write(), None, monotonic() + 2.0)
        assert (await shop.counter("orders")["de"].add(5)).value == 5
        assert len(node.over_http) == 1
        assert len(node.writes) == 1
        assert node.handshakes == 1


async def test_an_answer_twice_is_a_broken_session_and_the_answers_before_it_count() -> None:
    async def twice(session: Session, messages: list[Message]) -> None:
        reply = await session.serve(messages[0])
        await session.ws.send_bytes(to_msgpack([reply, reply]))

    async with listening(FakeNode()) as node, open_shop(node) as (store, _):
        node.behave = twice
        transport = transport_of(store)
        done = await asyncio.gather(
            *(transport.ask(node.url, "commit", write(op_id=str(n)), None, monotonic() + 2.0) for n in range(2)),
            return_exceptions=True,
        )
        assert [isinstance(each, ReplyLost) for each in done] == [False, True]


# --- the end


async def test_closing_ends_what_is_under_way_and_leaves_nothing() -> None:
    async def swallow(_: Session, __: list[Message]) -> None:
        return None

    before = asyncio.all_tasks()
    node = FakeNode(hello={"session": 1, "credits": 1})
    async with listening(node):
        inside = asyncio.all_tasks()
        async with open_shop(node) as (store, _):
            node.behave = swallow
            transport = transport_of(store)
            tasks = [
                asyncio.create_task(transport.ask(node.url, "commit", write(op_id=str(n)), None, monotonic() + 3.0))
                for n in range(3)
            ]
            await until(lambda: bool(node.frames))
            await store.close()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(each) for each in done] == [ReplyLost, NotSent, NotSent]
            with pytest.raises(NotSent, match="closed"):
                await transport.ask(node.url, "commit", write(), None, monotonic() + 3.0)
        await asyncio.sleep(0.05)
        assert {task for task in asyncio.all_tasks() - inside if "crdtstore_client" in repr(task)} == set()
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) <= len(before) + 1


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_happens_to_connections_every_write_counts_once(seed: int) -> None:
    """An oracle: sessions end, answers come late or in another order, credits are few; the sum is what was acknowledged."""
    rng = random.Random(seed)

    async def chaos(session: Session, messages: list[Message]) -> list[Message] | None:
        dice = rng.random()
        if dice < 0.08:
            session.cut()
            return None
        if dice < 0.16:
            for message in messages:
                await session.serve(message)
            session.cut()
            return None
        if dice < 0.3:
            rng.shuffle(messages)
        if dice < 0.4:
            half = len(messages) // 2
            if half:
                await session.answer(messages[:half])
                await asyncio.sleep(0.001)
            return messages[half:]
        return messages

    node = FakeNode(hello={"session": 1, "credits": rng.choice([1, 3, 20])})
    async with listening(node), open_shop(node, timeout=20.0) as (_, shop):
        node.behave = chaos
        orders = shop.counter("orders")

        async def one(task: int) -> None:
            for n in range(10):
                assert (await orders[f"k{task}"].add(1)).value == n + 1
                if rng.random() < 0.2:
                    assert await orders[f"k{task}"].get() == n + 1

        await asyncio.gather(*(one(task) for task in range(20)))
        node.behave = None
        assert [await orders[f"k{task}"].get() for task in range(20)] == [10] * 20


async def test_a_users_own_transport_gets_http_requests() -> None:
    cluster = FakeCluster()
    async with connect("http://us", transport=cluster) as store:
        await store.domain("shop").declare("orders", "counter")
        assert [seen.path for seen in cluster.seen] == ["/v1/domains/shop", "/v1/domains/shop/collections/orders"]
