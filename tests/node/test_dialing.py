"""Who dials whom while members change: nobody meets twice, nobody is left alone, and whoever knocks costs little."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import aiohttp
import pytest

from crdtstore.causal import make_replica_id
from crdtstore.configuration import Member
from crdtstore.host import Host
from crdtstore.messages import Hello, decode_message
from crdtstore.testing.processes import hold_port
from crdtstore_node import transport
from crdtstore_node.node import Node
from tests.node.running import Lines, Nodes, until
from tests.node.test_gossip import Impostor, changed
from tests.node.test_lives import evict, ids, is_member


class Stranger(Impostor):
    """A node of this cluster that no group knows."""

    def __init__(self, node: Node, number: int) -> None:
        super().__init__(node, region="us")
        me = Member(make_replica_id(f"zz-{number}", number), "zz", "127.0.0.1:1")
        self.host = Host(node.host.cluster, me, node.config.engine, Random(number))


def have_one_link_each(nodes: list[Node]) -> bool:
    return all(len(node.transport.links) == len(nodes) - 1 for node in nodes)


@pytest.mark.parametrize("region", ["aa", "zz"])
async def test_a_link_of_a_seed_becomes_that_of_a_pair(make_nodes: Callable[..., Nodes], region: str) -> None:
    cluster = make_nodes("us", "eu")
    nodes = await cluster.start_all()
    life = await cluster.live(region, join=["us", "eu"])
    nodes.append(life.node)
    await until(lambda: is_member(life) and have_one_link_each(nodes), 10)
    await asyncio.sleep(1.0)
    assert [node.transport.connected for node in nodes] == [2, 2, 2], "each pair has met once"
    assert [node.transport.lost for node in nodes] == [0, 0, 0]
    dialed = {node.host.me.region: len(node.transport.dialers) for node in nodes}
    assert dialed == ({"us": 0, "eu": 1, "aa": 2} if region == "aa" else {"us": 1, "eu": 2, "zz": 0})
    for link in list(life.node.transport.links.values()):
        link.give_up("a test cuts it")
    await until(lambda: have_one_link_each(nodes))


async def test_who_left_the_members_is_not_dialed_once_it_knows(make_nodes: Callable[..., Nodes]) -> None:
    """us has the greatest id: it dials nobody, so it hears of it only because it is dialed."""
    cluster = make_nodes("ap", "eu", "us")
    nodes = [await cluster.live(region, is_bootstrap=True) for region in ("ap", "eu", "us")]
    await until(lambda: have_one_link_each([life.node for life in nodes]))
    us = nodes.pop().node.host.me.replica
    await cluster.end("us")
    evict(nodes[0].node, us)
    await until(lambda: all(us not in ids(life.node) for life in nodes))
    assert all(us in life.node.transport.dialers.targets() for life in nodes)
    assert all(life.node.transport.dialers.targets()[us].is_slow for life in nodes)
    removed = await cluster.live("us")
    await until(lambda: removed.counts["evicted"] == 1)
    await until(lambda: all(us not in life.node.transport.dialers.targets() for life in nodes))
    assert removed.node.transport.links, "it waits for what is settled of its commits"


async def test_who_is_elsewhere_than_the_members_think_dials_them(make_nodes: Callable[..., Nodes]) -> None:
    cluster = make_nodes("eu", "us")
    eu, us = [await cluster.live(region, is_bootstrap=True) for region in ("eu", "us")]
    await until(lambda: have_one_link_each([eu.node, us.node]))
    await cluster.end("us")
    with hold_port() as held:
        moved = f"127.0.0.1:{held.getsockname()[1]}"
    us = await cluster.live("us", GOSSIP=moved, GOSSIP_ADVERTISE=moved)
    await until(lambda: have_one_link_each([eu.node, us.node]))
    assert len(us.node.transport.dialers) == 1
    next(iter(us.node.transport.links.values())).give_up("a test cuts it")
    await until(lambda: have_one_link_each([eu.node, us.node]))
    [target] = eu.node.transport.dialers.targets().values()
    assert str(target.addresses[0]) == moved


async def test_what_a_peer_says_of_its_place_may_be_nonsense(make_nodes: Callable[..., Nodes]) -> None:
    eu, us = await make_nodes("eu", "us").start_all()
    dialers, replica = eu.transport.dialers, us.host.me.replica
    before = dialers.targets()[replica].addresses
    for text in ("", "nowhere", "x" * 10_000, "127.0.0.1:999999"):
        dialers.learn(Member(replica, "us", text))
        assert dialers.targets()[replica].addresses == before
    dialers.learn(Member(make_replica_id("zz-1", 7), "zz", "127.0.0.1:1"))
    assert len(dialers._said) == 1, "what strangers say is not kept"
    dialers.learn(Member(replica, "us", "[::1"))
    next(iter(us.transport.links.values())).give_up("a test cuts it")
    await until(lambda: eu.transport.connected == us.transport.connected == 2)


async def test_so_many_strangers_are_let_in(
    make_nodes: Callable[..., Nodes], monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    monkeypatch.setattr(transport, "_MAX_GUESTS", 2)
    us, eu = await make_nodes("us", "eu").start_all()
    knocks = [asyncio.ensure_future(Stranger(us, number).say(patience_s=1.0)) for number in (1, 2)]
    await until(lambda: len(us.transport.links) == 3)
    third = Stranger(us, 3)
    code, reason = await third.say(third.hello(), is_greeting=False)
    assert (code, reason) == (4000, "too many nodes are connected that no group knows")
    assert [await knock for knock in knocks] == [(None, ""), (None, "")]
    await until(lambda: len(us.transport.links) == 1)
    assert us.transport._guests() == 0
    assert eu.host.me.replica in us.transport.links


async def test_who_is_refused_has_heard_a_hello(make_nodes: Callable[..., Nodes]) -> None:
    """Both sides judge the first words: what is held against the one that dials may be the fault of the one that is dialed."""
    us, _ = await make_nodes("us", "eu").start_all()
    impostor = Impostor(us, region="eu")
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{us.gossip.port}/gossip") as socket,
    ):
        await socket.send_bytes(changed(impostor.hello(), region="elsewhere"))
        assert isinstance(decode_message((await socket.receive(5)).data), Hello)
        await socket.receive(5)
        assert socket.close_code == 4000


async def test_a_hello_for_another_id_is_not_taken(make_nodes: Callable[..., Nodes]) -> None:
    us, _ = await make_nodes("us", "eu").start_all()
    address = f"http://127.0.0.1:{us.gossip.port}/gossip"
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="421"):
            await session.ws_connect(address, headers={transport.WANTED: "us-1.00000000000000ff"})
        socket = await session.ws_connect(address, headers={transport.WANTED: us.host.me.replica})
        await socket.close()


async def test_a_place_of_a_node_that_is_not_known_is_told(make_nodes: Callable[..., Nodes], lines: Lines) -> None:
    await make_nodes("us", "eu").start("us", peers={"ap": 1, "eu": 2})
    [said] = lines.of("the configuration says where to dial nodes that are not known")
    assert (said["peers"], said["known"]) == (["ap-1"], ["eu-1", "us-1"])


async def test_who_is_alone_for_a_while_dials_those_who_should_dial_it(
    make_nodes: Callable[..., Nodes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crdtstore_node.dialing._ALONE_S", 0.3)
    cluster = make_nodes("eu", "us")
    us = await cluster.start("us")
    eu = await cluster.start("eu", peers={"us": 1})  # it cannot reach us
    assert len(us.transport.dialers) == 0
    await until(lambda: have_one_link_each([eu, us]))
    await until(lambda: len(us.transport.dialers) == 0)


async def test_who_stood_in_a_line_that_parted_asks_only_the_other_side(make_nodes: Callable[..., Nodes]) -> None:
    us, eu, ap = await make_nodes("us", "eu", "ap").start_all()
    dialers, splits = us.transport.dialers, us.host.groups["_sys/0"].membership.splits
    before = dialers.next_seeds()
    assert (len(before.addresses), before.are_all) == (2, False)
    splits[ap.host.me.replica] = ap.host.groups["_sys/0"].configuration.id
    seeds = dialers.next_seeds()
    assert ([str(each) for each in seeds.addresses], seeds.are_all) == ([ap.host.me.gossip], True)
    dialers._seeds = seeds
    assert [str(target.addresses[0]) for target in dialers.seeds().values()] == [ap.host.me.gossip]
    assert eu.host.me.gossip not in str(dialers.seeds())
