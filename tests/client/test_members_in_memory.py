"""The commands for members against the production request rules and engine, in memory: a region is cut off, removed, heard again."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import pytest
from click.testing import CliRunner, Result

from crdtstore.cli import main
from crdtstore.errors import CrdtStoreError, problem
from crdtstore.service import PeerChanged, Request
from crdtstore_client import NotSent, ReplyLost, Response, connect
from tests.client.regions import Regions, elsewhere

DEADLINE_S = 20.0
ACTIONS = {
    "members": "members_status",
    "members/leave": "member_leave",
    "members/evict": "member_evict",
    "members/force": "member_force",
    "members/rejoin": "member_rejoin",
    "orphans": "orphans",
    "orphans/apply": "orphan_apply",
}


class AdminRegions(Regions):
    """Regions that also take requests of operators."""

    async def request(
        self,
        url_base: str,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None,
        headers: Mapping[str, str],
        timeout: float,  # noqa: ASYNC109
    ) -> Response:
        if not path.startswith("/admin/v1/"):
            return await super().request(url_base, method, path, body=body, headers=headers, timeout=timeout)
        region = url_base.removeprefix("http://")
        if region in self.dead:
            raise NotSent(f"{region} is dead")
        path, _, query = path.removeprefix("/admin/v1/").partition("?")
        fields = dict(body or {})
        fields |= {name: int(value) if name in {"limit", "after"} else value for name, value in parse_qsl(query)}
        self._tickets += 1
        ticket = self._tickets
        self.step(region, Request(ticket, ACTIONS[path], fields))
        end = time.monotonic() + timeout
        while ticket not in self._replies:
            if time.monotonic() > end:
                raise ReplyLost(f"{region} did not answer")
            await asyncio.sleep(0.002)
            self.tick()
        reply = self._replies.pop(ticket)
        if isinstance(reply, CrdtStoreError):
            return Response(reply.status, problem(reply))
        return Response(202 if path.endswith(("leave", "rejoin")) else 200, reply)

    def connect_all(self, region: str, *, is_connected: bool) -> None:
        """What the links say of one region."""
        for other in self._replica:
            if other != region:
                self.step(region, PeerChanged(self._replica[other], is_connected))
                self.step(other, PeerChanged(self._replica[region], is_connected))

    def until(self, condition: Any) -> None:
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end
            self.tick()
            time.sleep(0.002)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDTSTORE_URL", "http://us,http://eu,http://ap")
    monkeypatch.delenv("CRDTSTORE_AUTH", raising=False)
    monkeypatch.setattr("crdtstore_client.cli_doctor.AGAIN_SECONDS", 0.001)


@pytest.fixture
def world() -> AdminRegions:
    world = AdminRegions()

    async def prepare() -> None:
        async with connect("http://us", transport=world) as store:
            await store.domain("shop").declare("orders", "counter")
            await world.settle()
            await store.domain("shop").counter("orders")["de"].add(3)
            await world.settle()

    asyncio.run(prepare())
    return world


def run(world: AdminRegions, *args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, list(args), obj={"transport": world})
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def body_of(world: AdminRegions, *args: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(run(world, *args, "--json").stdout)
    return body


def checks(world: AdminRegions) -> list[str]:
    result = CliRunner().invoke(main, ["doctor", "--json"], obj={"transport": world})
    findings = json.loads(result.stdout)["findings"]
    assert result.exit_code == (1 if findings else 0), result.stderr
    return [each["check"] for each in findings]


def is_settled(world: AdminRegions, replica: str) -> bool:
    """Whether us-1 knows of every group how many commits of a removed id count."""
    found = [
        each["final"] for each in body_of(world, "member", "status", "us-1")["removed"] if each["replica"] == replica
    ]
    return bool(found) and set(found[0]) == {"_sys", "shop"} and None not in found[0].values()


def kept(world: AdminRegions) -> dict[str, Any]:
    """What ap-1 says of the id that was removed."""
    replicas = body_of(world, "orphan", "list")["replicas"]
    domains: dict[str, Any] = replicas[0]["domains"] if replicas else {}
    return domains


def test_a_region_is_cut_off_removed_and_what_it_had_is_made_anew(world: AdminRegions) -> None:
    assert checks(world) == []
    world.cut = {"ap"}
    world.connect_all("ap", is_connected=False)

    async def write() -> None:
        await elsewhere(world, "ap").counter("orders")["de"].add(5)

    asyncio.run(write())
    before = body_of(world, "member", "list", "--url", "http://us")
    costs = run(world, "member", "evict", "ap-1", code=3).stdout
    assert "2 members of 3 will remain: us-1, eu-1" in costs
    assert body_of(world, "member", "list", "--url", "http://us")["configuration"] == before["configuration"]

    done = run(world, "member", "evict", "ap-1", "--configuration", before["configuration"], "--yes").stdout
    assert "members us-1, eu-1" in done.splitlines()[-1]
    world.until(lambda: is_settled(world, world._replica["ap"]))
    stale = run(world, "member", "evict", "eu-1", "--configuration", before["configuration"], "--yes", code=3)
    assert "membership-changed" in stale.stderr
    assert [each["node"] for each in body_of(world, "member", "list")["members"]] == ["us-1", "eu-1"]

    world.cut = set()
    world.connect_all("ap", is_connected=True)
    world.until(lambda: kept(world).get("shop", {}).get("final") is not None)
    assert kept(world)["shop"] == {"final": 0, "made": 1, "orphans": 1, "applied": 0}
    assert checks(world) == ["removed", "orphans"]
    [replica] = [each["replica"] for each in body_of(world, "orphan", "list")["replicas"]]
    [orphan] = body_of(world, "orphan", "show", replica)["orphans"]
    assert orphan["changes"][0]["key"] == "de"
    assert "this commit anew needs --yes" in run(world, "orphan", "apply", replica, code=3).stderr
    assert value(world) == 3
    assert "applied  ap-1.00000000:" in run(world, "orphan", "apply", replica, "--yes").stdout
    run(world, "orphan", "apply", replica, "--yes")
    assert value(world) == 8


def test_a_node_leaves_with_all_it_has(world: AdminRegions) -> None:
    assert "in us-1, ap-1; nothing is lost" in run(world, "member", "leave", "eu-1", code=3).stdout
    assert body_of(world, "member", "status", "eu-1")["state"] == "member"
    run(world, "member", "drain", "eu-1", "--yes")
    assert body_of(world, "member", "status", "eu-1")["state"] in {"leaving", "removed"}
    world.until(lambda: is_settled(world, world._replica["eu"]))
    assert [each["node"] for each in body_of(world, "member", "list")["members"]] == ["us-1", "ap-1"]
    assert value(world) == 3


def test_a_node_says_itself_that_it_left(world: AdminRegions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crdtstore_client.cli_join.POLL_SECONDS", 0.002)
    inner = world.request

    async def request(*args: Any, **kwargs: Any) -> Response:
        world.tick()
        return await inner(*args, **kwargs)

    monkeypatch.setattr(world, "request", request)
    lines = run(
        world, "member", "leave", "--yes", "--wait", "--url", "http://eu", "--timeout", "20"
    ).stdout.splitlines()
    assert lines[-1] == "eu-1 has left, as it says itself: all it had is elsewhere, and it can be stopped"


def test_one_goes_on_without_the_others(world: AdminRegions) -> None:
    world.cut = {"us"}
    world.connect_all("us", is_connected=False)
    url = ("--url", "http://us")
    assert body_of(world, "member", "status", *url)["quorum"]["reachable"] is False
    refused = run(world, "member", "evict", "eu-1", "--yes", "--timeout", "0.1", *url, code=4)
    assert "if they are gone for good: crdtstore --url=http://us member force us-1" in refused.stderr
    assert "the others are a quorum" in run(world, "member", "force", "us-1", *url, code=3).stdout
    assert len(body_of(world, "member", "list", *url)["members"]) == 3
    assert "members us-1" in run(world, "member", "force", "us-1", "--yes", *url).stdout
    assert [each["node"] for each in body_of(world, "member", "list", *url)["members"]] == ["us-1"]
    world.cut = set()
    world.connect_all("us", is_connected=True)
    for name in ("eu-1", "ap-1"):
        world.until(lambda name=name: body_of(world, "member", "status", name)["state"] == "removed")
    world.until(lambda: checks(world) == ["removed", "removed"])


def value(world: AdminRegions) -> int:
    async def read() -> int:
        amount: int = await elsewhere(world, "us").counter("orders")["de"].get()
        return amount

    return asyncio.run(read())
