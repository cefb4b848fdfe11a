"""A node that was evicted while it was stopped: it returns, takes a new id, and what only it had is brought back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from crdtstore_node.node import Node
from tests.node.running import Nodes, call, declare, until

KEY = "/v1/data/shop/counter/k"
MEMBERS = "/admin/v1/members"


async def add(node: Node, amount: int, reason: str) -> dict[str, Any]:
    reply = await call(node, "POST", KEY, {"ops": [{"op": "add", "amount": amount}], "reason": reason})
    assert reply.status == 200, reply
    return dict(reply.body)


async def value_at(node: Node) -> Any:
    reply = await call(node, "GET", KEY)
    return reply.body.get("value", reply.body.get("code"))


async def test_an_evicted_node_returns_under_a_new_id_and_its_orphans_are_applied(
    make_nodes: Callable[..., Nodes],
) -> None:
    cluster = make_nodes("us", "eu", "ap", engine={"checkpoint_ms": 200})
    us, eu = await cluster.start("us"), await cluster.start("eu")
    life = await cluster.live("ap", is_bootstrap=True)
    await until(lambda: len(us.transport.links) == len(eu.transport.links) == 2)
    await declare(us, "shop", "counter")
    await until(lambda: all("shop/0" in node.host.groups for node in (eu, life.node)))
    await add(life.node, 1, "before")
    await until(lambda: us.host.groups["shop/0"].applied[2] == eu.host.groups["shop/0"].applied[2] == 1)

    await cluster.stop("us")
    await cluster.stop("eu")
    for amount in (10, 20):
        lost = await add(life.node, amount, f"alone {amount}")
    old = life.node.host.replica
    await cluster.end("ap")
    us, eu = await cluster.start("us"), await cluster.start("eu")
    await until(lambda: len(us.transport.links) == len(eu.transport.links) == 1)
    at = (await call(us, "GET", MEMBERS)).body["configuration"]
    asked = {"nodes": ["ap-1"], "configuration": at, "yes": True}
    assert (await call(us, "POST", f"{MEMBERS}/evict", asked)).status == 200
    await until(lambda: us.host.groups["shop/0"].configuration.finals == {old: 1}, 10)
    assert (await value_at(us), await value_at(eu)) == (1, 1)

    life = await cluster.live("ap")
    await until(lambda: life.node.host.groups["shop/0"].configuration.finals == {old: 1}, 10)
    body = (await call(life.node, "GET", MEMBERS)).body
    assert body["state"] == "removed"
    read = (await call(life.node, "GET", KEY)).body
    assert (read["value"], read["identity"]) == (31, "removed")
    (kept,) = (await call(life.node, "GET", "/admin/v1/orphans")).body["replicas"]
    assert (kept["left"], kept["domains"]["shop"]) == (None, {"final": 1, "made": 3, "orphans": 2})
    refused = await call(us, "GET", KEY, headers={"Crdtstore-Token": lost["token"]})
    assert (refused.status, refused.body["code"], refused.body["lost"]) == (410, "token-lost", 2)

    costs = await call(life.node, "POST", f"{MEMBERS}/rejoin")
    assert (costs.status, costs.body["code"]) == (409, "confirm-needed")
    assert any("2 commits made here count nowhere" in cost for cost in costs.body["costs"])
    assert (await call(life.node, "POST", f"{MEMBERS}/rejoin", {"yes": True})).status == 202
    await until(lambda: life.node.host.replica != old and life.node.host.roster.is_member, 15)
    await until(lambda: "shop/0" in life.node.host.groups and life.node.host.groups["shop/0"].is_installed, 15)
    assert await value_at(life.node) == 1, "as everywhere"

    (kept,) = (await call(life.node, "GET", "/admin/v1/orphans")).body["replicas"]
    assert (kept["replica"], kept["domains"]["shop"]) == (old, {"final": 1, "made": 3, "orphans": 2})
    assert kept["left"] is not None
    assert "removed" in kept["why"]
    page = (await call(life.node, "GET", f"/admin/v1/orphans?replica={old}&domain=shop")).body["orphans"]
    assert [(each["dot"], each["reason"], each["changes"][0]["what"]) for each in page] == [
        (f"{old}:2", "alone 10", "add 10"),
        (f"{old}:3", "alone 20", "add 20"),
    ]
    asked = {"domain": "shop", "commits": [each["data"] for each in page], "yes": True}
    for node in (eu, life.node):
        reply = await call(node, "POST", "/admin/v1/orphans/apply", asked)
        assert (len(reply.body["applied"]), reply.body["refused"]) == (2, []), reply.body
    values = list[Any]()

    async def all_have() -> bool:
        values[:] = [await value_at(node) for node in (us, eu, life.node)]
        return values == [31, 31, 31]

    for _ in range(200):
        if await all_have():
            break
        await asyncio.sleep(0.02)
    assert values == [31, 31, 31]
