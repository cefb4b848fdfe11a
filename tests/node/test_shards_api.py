"""Domains of several shards over HTTP: declared, written, listed in order, refused across shards; and two numbers at two nodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from crdtstore.cli import main
from crdtstore.shards import shard_of
from crdtstore_node.node import Node
from tests.node.running import JSON, MSGPACK, Nodes, call, until

SHOP = "/v1/domains/shop"
KEYS = [f"k{at}" for at in range(24)]


async def declare(node: Node, shards: int, path: str = SHOP) -> None:
    assert (await call(node, "PUT", path, {"shards": shards})).status == 200
    assert (await call(node, "PUT", f"{path}/collections/n", {"type": "counter"})).status == 200


async def add(node: Node, key: str, amount: int) -> None:
    reply = await call(node, "POST", f"/v1/data/shop/n/{key}", {"ops": [{"op": "add", "amount": amount}]})
    assert reply.status == 200, reply


async def value(node: Node, key: str, domain: str = "shop") -> int:
    return int((await call(node, "GET", f"/v1/data/{domain}/n/{key}")).body["value"])


@pytest.mark.parametrize("media", [JSON, MSGPACK])
async def test_a_domain_is_declared_with_shards(make_nodes: Callable[..., Nodes], media: str) -> None:
    node = await make_nodes("us").start("us")
    reply = await call(node, "PUT", SHOP, {"shards": 8, "owner": "team"}, content_type=media)
    assert (reply.status, reply.body["shards"], reply.body["owner"]) == (200, 8, "team")
    assert (await call(node, "GET", SHOP, accept=media)).body["shards"] == 8
    for body, status, code in (
        ({"shards": 4}, 409, "type-mismatch"),
        ({"shards": 0}, 400, "bad-request"),
        ({"shards": 257}, 400, "bad-request"),
        ({"shards": None}, 400, "bad-request"),
        ({"shards": 8}, 200, None),
        ({}, 200, None),
    ):
        reply = await call(node, "PUT", SHOP, body, content_type=media)
        assert (reply.status, reply.body.get("code")) == (status, code), body
    status = (await call(node, "GET", "/v1/status")).body
    assert status["domains"] == {"shop": 8}
    assert [group["shard"] for group in status["groups"] if group["domain"] == "shop"] == list(range(8))
    metrics = (await call(node, "GET", "/metrics")).raw.decode()
    assert metrics.count('crdtstore_commits_applied_total{domain="shop"}') == 1


async def test_keys_are_listed_in_order_and_survive_a_restart(make_nodes: Callable[..., Nodes]) -> None:
    nodes = make_nodes("us", engine={"checkpoint_ms": 100})
    node = await nodes.start("us")
    await declare(node, 8)
    for at, key in enumerate(KEYS):
        await add(node, key, at)
    saving = node.host.saving
    assert saving is not None
    wanted = saving.checkpoints + 1
    await until(lambda: saving.checkpoints >= wanted)
    for _ in range(2):
        found, after = [], ""
        while after is not None:
            page = (await call(node, "GET", f"/v1/data/shop/n?limit=7&values=true&after={after}")).body
            found += [(item["key"], item["value"]) for item in page["items"]]
            after = page["next"]
        assert found == sorted((key, at) for at, key in enumerate(KEYS))
        await nodes.stop("us")
        node = await nodes.start("us")
        assert sorted(node.host.groups) == ["_sys/0", *(f"shop/{shard}" for shard in range(8))]


async def test_nodes_that_declared_apart_show_both(make_nodes: Callable[..., Nodes], tmp_path: Path) -> None:
    nodes = make_nodes("us", "eu")
    for region, shards in (("us", 3), ("eu", 5)):  # one after the other: neither knows of the other
        node = await nodes.start(region)
        await declare(node, shards)
        for key in KEYS:
            await add(node, key, shards)
        await nodes.stop(region)
    us, eu = await nodes.start_all()
    await until(lambda: all(len(node.host.groups) == 6 for node in (us, eu)))
    await until(
        lambda: all(
            us.host.groups[group].durability.vector == eu.host.groups[group].durability.vector
            for group in us.host.groups
        )
    )
    for node in (us, eu):
        for key in KEYS:
            is_one = shard_of("n", key, 3) == shard_of("n", key, 5)
            assert await value(node, key) == (8 if is_one else 3)
            assert await value(node, key, "shop%405") == await value(node, key, "shop@5") == (8 if is_one else 5)
        clashes = [{"collection": None, "serves": 3, "also": [5]}]
        assert (await call(node, "GET", "/v1/conflicts/shop")).body["declarations"] == clashes
        assert (await call(node, "GET", "/v1/conflicts/shop@5")).body["declarations"] == clashes
        members = (await call(node, "GET", "/admin/v1/members")).body
        assert members["shards"] == [{"domain": "shop", "serves": 3, "also": [5]}]
        reply = await call(node, "POST", "/v1/data/shop@5/n/k1", {"ops": [{"op": "add"}]})
        assert (reply.status, reply.body["code"]) == (400, "bad-request")
        assert us.host.groups["shop/4"].digest == eu.host.groups["shop/4"].digest
    directory = str(nodes.directory / "data-us")
    await nodes.stop_all()
    checked = CliRunner().invoke(main, ["log", "verify", directory, "--chain"])
    assert checked.exit_code == 0, checked.output
    stats = CliRunner().invoke(main, ["log", "stats", directory])
    assert "shop/4" in stats.output
