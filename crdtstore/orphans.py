"""Orphans: commits of an id that was removed, above the number that counts. Nobody applies them any more, and nobody throws them away.

The question: how does an operator decide what to do with a write that nobody else has? By reading what it did, in words of its type; and
by having it done once more, as a write of today: what it removes is what is there today. However often it is asked for, in whatever
region, it takes effect once, because the operation's id is made of the orphan's name. Rights of a bounded counter belonged to the id that
is gone, so what was done with them cannot be done by another one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any, Protocol

from msgspec import Struct

from crdtstore.causal import Dot, ReplicaId, parse_replica_id
from crdtstore.clock import physical_ms, rfc3339
from crdtstore.commit import REASON, Commit, decode_commit, head_of, request_hash
from crdtstore.engine.events import Draft, Op
from crdtstore.errors import DecodeError, UsageError
from crdtstore.leaves import ADD, DEADLINE, DROP, MARK, MAX, MIN, PUT
from crdtstore.types import REGISTRY, Mutator
from crdtstore.types.or_map import split_part
from crdtstore.values import pack, show, unpack

__all__ = [
    "NO_LIVES",
    "Life",
    "Lives",
    "Orphan",
    "changes",
    "decode_orphan",
    "draft_of",
    "encode_orphan",
    "last_of",
    "operation_of",
    "orphans_of",
    "shown",
]

REMEMBERED_MS = 366 * 86_400_000
"""So long it is known that an orphan was applied."""
_MOST_SAID = 20
"""So many things that a commit did to one key are said one by one."""
_SETS = frozenset(("aw_set", "g_set", "rw_set"))


class Life(Struct, frozen=True):
    """An id that this node had."""

    replica: ReplicaId
    left: str | None
    """When it was given up (RFC 3339); None: it still has it."""
    why: str


class Lives(Protocol):
    """What a node keeps of the ids it had before: their logs, read only."""

    def lives(self) -> list[Life]:
        """The latest first."""

    def made(self, replica: ReplicaId) -> dict[str, int]:
        """Per group how many commits an id made, as far as its log reaches."""

    def commits(self, replica: ReplicaId, group: str, after: int, most: int) -> list[bytes]:
        """Commits that an id made in a group, the first ones above a number."""


class _NoLives:
    def lives(self) -> list[Life]:
        return []

    def made(self, replica: ReplicaId) -> dict[str, int]:
        return {}

    def commits(self, replica: ReplicaId, group: str, after: int, most: int) -> list[bytes]:
        return []


NO_LIVES: Lives = _NoLives()
"""This node never had another id."""


class Orphan(Struct, frozen=True):
    """A commit and where it belongs."""

    group: str
    dot: Dot
    data: bytes
    commit: Commit


# --- in a log of an earlier life


def last_of(entries: Iterable[tuple[str, str, bytes]], replica: str, last: dict[str, int]) -> None:
    """Note per group the number of the last commit that ``replica`` made, among entries (group, origin, bytes) of a log.

    Raises:  DecodeError.
    """
    for group, origin, data in entries:
        if origin == replica:
            last[group] = max(last.get(group, 0), head_of(data)[0])


def orphans_of(entries: Iterable[tuple[str, str, bytes]], replica: str, group: str, after: int) -> list[bytes]:
    """The commits among entries of a log that ``replica`` made in a group above a number.

    Raises:  DecodeError.
    """
    own = [data for where, origin, data in entries if origin == replica and where == group]
    return [data for data in own if head_of(data)[0] > after]


# --- from hand to hand


def encode_orphan(group: str, replica: ReplicaId, data: bytes) -> str:
    """A commit as text that says where it belongs: its bytes do not name their origin again after the first."""
    return base64.b64encode(pack([group, replica, data])).decode()


def decode_orphan(text: str) -> Orphan:
    """The orphan that ``encode_orphan`` made this text of.

    Raises:  UsageError; nothing changed.
    """
    try:
        group, replica, data = unpack(base64.b64decode(text, validate=True))
        commit = decode_commit(data)
        return Orphan(group, Dot(parse_replica_id(replica), commit.seq), data, commit)
    except (ValueError, TypeError, binascii.Error, DecodeError) as error:
        raise UsageError(
            f"a commit is given as a page of orphans has it in data, got {text[:40]!r}: {error}. Nothing changed."
        ) from None


def shown(group: str, replica: ReplicaId, data: bytes, applied: str | None) -> dict[str, Any]:
    """An orphan as an operator reads it."""
    commit = decode_commit(data)
    reason = commit.attribute(REASON)
    return {
        "dot": str(Dot(replica, commit.seq)),
        "time": rfc3339(physical_ms(commit.hlc)),
        "author": commit.author,
        "reason": reason if isinstance(reason, str) else None,
        "changes": changes(commit),
        "applied": applied,
        "data": encode_orphan(group, replica, data),
    }


# --- what it did


def changes(commit: Commit) -> list[dict[str, Any]]:
    """What a commit did, key by key, each in a sentence."""
    found = []
    for (path, key), effects in _by_key(commit.effects).items():
        collection, _, type_name = path.rpartition(":")
        said = _said(type_name, effects)
        if len(said) > _MOST_SAID:
            said = [*said[:_MOST_SAID], f"and {len(said) - _MOST_SAID} more"]
        found.append({"collection": collection or path, "key": key, "type": type_name, "what": "; ".join(said)})
    return found


def _by_key(effects: Sequence[Any]) -> dict[tuple[str, str], list[Any]]:
    """Effects by collection and key, on the paths below the key."""
    found: dict[tuple[str, str], list[Any]] = {}
    for at in range(0, len(effects), 3):
        kind, path, value = effects[at : at + 3]
        key = path[1] if len(path) > 1 else ""
        found.setdefault((path[0], key), []).extend((kind, list(path[2:]), value))
    return found


def _said(type_name: str, effects: Sequence[Any]) -> list[str]:
    triples = [tuple(effects[at : at + 3]) for at in range(0, len(effects), 3)]
    put = {tuple(below) for kind, below, _ in triples if kind not in (DROP, DEADLINE)}
    said = list[str]()
    typed = [value[1] for kind, _, value in triples if _is_typed(type_name, kind, value)]
    removed = sum(type_name == "text" and kind == DROP and bool(below) for kind, below, _ in triples)
    if typed:
        said.append(f"insert {show(''.join(typed))}")
    if removed:
        said.append(f"cut {removed} characters")
    for kind, below, value in triples:
        if kind == DROP and tuple(below) in put:
            continue  # it is put in the place of what was there
        if _is_typed(type_name, kind, value) or (type_name == "text" and kind == DROP and below):
            continue
        said.append(_one(type_name, kind, below, value))
    return said


def _is_typed(type_name: str, kind: int, value: Any) -> bool:
    return (
        type_name == "text"
        and kind == PUT
        and isinstance(value, list)
        and len(value) == 2
        and isinstance(value[1], str)
    )


def _one(type_name: str, kind: int, below: list[Any], value: Any) -> str:
    """One effect in words of its type; what this version does not know is said as it stands."""
    if type_name == "or_map" and below and isinstance(below[0], str):
        name, nested = split_part(below[0])
        if kind == DROP and len(below) == 1:
            return f"remove the field {show(name)}"
        return f"in the field {show(name)}: {_one(nested, kind, below[1:], value)}"
    if kind == DEADLINE:
        what = "" if not below else f"the field {show(below[0])} "
        return f"{what}does not end by itself" if value is None else f"{what}ends at {_instant(value)}"
    if kind == DROP and not below:
        return "disable" if type_name == "ew_flag" else "delete"
    where = show(below[0]) if len(below) == 1 else ""
    if type_name in _SETS and len(below) == 1:
        return f"remove {where}" if kind in (DROP, MARK) else f"add {where}"
    if type_name == "lww_map" and len(below) == 1:
        return f"unset {where}" if kind == DROP else f"set {where} to {show(value)}"
    if type_name == "event_log" and len(below) == 1 and kind == PUT:
        return f"append {where}: {show(value)}"
    if not below:
        if type_name in ("ew_flag", "dw_flag"):
            return "enable" if value else "disable"
        words = {ADD: "add", PUT: "set", MAX: "at least", MIN: "at most"}
        if kind in words:
            return f"{words[kind]} {show(value)}"
    return f"an effect of kind {kind} at {show(below)}: {show(value)}"


def _instant(due_ms: Any) -> str:
    try:
        return rfc3339(due_ms)
    except (ValueError, OverflowError, OSError, TypeError):
        return show(due_ms)


# --- having it done once more


def operation_of(dot: Dot) -> bytes:
    """The id of the operation that applies an orphan: the same wherever, and by whomever, it is applied."""
    return sha256(pack(["orphan", str(dot)])).digest()[:16]


def _fixed(crdt: Any, view: Any, effects: Sequence[Any]) -> list[Any]:
    return [list(part) if isinstance(part, list) and at % 3 == 1 else part for at, part in enumerate(effects)]


_AGAIN = Mutator("orphan", (), "What an orphan did.", False, _fixed)


def draft_of(orphan: Orphan, ticket: int, author: str, now_ms: int) -> Draft:
    """The write that does what an orphan did.

    Raises:  UsageError when it cannot be done by another id; nothing changed.
    """
    ops = []
    for (path, key), effects in _by_key(orphan.commit.effects).items():
        type_name = path.rpartition(":")[2]
        crdt = REGISTRY.get(type_name)
        if orphan.group.startswith("_") or crdt is None:
            what = "what it declares" if orphan.group.startswith("_") else f"the type {type_name[:100]!r}"
            raise UsageError(
                f"{what} cannot be applied again: declare or write it anew. Nothing changed.", code="invalid-op"
            )
        if type_name == "bounded_counter":
            raise UsageError(
                f"the bounded counter {key!r} is in it: rights belong to the id that had them, and {orphan.dot.replica} is gone. Write it "
                "anew (grant, consume). Nothing changed.",
                code="invalid-op",
            )
        if effects == [DROP, [], None]:
            ops.append(Op(crdt, path, key, None, {}))
        else:
            ops.append(Op(crdt, path, key, _AGAIN, {"effects": effects}))
    if not ops:
        raise UsageError("it has no effects. Nothing changed.", code="invalid-op")
    operation = operation_of(orphan.dot), request_hash([orphan.data])
    attributes = [REASON, f"orphan {orphan.dot}"]
    return Draft(ticket, ops, author, attributes, operation, now_ms + REMEMBERED_MS)
