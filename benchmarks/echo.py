"""The least that aiohttp can do: a POST answered with a constant, WebSocket frames sent back as they came.

``python -m benchmarks.echo serve PORT``; ``… load PORT SECONDS`` keeps 64 frames under way on one connection and prints one JSON line.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aiohttp
import uvloop
from aiohttp import web

FRAME = b"x" * 150
"""About as long as one request of a session."""
UNDER_WAY = 64
_ANSWER = b"y" * 150


async def _answer(request: web.BaseRequest) -> web.StreamResponse:
    if request.headers.get("Upgrade", "").lower() == "websocket":
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for message in socket:
            await socket.send_bytes(message.data)
        return socket
    await request.read()
    return web.Response(body=_ANSWER, headers={"Content-Type": "application/msgpack"})


async def _serve(port: int) -> None:
    runner = web.ServerRunner(web.Server(_answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


async def _load(port: int, seconds: float) -> None:
    answered = 0
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{port}/", compress=0) as socket,
    ):
        deadline = time.perf_counter() + seconds
        for _ in range(UNDER_WAY):
            await socket.send_bytes(FRAME)
        async for _ in socket:
            answered += 1
            if time.perf_counter() > deadline:
                break
            await socket.send_bytes(FRAME)
    print(json.dumps({"answered": answered}))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        uvloop.run(_serve(int(sys.argv[2])))
    else:
        uvloop.run(_load(int(sys.argv[2]), float(sys.argv[3])))
