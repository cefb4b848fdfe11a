"""A process that looks like a node from outside: ports, readiness, --bootstrap, and who hears whom over the gossip
addresses.

The smaller name dials and both sides say their names ten times a second; ``/heard`` tells how often each peer was
heard.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import os
import signal
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

from aiohttp import web

TICK_S = 0.02
heard: collections.Counter[str] = collections.Counter()


async def talk(me: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async def listen() -> None:
        while line := await reader.readline():
            heard[line.decode().strip()] += 1

    listening = asyncio.ensure_future(listen())
    try:
        while not listening.done():
            writer.write(f"{me}\n".encode())
            await writer.drain()
            await asyncio.sleep(TICK_S)
    except OSError:
        pass
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        writer.close()


async def dial(me: str, address: str) -> None:
    host, port = address.rsplit(":", 1)
    while True:
        with suppress(OSError):
            await talk(me, *await asyncio.open_connection(host, int(port)))
        await asyncio.sleep(TICK_S)


def claim_data(directory: Path, bootstrap: bool) -> None:
    if not (directory / "id").exists():
        if not bootstrap:
            sys.exit(f"{directory} is empty; --bootstrap founds it")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "id").write_text(str(os.getpid()))
    with (directory / "starts").open("a") as starts:
        starts.write("x")


async def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--config", type=Path, required=True)
    arguments.add_argument("--bootstrap", action="store_true")
    arguments.add_argument("--exit-with-stdin", action="store_true", required=True)
    options = arguments.parse_args()
    config = tomllib.loads(options.config.read_text())
    claim_data(Path(config["data"]), options.bootstrap)
    me = config["node"]

    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(sys.stdin, lambda: stop.set() if not os.read(0, 1) else None)

    async def answer(request: web.Request) -> web.Response:
        return web.json_response(dict(heard) if request.path == "/heard" else {"ready": True})

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    host, port = config["api"].rsplit(":", 1)
    await web.TCPSite(runner, host, int(port)).start()
    host, port = config["gossip"].rsplit(":", 1)
    server = await asyncio.start_server(lambda reader, writer: talk(me, reader, writer), host, int(port))
    dials = [asyncio.ensure_future(dial(me, address)) for peer, address in config["peers"].items() if me < peer]
    print(f"{me} serves", flush=True)
    await stop.wait()
    for task in dials:
        task.cancel()
    server.close()
    await runner.cleanup()


asyncio.run(main())
