"""The Python client against three real nodes: values of every kind, sessions and retries across regions, a node killed under it."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from crdtstore.testing.processes import LocalCluster
from crdtstore_client import ReplicaBehind, Store, UsageError, connect
from tests.integration.clusters import Api, group_of, running, until

pytestmark = pytest.mark.slow

TYPES = ["aw_set", "counter", "event_log", "lww_map", "lww_register"]
BIG = 1 << 80
KEYS = ["de", "a/b:c", "100%", "%2F", "münchen", "日本", "a b+c", "?x=1#y", "...", "-3", "{}"]


@dataclasses.dataclass(frozen=True)
class Customer:
    name: str
    tags: list[str]


@asynccontextmanager
async def far_regions(cluster: LocalCluster, near: str, delay_ms: float = 60.0) -> AsyncIterator[list[str]]:
    """Urls of all regions, of which ``near`` is the nearest by measured round trip."""
    async with AsyncExitStack() as stack:
        urls = []
        for region in cluster.regions:
            if region == near:
                urls.append(cluster.url(region))
                continue
            link = await cluster.proxy.add(f"users of {near}>{region}", cluster.node(region).address)
            stack.push_async_callback(link.stop)
            link.delay(delay_ms)
            urls.append("http://{}:{}".format(*link.address))
        yield urls


async def everywhere(api: Api, address: str, expected: Any) -> None:
    async def is_there() -> bool:
        return [await api.value(region, address) for region in api.cluster.regions] == [expected] * 3

    await until(is_there, f"{address} is {expected!r:.100} everywhere")


async def test_values_of_every_kind_go_round_the_world(tmp_path: Path) -> None:
    async with (
        running(tmp_path) as api,
        connect(api.cluster.url("us")) as us,
        connect(api.cluster.url("ap")) as ap,
    ):
        here, there = us.domain("shop"), ap.session().domain("shop")
        for type_name in TYPES:
            await here.declare(type_name, type_name)
        await api.declare("us", "shop", **{type_name: type_name for type_name in TYPES})

        ack = await here.counter("counter")["big"].add(BIG)
        assert (ack.value, ack.replayed, ack.durable_in) == (BIG, False, ("us",))
        assert (await here.counter("counter")["big"].add(-1)).value == BIG - 1
        await everywhere(api, "shop/counter/big", BIG - 1)

        elements = {"x", "1", 1, -BIG, b"\x00\xff", "ü"}
        members = here.aw_set("aw_set")["tags"]
        await members.add(*elements)
        await members.remove("x", 7)
        await members.add(BIG)

        register = here.lww_register("lww_register", Customer)["c-42"]
        assert (await register.set(Customer("Ada", ["vip"]))).value == Customer("Ada", ["vip"])
        odd = {"big": BIG, "bytes": b"\x00", "none": None, "half": 0.5, "$bytes": "no bytes", "deep": [[[]], {}]}
        await here.lww_register("lww_register")["odd"].set(odd)

        record = here.lww_map("lww_map")["c-42"]
        await record.set({"name": "Ada", "visits": BIG, "old": True})
        await record.unset("old", "never")

        log = here.event_log("event_log")["week"]
        first = await log.append("e-1", {"n": BIG})
        await log.append("e-1", "the same id again")
        await log.append("e-2")
        with pytest.raises(UsageError, match="cannot be deleted"):
            log.delete()

        gone = here.counter("counter")["gone"]
        await gone.add(5)
        await gone.delete()
        last = await here.counter("counter")["last"].add()

        elsewhere = ap.session(token=last.token).domain("shop")
        assert await elsewhere.counter("counter")["last"].get() == 1
        assert await elsewhere.counter("counter")["big"].get() == BIG - 1
        assert await elsewhere.aw_set("aw_set")["tags"].get() == (elements - {"x"}) | {BIG}
        assert await elsewhere.lww_register("lww_register", Customer)["c-42"].get() == Customer("Ada", ["vip"])
        assert await elsewhere.lww_register("lww_register")["odd"].get() == odd
        assert await elsewhere.lww_map("lww_map")["c-42"].get() == {"name": "Ada", "visits": BIG}
        events = await elsewhere.event_log("event_log")["week"].get()
        assert [(event["id"], event["body"]) for event in events] == [("e-1", {"n": BIG}), ("e-2", None)]
        assert events[0]["dot"] == first.dot
        reading = await elsewhere.counter("counter")["gone"].read()
        assert (reading.value, reading.exists, reading.region) == (0, False, "ap")
        assert await there.lww_register("lww_register")["never"].get() is None
        await api.converge()


async def test_keys_of_any_characters_and_many_of_them(tmp_path: Path) -> None:
    async with running(tmp_path, ["us", "eu"]) as api, connect(*api.cluster.urls.values()) as store:
        await api.declare("us", "shop", orders="counter")
        orders = store.domain("shop").counter("orders")
        for amount, key in enumerate(KEYS, 1):
            assert (await orders[key].add(amount)).value == amount, key
        assert [key async for key in orders.keys(after="")] == sorted(KEYS, key=str.encode)
        assert {key: value async for key, value in orders.items()} == {key: at for at, key in enumerate(KEYS, 1)}
        for key in (".", "..", "a\nb", "x" * 513):
            with pytest.raises(UsageError, match="Nothing changed"):
                await orders[key].add()

        counts: list[int] = []
        names = [f"k/{number:04}" for number in range(700)]
        ops = (orders[name].add(number) for number, name in itertools.chain(*(enumerate(names, 1) for _ in range(2))))
        assert await store.domain("shop").load(ops, progress=counts.append) == 1400
        assert counts == sorted(counts)
        assert counts[-1] == 1400
        found = [item async for item in orders.items(prefix="k/")]
        assert found == [(name, 2 * number) for number, name in enumerate(names, 1)]
        assert [item async for item in orders.items(prefix="k/", after="k/0697")] == found[698:]
        await api.converge()


async def test_a_session_finds_a_region_that_can_serve_it(tmp_path: Path) -> None:
    """ap is the nearest and cut off; us has what the session wrote, and ap can say so without hearing it."""
    async with running(tmp_path) as api, connect(api.cluster.url("us")) as writer:
        await api.declare("us", "shop", orders="counter")
        await api.converge()
        async with far_regions(api.cluster, "ap") as urls, connect(*urls) as near_ap:
            api.cluster.partition("ap")
            ack = await writer.domain("shop").counter("orders")["de"].add(3)

            async with connect(api.cluster.url("ap"), token=ack.token, timeout=1.5) as only_ap:
                with pytest.raises(ReplicaBehind) as caught:
                    await only_ap.domain("shop").counter("orders")["de"].get()
                assert caught.value.regions == ["us"]
                assert await only_ap.domain("shop").counter("orders")["de"].get(consistency="local") == 0

            fresh, bound = near_ap.session(), near_ap.session(token=ack.token)
            assert near_ap.region == "ap"
            reading = await fresh.domain("shop").counter("orders")["de"].read()
            assert (reading.value, reading.region) == (0, "ap"), "a session that saw nothing is served at once"
            reading = await bound.domain("shop").counter("orders")["de"].read()
            assert (reading.value, reading.region) == (3, "us")
            written = await bound.domain("shop").counter("orders")["de"].add(4)
            assert written.value == 7, "a write follows what its session has read"

            api.cluster.heal()

            async def ap_serves() -> bool:
                reading = await near_ap.session(token=written.token).domain("shop").counter("orders")["de"].read()
                assert reading.value == 7
                return reading.region == "ap"

            await until(ap_serves, "ap serves the session after the heal")
        await api.converge()


async def test_one_id_counts_once_in_all_regions(tmp_path: Path) -> None:
    async with running(tmp_path) as api, AsyncExitStack() as stack:
        await api.declare("us", "shop", orders="counter", tags="aw_set", profile="lww_register")
        stores: dict[str, Store] = {
            region: await stack.enter_async_context(connect(url)) for region, url in api.cluster.urls.items()
        }
        shops = {region: store.domain("shop") for region, store in stores.items()}
        orders = {region: shop.counter("orders")["de"] for region, shop in shops.items()}

        first = await shops["us"].commit(orders["us"].add(3), id="order-1")
        await api.converge()
        again = await shops["ap"].commit(orders["ap"].add(3), id="order-1")
        assert (again.value, again.replayed, again.dot) == ([3], True, first.dot)
        with pytest.raises(UsageError, match="Nothing changed") as caught:
            await shops["eu"].commit(orders["eu"].add(4), id="order-1")
        assert caught.value.code == "key-reused"

        api.cluster.partition("ap")
        for region in ("us", "ap", "us"):
            await shops[region].commit(orders[region].add(10), id="order-2")
        await shops["us"].commit(shops["us"].lww_register("profile")["c"].set("first"), id="set-1")
        await shops["us"].lww_register("profile")["c"].set("second")
        api.cluster.heal()
        await api.converge()
        await everywhere(api, "shop/orders/de", 13)
        await shops["eu"].commit(shops["eu"].lww_register("profile")["c"].set("first"), id="set-1")
        await api.converge()
        await everywhere(api, "shop/profile/c", "second")


async def test_a_node_killed_under_load_changes_no_count(tmp_path: Path) -> None:
    """The nearest node is killed: the client goes on in the next region, and what it sent twice counts once."""
    async with running(tmp_path) as api:
        await api.declare("us", "shop", orders="counter")
        killed = asyncio.Event()
        async with far_regions(api.cluster, "us") as urls, connect(*urls, timeout=10.0) as store:
            shop = store.domain("shop")
            orders = shop.counter("orders")
            assert (await orders["k0"].add(0)).durable_in == ("us",)
            acked: list[str] = []
            ended = asyncio.Event()

            async def write() -> None:
                while not ended.is_set():
                    acked.append((await orders["single"].add(1)).dot)

            async def kill() -> None:
                await killed.wait()
                await api.cluster.kill("us")

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(kill())
                writers = [tasks.create_task(write()) for _ in range(4)]
                ops = (orders[f"k{number % 40}"].add(1) for number in range(1200))
                assert await shop.load(ops, progress=lambda done: killed.set() if done > 300 else None) == 1200
                assert api.cluster.node("us").state == "killed"
                ended.set()
                await asyncio.gather(*writers)
            assert len(acked) == len(set(acked))
        await api.cluster.start("us")
        statuses = await api.converge()
        assert len(group_of(statuses["eu"], "shop")["vector"]) == 3
        for region in api.cluster.regions:
            assert await api.value(region, "shop/orders/single") == len(acked)
            listed = await api.ask(region, "/v1/data/shop/orders?prefix=k&values=true")
            assert [item["value"] for item in listed["items"]] == [30] * 40
