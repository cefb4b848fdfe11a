"""Folding: what nobody can tell apart any more becomes one.

The question: when is that? A dot is stable when all members have it; every commit that arrives from then on has seen it (law INV), so a
drop still to come covers all stable dots or none. Hence stable amounts of one replica are one amount, of stable greatest values only the
greatest is needed, and a marked entry all of whose dots are stable is as good as gone. No reading and no digest changes.

Source: DESIGN 2; Baquero, Almeida & Shoker, "Making Operation-Based CRDTs Operation-Based", on causal stability.
"""

from __future__ import annotations

from collections.abc import Sequence

from crdtstore.leaves import BEST, Branch, Entry, Leaf, Many, One, Sum, covers, has_mark, narrow
from crdtstore.values import element_order

__all__ = ["extent", "fold_entry", "is_foldable"]


def fold_entry(entry: Entry, stable: Sequence[int]) -> tuple[Entry | None, bool]:
    """An entry with its stable part folded, and whether there is more to fold later; what stands below it is left alone.

    Shape:   ``stable[i]`` is how many commits of replica ``i`` all members have.
    Cost:    O(log n) for sums, else O(dots of the leaf).
    """
    if type(entry) is not Branch:
        if has_mark(entry):
            return (None, False) if _is_stable(entry, stable) else (entry, True)  # type: ignore[arg-type]
        return _fold_leaf(entry, stable)  # type: ignore[arg-type]
    if has_mark(entry):
        if not all(_is_stable(leaf, stable) for leaf in entry.leaves):
            return entry, True
        entry.leaves = []
        return (entry if entry.children or entry.sweep is not None else None), False
    folded = [_fold_leaf(leaf, stable) for leaf in entry.leaves]
    entry.leaves = [leaf for leaf, _ in folded]
    return entry, any(is_more for _, is_more in folded)


def extent(entry: Entry | None) -> int:
    """How much is held at an entry itself, about; folding that takes something makes it less."""
    if type(entry) is Branch:
        return sum([1 + extent(leaf) for leaf in entry.leaves])
    if entry is None:
        return 0
    if isinstance(entry, One):
        return 1
    held = 0 if entry.shadows is None else 1 + len(entry.shadows)  # type: ignore[union-attr]
    if isinstance(entry, Many):
        return held + len(entry.dots)
    for run in entry.runs:  # type: ignore[union-attr]
        held += 0 if run.older is None else 1 + len(run.older)
        held += 0 if run.loose is None else 1 + len(run.loose.rows)
    return held


def is_foldable(leaf: Leaf) -> bool:
    """Whether there may be something to fold once it is stable."""
    if isinstance(leaf, Sum):
        return leaf.shadows is not None or any(run.older is not None or run.loose is not None for run in leaf.runs)
    return has_mark(leaf) or (isinstance(leaf, Many) and (leaf.kind in BEST or leaf.shadows is not None))


def _is_stable(leaf: Leaf, stable: Sequence[int]) -> bool:
    if isinstance(leaf, One):
        return covers(stable, leaf.dot)
    if isinstance(leaf, Sum):
        return all(run.newest_seq <= stable[run.origin] for run in leaf.runs)
    return all(covers(stable, dot) for dot in leaf.dots) and all(
        covers(stable, shadow) for shadow in leaf.shadows or ()
    )


def _fold_leaf(leaf: Leaf, stable: Sequence[int]) -> tuple[Leaf, bool]:
    if isinstance(leaf, One):
        return leaf, False
    if leaf.shadows:  # a drop to come covers both of a pair, so nothing hangs on it any more
        pairs = leaf.shadows.items()
        left = {shadow: dot for shadow, dot in pairs if not (covers(stable, shadow) and covers(stable, dot))}
        leaf.shadows = left or None
    if isinstance(leaf, Sum):
        for run in leaf.runs:
            run.fold(stable[run.origin])
        is_more = any(run.older is not None or run.loose is not None for run in leaf.runs)
        return leaf, is_more or leaf.shadows is not None
    if leaf.kind in BEST:
        _fold_best(leaf, stable)
    small = narrow(leaf)
    assert small is not None
    return small, isinstance(small, Many) and (small.kind in BEST or small.shadows is not None)


def _fold_best(leaf: Many, stable: Sequence[int]) -> None:
    """Of the stable dots only the best is needed."""
    old = [dot for dot in leaf.dots if covers(stable, dot)]
    if len(old) < 2:
        return
    value = BEST[leaf.kind]([leaf.dots[dot][1] for dot in old])
    keep = max(dot for dot in old if element_order(leaf.dots[dot][1]) == element_order(value))
    newest = max(leaf.dots.pop(dot)[0] for dot in old)  # a deadline is held against the latest stamp
    leaf.dots[keep] = (newest, value)
