"""Up to where a backup reaches: vectors and heads of the hash chains, from the checkpoint through the blocks of the log.

The question: can a gap or an exchanged commit hide in a backup? Each commit has the next number of its origin, and the hash of its bytes
goes into a chain, which has to pass the heads that the checkpoint holds and to end with those in the manifest.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from crdtstore.causal import ReplicaId
from crdtstore.commit import chain_next, chain_start
from crdtstore.errors import StorageError
from crdtstore.promises import NOTE_GROUP
from crdtstore.storage.protocol import Entry
from crdtstore.storage.snapshot import Edge
from crdtstore_node.backup.checkpoint import Checkpoint

__all__ = ["Ends", "Head", "head_of"]


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

    def __init__(self, cluster: str, checkpoint: Checkpoint) -> None:
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
        self.commits = 0
        """Above the checkpoint."""

    def take(self, entry: Entry, where: str) -> bool:
        """Take in the next entry; return whether it is a commit above the checkpoint.

        Raises:  StorageError saying where a commit is missing, or is another one than the checkpoint stands on.
        """
        group, origin, data = entry
        if group == NOTE_GROUP:
            return False
        seq = head_of(entry, where).seq
        vector = self._vectors.setdefault(group, {})
        known = vector.get(origin, 0)
        if seq <= known:
            return False
        if seq != known + 1:
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
        self.commits += seq > saved_seq
        return seq > saved_seq

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
