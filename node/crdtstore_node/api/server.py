"""The API listener: aiohttp's server without router or middlewares.

The question: what answers when not even HTTP was spoken? aiohttp would, in HTML; here it is a problem document too. The parser must be
the one in C: the other is slow, and has had advisories of its own.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiohttp import http_parser, web
from aiohttp.web_protocol import RequestHandler

from crdtstore.errors import UsageError
from crdtstore_node.api.handler import Handler
from crdtstore_node.api.session import Session
from crdtstore_node.config import Address, Http

__all__ = ["Server", "check_parser"]


def check_parser() -> None:
    """Refuse to run on aiohttp's parser in Python.

    Raises:  RuntimeError.
    """
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise RuntimeError(
            "aiohttp runs without its C parser here; install a wheel of it, and unset AIOHTTP_NO_EXTENSIONS"
        )


_SILENT = logging.getLogger(f"{__name__}.access")
_SILENT.disabled = True  # never a line per request


class _Protocol(RequestHandler):
    """A connection; says what is wrong with malformed HTTP as a problem, and tells a session when the client does not read."""

    __slots__ = ("session",)

    def __init__(self, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self.session: Session | None = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.session is not None:
            self.session.on_full()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.session is not None:
            self.session.on_room()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        handler = self._request_handler
        assert isinstance(handler, Handler)
        if status == 400:
            answer = handler.refuse(UsageError(f"not HTTP: {_first_line(message)}. Nothing changed."), False)
        else:
            answer = handler.fail(False)
        answer.force_close()
        return answer


def _first_line(message: str | None) -> str:
    return (message or "malformed").strip().splitlines()[0].rstrip(":. ")[:200]


class _Manager(web.Server):
    def __init__(self, handler: Handler, options: Http) -> None:
        super().__init__(handler, request_factory=self._request, handler_cancellation=True)
        self._body_bytes = options.body_bytes
        self._most = options.connections
        self._keepalive_s = options.keepalive_ms / 1000

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self._connections) > self._most:
            transport.abort()

    def __call__(self) -> RequestHandler:
        return _Protocol(
            self,
            loop=self._loop,
            access_log=_SILENT,
            keepalive_timeout=self._keepalive_s,
            max_line_size=16 << 10,
            max_field_size=20 << 10,
            auto_decompress=False,
        )

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, self._loop, client_max_size=self._body_bytes)


class Server:
    """Listens for users. Mutable."""

    def __init__(self, handler: Handler, options: Http) -> None:
        self._handler = handler
        self._options = options
        self._manager: _Manager | None = None
        self._runner: web.ServerRunner | None = None

    @property
    def connections(self) -> int:
        return len(self._manager.connections) if self._manager is not None else 0

    async def listen(self, address: Address) -> Address:
        """Take requests; returns where (a port 0 becomes a real one).

        Raises:  OSError when the address cannot be had.
        """
        self._manager = _Manager(self._handler, self._options)
        self._runner = web.ServerRunner(self._manager, shutdown_timeout=self._options.shutdown_ms / 1000)
        await self._runner.setup()
        await web.TCPSite(self._runner, address.host, address.port, backlog=1024).start()
        return Address(*self._runner.addresses[0][:2])

    async def stop(self) -> None:
        """Take no more requests, finish those in flight."""
        if self._runner is not None:
            await asyncio.sleep(0)
            await self._handler.sessions.stop()
            await self._runner.cleanup()
