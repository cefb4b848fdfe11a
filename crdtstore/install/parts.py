"""Parts of a snapshot: what of a group's rows and history goes to a joiner, and how it looks on its way.

The question: what of what a replica keeps belongs to the group, and what to itself alone? Leaves, operation ids, plans of deadlines and
contested keys are the group's: they are copied as they are, under the joiner's number of the group. Holds and gifts are about its own
commits, as are its votes: the joiner begins without any.

    part 0    ``Head``: the summary, as the joiner is to keep it
    then      ``Rows``, ascending, and ``Piece``s of rows that are larger than a part
    then      ``Commits``: what of the history the summary's base does not cover, in the order in which the sender applied it
    last      ``End``: the hash of all bodies before it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from crdtstore.causal import ReplicaId
from crdtstore.engine.checkpoint import Saved
from crdtstore.errors import ProtocolError
from crdtstore.storage.rows import (
    CONTESTED,
    ENDED_HOLDS,
    GIFTS,
    HOLDS,
    LEAVES,
    META,
    OPERATIONS,
    PLANS,
)

__all__ = [
    "GONE",
    "NOT_COPIED",
    "NOT_YET",
    "PART_BYTES",
    "PART_ROWS",
    "SHARED",
    "WINDOW",
    "Body",
    "Commits",
    "End",
    "Head",
    "Piece",
    "Rows",
    "check_head",
    "decode_body",
    "encode_body",
    "fits",
    "for_joiner",
]

SHARED = (LEAVES, OPERATIONS, PLANS, CONTESTED)
"""Spaces of rows that are copied: they stand one after the other."""
NOT_COPIED = (META, HOLDS, ENDED_HOLDS, GIFTS)
PART_BYTES, PART_ROWS = 32 << 10, 125
"""A part is full when it reaches one of them: every write that comes just then waits for it. Parts of 128 KiB took half the time, and the
slowest writes at the sender five times as long as before the join; with these it is twice."""
WINDOW = 16
"""So many parts are asked for at a time."""

NOT_YET, GONE = -1, -2
"""In the place of a part's number: ask again; that snapshot is not here, ask for a new one."""
_HASH_BYTES, _DIGEST_BYTES = 32, 16


class Head(msgspec.Struct, array_like=True, tag=0, frozen=True):
    """The row about the group."""

    saved: Saved


class Rows(msgspec.Struct, array_like=True, tag=1, frozen=True):
    """Rows: path without the number of the group, data, and so on."""

    flat: list[bytes]


class Piece(msgspec.Struct, array_like=True, tag=2, frozen=True):
    """A piece of one large row."""

    path: bytes
    offset: int
    total: int
    data: bytes


class Commits(msgspec.Struct, array_like=True, tag=3, frozen=True):
    """Commits in an order in which each can be applied after those before it, each with the index of its origin."""

    origins: list[int]
    commits: list[bytes]


class End(msgspec.Struct, array_like=True, tag=4, frozen=True):
    """That was all: SHA-256 over the bodies of all parts before."""

    hash: bytes


Body = Head | Rows | Piece | Commits | End

encode_body = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Body)


def decode_body(data: bytes) -> Body:
    """The body of a part.

    Raises:  ProtocolError when it is none.
    """
    try:
        body: Body = _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"not a part of a snapshot: {error}") from error
    return body


def fits(saved: Saved, joiner: ReplicaId, finals: Mapping[ReplicaId, int]) -> bool:
    """Whether a checkpoint may found the joiner: it was begun after its maker adopted a configuration that names the joiner, since only so
    an id comes into its table; and it holds all that counts of those whose commits are settled.
    """
    if str(joiner) not in saved.members:
        return False
    applied = dict(zip(saved.members, saved.applied, strict=True))
    return all(applied.get(str(replica), 0) == final for replica, final in finals.items())


def for_joiner(saved: Saved, maker: int, chains: Sequence[bytes]) -> Saved:
    """The summary as a joiner is to keep it: its history begins at what was stable, where the chains are these; nothing is promised of
    the maker itself, which never noted how far it came: the first row it sends says so.
    """
    frontiers, heard_ms = list(saved.frontiers), list(saved.heard_ms)
    frontiers[maker], heard_ms[maker] = 0, None
    return msgspec.structs.replace(
        saved, base=list(saved.stable), base_chains=list(chains), frontiers=frontiers, heard_ms=heard_ms
    )


def check_head(saved: Saved, group: str, joiner: ReplicaId, finals: Mapping[ReplicaId, int]) -> None:
    """Can a joiner begin with this?

    Raises:  ProtocolError saying what is wrong with it.
    """
    count = len(saved.members)
    vectors: list[Sequence[Any]] = [saved.applied, saved.heads, saved.base, saved.base_chains, saved.stable]
    vectors += [saved.frontiers, saved.heard_ms, saved.rosters, saved.deps, *filter(None, saved.deps)]
    if saved.group != group or len(set(saved.members)) != count:
        raise ProtocolError(f"{group}: a snapshot of {saved.group[:100]!r}, or one that counts somebody twice")
    if any(len(each) != count for each in vectors):
        raise ProtocolError(f"{group}: a snapshot whose vectors are not of {count} replicas")
    if any(not 0 <= stable <= applied for stable, applied in zip(saved.stable, saved.applied, strict=True)):
        raise ProtocolError(f"{group}: a snapshot in which more is stable than there is")
    if saved.base != saved.stable or any(len(chain) != _HASH_BYTES for chain in (*saved.heads, *saved.base_chains)):
        raise ProtocolError(f"{group}: a snapshot whose history does not begin at what is stable")
    if any(not 0 <= at < count for roster in saved.rosters for at in roster) or len(saved.digest) != _DIGEST_BYTES:
        raise ProtocolError(f"{group}: a snapshot that names replicas which it does not know")
    if not fits(saved, joiner, finals):
        raise ProtocolError(f"{group}: a snapshot from before its maker knew that this replica joins")
    if saved.applied[saved.members.index(str(joiner))]:
        raise ProtocolError(f"{group}: a snapshot that holds commits of this replica, which made none")
