"""What did they all say? One value, concurrent writes side by side.

The question: who merges what two regions wrote without knowing of each other? The application: it reads every write that no other has
seen and overwritten, oldest first, and its next set replaces exactly those that its region had seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crdtstore.leaves import DROP, PUT
from crdtstore.types._base import CrdtType, Value, View, Write, mutator

__all__ = ["MvRegister"]


class MvRegister(CrdtType):
    """All concurrent values."""

    name = "mv_register"
    question = "What did they all say?"
    empty = ()
    shows_value = True

    @mutator
    def set(self, view: View, value: Value) -> list[Any]:
        """Replace the values that this region has seen."""
        return [DROP, [], None, PUT, [], value]

    def read(self, view: View) -> list[Any]:
        return [live.value for live in view.live()]

    def conflicts(self, view: View) -> int:
        return max(0, len(view.live()) - 1)

    def explain(self, view: View) -> Iterator[Write]:
        live = view.live()
        why = "the latest write" if len(live) == 1 else f"one of {len(live)} concurrent writes"
        for one in live:
            yield Write((), one, True, why)
