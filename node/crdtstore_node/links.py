"""One connection to a peer after both have said hello: what goes out, what comes in, and when it is given up.

The question: what may a slow or silent peer cost? A bounded queue of bytes, beyond which the connection is dropped, since progress
starts again from the peer's row anyway; and ``silence_ms`` without a byte, after which a cut that left the connection open is taken for
what it is.
"""

from __future__ import annotations

import asyncio
import os
import socket as socket_module
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web

from crdtstore.configuration import Member
from crdtstore_node.config import Links
from crdtstore_node.heartbeat import Heartbeat

__all__ = ["Link", "Socket", "abort", "close"]

Socket = aiohttp.ClientWebSocketResponse | web.WebSocketResponse

CLOSE_S = 0.5
"""A farewell takes at most so long."""
_LOOK_S = 0.005
_RECEIVED_AT = 52
"""Where ``tcp_info`` of Linux says how many ms ago data came last."""


def abort(socket: Socket) -> None:
    """Cut the connection now: nothing queued is waited for, as closing in order would."""
    transport = _transport(socket)
    if transport is not None:
        transport.abort()


def _transport(socket: Socket) -> Any:
    if isinstance(socket, web.WebSocketResponse):
        return None if socket._req is None else socket._req.transport
    return None if socket._conn is None else socket._conn.transport


def _arrived_ms(socket: Socket) -> int | None:
    """How long ago the kernel took any byte from the peer, whether or not it ends a message; None where it does not tell."""
    transport = _transport(socket)
    handed_out: Any = None if transport is None else transport.get_extra_info("socket")
    try:
        # A duplicate, for what uvloop hands out has no options; it hands out None once the connection is closed.
        with socket_module.socket(fileno=os.dup(handed_out.fileno())) as handle:
            told = handle.getsockopt(socket_module.IPPROTO_TCP, socket_module.TCP_INFO, _RECEIVED_AT + 4)
    except (AttributeError, OSError):
        return None
    return (
        int.from_bytes(told[_RECEIVED_AT : _RECEIVED_AT + 4], sys.byteorder) if len(told) == _RECEIVED_AT + 4 else None
    )


async def close(socket: Socket, code: int, reason: str) -> None:
    """Say farewell; a peer that does not take it is cut off."""
    with suppress(Exception):
        async with asyncio.timeout(CLOSE_S):
            await socket.close(code=code, message=reason.encode()[:120])
    abort(socket)


class Link:
    """A connection to one peer. Mutable.

    ``on_message`` takes what the peer says; ``on_refused`` the reason why something it said was not taken.
    """

    def __init__(
        self,
        peer: Member,
        socket: Socket,
        options: Links,
        on_message: Callable[[bytes], None],
        on_refused: Callable[[str], None],
    ) -> None:
        self.peer = peer
        self.heartbeat = Heartbeat()
        self.queued_bytes = 0
        self.why = "the peer closed the connection"
        self.is_overrun = False
        self.close_code: int | None = None
        """What the peer closed the connection with."""
        self._socket = socket
        self._options = options
        self._on_message = on_message
        self._on_refused = on_refused
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._queue: deque[bytes | str] = deque()
        self._has_more = asyncio.Event()
        self._is_given_up = False

    @property
    def heard_ms(self) -> int:
        """How long ago the peer last said anything."""
        return int((self._loop.time() - self._heard) * 1000)

    def send(self, data: bytes) -> None:
        """Queue a message; a peer that takes too little loses the connection."""
        if self._is_given_up:
            return
        self._queue.append(data)
        self.queued_bytes += len(data)
        self._has_more.set()
        if self.queued_bytes > self._options.send_queue_bytes:
            self.is_overrun = True
            self.give_up(f"{self.queued_bytes} bytes wait to be sent, at most {self._options.send_queue_bytes} may")

    async def answers(self, within_s: float) -> bool:
        """Whether the peer is still at the other end, and not only known to have been."""
        heard, deadline = self._heard, self._loop.time() + within_s
        self._queue.appendleft(self.heartbeat.ping())
        self._has_more.set()
        while self._heard == heard and not self._is_given_up and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)
        return self._heard != heard and not self._is_given_up

    def give_up(self, why: str) -> None:
        """Cut the connection; ``run`` returns."""
        if not self._is_given_up:
            self._is_given_up = True
            self.why = why
            abort(self._socket)

    async def run(self) -> str:
        """Carry messages until the connection ends; return why it did."""
        helpers = [asyncio.ensure_future(self._send_all()), asyncio.ensure_future(self._beat())]
        try:
            await self._receive_all()
        finally:
            self._is_given_up = True
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            self._queue.clear()
            self.queued_bytes = 0
        return self.why

    async def _receive_all(self) -> None:
        socket = self._socket
        while True:
            message = await socket.receive()
            self._heard = self._loop.time()
            if message.type is WSMsgType.BINARY:
                self._on_message(message.data)
            elif message.type is WSMsgType.TEXT:
                self._on_text(message.data)
            else:
                if message.type is WSMsgType.ERROR and isinstance(message.data, aiohttp.WebSocketError):
                    self.why = f"refused: {message.data}"
                    self._on_refused(str(message.data))
                elif message.type is WSMsgType.CLOSE:
                    self.close_code = message.data
                    if message.extra:
                        self.why = f"the peer closed the connection: {message.extra}"
                return

    def _on_text(self, text: str) -> None:
        try:
            answer = self.heartbeat.take(text)
        except ValueError as error:
            self._on_refused(str(error))
            return
        if answer is not None:  # never sent from here: who waits to send does not read, and two of them wait for ever
            self._queue.appendleft(answer)
            self._has_more.set()

    async def _send_all(self) -> None:
        socket, queue = self._socket, self._queue
        try:
            while True:
                while queue:
                    data = queue.popleft()
                    if isinstance(data, str):
                        await socket.send_str(data)
                    else:
                        await socket.send_bytes(data)
                        self.queued_bytes -= len(data)
                self._has_more.clear()
                await self._has_more.wait()
        except (ConnectionError, RuntimeError) as error:
            self.give_up(f"sending failed: {error or type(error).__name__}")

    def _is_silent(self) -> bool:
        """Whether nothing came for too long; of a large message on a narrow link bytes come long before it has ended."""
        most = self._options.silence_ms
        if self.heard_ms <= most:
            return False
        arrived_ms = _arrived_ms(self._socket)
        return arrived_ms is None or arrived_ms > most

    async def _beat(self) -> None:
        interval_s = self._options.heartbeat_ms / 1000
        try:
            while True:
                if self._is_silent():
                    self.give_up(f"nothing was heard for {self.heard_ms} ms")
                    return
                # A peer that takes nothing must not keep this loop from noticing it.
                with suppress(TimeoutError):
                    async with asyncio.timeout(interval_s):
                        await self._socket.send_str(self.heartbeat.ping())
                left_s = (self._options.silence_ms - self.heard_ms) / 1000
                await asyncio.sleep(min(interval_s, max(left_s, 0.01)))
        except (ConnectionError, RuntimeError) as error:
            self.give_up(f"sending failed: {error or type(error).__name__}")
