"""From a backup back into the cluster: a restored node joins under another id, and its own logs and backups are as good as any."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crdtstore.configuration import SYSTEM_GROUP
from tests.backup.test_drill import document
from tests.node.conftest import make_nodes  # noqa: F401 - a fixture
from tests.node.running import Nodes, call, declare, until

KEY = "/v1/data/shop/counter/k"
ADD: dict[str, Any] = {"ops": [{"op": "add", "amount": 1}]}


async def said(*arguments: str, code: int = 0) -> Any:
    return await asyncio.to_thread(document, *arguments, code=code)


async def test_a_restored_node_joins_and_is_backed_up_again(place: Path, make_nodes: Callable[..., Nodes]) -> None:  # noqa: F811
    cluster = make_nodes("us", "eu", "ap", name="shop", engine={"checkpoint_ms": 200})
    us, eu, _ = await cluster.start_all()
    await declare(us, "shop", "counter")
    for _ in range(5):
        assert (await call(us, "POST", KEY, ADD)).status == 200
    await until(lambda: sum(eu.host.groups["shop/0"].applied) == 5)
    await until(lambda: us.host.saving is not None and us.host.saving.checkpoints > 0, 10)
    target, data = str(place / "backups"), cluster.directory / "data-us"
    taken = await said("backup", target, "--data", str(data))
    await cluster.stop("us")
    data.rename(cluster.directory / "lost")
    arguments = ["--data", str(data), "--cluster", str(cluster.directory / "cluster.toml"), "--node", "us-1"]
    restored = await said("restore", f"{target}/{taken['name']}", *arguments)
    life = await cluster.live("us")
    await until(lambda: life.node.host.roster.is_member, 20)
    await until(lambda: "shop/0" in life.node.host.groups and life.node.host.groups["shop/0"].takes_part, 20)
    node = life.node
    assert node.host.me.replica not in (restored["replica"], us.host.me.replica)
    assert node.host.me.replica in eu.host.groups[SYSTEM_GROUP].configuration.ids
    assert (await call(node, "GET", KEY)).body["value"] == 5
    assert (await call(node, "POST", KEY, ADD)).status == 200
    verified = await said("log", "verify", "--chain", str(data))
    assert (verified["sound"], verified["arriving"]) == (True, [])
    kept = await said("log", "verify", "--chain", str(data / "left" / restored["replica"]))
    assert {head["seq"] for head in kept["heads"] if head["group"] == "shop/0"} <= {5}
    again = await said("backup", str(place / "again"), "--data", str(data))
    assert sum(again["groups"]["shop/0"].values()) == 6
    drilled = await said("drill", "restore", str(place / "again"))
    assert drilled["ok"], json.dumps(drilled)
    assert len(drilled["checks"]) == 8
