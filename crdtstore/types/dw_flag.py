"""Do all agree? A flag where a disable wins over a concurrent enable.

The question: how can a no outlast a yes that never saw it? It must leave something behind: both write their answer in the place of
those they have seen, and the flag is set as long as every answer that is left says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crdtstore.leaves import DROP, PUT
from crdtstore.types._base import CrdtType, View, Write, mutator

__all__ = ["DwFlag"]


class DwFlag(CrdtType):
    """A flag, false at first."""

    name = "dw_flag"
    question = "Do all agree?"
    empty = False
    shows_value = True

    @mutator
    def enable(self, view: View) -> list[Any]:
        """Set the flag, in the place of the disables that this region has seen."""
        return [DROP, [], None, PUT, [], True]

    @mutator
    def disable(self, view: View) -> list[Any]:
        """Clear the flag, also over concurrent enables."""
        return [DROP, [], None, PUT, [], False]

    def read(self, view: View) -> bool:
        live = view.live()
        return bool(live) and all(one.value for one in live)

    def conflicts(self, view: View) -> int:
        """Enables that lost against a concurrent disable."""
        return 0 if self.read(view) else sum(bool(one.value) for one in view.live())

    def explain(self, view: View) -> Iterator[Write]:
        live = view.live()
        disables = [one for one in live if not one.value]
        for one in disables:
            yield Write((), one, True, "a disable wins over concurrent enables")
        for one in live:
            if one.value:
                why = "concurrent to a disable" if disables else "an enable without a concurrent disable"
                yield Write((), one, not disables, why)
