"""The request rules: addresses, options, waiting for tokens and the disk, idempotency, replies and problems. Sans I/O.

The question: how can a test cluster, the simulator and HTTP behave alike? They only carry requests here, as plain maps with the fields
of API.md, and carry back what comes out: a map or an error. A request that must wait (for its token, or because what it reads is not
durable yet) waits here, bounded in number and time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec import Struct

from crdtstore.admin.administration import ADMIN, Administration
from crdtstore.admin.identity import check_writes, mark_of
from crdtstore.configuration import SYSTEM_GROUP
from crdtstore.declaring import Declaring
from crdtstore.engine.engine import REMOVED, Engine
from crdtstore.engine.events import Draft, Op, Persisted, Tick
from crdtstore.engine.output import Committed, Refused
from crdtstore.errors import CrdtStoreError, ReplicaBehind, Unavailable
from crdtstore.host import Host, HostOutput
from crdtstore.reading import Reader, Reading
from crdtstore.receipts import Receipts
from crdtstore.requests import CommitRequest, DeclareDomainRequest, DeclareRequest, parse
from crdtstore.routing import shard_of_all
from crdtstore.saving import Saved
from crdtstore.service_events import Cancelled, Event, PeerChanged, Received, Request
from crdtstore.sessions import Sessions
from crdtstore.status import status
from crdtstore.tokens import Seen

__all__ = ["Cancelled", "Event", "PeerChanged", "Received", "Request", "Service"]


_OF_ONE_KEY = frozenset({"explain", "members", "read"})
_NEVER = 1 << 63
"""Unix ms at which nothing is due."""


class _Waiting(Struct, gc=False):
    """A request that waits: until when, for what, and how it goes on."""

    deadline_ms: int
    seen: Seen
    batches: list[tuple[Engine, int]]
    resume: Callable[[int], None]


class Service:
    """The one entrance to a node's groups. Mutable; ``step`` is the only way in, ``status`` a pure view."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.sessions = Sessions(host)
        self._reader = reader = Reader(host)
        self._declaring = Declaring(host, reader)
        self._looks: dict[str, Callable[[Any, int], Reading]] = {
            "collection": reader.collection,
            "conflicts": reader.conflicts,
            "domain": reader.domain,
            "explain": reader.explain,
            "list": reader.keys,
            "members": reader.members,
            "read": reader.read,
        }
        host.on_replies = self._on_replies
        self._out = HostOutput()
        self.now_ms = 0
        """The time of this step."""
        self._is_removed = False
        self._drafts: dict[str, list[Draft]] = {}
        self._pending: dict[int, Callable[[Committed], dict[str, Any] | None]] = {}
        """Writes on their way to the disk, by ticket: what is answered then; None: not yet, or nobody is there any more."""
        self.receipts = Receipts(host.me.region)
        """Writes that are durable here and wait for other regions."""
        self._own_ticket = 0
        self._own: dict[int, Callable[[Committed | Refused], None]] = {}
        """Writes that this node makes for a request of another kind, by tickets below zero."""
        self._waiting: dict[int, _Waiting] = {}
        self._next_deadline_ms = _NEVER
        self.refused_requests: dict[str, int] = {}
        """How often each code was answered."""
        self.administration = Administration(self)

    # --- events

    def step(self, events: Sequence[Event], now_ms: int) -> HostOutput:
        """Let events happen in order; return what is to be done."""
        out = self._out = HostOutput()
        self.now_ms = now_ms
        host, has_moved = self.host, False
        self._look_again()
        for event in events:
            if isinstance(event, Request):
                self._on_request(event)
                continue
            if self._drafts:
                self._flush()
            if isinstance(event, Received):
                host.receive(event.peer, event.data, now_ms, out)
            elif isinstance(event, Persisted):
                host.persisted(event, now_ms, out)
                has_moved = True
            elif isinstance(event, Saved):
                host.saved(event, now_ms, out)
            elif isinstance(event, Tick):
                host.tick(now_ms, out)
            elif isinstance(event, PeerChanged):
                host.peer_changed(event.peer, event.is_connected, now_ms, out)
            else:
                self._forget(event.ticket)
            self._look_again()
        if self._drafts:
            self._flush()
        if self._waiting and (has_moved or now_ms >= self._next_deadline_ms):
            self._resume_waiting()
            self._flush()
        admin = self.administration
        if has_moved or now_ms >= admin.wake_ms:
            admin.on_step(now_ms)
        self._give_receipts()
        host.finish(now_ms, out)
        out.wake_ms = min(out.wake_ms, self._next_deadline_ms, admin.wake_ms, self.receipts.wake_ms)
        return out

    def status(self, now_ms: int) -> dict[str, Any]:
        """The state of this node and of what it knows of others; changes nothing."""
        return status(self.host, now_ms)

    def _look_again(self) -> None:
        """What was found for one request is good for the next ones, until anything else happens."""
        self.sessions.look_again()
        self._is_removed = self.host.roster.is_removed

    def _flush(self) -> None:
        """Hand the writes gathered so far to their engines: one batch per group."""
        while self._drafts:
            drafts, self._drafts = self._drafts, {}
            for group, batch in drafts.items():
                self.host.commit(group, batch, self.now_ms, self._out)

    # --- requests

    def _on_request(self, request: Request) -> None:
        try:
            if request.do in ADMIN:
                self._flush()
                self.administration.on_request(request, self.now_ms, self._out)
                return
            parsed: Any = parse(request.do, request.fields) if request.parsed is None else request.parsed
            if isinstance(parsed, CommitRequest):
                self._check_counts()
                if not parsed.token or parsed.token in self.sessions.covered:  # most do not wait
                    self._commit(request, parsed, self.now_ms, self.now_ms)
                else:
                    self._after_token(request, parsed, partial(self._commit, request, parsed, self.now_ms))
            elif (look := self._looks.get(request.do)) is not None:
                self._after_token(request, parsed, lambda now: self._show(request, parsed.token, look(parsed, now)))
            elif isinstance(parsed, DeclareDomainRequest):
                self._check_counts()
                domain = partial(self._reader.domain_body, parsed.domain)
                self._after_token(
                    request,
                    parsed,
                    lambda now: self._declare_by(request, parsed, self._declaring.domain(parsed), domain),
                )
            elif isinstance(parsed, DeclareRequest):
                self._check_counts()
                body = partial(self._reader.collection_body, parsed.domain, parsed.collection)
                self._after_token(
                    request,
                    parsed,
                    lambda now: self._declare_by(request, parsed, self._declaring.collection(parsed), body),
                )
            else:
                self.reply(request.ticket, self.status(self.now_ms))
        except CrdtStoreError as error:
            self.fail(request.ticket, error)

    def _check_counts(self) -> None:
        """Refuse to write on a node that was removed, before the write waits for what this node will never have.

        Raises:  Unavailable ``fenced``; nothing changed.
        """
        if self._is_removed:
            raise Unavailable(REMOVED, code="fenced")

    def _forget(self, ticket: int) -> None:
        """Who asked is gone."""
        self._waiting.pop(ticket, None)
        self.receipts.forget(ticket)
        if ticket in self._pending:  # it counts among those that wait for the disk, until it is there
            self._pending[ticket] = lambda committed: None

    def reply(self, ticket: int, body: dict[str, Any]) -> None:
        """Answer a request."""
        self._out.replies.append((ticket, body))

    def fail(self, ticket: int, error: CrdtStoreError) -> None:
        """Answer a request that is refused."""
        self.refused_requests[error.code] = self.refused_requests.get(error.code, 0) + 1
        error.__traceback__ = None  # an answer, no failure of ours; its frames would keep the whole step in memory
        self._out.replies.append((ticket, error))

    # --- waiting

    def _after_token(
        self, request: Request, parsed: Any, go: Callable[[int], None], until_ms: int | None = None
    ) -> None:
        """Go on as soon as this region has seen what the token names, in the groups that this request touches. Which these are may turn out
        to be others while it waits."""
        seen = self.sessions.seen(parsed.token)
        needed = self._reader.touched(parsed, seen) if seen else seen
        if self.sessions.has_seen(needed):
            if seen and len(needed) == len(seen):
                self.sessions.covered.add(parsed.token)
            go(self.now_ms)
            return
        if until_ms is None:
            until_ms = self.now_ms + min(parsed.wait_ms, self.host.options.max_wait_ms)
        again = partial(self._after_token, request, parsed, go, until_ms)
        self._wait(request.ticket, _Waiting(until_ms, needed, [], lambda now: again()))

    def _wait(self, ticket: int, waiting: _Waiting) -> None:
        if len(self._waiting) >= self.host.options.max_waiting:
            raise Unavailable(
                "too many requests wait on this node. Nothing changed.", code="overloaded", retry_after=1.0
            )
        self._waiting[ticket] = waiting
        self._next_deadline_ms = min(self._next_deadline_ms, waiting.deadline_ms)

    def _resume_waiting(self) -> None:
        """Go on with what can, refuse what waited too long. Costs a look at each, so only when something durable moved or time is up."""
        for ticket, waiting in list(self._waiting.items()):
            try:
                is_ready = _are_durable(waiting.batches) and self.sessions.has_seen(waiting.seen)
                if not is_ready and self.now_ms < waiting.deadline_ms:
                    continue
                del self._waiting[ticket]
                if not is_ready:
                    raise self._too_late(waiting)
                waiting.resume(self.now_ms)
            except CrdtStoreError as error:  # also when what it waits for went with a member that was removed
                self._waiting.pop(ticket, None)
                self.fail(ticket, error)
        self._next_deadline_ms = min((waiting.deadline_ms for waiting in self._waiting.values()), default=_NEVER)

    def _too_late(self, waiting: _Waiting) -> CrdtStoreError:
        if waiting.batches:
            return Unavailable(
                "the disk of this node does not answer. Nothing changed.", code="storage-failed", retry_after=1.0
            )
        regions = self.sessions.able_regions(waiting.seen)
        able = f"regions that can serve: {', '.join(regions)}" if regions else "no region is known to have caught up"
        return ReplicaBehind(
            f"this region has not seen all that the token names; {able}. Nothing changed.",
            regions=regions,
            retry_after=0.1,
        )

    def _show(self, request: Request, token: str | None, reading: Reading) -> None:
        """Reply with what was read as soon as the batches it came from are durable; the value is that of now, so no writer starves it."""
        body, batches, named = reading
        engines = [engine for engine, _ in batches[:named]]
        read_ms = self.now_ms

        def reply(now_ms: int) -> None:
            if body.get("staleness_ms") is not None:
                body["staleness_ms"] += now_ms - read_ms  # it has grown older meanwhile
            answer = {**body, "token": self.sessions.token_of_reading(token, engines)}
            if request.do in _OF_ONE_KEY:
                _name_shard(answer, engines[0])
            for engine in engines:
                if (mark := mark_of(self.host, engine)) is not None:
                    answer["identity"] = mark
            self.reply(request.ticket, answer)

        if _are_durable(batches):
            reply(self.now_ms)
        else:
            self._wait(request.ticket, _Waiting(self.now_ms + self.host.options.max_wait_ms, {}, batches, reply))

    # --- writes

    def _commit(self, request: Request, parsed: CommitRequest, asked_ms: int, now_ms: int) -> None:
        reader = self._reader
        division = reader.division(parsed.domain)
        declared = partial(reader.declared, parsed.domain)
        drafted = parsed.draft(request.ticket, request.principal, declared, now_ms, self.host.options)
        engine = reader.at(division, 0 if division.shards == 1 else shard_of_all(division, drafted.ops))
        if parsed.regions:
            self.receipts.check(engine, parsed.regions)
        self._submit(engine, drafted, partial(self._committed, engine, parsed, asked_ms))

    def _submit(self, engine: Engine, draft: Draft, answer: Callable[[Committed], dict[str, Any] | None]) -> None:
        check_writes(self.host)
        self._check_room()
        self._pending[draft.ticket] = answer
        self._drafts.setdefault(engine.group, []).append(draft)

    def _check_room(self) -> None:
        if len(self._pending) + len(self._own) + len(self.receipts) >= self.host.options.max_waiting:
            raise Unavailable("too many writes wait on this node. Nothing changed.", code="overloaded", retry_after=1.0)

    def check_domain(self, domain: str) -> None:
        """Can anything be said of this domain here?

        Raises:  UsageError ``not-declared``, Unavailable ``not-ready``; nothing changed.
        """
        self._reader.division(domain)

    def submit_own(self, engine: Engine, draft: Draft, judged: Callable[[Committed | Refused], None]) -> None:
        """Let a write of this node's own be judged; what became of it is told at once or when it is durable.

        Raises:  Unavailable; nothing changed.
        """
        self._check_room()
        self._own_ticket -= 1
        draft.ticket = self._own_ticket
        self._own[draft.ticket] = judged
        self.host.commit(engine.group, [draft], self.now_ms, self._out)

    def _on_replies(self, replies: list[Committed | Refused]) -> None:
        for reply in replies:
            if reply.ticket < 0:
                self._own.pop(reply.ticket)(reply)
                continue
            answer = self._pending.pop(reply.ticket, None)
            if answer is None:
                continue
            if isinstance(reply, Refused):
                self.fail(reply.ticket, reply.error)
                continue
            try:
                body = answer(reply)
                if body is not None:
                    self.reply(reply.ticket, body)
            except CrdtStoreError as error:  # declared, but what a later version declared before stands in its way
                self.fail(reply.ticket, error)

    def _committed(
        self, engine: Engine, parsed: CommitRequest, asked_ms: int, committed: Committed
    ) -> dict[str, Any] | None:
        """What is answered to a commit that is durable here; None: not before other regions have it too, or it is time."""
        replica = engine.replicas[committed.origin]
        body = {
            "dot": f"{replica}:{committed.seq}",
            "token": self.sessions.token_of_commit(parsed.token, engine, committed, is_alone=parsed.regions > 0),
            "values": committed.values,
            "replayed": committed.is_replayed,
            "durable_in": [self.host.me.region],
        }
        _name_shard(body, engine)
        if parsed.regions:
            until_ms = asked_ms + min(parsed.wait_ms, self.host.options.max_wait_ms)
            self.receipts.wait(engine, committed, parsed.regions, until_ms, body)
            return None
        if committed.is_replayed:  # of a new one nobody else can have heard yet
            body["durable_in"] = self.receipts.durable_in(engine, committed.origin, committed.seq)
        return body

    def _give_receipts(self) -> None:
        for ticket, answer in self.receipts.on_step(self.now_ms):
            if isinstance(answer, CrdtStoreError):
                self.fail(ticket, answer)
            else:
                self.reply(ticket, answer)

    # --- declarations

    def _declare_by(self, request: Request, parsed: Any, ops: list[Op], body: Callable[[], dict[str, Any]]) -> None:
        system = self.host.groups[SYSTEM_GROUP]

        def answer(committed: Committed) -> dict[str, Any]:
            seen = {system.replicas[committed.origin]: committed.seq}
            return {**body(), "token": self.sessions.token(parsed.token, SYSTEM_GROUP, seen)}

        if not ops:
            self._show(request, parsed.token, self._reader.of_system(body()))
        else:
            self._submit(system, Draft(request.ticket, ops, request.principal), answer)
            self._flush()  # the next request may rely on it


def _are_durable(batches: list[tuple[Engine, int]]) -> bool:
    for engine, number in batches:  # noqa: SIM110 - looked at for every read
        if engine.durability.synced < number:
            return False
    return True


def _name_shard(body: dict[str, Any], engine: Engine) -> None:
    """A dot names a commit within one shard, and readings of one shard have an order: of which, says a body, unless it is the first."""
    if (shard := engine.group.rpartition("/")[2]) != "0":
        body["shard"] = int(shard)
