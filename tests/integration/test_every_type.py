"""Every type of the catalogue on three real nodes: through a cut, a deadline and a restart, all regions read the same.

What each type must read is written down here by hand, for one short story that all of them go through: both sides have seen
``before``, then ``us`` and ``ap`` write without hearing each other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from crdtstore.types import REGISTRY
from crdtstore_client import Domain, HoldEnded, InsufficientRights, Op, Store, connect
from crdtstore_client.handles import Handle
from tests.integration.clusters import Api, running, until

pytestmark = pytest.mark.slow

FIELDS = {"address": "lww_map", "name": "lww_register", "note": "text", "tags": "aw_set", "visits": "counter"}
CUT = ("us", "ap")
Write = Callable[[Any], Op[Any]]


class Story(NamedTuple):
    """What is written before a cut and on both sides of it, and what all regions read then."""

    before: list[Write]
    us: list[Write]
    ap: list[Write]
    value: Any
    conflicts: int = 0
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed


def events(value: Any) -> Any:
    """A log without what a test cannot know beforehand."""
    is_log = isinstance(value, list) and any(isinstance(each, dict) for each in value)
    return [(event["id"], event["body"]) for event in value] if is_log else value


STORIES: dict[str, Story] = {
    "aw_set": Story(
        [lambda s: s.add("ann", "bob", 1, b"\x00")],
        [lambda s: s.remove("ann", "bob")],
        [lambda s: s.add("ann")],
        frozenset({"ann", 1, b"\x00"}),
    ),
    "bounded_counter": Story(
        [lambda s: s.grant(10), lambda s: s.transfer(4, "ap")],
        [lambda s: s.consume(5)],
        [lambda s: s.consume(3)],
        -3,
        options={"lower": -5},
    ),
    "counter": Story(
        [lambda s: s.add(5)], [lambda s: s.delete(), lambda s: s.add(1 << 80)], [lambda s: s.add(-2)], (1 << 80) - 2
    ),
    "dw_flag": Story([lambda s: s.enable()], [lambda s: s.enable()], [lambda s: s.disable()], False, 1),
    "event_log": Story(
        [lambda s: s.append("e-1", {"n": 1})],
        [lambda s: s.append("e-2", 2)],
        [lambda s: s.append("e-2", 3)],
        [("e-1", {"n": 1}), ("e-2", 2)],
        1,
    ),
    "ew_flag": Story([lambda s: s.enable()], [lambda s: s.disable()], [lambda s: s.enable()], True),
    "g_set": Story([lambda s: s.add("a")], [lambda s: s.add("b", 5)], [lambda s: s.add("b", "5")], {"a", "b", 5, "5"}),
    "lww_map": Story(
        [lambda s: s.set({"tier": "silver", "city": "Oslo", "old": 1})],
        [lambda s: s.unset("old"), lambda s: s.set({"tier": "gold"})],
        [lambda s: s.set({"tier": "bronze"})],
        {"tier": "bronze", "city": "Oslo"},
        1,
    ),
    "lww_register": Story(
        [lambda s: s.set("silver")],
        [lambda s: s.set("gold")],
        [lambda s: s.set({"a": [None, b"x"]})],
        {"a": [None, b"x"]},
        1,
    ),
    "max_register": Story([lambda s: s.set(50)], [lambda s: s.set(90)], [lambda s: s.set(70)], 90),
    "min_register": Story([lambda s: s.set("b")], [lambda s: s.set("a")], [lambda s: s.set("c")], "a"),
    "mv_register": Story(
        [lambda s: s.set("silver")], [lambda s: s.set("gold")], [lambda s: s.set("bronze")], ["gold", "bronze"], 1
    ),
    "or_map": Story(
        [lambda s: s.counter("visits").add(2), lambda s: s.aw_set("tags").add("new")],
        [
            lambda s: s.remove("visits"),
            lambda s: s.lww_register("name").set("Ada"),
            lambda s: s.text("note").insert(0, "hi"),
        ],
        [lambda s: s.counter("visits").add(3), lambda s: s.lww_map("address").set({"city": "Oslo"})],
        {"address": {"city": "Oslo"}, "name": "Ada", "note": "hi", "tags": frozenset({"new"}), "visits": 3},
        options={"fields": FIELDS},
    ),
    "rw_set": Story([lambda s: s.add("ann", "bob")], [lambda s: s.remove("ann")], [lambda s: s.add("ann")], {"bob"}, 1),
    "text": Story(
        [lambda s: s.insert(0, "a rainy day")],
        [lambda s: s.cut(2, 6)],
        [lambda s: s.insert(11, "!"), lambda s: s.insert(0, "ü ")],
        "ü a day!",
    ),
}


class World:
    """A client of each region, bound to it; ``shops`` are their sessions of one domain."""

    def __init__(self, api: Api, stores: dict[str, Store]) -> None:
        self.api = api
        self.shops: dict[str, Domain] = {region: store.domain("shop") for region, store in stores.items()}

    def handle(self, region: str, type_name: str, key: str = "k") -> Handle[Any]:
        return self.shops[region].collection(type_name, type_name, STORIES[type_name].options)[key]

    async def write(self, region: str, type_name: str, *writes: Write, key: str = "k") -> None:
        for write in writes:
            await write(self.handle(region, type_name, key))

    async def values(self, type_name: str, key: str = "k") -> list[Any]:
        return [events(await self.handle(region, type_name, key).get(consistency="local")) for region in self.shops]

    async def everywhere(self, type_name: str, expected: Any, key: str = "k") -> None:
        async def reads() -> bool:
            return await self.values(type_name, key) == [expected] * 3

        await until(
            reads, f"{type_name}/{key} is {expected!r:.200} everywhere, last {await self.values(type_name, key)}"
        )

    async def all_is_there(self) -> None:
        for type_name, story in STORIES.items():
            for region in self.shops:
                reading = await self.handle(region, type_name).read(consistency="local")
                assert (events(reading.value), reading.exists) == (story.value, True), (type_name, region)


async def test_every_type_through_a_cut_a_deadline_and_a_restart(tmp_path: Path) -> None:
    assert set(STORIES) == set(REGISTRY), "every type has its story"
    async with running(tmp_path) as api, AsyncExitStack() as stack:
        stores = {
            region: await stack.enter_async_context(connect(url, timeout=10.0))
            for region, url in api.cluster.urls.items()
        }
        world = World(api, stores)
        us, ap = world.shops["us"], world.shops["ap"]
        for type_name, story in STORIES.items():
            await us.declare(type_name, type_name, **story.options)
            await world.write("us", type_name, *story.before)
        await api.converge()
        await rights_move(world)

        api.cluster.partition("ap")
        for type_name, story in STORIES.items():
            await world.write("us", type_name, *story.us)
        for type_name, story in STORIES.items():
            await world.write("ap", type_name, *story.ap)
        await only_own_rights(world)
        deadlines_at = await deadlines(world)
        api.cluster.heal()
        await api.converge()
        await world.all_is_there()
        await conflicts_are_told(world)
        await have_ended(world, deadlines_at)

        hold = (await us.bounded_counter("bounded_counter")["held"].reserve(2, ttl=600)).value
        await us.aw_set("aw_set")["later"].expire(600)
        ends = (await us.aw_set("aw_set")["later"].read()).expires
        await api.converge()
        for region in CUT:
            await api.cluster.kill(region)
            await api.cluster.start(region)
        await api.converge()
        await world.all_is_there()
        assert [(await shop.aw_set("aw_set")["later"].read()).expires for shop in world.shops.values()] == [ends] * 3
        held = us.bounded_counter("bounded_counter")["held"]
        reading = await held.read()
        assert reading.rights is not None
        assert (reading.value, reading.rights.held) == (1, 2)
        assert reading.rights.here + sum(reading.rights.elsewhere.values()) == 6
        await held.confirm(hold.id)
        with pytest.raises(HoldEnded, match="was confirmed"):
            await held.release(hold.id)
        assert await world.values("text") == [STORIES["text"].value] * 3
        await ap.text("text")["k"].insert(8, " Go.")
        await world.everywhere("text", "ü a day! Go.")
        await api.converge()


async def rights_move(world: World) -> None:
    """Before the cut: eu spends what us holds, and asks for more than there is."""
    stock = world.shops["us"].bounded_counter("bounded_counter")["held"]
    await stock.grant(12)
    await world.api.converge()
    spent = await world.shops["eu"].bounded_counter("bounded_counter")["held"].consume(4)
    assert spent.value == 3, "12 of them above the bound of -5"
    await world.api.converge()  # ap counts what it has heard of
    with pytest.raises(InsufficientRights) as caught:
        await world.shops["ap"].bounded_counter("bounded_counter")["held"].consume(100)
    assert (caught.value.requested, caught.value.here) == (100, 0)
    assert sum(caught.value.by_region.values()) == 8
    everything = await stock.explain()
    assert ("granted",) in [write.at for write in everything.live]
    assert ("moved", "eu") in [write.at for write in everything.live]
    assert sum(write.value for write in everything.live if write.at == ("consumed",)) == 4
    await world.api.converge()


async def only_own_rights(world: World) -> None:
    """In the cut: ap has one left of its four, and what others hold is out of reach."""
    stock = world.shops["ap"].bounded_counter("bounded_counter")["k"]
    with pytest.raises(InsufficientRights, match=r"2 were asked for, this region holds the rights to 1; .*us 6"):
        await stock.consume(2)


async def deadlines(world: World) -> float:
    """In the cut: a key and fields that end; the later deadline of two counts. The time by which all have ended."""
    await world.write("us", "aw_set", lambda s: s.add("x"), lambda s: s.expire(1.0), key="soon")
    await world.write(
        "us", "lww_map", lambda s: s.set({"a": 1, "b": 2}), lambda s: s.expire(1.0, fields=["a"]), key="soon"
    )
    await world.write("us", "or_map", lambda s: s.counter("visits").add(7), key="soon")
    await world.write(
        "us", "or_map", lambda s: s.counter("visits").expire(1.0), lambda s: s.aw_set("tags").add("t"), key="soon"
    )
    await world.write("us", "text", lambda s: s.insert(0, "short"), lambda s: s.expire(0.5), key="soon")
    await world.write("ap", "text", lambda s: s.insert(0, "long"), lambda s: s.expire(600), key="soon")
    return time.monotonic() + 1.0


async def have_ended(world: World, ended_at: float) -> None:
    """After the heal: gone everywhere, and a write begins anew."""
    await asyncio.sleep(max(0.0, ended_at - time.monotonic()))
    for type_name, left in (("aw_set", frozenset()), ("lww_map", {"b": 2}), ("or_map", {"tags": frozenset({"t"})})):
        assert await world.values(type_name, "soon") == [left] * 3
    lasting = await world.handle("us", "text", "soon").read()
    assert sorted(lasting.value) == sorted("shortlong"), "the latest deadline counts"
    assert lasting.expires is not None
    await world.write("eu", "aw_set", lambda s: s.add("y"), key="soon")
    await world.everywhere("aw_set", frozenset({"y"}), "soon")
    assert (await world.handle("eu", "aw_set", "soon").read()).expires is None, "nor is its deadline there any more"


async def conflicts_are_told(world: World) -> None:
    """In each region: who lost, in the list, in the reading and in the explanation."""
    lost = {type_name: story.conflicts for type_name, story in STORIES.items() if story.conflicts}
    lost.pop("rw_set")  # it is over once all regions have both
    for region, shop in world.shops.items():
        found = {each.type: each.conflicts async for each in shop.conflicts() if each.key == "k"}
        found.pop("rw_set", None)
        assert found == lost, region
        for type_name, number in lost.items():
            handle = world.handle(region, type_name)
            assert (await handle.read(consistency="local")).conflicts == number
            explained = await handle.explain()
            assert {write.region for write in explained.live} >= set(CUT), (type_name, region)
            assert all(write.counts for write in explained.live) == (type_name == "mv_register")
