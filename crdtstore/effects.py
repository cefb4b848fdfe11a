"""Effects: what a commit does, as flat triples ``kind, path, value``, and their normal form.

The question: what does a commit mean that touches one path twice? Drops first, then at most one put per path and class; whoever applies
it need not know in which order its origin thought of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from xxhash import xxh3_128_digest

from crdtstore.leaves import ADD, BEST, DEADLINE, DROP
from crdtstore.values import check_integer, pack

__all__ = ["Effects", "Sibling", "Siblings", "leaf_name", "normal_form", "triples"]

Effects = Sequence[Any]
"""Flat triples ``kind, path, value, kind, path, value, ...``; value is None for a drop and a mark."""


def triples(effects: Effects) -> Iterable[Sequence[Any]]:
    """The effects one by one."""
    each = iter(effects)
    return zip(each, each, each, strict=True)


class Sibling(NamedTuple):
    """Another commit of the same operation that put something at the same leaf."""

    hlc: int
    dot: int


Siblings = Mapping[bytes, list[Sibling]]
"""The other commits of an operation, by the leaves they put something at (``leaf_name``)."""


def leaf_name(path: list[Any], kind: int) -> bytes:
    """A leaf in 16 bytes: its path and class hashed."""
    return xxh3_128_digest(pack([path, kind]))


def normal_form(effects: Effects) -> list[Any]:
    """Drops first, then at most one put per path and class: adds summed, of others the first.

    A put that a later drop of the same commit covers is left out: the drop removes what came before it, also within the commit. Of two
    puts with no drop between, the first stands, because the one order of all writes is (hlc, replica, seq, index in the commit); a deadline
    takes the place of the one before it.

    Cost:    O(effects): a commit of many elements must not hold up all others.
    Raises:  UsageError when amounts sum up to more than an integer may have; nothing changed.
    """
    if len(effects) == 6 and effects[0] == DROP and effects[3] not in (DROP, ADD):  # one replaced: it is so already
        return list(effects)
    dropped = {tuple(effects[index + 1]): index for index in range(0, len(effects), 3) if effects[index] == DROP}
    puts: dict[tuple[tuple[Any, ...], int], list[Any]] = {}
    for index in range(0, len(effects), 3):
        kind, path, value = effects[index : index + 3]
        if kind == DROP:
            continue
        name = tuple(path)
        if any(dropped.get(name[:length], -1) > index for length in range(1, len(name) + 1)):
            continue
        before = puts.pop((name, kind), None)
        if before is not None and kind == ADD:
            value = before[2] + value
        elif before is not None and kind in BEST:
            value = BEST[kind]((before[2], value))
        elif before is not None and kind != DEADLINE:
            value = before[2]
        puts[name, kind] = [kind, path, value]
    flat: list[Any] = []
    for name in dropped:
        flat += (DROP, list(name), None)
    for put in puts.values():
        if put[0] == ADD:  # what peers refuse must not be written here: nobody could read the log again
            check_integer(put[2], "the sum of the amounts that one commit adds to a key")
        flat += put
    return flat
