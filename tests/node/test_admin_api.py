"""The routes of operators: who the members are, changes of them, orphans."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crdtstore.causal import make_replica_id
from crdtstore.commit import FORMAT, REASON, Commit, encode_commit
from crdtstore.configuration import Configuration, Member, Removed
from crdtstore.leaves import ADD
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.protocol import Entry
from crdtstore_node.node import Node
from crdtstore_node.orphans import LeftLives
from tests.node.running import MSGPACK, Nodes, call, declare, until

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
MEMBERS = "/admin/v1/members"
OLD = make_replica_id("us-1", 77)


def names_in(section: str, opening: str) -> set[str]:
    """The names of the fields in the sample of the documentation that begins so."""
    text = PAGE[PAGE.index(section) :]
    sample = text[text.index(opening) :]
    return set(re.findall(r'"([a-z_]+)":', sample[: sample.index("```")]))


def names_of(body: Any) -> set[str]:
    if isinstance(body, dict):
        return {name for name in body if name not in ("_sys", "shop")}.union(
            *(names_of(each) for each in body.values())
        )
    return set().union(*(names_of(each) for each in body)) if isinstance(body, list) else set()


async def test_the_page_of_the_members_is_as_documented(make_nodes: Callable[..., Nodes]) -> None:
    us, eu = await make_nodes("us", "eu").start_all()
    await declare(us, "shop", "counter")
    await until(lambda: "shop/0" in eu.host.groups)
    reply = await call(us, "GET", MEMBERS)
    assert reply.status == 200
    body = reply.body
    assert (body["node"], body["state"], body["cluster"]) == ("us-1", "member", "test")
    assert [each["node"] for each in body["members"]] == ["us-1", "eu-1"]
    assert names_in("## Members and orphans", '{"node": "us-1"') >= names_of(body)
    packed = await call(us, "GET", MEMBERS, accept=MSGPACK)
    assert packed.body["configuration"] == body["configuration"]
    status = (await call(us, "GET", "/v1/status")).body
    assert (status["identity"], status["why"]) == ("member", None)
    assert [(group["members"], group["split"]) for group in status["groups"]] == [(2, 0), (2, 0)]
    assert status["groups"][0]["configuration"] == body["configuration"]


async def test_an_eviction_by_http(make_nodes: Callable[..., Nodes]) -> None:
    nodes = make_nodes("us", "eu", "ap")
    us, eu, _ = await nodes.start_all()
    await nodes.stop("ap")
    await until(lambda: len(us.transport.links) == 1)
    priced = await call(us, "POST", f"{MEMBERS}/evict", {"nodes": ["ap-1"]})
    assert (priced.status, priced.body["code"], priced.body["effect"]) == (409, "confirm-needed", "none")
    at = priced.body["configuration"]
    assert priced.body["costs"]
    asked = {"nodes": ["ap-1"], "configuration": at, "yes": True, "wait_ms": 5_000}
    done = await call(us, "POST", f"{MEMBERS}/evict", asked)
    assert (done.status, [each["node"] for each in done.body["members"]]) == (200, ["us-1", "eu-1"])
    late = await call(eu, "POST", f"{MEMBERS}/evict", {**asked, "nodes": ["us-1"]})
    assert (late.status, late.body["code"]) == (409, "membership-changed")
    own = await call(
        us, "POST", f"{MEMBERS}/evict", {**asked, "nodes": ["us-1"], "configuration": done.body["configuration"]}
    )
    assert (own.status, own.body["code"]) == (400, "bad-request")


async def test_without_a_quorum_and_force(make_nodes: Callable[..., Nodes]) -> None:
    nodes = make_nodes("us", "eu", "ap")
    us, *_ = await nodes.start_all()
    await nodes.stop("ap")
    await nodes.stop("eu")
    at = (await call(us, "GET", MEMBERS)).body["configuration"]
    asked = {"configuration": at, "yes": True, "wait_ms": 300}
    reply = await call(us, "POST", f"{MEMBERS}/evict", {"nodes": ["ap-1"], **asked})
    assert (reply.status, reply.body["code"], reply.body["effect"]) == (503, "no-quorum", "unknown")
    reply = await call(us, "POST", f"{MEMBERS}/force", {"survivors": ["us-1"], "configuration": at})
    assert (reply.status, reply.body["code"]) == (409, "confirm-needed")
    reply = await call(us, "POST", f"{MEMBERS}/force", {"survivors": ["us-1"], **asked})
    assert (reply.status, [each["node"] for each in reply.body["members"]]) == (200, ["us-1"])


async def test_leaving_and_who_may_not(make_nodes: Callable[..., Nodes]) -> None:
    us, eu = await make_nodes("us", "eu").start_all()
    await declare(us, "shop", "counter")
    reply = await call(us, "POST", f"{MEMBERS}/leave", {"node": "eu-1"})
    assert (reply.status, reply.body["code"]) == (400, "bad-request")
    assert "eu-1" in reply.body["detail"]
    reply = await call(us, "POST", f"{MEMBERS}/rejoin", {"yes": True})
    assert (reply.status, reply.body["code"]) == (400, "bad-request")
    reply = await call(eu, "POST", f"{MEMBERS}/leave")
    assert (reply.status, reply.body["state"]) == (202, "leaving")
    refused = await call(eu, "PUT", "/v1/domains/crm")
    assert (refused.status, refused.body["code"]) in ((503, "leaving"), (503, "fenced"))


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", MEMBERS, {}, 405, "method-not-allowed"),
        ("GET", f"{MEMBERS}/evict", None, 405, "method-not-allowed"),
        ("GET", "/admin/v1/nothing", None, 404, "no-such-route"),
        ("GET", f"{MEMBERS}?x=1", None, 400, "bad-request"),
        ("POST", f"{MEMBERS}/evict", {"nodes": "us-1"}, 400, "bad-request"),
        ("POST", f"{MEMBERS}/evict", {"nodes": ["xx"], "more": 1}, 400, "bad-request"),
        ("POST", f"{MEMBERS}/force", {"yes": True}, 400, "bad-request"),
        ("POST", "/admin/v1/orphans/apply", {"domain": "shop", "commits": ["x"], "yes": True}, 400, "bad-request"),
        ("GET", "/admin/v1/orphans?domain=shop", None, 400, "bad-request"),
    ],
)
async def test_what_cannot_be_asked(shop: Node, method: str, path: str, body: Any, status: int, code: str) -> None:
    reply = await call(shop, method, path, body)
    assert (reply.status, reply.body["code"]) == (status, code)
    assert "Nothing changed" in reply.body["detail"]


# --- orphans of an earlier life


def commits(count: int) -> list[Entry]:
    found = []
    for seq in range(1, count + 1):
        origin = OLD if seq == 1 else 0
        effects = [ADD, ["counter:counter", "k"], seq]
        commit = Commit(FORMAT, origin, seq, seq << 16, [], "ann", [REASON, f"order {seq}"], effects)
        found.append(Entry("shop/0", OLD, encode_commit(commit)))
    return found


def leave(data: Path, entries: list[Entry]) -> Path:
    """What a directory keeps of an id it left."""
    path = data / "left" / OLD / "log"
    path.parent.mkdir(parents=True)
    log = SegmentedLog.open(path, 1 << 20)
    list(log.replay(0))
    for entry in entries:
        log.write([log.encode([entry])])
    log.close()
    return path


def remove(node: Node, final: int) -> None:
    """As if the group had settled how many commits of the old id count."""
    engine = node.host.groups["shop/0"]
    before = engine.configuration
    removed = (Removed(Member(OLD, "us"), final),)
    engine.configuration = Configuration(before.number, before.epochs, before.members, removed)


async def test_orphans_of_an_earlier_life_are_shown_and_applied(shop: Node) -> None:
    assert (await call(shop, "GET", "/admin/v1/orphans")).body == {"replicas": []}
    leave(Path(shop.config.data), commits(5))
    remove(shop, 3)
    body = (await call(shop, "GET", "/admin/v1/orphans")).body
    (life,) = body["replicas"]
    assert b"\ncrdtstore_orphans 2.0\n" in (await call(shop, "GET", "/metrics")).raw
    assert (life["replica"], life["domains"]) == (OLD, {"shop": {"final": 3, "made": 5, "orphans": 2}})
    assert names_in("## Members and orphans", '{"replicas"') >= names_of(body)
    page = (await call(shop, "GET", f"/admin/v1/orphans?replica={OLD}&domain=shop&limit=1")).body
    assert names_in("## Members and orphans", '{"orphans"') >= names_of(page)
    (first,) = page["orphans"]
    assert (first["dot"], first["author"], first["reason"]) == (f"{OLD}:4", "ann", "order 4")
    assert first["changes"] == [{"collection": "counter", "key": "k", "type": "counter", "what": "add 4"}]
    after = f"/admin/v1/orphans?replica={OLD}&domain=shop&after={page['next']}"
    (second,) = (await call(shop, "GET", after)).body["orphans"]
    asked = {"domain": "shop", "commits": [first["data"], second["data"]]}
    reply = await call(shop, "POST", "/admin/v1/orphans/apply", asked)
    assert (reply.status, reply.body["code"]) == (409, "confirm-needed")
    for _ in range(2):
        reply = await call(shop, "POST", "/admin/v1/orphans/apply", {**asked, "yes": True})
        assert (reply.status, len(reply.body["applied"]), reply.body["refused"]) == (200, 2, [])
        assert (await call(shop, "GET", "/v1/data/shop/counter/k")).body["value"] == 9
    assert names_in("## Members and orphans", '{"applied"') >= names_of(reply.body)
    (second,) = (await call(shop, "GET", after)).body["orphans"]
    assert second["applied"] == reply.body["applied"][1]["dot"]


async def test_what_can_be_read_of_a_damaged_log_is_shown(shop: Node) -> None:
    path = leave(Path(shop.config.data), commits(20))
    remove(shop, 0)
    segment = max(path.glob("*"), key=lambda file: file.stat().st_size)
    data = bytearray(segment.read_bytes())
    at = data.index(b"order 7")
    data[at] ^= 1
    segment.write_bytes(data)
    found = (await call(shop, "GET", f"/admin/v1/orphans?replica={OLD}&domain=shop")).body["orphans"]
    seen = [int(each["dot"].rpartition(":")[2]) for each in found]
    assert seen == [seq for seq in range(1, 21) if seq != 7]


async def test_a_folder_that_is_no_id_and_one_without_a_log(tmp_path: Path, shop: Node) -> None:
    (tmp_path / "left" / "notes").mkdir(parents=True)
    (tmp_path / "left" / OLD).mkdir()
    lives = LeftLives(tmp_path)
    await lives.prepare(shop.host, {})
    assert [life.replica for life in lives.lives()] == [OLD]
    assert lives.made(OLD) == {}
    shutil.rmtree(tmp_path / "left")
    await lives.prepare(shop.host, {})
    assert lives.lives() == []
