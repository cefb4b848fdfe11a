"""A raw client of sessions: frames out, frames in, nothing in between."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from crdtstore.values import from_msgpack, to_msgpack
from crdtstore_node.node import Node

HANDSHAKE = (
    b"GET /v1/session HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n\r\n"
)


class Closed(Exception):
    """The node closed the session."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Talk:
    """One session."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.frames: list[int] = []
        """How many messages each frame had."""

    async def send(self, *messages: dict[str, Any]) -> None:
        """One frame."""
        await self.socket.send_bytes(to_msgpack(list(messages) if len(messages) != 1 else messages[0]))

    async def frame(self) -> list[dict[str, Any]]:
        """The messages of the next frame.

        Raises:  Closed.
        """
        async with asyncio.timeout(10):
            message = await self.socket.receive()
        if message.type is not aiohttp.WSMsgType.BINARY:
            raise Closed(self.socket.close_code, str(message.extra or ""))
        found = from_msgpack(message.data, max_bytes=1 << 30)
        found = found if isinstance(found, list) else [found]
        self.frames.append(len(found))
        return found

    async def replies(self, count: int) -> list[dict[str, Any]]:
        """So many replies, in the order in which they come."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            found += await self.frame()
        assert len(found) == count, found
        return found

    async def ask(self, **fields: Any) -> dict[str, Any]:
        """One request and its reply, without the number."""
        await self.send({"n": 7, **fields})
        (reply,) = await self.replies(1)
        assert reply.pop("n") == 7
        return reply

    async def end(self) -> Closed:
        """How the node closes this session."""
        try:
            while True:
                await self.frame()
        except Closed as closed:
            return closed


@contextlib.asynccontextmanager
async def talk(node: Node, **options: Any) -> AsyncIterator[Talk]:
    """A session with a node; its hello is read."""
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(f"http://{node.api}/v1/session", max_msg_size=0, **options) as socket,
    ):
        talking = Talk(socket)
        (hello,) = await talking.frame()
        assert hello == {
            "session": 1,
            "node": node.config.node,
            "region": node.host.me.region,
            "credits": node.config.http.session_credits,
            "frame_bytes": node.config.http.body_bytes,
        }
        yield talking


def commit(n: int, key: str = "k", amount: Any = 1, collection: str = "counter", **fields: Any) -> dict[str, Any]:
    op = {"collection": collection, "key": key, "op": "add", "amount": amount}
    return {"n": n, "do": "commit", "domain": "shop", "ops": [op], **fields}


def read(n: int, key: str = "k", collection: str = "counter", **fields: Any) -> dict[str, Any]:
    return {"n": n, "do": "read", "domain": "shop", "collection": collection, "key": key} | fields


def masked(payload: bytes, head: int = 0x82) -> bytes:
    """A client's WebSocket frame."""
    mask = os.urandom(4)
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    if size >= 1 << 16:
        length = b"\xff" + size.to_bytes(8, "big")
    return bytes([head]) + length + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


async def raw(node: Node) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A session as bytes; the answer to its handshake is read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.api.port)
    writer.write(HANDSHAKE)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    return reader, writer


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """First byte and payload of the next frame of a node."""
    async with asyncio.timeout(10):
        head, size = await reader.readexactly(2)
        if size == 126:
            size = int.from_bytes(await reader.readexactly(2), "big")
        elif size == 127:
            size = int.from_bytes(await reader.readexactly(8), "big")
        return head, await reader.readexactly(size)
