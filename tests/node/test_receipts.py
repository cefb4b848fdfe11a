"""Writes that wait for other regions, on a node whose disk fails meanwhile: they are durable, and are answered so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from crdtstore.causal import make_replica_id
from crdtstore.configuration import Cluster, Member
from crdtstore.errors import not_replicated
from tests.node import failing
from tests.node.failing import ME, FailingLog, FailingState, broken, full, running, told
from tests.node.running import until

ADD = [{"collection": "counter", "key": "k", "op": "add", "amount": 1}]


@pytest.fixture(autouse=True)
def _another_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one, and nobody hears it."""
    other = Member(make_replica_id("eu-1", 7), "eu")
    monkeypatch.setattr(failing, "CLUSTER", Cluster("test", bytes(16), (ME, other)))


@pytest.mark.parametrize("failure", [full(), broken()])
async def test_a_disk_that_fails_takes_nothing_back(log: FailingLog, state: FailingState, failure: Any) -> None:
    async with running(log, state) as shop:
        await shop.declare()
        asked = {"domain": "shop", "ops": ADD, "regions": 1, "wait_ms": 400}
        waiting = shop.driver.request("commit", asked)[1]
        await until(lambda: len(shop.driver.service.receipts) == 1)
        log.failure = failure
        assert told(await shop.start_add("other"))[2] == "unknown", "that one waits for the disk"
        async with asyncio.timeout(5):
            body = await waiting
        assert (body["durable_in"], body["values"]) == ([ME.region], [1])
        late = not_replicated(body, 1)
        assert late is not None
        assert told(late) == ("not-replicated", 202, "applied")


async def test_who_leaves_waits_no_longer(log: FailingLog, state: FailingState) -> None:
    async with running(log, state) as shop:
        await shop.declare()
        ticket, _ = shop.driver.request("commit", {"domain": "shop", "ops": ADD, "regions": 1, "wait_ms": 60_000})
        await until(lambda: len(shop.driver.service.receipts) == 1)
        shop.driver.forget(ticket)
        await until(lambda: not shop.driver.service.receipts)
        assert await shop.value() == 1
