"""One session with a node: a WebSocket on which numbered requests go out and their answers come back in any order.

The question: which requests can the node have seen when the connection ends? Those of frames that were written, and no
others: a request counts as sent in the very step in which its frame is handed to the operating system, and is taken back
when that step fails. All that has room leaves in one frame as soon as the tasks of this turn of the loop have spoken.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any

from crdtstore.values import unpack
from crdtstore_client.transport import ReplyLost

if TYPE_CHECKING:
    import aiohttp

__all__ = ["FRAME_BYTES", "Asked", "Broken", "Wire"]

FRAME_BYTES = 256 << 10
"""The longest frame for a node that does not say what it takes."""
MOST_FRAME_BYTES = 1 << 20
"""Beyond that nothing is gained by longer frames."""
MOST_CREDITS = 1 << 20
MOST_PER_FRAME = 1 << 15
_NAMES = (f"#{number}" for number in count())
_FAULTS = frozenset({1002, 1003, 1007, 1008, 1009})
"""Codes with which a node closes on who broke the rules: we would again."""


class Broken(Exception):
    """The node said something that has no meaning in a session."""


class Asked:
    """One request on its way, its answer in ``future``; None there: it is to be asked over HTTP."""

    __slots__ = ("deadline", "future", "heard", "is_sent", "n", "raw")

    def __init__(self, n: int, raw: bytes, deadline: float, future: asyncio.Future[dict[str, Any] | None]) -> None:
        self.n = n
        self.raw = raw
        self.deadline = deadline
        self.future = future
        self.is_sent = False
        self.heard: tuple[str, int] | None = None
        """The name of the wire that brought the answer, and the number of answers that it had brought by then."""


class Wire:
    """One connection. It takes requests from ``outbox``, whose owner keeps what was not sent when it ends."""

    def __init__(self, url: str, socket: aiohttp.ClientWebSocketResponse, hello: Any, outbox: deque[Asked]) -> None:
        """``hello`` is the first message of the node.

        Raises:  Broken when that is none.
        """
        if not isinstance(hello, dict) or hello.get("session") != 1:
            raise Broken("it does not begin as a session does")
        self._credits = _credits_of(hello)
        frame_bytes = hello.get("frame_bytes", FRAME_BYTES)
        if type(frame_bytes) is not int or frame_bytes < 1:
            raise Broken(f"it takes frames of {frame_bytes!r:.20} bytes")
        self.frame_bytes = min(frame_bytes, MOST_FRAME_BYTES)
        self.unanswered: dict[int, Asked] = {}
        """Of some the caller is gone: they hold their credits until they are answered."""
        self.has_answered = False
        self.is_retired = False
        self._name = next(_NAMES)
        self._answers = 0
        self._url = url
        self._socket = socket
        self._outbox = outbox
        self._loop = asyncio.get_running_loop()
        self._heard_at = 0.0
        """When the node last said something, or had been asked nothing."""
        self._reader: asyncio.Task[str | None] | None = None
        self._idle: asyncio.Future[None] | None = None
        """What the writer waits for while there is nothing it could send."""

    def wake(self) -> None:
        """There is something in the outbox."""
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def silence(self, now: float) -> float:
        """For so many seconds the node has owed answers and said nothing."""
        return now - self._heard_at if self.unanswered else 0.0

    def retire(self) -> None:
        """Send nothing more; end when all is answered."""
        self.is_retired = True
        self.wake()

    def abandon(self) -> None:
        """The node does not answer any more: end as if the connection had."""
        if self._reader is not None:
            self._reader.cancel()

    async def run(self) -> str | None:
        """Send and receive until the connection ends; then why it is no use to open another, or None.

        What was sent and not answered has lost its reply, when this returns.
        """
        writer = self._loop.create_task(self._write())
        reader = self._reader = self._loop.create_task(self._read())
        why = None
        try:
            await asyncio.wait([reader])
            if not reader.cancelled():
                why = reader.result()
        except Broken as broken:
            why = str(broken)
        finally:
            writer.cancel()
            reader.cancel()
            await asyncio.gather(writer, reader, return_exceptions=True)
            lost, self.unanswered = list(self.unanswered.values()), {}
            for asked in lost:
                if not asked.future.done():
                    asked.future.set_exception(ReplyLost(f"{self._url}: the session ended{f': {why}' if why else ''}"))
        if why is None and lost and not self.has_answered:
            return "it ended without an answer"
        return why

    # --- receiving

    async def _read(self) -> str | None:
        import aiohttp  # noqa: PLC0415 (dear: see http.py)

        binary = aiohttp.WSMsgType.BINARY
        while True:
            message = await self._socket.receive()
            if message.type is binary:
                self._on_frame(message.data)
            elif message.type is aiohttp.WSMsgType.TEXT:
                raise Broken("it sends text")
            else:
                code = self._socket.close_code
                return f"it closes it with {code} {message.extra or ''}".rstrip() if code in _FAULTS else None

    def _on_frame(self, data: bytes) -> None:
        try:
            messages = unpack(data)
        except ValueError as error:
            raise Broken(f"it sends what cannot be read ({error})") from None
        if type(messages) is not list:
            messages = (messages,)
        unanswered = self.unanswered
        for message in messages:
            if type(message) is not dict:
                raise Broken("it sends what is no message")
            n = message.pop("n", None)
            if n is None:
                self._credits += _credits_of(message)
                if self._credits > MOST_CREDITS:
                    raise Broken("it gives credits without end")
                continue
            asked = unanswered.pop(n, None) if type(n) is int else None
            problem = message.get("problem")
            if asked is None or not (problem is None or _is_problem(problem)):
                if asked is not None:
                    unanswered[asked.n] = asked
                raise Broken(f"it answers {n!r:.20}, which is not asked, or with no problem document")
            self._credits += 1
            self._answers += 1
            asked.heard = (self._name, self._answers)
            if not asked.future.done():
                asked.future.set_result(message)
        self.has_answered = True
        self._heard_at = monotonic()
        if self._outbox or self.is_retired:
            self.wake()

    # --- sending

    async def _write(self) -> None:
        socket, loop = self._socket, self._loop
        while True:
            frame = None if self.is_retired else self._take()
            if frame is None:
                if self.is_retired and not self.unanswered:
                    await socket.close()
                    return
                self._idle = loop.create_future()
                await self._idle
                continue
            data, batch = frame
            passed: list[bool] = []
            mark = loop.call_soon(passed.append, True)
            try:
                await socket.send_bytes(data)  # waits after it has written, if at all
            except ConnectionError:
                if not passed:
                    self._take_back(batch)
                return  # the reader learns of it too
            finally:
                mark.cancel()

    def _take(self) -> tuple[bytes, list[Asked]] | None:
        """The next frame: as much of the outbox as there are credits for, and as a frame holds."""
        outbox, batch, size = self._outbox, list[Asked](), 5
        while outbox and len(batch) < self._credits:
            asked = outbox[0]
            if not asked.future.done():
                size += len(asked.raw)
                if size > self.frame_bytes:
                    if batch:
                        break
                    if len(asked.raw) > self.frame_bytes:
                        asked.future.set_result(None)
                        outbox.popleft()
                        size = 5
                        continue
                batch.append(asked)
            outbox.popleft()
        if not batch:
            return None
        self._credits -= len(batch)
        if not self.unanswered:
            self._heard_at = monotonic()
        for asked in batch:
            asked.is_sent = True
            self.unanswered[asked.n] = asked
        if len(batch) == 1:
            return batch[0].raw, batch
        data = b"".join([b"\xdd" + len(batch).to_bytes(4, "big"), *[asked.raw for asked in batch]])
        return data, batch

    def _take_back(self, batch: list[Asked]) -> None:
        """It was not written: the next connection may carry it."""
        for asked in batch:
            asked.is_sent = False
            del self.unanswered[asked.n]
        self._outbox.extendleft(reversed(batch))


def _is_problem(problem: Any) -> bool:
    return type(problem) is dict and type(problem.get("status")) is int and problem["status"] >= 400


def _credits_of(message: dict[str, Any]) -> int:
    count = message.get("credits")
    if type(count) is not int or not 0 < count <= MOST_CREDITS:
        raise Broken(f"it gives {count!r:.20} credits")
    return count
