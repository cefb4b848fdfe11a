"""What was the most? The greatest value that was ever set.

The question: what if integers and text meet? One key is of one kind: a set of the other kind is refused where the present value is
known. Regions that set both kinds before they heard of each other still agree, since text stands above every integer. Setting a value
that is not greater is written too: elided, a concurrent delete by somebody who saw only the older write would take it along.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from crdtstore.errors import UsageError
from crdtstore.leaves import MAX
from crdtstore.types._base import CrdtType, Orderable, View, Write, reading_mutator
from crdtstore.values import show

__all__ = ["Extremum", "MaxRegister"]


class Extremum(CrdtType):
    """What max and min have in common. No drop is written: the leaf itself lets go of what is seen and not better."""

    shows_value = True
    kind: ClassVar[int]
    superlative: ClassVar[str]

    @reading_mutator
    def set(self, view: View, value: Orderable) -> list[Any]:
        """Offer a value: an integer or text, the kind that is there already."""
        present = view.best(self.kind)
        if present is not None and isinstance(present, str) != isinstance(value, str):
            here, given = ("text", "an integer") if isinstance(present, str) else ("an integer", "text")
            raise UsageError(
                f"value must be {here} as the present one ({show(present)}), got {given}: {show(value)}. Nothing changed.",
                code="invalid-value",
            )
        return [self.kind, [], value]

    def read(self, view: View) -> Any:
        return view.best(self.kind)

    def explain(self, view: View) -> Iterator[Write]:
        best = view.best(self.kind)
        live = view.live(self.kind)
        for one in live:
            if one.value == best:
                yield Write((), one, True, f"the {self.superlative} value")
        for one in live:
            if one.value != best:
                yield Write((), one, False, f"not the {self.superlative} value")


class MaxRegister(Extremum):
    """The greatest value."""

    name = "max_register"
    question = "What was the most?"
    kind = MAX
    superlative = "greatest"
