"""Rights that must not be made twice, holds that must not be undone: where their requests go, and what a block leaves behind."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from crdtstore_client import (
    BoundedCounter,
    CrdtStoreError,
    HoldEnded,
    InsufficientRights,
    OutcomeUnknown,
    ReplicaBehind,
    Unavailable,
    connect,
)
from tests.client.fakes import AP, EU, US, FakeCluster


@dataclass
class Shop:
    cluster: FakeCluster
    stock: BoundedCounter

    @property
    def asked(self) -> list[tuple[str, str]]:
        """Where which op was sent."""
        return [(seen.url, seen.body["ops"][0]["op"]) for seen in self.cluster.writes]  # type: ignore[index]


@pytest_asyncio.fixture
async def shop() -> AsyncIterator[Shop]:
    cluster = FakeCluster()
    async with connect(*cluster.urls, transport=cluster, timeout=0.5) as store:
        domain = store.domain("shop")
        await domain.declare("stock", "bounded_counter")
        for node in store._link.nodes:
            node.distance, node.region = node.position, node.url.removeprefix("http://")
        yield Shop(cluster, domain.bounded_counter("stock")["sku-7"])


def no_rights(here: int) -> InsufficientRights:
    return InsufficientRights("too few. Nothing changed.", here=here, requested=5)


# --- grants


@pytest.mark.parametrize("fault", ["lost", "lost after", Unavailable("?", code="internal")])
async def test_a_grant_that_may_have_arrived_is_repeated_there_only(shop: Shop, fault: Any) -> None:
    shop.cluster.fail(US, fault)
    ack = await shop.stock.grant(5)
    assert (ack.value, ack.replayed) == (5, fault == "lost after")
    assert shop.asked == [(US, "grant")] * 2
    assert len({write.id for write in shop.cluster.writes}) == 1


@pytest.mark.parametrize("fault", ["refused", Unavailable("not ready. Nothing changed.")])
async def test_a_grant_that_cannot_have_arrived_goes_elsewhere(shop: Shop, fault: Any) -> None:
    shop.cluster.fail(US, fault)
    assert (await shop.stock.grant(5)).value == 5
    assert shop.asked == [(US, "grant"), (EU, "grant")]


async def test_a_grant_of_unknown_outcome_names_the_region(shop: Shop) -> None:
    shop.cluster.fail(US, "lost", *["refused"] * 100)
    with pytest.raises(OutcomeUnknown, match=r"repeat it with id='~.*' at http://us \(us\) only") as caught:
        await shop.stock.grant(5)
    assert caught.value.op_id == shop.cluster.writes[0].id
    assert {url for url, _ in shop.asked} == {US}


async def test_a_grant_among_other_ops_stays_too(shop: Shop) -> None:
    shop.cluster.fail(US, "lost")
    domain = shop.stock._domain
    await domain.commit(shop.stock.grant(5), shop.stock.consume(2))
    await domain.commit(shop.stock.op("grant", amount=1))
    assert {url for url, _ in shop.asked} == {US}
    shop.cluster.fail(US, "lost")
    await shop.stock.consume(1)
    assert shop.asked[-1] == (EU, "consume")


# --- rights


async def test_rights_are_looked_for_in_each_region_once(shop: Shop) -> None:
    for url, here in ((US, 1), (EU, 2), (AP, 3)):
        shop.cluster.fail(url, no_rights(here))
    with pytest.raises(InsufficientRights) as caught:
        await shop.stock.consume(5)
    assert (caught.value.here, caught.value.requested) == (1, 5), "what the nearest region says"
    assert [url for url, _ in shop.asked] == [US, EU, AP]


async def test_a_region_with_rights_takes_it(shop: Shop) -> None:
    shop.cluster.fail(US, no_rights(1))
    await shop.stock.consume(5)
    assert [url for url, _ in shop.asked] == [US, EU]


async def test_a_node_may_look_for_rights_for_as_long_as_its_answer_still_arrives(shop: Shop) -> None:
    await shop.stock.consume(1)
    body = shop.cluster.writes[-1].body
    assert body is not None
    assert 0 < body["wait_ms"] < 500 / 3


async def test_too_few_rights_do_not_hide_a_lost_reply(shop: Shop) -> None:
    shop.cluster.fail(US, "lost")
    for url in (EU, AP):
        shop.cluster.fail(url, no_rights(0))
    with pytest.raises(OutcomeUnknown):
        await shop.stock.consume(5)


# --- holds


async def test_a_hold_is_ended_where_it_was_made_first(shop: Shop) -> None:
    shop.cluster.fail(US, "refused")
    async with shop.stock.reserve(2, ttl=60) as hold:
        assert (hold.id, hold.amount) == ("hold-0", 2)
    assert shop.asked == [(US, "reserve"), (EU, "reserve"), (EU, "confirm")]
    shop.cluster.fail(EU, ReplicaBehind("ap holds it. Nothing changed.", regions=["ap"], retry_after=0.1))
    await shop.stock.release("of another process")
    assert shop.asked[-2:] == [(EU, "release"), (AP, "release")]


async def leave(shop: Shop, error: Exception | None) -> None:
    async with shop.stock.reserve(2, ttl=60):
        if error is not None:
            raise error


async def test_what_goes_wrong_at_the_end_of_a_block_is_told(shop: Shop) -> None:
    shop.cluster.fail(US, None, HoldEnded("expired. Nothing changed.", outcome="expired"))
    with pytest.raises(HoldEnded):
        await leave(shop, None)
    shop.cluster.fail(US, None, *["lost"] * 100)
    shop.cluster.dead |= {EU, AP}
    with pytest.raises(OutcomeUnknown) as caught:
        await leave(shop, None)
    assert caught.value.op_id == shop.cluster.writes[-1].id
    assert shop.asked[-1] == (US, "confirm")


@pytest.mark.parametrize("failure", [HoldEnded("gone. Nothing changed."), Unavailable("no. Nothing changed.")])
async def test_a_release_that_fails_does_not_hide_why_the_block_ended(shop: Shop, failure: CrdtStoreError) -> None:
    shop.cluster.dead |= {EU, AP}
    shop.cluster.fail(US, None, *[failure] * 100)
    with pytest.raises(ZeroDivisionError) as caught:
        await leave(shop, ZeroDivisionError("ours"))
    notes = getattr(caught.value, "__notes__", [])
    if isinstance(failure, HoldEnded):
        assert notes == []
    else:
        assert notes == ["the hold hold-0 was not released and ends by itself (not-ready: no. Nothing changed.)"]


async def test_a_confirm_of_unknown_outcome_is_never_undone(shop: Shop) -> None:
    shop.cluster.dead |= {EU, AP}

    async def confirm_in_the_block() -> None:
        async with shop.stock.reserve(2, ttl=60) as hold:
            shop.cluster.fail(US, *["lost after"] * 100)
            try:
                await hold.confirm()
            finally:
                shop.cluster.faults.clear()

    with pytest.raises(OutcomeUnknown):
        await confirm_in_the_block()
    assert "release" not in {op for _, op in shop.asked}
    with pytest.raises(OutcomeUnknown):
        await leave(shop, OutcomeUnknown("of another write", op_id="x"))
    assert shop.asked[-1] == (US, "release")


async def test_a_release_that_the_block_asked_for_is_not_followed_by_a_confirm(shop: Shop) -> None:
    async with shop.stock.reserve(2, ttl=60) as hold:
        shop.cluster.fail(US, Unavailable("no", retryable=False))
        with pytest.raises(Unavailable):
            await hold.release()
    assert shop.asked == [(US, "reserve"), (US, "release")]


async def test_a_reserve_of_unknown_outcome_can_be_repeated(shop: Shop) -> None:
    shop.cluster.fail(US, *["lost after"] * 100)
    shop.cluster.dead |= {EU, AP}
    with pytest.raises(OutcomeUnknown) as caught:
        async with shop.stock.reserve(2, ttl=60):
            pytest.fail("nobody knows whether anything is held")
    shop.cluster.faults.clear()
    ack = await shop.stock._domain.commit(shop.stock.reserve(2, ttl=60), id=caught.value.op_id)
    assert ack.replayed
    assert ack.value[0].id == "hold-0"
    await ack.value[0].release()
