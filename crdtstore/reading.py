"""What readers are shown: keys, lists, members, explanations, conflicts, declarations.

The question: what does a reader have to wait for? For the batches that what it is shown came from, its declaration among them, until they
are on disk here. So every reading is taken at once, as of now (what has expired by now is hidden), and comes with what it waits for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import merge
from itertools import groupby, islice, repeat
from operator import itemgetter
from typing import Any, NamedTuple

from msgspec import UNSET

from crdtstore.clock import rfc3339
from crdtstore.configuration import SYSTEM_GROUP
from crdtstore.declarations import Declared
from crdtstore.engine.engine import Engine
from crdtstore.errors import ReplicaBehind, Unavailable, UsageError
from crdtstore.explaining import conflicting_keys, explained
from crdtstore.host import Host
from crdtstore.leaves import Branch, deadline_of
from crdtstore.members import Page, has_member, members
from crdtstore.requests import (
    CollectionRequest,
    ConflictsRequest,
    DomainRequest,
    ExplainRequest,
    ListRequest,
    MembersRequest,
    ReadRequest,
)
from crdtstore.routing import IN_DOMAIN, OF_DOMAIN, touched
from crdtstore.shards import Division
from crdtstore.tokens import Seen
from crdtstore.types import CrdtType, View
from crdtstore.types.or_map import split_part
from crdtstore.values import show

__all__ = ["Reader", "Reading"]


class Reading(NamedTuple):
    """What a reader is shown as soon as the batches it came from are durable; the token names the groups of the first ``named``."""

    body: dict[str, Any]
    batches: list[tuple[Engine, int]]
    named: int = 1


class Reader:
    """Readings of one node. Changes nothing."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._groups, self._divisions = host.groups, host.declarations.divisions

    # --- what is declared

    def division(self, name: str) -> Division:
        """How a domain is divided; the name may be ``domain@number``.

        Raises:  UsageError ``not-declared``, Unavailable ``not-ready`` while this node takes over what the others hold; nothing changed.
        """
        division = self._divisions.get(name) or self._host.declarations.division(name)
        if division is not None:
            return division
        if not self._host.groups[SYSTEM_GROUP].is_installed:
            raise self.not_ready("what is declared")
        if self._host.engine_of(name) is not None:  # its group is open, though its declaration has not come
            return Division.of(name, 1)
        domain, at, number = name.partition("@")
        how = f" with {number} shards" if at else ""
        raise UsageError(
            f"the domain {domain} is not declared{how} in region {self._host.me.region}. Nothing changed.",
            code="not-declared",
        )

    def at(self, division: Division, shard: int) -> Engine:
        """The group of a shard.

        Raises:  Unavailable ``wrong-worker`` when this node does not hold it, ``not-ready`` while it takes it over; nothing changed.
        """
        engine = self._groups.get(division.groups[shard])
        if engine is not None and engine.is_installed:
            return engine
        if not self._host.holds(division.groups[shard]):
            raise self._host.workers.wrong(division.domain, division.shards, division.groups[shard])
        raise self.not_ready(f"the domain {division.domain}")

    def all_of(self, division: Division, shards_of: int | None) -> dict[int, Engine]:
        """All groups of a domain, by shard, or those that one worker holds.

        Raises:  as ``at``; nothing changed.
        """
        return {shard: self.at(division, shard) for shard in self._held(division, shards_of)}

    def _held(self, division: Division, shards_of: int | None) -> list[int]:
        """The shards of a domain that a request about all of it is answered from.

        Raises:  Unavailable ``wrong-worker`` unless this worker holds all of them, or those of this worker are asked for; nothing changed.
        """
        host = self._host
        held = [shard for shard, group in enumerate(division.groups) if host.holds(group)]
        if held and (len(held) == division.shards if shards_of is None else shards_of == host.workers.index):
            return held
        raise host.workers.wrong(division.domain, division.shards)

    def touched(self, asked: Any, seen: Seen) -> Seen:
        """What of a token a request waits for: the groups that it touches, or, of a domain that is not known here yet, all of them.

        Raises:  Unavailable ``wrong-worker`` when this node does not hold one; nothing changed.
        """
        if not isinstance(asked, IN_DOMAIN):
            return {SYSTEM_GROUP: seen[SYSTEM_GROUP]} if SYSTEM_GROUP in seen else {}
        division = self._divisions.get(asked.domain) or self._host.declarations.division(asked.domain)
        if division is None:
            domains = (SYSTEM_GROUP.partition("/")[0], asked.domain.partition("@")[0])
            return {group: vector for group, vector in seen.items() if group.partition("/")[0] in domains}
        if division.shards == 1 and (only := division.groups[0]) in self._groups:
            return {group: seen[group] for group in (SYSTEM_GROUP, only) if group in seen}
        if isinstance(asked, OF_DOMAIN):
            held = [division.groups[shard] for shard in self._held(division, asked.shards_of)]
            return {group: seen[group] for group in (SYSTEM_GROUP, *held) if group in seen}
        groups = touched(asked, division)
        for group in groups if len(groups) == 2 else ():  # more: a commit across shards, which is refused as such
            if group not in self._host.groups and not self._host.holds(group):
                raise self._host.workers.wrong(division.domain, division.shards, group)
        return {group: seen[group] for group in groups if group in seen}

    def at_key(self, domain: str, collection: str, key: str) -> Engine:
        """The group of a key.

        Raises:  as ``division`` and ``at``; nothing changed.
        """
        division = self.division(domain)
        return self.at(division, 0 if division.shards == 1 else division.shard_of(collection, key))

    def not_ready(self, what: str) -> Unavailable:
        """Why nothing can be said here that the others could say."""
        return Unavailable(
            f"the node {self._host.me.node} does not hold {what} yet: it takes it over from the others. Nothing changed.",
            retry_after=1.0,
        )

    def declared(self, domain: str, name: str) -> Declared:
        """The declaration of a collection.

        Raises:  UsageError ``not-declared``; nothing changed.
        """
        domain = domain.partition("@")[0]
        declared = self._host.declarations.collection(domain, name)
        if declared is None:
            raise UsageError(
                f"the collection {domain}/{name} is not declared in region {self._host.me.region}. Nothing changed.",
                code="not-declared",
            )
        return declared

    def domain(self, asked: DomainRequest, now_ms: int) -> Reading:
        """What is declared of a domain."""
        self.division(asked.domain)
        return self.of_system(self.domain_body(asked.domain))

    def collection(self, asked: CollectionRequest, now_ms: int) -> Reading:
        """What is declared of a collection."""
        self.division(asked.domain)
        return self.of_system(self.collection_body(asked.domain, asked.collection))

    def of_system(self, body: dict[str, Any]) -> Reading:
        """A reading of what is declared."""
        system = self._host.groups[SYSTEM_GROUP]
        return Reading(body, [(system, system.durability.number)])

    def domain_body(self, domain: str) -> dict[str, Any]:
        declarations = self._host.declarations
        names = {declared.name: declared.crdt.name for declared in declarations.collections(domain)}
        return {"domain": domain, **(declarations.domain(domain) or {}), "collections": names}

    def collection_body(self, domain: str, name: str) -> dict[str, Any]:
        declared = self.declared(domain, name)
        return {"domain": domain, "collection": name, "type": declared.crdt.name, "options": declared.options}

    # --- keys

    def _view(self, engine: Engine, declared: Declared, key: str, now_ms: int) -> View:
        return engine.keyspace.view(declared.path, key, now_ms, declared.options)

    def _batches(self, engine: Engine, domain: str, declared: Declared, key: str | None) -> list[tuple[Engine, int]]:
        number = engine.durability.waits_for(declared.path, key)
        return [(engine, number), self._host.declarations.batch_of(domain.partition("@")[0], declared.name)]

    def read(self, asked: ReadRequest, now_ms: int) -> Reading:
        """The value of one key."""
        engine = self.at_key(asked.domain, asked.collection, asked.key)
        declared = self.declared(asked.domain, asked.collection)
        staleness_ms = engine.rows.staleness_ms(now_ms)
        if asked.max_staleness_ms is not None and (staleness_ms is None or staleness_ms > asked.max_staleness_ms):
            how = "unknown" if staleness_ms is None else f"{staleness_ms} ms"
            wanted = f"at most {show(asked.max_staleness_ms)} ms was asked for"
            raise ReplicaBehind(f"the staleness of this region is {how}, {wanted}. Nothing changed.", regions=[])
        view = self._view(engine, declared, asked.key, now_ms)
        body = {
            "value": declared.crdt.read(view),
            "exists": view.exists,
            "type": declared.crdt.name,
            "etag": engine.keyspace.etag(declared.path, asked.key, now_ms),
            "region": self._host.me.region,
            "staleness_ms": staleness_ms,
            "conflicts": declared.crdt.conflicts(view),
            **_deadlines(declared.crdt, view),
            **declared.crdt.beside(view, self._host.me.replica, engine.keyspace.regions),
        }
        return Reading(body, self._batches(engine, asked.domain, declared, asked.key))

    def keys(self, asked: ListRequest, now_ms: int) -> Reading:
        """Keys of which anything can be read, in the order of their bytes."""
        division = self.division(asked.domain)
        engines = self.all_of(division, asked.shards_of)
        declared = self.declared(asked.domain, asked.collection)
        page = Page(asked.limit)
        for key, engine in _keys(engines, division, declared, asked):
            view = None if engine is None else self._view(engine, declared, key, now_ms)
            if view is not None and view.exists:
                if page.ends_before():
                    break
                item = {"key": key}
                if asked.values:
                    item["value"] = declared.crdt.read(view)
                page.add(key, item, item.get("value"))
            if page.ends_after(key):
                break
        body = {"items": page.items, "next": page.following}
        batches = [(engine, engine.durability.waits_for(declared.path, None)) for engine in engines.values()]
        declared_by = self._host.declarations.batch_of(division.domain, declared.name)
        return Reading(body, [*batches, declared_by], len(batches))

    def members(self, asked: MembersRequest, now_ms: int) -> Reading:
        """A page of what one key holds, or whether it holds one thing."""
        engine = self.at_key(asked.domain, asked.collection, asked.key)
        declared = self.declared(asked.domain, asked.collection)
        view = self._view(engine, declared, asked.key, now_ms)
        body: dict[str, Any]
        if asked.has is not UNSET:
            body = {"has": has_member(declared.crdt, view, asked.has)}
        else:
            page = members(declared.crdt, view, asked.after, asked.limit)
            body = {"items": page.items, "next": page.following}
        return Reading(body, self._batches(engine, asked.domain, declared, asked.key))

    # --- what stands behind values

    def explain(self, asked: ExplainRequest, now_ms: int) -> Reading:
        """The writes behind the value of one key."""
        engine = self.at_key(asked.domain, asked.collection, asked.key)
        declared = self.declared(asked.domain, asked.collection)
        view = self._view(engine, declared, asked.key, now_ms)
        body = explained(engine, self._host.roster, declared.crdt, view, asked.limit)
        return Reading(body, self._batches(engine, asked.domain, declared, asked.key))

    def conflicts(self, asked: ConflictsRequest, now_ms: int) -> Reading:
        """The keys of a domain behind whose values concurrent writes stand, and on the first page what was declared twice."""
        division = self.division(asked.domain)
        engines = self.all_of(division, asked.shards_of)
        declarations = self._host.declarations
        readable = declarations.readable(division.domain)
        after = ("", "")
        if asked.after is not None:
            name, _, key = asked.after.partition("/")
            after = (self.declared(asked.domain, name).path, key)
        items, following = conflicting_keys(engines, division, readable, now_ms, after, asked.limit)
        clashes = declarations.clashes(division.domain) if asked.after is None else []
        body = {"items": items, "declarations": clashes, "next": following}
        system = self._host.groups[SYSTEM_GROUP]
        batches = [(engine, engine.durability.number) for engine in engines.values()]
        return Reading(body, [*batches, (system, system.durability.number)], len(batches))


def _keys(
    engines: Mapping[int, Engine], division: Division, declared: Declared, asked: ListRequest
) -> Iterator[tuple[str, Engine | None]]:
    """Keys in order, each once and with the group that it is in; None: it is only in one that is not its own (``shards``)."""
    if division.shards == 1:
        for key in _keys_of(engines[0], declared.path, asked, asked.limit + 1):
            yield key, engines[0]
        return
    share = 2 * asked.limit // len(engines) + 8
    parts = [
        zip(_keys_of(engine, declared.path, asked, share), repeat(shard), strict=False)
        for shard, engine in engines.items()
    ]
    for key, found in groupby(merge(*parts), itemgetter(0)):
        own = division.shard_of(declared.name, key)
        yield key, next((engines[shard] for _, shard in found if shard == own), None)


def _keys_of(engine: Engine, path: str, asked: ListRequest, count: int) -> Iterator[str]:
    """Keys in order, taken in pieces of ``count``: looking at one may carry out drops, which changes what is behind it."""
    after = asked.after
    while True:
        piece = list(islice(engine.keyspace.tree.keys(path, after, asked.prefix), count))
        yield from piece
        if len(piece) < count:
            return
        after = piece[-1]


def _deadlines(crdt: CrdtType, view: View) -> dict[str, Any]:
    """When the key, and which of its fields, end by themselves."""
    found: dict[str, Any] = {}
    has_deadline, due_ms = deadline_of(view.entry)
    if has_deadline:
        found["expires"] = None if due_ms is None else rfc3339(due_ms)
    if crdt.has_fields and type(view.entry) is Branch:
        children = view.entry.children.items()  # only a branch has room for a deadline beside a value
        parts = [part for part, child in children if type(child) is Branch and deadline_of(child)[1] is not None]
        fields: dict[str, str] = {}
        for part in sorted(part for part in parts if isinstance(part, str)):
            child = view.child(part)
            name = split_part(part)[0] if crdt.name == "or_map" else part
            due_ms = deadline_of(child.entry)[1] if child.exists else None
            if due_ms is not None and name not in fields:
                fields[name] = rfc3339(due_ms)
        if fields:
            found["field_expires"] = fields
    return found
