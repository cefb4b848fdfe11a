"""What cannot be read from a disk: who needs it is told, everything else goes on, what was to be applied is applied later."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from crdtstore.errors import StorageError
from crdtstore.storage.rows import LEAVES, key_range
from crdtstore_client.convergence import assess
from crdtstore_client.status import Status
from tests.node.failing import FailingLog, FailingState, Shop, broken, running, told
from tests.node.running import Lines, Nodes, call, declare, until

pytestmark = pytest.mark.usefixtures("quick")

KEY = "/v1/data/shop/counter/k"
ADD: dict[str, Any] = {"ops": [{"op": "add", "amount": 1}]}


def unreadable_key(state: FailingState, shop: Shop, key: str) -> Callable[[bytes, bytes], StorageError | None]:
    """Whatever reads this key fails."""
    checkpoint = shop.host.groups["shop/0"].checkpoint
    assert checkpoint is not None
    first, _ = key_range(checkpoint.number, LEAVES, ["counter:counter", key])

    def check(start: bytes, end: bytes) -> StorageError | None:
        return broken("state.sqlite") if start <= first < end else None

    return check


async def cold_shop(log: FailingLog, state: FailingState) -> None:
    """Some keys on disk."""
    shop = Shop(log, state)
    await shop.declare()
    for key in ("bad", "good"):
        await shop.add(key)
    saving = shop.host.saving
    assert saving is not None
    await until(lambda: saving.checkpoints >= 1 and saving.unsaved_bytes == 0)
    await shop.driver.stop()


async def test_a_key_that_cannot_be_read_is_named_and_others_go_on(
    log: FailingLog, state: FailingState, monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    monkeypatch.setattr("crdtstore.residence.Residence.warm_up", lambda self, limit, budget_bytes: False)
    monkeypatch.setattr("crdtstore_node.driver._LOOK_S", 0.01)
    await cold_shop(log, state)
    async with running(log, state) as shop:
        state.unreadable = unreadable_key(state, shop, "bad")
        error = await shop.value("bad")
        assert told(error) == ("storage-failed", 503, "none")
        assert "state.sqlite" not in error.detail, "a user can do nothing about it"
        assert "another region may have it" in error.detail
        assert error.retryable
        assert "state.sqlite" in shop.driver.unreadable.detail
        error = await shop.add("bad")
        assert told(error) == ("storage-failed", 503, "none")
        assert await shop.value("good") == 1
        assert (await shop.add("good"))["values"] == [2]
        assert not shop.driver.is_crashed
        await until(lambda: lines.of("something on disk cannot be read"))
        state.unreadable = lambda start, end: None
        assert await shop.value("bad") == 1
        assert (await shop.add("bad"))["values"] == [2]
    assert [said["where"] for said in lines.of("something on disk cannot be read")] == ["requests"], "once"


async def test_damage_that_a_scrub_finds_is_named(
    log: FailingLog, state: FailingState, monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    monkeypatch.setattr("crdtstore_node.driver._LOOK_S", 0.01)
    await cold_shop(log, state)
    async with running(log, state, scrub_every_ms=100) as shop:
        scrub = shop.host.saving.scrub  # type: ignore[union-attr]
        await until(lambda: scrub.runs > 0)
        assert lines.of("what is on disk is not what was written there") == []
        first, end = key_range(shop.host.groups["shop/0"].checkpoint.number, LEAVES, ["counter:counter", "bad"])  # type: ignore[union-attr]
        [(path, _)] = state.rows(first, end)
        state.damage(path)
        await until(lambda: scrub.failure is not None)
        await until(lambda: lines.of("what is on disk is not what was written there"))
        assert shop.driver.why_no_writes is None


async def test_a_node_whose_scrub_found_damage_is_not_ready(make_nodes: Callable[..., Nodes]) -> None:
    """A row that vanished reads as absent: requests had better go elsewhere."""
    nodes = make_nodes("us", engine={"checkpoint_ms": 100, "scrub_every_ms": 100})
    [us] = await nodes.start_all()
    await declare(us, "shop", "counter")
    assert (await call(us, "POST", KEY, ADD)).status == 200
    scrub = us.host.saving.scrub  # type: ignore[union-attr]
    await until(lambda: us.status()["storage"]["checkpoint"]["unsaved_bytes"] == 0)
    await until(lambda: scrub.runs > 0)
    assert (await call(us, "GET", "/readyz")).status == 200
    first, end = key_range(us.host.groups["shop/0"].checkpoint.number, LEAVES, [])  # type: ignore[union-attr]
    with sqlite3.connect(us.store.path) as connection:
        assert connection.execute("DELETE FROM state WHERE path BETWEEN ? AND ?", (first, end)).rowcount
    connection.close()
    await until(lambda: scrub.failure is not None)
    ready = await call(us, "GET", "/readyz")
    assert (ready.status, ready.body["code"]) == (503, "storage-failed")
    assert "do not have its state digest" in ready.body["detail"]
    assert "A node that does not start" in ready.body["detail"]
    status = (await call(us, "GET", "/v1/status")).body
    assert (status["ready"], status["storage"]["takes_writes"]) == (False, True)
    [row] = assess({"http://us": Status.of(status)}).rows
    assert row.note.startswith("is not ready: what is on disk is damaged: shop/0: ")
    assert (await call(us, "POST", KEY, ADD)).status == 200


async def test_a_checkpoint_that_cannot_be_read_at_start_is_named(log: FailingLog, state: FailingState) -> None:
    await cold_shop(log, state)
    state.unreadable = lambda start, end: broken("state.sqlite")
    with pytest.raises(StorageError, match=r"state\.sqlite"):
        Shop(log, state)


async def test_a_frame_whose_keys_cannot_be_read_is_applied_later(
    make_nodes: Callable[..., Nodes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crdtstore.residence.Residence.warm_up", lambda self, limit, budget_bytes: False)
    nodes = make_nodes("us", "eu", engine={"checkpoint_ms": 100})
    us, eu = await nodes.start_all()
    await declare(us, "shop", "counter")
    await until(lambda: "shop/0" in eu.host.groups)
    assert (await call(us, "POST", KEY, ADD)).status == 200
    await until(lambda: eu.host.groups["shop/0"].durability.vector == [1, 0])
    await until(lambda: eu.status()["storage"]["checkpoint"]["unsaved_bytes"] == 0)
    await nodes.stop("eu")
    eu = await nodes.start("eu")
    rows, is_broken = eu.store.rows, True

    def read(start: bytes, end: bytes, limit: int = -1) -> Any:
        if is_broken:
            raise broken("state.sqlite")
        return rows(start, end, limit)

    monkeypatch.setattr(eu.store, "rows", read)
    assert (await call(us, "POST", KEY, ADD)).status == 200
    await until(lambda: eu.status()["storage"]["unreadable"]["count"] > 0)
    assert eu.host.groups["shop/0"].applied == [1, 0]
    assert "state.sqlite" in eu.status()["storage"]["unreadable"]["last"]
    assert not eu.driver.is_crashed
    assert (await call(eu, "GET", KEY)).status == 503
    page = (await call(eu, "GET", "/metrics")).raw.decode()
    assert "crdtstore_storage_read_errors_total 0.0" not in page
    is_broken = False
    await until(lambda: eu.host.groups["shop/0"].durability.vector == [2, 0])
    assert (await call(eu, "GET", KEY)).body["value"] == 2


async def test_history_that_cannot_be_read_waits_and_the_node_goes_on(
    make_nodes: Callable[..., Nodes], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = make_nodes("us", "eu", engine={"history_bytes": 1024, "checkpoint_ms": 100})
    us, eu = await nodes.start_all()
    await declare(us, "shop", "counter")
    await until(lambda: "shop/0" in eu.host.groups)
    await until(lambda: eu.host.groups["_sys/0"].durability.vector == us.host.groups["_sys/0"].durability.vector)
    await nodes.stop("eu")
    for number in range(60):
        assert (await call(us, "POST", f"/v1/data/shop/counter/k{number}", ADD)).status == 200
    read, is_broken = us.log._reader.read, True

    def read_block(*where: Any) -> Any:
        if is_broken:
            raise broken()
        return read(*where)

    monkeypatch.setattr(us.log._reader, "read", read_block)
    eu = await nodes.start("eu")
    await until(lambda: us.status()["storage"]["unreadable"]["count"] > 2)
    assert "Input/output error" in us.status()["storage"]["unreadable"]["last"]
    assert (await call(us, "POST", KEY, ADD)).body["values"] == [1]
    assert (await call(us, "GET", KEY)).body["value"] == 1
    assert (await call(us, "GET", "/readyz")).status == 200
    checkpoints = us.status()["storage"]["checkpoint"]["count"]
    await until(lambda: us.status()["storage"]["checkpoint"]["count"] > checkpoints)
    assert eu.host.groups["shop/0"].applied[0] == 0
    assert us.host.groups["shop/0"].rows.staleness_ms(us.driver.clock.now_ms()) is not None
    assert (us.host.groups["shop/0"].rows.staleness_ms(us.driver.clock.now_ms()) or 0) < 2_000, "its peer is heard"
    is_broken = False
    await until(lambda: eu.host.groups["shop/0"].applied[0] == 61)
    assert not us.driver.is_crashed
