"""The observer: tells each checker what happened, in the order in which it happened.

The question: in which order may things be judged? As the driver carries them out: what a step wrote, then what it sent, then what it
answered; and the disk's word on what is durable comes before the step that hears of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from random import Random
from typing import Any

from crdtstore.causal import Dot
from crdtstore.engine.engine import Engine
from crdtstore.errors import CrdtStoreError
from crdtstore.host import Host
from crdtstore.shards import Division
from crdtstore.storage.memory import MemoryLog
from crdtstore.storage.memory_state import MemoryState
from crdtstore.storage.protocol import Entry, StateStore
from crdtstore_sim.checkers import (
    Bounds,
    Causality,
    Convergence,
    Dots,
    Durability,
    Pages,
    Progress,
    Receipts,
    Refusals,
    Restarts,
    Sessions,
    Shards,
    Stability,
    Stamps,
    Stores,
    Values,
)
from crdtstore_sim.facts import AskedOp, Facts, Group, Span, keys_of

__all__ = ["Observer"]


class Observer:
    """Mutable: the facts and what the checkers keep."""

    def __init__(self, facts: Facts, random: Random) -> None:
        self.facts = facts
        self._random = random
        self.dots = Dots(facts)
        self.causality = Causality(facts)
        self.convergence = Convergence(facts)
        self.durability = Durability(facts)
        self.receipts = Receipts(facts)
        self.stability = Stability(facts)
        self.bounds = Bounds(facts)
        self.stamps = Stamps(facts)
        self.values = Values(facts)
        self.pages = Pages(self.values)
        self.sessions = Sessions(facts)
        self.refusals = Refusals(facts)
        self.progress = Progress(facts)
        self.restarts = Restarts(facts)
        self.stores = Stores(facts)
        self.shards = Shards(facts)

    # --- what a step did

    def on_applied(self, node: int, entries: Sequence[Entry], engines: dict[str, Engine], *, has_between: bool) -> None:
        """A step applied these commits and asked for them to be written; of several events, a read may stand between them."""
        facts = self.facts
        index = facts.index
        touched: dict[str, Any] = {}
        for name, origin_name, data in entries:
            if not origin_name:  # a note of the node or the group to itself
                continue
            group = touched.get(name)
            if group is None:
                group = touched[name] = facts.group(name)
            origin = index[origin_name]
            is_new = len(group.records[origin])
            record = self.dots.read_next(group, node, origin, data)
            if record is None:
                continue
            self.causality.on_commit(group, node, record)
            self.stability.on_commit(group, node, record)
            if len(group.records[origin]) > is_new:
                self.stamps.on_made(group, node, record)
                self.stability.on_made(group, record)
                self.bounds.on_made(group, record, facts.note_made(group, record))
            facts.note_applied(group, node, record)
            if has_between:
                group.moments[node].append((facts.now_us(), tuple(group.applied[node])))
        now_us = facts.now_us()
        for name, group in touched.items():
            engine = engines[name]
            group.moments[node].append((now_us, tuple(group.applied[node])))
            self.dots.on_step(group, node, engine)
            self.convergence.on_step(group, node, engine)

    def on_stepped(self, node: int, engines: dict[str, Engine]) -> None:
        """After every step, also one that applied nothing."""
        for name, engine in engines.items():
            if (group := self.facts.groups.get(name)) is not None:
                self.stability.on_step(group, node, engine)

    def on_send(self, node: int, data: bytes) -> None:
        said = self.durability.on_send(node, data)
        if said is not None:
            self.stamps.on_row(said[0], node, said[1])

    def on_rejected(self, node: int, peer: str, reason: str, engines: dict[str, Engine]) -> None:
        self.refusals.on_rejected(node, peer, reason)
        for engine in engines.values():
            self.refusals.on_step(node, engine)

    # --- what users were told

    def on_refused(self, node: int, error: CrdtStoreError, types: Iterable[str] = ()) -> None:
        self.refusals.on_error(node, error, types)

    def on_committed(
        self,
        node: int,
        session: int,
        name: str,
        ops: Sequence[AskedOp],
        body: dict[str, Any],
        span: Span,
    ) -> None:
        """``name`` is that of the group of its keys; so it is below."""
        group = self.facts.group(name)
        dot = Dot.parse(body["dot"])
        self.durability.on_acknowledged(group, node, dot)
        self.receipts.on_acknowledged(group, node, dot, body["durable_in"])
        self.sessions.on_written(session, group, dot)
        origin = self.facts.index[dot.replica]
        keys = {(op.collection, op.key) for op in ops}
        if not body["replayed"] and len(keys) == len(ops) and dot.seq <= len(group.records[origin]):
            self.values.on_written(group, node, ops, body["values"], (origin, dot.seq), span)

    def on_awaited(self, node: int, name: str, asked: dict[str, Any], body: dict[str, Any], span: Span) -> None:
        """A commit was answered that was to wait for other regions."""
        group = self.facts.group(name)
        self.receipts.on_awaited(group, node, body["durable_in"], asked["regions"], asked["wait_ms"], span)

    def on_matched(self, name: str, op: AskedOp, body: dict[str, Any], read: dict[str, Any]) -> None:
        """A commit on the condition that a key is as it was read was taken."""
        if not body["replayed"]:
            dot = Dot.parse(body["dot"])
            record_at = self.facts.index[dot.replica], dot.seq
            self.values.on_matched(self.facts.group(name), record_at, op.collection, op.key, read)

    def on_read(
        self,
        node: int,
        session: int | None,
        name: str,
        address: tuple[str, str],
        body: dict[str, Any],
        span: Span,
    ) -> None:
        """``address`` is collection (with its type) and key; without a token there is no session."""
        group = self.facts.group(name)
        if session is not None:
            self._on_shown(session, group, node, body)
        self.values.on_read(group, node, *address, body, span)
        self.stamps.on_staleness(group, node, body["staleness_ms"], span.now_ms)

    def on_list(
        self,
        node: int,
        session: int,
        division: Division,
        collection: str,
        body: dict[str, Any],
        span: Span,
    ) -> None:
        """Of each shard its own keys, all together in their order."""
        name = collection.partition(":")[0]
        found = [item["key"] for item in body["items"]]
        if found != sorted(set(found)):
            self.facts.report("model values", f"{self.facts.members[node]} lists {collection} as {found}")
        for shard, group in enumerate(map(self.facts.group, division.groups)):
            items = [item for item in body["items"] if division.shard_of(name, item["key"]) == shard]
            keys = keys_of(group, division, shard)
            self._on_shown(session, group, node, body)
            self.values.on_list(group, node, collection, {**body, "items": items}, span, keys)

    def on_look(
        self,
        node: int,
        session: int,
        fields: dict[str, Any],
        at: tuple[str, str],
        body: dict[str, Any],
        span: Span,
        declared: Collection[str],
        division: Division,
    ) -> None:
        """Members of a key, what stands behind it, or (without a key) where writes met; ``declared``: what the node had heard of."""
        if "declarations" in body:
            for shard, group in enumerate(map(self.facts.group, division.groups)):
                items = [item for item in body["items"] if division.shard_of(item["collection"], item["key"]) == shard]
                keys = keys_of(group, division, shard)
                self._on_shown(session, group, node, body)
                self.pages.on_conflicts(group, node, declared, {**body, "items": items}, span, keys)
            return
        group = self.facts.group(division.group_of(fields["collection"], fields["key"]))
        self._on_shown(session, group, node, body)
        if "live" in body:
            self.pages.on_explained(group, node, at, body, span)
        else:
            self.pages.on_members(group, node, at, fields, body, span)

    def _on_shown(self, session: int, group: Group, node: int, body: dict[str, Any]) -> None:
        """A session with its token was answered."""
        self.sessions.on_read(session, group, node)

    # --- disks and crashes

    def on_synced(self, node: int, entries: list[Entry]) -> None:
        self.facts.note_durable(node, [entry for entry in entries if entry.origin])

    def on_crash(self, node: int, survived: list[list[Entry]]) -> None:
        self.facts.note_crash(node, [[entry for entry in entries if entry.origin] for entries in survived])
        self.durability.on_crash(node)
        self.receipts.on_crash(node)
        self.convergence.forget()
        self.stability.forget(node)

    def on_down(self, node: int, engines: dict[str, Engine]) -> None:
        """A node is about to lose its memory."""
        self.restarts.on_down(node, engines)

    def on_saved(self, node: int, state: StateStore, log: MemoryLog) -> None:
        """A checkpoint of a node is on its disk."""
        self.stores.on_saved(node, state, log)

    def on_cut(self, node: int, state: StateStore, log: MemoryLog) -> None:
        self.stores.on_cut(node, state, log)

    def on_recovered(self, node: int, engines: dict[str, Engine]) -> None:
        for name, group in self.facts.groups.items():
            engine = engines.get(name)
            applied = engine.applied if engine else [0] * len(self.facts.members)
            self.durability.on_recovered(group, node, applied)
            if engine is not None:
                self.convergence.on_step(group, node, engine)
                self.convergence.on_scrub(group, node, engine)
        self.restarts.on_recovered(node, engines)

    # --- whole readings

    def look_around(self, node: int, host: Host, state: MemoryState) -> None:
        """At some steps: one key, the digest computed anew, and what is in memory of what is on disk."""
        engines = host.groups
        self.stores.on_look(node, host, state)
        for name in sorted(engines):
            group = self.facts.groups.get(name)
            if group is None:
                continue
            self.convergence.on_scrub(group, node, engines[name])
            if group.keys:
                at = self._random.choice(list(group.keys))
                self._look(group, node, *at, engines[name])
                self.stability.on_fold(group, node, engines[name], at)
                self.bounds.on_look(group, self._random)

    def on_end(self, nodes: Sequence[dict[str, Engine]], *, is_settled: bool) -> None:
        """Everything, everywhere; what is acknowledged must be everywhere once the run has settled."""
        for name in sorted(self.facts.groups):
            group = self.facts.groups[name]
            for node, engines in enumerate(nodes):
                if name not in engines:
                    continue
                self.convergence.on_step(group, node, engines[name])
                self.convergence.on_scrub(group, node, engines[name])
                for collection, key in list(group.keys):
                    self._look(group, node, collection, key, engines[name])
        if is_settled:
            self.durability.on_end()
            self.shards.on_end(nodes)

    def _look(self, group: Any, node: int, collection: str, key: str, engine: Engine) -> None:
        reading = self.values.on_look(group, node, collection, key, engine)
        if reading is not None:
            self.convergence.on_reading(group, node, collection, key, reading)
