"""Levels: the shape of the tree, from its root to the leaves.

The question: what may be left behind? Nothing: an empty subtree is no subtree, and every entry has the smallest shape that holds it.
Whoever goes through a branch whose drop is still being carried out has it carried out first at the child that it goes to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from crdtstore.leaves import SEQ_BITS, SEQ_MASK, Branch, Entry, Leaf, Order, ValueOrder, newest_below
from crdtstore.values import element_order

__all__ = ["attach", "collapse", "disorder", "keys_of", "level_of", "replace", "set_leaf", "settle", "walk"]

_CHUNK = 64


def walk(root: Branch, path: Sequence[Any]) -> list[Branch]:
    """The levels that a path goes through, the last of which holds its end; none when it leads nowhere."""
    levels = [root]
    for part in path[:-1]:
        level = levels[-1]
        if level.sweep is not None:
            level.sweep.touch(part)
        branch = level.children.get(part)
        if type(branch) is not Branch:
            return []
        levels.append(branch)
    if levels[-1].sweep is not None:
        levels[-1].sweep.touch(path[-1])
    return levels


def level_of(root: Branch, path: list[Any], dot: int, big: int) -> Branch:
    """The level on which a path ends, made if need be, to put a dot there; branches with so many children, or more, take note of it."""
    level = root
    for depth in range(len(path) - 1):
        if level.sweep is not None:
            level.sweep.touch(path[depth])
        entry = level.children.get(path[depth])
        if type(entry) is not Branch:
            branch = Branch([], {})
            attach(level, path[depth], entry, branch)
            entry = branch
        level = entry
        if depth and (level.newest is not None or len(level.children) >= big):
            if level.newest is None:
                level.newest = newest_below(level)
            level.newest[dot >> SEQ_BITS] = dot & SEQ_MASK
    if level.sweep is not None:
        level.sweep.touch(path[-1])
    return level


def attach(level: Branch, part: Any, entry: Entry | None, new: Entry) -> None:
    """Set a new entry at a part of a level, beside what stands there already."""
    if entry is None:
        level.children[part] = new
        if level.order is not None:
            level.order.add(part)
        return
    disorder(level)
    if isinstance(entry, Branch):
        entry.leaves.append(new)  # type: ignore[arg-type]
    elif isinstance(new, Branch):
        new.leaves.append(entry)
        level.children[part] = new
    else:
        level.children[part] = Branch([entry, new], {})


def disorder(level: Branch) -> None:
    """What stands at a part of a level changes in place: an order by that would not be one any more."""
    if isinstance(level.order, ValueOrder):
        level.order = None


def set_leaf(level: Branch, part: Any, old: Leaf, new: Leaf) -> None:
    """Let a leaf take the place of another of its class."""
    entry = level.children[part]
    if isinstance(entry, Branch):
        entry.leaves = [new if leaf is old else leaf for leaf in entry.leaves]
    else:
        level.children[part] = new


def replace(level: Branch, part: Any, left: Entry | None) -> None:
    """Let an entry be what is left of it; the level it is in stays as it is."""
    if left is not None:
        level.children[part] = left
        return
    if level.order is not None:
        level.order.discard(part)
    del level.children[part]


def settle(levels: list[Branch], path: list[Any], left: Entry | None) -> None:
    """Put what is left at the end of a path, and take away every level that is empty now."""
    for depth in range(len(path) - 1, -1, -1):
        replace(levels[depth], path[depth], left)
        if left is not None or not depth:
            return
        left = collapse(levels[depth])


def collapse(branch: Branch) -> Entry | None:
    """The smallest shape for what is left of a branch."""
    if branch.children or branch.sweep is not None or len(branch.leaves) > 1:
        return branch
    return branch.leaves[0] if branch.leaves else None


def keys_of(branch: Branch, after: str, prefix: str) -> Iterator[str]:
    """The keys of a collection in the order of their bytes, from the first greater than ``after``; whoever looks at a key on the way may
    take it out.
    """
    if branch.sweep is not None:
        branch.sweep.finish()
    start, is_included = max(prefix, after), not after or prefix > after
    while True:
        if branch.order is None:
            branch.order = Order(branch.children)
        found = branch.order.irange_key(element_order(start), inclusive=(is_included, True))
        chunk = list(islice(found, _CHUNK))
        for key in chunk:
            if not isinstance(key, str) or not key.startswith(prefix):
                return
            yield key
        if len(chunk) < _CHUNK:
            return
        start, is_included = chunk[-1], False
