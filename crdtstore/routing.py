"""Routing: which groups a request touches.

The question: what does a request wait for, and where does it go? A key is in one group, so what names a key touches that group, a list
touches all of its domain, and a commit touches exactly one or is refused: it is atomic within a shard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crdtstore.configuration import SYSTEM_GROUP
from crdtstore.engine.events import Op
from crdtstore.errors import UsageError
from crdtstore.ops import check_collection, check_key
from crdtstore.requests import (
    CommitRequest,
    ConflictsRequest,
    ExplainRequest,
    ListRequest,
    MembersRequest,
    ReadRequest,
)
from crdtstore.shards import Division, shard_of

__all__ = ["IN_DOMAIN", "OF_DOMAIN", "shard_of_all", "touched"]

_OF_KEYS = (ExplainRequest, MembersRequest, ReadRequest)
OF_DOMAIN = (ConflictsRequest, ListRequest)
"""Requests about all shards of a domain."""
IN_DOMAIN = (ReadRequest, CommitRequest, *_OF_KEYS, *OF_DOMAIN)
"""Requests about what a domain holds; all others are about what is declared."""
_SHOWN = 3
"""So many shards, and so many ops in each, are named when a commit is refused."""


def touched(asked: Any, division: Division) -> tuple[str, ...]:
    """The groups that a request about what a domain holds touches; ``division`` is how the domain is divided."""
    if division.shards == 1:
        return (SYSTEM_GROUP, division.groups[0])
    if isinstance(asked, _OF_KEYS):
        return (SYSTEM_GROUP, division.group_of(asked.collection, asked.key))
    if isinstance(asked, CommitRequest):
        return (SYSTEM_GROUP, *sorted({group for op in asked.ops for group in _groups_of(op, division)}))
    return (SYSTEM_GROUP, *division.groups)


def _groups_of(op: Mapping[str, Any], division: Division) -> list[str]:
    """The group that an op is in which was not checked yet; none when it names no key."""
    try:
        return [division.group_of(check_collection(op.get("collection")), check_key(op.get("key")))]
    except UsageError:
        return []


def shard_of_all(division: Division, ops: Sequence[Op]) -> int:
    """The shard that these ops are in.

    Raises:  UsageError ``cross-shard`` when they are in several; nothing changed.
    """
    shards = [shard_of(op.collection.partition(":")[0], op.key, division.shards) for op in ops]
    if len(shards) > 1 and shards.count(shards[0]) != len(shards):
        raise _cross_shard(division, ops, shards)
    return shards[0]


def _cross_shard(division: Division, ops: Sequence[Op], shards: list[int]) -> UsageError:
    parts = dict[int, list[str]]()
    for at, (op, shard) in enumerate(zip(ops, shards, strict=True)):
        parts.setdefault(shard, []).append(f"op {at} ({op.collection.partition(':')[0]}/{op.key[:80]})")
    shown = [
        f"{', '.join(names[:_SHOWN])}{f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''} in shard {shard}"
        for shard, names in list(parts.items())[:_SHOWN]
    ]
    more = f"; the others in {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return UsageError(
        f"a commit is atomic within one shard, and the domain {division.domain} has {division.shards}: {'; '.join(shown)}{more}. "
        "Send one commit per shard, or keep what has to change together under one key, in fields of an or_map, or in a domain of one "
        "shard. Nothing changed.",
        code="cross-shard",
        shards=shards,
    )
