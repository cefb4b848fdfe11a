"""A cluster of real processes: it starts, is cut, loses nodes, and leaves nothing behind. Its nodes are stand-ins."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from crdtstore.causal import parse_replica_id
from crdtstore.errors import StorageError, Unavailable, UsageError
from crdtstore.testing.processes import LocalCluster, hold_port
from crdtstore_node.dev import control
from tests.integration.stand_ins import (
    STAND_IN,
    hears,
    is_alive,
    until_hears,
)

pytestmark = pytest.mark.slow


# -- a cluster


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(
        tmp_path / "c", ["us", "eu", "ap"], command=STAND_IN, engine={"gossip_interval_ms": 50}
    ) as c:
        yield c


async def test_cluster_writes_what_nodes_read(cluster: LocalCluster) -> None:
    document = tomllib.loads((cluster.directory / "cluster.toml").read_text())
    assert len(bytes.fromhex(document["nonce"])) == 16
    assert [(member["node"], member["region"]) for member in document["member"]] == [
        ("us-1", "us"),
        ("eu-1", "eu"),
        ("ap-1", "ap"),
    ]
    assert len({parse_replica_id(member["replica"]) for member in document["member"]}) == 3
    listeners = {member["node"]: member["gossip"] for member in document["member"]}
    for region in cluster.regions:
        config = tomllib.loads(cluster.config_path(region).read_text())
        assert (config["node"], config["gossip"]) == (f"{region}-1", listeners[f"{region}-1"])
        assert config["api"] == cluster.url(region).removeprefix("http://")
        assert config["engine"] == {"gossip_interval_ms": 50}
        assert config["log"] == {}
        assert Path(config["data"]) == cluster.data_path(region) == cluster.directory / f"{region}-1"
        assert sorted(config["peers"]) == sorted(f"{peer}-1" for peer in cluster.regions if peer != region)
        assert not set(config["peers"].values()) & set(listeners.values()), "every link has its proxy"


async def test_cuts_of_a_cluster(cluster: LocalCluster) -> None:
    for region, peers in {"us": {"eu", "ap"}, "eu": {"us", "ap"}, "ap": {"us", "eu"}}.items():
        await until_hears(cluster, region, peers)

    cluster.partition("ap")
    assert await hears(cluster, "ap") <= {"us", "eu"}  # what was on the way may still arrive
    assert await hears(cluster, "ap") == set()
    await until_hears(cluster, "us", {"eu"})
    assert cluster.heal() == 2
    await until_hears(cluster, "ap", {"us", "eu"})

    cluster.one_way("us", "eu")
    await until_hears(cluster, "eu", {"ap"})
    await until_hears(cluster, "us", {"eu", "ap"})
    assert cluster.cuts == [("us", "eu")]
    cluster.partition_pair("us", "ap")
    await until_hears(cluster, "us", {"eu"})
    assert (await cluster.status())["cut"] == [
        {"from": "ap", "to": "us"},
        {"from": "us", "to": "ap"},
        {"from": "us", "to": "eu"},
    ]
    cluster.heal(reset=False)
    for region, peers in {"us": {"eu", "ap"}, "eu": {"us", "ap"}}.items():
        await until_hears(cluster, region, peers)
    assert cluster.link("us", "ap") is cluster.link("ap", "us")
    assert cluster.link("us", "ap").counters.forwarded_out > 0

    with pytest.raises(UsageError, match="unknown region mars"):
        cluster.partition("us", "mars")
    with pytest.raises(UsageError, match="cannot be cut off from itself"):
        cluster.one_way("us", "us")
    assert cluster.cuts == []


async def test_killed_paused_and_started_nodes(cluster: LocalCluster) -> None:
    with pytest.raises(UsageError, match="region us is running"):
        await cluster.start("us")
    url, pids = cluster.url("us"), {region: cluster.node(region).pid for region in cluster.regions}
    await cluster.kill("us")
    with pytest.raises(UsageError, match="it is killed"):
        await cluster.kill("us")
    await cluster.pause("eu")
    by_region = {each["region"]: each for each in (await cluster.status())["nodes"]}
    assert (by_region["us"]["state"], by_region["us"]["pid"], by_region["us"]["ready"]) == ("killed", None, False)
    assert (by_region["eu"]["state"], by_region["eu"]["ready"]) == ("paused", False)
    assert (by_region["ap"]["state"], by_region["ap"]["ready"], by_region["ap"]["pid"]) == ("running", True, pids["ap"])
    cluster.resume("eu")
    await cluster.stop("ap")
    assert cluster.node("ap").state == "stopped"
    await cluster.start("us")
    await cluster.start("ap")
    assert cluster.url("us") == url
    assert (cluster.data_path("us") / "starts").read_text() == "xx"
    await until_hears(cluster, "us", {"eu", "ap"})


async def test_node_whose_port_was_taken_meanwhile_moves(cluster: LocalCluster) -> None:
    old = cluster.url("us")
    gossip = tomllib.loads(cluster.config_path("us").read_text())["gossip"].rsplit(":", 1)[1]
    await cluster.kill("us")
    with hold_port(cluster.node("us").address[1]), hold_port(int(gossip)):
        await cluster.start("us")
        assert cluster.url("us") != old
        await until_hears(cluster, "us", {"eu", "ap"})
        await until_hears(cluster, "eu", {"us", "ap"})


LOSES_THE_RACE = """
import os, pathlib, sys
tries = pathlib.Path(sys.argv[1])
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
if len(tries.read_text()) <= int(sys.argv[2]):
    sys.exit("OSError: [Errno 98] Address already in use")
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""


@pytest.mark.parametrize("losses", [1, 3])
async def test_lost_race_for_a_port_is_run_again_but_not_for_ever(tmp_path: Path, losses: int) -> None:
    command = [sys.executable, "-c", LOSES_THE_RACE, str(tmp_path / "tries"), str(losses), STAND_IN[1]]
    cluster = LocalCluster(tmp_path / "c", ["us"], command=command)
    if losses == 1:
        async with cluster:
            assert (tmp_path / "tries").read_text() == "xx"
    else:
        with pytest.raises(Unavailable, match="Address already in use"):
            await cluster.up()
        assert (tmp_path / "tries").read_text() == "xxx"


async def test_preferred_ports_are_taken_if_free(tmp_path: Path) -> None:
    with hold_port() as held:
        taken = held.getsockname()[1]
        async with LocalCluster(tmp_path / "a", ["us"], command=STAND_IN, first_port=taken) as cluster:
            assert cluster.node("us").address[1] != taken
    async with LocalCluster(tmp_path / "b", ["us"], command=STAND_IN, first_port=taken) as cluster:
        assert cluster.url("us") == f"http://127.0.0.1:{taken}"


async def test_files_that_cannot_be_used_say_so(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path, ["us"], command=STAND_IN, engine={"gossip_interval_ms": [1]})
    with pytest.raises(UsageError, match="is not up"):
        _ = cluster.regions
    with pytest.raises(UsageError, match=r"got \[1\]"):
        await cluster.up()
    (tmp_path / "local.json").write_text("{}")
    with pytest.raises(StorageError, match="is not what was written there"):
        await cluster.up()


async def test_directory_continues_and_is_used_once(cluster: LocalCluster) -> None:
    identity = (cluster.directory / "cluster.toml").read_text()
    urls = cluster.urls
    second = LocalCluster(cluster.directory, command=STAND_IN)
    with pytest.raises(UsageError, match=f"in use by process {os.getpid()}"):
        await second.up()
    await cluster.stop()
    other = LocalCluster(cluster.directory, ["us", "mars"], command=STAND_IN)
    with pytest.raises(UsageError, match="holds a cluster of the regions us, eu, ap, not us, mars"):
        await other.up()
    async with second:
        assert second.regions == ["us", "eu", "ap"]
        assert second.urls == urls
        assert (second.directory / "cluster.toml").read_text() == identity
        assert "--bootstrap" not in second.node("us").command


async def test_lost_data_is_not_taken_for_new_and_nothing_stays(cluster: LocalCluster) -> None:
    pids = [pid for region in cluster.regions if (pid := cluster.node(region).pid)]
    await cluster.stop()
    assert not any(is_alive(pid) for pid in pids)
    (cluster.data_path("eu") / "id").unlink()
    with pytest.raises(Unavailable, match="no region runs now, for one did not start: node eu-1 did not become ready"):
        await cluster.up()
    assert all(cluster.node(region).pid is None for region in cluster.regions)
    assert control.supervisor_of(cluster.directory) is None


@pytest.mark.parametrize("regions", [[], ["us", "us"], ["US"], ["a b"], [f"r{n}" for n in range(17)]])
async def test_impossible_regions_write_nothing(tmp_path: Path, regions: list[str]) -> None:
    with pytest.raises(UsageError, match="Nothing changed"):
        await LocalCluster(tmp_path, regions, command=STAND_IN).up()
    assert not (tmp_path / "cluster.toml").exists()


async def test_nodes_do_not_take_settings_of_the_callers_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDTSTORE_URL", "http://elsewhere")
    async with LocalCluster(tmp_path, ["us"], command=STAND_IN, env={"CRDTSTORE_LOG": "x"}) as cluster:
        environment = Path(f"/proc/{cluster.node('us').pid}/environ").read_bytes()  # noqa: ASYNC240
    assert b"CRDTSTORE_URL" not in environment
    assert b"CRDTSTORE_LOG=x" in environment
