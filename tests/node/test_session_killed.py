"""A node that is killed under sessions: what it acknowledged is there when it is back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from crdtstore.testing.processes import LocalCluster
from crdtstore.values import from_msgpack, to_msgpack
from tests.node.talking import commit, read

SESSIONS = 6
BATCH = 32


async def _write(url: str, number: int, acknowledged: dict[str, int], unknown: set[str]) -> None:
    """Adds to keys of its own until the connection is gone; each request has a key and an amount of its own."""
    sent = 0
    async with aiohttp.ClientSession() as client, client.ws_connect(f"{url}/v1/session", max_msg_size=0) as socket:
        await socket.receive_bytes()
        unanswered: dict[int, tuple[str, int]] = {}
        try:
            while True:
                batch = []
                for _ in range(BATCH - len(unanswered)):
                    sent += 1
                    key, amount = f"s{number}-{sent}", sent
                    unanswered[sent % 1000] = (key, amount)
                    batch.append(commit(sent % 1000, key, amount))
                if batch:
                    await socket.send_bytes(to_msgpack(batch))
                message = await socket.receive()
                if message.type is not aiohttp.WSMsgType.BINARY:
                    break
                replies: Any = from_msgpack(message.data)
                for reply in replies if isinstance(replies, list) else [replies]:
                    key, amount = unanswered.pop(reply["n"])
                    assert reply["values"] == [amount]
                    acknowledged[key] = amount
        except (ConnectionError, aiohttp.ClientError):
            pass
        unknown |= {key for key, _ in unanswered.values()}


@pytest.mark.slow
async def test_all_that_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, ("us",)) as cluster:
        url = cluster.url("us")
        async with aiohttp.ClientSession() as client:
            for path, body in (("", {}), ("/collections/counter", {"type": "counter"})):
                async with client.put(
                    f"{url}/v1/domains/shop{path}", data=json.dumps(body), headers={"Content-Type": "application/json"}
                ) as reply:
                    assert reply.status == 200
        acknowledged: dict[str, int] = {}
        unknown: set[str] = set()
        for _ in range(3):
            before = len(acknowledged)
            writers = [
                asyncio.ensure_future(_write(url, number, acknowledged, unknown))
                for number in range(len(acknowledged), len(acknowledged) + SESSIONS)
            ]
            async with asyncio.timeout(30):
                while len(acknowledged) < before + 2_000:  # noqa: ASYNC110 - what is waited for has no event
                    await asyncio.sleep(0.01)
            await cluster.kill("us")
            await asyncio.gather(*writers)
            await cluster.start("us")
        async with aiohttp.ClientSession() as client, client.ws_connect(f"{url}/v1/session", max_msg_size=0) as socket:
            await socket.receive_bytes()
            found: dict[str, int] = {}
            keys = sorted(acknowledged) + sorted(unknown)
            for at in range(0, len(keys), 500):
                batch = keys[at : at + 500]
                await socket.send_bytes(to_msgpack([read(n, key) for n, key in enumerate(batch)]))
                left = len(batch)
                while left:
                    replies: Any = from_msgpack(await socket.receive_bytes())
                    for reply in replies if isinstance(replies, list) else [replies]:
                        left -= 1
                        if reply["exists"]:
                            found[batch[reply["n"]]] = reply["value"]
        assert {key: found.get(key) for key in acknowledged} == acknowledged
        amounts = {key: int(key.rpartition("-")[2]) for key in found}
        assert found == amounts  # a write whose answer was lost is there once, or not at all
