"""The state digest of rows as they come, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from crdtstore.causal import ReplicaId
from crdtstore.leaves import Branch
from crdtstore.shares import MODULUS, Shares
from crdtstore.storage.leafrows import decode_leaves
from crdtstore.storage.rows import LEAVES, parts_of

__all__ = ["RowDigest"]


class RowDigest:
    """What the leaves among all rows that were added make of it. Mutable. Paths begin with the space."""

    def __init__(self, members: Sequence[str]) -> None:
        self._shares = Shares([ReplicaId(member) for member in members])
        self._total = 0

    def add(self, path: bytes, data: bytes) -> None:
        """Raises:  DecodeError when it is no row."""
        if path[0] == LEAVES:
            parts = parts_of(path, 1)
            leaves = decode_leaves(data, lambda origin: self._shares.origin(parts, origin))
            self._total += self._shares.here(parts, leaves[0] if len(leaves) == 1 else Branch(leaves, {}))

    @property
    def value(self) -> int:
        return self._total % MODULUS
