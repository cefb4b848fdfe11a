"""One proxied connection: two pipes between two sockets, and how their ends travel.

The question: who may learn what during a cut? The end of a connection (FIN or RST) is a message like any other, so it
travels through the same direction as the bytes. A side that lost its peer during a cut does not learn so before the
heal.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
from collections import deque
from contextlib import suppress
from enum import Enum

from crdtstore.testing.proxy_flow import Flow

__all__ = ["Address", "ConnectionLost", "Copy", "Pipe", "dial", "end", "ended"]

Address = tuple[str, int]
CHUNK_BYTES = 65536
CHUNK_COST_BYTES = 64  # of a held piece beyond its bytes, so that many small pieces are bounded too
CLOSE_TIMEOUT_S = 2.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close sends RST


class ConnectionLost(Exception):
    """One side is gone and the other may know: both are reset."""


class End(Enum):
    """How a side stopped sending."""

    CLOSED = "closed"
    LOST = "lost"


async def dial(target: Address, timeout_s: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to ``target``; ConnectionLost when there is none."""
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.open_connection(*target, limit=CHUNK_BYTES)
    except OSError as error:  # TimeoutError is one
        raise ConnectionLost(f"{target[0]}:{target[1]} does not answer: {error}") from error


def end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    """Begin to close a socket, with RST instead of FIN when ``reset``; no cancellation can come between."""
    if reset:
        _linger_zero(writer)
        writer.transport.abort()
    else:
        writer.close()


async def ended(writer: asyncio.StreamWriter) -> None:
    """Wait until a socket that was told to end is closed; a peer that does not read is not waited for."""
    with suppress(OSError):  # the peer may have reset it already; TimeoutError is an OSError
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await writer.wait_closed()
    writer.transport.abort()


def _linger_zero(writer: asyncio.StreamWriter) -> None:
    # A duplicate of the descriptor, because what a loop hands out as its "socket" differs between asyncio and uvloop;
    # uvloop hands out None once the connection is closed.
    handed_out = writer.get_extra_info("socket")
    if handed_out is None:
        return
    with suppress(OSError):
        descriptor = os.dup(handed_out.fileno())
        with socket.socket(fileno=descriptor) as handle:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


class Copy:
    """The second copy of the bytes of a client, on its own connection to the target.

    What the target answers to it is discarded. It never slows or ends the original: a copy that fails or does not
    keep up is dropped.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, buffer_bytes: int) -> None:
        self.writer = writer
        self._buffer_bytes = buffer_bytes
        self._discard = asyncio.get_running_loop().create_task(self._discard_answers(reader))

    def write(self, data: bytes) -> None:
        """Pass ``data`` on, or give the copy up."""
        transport = self.writer.transport
        if transport.is_closing():
            return
        if transport.get_write_buffer_size() + len(data) > self._buffer_bytes:
            transport.abort()
        else:
            self.writer.write(data)

    def write_eof(self) -> None:
        _write_eof(self.writer)

    async def stop(self) -> None:
        """Stop listening to the answers; the socket is ended by the connection."""
        self._discard.cancel()
        await asyncio.gather(self._discard, return_exceptions=True)

    @staticmethod
    async def _discard_answers(reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while await reader.read(CHUNK_BYTES):
                pass


def _write_eof(writer: asyncio.StreamWriter) -> bool:
    """Send FIN; False when the socket is gone (uvloop says so by RuntimeError)."""
    try:
        writer.write_eof()
    except (OSError, RuntimeError):
        return False
    return True


class Pipe:
    """One direction of one connection: a bounded queue of (due, bytes or end) between two sockets."""

    def __init__(self, flow: Flow, back: Flow, dice: random.Random, buffer_bytes: int) -> None:
        self._flow = flow
        self._back = back  # the way by which the news of a lost sink travels
        self._dice = dice
        self._buffer_bytes = buffer_bytes
        self._held: deque[tuple[float, bytes | End]] = deque()
        self._cost = 0
        self._some = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.ended = asyncio.Event()  # the source sent its last byte

    def hold(self, data: bytes) -> None:
        """Take in what was read from the source before."""
        self._cost += len(data) + CHUNK_COST_BYTES
        self._held.append((self._flow.due(0.0, self._dice), data))
        self._some.set()

    async def fill(self, source: asyncio.StreamReader) -> None:
        """Read from ``source`` as long as there is room; afterwards TCP pushes back."""
        due = 0.0
        while not self.ended.is_set():
            await self._room.wait()
            item: bytes | End
            try:
                item = await source.read(CHUNK_BYTES) or End.CLOSED
            except OSError:
                item = End.LOST
            if isinstance(item, End):
                self.ended.set()
            else:
                self._cost += len(item) + CHUNK_COST_BYTES
                if self._cost >= self._buffer_bytes:
                    self._room.clear()
            due = self._flow.due(due, self._dice)
            self._held.append((due, item))
            self._some.set()

    async def pour(self, sink: asyncio.StreamWriter, copy: Copy | None) -> None:
        """Write what is due to ``sink`` until the source ended; ConnectionLost when source or sink were lost."""
        while True:
            if not self._held:
                self._some.clear()
                await self._some.wait()
            due, item = self._held[0]
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            if isinstance(item, End):
                await self._flow.passable()
                await self._finish(item, sink, copy)
                return
            await self._write(item, sink, copy)
            self._held.popleft()
            self._cost -= len(item) + CHUNK_COST_BYTES
            if self._cost < self._buffer_bytes:
                self._room.set()

    async def _write(self, data: bytes, sink: asyncio.StreamWriter, copy: Copy | None) -> None:
        for piece in self._flow.pieces(data):
            await self._flow.admit(len(piece))
            try:
                if sink.transport.is_closing():
                    raise ConnectionResetError
                sink.write(piece)
                self._flow.forwarded += len(piece)
                if copy is not None:
                    copy.write(piece)
                await sink.drain()
            except OSError:
                await self._back.passable()
                raise ConnectionLost from None

    async def _finish(self, how: End, sink: asyncio.StreamWriter, copy: Copy | None) -> None:
        if how is End.LOST:
            raise ConnectionLost
        if copy is not None:
            copy.write_eof()
        if not _write_eof(sink):  # it ended at the same time
            await self._back.passable()
            raise ConnectionLost

    def count_dropped(self) -> None:
        """Count what is still held as dropped, once, when the connection is over."""
        self._flow.dropped += sum(len(item) for _, item in self._held if not isinstance(item, End))
        self._held.clear()
