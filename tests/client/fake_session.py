"""A node that speaks the session of API.md 3 over a real socket, and misbehaves when told to; its data is a ``FakeCluster``.

It keeps its own books of what a client may do: never more requests unanswered than credits, no number twice, no frame that is too long.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from crdtstore.values import to_msgpack, unpack
from crdtstore_client.over_http import http_form
from tests.client.fakes import US, FakeCluster

HELLO = {"session": 1, "node": "us-1", "region": "us", "credits": 1024}
MSGPACK = "application/msgpack"

Message = dict[str, Any]


@dataclass
class FakeNode:
    """One listener. ``behave`` gets each frame before it is served: what it returns is served in its place."""

    cluster: FakeCluster = field(default_factory=FakeCluster)
    hello: Any = field(default_factory=lambda: dict(HELLO))
    behave: Callable[[Session, list[Message]], Awaitable[list[Message] | None]] | None = None
    refuse: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    """Answers to handshakes in place of a session."""
    handshakes: int = 0
    authorizations: list[str | None] = field(default_factory=list)
    frames: list[list[Message]] = field(default_factory=list)
    over_http: list[tuple[str, str]] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def messages(self) -> list[Message]:
        return [message for frame in self.frames for message in frame]

    @property
    def writes(self) -> list[Message]:
        return [message for message in self.messages if message["do"] == "commit"]

    async def session(self, request: web.Request) -> web.StreamResponse:
        self.handshakes += 1
        self.authorizations.append(request.headers.get("Authorization"))
        if self.refuse is not None:
            return await self.refuse(request)
        session = Session(self)
        self.sessions.append(session)
        return await session.run(request)

    async def http(self, request: web.Request) -> web.Response:
        raw = await request.read()
        if request.path != "/v1/status":
            self.over_http.append((request.method, request.raw_path))
        reply = await self.cluster.request(
            US,
            request.method,
            request.raw_path,
            body=unpack(raw) if raw else None,
            headers=dict(request.headers),
            timeout=5.0,
        )
        return web.Response(status=reply.status, body=to_msgpack(reply.body), content_type=MSGPACK)


class Session:
    """One connection."""

    def __init__(self, node: FakeNode) -> None:
        self.node = node
        self.ws = web.WebSocketResponse(compress=False, timeout=0.2)
        self.credits = 0
        self.open: set[int] = set()

    async def run(self, request: web.Request) -> web.StreamResponse:
        await self.ws.prepare(request)
        hello = self.node.hello
        await self.ws.send_bytes(hello if isinstance(hello, bytes) else to_msgpack(hello))
        self.credits = hello.get("credits", 0) if isinstance(hello, dict) else 0
        async for frame in self.ws:
            if frame.type is WSMsgType.BINARY:
                await self._on_frame(frame.data)
        return self.ws

    async def _on_frame(self, data: bytes) -> None:
        found = unpack(data)
        messages: list[Message] = found if isinstance(found, list) else [found]
        self.node.frames.append([dict(message) for message in messages])
        numbers = [message["n"] for message in messages]
        if len(set(numbers)) < len(numbers) or self.open & set(numbers):
            self.node.complaints.append(f"numbers twice: {numbers}")
        self.open |= set(numbers)
        if len(self.open) > self.credits:
            self.node.complaints.append(f"{len(self.open)} unanswered, {self.credits} credits")
        todo: list[Message] | None = messages
        if self.node.behave is not None:
            todo = await self.node.behave(self, messages)
        if todo:
            await self.answer(todo)

    async def answer(self, messages: list[Message]) -> None:
        """Serve these, and answer in one frame."""
        replies = [await self.serve(message) for message in messages]
        await self.say(replies if len(replies) > 1 else replies[0])

    async def serve(self, message: Message) -> Message:
        fields = {name: value for name, value in message.items() if name not in {"n", "do"}}
        method, path, body, headers = http_form(message["do"], fields)
        reply = await self.node.cluster.request(US, method, path, body=body, headers=headers, timeout=5.0)
        return {"n": message["n"], **(reply.body if reply.status < 300 else {"problem": reply.body})}

    async def say(self, what: Any) -> None:
        for message in what if isinstance(what, list) else [what]:
            self.open.discard(message.get("n"))
        await self.ws.send_bytes(to_msgpack(what))

    async def grant(self, count: int) -> None:
        self.credits += count
        await self.ws.send_bytes(to_msgpack({"credits": count}))

    def cut(self) -> None:
        """End it without a word."""
        if self.ws._req is not None and self.ws._req.transport is not None:
            self.ws._req.transport.abort()


@asynccontextmanager
async def listening(node: FakeNode, port: int = 0) -> AsyncIterator[FakeNode]:
    """``node`` at ``node.url``; what a client did wrong fails the test at the end."""
    app = web.Application()
    app.router.add_get("/v1/session", node.session)
    app.router.add_route("*", "/{tail:.*}", node.http)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    node.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield node
    finally:
        for session in node.sessions:
            session.cut()
        await runner.cleanup()
    assert not node.complaints


async def hang(_: web.Request) -> web.StreamResponse:
    """As a gateway that knows no WebSocket and waits for what will not come."""
    await asyncio.Event().wait()
    raise AssertionError
