"""Members that change under load, as operators do it: a region is added, a directory copied, put back, a node removed while it was away."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from crdtstore.testing.processes import NODE_COMMAND, NodeProcess, hold_port
from crdtstore_client.http import HttpTransport
from crdtstore_client.transport import NotSent, ReplyLost, Response
from tests.integration.clusters import Api, Books, check_books, group_of, running, until, writing

pytestmark = pytest.mark.slow

ADDRESSES = [f"shop/orders/{name}" for name in ("de", "fr", "jp", "us")]
QUICK = {"checkpoint_ms": 500}


def copy(source: Path | str, target: Path) -> None:
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


async def members(api: Api, region: str) -> dict[str, Any]:
    return await api.ask(region, "/admin/v1/members")


async def settled(api: Api, region: str, count: int) -> dict[str, Any] | None:
    """The members, once there are so many in every group, and no change is under way."""
    try:
        body = await members(api, region)
    except (NotSent, ReplyLost):
        return None
    groups = body["groups"]
    is_settled = all(len(group["members"]) == count and not group["waits_for"] for group in groups)
    return body if len(groups) > 1 and is_settled else None


async def ready(api: Api, region: str) -> bool:
    try:
        return (await api.send(region, "GET", "/readyz")).status == 200
    except (NotSent, ReplyLost):
        return False


async def identity(api: Api, region: str) -> str:
    status = await api.ask(region, "/v1/status")
    return str(status["groups"][0]["replica"])


async def test_a_region_is_added_under_load(tmp_path: Path) -> None:
    async with running(tmp_path, engine=QUICK) as api:
        await api.declare("us", "shop", orders="counter")
        async with writing(api, api.cluster.regions, ADDRESSES, pause_s=0.005) as books:
            await asyncio.sleep(1.0)
            await api.cluster.add("sa")
            assert (await api.write("sa", ADDRESSES[0], op="add", amount=0)).status == 200
            await asyncio.sleep(0.5)
        statuses = await api.converge()
        assert len(statuses) == 4
        whole = Books.joined(books.values())
        assert await check_books(api, "sa", whole) == []
        assert whole.refused == []
        body = await until(lambda: settled(api, "us", 4), "four members")
        assert [each["node"] for each in body["members"]] == ["us-1", "eu-1", "ap-1", "sa-1"]
        await api.cluster.kill("sa")
        await api.cluster.start("sa")  # it is a member like the others
        assert (await api.write("sa", ADDRESSES[0], op="add", amount=0)).status == 200
        api.cluster.partition("sa")
        assert (await api.write("us", ADDRESSES[0], op="add", amount=1)).status == 200
        before = await api.value("sa", ADDRESSES[0])
        await asyncio.sleep(0.3)
        assert await api.value("sa", ADDRESSES[0]) == before
        api.cluster.heal()
        await api.converge()
        assert await api.value("sa", ADDRESSES[0]) == before + 1


class Copied:
    """A node of a copied directory, on other ports."""

    def __init__(self, api: Api, region: str, directory: Path, data: Path) -> None:
        with hold_port() as http, hold_port() as gossip:
            ports = [held.getsockname()[1] for held in (http, gossip)]
        lines = api.cluster.config_path(region).read_text()
        for name, value in (
            ("data", str(data)),
            ("api", f"127.0.0.1:{ports[0]}"),
            ("gossip", f'127.0.0.1:{ports[1]}"\ngossip_advertise = "127.0.0.1:{ports[1]}'),
        ):
            lines = re.sub(f"^{name} = .*$", f'{name} = "{value}"', lines, flags=re.MULTILINE)
        path = directory / "copy.toml"
        path.write_text(lines)
        self.process = NodeProcess(
            "copy",
            [*NODE_COMMAND, "--config", str(path), "--exit-with-stdin"],
            address=("127.0.0.1", ports[0]),
            log_path=directory / "copy.log",
            cwd=directory,
        )
        self._url = f"http://127.0.0.1:{ports[0]}"
        self._transport = HttpTransport()

    async def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Response:
        return await self._transport.request(self._url, method, path, body=body, headers={}, timeout=5.0)

    async def close(self) -> None:
        await self._transport.close()
        await self.process.stop()


async def test_a_copied_directory_and_its_original_are_both_started(tmp_path: Path) -> None:
    async with running(tmp_path / "cluster", engine=QUICK) as api:
        await api.declare("us", "shop", orders="counter")
        async with writing(api, ["us"], ADDRESSES) as first:
            await asyncio.sleep(0.5)
        await api.cluster.kill("us")
        copy(api.cluster.data_path("us"), tmp_path / "copy")
        await api.cluster.start("us")
        old = await identity(api, "us")
        copied = Copied(api, "us", tmp_path, tmp_path / "copy")
        try:
            async with writing(api, api.cluster.regions, ADDRESSES) as second:
                await copied.process.start()
                new = (await copied.send("GET", "/v1/status")).body["groups"][0]["replica"]
                dots = set()
                for address in ADDRESSES * 5:
                    reply = await copied.send("POST", f"/v1/data/{address}", {"ops": [{"op": "add", "amount": 0}]})
                    assert reply.status == 200
                    dots.add(reply.body["dot"])
            assert new != old
            assert len(dots) == 20
            assert all(dot.startswith(f"{new}:") for dot in dots)
            statuses = await api.converge()
            books = Books.joined([*first.values(), *second.values()])  # fails when a dot was given twice
            assert books.refused == []
            for region in api.cluster.regions:
                assert await check_books(api, region, books) == []
            assert await identity(api, "us") == old, "the original goes on"
            assert group_of(statuses["us"], "shop")["vector"][new] == 20
            assert (tmp_path / "copy" / "left" / old / "log").is_dir()
        finally:
            await copied.close()


async def test_an_older_copy_is_put_back_over_a_directory(tmp_path: Path) -> None:
    async with running(tmp_path / "cluster", engine=QUICK) as api:
        await api.declare("us", "shop", orders="counter")
        async with writing(api, ["ap"], ADDRESSES) as first:
            await asyncio.sleep(0.3)
        await api.converge()
        await api.cluster.stop("ap")
        copy(api.cluster.data_path("ap"), tmp_path / "older")
        await api.cluster.start("ap")
        old = await identity(api, "ap")
        async with writing(api, api.cluster.regions, ADDRESSES) as second:
            await asyncio.sleep(0.5)
        await api.converge()
        await api.cluster.kill("ap")
        copy(f"{tmp_path / 'older'}/.", api.cluster.data_path("ap"))
        await api.cluster.start("ap")  # it is ready once it is a member again
        assert await identity(api, "ap") != old
        assert (await api.write("ap", ADDRESSES[0], op="add", amount=0)).status == 200
        await api.converge()
        books = Books.joined([*first.values(), *second.values()])
        for region in api.cluster.regions:
            assert await check_books(api, region, books) == []
        body = await until(lambda: settled(api, "us", 3), "the old id is gone")
        assert [each["replica"] for each in body["removed"]] == [old]


async def test_a_node_is_removed_while_it_is_away_and_comes_back(tmp_path: Path) -> None:
    async with running(tmp_path, engine=QUICK) as api:
        await api.declare("us", "shop", orders="counter")
        old = await identity(api, "ap")
        api.cluster.partition("ap")
        lost = [await api.write("ap", ADDRESSES[0], op="add", amount=1000) for _ in range(3)]
        await api.cluster.kill("ap")
        api.cluster.heal()
        body = await members(api, "us")
        asked = {"nodes": ["ap-1"], "configuration": body["configuration"], "yes": True}
        assert (await api.send("us", "POST", "/admin/v1/members/evict", asked, 15.0)).status == 200
        await until(lambda: settled(api, "us", 2), "two members")
        assert (await api.write("eu", ADDRESSES[0], op="add", amount=5)).status == 200

        starting = asyncio.ensure_future(api.cluster.start("ap"))

        async def knows() -> bool:
            try:
                return bool((await members(api, "ap"))["state"] == "removed")
            except (NotSent, ReplyLost):
                return False

        await until(knows, "ap hears that it was removed")
        refused = await api.write("ap", ADDRESSES[0], op="add", amount=1)
        assert (refused.status, refused.body["code"]) == (503, "fenced")
        read = await api.ask("ap", f"/v1/data/{ADDRESSES[0]}")
        assert (read["value"], read["identity"]) == (3000, "removed")
        assert (await api.send("ap", "POST", "/admin/v1/members/rejoin", {"yes": True})).status == 202
        await starting
        await until(lambda: settled(api, "us", 3), "three members")
        await until(lambda: ready(api, "ap"), "ap is one of them")
        assert await identity(api, "ap") != old
        await api.converge()
        assert await api.value("ap", ADDRESSES[0]) == 5
        orphans = (await api.ask("ap", "/admin/v1/orphans"))["replicas"]
        assert [(each["replica"], each["domains"]["shop"]["orphans"]) for each in orphans] == [(old, 3)]
        found = (await api.ask("ap", f"/admin/v1/orphans?replica={old}&domain=shop"))["orphans"]
        assert [each["dot"] for each in found] == [reply.body["dot"] for reply in lost]


async def test_a_region_dies_again_and_again_while_it_joins(tmp_path: Path) -> None:
    async with running(tmp_path, engine=QUICK) as api:
        await api.declare("us", "shop", orders="counter")
        async with writing(api, api.cluster.regions, ADDRESSES) as books:
            for attempt, delay_s in enumerate((0.0, 0.4)):
                await (api.cluster.start if attempt else api.cluster.add)("sa", wait=False)
                await asyncio.sleep(delay_s)
                await api.cluster.kill("sa")
            await api.cluster.start("sa")
        await api.converge()
        whole = Books.joined(books.values())
        assert (await check_books(api, "sa", whole), whole.refused) == ([], [])
        body = await until(lambda: settled(api, "us", 4), "four members: it has had one id")
        assert body["removed"] == []
