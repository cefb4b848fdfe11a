"""A backup of a node that is written to in two regions, and what its restore has to hold.

The question: what may be missing? Nothing that was acknowledged here before the backup began, nothing that anything in it has seen; and
nothing may be there that nobody wrote. Where the log of the node is whole, its commits up to the vector of the restored state are replayed
into a replica that never saw a checkpoint: both give one digest.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from statistics import quantiles
from typing import Any

import pytest
from msgspec import structs

from crdtstore.causal import ReplicaId
from crdtstore.commit import decode_commit
from crdtstore_node.backup.restore import restore
from crdtstore_node.backup.source import open_backup, verify
from crdtstore_node.config import load, load_cluster
from crdtstore_node.node import Node, Opened
from tests.backup.world import SEGMENT_BYTES, entries_of, replayed, state_of
from tests.integration.clusters import Api, Books, group_of, running, until, writing
from tests.node.running import call, environment

pytestmark = pytest.mark.slow

ADDRESSES = [f"shop/orders/{key}" for key in ("de", "fr", "jp")]
WRITERS = 4
LEAST = 200
"""So many writes are acknowledged before the backup begins."""


async def write_pairs(ended: asyncio.Event, api: Api) -> int:
    """In one region ``a`` becomes n; in the other ``b`` becomes n once somebody has read that there. Where b is n, a has to be."""
    number = 0
    while not ended.is_set():
        number += 1
        assert (await api.write("us", "shop/pairs/a", op="set", value=number)).status == 200

        async def is_read(number: int = number) -> bool:
            value = await api.value("eu", "shop/pairs/a")
            return value is not None and value >= number

        await until(is_read, f"a is {number} in eu")
        assert (await api.write("eu", "shop/pairs/b", op="set", value=number)).status == 200
    return number


async def take_backup(api: Api, target: Path) -> dict[str, Any]:
    """By the command, in a process of its own."""
    command = ["-m", "crdtstore.cli", "backup", str(target), "--data", str(api.cluster.data_path("us")), "--json"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return dict(json.loads(out))


async def load_and_backups(
    directory: Path, target: Path, *, cuts: bool
) -> tuple[Books, list[tuple[set[str], str]], Books]:
    """Two backups while two regions write; before each, what was acknowledged."""
    backups: list[tuple[set[str], str]] = []
    engine = {"checkpoint_ms": 150, "checkpoint_rows": 20, **({"retain_bytes": 1024} if cuts else {})}
    log = {"segment_bytes": 1 << 16}
    async with running(directory, ["us", "eu"], engine=engine, log=log) as api:
        await api.declare("us", "shop", orders="counter", pairs="max_register", drawer="lww_register")
        for at in range(50):
            await api.write("us", f"shop/drawer/{at}", op="set", value="x" * 500)
        async with writing(api, ["us", "eu"], ADDRESSES, writers=WRITERS, pause_s=0.002) as by_region:
            ended = asyncio.Event()
            pairs = asyncio.create_task(write_pairs(ended, api))
            for count in (LEAST, 2 * LEAST):

                async def is_enough(count: int = count) -> bool:
                    return len(by_region["us"].dots) >= count

                await until(is_enough, f"{count} writes are acknowledged")
                before, began = set(by_region["us"].dots), time.monotonic()
                calm = len(by_region["us"].latencies_s)
                taken = await take_backup(api, target)
                backups.append((before, taken["name"]))
                latencies = by_region["us"].latencies_s
                print(
                    f"backup of {taken['rows']} rows and {taken['commits']} commits in {time.monotonic() - began:.2f} s; write p99 "
                    f"before {quantiles(latencies[:calm], n=100)[98] * 1000:.1f} ms, "
                    f"meanwhile {quantiles([*latencies[calm:], 0], n=100)[98] * 1000:.1f} ms"
                )
            ended.set()
            assert await pairs > 1
        await api.converge()
    return by_region["us"], backups, by_region["eu"]


def missing(acknowledged: set[str], vector: dict[str, int]) -> list[str]:
    dots = (dot.rpartition(":") for dot in sorted(acknowledged))
    return [f"{replica}:{seq}" for replica, _, seq in dots if vector[replica] < int(seq)]


@pytest.mark.parametrize("cuts", [False, True], ids=["the log is kept", "the log is cut all the time"])
async def test_what_is_restored_was_there_and_is_whole(tmp_path: Path, cuts: bool) -> None:
    us, backups, eu = await load_and_backups(tmp_path / "cluster", tmp_path / "backups", cuts=cuts)
    everything = Books.joined([us, eu])
    assert not everything.refused
    config = load(next((tmp_path / "cluster").rglob("us*.toml")), {})
    cluster = load_cluster(Path(config.cluster_file))
    assert cuts != (Path(config.data) / "log" / "0000000001.log").exists()
    entries = [] if cuts else entries_of(Path(config.data))
    for number, (acknowledged, name) in enumerate(backups):
        backup = open_backup(str(tmp_path / "backups" / name))
        assert [check.why for check in verify(backup)] == [None, None]
        directory = tmp_path / f"restored-{number}"
        restore(backup, directory, cluster, "us-1", segment_bytes=SEGMENT_BYTES)
        settings = structs.replace(config, data=str(directory), api="127.0.0.1:0", gossip="127.0.0.1:0")
        node = Node(Opened(settings, is_bootstrap=False))
        await node.start()
        try:
            values = {
                address: (await call(node, "GET", f"/v1/data/{address}")).body["value"]
                for address in [*ADDRESSES, "shop/pairs/a", "shop/pairs/b"]
            }
            vector = group_of((await call(node, "GET", "/v1/status")).body, "shop")["vector"]
            restored = state_of(node.host)
        finally:
            await node.stop()
        assert missing(acknowledged, vector) == []
        if number == 0:
            assert missing(
                backups[1][0], vector
            )  # the check can fail: the older backup has less than the newer one has to have
        assert values["shop/pairs/a"] >= (values["shop/pairs/b"] or 0)
        assert values["shop/pairs/b"]
        for address in ADDRESSES:
            asked = everything.acknowledged.get(address, 0) + everything.unknown.get(address, 0)
            assert 0 < values[address] <= asked
        vectors = {group: part.end.vector for group, part in backup.manifest.groups.items()}
        held = [
            entry
            for entry in entries
            if decode_commit(entry.data).seq <= vectors[entry.group].get(ReplicaId(entry.origin), 0)
        ]
        if not cuts:
            assert state_of(replayed(cluster, held)) == restored
