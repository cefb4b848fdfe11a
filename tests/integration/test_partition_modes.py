"""Real nodes and everything a network does to them: cut whole, one way and in part, flapping, slow, thin, reset, doubled.

In every mode all regions take writes all the time, nothing is lost, and when the network is itself again all regions hold the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from crdtstore.testing.proxy_pipe import end
from tests.integration.clusters import (
    Api,
    Books,
    check_books,
    group_of,
    peer_of,
    received_twice,
    running,
    until,
    writing,
)

pytestmark = pytest.mark.slow

ADDRESSES = [f"shop/orders/{key}" for key in ("de", "fr", "jp")]
FAULT_S = 2.0
REGIONS = ("us", "eu", "ap")

Fault = Callable[[Api], Awaitable[None]]


async def run_under(api: Api, fault: Fault) -> tuple[Books, dict[str, Any]]:
    """Write everywhere before, during and after a fault; converge, check, and return the books and all statuses."""
    await api.declare("us", "shop", orders="counter", tags="aw_set")
    async with writing(api, REGIONS, ADDRESSES) as by_region:
        await asyncio.sleep(0.3)
        await fault(api)
        await asyncio.sleep(0.3)
    statuses = await api.converge()
    books = Books.joined(by_region.values())
    assert (books.refused, books.unknown, books.not_sent) == ([], {}, 0)
    for region, each in by_region.items():
        assert len(each.dots) > 20, f"{region} took few writes"
        assert await check_books(api, region, books) == []
    assert all(status["gossip"]["rejected"] == 0 for status in statuses.values())
    return books, statuses


async def values(api: Api, address: str) -> list[Any]:
    return [await api.value(region, address) for region in REGIONS]


async def test_whole_cut(tmp_path: Path) -> None:
    async def fault(api: Api) -> None:
        api.cluster.partition("ap")
        for region in REGIONS:
            assert (await api.write(region, "shop/tags/side", op="add", elements=[region])).status == 200

        async def us_has_eu() -> bool:
            return bool(await api.value("us", "shop/tags/side") == ["eu", "us"])

        await until(us_has_eu, "us and eu still hear each other")
        await asyncio.sleep(FAULT_S)
        assert await values(api, "shop/tags/side") == [["eu", "us"], ["eu", "us"], ["ap"]]
        api.cluster.heal()

    async with running(tmp_path) as api:
        _, statuses = await run_under(api, fault)
        assert await values(api, "shop/tags/side") == [["ap", "eu", "us"]] * 3
        assert received_twice(statuses) < 0.1


async def test_cut_that_keeps_connections(tmp_path: Path) -> None:
    """What was held flows on at the heal, over the old connections."""

    async def fault(api: Api) -> None:
        api.cluster.partition("ap")
        await asyncio.sleep(FAULT_S)
        assert api.cluster.heal(reset=False) == 0

    async with running(tmp_path) as api:
        _, statuses = await run_under(api, fault)
        assert received_twice(statuses) < 0.2


@pytest.mark.parametrize(("source", "target"), [("us", "ap"), ("ap", "us")])
async def test_one_way_cut_is_gone_around(tmp_path: Path, source: str, target: str) -> None:
    """``target`` hears ``source`` by way of eu, before the heal."""

    async def fault(api: Api) -> None:
        await asyncio.sleep(0.3)
        api.cluster.one_way(source, target)
        await asyncio.sleep(0.1)
        assert (await api.write(source, "shop/tags/side", op="add", elements=["said"])).status == 200

        async def is_there() -> bool:
            return bool(await api.value(target, "shop/tags/side") == ["said"])

        await until(is_there, "the third region relays", 10.0)
        await asyncio.sleep(FAULT_S)
        api.cluster.heal()

    async with running(tmp_path) as api:
        _, statuses = await run_under(api, fault)
        assert received_twice(statuses) < 0.3


async def test_partial_cut_is_gone_around(tmp_path: Path) -> None:
    """us and eu do not hear each other, both hear ap: everything is everywhere within seconds, while the cut lasts."""
    lags_s: list[float] = []

    async def fault(api: Api) -> None:
        api.cluster.partition_pair("us", "eu")
        for number in range(3):
            element = f"e{number}"
            assert (await api.write("us", "shop/tags/side", op="add", elements=[element])).status == 200
            begun = time.monotonic()

            async def is_there(element: str = element) -> bool:
                return element in await api.value("eu", "shop/tags/side")

            await until(is_there, f"ap relays {element} to eu", 10.0)
            lags_s.append(time.monotonic() - begun)
        assert api.cluster.cuts == [("eu", "us"), ("us", "eu")]
        await asyncio.sleep(FAULT_S)
        statuses = await api.statuses()
        assert peer_of(statuses["us"], "eu")["heard_ms"] > 2_000
        assert group_of(statuses["us"], "shop")["staleness_ms"] < 5_000, "what eu did is known by way of ap"
        api.cluster.heal()

    async with running(tmp_path) as api:
        _, statuses = await run_under(api, fault)
        assert max(lags_s) < 5.0
        assert received_twice(statuses) < 0.3
        assert statuses["ap"]["gossip"]["commits_relayed"] > 0


async def test_flapping_link(tmp_path: Path) -> None:
    async def fault(api: Api) -> None:
        for number in range(8):
            api.cluster.partition("ap")
            await asyncio.sleep(0.15)
            api.cluster.heal(reset=number % 2 == 0)
            await asyncio.sleep(0.25)

    async with running(tmp_path) as api:
        _, statuses = await run_under(api, fault)
        assert received_twice(statuses) < 0.3


async def test_delay_and_jitter(tmp_path: Path) -> None:
    async def fault(api: Api) -> None:
        for link in api.cluster.proxy.links.values():
            link.delay(80, 80)
        await asyncio.sleep(FAULT_S)

    async with running(tmp_path) as api:
        _, statuses = await run_under(api, fault)
        assert received_twice(statuses) < 0.05
        assert peer_of(statuses["us"], "eu")["round_trip_ms"] is not None


async def test_throttled_link(tmp_path: Path) -> None:
    async def fault(api: Api) -> None:
        for link in api.cluster.proxy.links.values():
            link.throttle(8_000)
        big = "x" * 30_000
        assert (await api.write("us", "shop/tags/big", op="add", elements=[big])).status == 200
        await asyncio.sleep(FAULT_S)
        api.cluster.proxy.clear()

    async with running(tmp_path) as api:
        _, statuses = await run_under(api, fault)
        assert [len(value[0]) for value in await values(api, "shop/tags/big")] == [30_000] * 3
        assert received_twice(statuses) < 0.5


async def test_reset_storm(tmp_path: Path) -> None:
    async def fault(api: Api) -> None:
        resets = 0
        async with asyncio.timeout(30):  # nodes dial less often the more often a connection breaks at once
            while resets <= 30:
                resets += sum(link.reset() for link in api.cluster.proxy.links.values())
                await asyncio.sleep(0.07)

    async with running(tmp_path) as api:
        _, statuses = await run_under(api, fault)
        assert received_twice(statuses) < 0.5


async def test_doubled_streams(tmp_path: Path) -> None:
    """All that is said by the side that dials is said twice, from its hello on."""

    async def fault(api: Api) -> None:
        for link in api.cluster.proxy.links.values():
            link.duplicate()
            link.reset()
        await asyncio.sleep(FAULT_S)
        assert sum(link.counters.copies for link in api.cluster.proxy.links.values()) > 0
        api.cluster.proxy.clear()
        for link in api.cluster.proxy.links.values():
            link.reset()

    async with running(tmp_path) as api:
        _, statuses = await run_under(api, fault)
        assert received_twice(statuses) < 0.5


async def test_end_of_a_connection_that_is_closed_already() -> None:
    """uvloop, on which nodes and these tests run, has no socket to show then."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        writer.close()
        await writer.wait_closed()
        end(writer, reset=True)
