"""Real nodes with a domain of 8 shards: all regions write while one is cut off and one is killed; then all hold the same."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from crdtstore.shards import shard_of
from tests.integration.clusters import Api, running

pytestmark = pytest.mark.slow

REGIONS = ("us", "eu", "ap")
KEYS = [f"k{at}" for at in range(32)]


async def test_three_regions_with_8_shards_converge_through_a_cut(tmp_path: Path) -> None:
    async with running(tmp_path / "c", REGIONS, engine={"checkpoint_ms": 500}) as api:
        assert (await api.send("us", "PUT", "/v1/domains/shop", {"shards": 8})).status == 200
        await api.declare("us", "shop", n="counter", tags="aw_set")
        expected = dict.fromkeys(KEYS, 0)

        async def write(region: str, amount: int) -> None:
            for key in KEYS:
                reply = await api.write(region, f"shop/n/{key}", op="add", amount=amount)
                assert reply.status == 200, reply
                expected[key] += amount
                assert (await api.write(region, f"shop/tags/{key}", op="add", elements=[region])).status == 200

        await write("us", 1)
        api.cluster.partition("ap")
        await asyncio.gather(*(write(region, 10) for region in REGIONS))
        await api.cluster.kill("eu")
        await asyncio.gather(write("us", 100), write("ap", 100))
        await api.cluster.start("eu")
        api.cluster.heal()
        statuses = await api.converge()
        for region in REGIONS:
            shards = [group for group in statuses[region]["groups"] if group["domain"] == "shop"]
            assert [group["shard"] for group in shards] == list(range(8))
            assert all(group["behind"] == 0 for group in shards)
            assert statuses[region]["domains"] == {"shop": 8}
            assert await listed(api, region, "n") == sorted(expected.items())
            assert await listed(api, region, "tags") == [(key, ["ap", "eu", "us"]) for key in sorted(KEYS)]
        apart = next(key for key in KEYS if shard_of("n", key, 8) != shard_of("n", KEYS[0], 8))
        reply = await api.send("us", "POST", f"/v1/data/shop/n/{apart}", {"ops": [{"op": "add"}, {"op": "add"}]})
        assert reply.status == 200, "several ops on one key are in one shard"


async def listed(api: Api, region: str, collection: str) -> list[tuple[str, Any]]:
    found, after = list[tuple[str, Any]](), ""
    while after is not None:
        page = await api.ask(region, f"/v1/data/shop/{collection}?limit=9&values=true&after={after}")
        found += [(item["key"], item["value"]) for item in page["items"]]
        after = page["next"]
    return found
