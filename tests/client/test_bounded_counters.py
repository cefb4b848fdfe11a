"""Bounded counters through their handle, against the production engine: rights, and holds as blocks of code."""

import asyncio
from datetime import timedelta

import pytest

from crdtstore_client import Domain, HoldEnded, InsufficientRights, Rights, UsageError, connect
from tests.client.regions import Regions


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
