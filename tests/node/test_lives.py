"""Nodes that may not go on under their id: copied, put back, fenced, removed. They take another one, and nobody else is disturbed."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crdtstore.causal import ReplicaId
from crdtstore.cli import main
from crdtstore.engine.membership.changes import Evict
from crdtstore.host import HostOutput
from crdtstore.testing.processes import hold_port
from crdtstore_node import opening
from crdtstore_node.node import Node
from tests.node.machines import copy as copy_directory
from tests.node.machines import put_back
from tests.node.running import Life, Lines, Nodes, call, declare, until
from tests.node.test_gossip import Impostor

KEY = "/v1/data/shop/counter/k"
ADD: dict[str, Any] = {"ops": [{"op": "add", "amount": 1}]}


async def add(node: Node, times: int = 1) -> list[str]:
    dots = []
    for _ in range(times):
        reply = await call(node, "POST", KEY, ADD)
        assert reply.status == 200, reply
        dots.append(reply.body["dot"])
    return dots


async def until_value(node: Callable[[], Node], value: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                reply = await call(node(), "GET", KEY)
            except OSError:  # it begins anew
                reply = None
            if reply is not None and reply.status == 200 and reply.body["value"] == value:
                return
            await asyncio.sleep(0.02)


async def two(make_nodes: Callable[..., Nodes], **settings: Any) -> tuple[Nodes, Life, Life]:
    """us and eu, with three commits of us."""
    cluster = make_nodes("us", "eu", engine={"checkpoint_ms": 200})
    cluster.settings = settings
    us, eu = await cluster.live("us", is_bootstrap=True), await cluster.live("eu", is_bootstrap=True)
    await until(lambda: all(len(life.node.transport.links) == 1 for life in (us, eu)))
    await declare(us.node, "shop", "counter")
    await add(us.node, 3)
    await until_value(lambda: eu.node, 3)
    return cluster, us, eu


def evict(node: Node, replica: ReplicaId) -> None:
    """As an operator does."""
    host, now_ms = node.host, node.driver.clock.now_ms()
    host.order("_sys/0", Evict((replica,), host.groups["_sys/0"].configuration.id), 0, now_ms, HostOutput())


def ids(node: Node, group: str = "_sys/0") -> tuple[str, ...]:
    return node.host.groups[group].configuration.ids


def is_member(life: Life) -> bool:
    host = life.node.host
    return host.roster.is_member and all(engine.is_installed for engine in host.groups.values())


async def until_reborn(life: Life, old: str) -> str:
    """Wait until a node is a member under another id; return that."""
    await until(
        lambda: life.node.host.replica != old and not life.node.opened.continuity.must_leave and is_member(life), 10
    )
    return str(life.node.host.replica)


async def test_a_copy_takes_another_id_and_the_original_goes_on(make_nodes: Callable[..., Nodes], lines: Lines) -> None:
    cluster, us, eu = await two(make_nodes)
    await cluster.end("us")
    data = cluster.directory / "data-us"
    copy_directory(data, cluster.directory / "copy")
    us = await cluster.live("us")
    old = us.node.host.me.replica
    assert us.node.opened.continuity.verdict == "proven"
    await until(lambda: len(us.node.transport.links) == 1)
    connected = us.node.transport.connected
    with hold_port() as api, hold_port() as gossip:
        ports = [f"127.0.0.1:{held.getsockname()[1]}" for held in (api, gossip)]
    copy = await cluster.live(
        "us",
        name="copy",
        DATA=str(cluster.directory / "copy"),
        API=ports[0],
        GOSSIP=ports[1],
        GOSSIP_ADVERTISE=ports[1],
    )
    dots = await add(us.node, 2)
    new = await until_reborn(copy, old)
    assert old in ids(eu.node), "who has the id keeps it"
    assert new in ids(eu.node)
    dots += await add(copy.node, 2) + await add(us.node, 2)
    assert len(set(dots)) == 6
    for life in (us, eu, copy):
        await until_value(lambda life=life: life.node, 9)
    assert us.node.transport.connected == connected + 1, "its link was never disturbed, and the copy has another"
    assert us.counts["fenced"] == eu.counts["fenced"] == copy.counts["fenced"] == 0
    assert copy.counts["unproven"] == copy.counts["left"] == 1
    await until(lambda: copy.counts["rejoined"] == 1)
    assert (cluster.directory / "copy" / "left" / old / "log").is_dir()


@pytest.mark.parametrize("has_anchors", [True, False])
async def test_what_was_put_back_takes_another_id(
    make_nodes: Callable[..., Nodes], monkeypatch: pytest.MonkeyPatch, has_anchors: bool
) -> None:
    if not has_anchors:
        monkeypatch.setattr(opening, "anchor_places", lambda environ: [])
    cluster, us, eu = await two(make_nodes)
    await cluster.end("eu")
    data = cluster.directory / "data-eu"
    shutil.copytree(data, cluster.directory / "older")
    eu = await cluster.live("eu")
    old = eu.node.host.me.replica
    await until(lambda: eu.counts["continued"] == 1 and eu.node.transport.links)
    await add(eu.node, 4)
    await until_value(lambda: us.node, 7)
    await cluster.end("eu")
    await add(us.node, 1)
    put_back(cluster.directory / "older", data)
    eu = await cluster.live("eu")
    new = await until_reborn(eu, old)
    await until_value(lambda: eu.node, 8)
    await add(eu.node)
    await until_value(lambda: us.node, 9)
    assert eu.counts["fenced"] == (not has_anchors)
    assert new in ids(us.node, "shop/0")
    if has_anchors:
        await until(lambda: old not in ids(us.node) and old not in ids(us.node, "shop/0"))
        await until(lambda: us.node.host.groups["shop/0"].configuration.finals == {old: 4})
    else:  # it may be a copy of a disk whose original goes on: an operator has to know
        await asyncio.sleep(0.5)
        assert old in ids(us.node)


async def test_a_node_without_an_anchor_asks_its_peers(
    make_nodes: Callable[..., Nodes], monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    monkeypatch.setattr(opening, "anchor_places", lambda environ: [])
    cluster, us, eu = await two(make_nodes, identity_wait_ms=8_000)
    await cluster.end("us")
    await cluster.end("eu")
    us = await cluster.live("us")
    assert us.node.opened.continuity.verdict == "sealed"
    reply = await call(us.node, "POST", KEY, ADD)
    assert (reply.status, reply.body["code"]) == (503, "identity-unproven")
    read = await call(us.node, "GET", KEY)
    assert (read.body["value"], read.body["identity"]) == (3, "unproven")
    assert (await call(us.node, "GET", "/readyz")).body["code"] == "identity-unproven"
    records = us.node.log.records
    await asyncio.sleep(0.3)
    assert us.node.log.records == records, "nothing is written meanwhile"
    eu = await cluster.live("eu")  # both do not know: they have answered each other
    await until(lambda: us.counts["continued"] == eu.counts["continued"] == 1)
    await add(us.node)
    await until_value(lambda: eu.node, 4)
    assert "all peers were asked" in lines.of("this node goes on under its id")[-1]["proof"]


async def test_a_node_that_reaches_nobody_goes_on_after_a_while(
    make_nodes: Callable[..., Nodes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "anchor_places", lambda environ: [])
    cluster, us, _ = await two(make_nodes, identity_wait_ms=300)
    await cluster.end("us")
    await cluster.end("eu")
    us = await cluster.live("us")
    assert us.counts["continued"] == 0
    await until(lambda: us.counts["continued"] == 1)
    await add(us.node)


async def test_who_meets_itself_takes_another_id(make_nodes: Callable[..., Nodes]) -> None:
    _, us, eu = await two(make_nodes)
    old = eu.node.host.me.replica
    impostor = Impostor(eu.node, region="eu")
    await impostor.say(impostor.hello(), is_greeting=False)
    await until_reborn(eu, old)
    await until_value(lambda: eu.node, 3)
    await add(eu.node)
    await until_value(lambda: us.node, 4)
    assert eu.counts["fenced"] == 1
    await until(lambda: old not in ids(us.node, "shop/0"))


async def test_who_was_removed_while_away_hears_of_it_and_waits_for_a_word(
    make_nodes: Callable[..., Nodes], lines: Lines
) -> None:
    cluster, us, eu = await two(make_nodes)
    ap = await cluster.live("ap", join=["us", "eu"])
    await until(lambda: is_member(ap), 10)
    old = eu.node.host.me.replica
    await cluster.end("eu")
    evict(us.node, old)
    await until(lambda: all(old not in ids(life.node, "shop/0") for life in (us, ap)), 10)
    await add(us.node)
    eu = await cluster.live("eu")
    await until(lambda: eu.counts["evicted"] == 1)
    reply = await call(eu.node, "POST", KEY, ADD)
    assert (reply.status, reply.body["code"]) == (503, "fenced")
    read = await call(eu.node, "GET", KEY)
    assert (read.body["value"], read.body["identity"]) == (3, "removed")
    await asyncio.sleep(0.3)
    assert eu.node.host.me.replica == old, "nothing happens by itself"
    eu.node.end("rejoin: an operator said so")
    await until_reborn(eu, old)
    await until_value(lambda: eu.node, 4)
    await add(eu.node)
    await until_value(lambda: ap.node, 5)
    await until(lambda: eu.counts["rejoined"] == 1)


async def test_all_machines_are_moved_at_once(make_nodes: Callable[..., Nodes]) -> None:
    cluster, us, eu = await two(make_nodes, identity_wait_ms=60_000)
    before = [life.node.host.me.replica for life in (us, eu)]
    for region in ("us", "eu"):
        await cluster.end(region)
        copy_directory(cluster.directory / f"data-{region}", cluster.directory / f"moved-{region}")
    us = await cluster.live("us", DATA=str(cluster.directory / "moved-us"))
    eu = await cluster.live("eu", DATA=str(cluster.directory / "moved-eu"))
    await asyncio.sleep(0.3)
    read = await call(us.node, "GET", KEY)
    assert (read.body["value"], read.body["identity"]) == (3, "unproven")
    assert "--only-copy" in (await call(us.node, "POST", KEY, ADD)).body["detail"]
    await cluster.end("us")
    us = await cluster.live("us", is_vouched=True, DATA=str(cluster.directory / "moved-us"))
    assert us.counts["unproven"] == 1
    await cluster.end("eu")
    eu = await cluster.live("eu", is_vouched=True, DATA=str(cluster.directory / "moved-eu"))
    await until(lambda: us.counts["continued"] == eu.counts["continued"] == 1)
    await add(us.node)
    await until_value(lambda: eu.node, 4)
    assert [life.node.host.me.replica for life in (us, eu)] == before


async def test_a_node_alone_goes_on_wherever_its_directory_is(make_nodes: Callable[..., Nodes]) -> None:
    cluster = make_nodes("us")
    us = await cluster.live("us", is_bootstrap=True)
    await declare(us.node, "shop", "counter")
    await add(us.node)
    await cluster.end("us")
    data = cluster.directory / "data-us"
    copy_directory(data, cluster.directory / "copy")
    shutil.rmtree(data)
    us = await cluster.live("us", DATA=str(Path(cluster.directory / "copy")))
    assert us.counts["continued"] == 1
    await add(us.node)
    assert (await call(us.node, "GET", KEY)).body["value"] == 2


async def test_a_restored_backup_is_read_until_a_member_is_reached_and_joins_then(
    make_nodes: Callable[..., Nodes],
) -> None:
    cluster, us, _ = await two(make_nodes)
    await cluster.end("eu")
    target, data = str(cluster.directory / "backups"), str(cluster.directory / "restored")
    name = json.loads(crdtstore("backup", target, "--data", str(cluster.directory / "data-eu"), "--json"))["name"]
    words = ["--data", data, "--cluster", str(cluster.directory / "cluster.toml"), "--node", "eu-1"]
    crdtstore("restore", f"{target}/{name}", *words)
    await add(us.node)
    await cluster.end("us")
    eu = await cluster.live("eu", DATA=data)
    read = await call(eu.node, "GET", KEY)
    assert (read.body["value"], read.body["identity"]) == (3, "unproven")
    us = await cluster.live("us")
    evict(
        us.node, ReplicaId("eu-1.0000000000000002")
    )  # us has not heard it since its start: with a third one it would have no quorum
    await until_reborn(eu, "eu-1.0000000000000002")
    await until_value(lambda: eu.node, 4)
    await add(eu.node)
    await until_value(lambda: us.node, 5)


def crdtstore(*words: str) -> str:
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == 0, result.output
    return result.stdout


async def test_an_operator_who_vouches_for_a_copy_of_a_running_node_is_told_better(
    make_nodes: Callable[..., Nodes], lines: Lines
) -> None:
    cluster, us, eu = await two(make_nodes, identity_wait_ms=10_000)
    old = us.node.host.me.replica
    copy_directory(cluster.directory / "data-us", cluster.directory / "copy")
    with hold_port() as api, hold_port() as gossip:
        ports = [f"127.0.0.1:{held.getsockname()[1]}" for held in (api, gossip)]
    places = {"API": ports[0], "GOSSIP": ports[1], "GOSSIP_ADVERTISE": ports[1]}
    copy = await cluster.live("us", name="copy", is_vouched=True, DATA=str(cluster.directory / "copy"), **places)
    await until_reborn(copy, old)
    assert (copy.counts["fenced"], us.counts["fenced"], eu.counts["fenced"]) == (1, 0, 0)
    [fenced] = lines.of("fenced: this node takes no writes under its id any more")
    assert "is connected with another node under this id" in fenced["why"]
    assert [fields["why"] for fields in lines.of("disconnected") if fields["peer"] == "us-1"] == []
    await add(us.node)
    await add(copy.node)
    await until_value(lambda: eu.node, 5)
    await asyncio.sleep(0.5)
    assert old in ids(eu.node), "the original stays a member"
    page = copy.node.metrics()[1].decode()
    assert 'crdtstore_identity_events_total{event="fenced"} 1.0' in page
    assert 'crdtstore_identity_events_total{event="left"} 1.0' in page
