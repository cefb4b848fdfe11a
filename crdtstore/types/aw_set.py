"""Who is in? A set where an add wins over a concurrent remove.

The question: what does a remove remove? The adds it has observed, and no more. An add always writes a new dot, also of an element that
is present: elided, a concurrent remove that saw only the older dot would take an acknowledged add with it. And an add drops nothing: it
is the greatest of presences, and the leaf itself lets go of the adds it replaces, but not for an attempt that may turn out not to count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crdtstore.leaves import DROP, MAX
from crdtstore.types._base import CrdtType, Elements, View, Write, mutator
from crdtstore.types.g_set import present

__all__ = ["AwSet"]


class AwSet(CrdtType):
    """A set of texts, integers and bytes."""

    name = "aw_set"
    question = "Who is in?"
    empty = ()

    @mutator
    def add(self, view: View, elements: Elements) -> list[Any]:
        """Add elements."""
        effects: list[Any] = []
        for element in elements:
            effects += (MAX, [element], 1)
        return effects

    @mutator
    def remove(self, view: View, elements: Elements) -> list[Any]:
        """Remove elements as far as this region has seen them added."""
        effects: list[Any] = []
        for element in elements:
            effects += (DROP, [element], None)
        return effects

    def read(self, view: View) -> list[Any]:
        return present(view)

    def explain(self, view: View) -> Iterator[Write]:
        for element, child in view.children():
            for one in child.live(MAX):
                yield Write((element,), one._replace(value=element), True, "an add that no remove has seen")
