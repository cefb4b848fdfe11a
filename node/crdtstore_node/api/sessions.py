"""``GET /v1/session``: how an HTTP connection becomes a session, and all sessions of a node.

The question: who may open one? A browser lets any page open a WebSocket anywhere, where it would first ask before it sent our bodies by
HTTP. So a page, which says its origin, opens one only at the place that it came from.

When the node stops, each session takes nothing more, answers what it took and says 1001; only then the listener ends its connections.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from typing import Any, Protocol

from aiohttp import web

from crdtstore.errors import AccessError, Unavailable, UsageError
from crdtstore_node.api.session import Counts, Session
from crdtstore_node.config import Http
from crdtstore_node.driver import Driver

__all__ = ["Sessions"]

_KEY = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, 1.3."""


class _Pages(Protocol):
    def status(self) -> dict[str, Any]: ...


class _Carrier(Protocol):
    """The HTTP connection; it tells its session when its buffer is full."""

    session: Session | None


class Sessions:
    """The sessions of a node. Mutable."""

    def __init__(self, driver: Driver, pages: _Pages, options: Http, outcomes: dict[str, int]) -> None:
        """``outcomes`` counts answers by code, those over HTTP too."""
        self._driver = driver
        self._pages = pages
        self._options = options
        self._outcomes = outcomes
        self._sessions: set[Session] = set()
        self._is_stopping = False
        self.counts: Counts = Counts()

    def __len__(self) -> int:
        return len(self._sessions)

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Turn the connection of this request into a session; returns when it has ended.

        Raises:  UsageError for what is no handshake, Unavailable; nothing changed.
        """
        accepted = _accept(request)
        if self._is_stopping:
            raise Unavailable("this node stops.", code="leaving", retry_after=1.0)
        if len(self._sessions) >= self._options.sessions:
            raise Unavailable(
                f"this node has {self._options.sessions} sessions already. Nothing changed.",
                code="overloaded",
                retry_after=1.0,
            )
        carrier: Any = request.protocol
        session = Session(
            self._driver, self._pages.status, self._options, self._outcomes, self.counts, request.protocol
        )
        self._sessions.add(session)
        try:
            response = web.StreamResponse(
                status=101,
                headers={"Server": "crdtstore", "Upgrade": "websocket", "Connection": "upgrade", _ACCEPT: accepted},
            )
            response.force_close()
            await response.prepare(request)
            request.protocol.keep_alive(False)
            session.greet()
            carrier.session = session
            request.protocol.set_parser(session)  # type: ignore[arg-type]  # it parses what comes from now on
            await session.ended
        finally:
            carrier.session = None
            session.feed_eof()
            self._sessions.discard(session)
        return response

    async def stop(self) -> None:
        """Take no more requests, answer those that were taken, close all."""
        self._is_stopping = True
        if not self._sessions:
            return
        ended = [session.ended for session in self._sessions]
        for session in list(self._sessions):
            session.end(1001, "this node stops")
        await asyncio.wait(ended)


_ACCEPT = "Sec-WebSocket-Accept"


def _accept(request: web.BaseRequest) -> str:
    """What proves to the client that its handshake (RFC 6455, 4.2) was understood.

    Raises:  UsageError, AccessError for the page of another place; nothing changed.
    """
    headers = request.headers
    origin = headers.get("Origin")
    if origin is not None and origin.partition("://")[2].lower() != headers.get("Host", "").lower():
        raise AccessError(f"a page of {origin[:100]!r} may not open a session here. Nothing changed.", code="forbidden")
    if headers.get("Upgrade", "").strip().lower() != "websocket" or not request._message.upgrade:
        raise UsageError(
            "a session is a WebSocket: the headers Upgrade: websocket and Connection: Upgrade are missing. Nothing changed."
        )
    if headers.get("Sec-WebSocket-Version") != "13":
        raise UsageError("a session speaks version 13 of WebSocket (Sec-WebSocket-Version). Nothing changed.")
    key = headers.get("Sec-WebSocket-Key", "")
    try:
        is_key = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        is_key = False
    if not is_key:
        raise UsageError("Sec-WebSocket-Key is 16 bytes in base64. Nothing changed.")
    return base64.b64encode(hashlib.sha1((key + _KEY).encode(), usedforsecurity=False).digest()).decode()
