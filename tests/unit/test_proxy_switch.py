"""Who joins tells all others one address: each still goes over a link of its own, and a cut of two nodes cuts no third one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from crdtstore.testing import proxy_switch
from crdtstore.testing.processes_links import ClusterLinks
from crdtstore.testing.proxy_pipe import Address
from crdtstore_node import transport
from tests.unit.test_proxy import DEADLINE_S, SILENCE_S, Target


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    async with Target() as target:
        yield target


@pytest.fixture
async def links(target: Target) -> AsyncIterator[ClusterLinks]:
    """us and eu, and sa, which joined them."""
    links = ClusterLinks()
    for node in ("us-1", "eu-1", "sa-1"):
        await links.add(node, target.address, joins=node == "sa-1")
    yield links
    await links.stop()


def handshake(dialer: str) -> bytes:
    named = f"{proxy_switch.DIALER.upper()}: {dialer}\r\n" if dialer else ""
    return f"GET /gossip HTTP/1.1\r\nHost: here\r\n{named}\r\n".encode()


async def dial(address: Address, head: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(head)
    return reader, writer


async def echoed(reader: asyncio.StreamReader, size: int) -> bytes:
    async with asyncio.timeout(DEADLINE_S):
        return await reader.readexactly(size)


async def ended(reader: asyncio.StreamReader) -> None:
    """Wait for the end of a connection over which nothing came."""
    async with asyncio.timeout(DEADLINE_S):
        with suppress(ConnectionResetError):
            assert await reader.read() == b""


async def test_each_dialer_has_a_link_of_its_own(links: ClusterLinks) -> None:
    connections = {}
    for dialer, link in (("us-1", "us-1>sa-1"), ("eu-1", "eu-1>sa-1"), ("", "*>sa-1"), ("mars-1", "*>sa-1")):
        head = handshake(dialer)
        before = links.proxy.links[link].counters.connections
        reader, writer = await dial(links.advertised("sa-1"), head + b"more")
        assert await echoed(reader, len(head) + 4) == head + b"more", "nothing is lost, nothing comes twice"
        assert links.proxy.links[link].counters.connections == before + 1
        connections[dialer] = (reader, writer)

    links.cut([("eu-1", "sa-1"), ("sa-1", "eu-1")])
    for _, writer in connections.values():
        writer.write(b"again")
    assert await echoed(connections["us-1"][0], 5) == b"again"
    for dialer in ("eu-1", "", "mars-1"):  # who is no node of this cluster loses whoever is cut from anybody
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SILENCE_S):
                await connections[dialer][0].read(1)
    reader, late = await dial(links.advertised("sa-1"), handshake("eu-1"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SILENCE_S):
            await reader.read(1)
    assert links.heal() == 4
    for _, writer in (*connections.values(), (reader, late)):
        writer.transport.abort()


async def test_one_way_is_one_way(links: ClusterLinks, target: Target) -> None:
    head = handshake("us-1")
    reader, writer = await dial(links.advertised("sa-1"), head)
    await echoed(reader, len(head))
    links.cut([("sa-1", "us-1")])
    writer.write(b"heard")
    async with asyncio.timeout(DEADLINE_S):
        while not any(mine.endswith(b"heard") for mine in target.received):  # noqa: ASYNC110 - it is another task's
            await asyncio.sleep(0.01)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SILENCE_S):
            await reader.read(1)
    writer.transport.abort()


@pytest.mark.parametrize("said", [b"x" * 40_000, b"GET /gossip HTTP/1.1\r\n"])
async def test_who_makes_no_handshake_reaches_nobody(links: ClusterLinks, target: Target, said: bytes) -> None:
    reader, writer = await dial(links.advertised("sa-1"), said)
    writer.write_eof()
    await ended(reader)
    assert target.received == []
    writer.transport.abort()


async def test_who_says_nothing_is_ended_with_the_links(links: ClusterLinks) -> None:
    reader, writer = await dial(links.advertised("sa-1"), b"GET")
    await asyncio.sleep(SILENCE_S)
    await links.stop()
    await ended(reader)
    writer.transport.abort()


async def test_a_node_that_is_forgotten_leaves_no_link(links: ClusterLinks, target: Target) -> None:
    await links.add("sa-10", target.address, joins=True)
    links.cut([("sa-1", "us-1"), ("sa-10", "us-1")])
    await links.remove("sa-1")
    assert links.cuts == {("sa-10", "us-1")}
    assert not [name for name in links.proxy.links if "sa-1" in name.split(">")]
    assert len([name for name in links.proxy.links if "sa-10" in name.split(">")]) == 5
    await links.add("sa-1", target.address)  # it may come again


async def test_a_node_that_moved_is_found(links: ClusterLinks) -> None:
    async with Target() as elsewhere:
        links.move("sa-1", elsewhere.address)
        for address in (links.advertised("sa-1"), links.address("us-1", "sa-1")):
            head = handshake("us-1")
            reader, writer = await dial(address, head)
            assert await echoed(reader, len(head)) == head
            writer.transport.abort()
        assert len(elsewhere.received) == 2


def test_nodes_say_who_dials() -> None:
    assert transport._DIALER == proxy_switch.DIALER
