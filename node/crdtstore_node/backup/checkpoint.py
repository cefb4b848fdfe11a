"""What a backup needs to know of a checkpoint: its meta rows, and the state digest computed anew from its rows.

The question: who believes the digest that a checkpoint holds? Nobody who can compute it: the digest is a sum of one share per leaf, and the
rows are the leaves, so one walk over them in any order, with nothing else in memory, gives it again.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec import MsgspecError, Struct, field, structs
from msgspec.msgpack import Decoder, encode

from crdtstore.causal import ReplicaId
from crdtstore.engine.checkpoint import FORMAT, NODE_PATH, Saved, SavedNode, saved_path
from crdtstore.errors import DecodeError, StorageError
from crdtstore.leaves import Branch, Entry
from crdtstore.shares import MODULUS, Shares
from crdtstore.storage.leafrows import decode_leaves
from crdtstore.storage.protocol import Row, StateRows
from crdtstore.storage.rows import LEAVES, META, describe, key_range, split_path
from crdtstore.storage.sqlite import SqlitePin

__all__ = ["END", "Checkpoint", "Walk", "newest_stamp", "open_rows", "read_checkpoint"]

END = b"\xff" * 4
"""No path begins so: there are fewer groups."""
_decode = Decoder(Saved).decode
_decode_node = Decoder(SavedNode).decode


class Checkpoint(Struct):
    """The meta rows of a node."""

    node: SavedNode | None = None
    groups: dict[str, Saved] = field(default_factory=dict)
    numbers: dict[int, str] = field(default_factory=dict)
    """Which group the rows of a number belong to."""

    @property
    def needed(self) -> int:
        """The position from where the log goes on top."""
        return self.node.needed if self.node is not None else 0

    @property
    def begins(self) -> dict[str, int]:
        """Per group from which position on what the log holds of it counts."""
        return {group: saved.begins for group, saved in self.groups.items()}

    def moved(self) -> list[Row]:
        """The meta rows as they have to be where another log goes on top, in which nothing stands that does not count."""
        rows = [
            (saved_path(number), encode(structs.replace(self.groups[group], begins=0)))
            for number, group in self.numbers.items()
            if self.groups[group].begins
        ]
        if self.node is not None:
            rows.append((NODE_PATH, encode(structs.replace(self.node, logged=0))))
        return rows


@contextmanager
def open_rows(data: Path) -> Iterator[StateRows | None]:
    """The rows of a data directory as they are now, whatever its node commits meanwhile; None: it has no checkpoint yet.

    Raises:  StorageError naming the file, also when there is a row in it that could not be found.
    """
    try:
        pin = SqlitePin.open(data)
    except StorageError as error:
        raise _with_hint(data, error) from error
    if pin is None:
        yield None
        return
    with pin:
        pin.check()
        yield pin


def _with_hint(data: Path, error: StorageError) -> StorageError:
    """SQLite writes beside its file even to read it."""
    with suppress(OSError):
        if os.statvfs(data).f_flag & os.ST_RDONLY:
            what = f"{data} is on a read-only file system: copy it to one that can be written, and take the backup of the copy"
        elif not os.access(data, os.W_OK):
            what = f"{data} cannot be written here: run this as the user of the node"
        else:
            return error
        return StorageError(f"{error.detail.removesuffix('.')}. {what}. Nothing changed.", file=str(data))
    return error


def read_checkpoint(rows: StateRows | None, where: str) -> Checkpoint:
    """The meta rows.

    Cost:    two look-ups a group.
    Raises:  StorageError when they are not what a node of this version writes.
    """
    return _checkpoint_of(_metas(rows) if rows is not None else (), where)


def _metas(rows: StateRows) -> Iterator[Row]:
    start = b""
    while first := rows.rows(start, END, 1):
        number, _, _ = split_path(first[0][0])
        begin, end = key_range(number, META, [])
        yield from rows.rows(begin, end)
        start = (number + 1).to_bytes(2, "big")


def _checkpoint_of(rows: Iterable[Row], where: str) -> Checkpoint:
    """The meta rows among these.

    Raises:  as ``read_checkpoint``.
    """
    checkpoint = Checkpoint()
    for path, data in rows:
        number, space, parts = split_path(path)
        if space == META:
            try:
                _take_meta(checkpoint, number, parts, data)
            except (MsgspecError, DecodeError) as error:
                raise StorageError(f"{where}: the row of {describe(path)} is not one: {error}") from error
    return checkpoint


def _take_meta(checkpoint: Checkpoint, number: int, parts: list[Any], data: bytes) -> None:
    if parts == ["group"]:
        saved = _decode(data)
        _check_format(saved.format)
        if checkpoint.node is not None and checkpoint.node.groups.get(saved.group) != number:
            return  # waste: it was installed anew, or not at all
        checkpoint.groups[saved.group] = saved
        checkpoint.numbers[number] = saved.group
    elif parts == ["node"]:
        checkpoint.node = _decode_node(data)
        _check_format(checkpoint.node.format)


def _check_format(found: int) -> None:
    if found != FORMAT:
        raise DecodeError(f"a checkpoint of format {found}, this program reads {FORMAT}")


def newest_stamp(saved: Saved) -> int:
    """No commit in this checkpoint is stamped above this; heartbeats count too, so there may be none stamped just so."""
    return max([saved.last_hlc, *saved.frontiers])


class Walk:
    """One look at all rows, in order: the checkpoint, and the state digests that the rows give. Mutable.

    The meta rows of a group come before its leaves, so a leaf is known to be one as it comes.
    """

    def __init__(self, where: str) -> None:
        self.checkpoint = Checkpoint()
        self.rows = 0
        self.counts: Counter[int] = Counter()
        """Per number of a group how many rows there are."""
        self._where = where
        self._shares: dict[int, Shares] = {}
        self._digests: dict[str, int] = {}

    def take(self, rows: Sequence[Row]) -> None:
        """Take in the next rows.

        Raises:  StorageError when one is not what a checkpoint writes.
        """
        self.rows += len(rows)
        for path, data in rows:
            try:
                number, space, parts = split_path(path)
                self.counts[number] += 1
                if space == META:
                    _take_meta(self.checkpoint, number, parts, data)
                elif space == LEAVES:
                    self._take_leaves(number, parts, data)
            except (DecodeError, MsgspecError, KeyError) as error:
                raise StorageError(f"{self._where}: the row of {describe(path)} is not one: {error}") from error

    def _take_leaves(self, number: int, parts: list[Any], data: bytes) -> None:
        group = self.checkpoint.numbers[number]
        shares = self._shares.get(number)
        if shares is None:
            members = [ReplicaId(member) for member in self.checkpoint.groups[group].members]
            shares = self._shares[number] = Shares(members)
        leaves = decode_leaves(data, lambda origin: shares.origin(parts, origin))
        entry: Entry = leaves[0] if len(leaves) == 1 else Branch(leaves, {})
        self._digests[group] = (self._digests.get(group, 0) + shares.here(parts, entry)) % MODULUS

    def check_counts(self) -> None:
        """There are as many rows as were written: what is no leaf is in no digest.

        Raises:  StorageError.
        """
        node = self.checkpoint.node
        said = {0: 1} | {node.groups[group]: count for group, count in node.counts.items()} if node is not None else {}
        if self.counts != said:
            raise StorageError(f"{self._where}: there are {dict(self.counts)} rows per group, {said} were written")

    def digest(self, group: str) -> str:
        """The digest of a group as a manifest writes it."""
        return f"{self._digests.get(group, 0):032x}"
