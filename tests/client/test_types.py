"""Every type through its handle, against the production engine: what is written, what comes back, in which form."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict
from uuid import UUID

import pytest
import pytest_asyncio

from crdtstore.types import REGISTRY
from crdtstore_client import Conflict, Domain, HoldEnded, InsufficientRights, Rights, Store, UsageError, connect
from tests.client.regions import Regions

BIG = 1 << 80
FIELDS = {"name": "lww_register", "tags": "aw_set", "visits": "counter", "more": "or_map"}


@pytest.fixture
def regions() -> Regions:
    return Regions()


@pytest_asyncio.fixture
async def store(regions: Regions) -> AsyncIterator[Store]:
    async with connect("http://us", transport=regions) as store:
        shop = store.domain("shop")
        for name in REGISTRY:
            await shop.declare(name, name)
        await shop.declare("customers", "or_map", fields=FIELDS)
        await regions.settle()
        yield store


@pytest.fixture
def shop(store: Store) -> Domain:
    return store.domain("shop")


def elsewhere(regions: Regions, region: str) -> Domain:
    """The same domain in a session of its own in another region."""
    return connect(f"http://{region}", transport=regions).domain("shop")


# --- one key of each type


async def test_registers(shop: Domain) -> None:
    best = shop.max_register("max_register")["c"]
    assert await best.get() is None
    assert [(await best.set(value)).value for value in (3, BIG, 7)] == [3, BIG, BIG]
    with pytest.raises(UsageError, match="invalid-value"):
        await best.set("text")
    least = shop.min_register("min_register")["c"]
    assert [(await least.set(value)).value for value in ("m", "z", "a")] == ["m", "m", "a"]

    first = shop.min_register("min_register", datetime)["first"]
    seen = datetime(2026, 1, 5, 10, tzinfo=UTC)
    assert (await first.set(seen)).value == seen
    assert (await first.set(seen + timedelta(days=1))).value == seen
    assert await first.get() == seen


async def test_concurrent_values_are_all_there(regions: Regions, shop: Domain) -> None:
    here, there = shop.mv_register("mv_register")["tier"], elsewhere(regions, "eu").mv_register("mv_register")["tier"]
    assert await here.get() == []
    with regions.apart():
        assert (await here.set("gold")).value == ["gold"]
        regions.later()
        await there.set({"n": [1]})
    await regions.settle()
    reading = await here.read()
    assert (reading.value, reading.conflicts) == (["gold", {"n": [1]}], 1)
    assert (await here.set("silver")).value == ["silver"]


async def test_flags(regions: Regions, shop: Domain) -> None:
    yes, no = shop.ew_flag("ew_flag")["f"], shop.dw_flag("dw_flag")["f"]
    assert (await yes.get(), await no.get()) == (False, False)
    assert ((await yes.enable()).value, (await no.enable()).value) == (True, True)
    await regions.settle()
    there = elsewhere(regions, "ap")
    with regions.apart():
        await there.ew_flag("ew_flag")["f"].enable()
        await there.dw_flag("dw_flag")["f"].enable()
        assert ((await yes.disable()).value, (await no.disable()).value) == (False, False)
    await regions.settle()
    assert (await yes.get(), await no.get()) == (True, False)


async def test_sets(regions: Regions, shop: Domain) -> None:
    for name in ("g_set", "aw_set", "rw_set"):
        handle = shop.collection(name, name)["s"]
        await handle.op("add", elements=["x", 7, "7", b"\x00", BIG])
        assert await handle.get() == frozenset(["x", 7, "7", b"\x00", BIG])
    await regions.settle()
    there = elsewhere(regions, "eu")
    with regions.apart():
        for name in ("aw_set", "rw_set"):
            await shop.collection(name, name)["s"].op("remove", elements=["x"])
            await there.collection(name, name)["s"].op("add", elements=["x"])
    await regions.settle()
    assert "x" in await shop.aw_set("aw_set")["s"].get()
    assert "x" not in await shop.rw_set("rw_set")["s"].get()

    ids = shop.g_set("g_set", UUID)["ids"]
    one = UUID(int=1)
    await ids.add(one)
    assert await ids.get() == {one}
    assert [await ids.has(each) for each in (one, UUID(int=2))] == [True, False]


async def test_text(regions: Regions, shop: Domain) -> None:
    page = shop.text("text")["page"]
    assert await page.get() == ""
    await page.insert(0, "Hello wörld\n日本")
    await regions.settle()
    with regions.apart():
        await page.cut(0, 5)
        await elsewhere(regions, "eu").text("text")["page"].insert(14, "!")
    await regions.settle()
    assert await page.get() == " wörld\n日本!"


async def test_deleting(shop: Domain) -> None:
    kept = set()
    for name, crdt in REGISTRY.items():
        handle = shop.collection(name, name)["gone"]
        if crdt.deletable:
            assert (await handle.delete()).value is None
        else:
            with pytest.raises(UsageError, match="not-deletable"):
                handle.delete()
            assert not hasattr(handle, "expire")
            kept.add(name)
    assert kept == {"g_set", "event_log", "bounded_counter"}


# --- expiry


async def test_keys_and_fields_end_by_themselves(shop: Domain) -> None:
    cart = shop.aw_set("aw_set")["cart"]
    await cart.add("milk")
    assert (await cart.read()).expires is None
    assert (await cart.expire(timedelta(hours=1))).value is None
    ends = (await cart.read()).expires
    assert ends is not None
    assert 3590 < (datetime.fromisoformat(ends) - datetime.now(UTC)).total_seconds() < 3601
    await cart.expire(None)
    assert (await cart.read()).expires is None
    await cart.expire(0.05)
    assert await cart.get() == {"milk"}
    await asyncio.sleep(0.06)
    reading = await cart.read()
    assert (reading.value, reading.exists) == (frozenset(), False)

    record = shop.lww_map("lww_map")["c-42"]
    await record.set({"name": "Ada", "code": "1234"})
    await record.expire(600, fields=["code"])
    with_end = await record.read()
    assert (with_end.expires, list(with_end.field_expires)) == (None, ["code"])
    await record.expire(0.05, fields=["code"])
    await asyncio.sleep(0.06)
    assert await record.get() == {"name": "Ada"}


@pytest.mark.parametrize("ttl", ["3600", True, float("nan"), float("inf"), -1, 0, 0.0001, b""])
def test_a_time_to_live_that_is_none(ttl: Any) -> None:
    shop = connect("http://us", transport=Regions()).domain("shop")
    for op in (shop.counter("counter")["c"].expire, shop.lww_map("m")["c"].expire):
        with pytest.raises(UsageError, match=r"ttl.*, got .*Nothing changed"):
            op(ttl)
    with pytest.raises(UsageError, match=r"fields must be a list .*Nothing changed"):
        shop.lww_map("m")["c"].expire(1, fields="name")


# --- maps of anything


class Customer(TypedDict, total=False):
    name: str
    tags: frozenset[str]
    visits: int


@pytest.mark.parametrize("collection", ["or_map", "customers"])
async def test_fields_of_a_map(shop: Domain, regions: Regions, collection: str) -> None:
    alice = shop.or_map(collection, fields=FIELDS if collection == "customers" else None)["c-42"]
    assert await alice.get() == {}
    visits, tags = alice.counter("visits"), alice.aw_set("tags")
    assert (await visits.get(), await tags.get(), await alice.lww_register("name").get()) == (0, frozenset(), None)
    assert not (await visits.read()).exists

    await shop.commit(visits.add(2), tags.add("vip", "new"), alice.lww_register("name").set("Alice"))
    await visits.add(-1)
    await tags.remove("new")
    assert [await each.get() for each in (visits, tags, alice.lww_register("name"))] == [1, {"vip"}, "Alice"]
    value: Any = await alice.get()
    is_declared = collection == "customers"
    assert value == {"name": "Alice", "tags": {"vip"} if is_declared else ["vip"], "visits": 1}
    typed = shop.or_map(collection, Customer)["c-42"]
    assert await typed.get() == {"name": "Alice", "tags": {"vip"}, "visits": 1}

    deep = alice.or_map("more").or_map("again").counter("a:b")
    await deep.add(5)
    assert await deep.get() == 5
    assert (await alice.or_map("more").get()) == {"again": {"a:b": 5}}
    await deep.delete()
    assert await deep.get() == 0

    await regions.settle()
    with regions.apart():
        await elsewhere(regions, "eu").or_map(collection)["c-42"].counter("visits").add(10)
        await alice.remove("visits")
    await regions.settle()
    assert await visits.get() == 10, "a removed field keeps what others wrote meanwhile"
    await tags.expire(0.05)
    await asyncio.sleep(0.06)
    assert await tags.get() == frozenset()


async def test_the_requests_of_fields(shop: Domain) -> None:
    pairs, names = shop.or_map("or_map")["c"], shop.or_map("customers", fields=FIELDS)["c"]
    for op, path in (
        (pairs.counter("visits").add(), [["visits", "counter"]]),
        (names.counter("visits").add(), ["visits"]),
        (names.or_map("more").counter("visits").expire(1), ["more", ["visits", "counter"]]),
        (names.or_map("more").delete(), ["more"]),
    ):
        op.discard()
        assert op.fields["path"] == path


async def test_fields_that_were_not_declared(shop: Domain) -> None:
    named = shop.or_map("customers", fields=FIELDS)["c"]
    with pytest.raises(UsageError, match="declares no field 'age' of type counter: there are more, name, tags, visits"):
        named.counter("age")
    with pytest.raises(UsageError, match="declares no field 'visits' of type aw_set: it is a counter"):
        named.aw_set("visits")
    for op in (
        shop.or_map("customers")["c"].counter("age").add(),
        shop.or_map("customers")["c"].aw_set("visits").add("x"),
    ):
        with pytest.raises(UsageError, match="Nothing changed"):
            await op
    unsaid = shop.or_map("or_map", fields={"age": "counter"})["c"]
    with pytest.raises(UsageError, match="Nothing changed"):
        await unsaid.counter("age").add()  # nothing was declared, and the node says so
    with pytest.raises(UsageError, match="a bounded_counter cannot stand in a map"):
        unsaid.field("x", "bounded_counter")
    with pytest.raises(UsageError, match="there is no type 'set'"):
        unsaid.field("x", "set")
    with pytest.raises(UsageError, match="a field's name must be text"):
        unsaid.counter(7)  # type: ignore[arg-type]


async def test_two_types_under_one_name(regions: Regions, shop: Domain) -> None:
    here = shop.or_map("or_map")["c"]
    await here.lww_register("x").set("text")
    await elsewhere(regions, "eu").or_map("or_map")["c"].counter("x").add(3)
    await regions.settle()
    reading = await here.read()
    assert (reading.value, reading.conflicts) == ({"x": 3}, 1)
    assert await here.counter("x").get() == 3
    with pytest.raises(UsageError, match="two types share that name"):
        await here.text("x").get()
    explanation = await here.lww_register("x").explain()
    assert [(write.value, write.counts, write.at) for write in explanation.live] == [("text", False, ())]
    with pytest.raises(UsageError, match="type-mismatch: shop/counter is declared as counter, not as or_map"):
        await shop.or_map("counter")["c"].counter("x").get()


# --- large keys


async def test_members_page_by_page(shop: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crdtstore_client.domain.PAGE", 3)
    elements: list[Any] = [-BIG, 5, 7, "5", "a", "b", "b/c?", b"\x00"]
    for name in ("g_set", "aw_set", "rw_set"):
        handle = shop.collection(name, name)["s"]
        await handle.op("add", elements=elements)
        assert [element async for element in handle.members()] == elements  # type: ignore[attr-defined]
    tags = shop.aw_set("aw_set")["s"]
    assert [element async for element in tags.members(after="a")] == ["b", "b/c?", b"\x00"]
    assert [element async for element in tags.members(after=5)] == [7, "5", "a", "b", "b/c?", b"\x00"]
    assert [await tags.has(element) for element in (5, "5", "7", b"\x00", b"")] == [True, True, False, True, False]
    assert [element async for element in shop.aw_set("aw_set")["never"].members()] == []

    record = shop.lww_map("lww_map")["m"]
    await record.set({name: name * 2 for name in "abcdefg"})
    assert [item async for item in record.members(after="b")] == [(name, name * 2) for name in "cdefg"]

    log = shop.event_log("event_log")["l"]
    for number in range(7):
        await log.append(f"e-{number}", number)
    assert [event["body"] async for event in log.members()] == list(range(7))
    assert [event["id"] async for event in log.members(after="e-4")] == ["e-5", "e-6"]

    alice = shop.or_map("customers", fields=FIELDS)["m"]
    await alice.aw_set("tags").add("vip")
    for name in ("visits", "more"):
        await (alice.counter(name).add() if name == "visits" else alice.or_map(name).counter("x").add())
    assert [item async for item in alice.members()] == [("more", {"x": 1}), ("tags", {"vip"}), ("visits", 1)]
    assert [item async for item in alice.members(after="more")] == [("tags", {"vip"}), ("visits", 1)]
    with pytest.raises(UsageError, match="only whole keys are paged"):
        [element async for element in alice.aw_set("tags").members()]
    with pytest.raises(UsageError, match="only members of whole keys are looked up"):
        await alice.aw_set("tags").has("vip")


# --- what stands behind a value


async def test_explain(regions: Regions, shop: Domain) -> None:
    tier = shop.lww_register("lww_register")["tier"]
    there = elsewhere(regions, "eu")
    with regions.apart():
        await shop.commit(tier.set("silver"), reason="first")
        regions.later()
        ack = await there.commit(there.lww_register("lww_register")["tier"].set("gold"), reason="upgrade")
    regions.cut = {"ap"}
    for _ in range(1000):
        regions.tick()
        if await tier.get() == "gold":
            break
        await asyncio.sleep(0.005)
    explanation = await tier.explain()
    assert (explanation.value, explanation.type, explanation.is_truncated) == ("gold", "lww_register", False)
    assert "ap" in explanation.not_yet_in
    wins, lost = explanation.live
    assert (wins.value, wins.dot, wins.region, wins.reason, wins.counts) == ("gold", ack.dot, "eu", "upgrade", True)
    assert (lost.value, lost.region, lost.reason, lost.counts) == ("silver", "us", "first", False)
    assert datetime.fromisoformat(lost.time) < datetime.fromisoformat(wins.time)
    assert [conflict async for conflict in shop.conflicts()] == [
        Conflict(collection="lww_register", key="tier", type="lww_register", conflicts=1)
    ]
    assert (await tier.explain(limit=1)).is_truncated
    with pytest.raises(UsageError, match="type-mismatch"):
        await shop.counter("lww_register")["tier"].explain()


async def test_explain_below_a_key(shop: Domain) -> None:
    alice = shop.or_map("or_map")["c"]
    await alice.aw_set("tags").add("vip", 7)
    await alice.counter("visits").add(3)
    everything = await alice.explain()
    assert [write.at for write in everything.live] == [
        (("tags", "aw_set"), 7),
        (("tags", "aw_set"), "vip"),
        (("visits", "counter"),),
    ]
    tags = await alice.aw_set("tags").explain()
    assert (tags.type, [write.at for write in tags.live]) == ("aw_set", [(7,), ("vip",)])
    assert tags.value == {"vip", 7}


async def test_conflicts_page_by_page(regions: Regions, shop: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crdtstore_client.domain.PAGE", 2)
    assert [conflict async for conflict in shop.conflicts()] == []
    there = elsewhere(regions, "eu")
    with regions.apart():
        await shop.declare("clash", "counter")
        await there.declare("clash", "aw_set")
        for number in range(5):
            for domain in (shop, there):
                await domain.lww_register("lww_register")[f"k/{number}"].set(domain is shop)
    await regions.settle()
    found = [conflict async for conflict in shop.conflicts()]
    assert (found[0].collection, found[0].key, found[0].conflicts) == ("clash", None, 1)
    assert {found[0].type, *found[0].also} == {"counter", "aw_set"}
    assert [conflict.key for conflict in found[1:]] == [f"k/{number}" for number in range(5)]
    assert [conflict.key async for conflict in shop.conflicts(after="lww_register/k/2")] == ["k/3", "k/4"]


# --- bounded counters


async def test_rights(regions: Regions, shop: Domain) -> None:
    stock = shop.bounded_counter("bounded_counter")["sku-7"]
    assert (await stock.get(), (await stock.read()).rights) == (0, Rights(0, 0, {"eu": 0, "ap": 0}))
    assert (await stock.grant(10)).value == 10
    assert (await stock.transfer(4, to="eu")).value == 10
    assert (await stock.consume(1)).value == 9
    await regions.settle()
    assert (await stock.read()).rights == Rights(here=5, held=0, elsewhere={"eu": 4, "ap": 0})
    with pytest.raises(InsufficientRights) as caught:
        await stock.consume(100)
    refused = caught.value
    assert (refused.requested, refused.here, refused.elsewhere) == (100, 5, 4)
    assert refused.by_region == {"eu": 4, "ap": 0}
    with pytest.raises(UsageError, match="to must name another region"):
        await stock.transfer(1, to="mars")
    assert await stock.get() == 9


async def test_a_hold_is_confirmed_at_the_end_of_its_block(shop: Domain) -> None:
    stock = shop.bounded_counter("bounded_counter")["sku-7"]
    await stock.grant(10)
    async with stock.reserve(2, ttl=timedelta(minutes=15)) as hold:
        assert hold.id
        assert hold.amount == 2
        rights = (await stock.read()).rights
        assert rights is not None
        assert (rights.here, rights.held) == (8, 2)
    assert await stock.get() == 8
    with pytest.raises(HoldEnded):
        await hold.release()


async def test_a_hold_is_released_on_an_exception(shop: Domain) -> None:
    stock = shop.bounded_counter("bounded_counter")["sku-7"]
    await stock.grant(10)
    with pytest.raises(ZeroDivisionError):
        async with stock.reserve(2, ttl=60):
            _ = 1 // 0
    rights = (await stock.read()).rights
    assert rights is not None
    assert (rights.here, rights.held) == (10, 0)
    with pytest.raises(InsufficientRights):
        async with stock.reserve(11, ttl=60):
            pytest.fail("nothing was held")


async def test_a_block_may_end_its_hold_itself(shop: Domain) -> None:
    stock = shop.bounded_counter("bounded_counter")["sku-7"]
    await stock.grant(10)

    async def fail_after_confirming() -> None:
        async with stock.reserve(1, ttl=60) as hold:
            await hold.confirm()
            raise ZeroDivisionError

    async with stock.reserve(1, ttl=60) as hold:
        assert (await hold.confirm()).value == 9
    async with stock.reserve(1, ttl=60) as hold:
        await hold.release()
    async with stock.reserve(1, ttl=60) as hold:
        await stock.confirm(hold.id)
    with pytest.raises(ZeroDivisionError):
        await fail_after_confirming()
    rights = (await stock.read()).rights
    assert rights is not None
    assert (rights.here, rights.held) == (7, 0)

    ack = await stock.reserve(3, ttl=60)
    assert (await stock.release(ack.value.id)).value == 7
    with pytest.raises(HoldEnded):
        await ack.value.confirm()


async def test_a_block_that_takes_longer_than_its_hold(shop: Domain) -> None:
    stock = shop.bounded_counter("bounded_counter")["sku-7"]
    await stock.grant(10)
    with pytest.raises(HoldEnded):
        async with stock.reserve(1, ttl=0.02):
            await asyncio.sleep(0.04)


async def test_a_hold_is_ended_in_the_region_that_holds(regions: Regions, shop: Domain) -> None:
    stock = shop.bounded_counter("bounded_counter")["sku-7"]
    await stock.grant(10)
    ack = await stock.reserve(2, ttl=60)
    await regions.settle()
    async with connect("http://eu", "http://us", transport=regions) as far:
        counter = far.domain("shop").bounded_counter("bounded_counter")["sku-7"]
        assert (await counter.confirm(ack.value.id)).value == 8
