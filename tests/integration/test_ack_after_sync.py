"""Acknowledged means on disk: a power cut in the middle of load takes nothing that was acknowledged.

A node runs under the shim of ``crdtstore.testing.powercut``, which keeps what was not synced in the memory of the process, and is killed
with SIGKILL while several connections write. The test is believed because the same test with the sync planted out fails.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from crdtstore.testing import powercut
from crdtstore.testing.processes import NODE_COMMAND
from crdtstore_client.transport import NotSent, ReplyLost
from tests.integration.clusters import Api, Books, check_books, group_of, running, until, writing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(powercut.available() is not None, reason=f"no power cuts here: {powercut.available()}"),
]

ADDRESSES = [f"shop/orders/{key}" for key in ("de", "fr", "jp")]
WRITERS = 8
ACKNOWLEDGED = 150
"""The kill comes when so many writes were acknowledged."""


async def cut_power(api: Api, region: str, books: Books) -> None:
    """Kill a node in the middle of load. From a thread: on this loop it would always come between two rounds of replies."""

    async def is_enough() -> bool:
        return len(books.dots) >= ACKNOWLEDGED

    async def is_noticed() -> bool:
        return bool(books.unknown or books.not_sent)

    try:
        await until(is_enough, f"{ACKNOWLEDGED} writes are acknowledged")
    except AssertionError as error:
        raise AssertionError(f"{error}; {books}") from None
    pid = api.cluster.node(region).pid
    assert pid is not None

    def kill() -> None:
        time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)

    await asyncio.to_thread(kill)
    await until(is_noticed, "writers notice that the node is gone")


async def cut_power_under_load(
    directory: Path, environment: Mapping[str, str], command: Sequence[str] = NODE_COMMAND
) -> tuple[Books, list[str]]:
    """Found a node, run it under the shim, kill it while it is written to, start it again; what is missing then."""
    async with running(directory, ["us"]) as api:
        await api.declare("us", "shop", orders="counter")
    async with (
        running(directory, env=environment, command=command) as api,
        writing(api, ["us"], ADDRESSES, writers=WRITERS, pause_s=0) as by_region,
    ):
        await cut_power(api, "us", by_region["us"])
        books = by_region["us"]
    assert not books.refused
    async with running(directory) as api:
        return books, await check_books(api, "us", books)


async def test_a_power_cut_takes_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    _, missing = await cut_power_under_load(tmp_path, powercut.environment(tmp_path / "us-1"))
    assert missing == []


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_torn_sectors_at_the_end_of_the_log_take_nothing_either(tmp_path: Path, seed: int) -> None:
    _, missing = await cut_power_under_load(tmp_path, powercut.environment(tmp_path / "us-1", leak=seed))
    assert missing == []


ACKNOWLEDGES_EARLY = """
import os, time
from crdtstore.cli import main
from crdtstore_node.writer import LogWriter

def put(self, number, record, put=LogWriter.put):
    put(self, number, record)
    self._loop.call_soon(self._on_written, number, -1)

def fdatasync(descriptor, fdatasync=os.fdatasync):
    time.sleep(0.02)
    fdatasync(descriptor)

LogWriter.put, os.fdatasync = put, fdatasync
main(prog_name="crdtstore")
"""


async def test_a_node_that_acknowledges_before_the_sync_is_found_out(tmp_path: Path) -> None:
    """The plant changes one production function; the disk is slow, so that the kill falls between reply and sync."""
    _, missing = await cut_power_under_load(
        tmp_path, powercut.environment(tmp_path / "us-1"), [sys.executable, "-c", ACKNOWLEDGES_EARLY, "node"]
    )
    assert missing


async def test_without_the_sync_this_test_finds_what_is_missing(tmp_path: Path) -> None:
    environment = powercut.environment(tmp_path / "us-1", ignore_sync=True)
    books, missing = await cut_power_under_load(tmp_path, environment)
    assert len(missing) == len(books.dots) + len(books.acknowledged), "nothing was synced, so everything is missing"


async def load_and_cut_power(api: Api, region: str) -> Books:
    """Writes in every region while one of them loses power; what was acknowledged anywhere."""
    async with writing(api, api.cluster.regions, ADDRESSES, writers=2) as by_region:
        await cut_power(api, region, by_region[region])
        await asyncio.sleep(0.3)  # the others go on without it
    return Books.joined(by_region.values())


async def test_regions_agree_after_one_of_them_lost_power(tmp_path: Path) -> None:
    """Nothing is told to others before it is durable: otherwise a dot of the restarted node would have two contents."""
    async with running(tmp_path, env=powercut.environment(tmp_path, leak=4)) as api:
        await api.declare("us", "shop", orders="counter")
        books = await load_and_cut_power(api, "us")
        await api.cluster.start("us")
        assert (await api.write("us", ADDRESSES[0], op="add", amount=0)).status == 200
        statuses = await api.converge()
        assert [status["gossip"]["rejected"] for status in statuses.values()] == [0, 0, 0]
        for region in api.cluster.regions:
            assert await check_books(api, region, books) == []


async def test_a_node_that_lost_what_it_told_others_takes_another_id(tmp_path: Path) -> None:
    """The same without the sync: its dots are known elsewhere, so it may not give them out again."""
    async with running(tmp_path) as api:
        await api.declare("us", "shop", orders="counter")
        await api.converge()
    environment = powercut.environment(tmp_path / "us-1", ignore_sync=True)
    async with running(tmp_path, env=environment, ready_path="/healthz") as api:  # it is ready for a moment, or never
        old = group_of(await api.ask("us", "/v1/status"), "shop")["replica"]
        books = await load_and_cut_power(api, "us")
        await api.cluster.start("us")

        async def writes() -> bool:
            try:
                reply = await api.write("us", ADDRESSES[0], op="add", amount=0)
            except (NotSent, ReplyLost):  # it begins anew
                return False
            assert reply.status == 503 or not reply.body["dot"].startswith(old), "it gave a dot out again"
            return reply.status == 200

        await until(writes, "the node is a member again, under another id")
        statuses = await api.converge()
        others = Books(dots={dot for dot in books.dots if not dot.startswith(old)})
        assert others.missing(group_of(statuses["us"], "shop")["vector"], {}) == []
