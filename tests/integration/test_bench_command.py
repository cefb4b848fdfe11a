"""``crdtstore bench`` against real nodes: in the middle of it one is killed and another cut off, and the sums are right all the same."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.clusters import Api, running, until

pytestmark = pytest.mark.slow

QUICK = ("--warm-up", "0.5", "--keys", "500", "--zipf", "0.99")


async def begin(api: Api, *arguments: str) -> asyncio.subprocess.Process:
    urls = ",".join(api.cluster.url(region) for region in api.cluster.regions)
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "crdtstore.cli", "bench", *QUICK, *arguments),
        env={**os.environ, "CRDTSTORE_URL": urls, "PYTHONWARNINGS": "error", "COLUMNS": "120"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def end(process: asyncio.subprocess.Process, code: int = 0) -> tuple[str, str]:
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == code, (out.decode(), err.decode())
    assert b"Traceback" not in err
    return out.decode(), err.decode()


async def keys_left(api: Api) -> list[Any]:
    reply = await api.send("us", "GET", "/v1/data/bench/bench-counter?limit=1000")
    return list(reply.body["items"])


async def test_a_table_for_people_and_nothing_left(tmp_path: Path) -> None:
    async with running(tmp_path) as api:
        out, err = await end(await begin(api, "--duration", "1", "--spread", "--connections", "3", "--tasks", "12"))
        assert out.startswith("latency in ms")
        assert [line.split()[1] for line in out.splitlines() if line.startswith("in ")] == ["ap", "eu", "us"]
        assert "verified: counters hold" in out
        assert "removed the" in out
        assert "measuring" in err
        assert await keys_left(api) == []
        await api.converge()


async def test_the_sums_are_right_whatever_happens_meanwhile(tmp_path: Path) -> None:
    async with running(tmp_path) as api:
        options = ("--duration", "6", "--rate", "300", "--mix", "add=8,read=2", "--timeout", "1", "--json")
        bench = await begin(api, *options, "--spread", "--connections", "3", "--tasks", "24")

        async def has_begun() -> bool:
            return (await api.send("us", "GET", "/v1/domains/bench/collections/bench-counter")).status == 200

        await until(has_begun, "the load has begun")
        await asyncio.sleep(1)
        api.cluster.partition("ap")
        await api.cluster.kill("eu")
        await asyncio.sleep(1)
        await api.cluster.start("eu", wait=False)
        api.cluster.heal()
        out, _ = await end(bench)
        found = json.loads(out)
        assert found["total"]["failed"] > 0, "one of three regions was gone for a second"
        assert found["verified"]["ok"], found["verified"]
        checked = found["verified"]
        assert checked["acknowledged"] <= checked["found"] <= checked["acknowledged"] + checked["unknown"]
        assert found["total"]["latency_ms"]["max"] >= 500, "whoever asked of the region that was gone had to wait"
        await api.converge()


async def test_ctrl_c_ends_the_load_and_what_follows_is_done(tmp_path: Path) -> None:
    async with running(tmp_path) as api:
        bench = await begin(api, "--duration", "600", "--mix", "add", "--json")

        async def has_written() -> bool:
            return bool((await api.send("us", "GET", "/v1/data/bench/bench-counter?limit=1")).body.get("items"))

        await until(has_written, "the load has written")
        bench.send_signal(signal.SIGINT)
        out, _ = await end(bench)
        found = json.loads(out)
        assert (found["interrupted"], found["verified"]["ok"], found["cleaned"]["left"]) == (True, True, 0)
        await api.converge()
        assert await keys_left(api) == []
