"""A node is killed again and again while writers retry under operation ids: what was acknowledged counts once, nothing counts twice.

The question: which kills matter? Those between the sync and the reply: the write is on disk, its writer does not know, and asks again.
So a part of the kills comes from inside, right after or before a sync or a write, and the others at any moment. The page cache survives
SIGKILL, so this says nothing of durability (``test_power_cut`` does), and all the more of recovery and operation ids.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from crdtstore.testing import diskfaults
from crdtstore.testing.diskfaults import Call, DiskFaults
from crdtstore_client.http import HttpTransport
from crdtstore_client.transport import NotSent, ReplyLost
from tests.faults.lengths import IS_SOAK, short_or_long
from tests.faults.recorded import TABLES, fast_directory
from tests.integration.clusters import Api, group_of, running, until

pytestmark = pytest.mark.slow

KILLS = short_or_long(20, 200)
WRITERS = 8
ADDRESS = "shop/orders/total"
BETWEEN_KILLS = 15
"""Acknowledgements, at least, so that no kill hits a node that nobody writes to."""


@dataclass
class Ledger:
    """What the writers know."""

    acknowledged: int = 0
    asked_again: int = 0
    replayed: int = 0
    dots: list[str] = field(default_factory=list)


class Writers:
    """Each writes 1 after the other, and asks for each until it is acknowledged, in whichever region answers."""

    def __init__(self, api: Api, *, has_new_ids: bool = False) -> None:
        self.ledger = Ledger()
        self._api = api
        self._has_new_ids = has_new_ids
        self._is_ended = False
        self._ids = itertools.count()
        self._transport = HttpTransport()

    async def write(self, number: int) -> None:
        """Until told to end; a write that was begun is finished."""
        regions = self._api.cluster.regions
        home = number % len(regions)
        while not self._is_ended:
            key, ledger = f"write-{next(self._ids)}", self.ledger
            for attempt in itertools.count():
                region = regions[(home + attempt) % len(regions)]
                reply = await self._ask(region, f"{key}-{attempt}" if self._has_new_ids else key)
                if reply is not None:
                    break
                ledger.asked_again += 1
                await asyncio.sleep(0.02)
            ledger.acknowledged += 1
            ledger.replayed += reply["replayed"]
            ledger.dots.append(reply["dot"])

    async def _ask(self, region: str, key: str) -> dict[str, Any] | None:
        body, headers = {"ops": [{"op": "add", "amount": 1}]}, {"Idempotency-Key": key}
        url = self._api.cluster.url(region)
        try:
            reply = await self._transport.request(
                url, "POST", f"/v1/data/{ADDRESS}", body=body, headers=headers, timeout=5.0
            )
        except (NotSent, ReplyLost):
            return None
        assert reply.status in (200, 503), reply
        return reply.body if reply.status == 200 else None

    async def end(self) -> None:
        self._is_ended = True

    async def close(self) -> None:
        await self._transport.close()


async def kill_once(api: Api, region: str, disk: DiskFaults | None, random: Random) -> None:
    """One end of a process, at any moment or at a chosen call."""
    node = api.cluster.node(region)
    how = random.randrange(4) if disk is not None else 0
    if disk is None or how == 0:
        await asyncio.sleep(random.random() * 0.02)
        await api.cluster.kill(region)
        return
    call = Call.WRITE if how == 3 else Call.SYNC
    disk.put(call, first=random.randint(1, 4), stop=1 if how == 2 else 2, name="log/*.log")

    async def is_gone() -> bool:
        return node.pid is None

    await until(is_gone, f"the process ends at a {call.name}")
    disk.clear()


async def kill_again_and_again(
    directory: Path, regions: list[str], kills: int, *, seed: int = 1, has_new_ids: bool = False
) -> tuple[Ledger, dict[str, int], int]:
    """The ledger, the value in every region, and how many commits one region made."""
    random = Random(seed)
    has_shim = diskfaults.available() is None
    disks = {region: DiskFaults(directory / f"{region}-1", directory / f"{region}.control") for region in regions}
    # One control file for all nodes would do too, but a kill is for one of them.
    env = disks[regions[0]].environment() if has_shim else {}
    async with running(directory, regions, env=env, **TABLES) as api:
        await api.declare(regions[0], "shop", orders="counter")
        writers = Writers(api, has_new_ids=has_new_ids)
        async with asyncio.TaskGroup() as tasks:
            for number in range(WRITERS):
                tasks.create_task(writers.write(number))
            for _ in range(kills):
                enough = writers.ledger.acknowledged + BETWEEN_KILLS

                async def is_enough(enough: int = enough) -> bool:
                    return writers.ledger.acknowledged >= enough

                await until(is_enough, f"{enough} writes are acknowledged")
                region = random.choice(regions)
                await kill_once(api, region, disks[region] if has_shim and region == regions[0] else None, random)
                await api.cluster.start(region)
            await writers.end()
        await writers.close()
        await api.cluster.kill(regions[0])
        await api.cluster.start(regions[0])
        statuses = await api.converge()
        values = {region: await api.value(region, ADDRESS) for region in regions}
    return writers.ledger, values, sum(group_of(statuses[regions[0]], "shop")["vector"].values())


@pytest.fixture
def directory() -> Iterator[Path]:
    with fast_directory() as made:
        yield made


async def test_through_kills_each_write_counts_once(directory: Path) -> None:
    ledger, values, commits = await kill_again_and_again(directory, ["us"], KILLS)
    assert values == {"us": ledger.acknowledged}
    assert len(set(ledger.dots)) == ledger.acknowledged == commits, "as many commits as writes, none is there unasked"
    assert ledger.asked_again >= KILLS
    if diskfaults.available() is None:
        assert ledger.replayed, "no write was on disk before its writer knew, so this proves little"


@pytest.mark.skipif(not IS_SOAK, reason="long; make soak runs it")
async def test_in_a_cluster_each_write_counts_once_wherever_it_is_repeated(directory: Path) -> None:
    ledger, values, commits = await kill_again_and_again(directory, ["us", "eu", "ap"], KILLS // 4, seed=2)
    assert values == dict.fromkeys(["us", "eu", "ap"], ledger.acknowledged)
    assert ledger.replayed or commits > ledger.acknowledged, "nothing was tried in two regions, so this proves little"


@pytest.mark.skipif(diskfaults.available() is not None, reason=f"kills at no chosen call: {diskfaults.available()}")
async def test_writers_that_repeat_under_new_ids_are_found_out(directory: Path) -> None:
    ledger, values, _ = await kill_again_and_again(directory, ["us"], 3, seed=3, has_new_ids=True)
    assert values["us"] > ledger.acknowledged
