"""Nodes that talk over real WebSockets: they converge, notice what is gone, and refuse what cannot be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from random import Random
from typing import Any

import aiohttp
import pytest

from crdtstore.configuration import Cluster
from crdtstore.host import Host
from crdtstore.messages import MAX_MESSAGE_BYTES, Hello, decode_message, encode_message
from crdtstore.testing.proxy import Proxy
from crdtstore_node.node import Node
from tests.node.running import NONCE, Lines, Nodes, Reply, call, declare, until

KEY = "/v1/data/shop/counter/k"
ADD: dict[str, Any] = {"ops": [{"op": "add", "amount": 1}]}


def vectors(nodes: list[Node]) -> list[Any]:
    return [[(name, list(engine.durability.vector)) for name, engine in node.host.groups.items()] for node in nodes]


async def agree(nodes: list[Node]) -> None:
    """All hold the same, and it is the same."""
    await until(lambda: all(vector == vectors(nodes)[0] for vector in vectors(nodes)))
    digests = [[group["digest"] for group in node.status()["groups"]] for node in nodes]
    assert all(digest == digests[0] and None not in digest for digest in digests)


async def add(node: Node, times: int = 1) -> None:
    for _ in range(times):
        reply: Reply = await call(node, "POST", KEY, ADD)
        assert reply.status == 200, reply


@pytest.mark.parametrize("regions", [("us", "eu"), ("us", "eu", "ap")])
async def test_nodes_converge(make_nodes: Callable[..., Nodes], regions: tuple[str, ...]) -> None:
    nodes = await make_nodes(*regions).start_all()
    await declare(nodes[0], "shop", "counter")
    await until(lambda: all("shop/0" in node.host.groups for node in nodes))
    await asyncio.gather(*(add(node, 20) for node in nodes))
    await agree(nodes)
    for node in nodes:
        assert (await call(node, "GET", KEY)).body["value"] == 20 * len(nodes)
    await until(lambda: all(node.status()["groups"][1]["unacked"] == 0 for node in nodes))
    for node in nodes:
        for peer in node.status()["peers"]:
            assert peer["state"] == "streaming"
            assert peer["round_trip_ms"] is not None
            assert abs(peer["offset_ms"]) < 1_000
            assert peer["heard_ms"] < 5_000


async def test_a_node_that_was_away_catches_up(make_nodes: Callable[..., Nodes]) -> None:
    cluster = make_nodes("us", "eu", "ap")
    us, eu, _ = await cluster.start_all()
    await declare(us, "shop", "counter")
    await cluster.stop("ap")
    await until(lambda: len(us.transport.links) == 1)
    assert {peer["node"]: peer["state"] for peer in us.status()["peers"]} == {"eu-1": "streaming", "ap-1": "down"}
    await add(us, 10)
    ap = await cluster.start("ap", is_bootstrap=False)
    await until(lambda: len(ap.transport.links) == 2)
    await agree([us, eu, ap])
    await add(ap)
    await agree([us, eu, ap])


async def test_a_black_hole_is_noticed_and_healed(make_nodes: Callable[..., Nodes], lines: Lines) -> None:
    cluster = make_nodes("eu", "us", links={"silence_ms": 300})
    async with Proxy() as proxy:
        us = await cluster.start("us")
        link = await proxy.add("eu>us", ("127.0.0.1", cluster.ports["us"][1]))
        eu = await cluster.start("eu", peers={"us": link.address[1]})
        await until(lambda: bool(us.transport.links and eu.transport.links))
        await declare(us, "shop", "counter")
        await agree([us, eu])
        link.cut("out")
        link.cut("in")
        await until(lambda: not us.transport.links and not eu.transport.links)
        assert "nothing was heard" in lines.of("disconnected")[0]["why"]
        await add(us)
        assert us.status()["peers"][0]["state"] == "down"
        assert (await call(eu, "GET", KEY)).body["value"] == 0
        proxy.heal()
        await until(lambda: bool(us.transport.links and eu.transport.links))
        await agree([us, eu])
        assert (await call(eu, "GET", KEY)).body["value"] == 1


async def test_a_message_that_takes_longer_than_silence_may_arrives_once(make_nodes: Callable[..., Nodes]) -> None:
    """A narrow link is not a cut one: bytes of a large commit come, though no message ends for seconds."""
    cluster = make_nodes("eu", "us", links={"silence_ms": 300})
    async with Proxy() as proxy:
        us = await cluster.start("us")
        link = await proxy.add("eu>us", ("127.0.0.1", cluster.ports["us"][1]))
        eu = await cluster.start("eu", peers={"us": link.address[1]})
        await until(lambda: bool(us.transport.links and eu.transport.links))
        await declare(us, "shop", "lww_register")
        await agree([us, eu])
        link.throttle(150_000, "in")
        text = Random(1).randbytes(200_000).hex()
        reply = await call(us, "POST", "/v1/data/shop/lww_register/k", {"ops": [{"op": "set", "value": text}]})
        assert reply.status == 200, reply
        await agree([us, eu])
        assert eu.transport.lost == us.transport.lost == 0, "the connection was given up"
        assert us.host.groups["shop/0"].measures.commits_sent == 1
        assert eu.host.groups["shop/0"].measures.commits_received == 1


async def test_a_pair_has_one_connection(make_nodes: Callable[..., Nodes]) -> None:
    nodes = await make_nodes("us", "eu", "ap").start_all()
    assert [node.transport.connected for node in nodes] == [2, 2, 2]
    assert [len(node.transport.dialers) for node in nodes] == [0, 1, 2]  # the smaller id dials


# --- what is refused

Speak = Callable[[aiohttp.ClientWebSocketResponse], Any]


class Impostor:
    """Speaks to a node under the name of a member, with the host of its own making."""

    def __init__(self, node: Node, cluster: Cluster | None = None, region: str = "ap") -> None:
        self.node = node
        cluster = cluster or node.host.cluster
        me = next(member.replica for member in cluster.members if member.region == region)
        self.host = Host(cluster, me, node.config.engine, node.host._random)

    def hello(self) -> bytes:
        return self.host.hello(self.node.host.me.replica, self.node.driver.clock.now_ms())

    async def say(
        self, *words: bytes | str, is_greeting: bool = True, patience_s: float = 0.3
    ) -> tuple[int | None, str]:
        """Connect, say this, and return with which code and reason the node closed the connection (None: it did not)."""
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"http://127.0.0.1:{self.node.gossip.port}/gossip") as socket,
        ):
            if is_greeting:
                await socket.send_bytes(self.hello())
                assert isinstance(decode_message((await socket.receive(5)).data), Hello)
            with contextlib.suppress(ConnectionError):  # cut off in the middle of a word
                for word in words:
                    await (socket.send_bytes(word) if isinstance(word, bytes) else socket.send_str(word))
            try:
                async with asyncio.timeout(patience_s):
                    while True:
                        message = await socket.receive()
                        if message.type not in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
                            return socket.close_code, str(message.extra or "")
            except TimeoutError:
                return None, ""


async def pair(make_nodes: Callable[..., Nodes], **links: int) -> list[Node]:
    """us and eu of a cluster of three, running."""
    cluster = make_nodes("us", "eu", "ap", links=links)
    nodes = [await cluster.start("us"), await cluster.start("eu")]
    await until(lambda: all(len(node.transport.links) == 1 for node in nodes))
    await declare(nodes[0], "shop", "counter")
    return nodes


async def unaffected(nodes: list[Node]) -> None:
    """The members go on as if nothing had been."""
    assert [len(node.transport.links) for node in nodes] == [1, 1]
    assert [node.transport.connected for node in nodes] == [1, 1] or nodes[0].transport.connected > 1
    assert not any(node.driver.is_crashed for node in nodes)
    await add(nodes[0])
    await agree(nodes)


def changed(hello: bytes, **fields: Any) -> bytes:
    message = decode_message(hello)
    assert isinstance(message, Hello)
    for name, value in fields.items():
        setattr(message, name, value)
    return encode_message(message)


WRONG_HELLOS = [
    ("version", lambda hello: b"\x02" + hello[1:], "protocol version 2, this node speaks 1"),
    ("protocol", lambda hello: changed(hello, protocol=7), "protocol 7, this node speaks 1"),
    ("cluster", lambda hello: changed(hello, cluster=b"x" * 16), "belongs to another cluster"),
    ("name", lambda hello: changed(hello, replica="ap-2.00000000000000ff"), "is not what it says"),
    ("region", lambda hello: changed(hello, region="us"), "is not what it says"),
    ("replica", lambda hello: changed(hello, replica="ap-1"), "ap-1"),
    ("malformed", lambda hello: hello[:40], "not a message"),
    ("garbage", lambda hello: b"\x01\x00\xc1", "not a message"),
    ("empty", lambda hello: b"", "2 to"),
    ("flag", lambda hello: b"\x01\x09" + hello[2:], "flag"),
    ("bomb", lambda hello: b"\x01\x01\x28\xb5\x2f\xfd\xe0" + b"\xff" * 8, "size"),
    ("text", lambda hello: "hello", "begins with a hello, got a text message"),
]


@pytest.mark.parametrize(
    ("change", "said"), [each[1:] for each in WRONG_HELLOS], ids=[each[0] for each in WRONG_HELLOS]
)
async def test_a_wrong_hello_is_refused_counted_and_logged_once(
    make_nodes: Callable[..., Nodes], lines: Lines, change: Callable[[bytes], bytes | str], said: str
) -> None:
    nodes = await pair(make_nodes)
    impostor = Impostor(nodes[0])
    for _ in range(3):
        code, reason = await impostor.say(change(impostor.hello()), is_greeting=False)
        assert code == 4000
        assert said in reason
    assert nodes[0].transport.refused == {"": 3}
    logged = lines.of("refused a peer")
    assert len(logged) == 1
    assert said in logged[0]["reason"]
    await unaffected(nodes)


WRONG_WORDS = [
    ("malformed", b"\x01\x00\xc1", "not a message"),
    ("version", b"\x02\x00\x90", "protocol version 2"),
    ("hello", None, "a second hello"),
    ("empty", b"", "2 to"),
    ("zstd", b"\x01\x01garbage", "compressed"),
]


@pytest.mark.parametrize(("word", "said"), [each[1:] for each in WRONG_WORDS], ids=[each[0] for each in WRONG_WORDS])
async def test_a_wrong_message_is_refused_counted_and_logged_once(
    make_nodes: Callable[..., Nodes], lines: Lines, word: bytes | None, said: str
) -> None:
    nodes = await pair(make_nodes)
    impostor = Impostor(nodes[0])
    words = [impostor.hello() if word is None else word] * 5
    assert await impostor.say(*words) == (None, "")  # the connection stays
    await until(lambda: nodes[0].transport.refused.get("ap-1") == 5)
    logged = lines.of("refused what a peer said")
    assert [fields["peer"] for fields in logged] == ["ap-1"]
    assert said in logged[0]["reason"]
    await until(lambda: len(nodes[0].transport.links) == 1)
    await unaffected(nodes)


async def test_text_that_is_no_heartbeat_is_refused(make_nodes: Callable[..., Nodes]) -> None:
    nodes = await pair(make_nodes)
    words = ("", "ping", "ping x", "ping -1", "pong 1", "pang 1", "ping " + "9" * 200, "ping ٣", "pong 1 2 3", "ping 1")
    assert await Impostor(nodes[0]).say(*words) == (None, "")
    await until(lambda: nodes[0].transport.refused.get("ap-1") == 8)
    await until(lambda: len(nodes[0].transport.links) == 1)
    await unaffected(nodes)


async def test_an_oversized_message_ends_the_connection_before_it_is_decoded(
    make_nodes: Callable[..., Nodes], lines: Lines
) -> None:
    nodes = await pair(make_nodes)
    code, _ = await Impostor(nodes[0]).say(b"\x01\x00" + bytes(MAX_MESSAGE_BYTES))
    assert code is not None
    await until(lambda: len(nodes[0].transport.links) == 1)
    assert nodes[0].transport.refused["ap-1"] == 1
    assert len(lines.of("refused a peer")) == 1
    await unaffected(nodes)


async def test_a_node_of_another_cluster_is_refused_on_both_sides(
    make_nodes: Callable[..., Nodes], lines: Lines
) -> None:
    cluster = make_nodes("us", "eu", "ap")
    nodes = [await cluster.start("us"), await cluster.start("eu")]
    cluster.write_cluster(nonce="f" * 32, name="other.toml")
    ap = await cluster.start("ap", cluster_file="other.toml")
    await until(lambda: ap.transport.refused_connections >= 4 and nodes[0].transport.refused_connections >= 2)
    assert ap.transport.links == {}
    refused = lines.of("refused a peer")
    # Once by each that was dialed, and once per peer by the one that dials, however often it does.
    assert sorted(fields["peer"] for fields in refused) == ["127.0.0.1", "127.0.0.1", "eu-1", "us-1"]
    assert all("another cluster" in fields["reason"] for fields in refused)
    assert NONCE not in str(refused)
    await declare(nodes[0], "shop", "counter")
    await add(nodes[0])
    await agree(nodes)


async def test_a_second_connection_is_refused_while_the_first_one_answers(
    make_nodes: Callable[..., Nodes], lines: Lines
) -> None:
    nodes = await pair(make_nodes)
    for region, node in (("eu", nodes[0]), ("us", nodes[1])):
        impostor = Impostor(node, region=region)
        assert await impostor.say(impostor.hello(), is_greeting=False) == (4001, "already connected")
    assert lines.of("disconnected") == []
    assert [node.transport.connected for node in nodes] == [1, 1]
    await unaffected(nodes)


async def test_a_newer_connection_takes_the_place_of_one_that_does_not_answer(
    make_nodes: Callable[..., Nodes], lines: Lines
) -> None:
    cluster = make_nodes("eu", "us", links={"silence_ms": 60_000})
    async with Proxy() as proxy:
        us = await cluster.start("us")
        link = await proxy.add("eu>us", ("127.0.0.1", cluster.ports["us"][1]))
        eu = await cluster.start("eu", peers={"us": link.address[1]})
        await until(lambda: bool(us.transport.links and eu.transport.links))
        link.cut("out")
        link.cut("in")
        impostor = Impostor(us, region="eu")
        assert await impostor.say(impostor.hello(), is_greeting=False, patience_s=2.0) == (None, "")
        assert [fields["why"] for fields in lines.of("disconnected")][:1] == [
            "a newer connection of this peer took its place"
        ]


async def test_a_peer_that_takes_nothing_loses_the_connection(make_nodes: Callable[..., Nodes]) -> None:
    nodes = await pair(make_nodes)
    link = next(iter(nodes[0].transport.links.values()))
    link.send(bytes(nodes[0].config.links.send_queue_bytes + 1))
    await until(lambda: nodes[0].transport.overrun == 1)
    await until(lambda: all(len(node.transport.links) == 1 for node in nodes))
    await add(nodes[0])
    await agree(nodes)


async def test_what_is_no_websocket_is_refused(make_nodes: Callable[..., Nodes]) -> None:
    nodes = await pair(make_nodes)
    async with aiohttp.ClientSession() as session:
        for path, status in (("/gossip", 400), ("/metrics", 404), ("/", 404)):
            async with session.get(f"http://127.0.0.1:{nodes[0].gossip.port}{path}") as reply:
                assert reply.status == status
                assert "Traceback" not in await reply.text()
    assert nodes[0].transport.refused == {"": 3}
    await unaffected(nodes)


async def test_who_connects_and_says_nothing_is_let_go(make_nodes: Callable[..., Nodes], lines: Lines) -> None:
    nodes = await pair(make_nodes, connect_timeout_ms=400)
    code, reason = await Impostor(nodes[0]).say(is_greeting=False, patience_s=3)
    assert (code, reason) == (4000, "no hello")
    assert nodes[0].transport._strangers == 0
    await unaffected(nodes)


async def test_who_connects_and_does_not_even_speak_http_is_let_go(make_nodes: Callable[..., Nodes]) -> None:
    nodes = await pair(make_nodes, connect_timeout_ms=400)
    silent = [await asyncio.open_connection("127.0.0.1", nodes[0].gossip.port) for _ in range(3)]
    silent[0][1].write(b"GET /gossip HTTP/1.1\r\n")
    async with asyncio.timeout(5):
        for reader, writer in silent:
            assert await reader.read() == b""
            writer.close()
    await unaffected(nodes)


async def test_links_outlive_the_patience_with_strangers(make_nodes: Callable[..., Nodes]) -> None:
    cluster = make_nodes("us", "eu", links={"connect_timeout_ms": 250})
    nodes = await cluster.start_all()
    pings = [link.heartbeat for node in nodes for link in node.transport.links.values()]
    await until(lambda: all(len(ping._samples) >= 6 for ping in pings))  # 50 ms each
    assert [node.transport.connected for node in nodes] == [1, 1]
