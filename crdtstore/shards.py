"""Shards: which group of a domain a key is in.

The question: who must agree on it? Every node, every client and every tool, for ever: a key whose group changed would be lost. Hence a
function of the collection's name, the key and the number of shards, which a domain gets when it is declared and keeps.

And if two regions declare a domain with different numbers while they cannot hear each other? Both keep what was written to them, because
the number is part of where a key is. The earlier declaration in (HLC, replica) order serves, everywhere, as soon as it is known; every
other one stays readable under ``domain@number``. All groups of the greatest number are open in every region, so what was written under
any of them arrives everywhere and is lost with nobody. A key is in the same group under two numbers or in two different ones, and is
shown under a name only from the group that the number of this name says: hence no key is ever shown twice, from a wrong group, or not at
all. ``conflicts`` and ``doctor`` show the clash.
"""

from __future__ import annotations

from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from crdtstore.configuration import group_of
from crdtstore.values import pack

__all__ = ["MAX_SHARDS", "Division", "shard_of"]

MAX_SHARDS = 256


def shard_of(collection: str, key: str, shards: int) -> int:
    """The shard of a key, 0 to ``shards`` - 1; ``collection`` is its name without a type."""
    return 0 if shards == 1 else xxh3_64_intdigest(pack([collection, key])) % shards


class Division(NamedTuple):
    """A domain under one of the numbers it was declared with: so many ``shards``, and the ``groups`` that they are."""

    domain: str
    groups: tuple[str, ...]
    shards: int

    @classmethod
    def of(cls, domain: str, shards: int) -> Division:
        return cls(domain, tuple(group_of(domain, shard) for shard in range(shards)), shards)

    def shard_of(self, collection: str, key: str) -> int:
        """The shard of a key; ``collection`` may be ``name@type``."""
        return 0 if self.shards == 1 else shard_of(collection.partition("@")[0], key, self.shards)

    def group_of(self, collection: str, key: str) -> str:
        """The group of a key; ``collection`` may be ``name@type``."""
        return self.groups[self.shard_of(collection, key)]
