"""One HTTP request: taken apart, handed to the service, its answer put together.

The question: what may happen between a request and its answer that is not a problem document? Nothing. Whatever is wrong with a request
is said in its own words with status and code; whatever is wrong with us is said as ``internal`` with a trace id, and the traceback stays
in the log of this node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from aiohttp import web

from crdtstore.errors import CrdtStoreError, UsageError, not_replicated
from crdtstore_node.api import bodies, problems, routes, target
from crdtstore_node.api.sessions import Sessions
from crdtstore_node.config import Http
from crdtstore_node.driver import Driver

__all__ = ["Handler", "Pages"]

_NAME = "crdtstore"


class Pages(Protocol):
    """What a node says of itself."""

    def status(self) -> dict[str, Any]: ...

    def why_not_ready(self) -> CrdtStoreError | None: ...

    def metrics(self) -> tuple[str, bytes]:
        """Content type and body."""

    async def prepare_orphans(self, asked: dict[str, Any]) -> None:
        """Read what a request about orphans needs."""


class Handler:
    """The handler of the API listener. ``outcomes`` counts answers by code ("ok" for those that are none)."""

    def __init__(self, driver: Driver, pages: Pages, options: Http) -> None:
        self._driver = driver
        self._pages = pages
        self._options = options
        self.outcomes: dict[str, int] = {"ok": 0}
        self.sessions: Sessions = Sessions(driver, pages, options, self.outcomes)
        self._own: dict[str, Callable[[], dict[str, Any]]] = {
            ".status": pages.status,
            ".health": lambda: {"alive": True},
            ".ready": self._ready,
        }

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to one request, whatever it is."""
        headers = request.headers
        is_msgpack = bodies.wants_msgpack(headers.get("Accept"))
        try:
            return await self._answer(request, is_msgpack)
        except CrdtStoreError as error:
            return self.refuse(error, is_msgpack, headers.get("traceparent"))
        except web.HTTPRequestEntityTooLarge:
            detail = f"a body has at most {self._options.body_bytes} bytes. Nothing changed."
            return self.refuse(UsageError(detail, code="too-large"), is_msgpack, headers.get("traceparent"))
        except (web.RequestPayloadError, ConnectionError) as error:
            detail = f"the body did not arrive as announced: {error}. Nothing changed."
            return self.refuse(UsageError(detail), is_msgpack, headers.get("traceparent"))
        except Exception:
            return self.fail(is_msgpack, headers.get("traceparent"))

    async def _answer(self, request: web.BaseRequest, is_msgpack: bool) -> web.StreamResponse:
        path, query = target.split(request.raw_path)
        action, fields = routes.find(request.method, target.segments(path))
        if "Content-Encoding" in request.headers:
            raise UsageError("a body is sent uncompressed. Nothing changed.", code="unsupported-media-type")
        if action.body:
            if query:
                target.parse_query(query, {})
            given = bodies.decode(
                await self._read(request), request.headers.get("Content-Type"), may_be_empty=action.may_be_empty
            )
            if not given.keys() <= action.body:
                raise problems.unknown_fields(given, action.body)
            asked: dict[str, Any] = {**given, **fields}
        else:
            if request.body_exists and await self._read(request):
                raise UsageError(f"{request.method} takes no body here. Nothing changed.")
            asked = {**fields, **target.parse_query(query, action.query)}
        if action.do == ".session":
            return await self.sessions.serve(request)
        if action.do.startswith("."):
            return self._own_page(action.do, is_msgpack)
        if action.do == "commit":
            _complete_commit(asked, request)
        token = request.headers.get("Crdtstore-Token")
        if token is not None:
            asked["token"] = ", ".join(request.headers.getall("Crdtstore-Token"))
        if action.do == "orphans":
            await self._pages.prepare_orphans(asked)
        answer = await self._ask(action.do, asked)
        if isinstance(answer, CrdtStoreError):
            return self.refuse(answer, is_msgpack, request.headers.get("traceparent"))
        self.outcomes["ok"] += 1
        return self._respond(answer, is_msgpack, request.headers.get("If-None-Match"), _status(action, asked, answer))

    async def _read(self, request: web.BaseRequest) -> bytes:
        """The body, once all of it is here."""
        content = request.content
        if content.is_eof():
            return await request.read()
        if (request.content_length or 0) > self._options.body_bytes:
            raise web.HTTPRequestEntityTooLarge(self._options.body_bytes, request.content_length or 0)
        headers = request.headers
        if headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            async with asyncio.timeout(self._options.body_timeout_ms / 1000):
                return await request.read()
        except TimeoutError:
            raise UsageError(
                f"the body did not arrive within {self._options.body_timeout_ms} ms. Nothing changed."
            ) from None

    async def _ask(self, do: str, asked: dict[str, Any]) -> dict[str, Any] | CrdtStoreError:
        ticket, future = self._driver.request(do, asked)
        try:
            return await future
        except asyncio.CancelledError:  # the client went away
            self._driver.forget(ticket)
            raise

    def _respond(self, answer: dict[str, Any], is_msgpack: bool, known: str | None, status: int = 200) -> web.Response:
        headers = {"Server": _NAME, "Content-Type": bodies.MSGPACK if is_msgpack else bodies.JSON}
        etag = answer.get("etag")
        if etag is not None:
            headers["ETag"] = etag
            if known is not None and _matches(known, etag, answer):
                del headers["Content-Type"]
                return web.Response(status=304, headers=headers)
        return web.Response(status=status, body=bodies.encode(answer, is_msgpack), headers=headers)

    # --- pages of the node itself

    def _own_page(self, do: str, is_msgpack: bool) -> web.Response:
        if do == ".metrics":
            content_type, body = self._pages.metrics()
            answer = web.Response(body=body, headers={"Server": _NAME, "Content-Type": content_type})
        else:
            answer = self._respond(self._own[do](), is_msgpack, None)
        self.outcomes["ok"] += 1
        return answer

    def _ready(self) -> dict[str, Any]:
        error = self._pages.why_not_ready()
        if error is not None:
            raise error
        return {"ready": True}

    # --- what is wrong

    def refuse(self, error: CrdtStoreError, is_msgpack: bool, traceparent: str | None = None) -> web.Response:
        """The problem document of an error."""
        document = problems.document_of(error, problems.trace_id_of(traceparent), self.outcomes)
        headers = {"Server": _NAME, "Content-Type": bodies.MSGPACK if is_msgpack else bodies.PROBLEM_JSON}
        if error.retry_after is not None:
            headers["Retry-After"] = str(max(1, round(error.retry_after)))
        if isinstance(error, routes.MethodNotAllowed):
            headers["Allow"] = error.allow
        return web.Response(status=document["status"], body=bodies.encode(document, is_msgpack), headers=headers)

    def fail(self, is_msgpack: bool, traceparent: str | None = None) -> web.Response:
        """The answer when we failed; called where the exception is handled."""
        return self.refuse(problems.failed(problems.trace_id_of(traceparent)), is_msgpack)


def _status(action: routes.Action, asked: dict[str, Any], answer: dict[str, Any]) -> int:
    if action.do != "commit":
        return action.status
    late = not_replicated(answer, asked.get("regions", 0))
    return action.status if late is None else late.status


def _complete_commit(asked: dict[str, Any], request: web.BaseRequest) -> None:
    """Add what the path and the headers say; an op may repeat the path but not contradict it."""
    ops, headers = problems.check_ops(asked.get("ops")), request.headers
    names = {"collection": asked.pop("collection"), "key": asked.pop("key")}
    for op in ops:
        for name, value in names.items():
            if op.setdefault(name, value) != value:
                raise UsageError(f"an op at this path is of the {name} {value[:100]!r}. Nothing changed.")
    for name in ("If-Match", "If-None-Match"):
        if name in headers:  # ignored, it would let a write through that was to be refused
            raise UsageError(
                f"a write takes no header {name}; an op takes an etag in its field if_match. Nothing changed."
            )
    key = headers.get("Idempotency-Key")
    if key is not None:
        if len(headers.getall("Idempotency-Key")) > 1:
            raise UsageError("the header Idempotency-Key stands there twice. Nothing changed.")
        asked["id"] = key
    trace_id = problems.trace_id_of(headers.get("traceparent"))
    if trace_id is not None:
        asked["trace_id"] = trace_id


def _matches(known: str, etag: str, answer: dict[str, Any]) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in known.split(",")]
    return etag in tags or ("*" in tags and bool(answer.get("exists")))
