"""Files of a running node that somebody removes: it says so, and takes nothing that the next start would not find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from crdtstore.errors import Unavailable
from crdtstore.storage.cutting import SegmentLost
from crdtstore.storage.sqlite import FILE_NAME
from tests.node.failing import FailingLog, FailingState, Shop
from tests.node.running import Nodes, call, declare, until

KEY = "/v1/data/shop/counter/k"
ADD: dict[str, Any] = {"ops": [{"op": "add", "amount": 1}]}
LOST = "was removed or replaced while it was in use"


async def test_a_state_that_is_removed_is_named_and_the_log_is_kept(
    make_nodes: Callable[..., Nodes],
) -> None:
    engine = {"checkpoint_ms": 100, "retain_bytes": 1024, "history_bytes": 1024}
    nodes = make_nodes("us", engine=engine, log={"segment_bytes": 1 << 16})
    node = await nodes.start("us")
    await declare(node, "shop", "counter")
    await until(lambda: node.host.saving is not None and node.host.saving.checkpoints > 0)
    for file in (nodes.directory / "data-us").glob(f"{FILE_NAME}*"):
        file.unlink()
    assert (await call(node, "POST", KEY, ADD)).status == 200
    await until(lambda: node.host.saving is not None and node.host.saving.failure is not None)
    for _ in range(200):
        assert (await call(node, "POST", KEY, {"ops": [{"op": "add", "amount": 1}] * 20})).status == 200
    storage = (await call(node, "GET", "/v1/status")).body["storage"]
    assert f"{FILE_NAME}: {LOST}" in str(storage["state"]["failure"])
    assert storage["log"]["first_position"] == 0
    await nodes.stop("us")
    again = await nodes.start("us")
    assert (await call(again, "GET", KEY)).body["value"] == 1 + 200 * 20


async def test_a_log_that_is_removed_ends_the_writes(make_nodes: Callable[..., Nodes]) -> None:
    nodes = make_nodes("us", engine={"checkpoint_ms": 100})
    node = await nodes.start("us")
    await declare(node, "shop", "counter")
    assert (await call(node, "POST", KEY, ADD)).status == 200
    for file in (nodes.directory / "data-us" / "log").glob("*.log"):
        file.unlink()
    await call(node, "POST", KEY, ADD)  # a checkpoint will be made for it
    await until(lambda: node.driver.failure is not None)
    reply = await call(node, "POST", KEY, ADD)
    assert (reply.status, reply.body["code"], reply.body["effect"]) == (503, "storage-failed", "none")
    assert f"0000000001.log: {LOST}" in reply.body["detail"]
    assert (await call(node, "GET", KEY)).status == 200
    assert (await call(node, "GET", "/readyz")).status == 503
    storage = (await call(node, "GET", "/v1/status")).body["storage"]
    assert f"0000000001.log: {LOST}" in str(storage["log"]["failure"])


async def test_what_a_cut_finds_is_final_at_once() -> None:
    """Although nobody writes, and the log itself would not say no."""
    log = FailingLog()
    shop = Shop(log, FailingState())
    try:
        await shop.declare()
        log.uncuttable = SegmentLost(f"0000000001.log: {LOST}")
        await shop.add()
        await until(lambda: shop.driver.failure is not None)
        assert shop.driver.cut_failures == 0
        with pytest.raises(Unavailable, match=LOST) as refused:
            await shop.add()
        assert (refused.value.code, refused.value.effect) == ("storage-failed", "none")
        assert await shop.value() == 1
    finally:
        await shop.driver.stop()
