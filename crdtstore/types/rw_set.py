"""Who is still allowed? A set where a remove wins over a concurrent add.

The question: how long must a remove be remembered? As long as an add that did not know of it may still arrive. It leaves a mark in the
place of the adds it has seen; a mark hides concurrent adds of its element, and goes once every region has it: from then on every add
that comes has seen it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crdtstore.leaves import DROP, MARK, PUT, Branch
from crdtstore.types._base import CrdtType, Elements, View, Write, mutator
from crdtstore.values import element_order

__all__ = ["RwSet"]


class RwSet(CrdtType):
    """A set of texts, integers and bytes."""

    name = "rw_set"
    question = "Who is still allowed?"
    empty = ()

    @mutator
    def add(self, view: View, elements: Elements) -> list[Any]:
        """Add elements, in the place of the removes that this region has seen."""
        effects: list[Any] = []
        for element in elements:
            effects += (DROP, [element], None, PUT, [element], None)
        return effects

    @mutator
    def remove(self, view: View, elements: Elements) -> list[Any]:
        """Remove elements, also over concurrent adds."""
        effects: list[Any] = []
        for element in elements:
            effects += (DROP, [element], None, MARK, [element], None)
        return effects

    def read(self, view: View) -> list[Any]:
        return [element for element, child in view.children() if child.has(PUT)]

    def conflicts(self, view: View) -> int:
        """Elements with an add that lost against a concurrent remove, until every region has both."""
        return sum(bool(view.child(element).hidden()) for element in _elements(view))

    def explain(self, view: View) -> Iterator[Write]:
        for element in sorted(_elements(view), key=element_order):
            child = view.child(element)
            removes = child.live(MARK)
            adds = child.hidden() if removes else child.live()
            if not adds:
                continue
            for one in removes:
                yield Write((element,), one._replace(value=element), True, "a remove wins over concurrent adds")
            why = "concurrent to a remove" if removes else "an add without a concurrent remove"
            for one in adds:
                yield Write((element,), one._replace(value=element), not removes, why)


def _elements(view: View) -> list[Any]:
    """Every element of which anything is there, also what a mark hides."""
    entry = view.entry
    if type(entry) is not Branch:
        return []
    if entry.sweep is not None:
        entry.sweep.finish()
    return list(entry.children)
