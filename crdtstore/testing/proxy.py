"""A TCP fault proxy: links that can be cut, slowed and reset from a test, while both ends keep their real sockets.

The question: what is a cut link to two processes that speak TCP? Silence. Connections stay open, nothing arrives,
nobody is told; new connections neither fail nor succeed. When the link comes back, the old connections are usually dead
(time-outs and address translators forgot them), sometimes not. So ``cut`` stops reading and forwarding, accepts
newcomers and leaves them hanging, and ``heal`` resets every connection that saw the cut, or with ``reset=False`` lets
what was held flow on.

    async with Proxy() as proxy:
        link = await proxy.add("us>eu", ("127.0.0.1", 7502))
        ...connect to link.address...
        proxy.partition("us>eu")
        proxy.heal()

All methods that switch faults act at once: no byte is forwarded after ``cut`` has returned.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import asdict, dataclass
from typing import Any

from crdtstore.errors import UsageError
from crdtstore.testing.proxy_flow import DIRECTIONS, Direction, Flow
from crdtstore.testing.proxy_pipe import Address, ConnectionLost, Copy, Pipe, dial, end, ended

__all__ = ["Counters", "Direction", "Link", "Proxy"]


@dataclass(frozen=True, slots=True)
class Counters:
    """What a link did so far; ``dropped`` are bytes that were taken in and went down with their connection."""

    connections: int
    open: int
    refused: int
    resets: int
    copies: int
    forwarded_out: int
    forwarded_in: int
    dropped_out: int
    dropped_in: int


class Link:
    """One listening port that forwards to one target, with faults per direction.

    Units:   ``buffer_bytes`` is held at most per connection and direction (besides what the sockets hold);
             connections beyond ``max_connections`` at a time are reset at once.
    """

    def __init__(
        self,
        name: str,
        target: Address,
        *,
        seed: int = 0,
        buffer_bytes: int = 1 << 20,
        max_connections: int = 256,
        dial_timeout_s: float = 5.0,
    ) -> None:
        self.name = name
        self.target = target  # may be changed; holds for connections accepted later
        self._seed = seed
        self._buffer_bytes = buffer_bytes
        self._max_connections = max_connections
        self._dial_timeout_s = dial_timeout_s
        self._flows = {"out": Flow(), "in": Flow()}
        self._duplicate = False
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = self._refused = self._resets = self._copies = 0

    # -- life

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; ``port`` 0 takes a free one, see ``address``."""
        self._server = await asyncio.start_server(self._on_accept, host, port, limit=65536)

    async def stop(self) -> None:
        """Stop listening and reset all connections; afterwards no socket is left."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self.reset()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if server is not None:
            await server.wait_closed()

    @property
    def address(self) -> Address:
        if self._server is None:
            raise UsageError(f"link {self.name} does not listen; call start() first. Nothing changed.")
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    # -- faults

    @property
    def is_cut(self) -> bool:
        return any(flow.is_cut for flow in self._flows.values())

    def cut(self, direction: Direction = "both") -> None:
        """Black hole: connections stay open, nothing passes in this direction, new connections hang."""
        for flow in self._each(direction):
            flow.cut()

    def heal(self, direction: Direction = "both", *, reset: bool = True) -> int:
        """End the cut; returns how many connections were reset (all that saw it, none with ``reset=False``)."""
        cut = [flow for flow in self._each(direction) if flow.is_cut]
        doomed = self.reset() if cut and reset else 0  # before the gates open, so that nothing held slips through
        for flow in cut:
            flow.heal()
        return doomed

    def delay(self, delay_ms: float, jitter_ms: float = 0.0, direction: Direction = "both") -> None:
        """Hold everything for ``delay_ms`` and up to ``jitter_ms`` more, drawn from the seed; order is kept."""
        if delay_ms < 0 or jitter_ms < 0:
            raise UsageError(
                f"a delay is not negative, got {delay_ms} ms and {jitter_ms} ms of jitter. Nothing changed."
            )
        for flow in self._each(direction):
            flow.delay_ms, flow.jitter_ms = delay_ms, jitter_ms

    def throttle(self, bytes_per_second: int | None, direction: Direction = "both") -> None:
        """Let all connections together pass at most so much; None takes the limit away."""
        if bytes_per_second is not None and bytes_per_second < 1:
            raise UsageError(
                f"a throttle passes at least 1 byte/s (cut stops all), got {bytes_per_second}. Nothing changed."
            )
        for flow in self._each(direction):
            flow.set_throttle(bytes_per_second)

    def duplicate(self, enabled: bool = True) -> None:
        """Send what later clients say a second time, over a connection of its own to the target."""
        self._duplicate = enabled

    def reset(self) -> int:
        """Reset (RST) both sides of every open connection; returns how many."""
        doomed = [task for task in self._tasks if not task.done() and not task.cancelling()]
        for task in doomed:
            task.cancel()
        self._resets += len(doomed)
        return len(doomed)

    def clear(self) -> None:
        """Take all faults away; connections that saw a cut are reset."""
        self.heal()
        self.delay(0)
        self.throttle(None)
        self.duplicate(False)

    def faults(self) -> dict[str, Any]:
        """What is switched on, by direction; for people and reports."""
        return {
            name: {
                "cut": flow.is_cut,
                "delay_ms": flow.delay_ms,
                "jitter_ms": flow.jitter_ms,
                "bytes_per_second": flow.bytes_per_second,
            }
            for name, flow in self._flows.items()
        } | {"duplicate": self._duplicate}

    @property
    def counters(self) -> Counters:
        out, back = self._flows["out"], self._flows["in"]
        return Counters(
            connections=self._connections,
            open=len(self._tasks),
            refused=self._refused,
            resets=self._resets,
            copies=self._copies,
            forwarded_out=out.forwarded,
            forwarded_in=back.forwarded,
            dropped_out=out.dropped,
            dropped_in=back.dropped,
        )

    def _each(self, direction: Direction) -> list[Flow]:
        if direction not in DIRECTIONS:
            raise UsageError(f"a direction is out, in or both, got {direction!r}. Nothing changed.")
        return [self._flows[name] for name in DIRECTIONS[direction]]

    # -- connections

    def _on_accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.take(reader, writer)

    def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes = b"") -> None:
        """Carry a connection that somebody accepted, of which ``head`` has been read."""
        self._connections += 1
        full = len(self._tasks) >= self._max_connections
        run = self._refuse(writer) if full else self._carry(self._connections, reader, writer, head)
        task = asyncio.get_running_loop().create_task(run, name=f"link {self.name} {self._connections}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: end(writer, reset=True))  # it may have been reset before its first step

    async def _refuse(self, writer: asyncio.StreamWriter) -> None:
        self._refused += 1
        end(writer, reset=True)
        await ended(writer)

    async def _carry(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes
    ) -> None:
        out, back = self._flows["out"], self._flows["in"]
        pipes = (
            Pipe(out, back, self._dice(number, "out"), self._buffer_bytes),
            Pipe(back, out, self._dice(number, "in"), self._buffer_bytes),
        )
        if head:
            pipes[0].hold(head)
        writers = [writer]
        copy: Copy | None = None
        reset = True
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(pipes[0].fill(reader))  # at once: a client may leave while its connection hangs
                await self._wait_for_line(pipes[0])
                target_reader, target_writer = await self._dial(writers)
                if self._duplicate:
                    copy = await self._dial_copy(writers)
                tasks.create_task(pipes[0].pour(target_writer, copy))
                tasks.create_task(pipes[1].fill(target_reader))
                tasks.create_task(pipes[1].pour(writer, None))
            reset = False
        except* ConnectionLost:
            pass
        finally:
            for pipe in pipes:
                pipe.count_dropped()
            for each in writers:
                end(each, reset=reset)
            if copy is not None:
                await copy.stop()
            await asyncio.gather(*(ended(each) for each in writers))

    async def _wait_for_line(self, pipe: Pipe) -> None:
        """A handshake needs both directions; a client that gives up before leaves nothing behind."""
        while self.is_cut:
            waits = {asyncio.ensure_future(wait) for wait in (self._line(), pipe.ended.wait())}
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)
            if pipe.ended.is_set():
                raise ConnectionLost

    async def _line(self) -> None:
        for flow in self._flows.values():
            await flow.passable()

    async def _dial(self, writers: list[asyncio.StreamWriter]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            reader, writer = await dial(self.target, self._dial_timeout_s)
        except ConnectionLost:
            self._refused += 1
            raise
        writers.append(writer)
        return reader, writer

    async def _dial_copy(self, writers: list[asyncio.StreamWriter]) -> Copy | None:
        try:
            reader, writer = await dial(self.target, self._dial_timeout_s)
        except ConnectionLost:
            return None
        writers.append(writer)
        self._copies += 1
        return Copy(reader, writer, self._buffer_bytes)

    def _dice(self, number: int, direction: str) -> random.Random:
        return random.Random(f"{self._seed} {self.name} {number} {direction}")  # noqa: S311 - jitter, no secret


class Proxy:
    """Links by name."""

    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed
        self.links: dict[str, Link] = {}

    async def __aenter__(self) -> Proxy:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def add(self, name: str, target: Address, *, host: str = "127.0.0.1", port: int = 0, **options: Any) -> Link:
        """A new link, listening; ``options`` are those of ``Link``."""
        if name in self.links:
            raise UsageError(f"there is a link {name} already. Nothing changed.")
        link = Link(name, target, **{"seed": self._seed, **options})
        await link.start(host, port)
        self.links[name] = link
        return link

    async def stop(self) -> None:
        """Stop all links and forget them."""
        links, self.links = list(self.links.values()), {}
        await asyncio.gather(*(link.stop() for link in links))

    def partition(self, *names: str, direction: Direction = "both") -> None:
        """Cut the named links, or all of them."""
        for link in self._named(names):
            link.cut(direction)

    def heal(self, *names: str, reset: bool = True) -> int:
        """End the cut of the named links, or of all; returns how many connections were reset."""
        return sum(link.heal(reset=reset) for link in self._named(names))

    def clear(self) -> None:
        """Take all faults away everywhere."""
        for link in self.links.values():
            link.clear()

    def counters(self) -> dict[str, dict[str, int]]:
        return {name: asdict(link.counters) for name, link in sorted(self.links.items())}

    def _named(self, names: tuple[str, ...]) -> list[Link]:
        unknown = sorted(set(names) - set(self.links))
        if unknown:
            raise UsageError(f"unknown link {unknown[0]}, there are: {', '.join(sorted(self.links))}. Nothing changed.")
        return [self.links[name] for name in names or sorted(self.links)]
