"""The command line of backups, from a running node to a drill; and a restored node that is asked over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crdtstore.cli import main
from crdtstore_node.config import load
from crdtstore_node.node import Node, Opened
from tests.node.conftest import make_nodes  # noqa: F401 - a fixture
from tests.node.running import Nodes, call, declare


def crdtstore(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == code, result.output
    return result


def document(*arguments: str, code: int = 0) -> Any:
    return json.loads(crdtstore(*arguments, "--json", code=code).stdout)


async def a_shop(make_nodes: Callable[..., Nodes]) -> Nodes:  # noqa: F811
    """A node with a shop and a checkpoint or two, stopped."""
    nodes = make_nodes(name="shop", engine={"checkpoint_ms": 100})
    node = await nodes.start("us")
    await declare(node, "shop", "counter", "aw_set", "bounded_counter", "lww_map")
    for at in range(40):
        key = f"/v1/data/shop/counter/k{at % 7}"
        assert (await call(node, "POST", key, {"ops": [{"op": "add", "amount": at}]})).status == 200
    grant = {"ops": [{"op": "grant", "amount": 10}, {"op": "consume", "amount": 3}]}
    assert (await call(node, "POST", "/v1/data/shop/bounded_counter/stock", grant)).status == 200
    saving = node.host.saving
    assert saving is not None
    wanted = saving.checkpoints + 2
    while saving.checkpoints < wanted:
        assert (await call(node, "POST", "/v1/data/shop/counter/more", {"ops": [{"op": "add"}]})).status == 200
    await nodes.stop_all()
    return nodes


async def test_from_a_running_node_to_a_drill(
    place: Path,
    make_nodes: Callable[..., Nodes],  # noqa: F811
) -> None:
    nodes = await a_shop(make_nodes)
    data, target, config = nodes.directory / "data-us", str(place / "backups"), str(nodes.directory / "us.toml")
    taken = document("backup", target, "--data", str(data))
    again = document("backup", target, "--config", config)
    assert taken["rows"] > 0
    assert [each["finished"] for each in document("backup", "list", target)] == [True, True]
    source = f"{target}/{taken['name']}"
    verified = document("backup", "verify", source)
    assert verified["ok"]
    assert verified["manifest_sha256"] == taken["manifest_sha256"] != again["manifest_sha256"]


async def test_a_drill_checks_everything_and_leaves_nothing(
    place: Path,
    make_nodes: Callable[..., Nodes],  # noqa: F811
) -> None:
    nodes = await a_shop(make_nodes)
    taken = document("backup", str(place / "backups"), "--data", str(nodes.directory / "data-us"))
    (place / "scratch").mkdir()
    drilled = await asyncio.to_thread(
        document, "drill", "restore", str(place / "backups"), "--scratch", str(place / "scratch")
    )
    assert drilled["ok"]
    assert drilled["manifest_sha256"] == taken["manifest_sha256"]
    assert drilled["rto_s"] > 0
    assert drilled["rpo_s"] >= 0
    assert [check["what"] for check in drilled["checks"]] == [
        "rows: size, hash, state digest",
        "log: size, hash, no gap, chain heads",
        "restored under a new id",
        "started from it",
        "holds what the log ended with",
        "state digest computed anew",
        "every collection is read",
        "refuses writes",
    ]
    assert drilled["checks"][6]["more"] == {"collections": 4, "keys": 9}
    assert list((place / "scratch").iterdir()) == []


async def test_a_restored_node_serves_reads_and_refuses_writes(
    place: Path,
    make_nodes: Callable[..., Nodes],  # noqa: F811
) -> None:
    nodes = await a_shop(make_nodes)
    target = str(place / "backups")
    taken = document("backup", target, "--data", str(nodes.directory / "data-us"))
    arguments = ["--data", str(place / "data-us"), "--cluster", str(nodes.directory / "cluster.toml"), "--node", "us-1"]
    restored = document("restore", f"{target}/{taken['name']}", *arguments)
    text = nodes.write_config("us").read_text().replace('"data-us"', json.dumps(str(place / "data-us")))
    (nodes.directory / "restored.toml").write_text(text)
    node = Node(Opened(load(nodes.directory / "restored.toml", {}), is_bootstrap=False))
    await node.start()
    try:
        assert node.gossip.port == 0
        body = (await call(node, "GET", "/v1/data/shop/bounded_counter/stock")).body
        assert (body["value"], body["identity"], body["rights"]["here"]) == (7, "unproven", 0)
        reply = await call(node, "POST", "/v1/data/shop/counter/k1", {"ops": [{"op": "add"}]})
        assert (reply.status, reply.body["code"]) == (503, "identity-unproven")
        assert "retry_after" not in reply.body, "it does not end by itself"
        ready = await call(node, "GET", "/readyz")
        assert (ready.status, ready.body["code"]) == (503, "identity-unproven")
        status = (await call(node, "GET", "/v1/status")).body
        assert status["groups"][0]["replica"] == restored["replica"]
        assert (status["storage"]["takes_writes"], status["ready"]) == (False, False)
        assert "restored from a backup" in status["storage"]["why"]
        assert "crdtstore_takes_writes 0.0" in node.metrics()[1].decode()
        assert (await call(node, "GET", "/metrics")).status == 200
    finally:
        await node.stop()


async def test_a_drill_of_a_point_in_time(
    place: Path,
    make_nodes: Callable[..., Nodes],  # noqa: F811
) -> None:
    nodes = await a_shop(make_nodes)
    target = str(place / "backups")
    taken = document("backup", target, "--data", str(nodes.directory / "data-us"))
    drilled = await asyncio.to_thread(document, "drill", "restore", target, "--at", taken["taken"])
    assert drilled["ok"]
    assert drilled["checks"][2]["more"]["left_out"] == 0
    cluster = str(nodes.directory / "cluster.toml")
    arguments = ["--data", str(place / "new"), "--cluster", cluster, "--node", "us-1", "--at", taken["taken"]]
    assert "0 after the point left out" in crdtstore("restore", target, *arguments).output
    identity = json.loads((place / "new" / "identity.json").read_text())
    assert identity["restored_from"]["at"] == taken["taken"]
    refused = crdtstore("drill", "restore", target, "--at", "2020-01-01T00:00:00Z", code=2)
    assert "beyond this point" in refused.output


async def test_a_drill_of_a_backup_without_a_checkpoint_needs_the_cluster_file(
    place: Path,
    make_nodes: Callable[..., Nodes],  # noqa: F811
) -> None:
    nodes = make_nodes(name="young")
    await declare(await nodes.start("us"), "shop", "counter")
    await nodes.stop_all()
    document("backup", str(place), "--data", str(nodes.directory / "data-us"))
    assert "--cluster" in crdtstore("drill", "restore", str(place), code=2).output
    cluster = str(nodes.directory / "cluster.toml")
    assert (await asyncio.to_thread(document, "drill", "restore", str(place), "--cluster", cluster))["ok"]


async def test_a_drill_of_a_damaged_backup_fails(
    place: Path,
    make_nodes: Callable[..., Nodes],  # noqa: F811
) -> None:
    nodes = await a_shop(make_nodes)
    taken = document("backup", str(place), "--data", str(nodes.directory / "data-us"))
    path = next((place / taken["name"]).glob("blocks-*"))
    path.write_bytes(path.read_bytes()[:-1])
    drilled = await asyncio.to_thread(document, "drill", "restore", str(place), code=1)
    assert not drilled["ok"]
    assert path.name in drilled["checks"][-1]["why"]
    assert drilled["rto_s"] is None


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["backup", "s3://key:secret@bucket/x", "--data", "."], "come from the environment"),
        (["backup", "ftp://host/x", "--data", "."], "expected a folder or a URL"),
        (["backup", "somewhere"], "--data"),
        (["backup", "verify", "nowhere"], "there is no backup"),
        (["restore", "nowhere", "--data", "x", "--cluster", "y", "--node", "us-1"], "there is no backup"),
        (["drill", "restore", "nowhere"], "there is no backup"),
    ],
)
def test_wrong_use_is_named(place: Path, arguments: list[str], why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    result = crdtstore(*arguments, code=2)
    assert why in result.output
    assert "secret" not in result.output
    assert list(place.iterdir()) == []


def test_help_has_examples() -> None:
    assert "crdtstore backup verify s3://" in crdtstore("backup", "--help").output
    assert "--at" in crdtstore("restore", "--help").output
    assert "TARGET --data DIR" in crdtstore("backup", "--help").output
