"""How many? Counts that never lose an increment.

The question: what does a reset do to an increment it has not seen? Nothing. ``delete`` is a drop under its causal cut, so it removes
exactly the amounts it observed; a concurrent add is still there afterwards (Riak, PGD and others answer this with lost or negative
counts). Amounts are integers of any size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from crdtstore.errors import UsageError
from crdtstore.leaves import ADD
from crdtstore.types._base import CrdtType, Integer, View, Write, mutator

__all__ = ["Counter"]


class Counter(CrdtType):
    """A sum of amounts."""

    name = "counter"
    question = "How many?"
    empty = 0
    shows_value = True
    options: ClassVar[Mapping[str, Any]] = {"grow_only": False}

    @mutator
    def add(self, view: View, amount: Integer = 1) -> list[Any]:
        """Add an amount, which may be negative."""
        return [ADD, [], amount]

    def check(self, arguments: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        if options.get("grow_only") and arguments.get("amount", 0) < 0:
            raise UsageError(
                "amount must not be negative: the collection is declared grow_only. Nothing changed.",
                code="invalid-value",
            )

    def read(self, view: View) -> int:
        return view.total()

    def explain(self, view: View) -> Iterator[Write]:
        for one in view.live(ADD):
            yield Write((), one, True, "sum of its region")
