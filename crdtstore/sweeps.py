"""Sweeps: a drop of a big branch, carried out in slices.

The question: may a drop of a million elements stop everything else? The cut is noted at the branch and holds at once: whoever looks at a
child has it carried out there first. The rest follows in slices, between other steps. Only the state digest is late: it is that of the
state again when no sweep is left (``Tree.is_settled``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crdtstore.leaves import Branch
from crdtstore.levels import replace

if TYPE_CHECKING:
    from crdtstore.kernel import Tree

__all__ = ["Sweep"]


class Sweep:
    """What is left to do of the drops of one branch. Mutable; ``cut`` is their join: what any of them covers is gone."""

    __slots__ = ("_at", "_branch", "_parts", "_tree", "cut", "path")

    def __init__(self, tree: Tree, branch: Branch, path: list[Any], cut: Sequence[int]) -> None:
        self.path = path
        self.cut = list(cut)
        self._tree = tree
        self._branch = branch
        self._parts: list[Any] | None = None
        self._at = 0

    def join(self, cut: Sequence[int]) -> None:
        """Another drop of the same branch: begin again with what both cover."""
        self.cut = list(map(max, self.cut, cut))
        self._parts = None

    def touch(self, part: Any) -> None:
        """Carry it out at one child."""
        child = self._branch.children.get(part)
        if child is not None:
            below = [*self.path, part]
            replace(self._branch, part, self._tree.cut_entry(child, below, self.cut))

    def run(self, budget: int) -> int:
        """Carry it out at up to so many children; return at how many. The last slice takes the sweep away."""
        if self._parts is None:
            self._parts, self._at = list(self._branch.children), 0
        until = min(self._at + budget, len(self._parts))
        done = until - self._at
        for at in range(self._at, until):
            self.touch(self._parts[at])
        self._at = until
        if until == len(self._parts):
            self._branch.sweep = None
            self._tree.end_sweep(self)
        return done

    def finish(self) -> None:
        """Carry out all of it: somebody wants to see the whole branch."""
        if self._branch.sweep is self:
            self.run(len(self._branch.children) + len(self._parts or ()))
