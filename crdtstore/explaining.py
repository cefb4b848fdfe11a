"""Behind a value: the writes it came from, who lost, where they are not yet; and which keys of a domain have such.

The question: what may nobody have to guess? Why a value is what it is. The dots that are there say which writes count and which lost to
a concurrent one; the commits they belong to are still in the history and say who wrote them and what for; what the others have
acknowledged says where they have not arrived.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from heapq import heapify, heappop
from itertools import islice
from typing import Any

import msgspec

from crdtstore.causal import ReplicaId
from crdtstore.clock import physical_ms, rfc3339
from crdtstore.commit import REASON
from crdtstore.declarations import Declared
from crdtstore.engine.engine import Engine
from crdtstore.leaves import Branch
from crdtstore.roster import Roster
from crdtstore.shards import Division
from crdtstore.types import CrdtType, Live, View, Write
from crdtstore.values import ext_hook

__all__ = ["conflicting_keys", "explained"]

MAX_CANDIDATES = 2_000
"""Keys looked at for one page of conflicts."""
MAX_WORK = 20_000
"""Fields and elements looked at for one page of conflicts; one key is always looked at."""


class _Head(msgspec.Struct, array_like=True, gc=False):
    """The beginning of a commit: who and why, without its effects, which may be large."""

    format: int
    origin: str | int
    seq: int
    hlc: int
    deps: list[str | int]
    author: str
    attributes: list[Any]


_head = msgspec.msgpack.Decoder(_Head, ext_hook=ext_hook)


def explained(engine: Engine, roster: Roster, crdt: CrdtType, view: View, limit: int) -> dict[str, Any]:
    """The writes behind a value, those that count first per place, at most ``limit``, and where these are not yet."""
    writes = [write._replace(live=_named(engine, write.live)) for write in islice(crdt.explain(view), limit + 1)]
    shown = writes[:limit]
    heads: dict[Any, tuple[str | None, str | None]] = {}
    for write in sorted(shown, key=lambda write: write.live.dot):  # what stands together in the log is read once
        if write.live.dot not in heads:
            heads[write.live.dot] = _who_and_why(engine, write.live)
    known = [member for replica in engine.replicas if (member := roster.member(replica)) is not None]
    regions = {member.replica: member.region for member in known}
    return {
        "value": crdt.read(view),
        "type": crdt.name,
        "live": [_shown(write, crdt, regions, *heads[write.live.dot]) for write in shown],
        "not_yet_in": _not_yet_in(engine, roster, [write.live for write in shown]),
        "truncated": len(writes) > limit,
    }


def _named(engine: Engine, live: Live) -> Live:
    """With the number of its commit: a sum that was folded has lost it, and stands under the stamp of the newest commit in it.

    Cost:  O(log commits) for a sum; the commits of one origin stand in the order of their stamps.
    """
    if live.seq:
        return live
    origin = engine.replicas.index(live.replica)
    numbers = range(engine.history.base[origin] + 1, engine.applied[origin] + 1)
    if not numbers or live.hlc < _head_of(engine, origin, numbers[0]).hlc:
        return live  # the log does not reach back to it
    at = bisect_left(numbers, live.hlc, key=lambda seq: _head_of(engine, origin, seq).hlc)
    return live._replace(seq=numbers[min(at, len(numbers) - 1)])


def _head_of(engine: Engine, origin: int, seq: int) -> _Head:
    return _head.decode(engine.history.commit(origin, seq))


def _who_and_why(engine: Engine, live: Live) -> tuple[str | None, str | None]:
    """Author and reason of a commit; None where the log does not reach back to it."""
    origin = engine.replicas.index(live.replica)
    if not engine.history.holds(origin, live.seq):
        return None, None
    head = _head_of(engine, origin, live.seq)
    attributes = head.attributes
    reasons = [attributes[at + 1] for at in range(0, len(attributes), 2) if attributes[at] == REASON]
    return head.author, reasons[0] if reasons and isinstance(reasons[0], str) else None


def _shown(
    write: Write, crdt: CrdtType, regions: Mapping[ReplicaId, str], author: str | None, reason: str | None
) -> dict[str, Any]:
    live = write.live
    fields = {
        "value": live.value,
        "dot": str(live.dot) if live.seq else None,
        "time": rfc3339(physical_ms(live.hlc)),
        "region": regions.get(live.replica),
        "author": author,
        "reason": reason,
        "counts": write.counts,
        "why": write.why,
    }
    return {**fields, "at": crdt.place(write.at, regions)} if write.at else fields


def _not_yet_in(engine: Engine, roster: Roster, lives: Iterable[Live]) -> list[str]:
    """The other regions that have not acknowledged all of these writes; one never heard has acknowledged none."""
    newest: dict[int, int] = {}
    for live in lives:
        origin = engine.replicas.index(live.replica)
        newest[origin] = max(newest.get(origin, 0), live.seq)
    regions: dict[str, None] = {}
    for at in engine.others:
        replica = engine.replicas[at]
        row = engine.rows.newest[at]
        if any(origin != at and (row is None or row.vector[origin] < seq) for origin, seq in newest.items()):
            member = roster.member(replica)
            regions[member.region if member is not None else str(replica)] = None
    return list(regions)


# --- conflicts


def conflicting_keys(
    engines: Mapping[int, Engine],
    division: Division,
    readable: Mapping[str, tuple[str, Declared]],
    now_ms: int,
    after: tuple[str, str],
    limit: int,
) -> tuple[list[dict[str, Any]], str | None]:
    """The keys behind whose values concurrent writes stand, in the order of (collection's path, key), and where to go on.

    Shape:  ``engines`` by shard; ``readable`` maps the paths of declared collections to the names they are read under, and how they are
            declared.
    Cost:   O(candidates) to find the next, then what the keys looked at hold, bounded.
    """
    behind = [
        (*at, shard)
        for shard, engine in engines.items()
        for at in engine.keyspace.tree.contested
        if at[0] in readable
        and at[1] is not None
        and at > after
        and division.shard_of(readable[at[0]][1].name, at[1]) == shard
    ]
    found: list[dict[str, Any]] = []
    heapify(behind)  # only as much of it is sorted as the page needs
    looked = work = 0
    last = after
    while behind:
        if len(found) == limit or looked == MAX_CANDIDATES or work >= MAX_WORK:
            return found, _place(last)
        path, key, shard = heappop(behind)
        at = last = path, key
        keyspace = engines[shard].keyspace
        looked += 1
        name, (_, crdt, options, _) = readable[path]
        view = keyspace.view(path, key, now_ms, options)
        work += 1 + (len(view.entry.children) if type(view.entry) is Branch else 0)
        count = crdt.conflicts(view)
        if count:
            found.append({"collection": name, "key": key, "type": crdt.name, "conflicts": count})
        elif not crdt.conflicts(keyspace.view(path, key, None, options)):  # what has expired may come back
            keyspace.tree.contested.discard(at)
    return found, None


def _place(at: tuple[str, str]) -> str:
    """Where a page goes on: ``collection@type/key``, whatever serves by then."""
    return f"{at[0].replace(':', '@')}/{at[1]}"
