"""The line to one node: the requests that wait for it, and the session that carries them, if it offers one.

The question: what does a caller pay when there is no session? Nothing twice. One attempt to open one is under way at a
time, and all that is asked meanwhile waits for it in order; where a node says no (it is older, or a gateway does not let
it through) the callers are told to ask over HTTP, at once from then on, while later attempts are made beside them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from crdtstore.values import pack, unpack
from crdtstore_client.session_wire import FRAME_BYTES, Asked, Broken, Wire
from crdtstore_client.transport import NotSent, Refused, ReplyLost, Response

if TYPE_CHECKING:
    import aiohttp

__all__ = ["Line"]

HANDSHAKE_SECONDS = 2.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
"""So long a node that offers no session is not asked for one again."""
SILENT_SECONDS = 10.0
"""Who owes answers and says nothing for so long, when a caller has given up, is not waited for any more."""

_encode = msgspec.msgpack.Encoder().encode


Open = Callable[[str, str | None], Awaitable["aiohttp.ClientWebSocketResponse"]]
"""Opens a WebSocket at a url with a credential. Raises:  NotSent when nobody is there, Refused."""


class Line:
    """What is under way to one node. Mutable."""

    def __init__(self, url: str, open_socket: Open) -> None:
        self._url = url
        self._open_socket = open_socket
        self._loop = asyncio.get_running_loop()
        self._outbox: deque[Asked] = deque()
        self._number = 0
        self._authorization: str | None = None
        self._wires: list[Wire] = []
        """The session in use, last; before it those that only wait for their last answers."""
        self._opening: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_refused = False
        self._retry_at = 0.0
        self._pause = FIRST_PAUSE_SECONDS
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._is_closed = False

    async def ask(
        self, do: str, fields: Mapping[str, Any], authorization: str | None, deadline: float
    ) -> Response | None:
        """The answer; None when this is to be asked over HTTP, of which nothing was sent here.

        ``deadline`` is an instant of ``time.monotonic``.
        Raises:  NotSent, ReplyLost.
        """
        if self._is_closed:
            raise NotSent("this store is closed")
        if authorization != self._authorization:
            self._renew(authorization)
        wire = self._wires[-1] if self._wires else None
        if wire is None or wire.is_retired:
            wire = None
            if self._opening is None and monotonic() >= self._retry_at:
                self._opening = self._spawn(self._open())
            if self._is_refused:
                return None
        self._number += 1
        message = {"n": self._number, "do": do, **fields}
        try:
            raw = _encode(message)
        except OverflowError:  # an integer beyond 64 bits
            raw = pack(message)
        if len(raw) > (FRAME_BYTES if wire is None else wire.frame_bytes):
            return None
        asked = Asked(self._number, raw, deadline, self._loop.create_future())
        self._outbox.append(asked)
        if wire is not None:
            wire.wake()
        if self._timer is None or deadline < self._timer_at:
            self._arm(deadline)
        try:
            answer = await asked.future
        except asyncio.CancelledError:
            if not asked.is_sent and asked in self._outbox:
                self._outbox.remove(asked)
            raise
        return _response(answer, asked)

    def _renew(self, authorization: str | None) -> None:
        """What comes from now on goes over a session that was opened with this credential."""
        self._authorization = authorization
        self._is_refused, self._retry_at = False, 0.0
        for wire in self._wires:
            wire.retire()

    # --- opening

    async def _open(self) -> None:
        authorization = self._authorization
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                socket = await self._open_socket(self._url, authorization)
                try:
                    wire = Wire(self._url, socket, await _hello(socket), self._outbox)
                except BaseException:
                    self._spawn(_close(socket))
                    raise
        except NotSent as failure:
            if self._is_refused:
                self._refuse()
            self._fail(self._outbox, str(failure))
            return
        except (Refused, Broken, TimeoutError):
            self._refuse()
            return
        except Exception:  # whatever it is, nobody waits for a session that does not come
            self._refuse()
            raise
        finally:
            self._opening = None
        self._is_refused = False
        self._wires.append(wire)
        self._spawn(self._run(wire, socket))
        if authorization != self._authorization:
            wire.retire()
            self._go_on()

    async def _run(self, wire: Wire, socket: aiohttp.ClientWebSocketResponse) -> None:
        try:
            try:
                why = await wire.run()
            finally:
                self._wires.remove(wire)
            if wire.is_retired:
                return
            if why is not None:
                self._refuse()
            else:
                self._pause = FIRST_PAUSE_SECONDS
                self._go_on()
        finally:
            await _close(socket)

    def _go_on(self) -> None:
        """Open another session if there is something to say."""
        if self._outbox and self._opening is None and not self._is_closed:
            self._opening = self._spawn(self._open())

    def _refuse(self) -> None:
        """Let everybody ask over HTTP for a while."""
        self._is_refused = True
        self._retry_at = monotonic() + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
        waiting = list(self._outbox)
        self._outbox.clear()
        for asked in waiting:
            if not asked.future.done():
                asked.future.set_result(None)

    # --- deadlines

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = self._loop.call_later(at - monotonic(), self._on_deadline), at

    def _on_deadline(self) -> None:
        """Tell those whose time is up; one timer serves all, as hardly any of them ever ends so."""
        self._timer = None
        now = monotonic()
        late: list[Asked] = []
        following = float("inf")
        for group in (self._outbox, *(wire.unanswered.values() for wire in self._wires)):
            for asked in group:
                if asked.future.done():
                    continue
                if asked.deadline <= now:
                    late.append(asked)
                else:
                    following = min(following, asked.deadline)
        for asked in late:
            if asked.is_sent:
                asked.raw = b""
                asked.future.set_exception(ReplyLost(f"{self._url} did not answer in time"))
            else:
                asked.future.set_exception(NotSent(f"{self._url}: no session, or no room in it, in time"))
        if any(not asked.is_sent for asked in late):
            waiting = [asked for asked in self._outbox if not asked.future.done()]
            self._outbox.clear()
            self._outbox.extend(waiting)
        if late and self._wires and self._wires[-1].silence(now) >= SILENT_SECONDS:
            self._wires[-1].abandon()
        if following < float("inf"):
            self._arm(following)

    # --- the end

    async def close(self) -> None:
        """Nothing is sent any more; what waits for an answer does not get it."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._fail(self._outbox, "this store is closed")
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _fail(self, waiting: deque[Asked], why: str) -> None:
        failed = list(waiting)
        waiting.clear()
        for asked in failed:
            if not asked.future.done():
                asked.future.set_exception(NotSent(why))

    def _spawn(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _hello(socket: aiohttp.ClientWebSocketResponse) -> Any:
    """The first message of a node.

    Raises:  Broken when it says something else.
    """
    message = await socket.receive()
    if not isinstance(message.data, bytes):
        raise Broken("it says nothing at the beginning")
    try:
        return unpack(message.data)
    except ValueError as error:
        raise Broken(f"it begins with what cannot be read ({error})") from None


async def _close(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Say good-bye; a connection that is lost already has nobody to hear it."""
    try:
        await socket.close()
    except (OSError, RuntimeError):
        return


def _response(answer: dict[str, Any] | None, asked: Asked) -> Response | None:
    if answer is None:
        return None
    problem = answer.get("problem")
    return Response(200, answer, heard=asked.heard) if problem is None else Response(problem["status"], problem)
