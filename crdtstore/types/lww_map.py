"""What does the record say? Fields, each one a last-writer-wins register.

The question: what does an unset remove? The writes to this field that it has observed; a concurrent set of the field survives, and
other fields are untouched.
"""

from __future__ import annotations

from typing import Any, ClassVar

from crdtstore.leaves import DROP, PUT
from crdtstore.types._base import CrdtType, Fields, Live, Names, View, mutator

__all__ = ["LwwMap"]


class LwwMap(CrdtType):
    """A map from names to values."""

    name = "lww_map"
    question = "What does the record say?"
    empty: ClassVar[Any] = {}

    @mutator
    def set(self, view: View, fields: Fields) -> list[Any]:
        """Replace the values of these fields."""
        effects: list[Any] = []
        for name, value in fields.items():
            effects += (DROP, [name], None, PUT, [name], value)
        return effects

    @mutator
    def unset(self, view: View, fields: Names) -> list[Any]:
        """Remove fields as far as this region has seen them."""
        effects: list[Any] = []
        for name in fields:
            effects += (DROP, [name], None)
        return effects

    def read(self, view: View) -> dict[str, Any]:
        return {name: live[-1].value for name, live in _fields(view)}

    def conflicts(self, view: View) -> int:
        return sum(len(live) - 1 for _, live in _fields(view))


def _fields(view: View) -> list[tuple[str, list[Live]]]:
    """The fields and their writes; what a later version stores beside them is passed over."""
    fields = ((name, child.live()) for name, child in view.children() if isinstance(name, str))
    return [(name, live) for name, live in fields if live]
