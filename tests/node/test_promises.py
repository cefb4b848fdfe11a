"""What a node's clock promised holds over its restarts: a stop in order ends the mark exactly, a crash leaves it ahead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import Random

import pytest

from crdtstore.clock import COUNTER_BITS
from crdtstore.host import Host
from crdtstore.promises import AHEAD_MS
from crdtstore.storage.sqlite import SqliteState
from crdtstore_node.config import load
from crdtstore_node.node import Opened
from tests.node.running import Nodes, call, declare, until

KEY = "/v1/data/shop/counter/k"
ADD = {"ops": [{"op": "add", "amount": 1}]}


def opened(nodes: Nodes) -> Opened:
    found = Opened(load(nodes.write_config("us"), {}), is_bootstrap=False)
    found.log.close()
    assert found.store is not None
    found.store.close()
    return found


async def test_a_stop_in_order_leaves_no_stamp_ahead(make_nodes: Callable[..., Nodes]) -> None:
    nodes = make_nodes("us", "eu")
    us, _ = await nodes.start_all()
    await declare(us, "shop", "counter")
    await until(lambda: us.host.promises.mark_ms > time.time() * 1000 + AHEAD_MS / 2)
    await nodes.stop_all()
    stopped_ms = time.time() * 1000
    mark_ms = opened(nodes).host.promises.mark_ms
    assert stopped_ms - 5_000 < mark_ms <= stopped_ms
    assert opened(nodes).host.groups["shop/0"].clock.last <= int(stopped_ms) << COUNTER_BITS


async def test_the_mark_is_in_the_checkpoint_when_the_log_is_cut(
    make_nodes: Callable[..., Nodes], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = make_nodes(
        "us", engine={"checkpoint_ms": 100, "history_bytes": 1024, "retain_bytes": 1024}, log={"segment_bytes": 1 << 16}
    )
    us = await nodes.start("us")
    await declare(us, "shop", "counter")
    body = {"ops": [{"op": "add", "amount": 1 << 4_000}]}
    for _ in range(600):
        assert (await call(us, "POST", KEY, body)).status == 200
        if us.log.held[0] > 0:
            break
        await asyncio.sleep(0.01)  # what is stable by a checkpoint is cut behind the next one
    assert us.log.held[0] > 0, "the log was cut"
    mark_ms = us.host.promises.mark_ms
    monkeypatch.setattr(us.host, "close", lambda: None)  # as in a crash: nothing is written at the end
    await nodes.stop_all()
    store = SqliteState.open(nodes.directory / "data-us")
    before = Host(us.host.cluster, us.host.me.replica, us.config.engine, Random(1), store)
    store.close()
    assert mark_ms - 2_000 < before.promises.mark_ms <= mark_ms, "the checkpoint alone, without the log"
    found = opened(nodes)
    assert found.host.promises.mark_ms >= mark_ms
    assert found.host.groups["shop/0"].clock.last >= mark_ms << COUNTER_BITS


async def test_commits_are_counted_and_marks_are_not(make_nodes: Callable[..., Nodes]) -> None:
    nodes = make_nodes()
    us = await nodes.start("us")
    await declare(us, "shop", "counter")
    before = us.driver.commits_logged
    marks = us.host.promises.mark_ms
    await until(lambda: us.host.promises.mark_ms > marks)
    assert (await call(us, "POST", KEY, ADD)).status == 200
    assert us.driver.commits_logged == before + 1
