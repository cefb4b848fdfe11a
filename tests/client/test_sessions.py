"""A session never reads back in time, in any region, or is told who can serve; and a retry counts once, in any region.

The production engine and request rules in memory; only the wire is a double.
"""

import asyncio
import json
import random
from typing import Any

import pytest
from click.testing import CliRunner

from crdtstore.cli import main
from crdtstore.types import REGISTRY
from crdtstore_client import Domain, OutcomeUnknown, ReplicaBehind, Response, Store, UsageError, connect
from tests.client.regions import REGIONS, Regions


async def open_all(regions: Regions, **options: Any) -> dict[str, Store]:
    """One store per region, each talking to its own node only."""
    return {name: await connect(f"http://{name}", transport=regions, **options) for name in REGIONS}


async def declared(regions: Regions) -> None:
    async with connect("http://us", transport=regions) as store:
        for name in REGISTRY:
            await store.domain("shop").declare(name, name)
    await regions.settle()


async def test_a_token_from_elsewhere_is_waited_for() -> None:
    regions = Regions()
    await declared(regions)
    stores = await open_all(regions)
    regions.cut = {"eu"}
    ack = await stores["us"].domain("shop").counter("counter")["de"].add(3)
    elsewhere = stores["eu"].session(ack.token).domain("shop").counter("counter")["de"]
    reading = asyncio.create_task(elsewhere.get())
    await asyncio.sleep(0.05)
    assert not reading.done()
    regions.cut = set()
    assert await reading == 3


async def test_whoever_cannot_serve_says_who_can_and_the_client_goes_there() -> None:
    regions = Regions()
    await declared(regions)
    stores = await open_all(regions, timeout=0.3)
    regions.cut = {"ap"}
    await regions_agree(regions, "us", "eu")
    ack = await stores["us"].domain("shop").counter("counter")["de"].add(3)
    with pytest.raises(ReplicaBehind, match=r"regions that can serve|no region is known"):
        await stores["ap"].session(ack.token).domain("shop").counter("counter")["de"].get()
    local = stores["ap"].session(ack.token)
    assert await local.domain("shop").counter("counter")["de"].get(consistency="local") == 0
    assert ack.token in local.token.split(",")  # what was seen before is not forgotten
    async with connect("http://ap", "http://us", transport=regions, token=ack.token, timeout=3) as both:
        for node in both._link.nodes:
            node.distance = node.position  # ap is the nearest
        reading = await both.domain("shop").counter("counter")["de"].read()
        assert (reading.value, reading.region) == (3, "us")


async def regions_agree(regions: Regions, *names: str) -> None:
    for _ in range(20):
        regions.tick()
        await asyncio.sleep(0.002)


async def test_a_declaration_is_seen_by_its_session_everywhere() -> None:
    regions = Regions()
    async with connect("http://us", transport=regions) as us:
        await us.domain("crm").declare("tier", "lww_register")
        async with connect("http://eu", transport=regions, token=us.token) as eu:
            ack = await eu.domain("crm").lww_register("tier", str)["c-42"].set("gold")
            assert ack.value == "gold"


@pytest.mark.parametrize("seed", range(10))
async def test_a_session_that_roams_never_reads_back_in_time(seed: int) -> None:
    """A counter that only grows, sessions that hop between regions, links that come and go."""
    rng = random.Random(seed)
    regions = Regions()
    await declared(regions)
    stores = await open_all(regions, timeout=0.4)
    tokens = ["", ""]
    seen = [0, 0]
    refused = 0
    for _ in range(40):
        if rng.random() < 0.2:
            regions.cut = {rng.choice(REGIONS)} if rng.random() < 0.5 else set()
        who = rng.randrange(2)
        session = stores[rng.choice(REGIONS)].session(tokens[who])
        handle = session.domain("shop").counter("counter")["de"]
        try:
            if rng.random() < 0.5:
                ack = await handle.add(1)
                assert ack.value > seen[who]
                seen[who] = ack.value
            else:
                value = await handle.get()
                assert value >= seen[who]
                seen[who] = value
        except ReplicaBehind:
            refused += 1
            regions.cut = set()
        tokens[who] = session.token
    regions.cut = set()
    await regions.settle()


async def test_requests_side_by_side_lose_nothing_of_the_session() -> None:
    regions = Regions()
    await declared(regions)
    async with connect("http://us", transport=regions) as store:
        shop = store.domain("shop")
        counters = shop.counter("counter")
        await asyncio.gather(*(counters[f"k{n}"].add(n) for n in range(100)))
        await asyncio.gather(*(counters[f"k{n}"].get() for n in range(100)))
        assert len(store.token.split(",")) <= 3
        token = store.token
    async with connect("http://eu", transport=regions, token=token) as store:
        counters = store.domain("shop").counter("counter")
        assert [await counters[f"k{n}"].get() for n in range(100)] == list(range(100))


async def test_a_retry_in_another_region_counts_once() -> None:
    regions = Regions()
    await declared(regions)
    regions.cut = {"us"}
    regions.lost_replies = {"us": 1}
    async with connect("http://us", "http://eu", transport=regions, timeout=3) as store:
        for node in store._link.nodes:
            node.distance = node.position
        ack = await store.domain("shop").counter("counter")["de"].add(5)
        assert ack.dot.startswith("eu-1.")
        await store.domain("shop").aw_set("aw_set")["de"].add("x")
    regions.cut = set()
    await regions.settle()
    for store in (await open_all(regions)).values():
        assert await store.domain("shop").counter("counter")["de"].get() == 5


async def test_an_unknown_outcome_is_settled_by_its_id() -> None:
    regions = Regions()
    await declared(regions)
    stores = await open_all(regions, timeout=0.2)
    shop = stores["us"].domain("shop")
    regions.lost_replies = {"us": 1000}
    with pytest.raises(OutcomeUnknown) as caught:
        await shop.counter("counter")["de"].add(5)
    regions.lost_replies = {}
    elsewhere = stores["ap"].domain("shop")
    ack = await elsewhere.commit(elsewhere.counter("counter")["de"].add(5), id=caught.value.op_id)
    assert ack.replayed
    await regions.settle()
    assert await shop.counter("counter")["de"].get() == 5
    with pytest.raises(UsageError, match="key-reused"):
        await elsewhere.commit(elsewhere.counter("counter")["de"].add(6), id=caught.value.op_id)


async def test_all_types_end_to_end() -> None:
    regions = Regions()
    await declared(regions)
    stores = await open_all(regions)
    us, eu = stores["us"].domain("shop"), stores["eu"].domain("shop")
    big = 1 << 2000
    assert (await us.counter("counter")["big"].add(big)).value == big
    await us.aw_set("aw_set")["s"].add("a", 7, b"\xff")
    await us.lww_map("lww_map")["m"].set({"name": "Ada", "n": None})
    await us.event_log("event_log")["l"].append("e1", {"x": [1, 2.5]})
    await us.lww_register("lww_register")["r"].set(["x", {"$y": b"\0"}])
    await regions.settle()
    assert await eu.counter("counter")["big"].get() == big
    assert await eu.aw_set("aw_set")["s"].get() == {"a", 7, b"\xff"}
    assert await eu.lww_map("lww_map")["m"].get() == {"name": "Ada", "n": None}
    events = await eu.event_log("event_log")["l"].get()
    assert [(event["id"], event["body"]) for event in events] == [("e1", {"x": [1, 2.5]})]
    assert await eu.lww_register("lww_register")["r"].get() == ["x", {"$y": b"\0"}]
    assert [item async for item in eu.counter("counter").items()] == [("big", big)]
    assert (await us.counter("counter")["big"].delete()).value is None
    await regions.settle()
    assert not (await eu.counter("counter")["big"].read()).exists


async def test_load_end_to_end() -> None:
    regions = Regions()
    await declared(regions)
    async with connect(*regions.urls, transport=regions) as store:
        shop = store.domain("shop")
        ops = [shop.counter("counter")[f"k{n % 300}"].add(n) for n in range(900)]
        assert await shop.load(ops) == 900
        total = sum([value async for _, value in shop.counter("counter").items(prefix="k")])
        assert total == sum(range(900))


async def _wrong(shop: Domain) -> None:
    await shop.counter("nothing")["x"].add(1)


async def test_refusals_come_through_in_the_words_of_the_node() -> None:
    regions = Regions()
    await declared(regions)
    async with connect("http://us", transport=regions) as store:
        with pytest.raises(UsageError, match=r"not-declared: the collection shop/nothing is not declared in region us"):
            await _wrong(store.domain("shop"))
        with pytest.raises(UsageError, match="not-declared"):
            await store.domain("never").counter("x")["y"].get()
        with pytest.raises(UsageError, match="type-mismatch"):
            await store.domain("shop").declare("counter", "aw_set")
        with pytest.raises(UsageError, match="foreign-token"):
            await store.session("abc").domain("shop").counter("counter")["x"].get()
        with pytest.raises(UsageError, match="how many other regions"):
            await store.domain("shop").commit(store.domain("shop").counter("counter")["x"].add(), regions=3)
        for key in ("..", "a\x00b", "x" * 513):
            with pytest.raises(UsageError, match="a key "):
                await store.domain("shop").counter("counter")[key].get()
        await store.domain("shop").declare("grows", "counter", grow_only=True)
        with pytest.raises(UsageError, match="amount must not be negative"):
            await store.domain("shop").counter("grows")["x"].add(-1)


def test_the_command_line_over_real_nodes() -> None:
    regions = Regions()

    def run(*args: str) -> str:
        result = CliRunner().invoke(main, ["--url", ",".join(regions.urls), *args], obj={"transport": regions})
        assert result.exit_code == 0, (result.stderr, result.exception)
        return result.stdout

    run("declare", "shop/orders", "counter")
    asyncio.run(regions.settle())
    regions.cut = {"ap"}
    assert run("--region", "us", "add", "shop/orders/de", "3") == "3\n"
    assert run("--region", "ap", "add", "shop/orders/de", "4") == "4\n"
    assert run("--region", "us", "get", "shop/orders/de").startswith("3")
    table = run("status")
    assert "diverged: " in table
    assert "ap lacks 1 commit of us" in table or "us, eu lack 1" in table
    regions.cut = set()
    asyncio.run(regions.settle())
    assert run("--region", "us", "get", "shop/orders/de") == "7\n"
    assert "converged: all regions hold the same " in run("status")
    assert json.loads(run("status", "--json"))["verdict"] == "converged"


class SideBySide(Regions):
    """All that is asked in one turn is under way before anything is answered."""

    async def request(self, *address: Any, **given: Any) -> Response:
        await asyncio.sleep(0)
        return await super().request(*address, **given)


async def test_writes_side_by_side_in_several_shards_are_all_remembered() -> None:
    """Each shard has commits of its own: a later one of another shard says nothing about an earlier one."""
    regions = SideBySide()
    async with connect("http://us", transport=regions) as store:
        shop = store.domain("shop")
        await shop.declare_domain(shards=8)
        await shop.declare("counter", "counter")
        await regions.settle()
        regions.cut = {"eu"}
        counters = shop.counter("counter")
        for _ in range(3):
            await asyncio.gather(*(counters[f"k{n}"].add(1) for n in range(24)))
        token = store.token
        assert len(token.split(",")) <= 8
    async with connect("http://eu", transport=regions, timeout=1.0) as store:
        counters = store.session(token).domain("shop").counter("counter")
        found = await asyncio.gather(*(counters[f"k{n}"].get() for n in range(24)), return_exceptions=True)
        assert all(isinstance(each, ReplicaBehind) for each in found), found
