"""When the client asks again, where, under which id, for how long, and what it says at the end."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from crdtstore.errors import CODES, AccessError, CrdtStoreError
from crdtstore_client import (
    Domain,
    NotReplicated,
    OutcomeUnknown,
    PreconditionFailed,
    ReplicaBehind,
    Response,
    Store,
    Unavailable,
    UsageError,
    connect,
    traceparent,
)
from crdtstore_client.ops import new_op_id
from tests.client.fakes import AP, EU, US, FakeCluster


async def open_shop(cluster: FakeCluster, *urls: str, timeout: float = 2.0, **options: Any) -> tuple[Store, Domain]:  # noqa: ASYNC109
    store = await connect(*(urls or cluster.urls), transport=cluster, timeout=timeout, **options)
    shop = store.domain("shop")
    await shop.declare("orders", "counter")
    await until(lambda: all(node.region for node in store._link.nodes))
    if not cluster.delays:
        for node in store._link.nodes:
            node.distance = node.position  # us is the nearest, however busy this machine is
    cluster.seen.clear()
    return store, shop


async def until(condition: Callable[[], bool], seconds: float = 3.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.001)


async def test_the_nearest_node_first() -> None:
    cluster = FakeCluster(delays={US: 0.05, EU: 0.0, AP: 0.1})
    store, shop = await open_shop(cluster)
    assert store.region == "eu"
    await shop.counter("orders")["de"].add()
    assert [seen.url for seen in cluster.seen] == [EU]
    await store.close()


@pytest.mark.parametrize("fault", ["refused", "lost", "lost after"])
async def test_a_write_is_repeated_elsewhere_under_the_same_id_and_counts_once(fault: str) -> None:
    store, shop = await open_shop(cluster := FakeCluster())
    cluster.fail(US, fault)
    ack = await shop.counter("orders")["de"].add(3)
    assert [seen.url for seen in cluster.writes] == [US, EU]
    first, second = cluster.writes
    assert first.id == second.id
    assert str(first.id).startswith("~")
    assert first.body["ops"] == second.body["ops"]  # type: ignore[index]
    assert ack.replayed == (fault == "lost after")
    assert await shop.counter("orders")["de"].get() == 3
    await store.close()


async def test_each_write_has_its_own_id_and_users_may_give_one() -> None:
    store, shop = await open_shop(cluster := FakeCluster())
    orders = shop.counter("orders")
    await orders["de"].add()
    await orders["de"].add()
    assert cluster.writes[0].id != cluster.writes[1].id
    await shop.commit(orders["de"].add(5), id="order 981")
    ack = await shop.commit(orders["de"].add(5), id="order 981")
    assert ack.replayed
    assert ack.value == [7]
    assert cluster.writes[-1].id == "order 981"
    await store.close()


@pytest.mark.parametrize("code", sorted(code for code, row in CODES.items() if row.status >= 400))
async def test_only_what_may_succeed_is_repeated(code: str) -> None:
    store, shop = await open_shop(cluster := FakeCluster())
    row = CODES[code]
    cluster.fail(US, row.error("no", code=code))
    if row.retryable:
        ack = await shop.counter("orders")["de"].add()
        assert ack.value == 1
        assert [seen.url for seen in cluster.writes] == [US, EU]
    else:
        with pytest.raises(row.error) as caught:
            await shop.counter("orders")["de"].add()
        assert caught.value.code == code
        assert [seen.url for seen in cluster.writes] == [US]
    await store.close()


async def test_a_write_that_waits_for_a_full_disk_is_not_said_to_have_changed_nothing() -> None:
    """The first answer says that it takes effect when there is room, the later ones only that they did nothing themselves."""
    store, shop = await open_shop(cluster := FakeCluster(), US, timeout=0.4)
    waits = Unavailable("no space left", code="storage-full", retry_after=0.1)
    waits.effect = "unknown"
    cluster.fail(US, waits, *(Unavailable("no space left", code="storage-full", retry_after=0.1) for _ in range(50)))
    with pytest.raises(OutcomeUnknown) as raised:
        await shop.counter("orders")["de"].add()
    assert raised.value.op_id == cluster.writes[0].id
    await store.close()


async def test_the_problem_itself_says_whether_it_may_be_repeated() -> None:
    store, shop = await open_shop(cluster := FakeCluster())
    cluster.fail(US, UsageError("not yet here", code="not-declared", retryable=True))
    assert await shop.counter("orders")["de"].get() == 0
    assert [seen.url for seen in cluster.seen] == [US, EU]
    await store.close()


async def test_nothing_sent_is_unavailable() -> None:
    cluster = FakeCluster(dead={US, EU})
    store = connect(US, EU, transport=cluster, timeout=0.15)
    begun = time.monotonic()
    with pytest.raises(
        Unavailable, match=r"no answer from http://us, http://eu within 0.15 s .*Nothing changed"
    ) as caught:
        await store.domain("shop").counter("orders")["de"].add()
    assert caught.value.code == "unreachable"
    assert caught.value.effect == "none"
    assert time.monotonic() - begun < 0.5
    await store.close()


async def test_a_write_that_may_have_arrived_is_unknown_and_carries_its_id() -> None:
    store, shop = await open_shop(cluster := FakeCluster(), timeout=0.3)
    cluster.fail(US, "lost after")
    cluster.dead |= {EU, AP}
    cluster.fail(US, *["refused"] * 100)
    with pytest.raises(OutcomeUnknown) as caught:
        await shop.counter("orders")["de"].add(3)
    assert caught.value.effect == "unknown"
    op_id = caught.value.op_id
    assert op_id == cluster.writes[0].id
    cluster.faults.clear()
    ack = await shop.commit(shop.counter("orders")["de"].add(3), id=op_id)
    assert ack.replayed
    assert await shop.counter("orders")["de"].get() == 3
    await store.close()


async def test_a_lost_read_is_no_mystery() -> None:
    store, shop = await open_shop(cluster := FakeCluster(), US, timeout=0.1)
    cluster.fail(US, *["lost"] * 100)
    with pytest.raises(Unavailable, match="Nothing changed"):
        await shop.counter("orders")["de"].get()
    await store.close()


async def test_a_lost_declaration_may_simply_be_repeated() -> None:
    store, shop = await open_shop(cluster := FakeCluster(), US, timeout=0.1)
    cluster.fail(US, *["lost"] * 100)
    with pytest.raises(OutcomeUnknown, match="repeating it is safe"):
        await shop.declare("more", "counter")
    await store.close()


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (PreconditionFailed("changed meanwhile"), OutcomeUnknown),
        (AccessError("not you"), OutcomeUnknown),
        (UsageError("expired", code="key-expired"), OutcomeUnknown),
        (UsageError("no such op", code="invalid-op"), UsageError),
    ],
)
async def test_a_refusal_after_a_lost_reply(error: CrdtStoreError, raised: type[CrdtStoreError]) -> None:
    """What lies in the state of a region says nothing about the attempt before; what lies in the request does."""
    store, shop = await open_shop(cluster := FakeCluster())
    cluster.fail(US, "lost")
    cluster.fail(EU, error)
    with pytest.raises(raised):
        await shop.counter("orders")["de"].add()
    await store.close()


async def test_a_silent_node_does_not_use_up_the_deadline() -> None:
    store, shop = await open_shop(cluster := FakeCluster(), timeout=0.9)
    cluster.delays[US] = 60.0
    begun = time.monotonic()
    assert (await shop.counter("orders")["de"].add()).value == 1
    assert 0.2 < time.monotonic() - begun < 0.6
    begun = time.monotonic()
    assert (await shop.counter("orders")["de"].add()).value == 2  # set aside by now
    assert time.monotonic() - begun < 0.2
    await store.close()


async def test_one_deadline_for_all_attempts() -> None:
    store, shop = await open_shop(cluster := FakeCluster())
    cluster.delays |= {US: 60.0, EU: 60.0, AP: 60.0}
    begun = time.monotonic()
    with pytest.raises(OutcomeUnknown):
        await shop.commit(shop.counter("orders")["de"].add(), timeout=timedelta(milliseconds=200))
    assert 0.15 < time.monotonic() - begun < 0.5
    await store.close()


async def test_a_node_that_is_back_is_found_again() -> None:
    store, shop = await open_shop(cluster := FakeCluster())
    cluster.dead.add(US)
    orders = shop.counter("orders")
    assert (await orders["de"].read()).region == "eu"
    assert store.region == "eu"
    cluster.dead.clear()
    await asyncio.sleep(0)
    deadline = time.monotonic() + 5
    while (await orders["de"].read()).region != "us":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    await store.close()


async def test_retry_after_is_obeyed() -> None:
    store, shop = await open_shop(cluster := FakeCluster(), US)
    cluster.fail(US, Unavailable("busy", code="overloaded", retry_after=0.3))
    begun = time.monotonic()
    await shop.counter("orders")["de"].add()
    assert 0.3 <= time.monotonic() - begun < 0.8
    cluster.fail(US, Response(503, {"code": "not-ready", "detail": "x", "retryable": True}, {"retry-after": "60"}))
    begun = time.monotonic()
    with pytest.raises(Unavailable) as caught:  # 60 s do not fit: said at once
        await shop.counter("orders")["de"].add()
    assert caught.value.retry_after == 60.0
    assert time.monotonic() - begun < 0.5
    await store.close()


async def test_a_read_goes_where_the_token_is_known() -> None:
    store, shop = await open_shop(cluster := FakeCluster())
    cluster.fail(US, ReplicaBehind("not yet", regions=["ap"]))
    assert (await shop.counter("orders")["de"].read()).region == "ap"
    assert [seen.url for seen in cluster.seen] == [US, AP]
    await store.close()


async def test_all_regions_behind_is_said_as_such() -> None:
    store, shop = await open_shop(cluster := FakeCluster(), timeout=0.1)
    for url in cluster.urls:
        cluster.fail(url, *[ReplicaBehind("not yet", regions=["mars"])] * 100)
    with pytest.raises(ReplicaBehind) as caught:
        await shop.counter("orders")["de"].get()
    assert caught.value.regions == ["mars"]
    await store.close()


async def test_a_node_is_not_asked_to_wait_longer_than_the_attempt() -> None:
    store, shop = await open_shop(cluster := FakeCluster(), US, timeout=1.0)
    await shop.counter("orders")["de"].add()
    assert 500 <= cluster.writes[0].body["wait_ms"] <= 700  # type: ignore[index]
    await shop.counter("orders")["de"].get(max_staleness=0.25, consistency="stable")
    query = cluster.seen[-1].query
    assert 500 <= int(query.pop("wait_ms")) <= 700
    assert query == {"consistency": "stable", "max_staleness_ms": "250"}
    await store.close()


async def test_not_yet_replicated_is_told_with_its_effect() -> None:
    store, shop = await open_shop(cluster := FakeCluster())
    body = {"dot": "us-1.0123456789abcdef:1", "token": "t", "values": [1], "replayed": False, "durable_in": ["us"]}
    cluster.fail(US, Response(202, body))
    with pytest.raises(NotReplicated) as caught:
        await shop.commit(shop.counter("orders")["de"].add(), regions=1)
    assert caught.value.effect == "applied"
    assert caught.value.durable_in == ["us"]
    assert cluster.writes[0].body["regions"] == 1  # type: ignore[index]
    assert store.token == "t"
    await store.close()


@pytest.mark.parametrize(
    ("status", "raised"), [(404, UsageError), (403, AccessError), (418, UsageError), (500, Unavailable)]
)
async def test_answers_of_something_else_than_a_node(status: int, raised: type[CrdtStoreError]) -> None:
    store, shop = await open_shop(cluster := FakeCluster(), US, timeout=0.1)
    cluster.fail(US, *[Response(status, {})] * 100)
    with pytest.raises(raised, match=str(status)):
        await shop.counter("orders")["de"].get()
    await store.close()


async def test_credentials_are_read_again_when_refused() -> None:
    secrets = ["old", "new"]

    async def read() -> str:
        return secrets.pop(0)

    store, shop = await open_shop(cluster := FakeCluster(), US, auth=read)
    cluster.fail(US, AccessError("who?", code="unauthenticated"))
    await shop.counter("orders")["de"].add()
    assert [seen.headers["Authorization"] for seen in cluster.writes] == ["Bearer old", "Bearer new"]
    cluster.fail(US, AccessError("no", code="forbidden"))
    with pytest.raises(AccessError):
        await shop.counter("orders")["de"].add()
    await store.close()


async def test_the_trace_of_the_caller_goes_along() -> None:
    store, shop = await open_shop(cluster := FakeCluster(), US)
    mark = traceparent.set(trace := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    await shop.counter("orders")["de"].add()
    traceparent.reset(mark)
    await shop.counter("orders")["de"].get()
    assert cluster.seen[0].headers["traceparent"] == trace
    assert "traceparent" not in cluster.seen[1].headers
    await store.close()


async def test_where_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRDTSTORE_URL", raising=False)
    with pytest.raises(UsageError, match="no url"):
        connect()
    for url in ("localhost:7401", "http://", "https:///"):
        with pytest.raises(UsageError, match="a url is like http"):
            connect(url)
    monkeypatch.setenv("CRDTSTORE_URL", f"{US}, {EU}/,")
    monkeypatch.setenv("CRDTSTORE_AUTH", "secret")
    cluster = FakeCluster()
    async with connect(transport=cluster) as store:
        assert repr(store) == "<store http://us, http://eu>"
        assert (await store.status()).region in {"us", "eu"}
        await store.domain("shop").declare("orders", "counter")
        assert cluster.seen[0].headers["Authorization"] == "Bearer secret"
    assert cluster.closed
    with pytest.raises(Unavailable, match="closed"):
        await store.status()


async def test_a_commit_is_of_one_key_and_says_so() -> None:
    store, shop = await open_shop(cluster := FakeCluster())
    orders = shop.counter("orders")
    ack = await shop.commit(orders["de"].add(1), orders["de"].add(2), orders["de"].delete(), reason="order 981")
    assert ack.value == [1, 3, None]
    assert cluster.writes[0].body["reason"] == "order 981"  # type: ignore[index]
    with pytest.raises(UsageError, match="a commit on 2 keys: commits of many keys come later"):
        await shop.commit(orders["de"].add(), orders["fr"].add())
    with pytest.raises(UsageError, match="a commit without ops"):
        await shop.commit()
    with pytest.raises(UsageError, match="was given to domain crm"):
        await store.domain("crm").commit(orders["de"].add())
    assert len(cluster.writes) == 1
    await store.close()


async def test_ids_of_this_client_may_be_given_back() -> None:
    store, shop = await open_shop(FakeCluster())
    op_id = new_op_id()
    assert not (await shop.commit(shop.counter("orders")["de"].add(), id=op_id)).replayed
    with pytest.raises(UsageError, match="an id that begins with ~"):
        await shop.commit(shop.counter("orders")["de"].add(), id="~mine")
    await store.close()


async def test_other_regions_are_waited_for_as_long_as_the_user_waits() -> None:
    store, shop = await open_shop(cluster := FakeCluster(), US, timeout=10.0)
    await shop.commit(shop.counter("orders")["de"].add())
    assert "wait_ms" not in cluster.writes[-1].body  # type: ignore[operator]
    with pytest.raises(NotReplicated) as caught:
        await shop.commit(shop.counter("orders")["de"].add(), regions=2)
    assert (caught.value.durable_in, caught.value.more["values"]) == (["us"], [2])
    assert 5_000 < cluster.writes[-1].body["wait_ms"] <= 7_000  # type: ignore[index]
    await store.close()
