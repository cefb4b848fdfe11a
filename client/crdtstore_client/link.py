"""Link: one request of a user becomes one answer, over as many nodes and attempts as its deadline allows.

The question: when is it right to ask again? Only when the answer says so (``retryable``, or an unknown effect) or when
there was none; a write always under the id of its first attempt, so that it counts once wherever it arrives. What
remains to be told apart at the end is whether any attempt can have reached a node: if none did, nothing happened; if
one did and nobody knows, the outcome is unknown, and so it is when a later attempt is refused for a reason that lies in
a region's state, which the lost one may have met otherwise.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import Any

from crdtstore.errors import (
    CODES,
    AccessError,
    CrdtStoreError,
    InsufficientRights,
    OutcomeUnknown,
    ReplicaBehind,
    Unavailable,
    from_problem,
    not_replicated,
)
from crdtstore_client.over_http import ask_over_http
from crdtstore_client.regions import Node, Nodes
from crdtstore_client.routes import OF_DECLARATIONS, OF_ONE_KEY, merge_pages
from crdtstore_client.session import Held, Session, text_of
from crdtstore_client.transport import Asks, NotSent, ReplyLost, Response, Transport

__all__ = ["Auth", "Call", "Link", "traceparent"]

CLOCK_STEP_S = 0.002
Auth = str | Callable[[], Awaitable[str]] | None

traceparent: ContextVar[str | None] = ContextVar("crdtstore_traceparent", default=None)
"""The W3C trace context to send with requests; whoever traces sets it."""

MAX_TOKEN_BYTES = 6000  # HTTP servers refuse header lines beyond 8 KiB
LEAST_SECONDS = 0.005
"""With less time left nothing is sent: no answer could come in it, and whether the request arrived would be unknown."""
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0
DEFAULT_LIMIT = 100
"""Items of a page, where none is given (API)."""
SERVER_WAIT_SECONDS = 1.0
"""How long a node waits by itself, for a token or for rights, before it says no (API: ``wait_ms=1000``)."""
WAIT_SHARE = 0.7
"""How much of a short attempt it may spend on that, so that its answer still arrives."""

_SAME_EVERYWHERE = frozenset(
    {
        "bad-request",
        "cross-shard",
        "foreign-token",
        "invalid-op",
        "invalid-value",
        "method-not-allowed",
        "no-such-route",
        "not-deletable",
        "schema-violation",
        "too-large",
        "type-mismatch",
        "unsupported-media-type",
    }
)
"""Refusals that depend on the request alone: an attempt whose reply was lost met the same one."""

_WRITES = frozenset({"commit", "declare", "declare_domain"})
_MERGES = {"commit": "read", "declare": "collection", "declare_domain": "domain"}
"""Which request about the same place reads, and so merges tokens; the others are such themselves."""
_PLACE = ("domain", "collection", "key")


@dataclass(slots=True)
class Call:
    """One request, as ``crdtstore/requests.py`` has them: what to send, and what is known of its attempts."""

    do: str
    fields: dict[str, Any] = field(default_factory=dict)
    shows_tokens: bool = True
    """False for reads of whatever is there: the token of their reply covers nothing but that reading."""
    stays: bool = False
    """Once it may have arrived at a node, it is repeated there only: elsewhere it would count once more."""
    prefers: tuple[str, ...] = ()
    """Regions to be asked first."""
    may_have_reached: bool = False
    bound_to: Node | None = None
    """Where it stays."""
    until: float = 0.0
    """When the attempt under way has to end, by ``time.monotonic``."""
    last: CrdtStoreError | None = None
    lost: str = ""

    @property
    def is_write(self) -> bool:
        return self.do in _WRITES

    @property
    def op_id(self) -> str | None:
        return self.fields.get("id")

    def merging(self) -> Call:
        """A read in the same place that merges tokens, and waits for none."""
        if self.do == "commit":
            op = self.fields["ops"][0]
            place = {"domain": self.fields["domain"], "collection": op["collection"], "key": op["key"]}
        else:
            place = {name: self.fields[name] for name in _PLACE if name in self.fields}
        return Call(_MERGES.get(self.do, self.do), {**place, "wait_ms": 0}, until=self.until)


class Link:
    """Transport, nodes and credential that the sessions of one ``connect`` share."""

    def __init__(self, urls: Iterable[str], transport: Transport, auth: Auth) -> None:
        self.transport = transport
        self._ask = transport.ask if isinstance(transport, Asks) else partial(ask_over_http, transport)
        self._renew = auth if callable(auth) else None
        self._bearer = f"Bearer {auth}" if isinstance(auth, str) and auth else None
        self.nodes = Nodes(urls, self.probe)
        self.is_closed = False

    async def probe(self, url: str, seconds: float) -> Response:
        """``GET /v1/status`` of one node, once."""
        headers = _headers(await self._authorization())
        return await self.transport.request(url, "GET", "/v1/status", body=None, headers=headers, timeout=seconds)

    async def once(
        self, url: str, method: str, path: str, body: dict[str, Any] | None, seconds: float
    ) -> dict[str, Any]:
        """The body of the answer of this one node, asked once: for what is about the node itself.

        Raises:  the problem it answered with; Unavailable when it was not reached; OutcomeUnknown when it may have been.
        """
        node = next(node for node in self.nodes if node.url == url)
        try:
            reply = await self._authorized(
                lambda authorization: self.transport.request(
                    url, method, path, body=body, headers=_headers(authorization), timeout=seconds
                )
            )
        except NotSent as failure:
            raise Unavailable(f"no answer: {failure}. Nothing changed.", code="unreachable") from failure
        except ReplyLost as failure:
            if method == "GET":
                raise Unavailable(f"no answer: {failure}. Nothing changed.", code="unreachable") from failure
            raise OutcomeUnknown(f"it may or may not have taken place ({failure}).") from failure
        if reply.status < 300:
            return reply.body
        raise _error_of(reply, node)

    async def close(self) -> None:
        self.is_closed = True
        await self.nodes.close()
        await self.transport.close()

    async def call(self, call: Call, session: Session, seconds: float) -> dict[str, Any]:
        """The body of the answer.

        Raises:  the problem a node answered with; Unavailable when no node was reached; OutcomeUnknown when a write
                 may have arrived.
        """
        if self.is_closed:
            raise Unavailable("this store is closed. Nothing changed.", code="unreachable", retryable=False)
        now = monotonic()
        deadline = now + seconds
        if not self.nodes.is_measured:
            await self.nodes.start()
            now = monotonic()
        routes = self.nodes.routes
        asked: set[str] = set()
        pause = FIRST_PAUSE_SECONDS
        while now + LEAST_SECONDS < deadline:
            worker = None
            if routes.workers > 1:
                if routes.divides(call.do, call.fields):
                    return await self._of_each(call, session, deadline - now)
                worker = routes.worker(call.do, call.fields)
            prefer = call.last.regions if isinstance(call.last, ReplicaBehind) else call.prefers
            only = None if call.bound_to is None else call.bound_to.url
            node = self.nodes.pick(asked, now, prefer, only, worker)
            if node is None:  # all were asked: pause, then another round
                if isinstance(call.last, InsufficientRights):
                    break  # each has already looked for rights elsewhere
                wait = max(pause * random.uniform(0.5, 1.0), self.nodes.wait_until() - now)  # noqa: S311
                if now + wait >= deadline:
                    break
                await asyncio.sleep(wait)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                asked.clear()
                now = monotonic()
                continue
            share = (deadline - now) / self.nodes.unasked(asked, only, worker)
            asked.add(node.url)
            call.until = now + share
            body = await self._attempt(call, session, node, share)
            if body is not None:
                return body
            now = monotonic()
        raise self._gave_up(call, seconds)

    async def _of_each(self, call: Call, session: Session, seconds: float) -> dict[str, Any]:
        """Ask each worker for what it holds of a domain; one page of it all."""
        owners = self.nodes.routes.owners(call.fields)
        parts = [replace(call, fields={**call.fields, "shards_of": owner}, last=None) for owner in owners]
        answers = await asyncio.gather(*(self.call(part, session, seconds) for part in parts), return_exceptions=True)
        pages = []
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            pages.append(answer)
        return merge_pages(call.do, pages, call.fields.get("limit", DEFAULT_LIMIT))

    async def _attempt(self, call: Call, session: Session, node: Node, seconds: float) -> dict[str, Any] | None:
        """One attempt at one node; None when another one may do better."""
        try:
            reply = await self._exchange(call, session, node, seconds)
        except (NotSent, ReplyLost) as failure:
            self.nodes.failed(node)
            call.lost = str(failure)
            if isinstance(failure, ReplyLost):
                _may_have_reached(call, node)
            return None
        if reply.status < 300:
            self.nodes.worked(node)
            if call.do in OF_DECLARATIONS:
                self.nodes.routes.learn(reply.body)
            regions = call.fields.get("regions", 0)
            if regions and (late := not_replicated(reply.body, regions)) is not None:
                raise late
            return reply.body
        self._refused(call, node, _error_of(reply, node))
        return None

    def _refused(self, call: Call, node: Node, error: CrdtStoreError) -> None:
        """Learn from a refusal.

        Raises:  it, when no other attempt can do better.
        """
        if not isinstance(error, InsufficientRights) or not isinstance(call.last, InsufficientRights):
            call.last = error  # of several regions without enough, the nearest says what is here
        if not (error.retryable or error.effect == "unknown"):
            self.nodes.worked(node)
            if call.is_write and call.may_have_reached and error.code not in _SAME_EVERYWHERE:
                raise _unknown(call) from error
            raise error
        if error.code == "wrong-worker":
            self.nodes.worked(node)
            self.nodes.learn(node, error.more)
            return
        if error.effect == "unknown":
            _may_have_reached(call, node)
        if error.retry_after is not None:
            # uvloop's clock counts whole milliseconds: a pause never ends too early, rather one too late
            node.not_before = monotonic() + error.retry_after + CLOCK_STEP_S
        elif isinstance(error, Unavailable) and not isinstance(error, ReplicaBehind):
            self.nodes.failed(node)

    async def _exchange(self, call: Call, session: Session, node: Node, seconds: float) -> Response:
        """Send with the tokens of the session, and take the reply's token in."""
        shown = session.begin(MAX_TOKEN_BYTES) if call.shows_tokens else session.begin_without()
        while shown is None:  # too many for one header: reads merge them first
            if (reply := await self._merge(call, session, node)).status >= 400:
                return reply
            seconds = call.until - monotonic()
            shown = session.begin(MAX_TOKEN_BYTES)
        said: dict[str, Any] = {}
        heard = None
        try:
            reply = await self._send(call, shown, node, seconds)
            if reply.status < 300:
                said = reply.body
                heard = reply.heard if call.do in OF_ONE_KEY else None
        finally:
            get = said.get
            session.end(shown, get("token"), call.fields.get("domain"), get("dot"), get("shard", 0), heard)
        return reply

    async def _merge(self, call: Call, session: Session, node: Node) -> Response:
        """Let a read merge some of the tokens."""
        part = session.part(MAX_TOKEN_BYTES)
        token = None
        try:
            reply = await self._send(call.merging(), part, node, call.until - monotonic())
            token = reply.body.get("token")
            if not token and reply.status < 400:
                raise ReplyLost(f"{node.url} answered a read without a token")
            return reply
        finally:
            session.end(part, token)

    def _send(self, call: Call, shown: tuple[Held, ...], node: Node, seconds: float) -> Awaitable[Response]:
        fields = dict(call.fields)
        token = text_of(shown)
        if token:
            fields["token"] = token
        is_short = seconds * WAIT_SHARE < SERVER_WAIT_SECONDS
        if fields.get("regions") or (is_short and (call.do == "commit" or (token and not call.is_write))):
            # leave the node time to say that it is behind, or lacks rights, or which regions have the write
            fields.setdefault("wait_ms", int(seconds * WAIT_SHARE * 1000))
        if (trace := traceparent.get()) is not None:
            fields["traceparent"] = trace
        if self._renew is None:
            return self._ask(node.url, call.do, fields, self._bearer, call.until)
        return self._authorized(lambda bearer: self._ask(node.url, call.do, fields, bearer, call.until))

    async def _authorized(self, send: Callable[[str | None], Awaitable[Response]]) -> Response:
        """Send with the credential; once more with a new one if it has been renewed meanwhile."""
        reply = await send(await self._authorization())
        if reply.status == 401 and self._renew is not None:
            self._bearer = None
            reply = await send(await self._authorization())
        return reply

    async def _authorization(self) -> str | None:
        if self._bearer is None and self._renew is not None and (secret := await self._renew()):
            self._bearer = f"Bearer {secret}"
        return self._bearer

    def _gave_up(self, call: Call, seconds: float) -> CrdtStoreError:
        if call.is_write and call.may_have_reached:
            return _unknown(call)
        if call.last is not None:
            return call.last
        urls = ", ".join(node.url for node in self.nodes)
        why = f" ({call.lost})" if call.lost else ""
        return Unavailable(f"no answer from {urls} within {seconds:g} s{why}. Nothing changed.", code="unreachable")


def _headers(authorization: str | None) -> dict[str, str]:
    headers = {} if authorization is None else {"Authorization": authorization}
    if (trace := traceparent.get()) is not None:
        headers["traceparent"] = trace
    return headers


def _may_have_reached(call: Call, node: Node) -> None:
    call.may_have_reached = True
    if call.stays:
        call.bound_to = call.bound_to or node


def _unknown(call: Call) -> OutcomeUnknown:
    what = f"repeat it with id={call.op_id!r}, it counts once" if call.op_id else "repeating it is safe"
    if call.bound_to is not None:
        where = f"{call.bound_to.url} ({call.bound_to.region})" if call.bound_to.region else call.bound_to.url
        what = f"repeat it with id={call.op_id!r} at {where} only, it counts once there"
    why = call.lost or (str(call.last) if call.last else "no answer")
    return OutcomeUnknown(f"the write may or may not have taken place ({why}); {what}.", op_id=call.op_id)


def _error_of(reply: Response, node: Node) -> CrdtStoreError:
    body = reply.body
    if "code" not in body:  # not a node of ours: a gateway, a wrong address
        if reply.status in {401, 403}:
            return AccessError(f"{node.url} refuses with status {reply.status}. Nothing changed.")
        code = "internal" if reply.status >= 500 else "no-such-route"
        what = "The write may have taken place." if reply.status >= 500 else "Nothing changed."
        error = CODES[code].error
        return error(f"{node.url} answers {reply.status}, but not as a node of crdtstore does. {what}", code=code)
    error_ = from_problem(body)
    if error_.retry_after is None and (header := reply.headers.get("retry-after", "")).isdigit():
        error_.retry_after = float(header)
    return error_
