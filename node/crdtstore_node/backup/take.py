"""Taking a backup of a data directory, beside the node that uses it.

The question: how is it consistent although the node goes on? First the log is pinned, so that nothing the checkpoint needs is cut; then the
state store, so that its rows are those of one checkpoint; then the log is read from the position that this checkpoint needs to where it
ends. Whatever the node acknowledged before the backup began is in one of the two. Why the result is causally closed: ``snapshot``.

The node notices nothing but the reads: no lock of its is taken, and this process gives way to it.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

from msgspec import UNSET

from crdtstore.causal import ReplicaId, node_of
from crdtstore.clock import physical_ms, rfc3339
from crdtstore.engine.checkpoint import Saved
from crdtstore.errors import UsageError
from crdtstore.storage.cutting import pinned
from crdtstore.storage.protocol import Row, StateRows
from crdtstore.storage.record import decode_record
from crdtstore.storage.snapshot import (
    CHUNK_BYTES,
    FORMAT,
    MANIFEST_NAME,
    Edge,
    GroupPart,
    Manifest,
    ObjectPart,
    Position,
    encode_manifest,
    pack_blocks,
    pack_rows,
    part_of,
)
from crdtstore_node.backup.checkpoint import END, Checkpoint, newest_stamp, open_rows, read_checkpoint
from crdtstore_node.backup.ends import Ends
from crdtstore_node.backup.logcopy import Found, end_of, read_blocks
from crdtstore_node.backup.target import Target
from crdtstore_node.identity import LOG_NAME, Identity, read_identity
from crdtstore_node.worker_config import workers_in

__all__ = ["NAME", "Progress", "Taken", "group_part", "manifest_hash", "take"]

NAME = re.compile(r"\d{8}T\d{6}Z-[a-z][a-z0-9_-]{0,62}(\+\d{1,2})?-[0-9a-f]{8}")
"""How a backup is named: when, of which node, and a random part."""
_ROWS_AT_ONCE = 5_000

Progress = Callable[[str, int], None]
"""Told what is copied and how many bytes of it were."""


class Taken(NamedTuple):
    """A backup that was taken."""

    name: str
    manifest: Manifest
    hash: str
    seconds: float


class _Objects:
    """The objects of one backup as they are written."""

    def __init__(self, target: Target, name: str, progress: Progress) -> None:
        self.parts: list[ObjectPart] = []
        self._target, self._name, self._progress = target, name, progress

    def add(self, kind: Any, data: bytes, count: int) -> None:
        at = sum(part.kind == kind for part in self.parts) + 1
        part = part_of(f"{kind}-{at:06d}.zst", kind, data, count)
        self._target.put(f"{self._name}/{part.name}", data)
        self.parts.append(part)
        self._progress(kind, len(data))


def take(
    data: Path,
    target: Target,
    progress: Progress = lambda what, size: None,
    chunk_bytes: int = CHUNK_BYTES,
    now_s: Callable[[], float] = time.time,
) -> Taken:
    """Copy what recovery needs of a data directory, and nothing else.

    Cost:    one object in memory; a restart begins anew, and what an interrupted one left is no backup (``unfinished``).
    Raises:  UsageError when there is no node in the directory, StorageError for what cannot be read or written. No backup is made then.
    """
    began, began_s = now_s(), time.monotonic()
    identity = read_identity(data)
    if identity is None:
        raise UsageError(f"{data}: there is no node in this directory{workers_in(data)}. Nothing changed.")
    if identity.leaving is not None:
        raise UsageError(
            f"{data} is leaving its id {identity.leaving}, and is between two lives: start its node first. Nothing changed."
        )
    if identity.restored_from is not None:
        raise UsageError(
            f"{data} was restored and has not joined: the backup it is from is a copy of it. Nothing changed."
        )
    taken = rfc3339(int(began * 1000))
    name = f"{re.sub('[-:]', '', taken)[:15]}Z-{node_of(ReplicaId(identity.replica))}-{token_hex(4)}"
    objects = _Objects(target, name, progress)
    log = data / LOG_NAME
    with pinned(log), open_rows(data) as rows:
        checkpoint = read_checkpoint(rows, str(data))
        if identity.state == "joining" and not checkpoint.groups:
            raise UsageError(f"{data}: this node is joining, and holds nothing yet. Nothing changed.")
        for some in _chunks(rows, checkpoint, chunk_bytes):
            objects.add("rows", pack_rows(some), len(some))
        ends = Ends(identity.cluster, checkpoint)
        end = checkpoint.needed
        until = end_of(log)
        for blocks in _gathered(read_blocks(log, checkpoint.needed, until), chunk_bytes):
            for position, records, end in blocks:  # noqa: B007 - the last one counts
                for entry in itertools.chain.from_iterable(map(decode_record, records)):
                    ends.take(entry, position, f"{log} at position {position}")
            objects.add("blocks", pack_blocks([(position, records) for position, records, _ in blocks]), len(blocks))
        ends.check_reached(str(log))
    manifest = _manifest(identity, taken, checkpoint, ends, end, objects.parts)
    written = encode_manifest(manifest)
    target.put(f"{name}/{MANIFEST_NAME}", written)
    return Taken(name, manifest, manifest_hash(written), time.monotonic() - began_s)


def _chunks(rows: StateRows | None, checkpoint: Checkpoint, chunk_bytes: int) -> Iterator[list[Row]]:
    """All rows that count, in order, in parts of about this many bytes: others are of installs that are not done."""
    chunk: list[Row] = []
    size = 0
    for row in _rows_that_count(rows, checkpoint):
        chunk.append(row)
        size += len(row[0]) + len(row[1])
        if size >= chunk_bytes:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _rows_that_count(rows: StateRows | None, checkpoint: Checkpoint) -> Iterator[Row]:
    node = checkpoint.node
    if rows is None:
        return
    numbers = [0, *sorted(node.groups.values())] if node is not None else []
    ranges = [(number.to_bytes(2, "big"), (number + 1).to_bytes(2, "big")) for number in numbers] or [(b"", END)]
    for start, end in ranges:
        while some := rows.rows(start, end, _ROWS_AT_ONCE):
            yield from some
            start = some[-1][0] + b"\0"  # noqa: PLW2901 - where the next look begins


def _gathered(blocks: Iterator[Found], chunk_bytes: int) -> Iterator[list[Found]]:
    chunk: list[Found] = []
    size = 0
    for block in blocks:
        chunk.append(block)
        size += block.end - block.position
        if size >= chunk_bytes:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _manifest(
    identity: Identity, taken: str, checkpoint: Checkpoint, ends: Ends, end: int, objects: list[ObjectPart]
) -> Manifest:
    return Manifest(
        format=FORMAT,
        cluster=identity.cluster,
        nonce=identity.nonce,
        replica=identity.replica,
        taken=taken,
        log=Position(needed=checkpoint.needed, end=end, commits=ends.commits),
        groups={group: group_part(checkpoint.groups.get(group), ends.edge(group)) for group in ends.groups},
        objects=objects,
        left_out=sorted(ends.left_out) or UNSET,
    )


def group_part(saved: Saved | None, end: Edge | None) -> GroupPart:
    """What a manifest says of a group, from what its checkpoint does."""
    end = end or Edge(vector={}, chains={})
    if saved is None:
        return GroupPart(members=[], configuration=None, checkpoint=None, stable={}, digest=None, newest_ms=0, end=end)
    at = list(zip(saved.members, saved.applied, saved.heads, strict=True))
    return GroupPart(
        members=saved.members,
        configuration=(saved.configuration.number, saved.configuration.nonce.hex()),
        checkpoint=Edge(
            vector={member: seq for member, seq, _ in at if seq},
            chains={member: head.hex() for member, seq, head in at if seq},
        ),
        stable={member: seq for member, seq in zip(saved.members, saved.stable, strict=True) if seq},
        digest=saved.digest.hex(),
        newest_ms=physical_ms(newest_stamp(saved)),
        end=end,
    )


def manifest_hash(data: bytes) -> str:
    """By what a backup is known: the hash of its manifest."""
    return sha256(data).hexdigest()
