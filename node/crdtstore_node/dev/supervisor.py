"""The process behind ``crdtstore dev up``: it owns the nodes and the proxies, and answers ``crdtstore dev …``.

The question: who holds the cluster while no command runs? One background process per directory. It leaves on SIGTERM,
SIGINT, SIGHUP or the request ``down`` and takes everything with it; if it is killed, the nodes leave because their pipe
to it closes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from crdtstore.errors import UsageError, problem
from crdtstore.testing.processes import NODE_COMMAND, LocalCluster
from crdtstore_node.dev.control import LINE_BYTES, as_error, forget, open_socket, process_start, write_state

__all__ = ["FIRST_API_PORT", "main", "supervise"]

Doing = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
Report = Callable[[dict[str, Any]], None]
FIRST_API_PORT = 7401
REQUEST_TIMEOUT_S = 5.0
_SETTINGS = ("CRDTSTORE_ENGINE_", "CRDTSTORE_LOG_", "CRDTSTORE_STATE_")
"""What nodes take of the environment of ``dev up``; the rest of their configuration is written for them."""


class Supervisor:
    """A running cluster and the requests to it."""

    def __init__(self, cluster: LocalCluster, stop: asyncio.Event) -> None:
        self._cluster = cluster
        self._stop = stop
        self._turn = asyncio.Lock()  # changes one after the other; looking and leaving need no turn
        self._socket_path: Path | None = None
        self._at_once: dict[str, Doing] = {"down": self._down, "status": self._status}
        self._doing: dict[str, Doing] = {
            "add": self._add,
            "heal": self._heal,
            "kill": self._kill,
            "partition": self._partition,
            "start": self._start,
        }

    async def serve(self, report: Report) -> None:
        """Listen until asked to stop; ``report`` hears the status once everything is ready."""
        listener, self._socket_path = open_socket(self._cluster.directory)
        server = await asyncio.start_unix_server(self._on_connect, sock=listener, limit=LINE_BYTES)
        async with server:
            self._remember()
            report(await self._status({}))
            await self._stop.wait()

    async def _on_connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(json.dumps(await self._answer(reader)).encode() + b"\n")
            await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> dict[str, Any]:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                fields = json.loads(await reader.readline())
            do = fields.pop("do")
            if do in self._at_once:
                return await self._at_once[do](fields)
            if do not in self._doing:
                raise UsageError(f"the supervisor cannot {do!r}. Nothing changed.")
            async with self._turn:
                answer = await self._doing[do](fields)
                self._remember()
                return answer
        except Exception as error:  # whoever asked hears it; the cluster stays up
            return {"problem": problem(as_error(error))}

    def _remember(self) -> None:
        """Note every process, so that ``down`` can verify that they are gone even after we were killed."""
        pids = [os.getpid(), *(self._cluster.node(region).pid for region in self._cluster.regions)]
        processes = [(pid, process_start(pid)) for pid in pids if pid is not None]
        write_state(
            self._cluster.directory,
            {"pid": os.getpid(), "socket": str(self._socket_path), "processes": processes, "urls": self._cluster.urls},
        )

    async def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"pid": os.getpid(), **await self._cluster.status()}

    async def _add(self, fields: dict[str, Any]) -> dict[str, Any]:
        return self._of(await self._cluster.add(fields["region"], fields.get("node") or "", wait=False))

    async def _partition(self, fields: dict[str, Any]) -> dict[str, Any]:
        self._cluster.isolate(fields["region"], fields.get("from"), one_way=bool(fields.get("one_way")))
        return self._cuts()

    async def _heal(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"reset": self._cluster.heal(), **self._cuts()}

    def _cuts(self) -> dict[str, Any]:
        return {"cut": [{"from": source, "to": target} for source, target in self._cluster.cuts]}

    async def _kill(self, fields: dict[str, Any]) -> dict[str, Any]:
        name = self._one(fields["region"])
        pid = self._cluster.node(name).pid
        await self._cluster.kill(name)
        return {"region": name, "pid": pid, "state": "killed"}

    async def _start(self, fields: dict[str, Any]) -> dict[str, Any]:
        name = self._one(fields["region"])
        await self._cluster.start(name, wait=False)
        return self._of(name)

    def _of(self, name: str) -> dict[str, Any]:
        node = self._cluster.node(name)
        return {"region": name, "node": node.name, "pid": node.pid, "url": self._cluster.url(name)}

    def _one(self, word: str) -> str:
        """The node that is meant; UsageError where several may be."""
        found = self._cluster.find(word)
        if len(found) > 1:
            names = ", ".join(self._cluster.node(each).name for each in found)
            raise UsageError(f"{word} has several nodes, name one of them: {names}. Nothing changed.")
        return found[0]

    async def _down(self, _: dict[str, Any]) -> dict[str, Any]:
        self._stop.set()
        return {"stopping": True}


async def supervise(
    directory: Path,
    regions: Sequence[str] | None,
    report: Report,
    *,
    command: Sequence[str] = NODE_COMMAND,
    first_port: int = FIRST_API_PORT,
    workers: int | None = None,
) -> None:
    """Run a cluster until told to stop; when this returns or raises, nothing of it runs.

    Raises:  what ``LocalCluster.up`` raises.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    settings = {name: value for name, value in os.environ.items() if name.startswith(_SETTINGS)}
    cluster = LocalCluster(directory, regions, command=command, env=settings, first_port=first_port, workers=workers)
    stopping = loop.create_task(stop.wait())
    starting = loop.create_task(cluster.up())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            await _serve(cluster, stop, report)
    finally:
        for task in (starting, stopping):
            task.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)
        for number in signals:
            loop.remove_signal_handler(number)


async def _serve(cluster: LocalCluster, stop: asyncio.Event, report: Report) -> None:
    try:
        await Supervisor(cluster, stop).serve(report)
    finally:
        forget(cluster.directory)  # while the lock is still ours
        await cluster.stop()


def main(arguments: Sequence[str] | None = None) -> None:
    """The background process; it reports once, as one JSON line on the descriptor it was given."""
    parser = argparse.ArgumentParser(prog="crdtstore_node.dev")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--regions", type=json.loads, required=True)
    parser.add_argument("--command", type=json.loads, required=True)
    parser.add_argument("--first-port", type=int, required=True)
    parser.add_argument("--workers", type=json.loads, required=True)
    parser.add_argument("--report", type=int, required=True)
    options = parser.parse_args(arguments)

    with os.fdopen(options.report, "w") as pipe:
        os.set_inheritable(pipe.fileno(), False)

        def report(document: dict[str, Any]) -> None:
            with suppress(BrokenPipeError):
                pipe.write(json.dumps(document) + "\n")
                pipe.flush()
            pipe.close()

        try:
            asyncio.run(
                supervise(
                    options.directory,
                    options.regions,
                    report,
                    command=options.command,
                    first_port=options.first_port,
                    workers=options.workers,
                )
            )
        except Exception as error:  # whoever started us hears it
            if pipe.closed:
                raise
            report({"problem": problem(as_error(error))})
            sys.exit(1)
