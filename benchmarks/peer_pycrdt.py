"""pycrdt-websocket as a peer; runs under build/peers, where ``make bench-peers`` installs it, and knows nothing of this project.

``serve PORT``; ``load PORT UPDATES ROOM``: one client sets map entries, one by one, until another has them all; prints one JSON line.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import anyio
import anyio.lowlevel
from httpx_ws import aconnect_ws
from hypercorn.asyncio import serve
from hypercorn.config import Config
from pycrdt import Doc, Map, Provider
from pycrdt.websocket import ASGIServer, WebsocketServer
from pycrdt.websocket.websocket import HttpxWebsocket


async def _serve(port: int) -> None:
    server = WebsocketServer(auto_clean_rooms=False)
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.loglevel = "ERROR"
    async with server:
        await serve(ASGIServer(server), config, mode="asgi")


async def _load(port: int, updates: int, room: str) -> None:
    url = f"http://127.0.0.1:{port}/{room}"
    source, target = Doc(), Doc()
    written = source.get("orders", type=Map)
    read = target.get("orders", type=Map)
    async with (
        aconnect_ws(url) as one,
        aconnect_ws(url) as other,
        Provider(source, HttpxWebsocket(one, room)),
        Provider(target, HttpxWebsocket(other, room)),
    ):
        await anyio.sleep(0.3)
        start = time.perf_counter()
        for number in range(updates):
            written[f"key-{number % 1000}"] = number
            if number % 64 == 63:
                await anyio.lowlevel.checkpoint()
        written["end"] = updates
        with anyio.fail_after(100):
            while read.get("end") != updates:  # noqa: ASYNC110 (what a document has is not told by an event)
                await anyio.sleep(0.001)
        seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(_serve(int(sys.argv[2])))
    else:
        asyncio.run(_load(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
