"""Has anybody said yes? A flag where an enable wins over a concurrent disable.

The question: what does a disable end? The enables it has observed, and no more. An enable drops nothing, not even older enables: it is
the greatest of presences, so that a repeated one which does not count takes nothing away.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crdtstore.leaves import DROP, MAX
from crdtstore.types._base import CrdtType, View, Write, mutator

__all__ = ["EwFlag"]


class EwFlag(CrdtType):
    """A flag, false at first."""

    name = "ew_flag"
    question = "Has anybody said yes?"
    empty = False
    shows_value = True

    @mutator
    def enable(self, view: View) -> list[Any]:
        """Set the flag."""
        return [MAX, [], 1]

    @mutator
    def disable(self, view: View) -> list[Any]:
        """End the enables that this region has seen."""
        return [DROP, [], None]

    def read(self, view: View) -> bool:
        return view.has(MAX)

    def explain(self, view: View) -> Iterator[Write]:
        for one in view.live(MAX):
            yield Write((), one._replace(value=True), True, "an enable that no disable has seen")
