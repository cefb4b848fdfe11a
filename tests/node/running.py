"""Nodes of one cluster in this process, with real sockets on loopback and real logs, and requests as exact bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from crdtstore.testing.processes import hold_port
from crdtstore.values import from_json, from_msgpack, to_json_bytes, to_msgpack
from crdtstore_node.config import load
from crdtstore_node.lives import Lives
from crdtstore_node.node import Node, Opened

NONCE = "0" * 31 + "1"
JSON, MSGPACK = "application/json", "application/msgpack"
FAST = {
    "engine": {"gossip_interval_ms": 40, "ack_timeout_ms": 500, "relay_after_ms": 150},
    "log": {"segment_bytes": 1 << 20},
    "links": {"heartbeat_ms": 50, "retry_least_ms": 10, "retry_most_ms": 50},
}


class Reply(NamedTuple):
    """An answer of the API."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        media = self.headers["content-type"]
        return from_msgpack(self.raw) if media.endswith("msgpack") else from_json(self.raw)


async def read_reply(reader: asyncio.StreamReader, *, is_head: bool = False) -> Reply:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = 0 if is_head else int(headers.get("content-length", "0"))
    return Reply(int(first.split()[1]), headers, await reader.readexactly(length))


async def exchange(port: int, data: bytes, *, is_head: bool = False) -> Reply:
    """Send these bytes on a connection of their own; return the first answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            await writer.drain()
        async with asyncio.timeout(10):
            return await read_reply(reader, is_head=is_head)
    finally:
        writer.transport.abort()


async def call(
    node: Node,
    method: str,
    path: str,
    body: Any = None,
    *,
    raw: bytes | None = None,
    content_type: str | None = JSON,
    accept: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """One request; ``path`` goes out as it stands."""
    sent = {"Host": "test", "Connection": "close", **(headers or {})}
    if raw is None:
        raw = b"" if body is None else to_msgpack(body) if content_type == MSGPACK else to_json_bytes(body)
    if raw:
        sent["Content-Length"] = str(len(raw))
        if content_type is not None:
            sent["Content-Type"] = content_type
    if accept is not None:
        sent["Accept"] = accept
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    data = f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("utf-8", "surrogateescape") + raw
    return await exchange(node.api.port, data, is_head=method == "HEAD")


async def until(condition: Callable[[], Any], timeout_s: float = 5.0) -> None:
    """Wait until this holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


class Nodes:
    """A cluster below a directory; nodes are started and stopped by region."""

    def __init__(self, directory: Path, regions: Sequence[str], tables: Mapping[str, Mapping[str, Any]]) -> None:
        self.directory = directory
        self.regions = list(regions)
        self.tables = {name: {**FAST.get(name, {}), **tables.get(name, {})} for name in {**FAST, **tables}}
        self.settings: dict[str, Any] = {}
        """Of every node, beside the tables."""
        self.lives: dict[str, Life] = {}
        self.running: dict[str, Node] = {}
        self.ports: dict[str, tuple[int, int]] = {}
        held = []
        for region in regions:
            held += [api := hold_port(), gossip := hold_port()]
            self.ports[region] = (api.getsockname()[1], gossip.getsockname()[1])
        for each in held:
            each.close()
        self.write_cluster()

    def write_cluster(self, nonce: str = NONCE, name: str = "cluster.toml") -> None:
        lines = ['cluster = "test"', f'nonce = "{nonce}"']
        for number, region in enumerate(self.regions):
            lines += [
                "[[member]]",
                f'node = "{region}-1"',
                f'region = "{region}"',
                f'replica = "{region}-1.{number + 1:016x}"',
                f'gossip = "127.0.0.1:{self.ports[region][1]}"',
            ]
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / name).write_text("\n".join(lines) + "\n")

    def write_config(
        self,
        region: str,
        peers: Mapping[str, int] | None = None,
        cluster_file: str = "cluster.toml",
        join: Sequence[str] | None = None,
    ) -> Path:
        """``join``: regions that a node asks to be let in; it need not be a founder."""
        if region not in self.ports:
            with hold_port() as api_port, hold_port() as gossip_port:
                self.ports[region] = (api_port.getsockname()[1], gossip_port.getsockname()[1])
        api, gossip = self.ports[region]
        lines = [
            f'node = "{region}-1"',
            *([] if join is None else [f'region = "{region}"']),
            *([] if join is None else [f"join = {json.dumps([f'127.0.0.1:{self.ports[each][1]}' for each in join])}"]),
            *(f"{name} = {json.dumps(value)}" for name, value in self.settings.items()),
            f'cluster_file = "{cluster_file}"',
            f'data = "data-{region}"',
            f'api = "127.0.0.1:{api}"',
            f'gossip = "127.0.0.1:{gossip}"',
            "[peers]",
            *(f'{node}-1 = "127.0.0.1:{port}"' for node, port in (peers or {}).items()),
        ]
        for table, values in self.tables.items():
            lines += [f"[{table}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
        path = self.directory / f"{region}.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    async def start(
        self,
        region: str,
        *,
        peers: Mapping[str, int] | None = None,
        is_bootstrap: bool = True,
        cluster_file: str = "cluster.toml",
    ) -> Node:
        config = load(self.write_config(region, peers, cluster_file), {})
        node = Node(Opened(config, is_bootstrap=is_bootstrap))
        await node.start()
        self.running[region] = node
        return node

    async def start_all(self) -> list[Node]:
        nodes = [await self.start(region) for region in self.regions]
        for node in nodes:
            await until(lambda node=node: len(node.transport.links) == len(nodes) - 1)
        return nodes

    async def stop(self, region: str) -> None:
        await self.running.pop(region).stop()

    async def live(
        self,
        region: str,
        *,
        join: Sequence[str] | None = None,
        is_bootstrap: bool = False,
        is_vouched: bool = False,
        name: str = "",
        **environ: str,
    ) -> Life:
        """A node that goes on under another id when it has to. ``environ`` stands over its file, without the prefix."""
        config = load(self.write_config(region, join=join), {f"CRDTSTORE_{key}": each for key, each in environ.items()})
        life = self.lives[name or region] = Life(Opened(config, is_bootstrap=is_bootstrap, is_vouched=is_vouched))
        await life.started()
        return life

    async def end(self, name: str) -> int:
        """Stop a node that ``live`` started."""
        return await self.lives.pop(name).stop()

    async def stop_all(self) -> None:
        for name in list(self.lives):
            await self.end(name)
        for region in list(self.running):
            await self.stop(region)


class Life:
    """A node through all its ids, as the command runs it."""

    def __init__(self, opened: Opened) -> None:
        self._stop = asyncio.Event()
        self._began = asyncio.Event()
        self._lives = Lives(opened, self._began.set)
        self._task = asyncio.ensure_future(self._lives.run(self._stop))

    @property
    def node(self) -> Node:
        return self._lives.node

    @property
    def counts(self) -> dict[str, int]:
        return self._lives.story.counts

    async def started(self) -> None:
        began = asyncio.ensure_future(self._began.wait())
        await asyncio.wait([began, self._task], return_when=asyncio.FIRST_COMPLETED)
        began.cancel()
        if self._task.done():
            self._task.result()

    async def stop(self) -> int:
        self._stop.set()
        return await self._task


class Lines(logging.Handler):
    """What was logged: (event, fields)."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, dict[str, Any]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.events.append((record.getMessage(), getattr(record, "fields", {})))

    def of(self, what: str) -> list[dict[str, Any]]:
        return [fields for event, fields in self.events if event == what]


async def declare(node: Node, domain: str, *types: str) -> None:
    assert (await call(node, "PUT", f"/v1/domains/{domain}")).status == 200
    for name in types:
        reply = await call(node, "PUT", f"/v1/domains/{domain}/collections/{name}", {"type": name})
        assert reply.status == 200, reply


def environment() -> dict[str, str]:
    """For child processes: nothing of ours from the caller's shell."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CRDTSTORE_")}
