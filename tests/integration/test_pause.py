"""A node that stands still for ten seconds (SIGSTOP): connections stay open, nobody answers, nobody else waits for it.

The links have a round trip of 200 ms, so a write that waited for another region would be seen to.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import pytest

from tests.integration.clusters import Books, check_books, group_of, peer_of, running, until, writing

pytestmark = pytest.mark.slow

PAUSE_S = 10.0
ONE_WAY_MS = 100.0
LOCAL_S = 0.1
"""A write that waits for nobody takes milliseconds; one that waits for another region takes twice this."""
ADDRESSES = [f"shop/orders/{key}" for key in ("de", "fr", "jp")]


async def test_nobody_waits_for_a_node_that_stands_still_and_nothing_is_lost(tmp_path: Path) -> None:
    async with running(tmp_path) as api:
        cluster = api.cluster
        for link in cluster.proxy.links.values():
            link.delay(ONE_WAY_MS)
        await api.declare("us", "shop", orders="counter")
        async with (
            writing(api, ["us", "ap"], ADDRESSES, pause_s=0.05) as awake,
            writing(api, ["eu"], ADDRESSES, pause_s=0.05, timeout_s=1.0) as paused,
        ):
            await asyncio.sleep(1.0)
            await cluster.pause("eu")
            begun, written = time.monotonic(), {region: len(books.dots) for region, books in awake.items()}
            for books in awake.values():
                books.latencies_s.clear()

            for waited_s in (PAUSE_S / 2, PAUSE_S - 0.5):
                await asyncio.sleep(begun + waited_s - time.monotonic())
                # eu spoke last when it was paused, up to a delay and a heartbeat before; it counts from there, whatever becomes
                # of the connection.
                for region in ("us", "ap"):
                    status = await api.ask(region, "/v1/status")
                    heard_ms = peer_of(status, "eu")["heard_ms"]
                    assert (waited_s - 1) * 1000 <= heard_ms <= (waited_s + 2) * 1000
                    assert group_of(status, "shop")["staleness_ms"] >= (waited_s - 1) * 1000
                    assert group_of(status, "shop")["unacked"] > 0
                    assert status["ready"]
                    other = {"us": "ap", "ap": "us"}[region]
                    assert peer_of(status, other)["heard_ms"] < 2_000
            assert peer_of(await api.ask("us", "/v1/status"), "eu")["state"] == "down", "silence was taken for presence"
            await asyncio.sleep(begun + PAUSE_S - time.monotonic())
            for region, books in awake.items():
                assert len(books.dots) - written[region] > PAUSE_S * 5, f"{region} took few writes"
                assert statistics.median(books.latencies_s) < LOCAL_S, f"{region} waited for others"
            cluster.resume("eu")

            async def eu_takes_writes() -> bool:
                before = len(paused["eu"].dots)
                await asyncio.sleep(0.2)
                return len(paused["eu"].dots) > before + 1

            await until(eu_takes_writes, "eu takes writes again")
        statuses = await api.converge()
        books = Books.joined([*awake.values(), *paused.values()])
        assert books.refused == []
        assert awake["us"].unknown == awake["ap"].unknown == {}
        assert paused["eu"].unknown, "eu was asked for writes while it stood still"
        for region in cluster.regions:
            assert await check_books(api, region, books) == []
            assert group_of(statuses[region], "shop")["behind"] == 0
