"""The users: sessions that write, read, go from replica to replica with their token, lose replies and ask again.

The question: what do users know? Only what they were told. A request to a node that crashes has no answer; with an idempotency key it
is sent again, to this replica or another, and the models know every attempt by its trace id.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any
from uuid import UUID

from msgspec import Struct

from crdtstore.errors import CrdtStoreError
from crdtstore.service import Cancelled, Request
from crdtstore.shards import Division
from crdtstore_sim import scenario
from crdtstore_sim.arguments import random_member
from crdtstore_sim.checkers.pages import MEMBERED
from crdtstore_sim.facts import Asked, AskedOp
from crdtstore_sim.mixes import Collection
from crdtstore_sim.node import Node
from crdtstore_sim.observer import Observer
from crdtstore_sim.timeline import Timeline, Trace
from crdtstore_sim.work import Work

__all__ = ["Open", "Workload"]

_REPLY = 20
_WAIT_MS = 1_500
_BURST = 0.1
_LOOK = 0.3
_GIVES_UP = 0.7
_IF_MATCH = 0.06
_ACROSS = 0.03
_OWN_ID_MS = 600_000
_AHEAD_MS = 300_000
"""A key that says it was made so much later than it is may be refused: the clocks are wrong."""


class _Session:
    __slots__ = ("index", "is_busy", "last_id", "last_read", "node", "token")

    def __init__(self, index: int, node: int) -> None:
        self.index = index
        self.node = node
        self.token: str | None = None
        self.is_busy = False
        self.last_id: str | None = None
        self.last_read: tuple[dict[str, Any], dict[str, Any]] | None = None
        """Fields and body of the last read."""


class Open(Struct, frozen=True):
    """A request on its way: who asked whom for what. ``ops`` only of a commit, ``address`` of a read or list."""

    session: _Session | None
    node: int
    do: str
    fields: dict[str, Any]
    ops: list[AskedOp]
    address: tuple[str, str]
    since_us: int
    since_ms: int
    """By the clock of the node that was asked."""
    declared: frozenset[str]
    """The collections (with their type) that it had heard of."""
    division: Division | None
    """How it divided the domain."""


class Workload:
    """All users. Mutable."""

    def __init__(
        self,
        timeline: Timeline,
        trace: Trace,
        random: Random,
        options: scenario.Work,
        nodes: Sequence[Node],
        observer: Observer,
        until_us: int,
    ) -> None:
        self.writes = 0
        self.reads = 0
        self.acknowledged = 0
        self.replayed = 0
        self.refused: dict[str, int] = {}
        self._timeline = timeline
        self._trace = trace
        self._random = random
        self._options = options
        self._nodes = nodes
        self._observer = observer
        self._until_us = until_us
        self._ticket = 0
        self._sessions = [_Session(index, index % len(nodes)) for index in range(options.sessions)]
        self._open: dict[int, Open] = {}
        self._cancelled: set[int] = set()
        self._pause_us = 1_000_000 / (options.writes_per_s + options.reads_per_s)
        self._read_share = options.reads_per_s / (options.writes_per_s + options.reads_per_s)
        self._slowest_retry_us = int(options.slowest_retry_s * 1_000_000)
        self._domains = [f"d{index}" for index in range(options.domains)]
        self._work = Work(random, options, observer.facts.regions)
        self._undeclared = {(domain, name) for domain in self._domains for name in self._work.by_name}
        observer.facts.options |= {one.path: dict(one.options) for one in self._work.by_name.values()}

    @property
    def open_requests(self) -> int:
        return len(self._open)

    def start(self) -> None:
        for node in self._nodes if self._options.is_declared_everywhere else self._nodes[:1]:
            self._timeline.at(50_000, self._on_declare, node.index)
        self._timeline.at(300_000, self._on_arrival)

    # --- declarations

    def _on_declare(self, index: int) -> None:
        """Declare what is not declared yet; again, should the answer stay away."""
        node = self._nodes[index]
        if not self._undeclared or self._timeline.now_us > self._until_us:
            return
        if node.is_alive:
            requests = [self._declare_domain(domain, index) for domain in self._domains]
            for domain, name in sorted(self._undeclared):
                one = self._work.by_name[name]
                fields: dict[str, Any] = {"domain": domain, "collection": name, "type": one.type_name}
                if one.options:
                    fields["options"] = dict(one.options)
                requests.append(self._request(None, index, "declare", fields))
            node.on_requests(requests)
        self._timeline.after(1_000_000, self._on_declare, (index + 1) % len(self._nodes))

    def _declare_domain(self, domain: str, index: int) -> Request:
        """Who has heard of it already does not name a number."""
        options, fields = self._options, dict[str, Any](domain=domain)
        shards = options.other_shards if index % 2 and options.other_shards else options.shards
        if shards > 1 and self._division(index, domain) is None:
            fields["shards"] = shards
        return self._request(None, index, "declare_domain", fields)

    def _division(self, node: int, domain: str) -> Division | None:
        """How a node divides a domain now."""
        return self._nodes[node].service.host.declarations.division(domain)

    # --- arrivals

    def _on_arrival(self, _: None) -> None:
        timeline, random = self._timeline, self._random
        if timeline.now_us >= self._until_us:
            return
        timeline.after(int(random.expovariate(1) * self._pause_us) + 1, self._on_arrival)
        free = [session for session in self._sessions if not session.is_busy]
        if not free:
            return
        session = random.choice(free)
        node = self._place(session)
        if node is None:
            return
        requests = [self._ask(session, node)]
        if random.random() < _BURST:
            for other in free:
                if other.node == node.index and other is not session and len(requests) < 4:
                    requests.append(self._ask(other, node))
        node.on_requests(requests)

    def _place(self, session: _Session) -> Node | None:
        """The replica that a session asks next; it leaves one that is down."""
        node = self._nodes[session.node]
        if not node.is_alive or self._random.random() < self._options.roam:
            alive = [node for node in self._nodes if node.is_alive]
            if not alive:
                return None
            node = self._random.choice(alive)
            session.node = node.index
        return node

    def _ask(self, session: _Session, node: Node) -> Request:
        session.is_busy = True
        if self._random.random() < self._read_share:
            return self._read(session, node)
        return self._write(session, node)

    # --- reads

    def _read(self, session: _Session, node: Node) -> Request:
        self.reads += 1
        random = self._random
        domain, collection = random.choice(self._domains), random.choice(self._work.collections)
        fields: dict[str, Any] = {"domain": domain, "collection": collection.name, "wait_ms": _WAIT_MS}
        if session.token is not None:
            fields["token"] = session.token
        address = collection.path
        dice = random.random()
        if dice < 0.03:
            return self._request(session, node.index, "status", {})
        if dice < 0.06:
            del fields["collection"]
            return self._request(session, node.index, "domain", fields)
        if dice < 0.15:
            fields["values"] = random.random() < 0.5
            return self._request(session, node.index, "list", fields, address=(address, ""))
        fields["key"] = self._work.key()
        if self._options.mix != "basic" and random.random() < _LOOK:
            return self._look(session, node, collection, fields)
        if dice < 0.2:
            fields["consistency"] = "local"
        elif dice < 0.3:
            fields["max_staleness_ms"] = random.choice((0, 300, 3_000))
        request = self._request(session, node.index, "read", fields, address=(address, fields["key"]))
        if dice > 0.97:
            self._timeline.after(int(random.random() * 100_000), self._on_cancel, (request.ticket, node))
        return request

    def _look(self, session: _Session, node: Node, collection: Collection, fields: dict[str, Any]) -> Request:
        """Another way to look at a key, or at all of a domain."""
        random, address = self._random, (collection.path, fields["key"])
        do = random.choice(("conflicts", "explain", "members", "members"))
        if do == "members" and collection.type_name not in MEMBERED:
            do = "explain"
        if do == "conflicts":
            del fields["collection"], fields["key"]
            fields["limit"] = 1_000
        elif do == "members" and random.random() < 0.3:
            fields["has"] = random_member(random, collection.type_name)
        elif do == "members":
            fields["limit"] = random.choice((1, 3, 1_000)) if collection.type_name != "or_map" else 1_000
        else:
            fields["limit"] = 1_000
        return self._request(session, node.index, do, fields, address=address)

    def _on_cancel(self, argument: tuple[int, Node]) -> None:
        """Who asked is gone: whatever was not answered yet never will be."""
        ticket, node = argument
        asked = self._open.pop(ticket, None)
        if asked is not None and asked.session is not None:
            asked.session.is_busy = False
            self._cancelled.add(ticket)
            node.step([Cancelled(ticket)])

    # --- writes

    def _write(self, session: _Session, node: Node) -> Request:
        random, options = self._random, self._options
        domain = random.choice(self._domains)
        ops = self._work.ops(domain, node.index)
        if self._options.shards > 1 or self._options.other_shards > 1:
            ops = self._together(ops, self._division(node.index, domain))
        fields: dict[str, Any] = {"domain": domain, "ops": ops, "wait_ms": _WAIT_MS}
        if session.last_read is not None and random.random() < _IF_MATCH:
            read, body = session.last_read
            op = self._work.op(read["domain"], self._work.by_name[read["collection"]], read["key"], node.index)
            fields |= {"domain": read["domain"], "ops": [{**op, "if_match": body["etag"]}]}
        if session.token is not None and random.random() < 0.7:
            fields["token"] = session.token
        if random.random() < options.with_id:
            if session.last_id is not None and random.random() < options.reuse:
                fields["id"] = session.last_id
            else:
                fields["id"] = session.last_id = self._new_id(session, node)
            if random.random() < options.retry:
                self._retry_later(fields, node.index)
        if options.receipts and random.random() < options.receipts and len(self._nodes) > 1:
            fields["regions"] = random.randint(1, len(self._nodes) - 1)
        return self._commit(session, node.index, fields)

    def _together(self, ops: list[dict[str, Any]], division: Division | None) -> list[dict[str, Any]]:
        """Those that are in one shard with the first; now and then all of them, which is refused."""
        if division is None or self._random.random() < _ACROSS:
            return ops
        shards = [division.shard_of(op["collection"], op["key"]) for op in ops]
        return [op for op, shard in zip(ops, shards, strict=True) if shard == shards[0]]

    def _new_id(self, session: _Session, node: Node) -> str:
        """An idempotency key: a user's own, or one that says when it was made and expires ten minutes later."""
        if self._random.random() < 0.8:
            return f"s{session.index}-{self._ticket}"
        made_ms = node.now_ms - self._random.randint(0, _OWN_ID_MS + 5_000)
        return f"~{UUID(int=made_ms << 80 | 7 << 76 | 2 << 62 | self._ticket)}"

    def _commit(self, session: _Session | None, node: int, fields: dict[str, Any]) -> Request:
        """One attempt of a commit, known to the models by its trace id."""
        self.writes += 1
        ops = [self._work.asked(op) for op in fields["ops"]]
        trace_id = str(self._ticket + 1)
        self._observer.facts.asked[trace_id] = Asked(fields["domain"], ops, fields.get("id"))
        return self._request(session, node, "commit", {**fields, "trace_id": trace_id}, ops=ops)

    def _retry_later(self, fields: dict[str, Any], node: int) -> None:
        self._timeline.after(int(self._random.random() * self._slowest_retry_us), self._on_retry, (fields, node))

    def _on_retry(self, argument: tuple[dict[str, Any], int]) -> None:
        """The reply did not come, or so it seems: ask again with the same key, here or elsewhere, without the token.

        Rights are granted where they were asked for and nowhere else.
        """
        fields, index = argument
        is_elsewhere = self._random.random() >= 0.3 and not any(op["op"] == "grant" for op in fields["ops"])
        node = self._nodes[self._random.randrange(len(self._nodes)) if is_elsewhere else index]
        if node.is_alive:
            fields = {name: value for name, value in fields.items() if name not in {"token", "trace_id"}}
            node.on_requests([self._commit(None, node.index, fields)])

    # --- asking and being answered

    def _request(
        self,
        session: _Session | None,
        node: int,
        do: str,
        fields: dict[str, Any],
        ops: list[AskedOp] | None = None,
        address: tuple[str, str] = ("", ""),
    ) -> Request:
        self._ticket += 1
        now_us, asked = self._timeline.now_us, self._nodes[node]
        declared = frozenset(asked.service.host.declarations.readable(fields["domain"]) if do == "conflicts" else ())
        division = self._division(node, fields["domain"]) if "domain" in fields else None
        self._open[self._ticket] = Open(
            session, node, do, fields, ops or [], address, now_us, asked.now_ms, declared, division
        )
        return Request(self._ticket, do, fields)

    def on_replies(self, node: Node, replies: list[tuple[int, dict[str, Any] | CrdtStoreError]]) -> None:
        """A node answers."""
        for ticket, body in replies:
            if ticket in self._cancelled:  # answered while the cancellation was on its way into a standing process
                continue
            asked = self._open.pop(ticket, None)
            if asked is None or asked.node != node.index:
                self._observer.facts.report("refusals", f"an answer to nobody: ticket {ticket}")
                continue
            self._trace.note(self._timeline.now_us, _REPLY, node.index, repr(body).encode())
            if asked.session is not None:
                asked.session.is_busy = False
            if isinstance(body, CrdtStoreError):
                self._on_error(node, asked, body)
            else:
                self._on_answer(node, asked, body)

    def _on_error(self, node: Node, asked: Open, error: CrdtStoreError) -> None:
        self.refused[error.code] = self.refused.get(error.code, 0) + 1
        is_meant = error.code == "bad-request" and self._is_of_the_future(node, asked)
        if not (is_meant or (error.code == "cross-shard" and self._is_across(node, asked))):
            self._observer.on_refused(node.index, error, {op.type_name for op in asked.ops})
        if error.retryable and "id" in asked.fields and self._timeline.now_us < self._until_us:
            if error.code == "insufficient-rights" and self._random.random() < _GIVES_UP:
                return
            self._timeline.after(200_000, self._on_retry, (asked.fields, node.index))

    def _is_of_the_future(self, node: Node, asked: Open) -> bool:
        """Whether a key says that it was made later than it is at the node, whose clock was set back since, or is behind another's."""
        key = asked.fields.get("id", "")
        made_ms = UUID(key[1:]).int >> 80 if key.startswith("~") else 0
        return made_ms > node.span(asked.since_us, asked.since_ms).from_ms + _AHEAD_MS

    def _is_across(self, node: Node, asked: Open) -> bool:
        """Whether a commit is in several shards, as far as its node knew when it was asked or knows now."""
        divisions = (asked.division, self._division(node.index, asked.fields["domain"]))
        return any(
            division is not None
            and len({division.group_of(op["collection"], op["key"]) for op in asked.fields["ops"]}) > 1
            for division in divisions
        )

    def _judged_by(self, node: Node, asked: Open) -> Division | None:
        """How a node divided a domain when it judged a request; None: that changed meanwhile, and cannot be told."""
        now = self._division(node.index, asked.fields.get("domain", ""))
        may_change = self._options.other_shards > 0
        return now if asked.division == now or (asked.division is None and not may_change) else None

    def _on_answer(self, node: Node, asked: Open, body: dict[str, Any]) -> None:
        session, fields = asked.session, asked.fields
        division = self._judged_by(node, asked)
        if asked.do == "commit":
            self.acknowledged += 1
            self.replayed += body["replayed"]
            self._work.note(node.index, fields["domain"], fields["ops"], body["values"])
            if division is not None:
                self._on_committed(node, asked, body, division)
        elif asked.do == "declare":
            self._undeclared.discard((fields["domain"], fields["collection"]))
        if session is None or "token" not in body:
            return
        if asked.do == "read" and fields.get("consistency") == "local":
            if division is not None:
                group = division.group_of(fields["collection"], fields["key"])
                span = node.span(asked.since_us, asked.since_ms)
                self._observer.on_read(node.index, None, group, asked.address, body, span)
            session.token = _joined(session.token, body["token"])  # this reply knows nothing of the session
            return
        if asked.do == "read":
            session.last_read = fields, body
            if isinstance(body["value"], str):
                self._work.lengths[fields["domain"], fields["collection"], fields["key"]] = len(body["value"])
        if division is not None:
            self._on_shown(session.index, node, asked, body, division)
        session.token = body["token"] if "token" in fields else _joined(session.token, body["token"])

    def _on_shown(self, session: int, node: Node, asked: Open, body: dict[str, Any], division: Division) -> None:
        fields, observer, span = asked.fields, self._observer, node.span(asked.since_us, asked.since_ms)
        if asked.do == "read":
            group = division.group_of(fields["collection"], fields["key"])
            observer.on_read(node.index, session, group, asked.address, body, span)
        elif asked.do == "list":
            observer.on_list(node.index, session, division, asked.address[0], body, span)
        elif asked.do in {"conflicts", "explain", "members"}:
            observer.on_look(node.index, session, fields, asked.address, body, span, asked.declared, division)

    def _on_committed(self, node: Node, asked: Open, body: dict[str, Any], division: Division) -> None:
        session, fields, observer = asked.session, asked.fields, self._observer
        span = node.span(asked.since_us, asked.since_ms)
        group = division.group_of(fields["ops"][0]["collection"], fields["ops"][0]["key"])
        observer.on_committed(node.index, session.index if session else -1, group, asked.ops, body, span)
        if "regions" in fields:
            observer.on_awaited(node.index, group, fields, body, span)
        if session is not None and session.last_read is not None and "if_match" in fields["ops"][0]:
            observer.on_matched(group, asked.ops[0], body, session.last_read[1])

    def on_crash(self, node: int) -> None:
        """All that was asked of a node stays without an answer; who has a key asks again."""
        for ticket, asked in list(self._open.items()):
            if asked.node != node:
                continue
            del self._open[ticket]
            if asked.session is not None:
                asked.session.is_busy = False
            if "id" in asked.fields and self._timeline.now_us < self._until_us:
                self._retry_later(asked.fields, node)


def _joined(before: str | None, token: str) -> str:
    """A token that goes on from two."""
    return f"{before},{token}" if before else token
