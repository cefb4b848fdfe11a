"""Causality: who wrote, which write, and who has seen what.

A replica numbers its own commits 1, 2, 3 ... without a gap; a dot names one of them; a version vector says per origin up to which
number commits are applied. Because delivery is gapless and causal, one number per origin is the whole causal context.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple, NewType

__all__ = ["NAME", "Dot", "ReplicaId", "Vector", "covers", "join", "make_replica_id", "node_of", "parse_replica_id"]

ReplicaId = NewType("ReplicaId", str)
"""Node name, a full stop and 64 random bits in hex: ``eu-1.0123456789abcdef``."""

Vector = Mapping[ReplicaId, int]
"""A version vector; a missing entry is zero."""

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
"""How nodes, regions, clusters, domains and collections are named."""
_REPLICA = re.compile(rf"{NAME.pattern}\.[0-9a-f]{{16}}")


def make_replica_id(node: str, random_bits: int) -> ReplicaId:
    """The id of a replica at ``node``; ``random_bits`` are 64 bits drawn once and never again."""
    return parse_replica_id(f"{node}.{random_bits:016x}")


def parse_replica_id(text: str) -> ReplicaId:
    """A checked replica id.

    Raises:  ValueError when the text is not ``node.16hex``.
    """
    if not _REPLICA.fullmatch(text):
        raise ValueError(f"a replica id is node.16hex with a node like eu-1, got {text[:100]!r}")
    return ReplicaId(text)


def node_of(replica: ReplicaId) -> str:
    """The node's name in a replica id."""
    return replica.rpartition(".")[0]


class Dot(NamedTuple):
    """One commit: the replica that made it and its number there, from 1."""

    replica: ReplicaId
    seq: int

    def __str__(self) -> str:
        return f"{self.replica}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Dot:
        """The dot written as ``replica:seq``; ValueError otherwise."""
        replica, colon, seq = text.rpartition(":")
        if not colon or not seq.isascii() or not seq.isdigit():
            raise ValueError(f"a dot is replica:seq, got {text[:100]!r}")
        return cls(parse_replica_id(replica), int(seq))


def covers(left: Vector, right: Vector) -> bool:
    """Whether ``left`` has seen everything that ``right`` has."""
    return all(left.get(replica, 0) >= seq for replica, seq in right.items())


def join(vectors: Iterable[Vector]) -> dict[ReplicaId, int]:
    """The least vector that covers all of them."""
    result: dict[ReplicaId, int] = {}
    for vector in vectors:
        for replica, seq in vector.items():
            if seq > result.get(replica, 0):
                result[replica] = seq
    return result
