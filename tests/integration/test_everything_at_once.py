"""Three real nodes under everything at once: power cuts, pauses, cuts of any kind, delays, resets, doubled streams.

Which fault comes when is drawn from a seed. Writers use the client as an application would, so they go to other regions and repeat under
the same id; what was acknowledged to them is counted once, whatever happened.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest

from crdtstore.testing import powercut
from crdtstore.testing.processes import LocalCluster
from crdtstore_client import OutcomeUnknown, Unavailable, connect
from tests.integration.clusters import Api, running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(powercut.available() is not None, reason=f"no power cuts here: {powercut.available()}"),
]

FAULTS_S = 6.0
KEYS = ["de", "fr", "jp"]


class Tally:
    """What all writers together know."""

    def __init__(self) -> None:
        self.acknowledged = self.unknown = self.refused = 0

    async def write(self, urls: list[str], ended: asyncio.Event) -> None:
        async with connect(*urls, timeout=4.0) as store:
            orders = store.domain("shop").counter("orders")
            while not ended.is_set():
                try:
                    await orders[random.choice(KEYS)].add()
                except OutcomeUnknown:
                    self.unknown += 1
                except Unavailable:
                    self.refused += 1
                else:
                    self.acknowledged += 1
                await asyncio.sleep(0.01)


class Chaos:
    """Faults as a seed draws them; at most one node at a time does not run."""

    def __init__(self, cluster: LocalCluster, seed: int) -> None:
        self._cluster = cluster
        self._dice = random.Random(seed)
        self.history: list[str] = []

    async def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await self._next()
            await asyncio.sleep(self._dice.random() * 0.6)
        self.history.append("all is well again")
        await self._wake_all()
        self._cluster.heal()
        self._cluster.proxy.clear()

    async def _next(self) -> None:
        cluster, dice = self._cluster, self._dice
        one, other = dice.sample(cluster.regions, 2)
        fault = dice.choice(["kill", "pause", "wake", "cut", "one way", "part", "heal", "delay", "reset", "double"])
        self.history.append(f"{fault} {one} {other}")
        link = cluster.link(one, other)
        match fault:
            case "kill" | "pause" | "wake":
                await self._wake_all()
                if fault != "wake":
                    await (cluster.kill(one) if fault == "kill" else cluster.pause(one))
            case "cut":
                cluster.partition(one)
            case "one way":
                cluster.one_way(one, other)
            case "part":
                cluster.partition_pair(one, other)
            case "heal":
                cluster.heal(reset=dice.random() < 0.5)
            case "delay":
                link.delay(dice.random() * 100, dice.random() * 100)
            case "reset":
                link.reset()
            case _:
                link.duplicate(dice.random() < 0.5)

    async def _wake_all(self) -> None:
        for region in self._cluster.regions:
            if self._cluster.node(region).state == "paused":
                self._cluster.resume(region)
            elif self._cluster.node(region).state == "killed":
                await self._cluster.start(region)


async def run_all(api: Api, seed: int) -> tuple[Tally, Chaos]:
    urls, tally, chaos, ended = list(api.cluster.urls.values()), Tally(), Chaos(api.cluster, seed), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for first in range(6):
            tasks.create_task(tally.write(urls[first % 3 :] + urls[: first % 3], ended))
        try:
            await chaos.run(FAULTS_S)
        finally:
            ended.set()
    return tally, chaos


@pytest.mark.parametrize("seed", [5])
async def test_what_was_acknowledged_is_counted_once_everywhere(tmp_path: Path, seed: int) -> None:
    async with running(tmp_path, env=powercut.environment(tmp_path, leak=seed)) as api:
        await api.declare("us", "shop", orders="counter")
        tally, chaos = await run_all(api, seed)
        statuses = await api.converge(40.0)
        assert [status["gossip"]["rejected"] for status in statuses.values()] == [0, 0, 0], chaos.history
        assert tally.acknowledged > 100, chaos.history
        for region in api.cluster.regions:
            counted = sum([await api.value(region, f"shop/orders/{key}") for key in KEYS])
            assert tally.acknowledged <= counted <= tally.acknowledged + tally.unknown, (region, chaos.history)
