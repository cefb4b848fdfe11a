"""Causality: who wrote, which write, and who has seen what.

A replica numbers its own commits 1, 2, 3 ... without a gap; a dot names one of them; a version vector says per origin up to which
number commits are applied. Because delivery is gapless and causal, one number per origin is the whole causal context.

A node may consist of several workers, processes that share its work; each is a node to all others, called ``us-1+0``, ``us-1+1`` and so on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple, NewType

__all__ = [
    "MAX_WORKERS",
    "NAME",
    "Dot",
    "ReplicaId",
    "Vector",
    "covers",
    "join",
    "machine_of",
    "make_replica_id",
    "node_of",
    "parse_replica_id",
    "worker_node",
    "worker_of",
]

ReplicaId = NewType("ReplicaId", str)
"""Node name, a full stop and 64 random bits in hex: ``eu-1.0123456789abcdef``."""

Vector = Mapping[ReplicaId, int]
"""A version vector; a missing entry is zero."""

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
"""How nodes, regions, clusters, domains and collections are named."""
MAX_WORKERS = 64
"""Of one node."""
_REPLICA = re.compile(rf"{NAME.pattern}(\+(0|[1-9][0-9]?))?\.[0-9a-f]{{16}}")


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


def worker_node(machine: str, worker: int) -> str:
    """How a worker of a node that consists of several is called."""
    return f"{machine}+{worker}"


def worker_of(node: str) -> int | None:
    """Which worker this is, by its name; None when its node consists of one process only."""
    _, plus, worker = node.partition("+")
    return int(worker) if plus else None


def machine_of(node: str) -> str:
    """The node that a worker belongs to, by its name: who is no worker is a node himself."""
    return node.partition("+")[0]


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
