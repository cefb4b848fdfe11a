"""Rows of a snapshot as they come: are they rows at all, of commits that the snapshot counts, and do they have its state digest?

The question: what could a row do that is stored here unseen? It is read much later, when nobody can be blamed any more, and one that
cannot be read stops the node at each start. So each is decoded once, and its dots are looked at, before it is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from crdtstore.causal import ReplicaId
from crdtstore.errors import DecodeError
from crdtstore.leaves import SEQ_BITS, SEQ_MASK, Branch, Leaf, Many, One
from crdtstore.shares import MODULUS, Shares
from crdtstore.storage.leafrows import decode_leaves
from crdtstore.storage.rows import CONTESTED, LEAVES, OPERATIONS, parts_of
from crdtstore.values import unpack

__all__ = ["ReceivedRows"]

_MOST_CONTESTED = 2


class ReceivedRows:
    """Mutable. Paths begin with the space."""

    def __init__(self, members: Sequence[str], applied: Sequence[int]) -> None:
        self._shares = Shares([ReplicaId(member) for member in members])
        self._applied = applied
        self._total = 0

    @property
    def digest(self) -> int:
        """The state digest of all leaves so far."""
        return self._total % MODULUS

    def add(self, path: bytes, data: bytes) -> None:
        """Raises:  DecodeError when it is no row, or speaks of what the snapshot does not hold."""
        try:
            parts = parts_of(path, 1)
            if path[0] == LEAVES:
                self._add_leaves(parts, data)
            else:
                self._check_entry(path[0], parts, unpack(data))
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise DecodeError(f"not a row of a snapshot: {type(error).__name__}: {error}") from error

    def _add_leaves(self, parts: list[Any], data: bytes) -> None:
        leaves = decode_leaves(data, lambda origin: self._shares.origin(parts, origin))
        if type(parts[0]) is not str or not leaves:
            raise DecodeError("a row that stands nowhere")
        for leaf in leaves:
            for dot in _dots(leaf):
                self._check(dot >> SEQ_BITS, dot & SEQ_MASK)
        self._total += self._shares.here(parts, leaves[0] if len(leaves) == 1 else Branch(leaves, {}))

    def _check_entry(self, space: int, parts: list[Any], value: Any) -> None:
        """An entry of a ledger: what stands there is what its reader takes."""
        if space == OPERATIONS:
            (name,) = parts
            if type(name) is not bytes or not value:
                raise DecodeError("an operation without a name, or without a commit")
            for dot, hlc, _, expiry_hlc, *leaves in value:
                self._check(dot >> SEQ_BITS, dot & SEQ_MASK)
                if (
                    type(hlc) is not int
                    or type(expiry_hlc) is not int
                    or any(type(leaf) is not bytes for leaf in leaves)
                ):
                    raise DecodeError("an operation that is none")
        elif type(parts[0]) is not str or (space == CONTESTED and len(parts) > _MOST_CONTESTED):
            raise DecodeError("an entry that stands nowhere")
        elif space != CONTESTED and type(value) is not int:
            raise DecodeError("a plan without an instant")

    def _check(self, origin: int, seq: int) -> None:
        if not (0 <= origin < len(self._applied) and 0 < seq <= self._applied[origin]):
            raise DecodeError("a commit that the snapshot does not count")


def _dots(leaf: Leaf) -> Iterator[int]:
    """All dots of a leaf; of sums the newest of each replica."""
    if isinstance(leaf, One):
        yield leaf.dot
    elif isinstance(leaf, Many):
        yield from leaf.dots
        yield from leaf.shadows or ()
    else:
        for run in leaf.runs:
            yield run.origin << SEQ_BITS | max(1, run.newest_seq)
