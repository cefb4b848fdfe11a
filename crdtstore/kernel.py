"""The kernel: put and drop under a causal cut. Every type is a thin reading of this.

State is a tree of leaves. A commit is a list of effects, each on a path:

* ``drop(path)`` removes every dot at or below the path that the cut covers. The cut is the commit's ``deps``: because delivery is causal,
  the receiver holds everything below it, and what the issuer had not observed survives.
* ``put`` and its kin store a value under the commit's dot.

The question this file turns on: how can two replicas prove that they hold the same? The state digest is a sum (modulo a prime below
2^128) of one hash per dot, so each effect changes it by a few additions, in any order, and equal sets of commits give equal digests.

Source: DESIGN 2; observed-remove sets without tombstones (Bieniusa et al. 2012) carried over to whole trees by causal delivery.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from sortedcontainers import SortedList
from xxhash import xxh3_128_intdigest

from crdtstore.causal import ReplicaId
from crdtstore.leaves import (
    ADD,
    DROP,
    MARK,
    MAX,
    MIN,
    SEQ_BITS,
    SEQ_MASK,
    Branch,
    Entry,
    Leaf,
    Many,
    One,
    Run,
    Sum,
    clone,
    has_dot,
    narrow,
    spent,
)
from crdtstore.values import check_integer, element_order, pack

__all__ = ["Effects", "Sibling", "Siblings", "Tree", "leaf_name", "normal_form"]

_MODULUS = (1 << 128) - 159
"""A prime: modulo 2^128 an amount that is a multiple of a power of two would count with fewer bits of its weight, or not at all."""
_BEST: dict[int, Any] = {MAX: partial(max, key=element_order), MIN: partial(min, key=element_order)}
"""Integers and text have an order even where peers mix them: applying never refuses."""

Effects = Sequence[Any]
"""Flat triples ``kind, path, value, kind, path, value, ...``; value is None for a drop and a mark."""


class Sibling(NamedTuple):
    """Another commit of the same operation that put something at the same leaf."""

    hlc: int
    dot: int


Siblings = Mapping[int, list[Sibling]]
"""The other commits of an operation, by the leaves they put something at (``leaf_name``)."""


def normal_form(effects: Effects) -> list[Any]:
    """Drops first, then at most one put per path and class: adds summed, of others the first.

    A put that a later drop of the same commit covers is left out: the drop removes what came before it, also within the commit. Of two
    puts with no drop between, the first stands, because the one order of all writes is (hlc, replica, seq, index in the commit).

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
        elif before is not None and kind in _BEST:
            value = _BEST[kind](before[2], value)
        elif before is not None:
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


class Tree:
    """The state of one group at one replica.

    Mutable; changed only by ``apply``. ``replicas`` gives the ids that the indexes in dots stand for; it may grow, never change.
    """

    __slots__ = ("_orders", "digest", "replicas", "root")

    def __init__(self, replicas: list[ReplicaId]) -> None:
        self.replicas = replicas
        self.root: dict[Any, Any] = {}
        self.digest = 0
        self._orders: dict[str, SortedList] = {}

    # --- applying

    def apply(self, dot: int, hlc: int, cut: Sequence[int], effects: Effects, siblings: Siblings | None = None) -> None:
        """Apply one commit.

        Shape:    ``cut[i]`` is how much of replica ``i`` the commit's issuer had seen, its own earlier commits included;
                  ``siblings`` are the other commits of the same operation, by leaf (``leaf_name``).
        Cost:     put O(1); drop O(dots removed); each removal is paid for by its put.
        Raises:   nothing: applying never refuses (law L4).
        """
        for index in range(0, len(effects), 3):
            kind, path = effects[index], effects[index + 1]
            if kind == DROP:
                self._drop(path, cut)
            else:
                others = siblings.get(leaf_name(path, kind)) if siblings else None
                self._put(kind, path, effects[index + 2], dot, hlc, others)

    def _put(self, kind: int, path: list[Any], value: Any, dot: int, hlc: int, siblings: list[Sibling] | None) -> None:
        if siblings is not None and self._at(path) is None:
            return  # the operation is spent here, and no level must be left behind for it
        children = self._level(path)
        last = path[-1]
        entry = children.get(last)
        leaf: Leaf | None = None
        if entry is not None:
            leaf = entry.leaf_of(kind) if type(entry) is Branch else entry if entry.kind == kind else None
        if siblings is not None:
            leaf = self._admit(leaf, path, dot, hlc, siblings)
            if leaf is None:
                return
        if kind == ADD:
            if leaf is None:
                leaf = Sum(0)
                self._attach(children, path, entry, leaf)
            self._add(leaf, path, dot, value)  # type: ignore[arg-type]
        elif leaf is None:
            leaf = One(kind, dot, hlc, value)
            self._attach(children, path, entry, leaf)
            self.digest = (self.digest + self._share(path, leaf)) % _MODULUS
        else:
            self._put_beside(self._widen(leaf, path), path, dot, hlc, value)

    def _put_beside(self, many: Many, path: list[Any], dot: int, hlc: int, value: Any) -> None:
        """Put into a leaf that holds dots already."""
        kind = many.kind
        if kind in _BEST:
            before = self._share(path, many)
            many.dots[dot] = (hlc, _BEST[kind](many.dots.get(dot, (hlc, value))[1], value))
            self.digest = (self.digest + self._share(path, many) - before) % _MODULUS
        elif dot not in many.dots:  # twice in one commit: the first stands, as in ``normal_form``
            many.dots[dot] = (hlc, value)
            self.digest = (self.digest + self._share(path, One(kind, dot, hlc, value))) % _MODULUS

    def _add(self, leaf: Sum, path: list[Any], dot: int, amount: int) -> None:
        origin = dot >> SEQ_BITS
        run = leaf.run_of(origin)
        if run is None:
            run = leaf.open_run(origin, xxh3_128_intdigest(pack([path, ADD, self.replicas[origin]])))
        run.append(dot & SEQ_MASK, amount)
        leaf.total += amount
        self.digest = (self.digest + amount * run.weight) % _MODULUS

    def _admit(self, leaf: Leaf | None, path: list[Any], dot: int, hlc: int, siblings: list[Sibling]) -> Leaf | None:
        """The leaf to put into when a dot of a repeated operation counts there, None when it does not.

        Of several dots of one operation only the least in (hlc, replica, seq) counts, and none does once any was removed: a sibling
        that is applied but no longer here has been removed, because delivery is causal.
        """
        if leaf is None or not all(has_dot(leaf, sibling.dot) for sibling in siblings):
            return None
        if isinstance(leaf, One):
            leaf = self._widen(leaf, path)
        if leaf.shadows is None:
            leaf.shadows = {}
        counted = min(siblings, key=lambda sibling: self._order(sibling.hlc, sibling.dot))
        if self._order(counted.hlc, counted.dot) < self._order(hlc, dot):
            leaf.shadows[dot] = counted.dot
            return None
        self._remove(leaf, path, [counted.dot])
        for sibling in siblings:
            leaf.shadows[sibling.dot] = dot
        return leaf

    def _order(self, hlc: int, dot: int) -> tuple[int, str, int]:
        return (hlc, self.replicas[dot >> SEQ_BITS], dot & SEQ_MASK)

    # --- the cut

    def _drop(self, path: list[Any], cut: Sequence[int]) -> None:
        levels = [self.root]
        for part in path[:-1]:
            branch = levels[-1].get(part)
            if type(branch) is not Branch:
                return
            levels.append(branch.children)
        entry = levels[-1].get(path[-1])
        if entry is None:
            return
        left = self._cut(entry, path, cut)
        for depth in range(len(path) - 1, -1, -1):
            self._replace(levels[depth], path[: depth + 1], left)
            if left is not None or not depth:
                return
            left = _collapse(levels[depth - 1][path[depth - 1]])  # an empty subtree is no subtree

    def _replace(self, children: dict[Any, Any], path: list[Any], left: Entry | None) -> None:
        if left is not None:
            children[path[-1]] = left
            return
        del children[path[-1]]
        if len(path) == 2 and path[0] in self._orders:
            self._orders[path[0]].discard(path[1])

    def _cut(self, entry: Entry, path: list[Any], cut: Sequence[int]) -> Entry | None:
        """What is left of an entry after removing every dot that the cut covers."""
        if isinstance(entry, One):
            if entry.dot & SEQ_MASK > cut[entry.dot >> SEQ_BITS]:
                return entry
            self.digest = (self.digest - self._share(path, entry)) % _MODULUS
            return None
        if isinstance(entry, Sum):
            self._remove(entry, path, spent(entry.shadows, cut))
            for run in entry.runs:
                self._lose(entry, run, run.cut(cut[run.origin]))
            entry.runs = tuple(run for run in entry.runs if run.last_seq)
            return entry if entry.runs else None
        if isinstance(entry, Many):
            gone = spent(entry.shadows, cut)
            self._remove(entry, path, gone + [dot for dot in entry.dots if dot & SEQ_MASK <= cut[dot >> SEQ_BITS]])
            return narrow(entry)
        entry.leaves = [left for leaf in entry.leaves if (left := self._cut(leaf, path, cut)) is not None]  # type: ignore[misc]
        for part, child in list(entry.children.items()):
            below = [*path, part]
            self._replace(entry.children, below, self._cut(child, below, cut))
        return _collapse(entry)

    def _remove(self, leaf: Leaf, path: list[Any], dots: list[int]) -> None:
        """Take single dots out of a leaf; those that are not there are passed over."""
        if isinstance(leaf, Sum):
            for dot in dots:
                run = leaf.run_of(dot >> SEQ_BITS)
                if run is not None and run.holds(dot & SEQ_MASK):
                    self._lose(leaf, run, run.extract(dot & SEQ_MASK))
        elif dots and isinstance(leaf, Many):
            before = self._share(path, leaf)
            for dot in dots:
                leaf.dots.pop(dot, None)
            self.digest = (self.digest + self._share(path, leaf) - before) % _MODULUS

    def _lose(self, leaf: Sum, run: Run, amount: int) -> None:
        leaf.total -= amount
        self.digest = (self.digest - amount * run.weight) % _MODULUS

    # --- the state digest

    def _share(self, path: list[Any], leaf: Leaf) -> int:
        """What a leaf adds to the state digest: its reading for max and min, nothing for marks, else one hash per dot or origin."""
        kind = leaf.kind
        if kind == MARK:
            return 0
        if type(leaf) is One and kind not in _BEST:  # by far the most frequent
            return self._weight(path, kind, leaf.dot, leaf.value)
        if isinstance(leaf, Sum):
            return sum([run.total() * run.weight for run in leaf.runs]) % _MODULUS
        dots = {leaf.dot: (leaf.hlc, leaf.value)} if isinstance(leaf, One) else leaf.dots
        if kind in _BEST:
            values = [value for _, value in dots.values()]
            return xxh3_128_intdigest(pack([path, kind, _BEST[kind](values)])) if values else 0
        return sum([self._weight(path, kind, dot, value) for dot, (_, value) in dots.items()])

    def _weight(self, path: list[Any], kind: int, dot: int, value: Any) -> int:
        """The hash of a dot."""
        return xxh3_128_intdigest(pack([path, kind, self.replicas[dot >> SEQ_BITS], dot & SEQ_MASK, value]))

    def share(self, path: list[Any]) -> int:
        """The part of the state digest that belongs to a path and all below it, computed anew; of the root path: the whole."""
        entry = self._at(path)
        return 0 if entry is None else self._total_share(entry, path) % _MODULUS

    def _total_share(self, entry: Entry, path: list[Any]) -> int:
        if type(entry) is not Branch:
            return self._share(path, entry)  # type: ignore[arg-type]
        here = sum(self._share(path, leaf) for leaf in entry.leaves)
        return here + sum(self._total_share(child, [*path, part]) for part, child in entry.children.items())

    # --- the shape of the tree

    def _at(self, path: Sequence[Any]) -> Entry | None:
        """What stands at a path, or None."""
        entry: Any = Branch([], self.root)
        for part in path:
            entry = entry.children.get(part) if type(entry) is Branch else None
        return entry  # type: ignore[no-any-return]

    def _level(self, path: list[Any]) -> dict[Any, Any]:
        """The level on which the path ends, made if need be."""
        children = self.root
        if len(path) == 2:  # a key that is a leaf, the hottest case
            branch = children.get(path[0])
            if type(branch) is Branch:
                return branch.children
        for depth in range(len(path) - 1):
            part = path[depth]
            entry = children.get(part)
            if type(entry) is not Branch:
                branch = Branch([], {})
                self._attach(children, path[: depth + 1], entry, branch)
                entry = children[part]
            children = entry.children
        return children

    def _attach(self, children: dict[Any, Any], path: list[Any], entry: Entry | None, new: Entry) -> None:
        """Set a new entry at the end of the path, beside what stands there already."""
        last = path[-1]
        if entry is None:
            children[last] = new
            if len(path) == 2 and path[0] in self._orders:
                self._orders[path[0]].add(last)
        elif isinstance(entry, Branch):
            entry.leaves.append(new)  # type: ignore[arg-type]
        elif isinstance(new, Branch):
            new.leaves.append(entry)
            children[last] = new
        else:
            children[last] = Branch([entry, new], {})

    def _widen(self, leaf: Leaf, path: list[Any]) -> Many:
        """The same leaf in the shape that holds several dots."""
        if isinstance(leaf, Many):
            return leaf
        assert isinstance(leaf, One)
        many = Many(leaf.kind, {leaf.dot: (leaf.hlc, leaf.value)})
        children = self._level(path)
        entry = children[path[-1]]
        if isinstance(entry, Branch):
            entry.leaves = [many if other is leaf else other for other in entry.leaves]
        else:
            children[path[-1]] = many
        return many

    # --- reading

    def entry(self, collection: str, key: Any) -> Entry | None:
        """What stands at a key, or None; not to be changed."""
        branch = self.root.get(collection)
        return branch.children.get(key) if type(branch) is Branch else None

    def keys(self, collection: str, after: str = "", prefix: str = "") -> Iterator[str]:
        """The keys of a collection in the order of their bytes, from the first greater than ``after``.

        Cost:  the first call sorts; then O(log n) per write and O(1) per key read.
        """
        order = self._orders.get(collection)
        if order is None:
            branch = self.root.get(collection)
            order = SortedList(branch.children if type(branch) is Branch else ())
            self._orders[collection] = order
        for key in order.irange(max(prefix, after)):
            if not key.startswith(prefix):
                return
            if key > after or not after:
                yield key

    def scratch(self, keys: Sequence[tuple[str, Any]]) -> Tree:
        """A tree with copies of these keys only: what the operations of one commit are judged on."""
        tree = Tree(self.replicas)
        for collection, key in keys:
            entry = self.entry(collection, key)
            if entry is not None:
                tree.root.setdefault(collection, Branch([], {})).children[key] = clone(entry)
        return tree


def leaf_name(path: list[Any], kind: int) -> int:
    """A leaf as one number: its path and class hashed."""
    return xxh3_128_intdigest(pack([path, kind]))


def _collapse(branch: Branch) -> Entry | None:
    """The smallest shape for what is left of a branch."""
    if branch.children or len(branch.leaves) > 1:
        return branch
    return branch.leaves[0] if branch.leaves else None
