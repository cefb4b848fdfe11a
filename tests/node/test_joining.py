"""Nodes that join a running cluster over real sockets: they ask, are let in, take over, and serve."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from typing import Any

from tests.node.running import Life, Lines, Nodes, call, declare, until

KEY = "/v1/data/shop/counter/k"
ADD: dict[str, Any] = {"ops": [{"op": "add", "amount": 1}]}
QUICK = {"checkpoint_ms": 200}


async def a_shop(cluster: Nodes) -> list[Any]:
    nodes = await cluster.start_all()
    await declare(nodes[0], "shop", "counter")
    for _ in range(5):
        assert (await call(nodes[0], "POST", KEY, ADD)).status == 200
    return nodes


def is_member(life: Life) -> bool:
    return life.node.host.roster.is_member


async def value_at(node: Any) -> Any:
    reply = await call(node, "GET", KEY)
    return reply.body.get("value") if reply.status == 200 else reply.body["code"]


async def until_value(node: Any, value: Any, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while (found := await value_at(node)) != value:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert found == value


async def test_a_region_that_no_cluster_file_names_joins_and_serves(
    make_nodes: Callable[..., Nodes], lines: Lines
) -> None:
    cluster = make_nodes("us", "eu", engine=QUICK)
    us, eu = await a_shop(cluster)
    life = await cluster.live("ap", join=["us"])
    await until(lambda: is_member(life), 10)
    for node in (us, eu):
        await until(lambda node=node: life.node.host.me.replica in node.host.groups["_sys/0"].configuration.ids)
    await until_value(life.node, 5)
    assert (await call(life.node, "POST", KEY, ADD)).status == 200
    await until_value(us, 6)
    await until_value(eu, 6)
    await until(lambda: (life.counts["joined"], life.counts["installed"]) == (1, 2))
    await until(lambda: len(life.node.transport.links) == 2)


async def test_a_founder_that_lost_its_directory_joins_anew(make_nodes: Callable[..., Nodes]) -> None:
    cluster = make_nodes("us", "eu", "ap", engine=QUICK)
    us, _, _ = await a_shop(cluster)
    await cluster.stop("eu")
    shutil.rmtree(cluster.directory / "data-eu")
    life = await cluster.live("eu", join=["us", "ap"])
    await until(lambda: is_member(life), 10)
    await until_value(life.node, 5)
    assert (await call(life.node, "POST", KEY, ADD)).status == 200
    await until_value(us, 6)
    assert life.node.host.me.replica != "eu-1.0000000000000002"
    await until(lambda: len(us.transport.links) == 2)
    assert us.transport.refused == {}, "what is meant for the id that is gone is not said to the new one"


async def test_who_joins_and_reaches_nobody_says_so(make_nodes: Callable[..., Nodes]) -> None:
    cluster = make_nodes("us")
    life = await cluster.live("ap", join=["us"])
    for path in ("/readyz", KEY, "/v1/domains/shop"):
        reply = await call(life.node, "GET", path)
        assert (reply.status, reply.body["code"]) == (503, "not-ready")
        assert "no node is reached yet" in reply.body["detail"]
    reply = await call(life.node, "POST", KEY, ADD)
    assert (reply.status, reply.body["code"], reply.body["effect"]) == (503, "not-ready", "none")
    status = (await call(life.node, "GET", "/v1/status")).body
    assert (status["ready"], status["identity"]) == (False, "joining")
    old = life.node.host.me.replica
    await cluster.end("ap")
    life = await cluster.live("ap", join=["us"])
    assert life.node.host.me.replica == old, "it has one new id, not one at each start"
    us = await cluster.start("us")
    await until(lambda: is_member(life), 10)
    assert us.host.groups["_sys/0"].configuration.number == 1
