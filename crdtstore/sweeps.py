"""Sweeps: a drop of a big branch, carried out in slices.

The question: may a drop of a million elements stop everything else? No: it holds at once, and the rest follows between other steps. Where
the cut covers all that is below a branch, the branch leaves the tree as a whole (``Discard``), and nobody meets it again. Where something
was put concurrently, the cut stands at the branch (``Sweep``): whoever looks at a child has it carried out there first. Only the state
digest is late: it is that of the state again when nothing of this is left (``Tree.is_settled``).

What goes is taken from the end of its dict, one by one: a list of a million parts, or a million of them freed at once, would be the very
stall that is to be avoided.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crdtstore.leaves import Branch, Entry, Order, is_visible, outlives

if TYPE_CHECKING:
    from crdtstore.kernel import Tree

__all__ = ["Discard", "Sweep"]

_LOOKED = 100


class Sweep:
    """What is left to do of the drops of one branch. Mutable; ``cut`` is their join: what any of them covers is gone."""

    __slots__ = ("_branch", "_old", "_tree", "cut", "path")

    def __init__(self, tree: Tree, branch: Branch, path: list[Any], cut: Sequence[int]) -> None:
        self.path = path
        self.cut = list(cut)
        self._tree = tree
        self._branch = branch
        self._old: dict[Any, Entry] = branch.children
        """The children at which it is still to be carried out."""
        branch.children = {}

    def is_below(self, path: Sequence[Any]) -> bool:
        """Whether it is still to be seen at a path, or below it."""
        return self.path[: len(path)] == path

    def join(self, cut: Sequence[int]) -> None:
        """Another drop of the same branch: begin again with what both cover."""
        self.cut = list(map(max, self.cut, cut))
        less, more = sorted((self._branch.children, self._old), key=len)
        more.update(less)
        self._old, self._branch.children = more, {}

    def touch(self, part: Any) -> None:
        """Carry it out at one child."""
        child = self._old.pop(part, None)
        if child is not None:
            self._cut(part, child)

    def _cut(self, part: Any, child: Entry) -> Entry | None:
        path = [*self.path, part]
        left = self._tree.cut_entry(child, path, self.cut)
        if left is not None:
            self._branch.children[part] = left
            if self._tree.residence is not None:  # what stood here counts as gone from disk
                self._tree.residence.note_all(left, path)
        return left

    def shows(self, now_ms: int | None) -> bool:
        """Whether anything can be read of what it has still to be carried out at; carries it out until something is found."""
        for _ in range(min(_LOOKED, len(self._old))):
            left = self._cut(*self._old.popitem())  # what outlives a drop came last, mostly
            if left is not None and is_visible(left, now_ms):
                return True
        self.finish()
        return any(is_visible(child, now_ms) for child in self._branch.children.values())

    def run(self, budget: int) -> int:
        """Carry it out at up to so many children; return at how many. The last slice takes the sweep away."""
        done = min(budget, len(self._old))
        for _ in range(done):
            self._cut(*self._old.popitem())
        if not self._old:
            if self._branch.sweep is self:
                self._branch.sweep = None
            self._tree.end_sweep(self)
        return done

    def finish(self) -> None:
        """Somebody wants to see the whole branch: look for what outlives the drop, and discard the rest.

        Cost:    O(children), but little for each: they are looked at only.
        """
        for part in [part for part, child in self._old.items() if outlives(child, self.cut)]:
            self.touch(part)
        self._tree.discard(Discard(self._tree, self.path, self.surrender()))
        self.run(0)

    def surrender(self) -> dict[Any, Entry]:
        """The children at which it is still to be carried out; it has nothing to do any more."""
        old, self._old = self._old, {}
        return old


class Discard:
    """What a drop took out of the tree as a whole: what it added to the state digest is left to subtract. Mutable."""

    __slots__ = ("_levels", "_orders", "_tree")

    def __init__(self, tree: Tree, path: list[Any], children: dict[Any, Entry]) -> None:
        self._tree = tree
        self._levels = [(path, children)]
        self._orders: list[Order] = []

    def take(self, branch: Branch, path: list[Any]) -> None:
        """Take away all that is below a branch."""
        self._levels.append((path, branch.children))
        if branch.sweep is not None:
            self._levels.append((path, branch.sweep.surrender()))
        self.take_order(branch)
        branch.children, branch.sweep, branch.newest = {}, None, None

    def take_order(self, branch: Branch) -> None:
        """Take away the order of what is below a branch, if it has one."""
        if branch.order is not None:
            self._orders.append(branch.order)
            branch.order = None

    def is_below(self, path: Sequence[Any]) -> bool:
        """It is to be seen in the digest of the whole only."""
        return not path

    def run(self, budget: int) -> int:
        """Go on at up to so many entries; return at how many. The last slice takes it away."""
        levels, orders = self._levels, self._orders
        done = 0
        while done < budget and (levels or orders):
            if not levels:
                done += orders[-1].shrink(budget - done)
                if not orders[-1].has_any:
                    orders.pop()
            else:
                if levels[-1][1]:
                    self._subtract(*levels[-1])
                    done += 1
                while levels and not levels[-1][1]:
                    levels.pop()
        if not levels and not orders:
            self._tree.end_sweep(self)
        return done

    def _subtract(self, path: list[Any], children: dict[Any, Entry]) -> None:
        part, child = children.popitem()
        below = [*path, part]
        self._tree.subtract(below, child)
        if type(child) is Branch:
            self.take(child, below)

    def finish(self) -> None:
        """Subtract all of it: somebody wants to compare the digest of the whole."""
        while self._levels or self._orders:
            self.run(1 << 20)
