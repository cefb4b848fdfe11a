"""Every type through its handle, against the production engine: what is written, what comes back, in which form."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict
from uuid import UUID

import pytest

from crdtstore.types import REGISTRY
from crdtstore_client import Conflict, Domain, UsageError, connect
from tests.client.regions import FIELDS, Regions, elsewhere

BIG = 1 << 80


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
