"""Who was ever there? A set that only grows.

The question: may an add of an element that is present be left out? No. Here nothing can be removed, but as a field of a map the set can
be, by somebody who saw only the older add.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crdtstore.leaves import MAX
from crdtstore.types._base import CrdtType, Elements, View, Write, mutator

__all__ = ["GSet", "present"]


def present(view: View) -> list[Any]:
    """The elements that are there, in canonical order; what a later version stores beside them is passed over."""
    return [element for element, child in view.children() if child.has(MAX)]


class GSet(CrdtType):
    """A growing set of texts, integers and bytes."""

    name = "g_set"
    question = "Who was ever there?"
    empty = ()
    deletable = False

    @mutator
    def add(self, view: View, elements: Elements) -> list[Any]:
        """Add elements."""
        effects: list[Any] = []
        for element in elements:
            effects += (MAX, [element], 1)
        return effects

    def read(self, view: View) -> list[Any]:
        return present(view)

    def explain(self, view: View) -> Iterator[Write]:
        for element, child in view.children():
            for one in child.live(MAX):
                yield Write((element,), one._replace(value=element), True, "an add, and nothing is removed")
