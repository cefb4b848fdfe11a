"""Up to where a backup reaches: vectors and heads of the hash chains, from the checkpoint through the blocks of the log.

The question: can a gap or an exchanged commit hide in a backup? Each commit has the next number of its origin, and the hash of its bytes
goes into a chain, which has to pass the heads that the checkpoint holds and to end with those in the manifest.

What an install wrote to the log that came to nothing, or is under way, is no part of any group: it is passed over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import Enum, auto

import msgspec
from msgspec import Struct

from crdtstore.causal import ReplicaId
from crdtstore.commit import chain_next, chain_start
from crdtstore.errors import DecodeError, StorageError
from crdtstore.storage.protocol import Entry
from crdtstore.storage.snapshot import Edge
from crdtstore_node.backup.checkpoint import Checkpoint
from crdtstore_node.log_notes import Groups, is_commit, is_note_of_group

__all__ = ["Ends", "Head", "Taken", "head_of"]


class Taken(Enum):
    """What an entry of the log is to a backup."""

    NOTE = auto()
    """It is about the members of a group."""
    NOTHING = auto()
    """A note of the node to itself, or of no group that is here."""
    BELOW = auto()
    """A commit that the checkpoint holds."""
    ABOVE = auto()
    """A commit on top of it."""


class Head(Struct, array_like=True, gc=False):
    """What a commit says of itself before its effects."""

    format: int
    origin: str | int
    seq: int
    hlc: int
    deps: list[str | int]


_decode_head = msgspec.msgpack.Decoder(Head).decode


def head_of(entry: Entry, where: str) -> Head:
    """The head of an entry's commit.

    Raises:  StorageError when there is none.
    """
    try:
        return _decode_head(entry.data)
    except msgspec.MsgspecError as error:
        raise StorageError(f"{where}: not a commit: {error}. Nothing changed.", file=where) from error


class Ends:
    """Per group the vector and the chain heads. Mutable: a step forward per entry, from the base of the histories on."""

    def __init__(self, cluster: str, checkpoint: Checkpoint, arriving: Iterable[str] = ()) -> None:
        """``arriving``: groups that are known to be left out."""
        self._cluster = cluster
        self._vectors: dict[str, dict[str, int]] = {}
        self._chains: dict[str, dict[str, bytes]] = {}
        self._saved: dict[str, dict[str, tuple[int, bytes]]] = {}
        """Per group and origin what the checkpoint holds: number and chain head."""
        for name, group in checkpoint.groups.items():
            self._vectors[name] = dict(zip(group.members, group.base, strict=True))
            self._chains[name] = dict(zip(group.members, group.base_chains, strict=True))
            heads = zip(group.applied, group.heads, strict=True)
            self._saved[name] = dict(zip(group.members, heads, strict=True))
        self._groups = Groups(checkpoint.begins)
        self._groups.arriving |= {group for group in arriving if group not in checkpoint.groups}
        self._counts: Counter[str] = Counter()

    @property
    def commits(self) -> int:
        """Above the checkpoint."""
        return self._counts.total()

    @property
    def left_out(self) -> set[str]:
        """Groups whose state was being taken over: what the log holds of them is no part of anything."""
        return self._groups.arriving

    def take(self, entry: Entry, position: int, where: str) -> Taken:
        """Take in the next entry, of the block at this position.

        Raises:  StorageError saying where a commit is missing, or is another one than the checkpoint stands on.
        """
        group, origin, data = entry
        if not is_commit(entry):
            return self._take_note(entry, where)
        if not self._groups.counts(group, position):
            return Taken.NOTHING
        seq = head_of(entry, where).seq
        vector = self._vectors.setdefault(group, {})
        known = vector.get(origin, 0)
        if seq <= known:
            return Taken.BELOW
        if seq != known + 1:
            if (
                group not in self._saved and not known
            ):  # its beginning is neither here nor needed: it came with an install
                self._leave_out(group)
                return Taken.NOTHING
            raise StorageError(
                f"{where}: {group} goes from commit {known} to {seq} of {origin}. Nothing changed.", file=where
            )
        chains = self._chains.setdefault(group, {})
        before = chains.get(origin) or chain_start(self._cluster, group, ReplicaId(origin))
        vector[origin], chains[origin] = seq, chain_next(before, data)
        saved_seq, saved_head = self._saved.get(group, {}).get(origin, (0, b""))
        if seq == saved_seq and chains[origin] != saved_head:
            raise StorageError(
                f"{where}: commit {seq} of {origin} in {group} is not the one that the checkpoint stands on", file=where
            )
        if seq <= saved_seq:
            return Taken.BELOW
        self._counts[group] += 1
        return Taken.ABOVE

    def _take_note(self, entry: Entry, where: str) -> Taken:
        if not is_note_of_group(entry):
            return Taken.NOTHING
        try:
            self._groups.take(entry)
        except DecodeError as error:
            raise StorageError(f"{where}: {error.detail}. Nothing changed.", file=where) from error
        if entry.group not in self.left_out:
            return Taken.NOTE
        self._leave_out(entry.group)
        return Taken.NOTHING

    def _leave_out(self, group: str) -> None:
        self._groups.arriving.add(group)
        for known in (self._vectors, self._chains, self._counts):
            known.pop(group, None)

    def check_reached(self, where: str) -> None:
        """All that the checkpoint holds above its histories' base was in the log.

        Raises:  StorageError.
        """
        for group, saved in self._saved.items():
            for origin, (seq, _) in saved.items():
                if self._vectors[group].get(origin, 0) < seq:
                    raise StorageError(f"{where}: the log lacks commit {seq} of {origin} in {group}", file=where)

    @property
    def groups(self) -> list[str]:
        """All groups of which there is anything, in order."""
        return sorted(self._vectors)

    def edge(self, group: str) -> Edge:
        """Where a group ends."""
        vector, chains = self._vectors[group], self._chains.get(group, {})
        return Edge(
            vector={origin: seq for origin, seq in sorted(vector.items()) if seq},
            chains={origin: chains[origin].hex() for origin, seq in sorted(vector.items()) if seq},
        )
