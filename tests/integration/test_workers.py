"""Nodes of several workers as real processes: requests go to the owner, one that dies takes only its own keys along, members change."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter as Tally
from pathlib import Path
from typing import Any

import pytest

from crdtstore.causal import worker_of
from crdtstore.errors import CrdtStoreError, OutcomeUnknown, Unavailable
from crdtstore.shards import shard_of
from crdtstore.testing.processes import http_get
from crdtstore_client import Store, connect
from tests.integration.clusters import Api, running, until

pytestmark = pytest.mark.slow

SHARDS = 6
KEYS = [f"key-{at:03}" for at in range(120)]


def owner(key: str, workers: int = 2) -> int:
    return shard_of("orders", key, SHARDS) % workers


async def asked_at(api: Api, name: str) -> int:
    """How many requests a worker got over sessions so far, whatever it answered."""
    _, body = await http_get(api.cluster.node(name).address, "/metrics")
    found = [line for line in body.decode().splitlines() if line.startswith("crdtstore_session_requests_total ")]
    return int(float(found[0].split()[1]))


async def declare(api: Api, store: Store) -> None:
    await store.domain("shop").declare_domain(shards=SHARDS)
    await store.domain("shop").declare("orders", "counter")

    async def is_everywhere() -> bool:
        path = "/v1/domains/shop/collections/orders"
        replies = [await api.send(name, "GET", path) for name in api.cluster.regions]
        return all(reply.status == 200 for reply in replies)

    await until(is_everywhere, "it is declared everywhere")


async def converge(api: Api, names: list[str] | None = None, deadline_s: float = 30.0) -> dict[str, Any]:
    """Wait until all who hold a group have seen the same of it; then they hold the same, or this fails (law L1)."""
    chosen = names or api.cluster.regions

    async def are_equal() -> dict[str, Any] | None:
        statuses = {name: await api.ask(name, "/v1/status") for name in chosen}
        groups: dict[str, list[dict[str, Any]]] = {}
        for name, status in statuses.items():
            for group in status["groups"]:
                assert group["domain"] == "_sys" or group["shard"] % 2 == worker_of(status["node"]), (name, group)
                groups.setdefault(f"{group['domain']}/{group['shard']}", []).append(group)
        alive = [
            {replica: seq for replica, seq in group["vector"].items() if seq}
            for each in groups.values()
            for group in each
        ]
        assert alive
        for each in groups.values():
            if any(group["digest"] is None or group["vector"] != each[0]["vector"] for group in each):
                return None
        for each in groups.values():
            assert len({group["digest"] for group in each}) == 1, each
        return statuses

    found: dict[str, Any] = await until(are_equal, "equal vectors", deadline_s)
    return found


async def values(store: Store) -> dict[str, int]:
    return {key: value async for key, value in store.domain("shop").counter("orders").items()}


async def test_every_request_goes_to_the_owner_and_nobody_forwards(tmp_path: Path) -> None:
    async with running(tmp_path, ["us", "eu"], workers=2) as api:
        async with connect(api.cluster.url("us-1+1"), timeout=20.0) as store:
            await declare(api, store)
            before = {name: await asked_at(api, name) for name in api.cluster.regions}
            orders = store.domain("shop").counter("orders")
            await asyncio.gather(*(orders[key].add(1) for key in KEYS))
            for key in KEYS[:40]:
                assert await orders[key].get() == 1
            asked = {name: await asked_at(api, name) - before[name] for name in api.cluster.regions}
        owners = Tally(owner(key) for key in (*KEYS, *KEYS[:40]))
        assert asked == {"us-1+0": owners[0], "us-1+1": owners[1], "eu-1+0": 0, "eu-1+1": 0}, (
            "each key at its owner, once"
        )
        async with connect(api.cluster.url("eu-1+0"), timeout=20.0) as store:
            await converge(api)
            assert await values(store) == dict.fromkeys(KEYS, 1)
        reply = await api.send("us-1+0", "GET", "/v1/data/shop/orders?limit=5")
        assert (reply.status, reply.body["code"], reply.body["owners"]) == (421, "wrong-worker", [0, 1])
        assert [each["api"] for each in reply.body["workers"]] == [api.cluster.url(f"us-1+{at}") for at in (0, 1)]
        part = await api.ask("us-1+0", "/v1/data/shop/orders?limit=1000&shards_of=0")
        assert [item["key"] for item in part["items"]] == [key for key in KEYS if owner(key) == 0]


async def test_a_worker_that_dies_under_load_takes_only_its_own_keys_along(tmp_path: Path) -> None:
    """And nothing that was acknowledged; its keys go on in the other region, and here when it is back."""
    acknowledged, unknown = Tally[str](), Tally[str]()
    slow = set[str]()
    stop = asyncio.Event()

    async def write(store: Store, keys: list[str]) -> None:
        orders = store.domain("shop").counter("orders")
        while not stop.is_set():
            for key in keys:
                try:
                    await orders[key].add(1)
                    acknowledged[key] += 1
                except OutcomeUnknown:
                    unknown[key] += 1
                except Unavailable:
                    slow.add(key)

    async with running(tmp_path, ["us", "eu"], workers=2) as api:
        us = [api.cluster.url(f"us-1+{worker}") for worker in (0, 1)]
        async with (
            connect(*us, timeout=1.0) as only_us,
            connect(us[0], api.cluster.url("eu-1+0"), timeout=20.0) as both,
        ):
            await declare(api, both)
            mine, shared = KEYS[:40], KEYS[40:]
            tasks = [asyncio.create_task(write(only_us, mine[at::4])) for at in range(4)]
            tasks += [asyncio.create_task(write(both, shared[at::8])) for at in range(8)]
            await until(lambda: _is_true(all(acknowledged[key] for key in KEYS)), "all keys are written")
            await api.cluster.kill("us-1+1")
            before = Tally(acknowledged)

            def has_gone_on() -> bool:
                here = all(acknowledged[key] > before[key] for key in mine if owner(key) == 0)
                return here and all(acknowledged[key] > before[key] + 1 for key in shared)

            await until(
                lambda: _is_true(has_gone_on()), "the keys of the other worker go on here, and those of this one in eu"
            )
            assert slow, "who knows this region only is told"
            assert all(owner(key) == 1 for key in slow), slow
            await api.cluster.start("us-1+1")
            back = Tally(acknowledged)
            await until(
                lambda: _is_true(all(acknowledged[key] > back[key] for key in mine if owner(key) == 1)),
                "its keys are back",
            )
            stop.set()
            await asyncio.gather(*tasks)
            await converge(api)
            for store in (only_us, both):
                found = await values(store)
                for key in KEYS:
                    assert acknowledged[key] <= found[key] <= acknowledged[key] + unknown[key], key


async def _is_true(value: bool) -> bool:
    return value


async def test_a_partition_stops_no_worker_and_heals(tmp_path: Path) -> None:
    async with running(tmp_path, ["us", "eu"], workers=2) as api:
        urls = {region: [api.cluster.url(f"{region}-1+{worker}") for worker in (0, 1)] for region in ("us", "eu")}
        async with connect(*urls["us"], timeout=20.0) as us, connect(*urls["eu"], timeout=20.0) as eu:
            await declare(api, us)
            api.cluster.isolate("eu")
            for store in (us, eu):
                orders = store.domain("shop").counter("orders")
                await asyncio.gather(*(orders[key].add(1) for key in KEYS))
            assert await values(us) == await values(eu) == dict.fromkeys(KEYS, 1)
            api.cluster.heal()
            await converge(api)
            assert await values(us) == await values(eu) == dict.fromkeys(KEYS, 2)


async def test_a_node_joins_with_its_workers_and_another_goes(tmp_path: Path) -> None:
    async with running(tmp_path, ["us", "eu"], workers=2) as api:
        cluster = api.cluster
        async with connect(cluster.url("us-1+0"), timeout=20.0) as store:
            await declare(api, store)
            orders = store.domain("shop").counter("orders")
            await asyncio.gather(*(orders[key].add(1) for key in KEYS))
            assert await cluster.add("ap") == "ap-1+0"
            await until(lambda: _all_ready(api, "ap-1+0", "ap-1+1"), "both workers hold what is theirs")
            await store.admin.evict("eu-1")
            rest = ["us-1+0", "us-1+1", "ap-1+0", "ap-1+1"]

            async def are_settled() -> bool:
                status = [await api.ask(name, "/v1/status") for name in rest]
                return all(
                    group["members"] == (4 if group["domain"] == "_sys" else 2)
                    for each in status
                    for group in each["groups"]
                )

            await until(are_settled, "every group has the members that hold it")
            await asyncio.gather(*(orders[key].add(1) for key in KEYS))
            await converge(api, rest)
            async with connect(cluster.url("ap-1+1"), timeout=20.0) as there:
                assert await values(there) == dict.fromkeys(KEYS, 2)
            with pytest.raises(CrdtStoreError, match="no member would be worker 1 of 2: its shards would be lost"):
                await store.admin.evict("us-1+1", "ap-1+1")
            await cluster.stop("us-1+1")
            with pytest.raises(CrdtStoreError, match="no answer"):
                async with connect(cluster.url("us-1+0"), timeout=1.0) as alone:
                    await values(alone)


async def test_the_rest_goes_on_by_force_with_the_groups_of_all_workers(tmp_path: Path) -> None:
    """The oldest and one more of three nodes are gone: neither ``_sys`` nor any group has a quorum."""
    async with running(tmp_path, ["us", "eu", "ap"], workers=2) as api:
        cluster = api.cluster
        async with connect(cluster.url("eu-1+0"), timeout=20.0) as store:
            await declare(api, store)
            orders = store.domain("shop").counter("orders")
            await asyncio.gather(*(orders[key].add(1) for key in KEYS))
            await converge(api)
            for name in ("us-1+0", "us-1+1", "ap-1+0", "ap-1+1"):
                await cluster.kill(name)
            await asyncio.gather(*(orders[key].add(1) for key in KEYS))
            members = await store.admin.force("eu-1")
            assert [each.node for each in members.members] == ["eu-1+0", "eu-1+1"]

            async def are_settled() -> bool:
                statuses = [await api.ask(name, "/v1/status") for name in ("eu-1+0", "eu-1+1")]
                groups = [group for each in statuses for group in each["groups"]]
                return all(group["members"] == (2 if group["domain"] == "_sys" else 1) for group in groups)

            await until(are_settled, "every group goes on without the others")
            assert not any(view.members.split for view in await store.admin.views())
            assert await values(store) == dict.fromkeys(KEYS, 2)


async def test_each_worker_is_backed_up_by_itself(tmp_path: Path) -> None:
    async with running(tmp_path / "c", ["us", "eu"], workers=2) as api:
        async with connect(api.cluster.url("us-1+0"), timeout=20.0) as store:
            await declare(api, store)
            await asyncio.gather(*(store.domain("shop").counter("orders")[key].add(1) for key in KEYS))
        await api.cluster.stop("us-1+1")
        data, cluster = api.cluster.data_path("us-1+1"), str(tmp_path / "c" / "cluster.toml")
        said = crdtstore("backup", str(tmp_path / "b"), "--data", str(data.parent), code=2)
        assert "no node in this directory, but those of the workers of one, worker-0 to worker-1" in said
        assert "worker-0 to worker-1: each is taken by itself" in crdtstore("log", "verify", str(data.parent), code=2)
        crdtstore("log", "verify", "--chain", str(data))
        taken = json.loads(crdtstore("backup", str(tmp_path / "b"), "--data", str(data), "--json"))
        assert [each["name"] for each in json.loads(crdtstore("backup", "list", str(tmp_path / "b"), "--json"))] == [
            taken["name"]
        ]
        backup = str(tmp_path / "b" / taken["name"])
        crdtstore("drill", "restore", backup, "--cluster", cluster)
        restore = ["restore", backup, "--data", str(tmp_path / "r"), "--cluster", cluster]
        assert "holds what this one holds; 'us-1+0' is another one" in crdtstore(*restore, "--node", "us-1+0", code=2)
        token = "AQ" + "A" * 40
        assert "to an instant: a token names" in crdtstore(
            *restore, "--node", "us-1+1", "--at", store.token or token, code=2
        )
        crdtstore(*restore, "--node", "us-1+1")
        assert (tmp_path / "r" / "identity.json").exists()


def crdtstore(*arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "crdtstore.cli", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == code, result
    return result.stdout if code == 0 else result.stderr


async def _all_ready(api: Api, *names: str) -> bool:
    return all([(await api.ask(name, "/v1/status"))["ready"] for name in names])
