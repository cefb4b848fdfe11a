"""A flash sale: everybody wants the same thing, in every region, also while regions are cut off from each other.

The question: who may sell the last one? Each buyer comes to two shops with the same stock. One keeps it in a bounded_counter and sells what
its region has the rights to. The other keeps it in a counter and sells as long as its region shows any: what was sold elsewhere meanwhile
it cannot know, and whatever it does about that afterwards, it has sold too much.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

from crdtstore.configuration import group_of
from crdtstore.errors import CrdtStoreError
from crdtstore.service import Request
from crdtstore_sim import scenario
from crdtstore_sim.facts import Asked, AskedOp
from crdtstore_sim.node import Node
from crdtstore_sim.observer import Observer
from crdtstore_sim.timeline import Timeline, Trace

__all__ = ["Sale", "Sold"]

_REPLY = 20
_DOMAIN, _KEY = "shop", "sku-7"
_BOUNDED, _PLAIN = "stock", "naive"
_TYPES = {_BOUNDED: "bounded_counter", _PLAIN: "counter"}
_SETUP_US, _RETRY_US = 50_000, 100_000
_OPENS_US = 1_000_000
"""When the doors open: the stock has been granted and shared out."""
_HOLD_MS = 3_000
_WAIT_MS = 1_000


class Sold(NamedTuple):
    """How one of the shops did."""

    type_name: str
    stock: int
    sold: int
    """Purchases that were acknowledged."""
    turned_away: int
    unanswered: int
    """Asked of a region that went down: they may have bought or not."""
    left: int
    """What every region shows in the end; less than nothing: sold to more than could have it."""

    @property
    def oversold(self) -> int:
        return max(0, -self.left)


class _Open(NamedTuple):
    """A request on its way; ``step``: what it is in the life of a buyer."""

    step: str
    node: int
    collection: str
    fields: dict[str, Any]
    ops: list[AskedOp]
    since_us: int
    since_ms: int


class Sale:
    """The buyers, and whoever opens the shop. Mutable."""

    def __init__(
        self,
        timeline: Timeline,
        trace: Trace,
        random: Random,
        options: scenario.Sale,
        nodes: Sequence[Node],
        observer: Observer,
        until_us: int,
    ) -> None:
        self.writes = 0
        self.reads = 0
        self.acknowledged = 0
        self.replayed = 0
        self.refused: dict[str, int] = {}
        self.buyers = 0
        self._timeline = timeline
        self._trace = trace
        self._random = random
        self._options = options
        self._nodes = nodes
        self._observer = observer
        self._until_us = until_us
        self._ticket = 0
        self._open: dict[int, _Open] = {}
        self._sold = dict.fromkeys(_TYPES, 0)
        self._turned_away = dict.fromkeys(_TYPES, 0)
        self._unanswered = dict.fromkeys(_TYPES, 0)
        self._steps = [self._declare, self._grant, self._share]
        """What is left to do before the doors open."""

    @property
    def open_requests(self) -> int:
        return len(self._open)

    def start(self) -> None:
        self._timeline.at(_SETUP_US, self._on_setup)
        self._timeline.at(_OPENS_US, self._on_buyer)

    # --- before the doors open

    def _on_setup(self, _: None) -> None:
        """The next step at the first region, again until it is done."""
        node = self._nodes[0]
        if self._steps and self._timeline.now_us < self._until_us:
            if node.is_alive and not any(asked.step == "setup" for asked in self._open.values()):
                self._steps[0](node)
            self._timeline.after(_RETRY_US, self._on_setup)

    def _declare(self, node: Node) -> None:
        node.on_requests([self._request("", node, "", "declare_domain", {"domain": _DOMAIN})])
        for name, type_name in _TYPES.items():
            fields = {"domain": _DOMAIN, "collection": name, "type": type_name}
            node.on_requests([self._request("setup" if name == _PLAIN else "", node, name, "declare", fields)])

    def _grant(self, node: Node) -> None:
        ops = [(_BOUNDED, "grant", {"amount": self._options.stock}), (_PLAIN, "add", {"amount": self._options.stock})]
        node.on_requests([self._commit("setup", node, ops, "grant")])

    def _share(self, node: Node) -> None:
        """Each region gets its part; what sells better elsewhere moves later by itself."""
        regions = self._observer.facts.regions
        part = self._options.stock // len(regions)
        ops = [(_BOUNDED, "transfer", {"amount": part, "to": region}) for region in regions[1:]] if part else []
        if ops:
            node.on_requests([self._commit("setup", node, ops, "share")])
        else:
            self._steps.pop(0)

    # --- buyers

    def _on_buyer(self, _: None) -> None:
        """Somebody comes, somewhere, to both shops."""
        timeline, random, options = self._timeline, self._random, self._options
        if timeline.now_us >= self._until_us:
            return
        timeline.after(int(random.expovariate(1) / options.buyers_per_s * 1_000_000) + 1, self._on_buyer)
        node = random.choice(self._nodes)
        if not node.is_alive or self._steps:
            return
        self.buyers += 1
        fields = {"domain": _DOMAIN, "collection": _PLAIN, "key": _KEY, "consistency": "local"}
        self.reads += 1
        node.on_requests([self._request("look", node, _PLAIN, "read", fields)])
        if random.random() < options.returns:
            ops = [(_BOUNDED, "reserve", {"amount": 1, "ttl_ms": _HOLD_MS})]
            node.on_requests([self._commit("reserve", node, ops)])
        else:
            node.on_requests([self._commit("buy", node, [(_BOUNDED, "consume", {"amount": 1})])])

    def _commit(
        self, step: str, node: Node, ops: Sequence[tuple[str, str, dict[str, Any]]], operation: str | None = None
    ) -> Request:
        self.writes += 1
        asked = [AskedOp(f"{name}:{_TYPES[name]}", _KEY, op, arguments) for name, op, arguments in ops]
        fields: dict[str, Any] = {
            "domain": _DOMAIN,
            "ops": [{"collection": name, "key": _KEY, "op": op, **arguments} for name, op, arguments in ops],
            "trace_id": str(self._ticket + 1),
            "wait_ms": _WAIT_MS,
        }
        if operation is not None:
            fields["id"] = operation
        self._observer.facts.asked[fields["trace_id"]] = Asked(_DOMAIN, asked, operation)
        return self._request(step, node, ops[0][0], "commit", fields, asked)

    def _request(
        self, step: str, node: Node, collection: str, do: str, fields: dict[str, Any], ops: list[AskedOp] | None = None
    ) -> Request:
        self._ticket += 1
        now_us = self._timeline.now_us
        self._open[self._ticket] = _Open(step, node.index, collection, fields, ops or [], now_us, node.now_ms)
        return Request(self._ticket, do, fields)

    # --- answers

    def on_replies(self, node: Node, replies: list[tuple[int, dict[str, Any] | CrdtStoreError]]) -> None:
        """A region answers."""
        for ticket, body in replies:
            asked = self._open.pop(ticket)
            self._trace.note(self._timeline.now_us, _REPLY, node.index, repr(body).encode())
            if isinstance(body, CrdtStoreError):
                self._on_error(node, asked, body)
            else:
                self._on_answer(node, asked, body)

    def _on_error(self, node: Node, asked: _Open, error: CrdtStoreError) -> None:
        self.refused[error.code] = self.refused.get(error.code, 0) + 1
        self._observer.on_refused(node.index, error, {op.type_name for op in asked.ops})
        if asked.step in {"look", "buy", "reserve"}:
            self._turned_away[asked.collection] += 1

    def _on_answer(self, node: Node, asked: _Open, body: dict[str, Any]) -> None:
        span = node.span(asked.since_us, asked.since_ms)
        if asked.ops:
            self.acknowledged += 1
            self._observer.on_committed(node.index, -1, group_of(_DOMAIN), asked.ops, body, span)
        match asked.step:
            case "setup":
                self._steps.pop(0)
            case "look":
                address = f"{_PLAIN}:{_TYPES[_PLAIN]}", _KEY
                self._observer.on_read(node.index, None, group_of(_DOMAIN), address, body, span)
                if body["value"] > 0 and node.is_alive:
                    node.on_requests([self._commit("buy", node, [(_PLAIN, "add", {"amount": -1})])])
                else:
                    self._turned_away[_PLAIN] += 1
            case "buy":
                self._sold[asked.collection] += 1
            case "reserve":
                ops = [(_BOUNDED, "release", {"hold": body["values"][0]})]
                self._timeline.after(
                    int(self._random.random() * 1_000_000), self._on_change_of_mind, (node.index, node.life, ops)
                )

    def _on_change_of_mind(self, argument: tuple[int, int, Any]) -> None:
        """Who had reserved gives it back, if the region is still the one that he asked; else the hold ends by itself."""
        index, life, ops = argument
        node = self._nodes[index]
        if node.is_alive and node.life == life:
            node.on_requests([self._commit("release", node, ops)])

    def on_crash(self, node: int) -> None:
        """All that was asked of a region stays without an answer."""
        for ticket, asked in list(self._open.items()):
            if asked.node == node:
                del self._open[ticket]
                if asked.step in {"look", "buy", "reserve"}:
                    self._unanswered[asked.collection] += 1

    # --- the end

    def result(self) -> list[Sold]:
        """How both shops did, by the models, with everything that anybody sold."""
        facts = self._observer.facts
        group = facts.group(group_of(_DOMAIN))
        everything = [len(records) for records in group.records]
        found = []
        for name, type_name in _TYPES.items():
            key = group.keys.get((f"{name}:{type_name}", _KEY))
            left = key.reading(everything).value if key is not None else 0
            sold, away, unanswered = self._sold[name], self._turned_away[name], self._unanswered[name]
            found.append(Sold(type_name, self._options.stock, sold, away, unanswered, left))
        return found
