"""The kernel: put and drop under a causal cut. Every type is a thin reading of this.

State is a tree of leaves. A commit is a list of effects, each on a path:

* ``drop(path)`` removes every dot at or below the path that the cut covers. The cut is the commit's ``deps``: because delivery is causal,
  the receiver holds everything below it, and what the issuer had not observed survives.
* ``put`` and its kin store a value under the commit's dot. A greatest or least value, and a deadline, also take the place of what they
  have seen of their own class at their path: no drop is needed, so an attempt of an operation that does not count has removed nothing.

The question this file turns on: how can two replicas prove that they hold the same? The state digest is a sum (modulo a prime below
2^128) of one hash per dot, so each effect changes it by a few additions, in any order, and equal sets of commits give equal digests.

Source: DESIGN 2; observed-remove sets without tombstones (Bieniusa et al. 2012) carried over to whole trees by causal delivery.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from crdtstore.effects import Effects, Sibling, Siblings, leaf_name, triples
from crdtstore.leaves import (
    ADD,
    BEST,
    DEADLINE,
    DROP,
    MARK,
    SEQ_BITS,
    SEQ_MASK,
    Branch,
    Entry,
    Leaf,
    Many,
    One,
    Run,
    Sum,
    best,
    choose_again,
    clone,
    covers,
    has_dot,
    has_mark,
    is_seen,
    narrow,
    spent,
)
from crdtstore.levels import attach, collapse, disorder, level_of, replace, set_leaf, settle, walk
from crdtstore.shares import MODULUS, best_share
from crdtstore.state import State
from crdtstore.sweeps import Discard, Sweep

__all__ = ["Tree"]

_MAX_PRUNED = 64
"""Of a leaf with more dots none is looked for that is superfluous now: folding finds them all at once."""


class Tree(State):
    """The state of one group at one replica, as commits change it: by ``apply`` only."""

    __slots__ = ()

    # --- applying

    def apply(
        self,
        dot: int,
        hlc: int,
        cut: Sequence[int],
        effects: Effects,
        siblings: Siblings | None = None,
        *,
        is_repeatable: bool = False,
    ) -> None:
        """Apply one commit.

        Shape:    ``cut[i]`` is how much of replica ``i`` the commit's issuer had seen, its own earlier commits included;
                  ``siblings`` are the other commits of the same operation, by leaf (``leaf_name``); ``is_repeatable``: there may be such.
        Cost:     put O(1); drop O(dots removed), in slices where these are many; each removal is paid for by its put.
        Raises:   nothing: applying never refuses (law L4). What it touches was brought into memory before (``residence``).
        """
        residence, collections = self.residence, self.root.children
        for kind, path, value in (effects,) if len(effects) == 3 else triples(effects):  # by far the most frequent
            if kind == DROP:
                self._drop(path, cut)
                continue
            others = None
            if kind == DEADLINE:  # it takes the place of those that it has seen
                self._drop(path, cut, kind)
            if siblings is not None:
                others = siblings.get(leaf_name(path, kind))
                if others is not None and self.here(path) is None:
                    continue  # the operation is spent here, and no level must be left behind for it
            if residence is not None:
                residence.note(path)
            level: Any = collections.get(path[0]) if len(path) == 2 else None
            if type(level) is not Branch or level.sweep is not None:  # not just a key of a collection that is there
                level = level_of(self.root, path, dot, self.sweep_above)
            entry = level.children.get(path[-1])
            if kind == ADD and others is None and (entry is None or type(entry) is Sum):  # the hottest case
                if entry is None:
                    entry = Sum(0)
                    attach(level, path[-1], None, entry)
                self._add(entry, path, dot, value, hlc, is_repeatable)
            elif kind == MARK or (entry is not None and has_mark(entry)):
                self._put_marked(kind, path, value, dot, hlc, cut, others, is_repeatable)
            else:
                self._put(level, kind, path, value, dot, hlc, cut, others, is_repeatable)

    def _put_marked(
        self, kind: int, path: list[Any], value: Any, dot: int, hlc: int, cut: Sequence[int], *rest: Any
    ) -> None:
        """Put a mark, or beside one. It hides what stands at its path; whoever has seen it puts in the place of both.

        Types write a drop before such a put all the same: a mark that a concurrent put has taken away leaves nothing here that would
        say that this one has seen it too.
        """
        level, last = level_of(self.root, path, dot, self.sweep_above), path[-1]
        entry = level.children.get(last)
        digest, before = self.digest, self._shares.here(path, entry)
        if entry is not None:
            disorder(level)
            self.contested[path[0], path[1] if len(path) > 1 else None] = None
            if kind != MARK:
                self._drop_here(level, entry, path, cut)
        self._put(level, kind, path, value, dot, hlc, cut, *rest)
        left = level.children.get(last)
        if type(left) is Branch and (small := collapse(left)) is not left:
            settle(walk(self.root, path), path, small)
        self.digest = (digest - before + self._shares.here(path, level.children.get(last))) % MODULUS
        self._dirty[tuple(path)] = None

    def _drop_here(self, level: Branch, entry: Entry, path: list[Any], cut: Sequence[int]) -> None:
        """A cut at this very path, not below it."""
        if type(entry) is Branch:
            self._cut_here(entry, path, cut)
        else:
            replace(level, path[-1], self._cut_leaf(entry, path, cut))  # type: ignore[arg-type]

    def _put(
        self,
        level: Branch,
        kind: int,
        path: list[Any],
        value: Any,
        dot: int,
        hlc: int,
        cut: Sequence[int],
        siblings: list[Sibling] | None,
        is_repeatable: bool,
    ) -> None:
        entry = level.children.get(path[-1])
        leaf: Leaf | None = None
        if entry is not None:
            leaf = entry.leaf_of(kind) if type(entry) is Branch else entry if entry.kind == kind else None
        if siblings is not None:
            leaf = self._admit(level, leaf, path, dot, hlc, siblings)
            if leaf is None:
                return
        if kind == ADD:
            if leaf is None:
                leaf = Sum(0)
                attach(level, path[-1], entry, leaf)
            self._add(leaf, path, dot, value, hlc, is_repeatable)  # type: ignore[arg-type]
        elif leaf is None:
            leaf = One(kind, dot, hlc, value)
            attach(level, path[-1], entry, leaf)
            self.digest = (self.digest + self._shares.leaf(path, leaf)) % MODULUS
        elif kind in BEST:
            self._put_best(level, leaf, path, dot, hlc, value, () if is_repeatable else cut)
        else:
            self._put_beside(self._widen(level, leaf, path), path, dot, hlc, value)

    def _put_beside(self, many: Many, path: list[Any], dot: int, hlc: int, value: Any) -> None:
        """Put into a leaf that holds dots already."""
        if dot not in many.dots:  # twice in one commit: the first stands, as in ``normal_form``
            many.dots[dot] = (hlc, value)
            if many.kind != DEADLINE:
                self.contested[path[0], path[1] if len(path) > 1 else None] = None
            self.digest = (self.digest + self._shares.leaf(path, One(many.kind, dot, hlc, value))) % MODULUS

    def _put_best(
        self, level: Branch, leaf: Leaf, path: list[Any], dot: int, hlc: int, value: Any, cut: Sequence[int]
    ) -> None:
        """Put a candidate for the greatest or least value. It takes the place of what its cut covers and what is not better: any drop
        that covers it covers those too. Not so in a repeatable commit (no cut): its dot may go without them.
        """
        choose = BEST[leaf.kind]
        before = best(leaf)
        if type(leaf) is One and cut and _is_superfluous(leaf.dot, leaf.hlc, leaf.value, cut, hlc, value, choose):
            leaf.dot, leaf.hlc, leaf.value = dot, hlc, value
            after = value
        else:
            many = self._widen(level, leaf, path)
            if cut and many.shadows is None and len(many.dots) <= _MAX_PRUNED:
                for old, (old_hlc, old_value) in list(many.dots.items()):
                    if _is_superfluous(old, old_hlc, old_value, cut, hlc, value, choose):
                        del many.dots[old]
            many.dots[dot] = (hlc, choose((value, many.dots.get(dot, (hlc, value))[1])))
            after = many.best = value if before is None else choose((before, value))
            self._dirty[tuple(path)] = None
            if len(many.dots) == 1 and many.shadows is None:
                set_leaf(level, path[-1], many, narrow(many))  # type: ignore[arg-type]
        if not _same(before, after):
            lost = 0 if before is None else best_share(path, leaf.kind, before)
            self.digest = (self.digest + best_share(path, leaf.kind, after) - lost) % MODULUS

    def _add(self, leaf: Sum, path: list[Any], dot: int, amount: int, hlc: int, is_repeatable: bool) -> None:
        origin, seq = dot >> SEQ_BITS, dot & SEQ_MASK
        for run in leaf.runs:
            if run.origin == origin:
                break
        else:
            run = leaf.open_run(origin, self._shares.origin(path, origin))
        if run.append_loose(seq, amount, hlc) if is_repeatable else run.append(seq, amount, hlc):
            self._dirty[tuple(path)] = None
        leaf.total += amount
        self.digest = (self.digest + amount * run.weight) % MODULUS

    def _admit(
        self, level: Branch, leaf: Leaf | None, path: list[Any], dot: int, hlc: int, siblings: list[Sibling]
    ) -> Leaf | None:
        """The leaf to put into when a dot of a repeated operation counts there, None when it does not.

        Of several dots of one operation only the least in (hlc, replica, seq) counts, and none does once any was removed: a sibling
        that is applied but no longer here has been removed, because delivery is causal, or made superfluous by a better value.
        """
        if leaf is None or not all(has_dot(leaf, sibling.dot) for sibling in siblings):
            return None
        held = self._widen(level, leaf, path) if isinstance(leaf, One) else leaf
        if held.shadows is None:
            held.shadows = {}
        self._dirty[tuple(path)] = None
        disorder(level)
        counted = min(siblings, key=lambda sibling: self._order(sibling.hlc, sibling.dot))
        if self._order(counted.hlc, counted.dot) < self._order(hlc, dot):
            held.shadows[dot] = counted.dot
            return None
        self._remove(held, path, [counted.dot])
        for sibling in siblings:
            held.shadows[sibling.dot] = dot
        return held

    def _widen(self, level: Branch, leaf: Leaf, path: list[Any]) -> Many:
        """The same leaf in the shape that holds several dots."""
        disorder(level)
        if isinstance(leaf, Many):
            return leaf
        assert isinstance(leaf, One)
        many = Many(leaf.kind, {leaf.dot: (leaf.hlc, leaf.value)}, best=leaf.value if leaf.kind in BEST else None)
        set_leaf(level, path[-1], leaf, many)
        return many

    def _order(self, hlc: int, dot: int) -> tuple[int, str, int]:
        return (hlc, self.replicas[dot >> SEQ_BITS], dot & SEQ_MASK)

    # --- the cut

    def _drop(self, path: list[Any], cut: Sequence[int], kind: int | None = None) -> None:
        """A cut at a path and below; with a class only of that class, at the very path."""
        levels = walk(self.root, path)
        entry = levels[-1].children.get(path[-1]) if levels else None
        if entry is None:
            return
        if kind is None:
            if type(entry) is not One:
                disorder(levels[-1])
            settle(levels, path, self.cut_entry(entry, path, cut))
            return
        digest, before, left = self.digest, self._shares.here(path, entry), entry
        if type(entry) is Branch:
            self._cut_here(entry, path, cut, kind)
            left = collapse(entry)
        elif entry.kind == kind:
            left = self._cut_leaf(entry, path, cut)
        settle(levels, path, left)
        self.digest = (digest - before + self._shares.here(path, left)) % MODULUS

    def cut_entry(self, entry: Entry, path: list[Any], cut: Sequence[int]) -> Entry | None:
        """What is left of an entry after removing every dot that the cut covers."""
        if type(entry) is not Branch:
            return self._cut_leaf(entry, path, cut)  # type: ignore[arg-type]
        digest, is_marked = self.digest, has_mark(entry)
        self._cut_here(entry, path, cut)
        if is_marked:
            self.digest = (digest + self._shares.here(path, entry)) % MODULUS
        if is_seen(entry, cut):
            if self.residence is not None:
                self.residence.note_gone(path)
            gone = Discard(self, path, {})
            gone.take(entry, path)
            self.discard(gone)
            return collapse(entry)
        if entry.sweep is not None:
            assert isinstance(entry.sweep, Sweep)
            if self.residence is not None:
                self.residence.note_gone(path)
            entry.sweep.join(cut)
            return entry
        if len(entry.children) > self.sweep_above and self.defers:
            if entry.order is not None:
                order = Discard(self, path, {})
                order.take_order(entry)
                self.discard(order)
            if self.residence is not None:
                self.residence.note_gone(path)
            entry.sweep = Sweep(self, entry, path, cut)
            self._sweeps.append(entry.sweep)
            return entry
        disorder(entry)
        for part, child in list(entry.children.items()):
            below = [*path, part]
            replace(entry, part, self.cut_entry(child, below, cut))
        return collapse(entry)

    def _cut_here(self, branch: Branch, path: list[Any], cut: Sequence[int], kind: int | None = None) -> None:
        """A cut of the leaves that stand at a branch; with a class of that one only."""
        kept = [leaf if kind not in (None, leaf.kind) else self._cut_leaf(leaf, path, cut) for leaf in branch.leaves]
        branch.leaves = [leaf for leaf in kept if leaf is not None]

    def _cut_leaf(self, leaf: Leaf, path: list[Any], cut: Sequence[int]) -> Leaf | None:
        if isinstance(leaf, One):
            if not covers(cut, leaf.dot):
                return leaf
            if self.residence is not None:
                self.residence.note(path)
            self.digest = (self.digest - self._shares.leaf(path, leaf)) % MODULUS
            return None
        if self.residence is not None:
            self.residence.note(path)
        gone = spent(leaf.shadows, cut)
        leaf.shadows = leaf.shadows or None  # else it would be looked at by every fold to come, and never pruned
        if isinstance(leaf, Sum):
            self._remove(leaf, path, gone)
            for run in leaf.runs:
                self._lose(leaf, run, run.cut(cut[run.origin]))
            leaf.runs = tuple(run for run in leaf.runs if not run.is_empty)
            return leaf if leaf.runs else None
        self._remove(leaf, path, gone + [dot for dot in leaf.dots if covers(cut, dot)])
        return narrow(leaf)

    def _remove(self, leaf: Leaf, path: list[Any], dots: list[int]) -> None:
        """Take single dots out of a leaf; those that are not there are passed over."""
        if isinstance(leaf, Sum):
            for dot in dots:
                run = leaf.run_of(dot >> SEQ_BITS)
                taken = None if run is None else run.take(dot & SEQ_MASK)
                if run is not None and taken is not None:
                    self._lose(leaf, run, taken)
        elif dots and isinstance(leaf, Many):
            before = self._shares.leaf(path, leaf)
            for dot in dots:
                leaf.dots.pop(dot, None)
            choose_again(leaf)
            self.digest = (self.digest + self._shares.leaf(path, leaf) - before) % MODULUS

    def _lose(self, leaf: Sum, run: Run, amount: int) -> None:
        leaf.total -= amount
        self.digest = (self.digest - amount * run.weight) % MODULUS

    # --- trying

    def scratch(self, keys: Sequence[tuple[str, Any]]) -> Tree:
        """A tree with copies of these keys only: what the operations of one commit are judged on."""
        tree = Tree(self.replicas)
        tree.defers = False  # what is tried next puts under the same cut
        for collection, key in dict.fromkeys(keys):
            self._finish([collection, key])
            entry = self.entry(collection, key)
            if entry is not None:
                tree.root.children.setdefault(collection, Branch([], {})).children[key] = clone(entry)
        return tree


def _is_superfluous(
    dot: int, hlc: int, value: Any, cut: Sequence[int], new_hlc: int, new: Any, choose: Callable[[Any], Any]
) -> bool:
    """Whether a new candidate has seen this one, is not worse, and is stamped later: a deadline is held against the latest stamp."""
    return covers(cut, dot) and hlc <= new_hlc and _same(choose((new, value)), new)


def _same(one: Any, other: Any) -> bool:
    """Whether two values of a best class are the same; an integer is never the same as a text."""
    return type(one) is type(other) and bool(one == other)
