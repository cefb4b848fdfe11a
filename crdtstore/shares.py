"""Shares: what each leaf adds to the state digest.

The question: what must two replicas with the same commits hold alike? One hash per dot, and for sums the amount of each replica times a
hash; of greatest and least values only what is read; of marks nothing, and nothing of what a mark hides. So folding is invisible to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xxhash import xxh3_128_intdigest

from crdtstore.causal import ReplicaId
from crdtstore.leaves import (
    ADD,
    BEST,
    MARK,
    SEQ_BITS,
    SEQ_MASK,
    Branch,
    Entry,
    Leaf,
    Many,
    One,
    Sum,
    best,
    has_ended,
    has_mark,
)
from crdtstore.values import pack

__all__ = ["MODULUS", "Shares", "best_share"]

MODULUS = (1 << 128) - 159
"""A prime: modulo 2^128 an amount that is a multiple of a power of two would count with fewer bits of its weight, or not at all."""


class Shares:
    """The shares of leaves; ``replicas`` gives the ids that the indexes in dots stand for, since indexes are never hashed."""

    __slots__ = ("replicas",)

    def __init__(self, replicas: Sequence[ReplicaId]) -> None:
        self.replicas = replicas

    def dot(self, path: list[Any], kind: int, dot: int, value: Any) -> int:
        """The hash of a dot."""
        return xxh3_128_intdigest(pack([path, kind, self.replicas[dot >> SEQ_BITS], dot & SEQ_MASK, value]))

    def origin(self, path: list[Any], origin: int) -> int:
        """The hash by which each amount of a replica counts."""
        return xxh3_128_intdigest(pack((path, ADD, self.replicas[origin])))

    def leaf(self, path: list[Any], leaf: Leaf) -> int:
        """What a leaf adds where no mark hides it."""
        kind = leaf.kind
        if kind == MARK:
            return 0
        if kind in BEST:
            return 0 if (value := best(leaf)) is None else best_share(path, kind, value)
        if type(leaf) is One:  # by far the most frequent
            return self.dot(path, kind, leaf.dot, leaf.value)
        if isinstance(leaf, Sum):
            return sum([run.total() * run.weight for run in leaf.runs]) % MODULUS
        assert isinstance(leaf, Many)
        return sum([self.dot(path, kind, dot, value) for dot, (_, value) in leaf.dots.items()])

    def here(self, path: list[Any], entry: Entry | None) -> int:
        """What stands at this very path adds; nothing where a mark hides it."""
        if entry is None or has_mark(entry):
            return 0
        leaves: list[Any] = entry.leaves if type(entry) is Branch else [entry]
        return sum([self.leaf(path, leaf) for leaf in leaves])

    def total(self, path: list[Any], entry: Entry, now_ms: int | None = None) -> int:
        """What stands at this path and below adds; with a time: what has not expired by then."""
        if now_ms is not None and has_ended(entry, now_ms):
            return 0
        if type(entry) is not Branch:
            return self.here(path, entry)
        below = [self.total([*path, part], child, now_ms) for part, child in entry.children.items()]
        return self.here(path, entry) + sum(below)


def best_share(path: list[Any], kind: int, value: Any) -> int:
    """What a leaf adds of which only the greatest or least value is read."""
    return xxh3_128_intdigest(pack([path, kind, value]))
