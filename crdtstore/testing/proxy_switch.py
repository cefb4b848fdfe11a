"""One listening port for many dialers, each of which is carried by a link of its own.

The question: who dials? A node that joins tells all others one address, so the port does not say it. Whoever opens a gossip connection
names its node in a header of the handshake; the switch reads so far, chooses the link, and hands over what it has read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from crdtstore.errors import UsageError
from crdtstore.testing.proxy import Link
from crdtstore.testing.proxy_pipe import Address, end

__all__ = ["DIALER", "Switch"]

DIALER = "Crdtstore-Node"
"""The header that names the node that dials."""
HEAD_TIMEOUT_S = 5.0
_HEAD_BYTES = 16384


class Switch:
    """A listener; ``choose`` names the link for the node that dials ("" when it does not say)."""

    def __init__(self, choose: Callable[[str], Link]) -> None:
        self._choose = choose
        self._server: asyncio.Server | None = None
        self._greeting: set[asyncio.Task[None]] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._server = await asyncio.start_server(self._on_accept, host, port, limit=_HEAD_BYTES)

    @property
    def address(self) -> Address:
        if self._server is None:
            raise UsageError("the switch does not listen; call start() first. Nothing changed.")
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    async def stop(self) -> None:
        """Stop listening, and end those who have not said who they are; the others belong to their links."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        greeting = list(self._greeting)
        for task in greeting:
            task.cancel()
        await asyncio.gather(*greeting, return_exceptions=True)

    def _on_accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._greet(reader, writer))
        self._greeting.add(task)
        task.add_done_callback(self._greeting.discard)

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_taken = False
        try:
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
            self._choose(_dialer(head)).take(reader, writer, head)
            is_taken = True
        except (OSError, EOFError, asyncio.LimitOverrunError):  # no handshake: whoever it is, it is no node
            pass
        finally:
            if not is_taken:
                end(writer, reset=True)


def _dialer(head: bytes) -> str:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == DIALER.lower().encode():
            return value.strip().decode(errors="replace")
    return ""
