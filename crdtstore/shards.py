"""Shards: which group of a domain a key is in.

The question: who must agree on it? Every node, every client and every tool, for ever: a key whose group changed would be lost. Hence a
function of the collection's name, the key and the number of shards, which a domain gets when it is declared and keeps.
"""

from __future__ import annotations

from xxhash import xxh3_64_intdigest

from crdtstore.values import pack

__all__ = ["MAX_SHARDS", "shard_of"]

MAX_SHARDS = 256


def shard_of(collection: str, key: str, shards: int) -> int:
    """The shard of a key, 0 to ``shards`` - 1; ``collection`` is its name without a type."""
    return 0 if shards == 1 else xxh3_64_intdigest(pack([collection, key])) % shards
