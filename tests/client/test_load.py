"""Declarations, listings and loads."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from crdtstore_client import Domain, Op, Unavailable, UsageError, connect
from crdtstore_client.load import IN_FLIGHT
from tests.client.fakes import US, FakeCluster


async def open_shop(cluster: FakeCluster) -> Domain:
    shop = (await connect(US, transport=cluster)).domain("shop")
    await shop.declare("orders", "counter")
    await shop.declare("names", "lww_register")
    return shop


async def test_declaring_makes_the_domain_once() -> None:
    cluster = FakeCluster()
    shop = await open_shop(cluster)
    await shop.declare("orders", "counter")
    assert [seen.path for seen in cluster.seen] == [
        "/v1/domains/shop",
        "/v1/domains/shop/collections/orders",
        "/v1/domains/shop/collections/names",
        "/v1/domains/shop/collections/orders",
    ]
    assert cluster.seen[1].body == {"type": "counter", "options": {}}
    with pytest.raises(UsageError, match="type-mismatch"):
        await shop.declare("orders", "aw_set")
    with pytest.raises(UsageError, match="type-mismatch"):
        await shop.declare("orders", "counter", grow_only=True)
    assert (await shop.describe("orders"))["type"] == "counter"


async def test_items_and_keys_come_in_pages_in_order() -> None:
    cluster = FakeCluster()
    shop = await open_shop(cluster)
    orders = shop.counter("orders")
    await shop.load(orders[f"k{n:04}"].add(n) for n in range(1250))
    cluster.seen.clear()
    found = [(key, value) async for key, value in orders.items()]
    assert found == [(f"k{n:04}", n) for n in range(1250)]
    assert [seen.query.get("after") for seen in cluster.seen] == [None, "k0499", "k0999"]
    assert [key async for key in orders.keys(prefix="k124", after="k1245")] == ["k1246", "k1247", "k1248", "k1249"]
    assert [key async for key in shop.lww_register("names").keys(prefix="")] == []


async def test_a_load_counts_reports_and_merges_neighbours() -> None:
    cluster = FakeCluster()
    shop = await open_shop(cluster)
    cluster.seen.clear()
    orders = shop.counter("orders")
    reports: list[int] = []
    ops = [*(orders["a"].add() for _ in range(250)), *(orders[f"b{n}"].add() for n in range(50))]
    assert await shop.load(ops, progress=reports.append) == 300
    assert len(cluster.writes) == 3 + 50
    assert reports[-1] == 300
    assert reports == sorted(reports)
    assert await orders["a"].get() == 250


async def test_a_load_keeps_the_order_of_a_key_and_takes_no_more_than_it_can_send() -> None:
    cluster = FakeCluster(delays={US: 0.002})
    shop = await open_shop(cluster)
    names = shop.lww_register("names")
    taken = sent = most = 0

    async def source() -> AsyncIterator[Op[int]]:
        nonlocal taken, most
        for n in range(400):
            taken += 1
            most = max(most, taken - sent)
            yield names[f"k{n % 7}" if n % 2 else f"u{n}"].set(n)

    def count(done: int) -> None:
        nonlocal sent
        sent = done

    assert await shop.load(source(), progress=count) == 400
    assert most <= IN_FLIGHT + 2
    for key in range(7):
        assert await names[f"k{key}"].get() == max(n for n in range(400) if n % 2 and n % 7 == key)


async def test_the_first_error_ends_a_load() -> None:
    cluster = FakeCluster()
    shop = await open_shop(cluster)
    orders = shop.counter("orders")
    cluster.fail(US, *[None] * 100, UsageError("no", code="invalid-op"))
    made = 0

    def source() -> "AsyncIterator[Op[int]]":
        async def ops() -> AsyncIterator[Op[int]]:
            nonlocal made
            while True:
                made += 1
                yield orders[f"k{made}"].add()

        return ops()

    with pytest.raises(UsageError, match="invalid-op") as caught:
        await shop.load(source())
    assert "ops of this load are durable" in caught.value.__notes__[0]
    assert 100 <= made <= 100 + 2 * IN_FLIGHT


async def test_a_cancelled_load_leaves_nothing_running() -> None:
    cluster = FakeCluster(delays={US: 0.01})
    shop = await open_shop(cluster)
    before = asyncio.all_tasks()
    task = asyncio.create_task(shop.load(shop.counter("orders")[f"k{n}"].add() for n in range(10_000)))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() <= before


async def test_a_failing_source_ends_a_load() -> None:
    shop = await open_shop(FakeCluster())

    def source() -> "list[Op[int]]":
        raise Unavailable("the source is gone")

    with pytest.raises(Unavailable, match="the source is gone"):
        await shop.load(source())
