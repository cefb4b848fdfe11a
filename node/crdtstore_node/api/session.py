"""One session: requests with numbers over one WebSocket, answered in any order.

The question: what may a client do that costs this node memory or time? It has so many credits, so what it asks is bounded; while it does
not read its answers nothing more of it is read, and when they become too many it is dropped; when it says nothing it is asked for a sign
of life. What it does wrong is said in words before the connection is closed, and what was taken from it before is done and answered.

All requests of one frame go to the driver at once, and all answers of one turn of the loop leave in one frame: no task, no future and no
system call belongs to a single request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol, cast

from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from aiohttp.http import WebSocketError, WSMsgType
from msgspec import Struct

from crdtstore.errors import CrdtStoreError
from crdtstore_node.api import problems
from crdtstore_node.api.session_frames import Asked, BadFrame, Refused, count_of, decode, encode, frames_of
from crdtstore_node.asking import Answer
from crdtstore_node.config import Http
from crdtstore_node.driver import Driver
from crdtstore_node.logs import event

__all__ = ["Counts", "Session"]

_log = logging.getLogger(__name__)
_LINGER_S = 1.0
"""So long the other side has to answer a close: closed at once, it might never see what was sent before."""
_REASON_BYTES = 123
_BINARY, _CLOSE, _PING, _PONG = 0x82, 0x88, 0x89, 0x8A
"""First bytes of frames that are whole."""


class Counts(Struct):
    """What the sessions of a node count."""

    requests: int = 0
    frames: int = 0
    refused: int = 0
    """Sessions closed for what they did."""


class Connection(Protocol):
    """What a session needs of the HTTP connection that it was."""

    transport: asyncio.Transport | None

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class _NoFlow:
    """The queue between aiohttp's reader and a session is emptied at once: it has nothing to hold back."""

    _reading_paused = False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Session:
    """One connection. Mutable; ``ended`` is done when nothing more is to be said on it."""

    def __init__(
        self,
        driver: Driver,
        status: Callable[[], dict[str, Any]],
        options: Http,
        outcomes: dict[str, int],
        counts: Counts,
        connection: Connection,
    ) -> None:
        self.open: dict[int, int] = {}
        self._driver = driver
        self._status = status
        self._options = options
        self._outcomes = outcomes
        self._counts = counts
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._queue = WebSocketDataQueue(cast(Any, _NoFlow()), options.body_bytes, loop=self._loop)
        self._reader = WebSocketReader(self._queue, options.body_bytes + 1, compress=False, decode_text=False)
        self._traces: dict[int, str] = {}
        """Of the open requests those that came with a trace: its id."""
        self._replies: list[dict[str, Any]] = []
        self._refused = 0
        """How many of the replies are problems."""
        self._is_flushing = False
        self._end: tuple[int, str] | None = None
        """With what this is closed as soon as all is answered; nothing more is taken."""
        self._is_closing = False
        self._is_paused = False
        self._is_heard = True
        self._is_asked = False
        """Whether a sign of life was asked for."""
        self._unread_bytes = 0
        """What waited to be read at the last look."""
        self._timer = self._loop.call_later(options.session_silence_ms / 1000, self._on_silence)

    def greet(self) -> None:
        """The first frame."""
        me, options = self._driver.service.host.me, self._options
        hello = {"session": 1, "node": me.node, "region": me.region}
        self._send({**hello, "credits": options.session_credits, "frame_bytes": options.body_bytes})

    # --- what comes in: this is the parser of the connection, as aiohttp calls it

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Bytes arrived."""
        self._is_heard = True
        self._reader.feed_data(data)
        try:
            while self._queue._buffer:
                kind, content, _ = _next(self._queue)
                if kind is not WSMsgType.BINARY:
                    self._on_other(kind, content)
                elif self._end is None and not self._is_closing:
                    self._take(content)
            if (error := self._queue.exception()) is not None:
                self._on_bad_bytes(error)
        except Exception:
            _log.exception("a session failed")
            self.end(1011, "this node failed at this session; its log says more")
        return False, b""

    def feed_eof(self) -> None:
        """The connection is gone: what only it wanted to know is forgotten."""
        self._timer.cancel()
        self._is_closing = True
        self._driver.forget_all(self)
        self._traces.clear()
        self._finish()

    def _take(self, frame: bytes) -> None:
        """Let the requests of a frame happen."""
        opened = self.open
        self._counts.frames += 1
        try:
            count = count_of(frame)
            if count > self._options.session_credits - len(opened):
                raise BadFrame(
                    1008,
                    f"{count} requests on top of {len(opened)} unanswered ones: there are {self._options.session_credits} credits",
                )
            good, bad = decode(frame)
            numbers = dict.fromkeys([request.n for request in good], 0)
            if bad:
                numbers |= dict.fromkeys([request.n for request in bad], 0)
            if len(numbers) < len(good) + len(bad) or not numbers.keys().isdisjoint(opened):
                raise BadFrame(1008, "a request has a number n that no other unanswered one has")
        except BadFrame as wrong:
            self.end(wrong.code, wrong.reason)
            return
        self._counts.requests += len(numbers)
        opened |= numbers
        for refused in bad:
            self._follow(refused)
            self.answered(refused.n, refused.error)
        if b"traceparent" in frame:
            for request in good:
                self._follow(request)
        if b"status" in frame:
            for request in good:
                if request.do == "status":
                    self.answered(request.n, self._status_of(request))
            good = [request for request in good if request.do != "status"]
        self._driver.request_all(self, good)

    def _status_of(self, request: Asked) -> Answer:
        try:
            return self._status()
        except CrdtStoreError as error:
            return error
        except Exception:
            return problems.failed(problems.trace_id_of(request.traceparent))

    def _follow(self, request: Asked | Refused) -> None:
        """Remember the trace of a request, for the problem that may come of it."""
        trace_id = problems.trace_id_of(request.traceparent)
        if trace_id is not None:
            self._traces[request.n] = trace_id

    def _on_other(self, kind: WSMsgType, content: Any) -> None:
        if kind is WSMsgType.PING:
            self._write(_PONG, content)
        elif kind is WSMsgType.CLOSE:
            self._on_close(content)
        elif kind is WSMsgType.TEXT:
            self.end(1003, "frames are binary: msgpack")

    def _on_close(self, code: int) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._write(_CLOSE, code.to_bytes(2, "big") if code else b"")
        self._finish()

    def _on_bad_bytes(self, error: BaseException) -> None:
        code = error.code if isinstance(error, WebSocketError) else 1002
        reason = str(error)
        if code == 1009:
            reason = f"a frame has at most {self._options.body_bytes} bytes"
        self.end(code, reason)

    # --- what goes out

    def answered(self, n: int, answer: Answer) -> None:
        """A request is answered: it goes out with the others of this turn."""
        del self.open[n]
        if isinstance(answer, CrdtStoreError):
            trace_id = self._traces.get(n)
            answer = {"n": n, "problem": problems.document_of(answer, trace_id, self._outcomes)}
            self._refused += 1
        else:
            answer["n"] = n
        if self._traces:
            self._traces.pop(n, None)
        self._replies.append(answer)
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        replies, self._replies = self._replies, []
        self._outcomes["ok"] += len(replies) - self._refused
        self._refused = 0
        if self._is_closing:
            return
        if replies:
            frames_of(replies, self._write_binary)
            if self._is_paused:
                self._check_unread()
        if self._end is not None and not self.open:
            self._close()

    def _send(self, message: dict[str, Any]) -> None:
        self._write_binary(encode(message))

    def _write_binary(self, payload: bytes) -> None:
        self._write(_BINARY, payload)

    def _write(self, head: int, payload: bytes) -> None:
        """One WebSocket frame (RFC 6455, 5.2): a server's are not masked."""
        transport = self._connection.transport
        if transport is None or transport.is_closing():
            return
        size = len(payload)
        if size < 126:
            transport.write(bytes((head, size)) + payload)
        elif size < 1 << 16:
            transport.write(bytes((head, 126, size >> 8, size & 0xFF)) + payload)
        else:
            transport.writelines([bytes((head, 127)) + size.to_bytes(8, "big"), payload])

    def on_full(self) -> None:
        """The other side does not read: nothing more is taken from it."""
        self._is_paused = True
        self._unread_bytes = 1 << 62
        self._connection.pause_reading()

    def _check_unread(self) -> None:
        transport = self._connection.transport
        if transport is not None and transport.get_write_buffer_size() > self._options.session_buffer_bytes:
            self._drop("too many replies that it does not read")

    def on_room(self) -> None:
        """What was written is on its way."""
        self._is_paused = False
        self._connection.resume_reading()

    # --- how it ends

    def end(self, code: int, reason: str) -> None:
        """Take nothing more; close when all that was taken is answered, or it is time."""
        if self._end is not None or self._is_closing:
            return
        self._end = (code, reason)
        if code not in (1001, 1000):
            self._counts.refused += 1
        self._timer.cancel()
        if self.open or self._is_flushing:
            self._timer = self._loop.call_later(self._options.shutdown_ms / 1000, self._close)
        else:
            self._close()

    def _close(self) -> None:
        if self._is_closing:
            return
        assert self._end is not None
        code, reason = self._end
        self._is_closing = True
        said = reason.encode()[:_REASON_BYTES].decode("utf-8", "ignore").encode()
        self._write(_CLOSE, code.to_bytes(2, "big") + said)
        self._timer.cancel()
        self._timer = self._loop.call_later(_LINGER_S, self._linger, int(self._options.shutdown_ms / 1000 / _LINGER_S))

    def _linger(self, times: int) -> None:
        """The other side did not answer the close; what it may still read is not taken from it at once."""
        transport = self._connection.transport
        if transport is not None and transport.get_write_buffer_size():
            if times > 0:
                self._timer = self._loop.call_later(_LINGER_S, self._linger, times - 1)
                return
            transport.abort()
        self._finish()

    def _finish(self) -> None:
        self._timer.cancel()
        if not self.ended.done():
            self.ended.set_result(None)

    def _drop(self, why: str) -> None:
        """There is no use in saying anything more."""
        self._counts.refused += 1
        self._is_closing = True
        event(_log, logging.WARNING, "the session of a client was dropped", why=why)
        if self._connection.transport is not None:
            self._connection.transport.abort()

    def _on_silence(self) -> None:
        """Time to look whether anybody is there."""
        transport = self._connection.transport
        if transport is None:
            return
        if self._is_paused:
            unread = transport.get_write_buffer_size()
            if unread >= self._unread_bytes:
                self._drop("it did not read its replies for long")
                return
            self._unread_bytes = unread
        elif self._is_heard:
            self._is_heard = self._is_asked = False
        elif self._is_asked:
            self._drop("it gave no sign of life")
            return
        else:
            self._is_asked = True
            self._write(_PING, b"")
        self._timer = self._loop.call_later(self._options.session_silence_ms / 1000, self._on_silence)


def _next(queue: WebSocketDataQueue) -> Any:
    """The first message of a queue that has one: its coroutine ends without waiting."""
    reading = queue.read()
    try:
        reading.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("the queue is empty")
