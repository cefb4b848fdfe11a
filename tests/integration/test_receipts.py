"""Write receipts between real processes, one of them cut off: who waits is told the truth, and what was promised is there after a crash."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from crdtstore_client import NotReplicated, UsageError, connect
from tests.integration.clusters import Api, running, until

pytestmark = pytest.mark.slow


async def commit(api: Api, region: str, **fields: Any) -> Any:
    body = {"ops": [{"op": "add", "amount": 1}], **fields}
    return await api.send(region, "POST", "/v1/data/shop/orders/de", body, timeout_s=15.0)


async def test_a_cut_a_late_receipt_and_the_healing(tmp_path: Path) -> None:
    async with running(tmp_path) as api:
        await api.declare("us", "shop", orders="counter")
        both = await commit(api, "us", regions=2, wait_ms=10_000)
        assert (both.status, both.body["durable_in"]) == (200, ["us", "ap", "eu"])

        api.cluster.partition("ap")
        one = await commit(api, "us", regions=1, wait_ms=10_000)
        assert (one.status, one.body["durable_in"]) == (200, ["us", "eu"])
        late = await commit(api, "us", regions=2, wait_ms=600)
        assert (late.status, late.body["durable_in"], late.body["values"]) == (202, ["us", "eu"], [3])

        async with connect(api.cluster.url("us"), timeout=3.0) as store:
            shop = store.domain("shop")
            with pytest.raises(NotReplicated) as caught:
                await shop.commit(shop.counter("orders")["de"].add(1), regions=2, id="order-4")
            assert (caught.value.durable_in, caught.value.effect) == (["us", "eu"], "applied")
            ack = await shop.commit(shop.counter("orders")["de"].add(1), regions=1)
            assert ack.durable_in == ("us", "eu")
            with pytest.raises(UsageError, match=r"there are 2 \(ap, eu\), got 3"):
                await shop.commit(shop.counter("orders")["de"].add(1), regions=3)
            assert await shop.counter("orders")["de"].get() == 5, (
                "nothing changed by what was refused, all else is there"
            )
            shown = await _typed(api.cluster.url("us"), "add", "shop/orders/de", "--regions", "2", "--timeout", "1")
            assert (shown[0], shown[1].strip()) == (0, "6")
            assert shown[2].startswith("note: durable in us, eu")

            waiting = asyncio.create_task(commit(api, "us", regions=2, wait_ms=15_000))
            await asyncio.sleep(0)
            api.cluster.heal()
            healed = await waiting
            assert (healed.status, healed.body["durable_in"]) == (200, ["us", "ap", "eu"]), "it waited for the healing"
            again = await shop.commit(shop.counter("orders")["de"].add(1), regions=2, id="order-4", timeout=10)
            assert (again.replayed, again.durable_in) == (True, ("us", "ap", "eu"))
        await api.converge()


async def test_what_a_receipt_names_survives_a_kill_there(tmp_path: Path) -> None:
    """us writes, eu says that it has it and is killed in that moment; while us cannot be heard eu starts from its disk alone."""
    async with running(tmp_path) as api:
        await api.declare("us", "shop", orders="counter")
        replies = [commit(api, "us", regions=2, wait_ms=10_000) for _ in range(50)]
        assert [(await reply).status for reply in replies] == [200] * 50
        await api.cluster.kill("eu")
        api.cluster.partition("eu")
        await api.cluster.start("eu", wait=False)

        async def is_there() -> bool:
            reply = await api.send("eu", "GET", "/v1/data/shop/orders/de?consistency=local")
            return reply.status == 200 and reply.body["value"] == 50

        await until(is_there, "eu shows from its own disk what a receipt promised")
        api.cluster.heal()
        await api.converge()


async def _typed(url: str, *arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "crdtstore.cli",
        *arguments,
        env={**os.environ, "CRDTSTORE_URL": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()
