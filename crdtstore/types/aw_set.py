"""Who is in? A set where an add wins over a concurrent remove.

The question: what does a remove remove? The adds it has observed, and no more. An add always writes a new dot, also of an element that
is present: elided, a concurrent remove that saw only the older dot would take an acknowledged add with it.
"""

from __future__ import annotations

from typing import Any

from crdtstore.leaves import DROP, PUT
from crdtstore.types._base import CrdtType, Elements, View, mutator

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
            effects += (DROP, [element], None, PUT, [element], None)
        return effects

    @mutator
    def remove(self, view: View, elements: Elements) -> list[Any]:
        """Remove elements as far as this region has seen them added."""
        effects: list[Any] = []
        for element in elements:
            effects += (DROP, [element], None)
        return effects

    def read(self, view: View) -> list[Any]:
        return [element for element, child in view.children() if child.live()]
