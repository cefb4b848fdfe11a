"""What does the record say? Fields, each one a last-writer-wins register.

The question: what does an unset remove? The writes to this field that it has observed; a concurrent set of the field survives, and
other fields are untouched. A field may end by itself, as a key may.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from crdtstore.leaves import DEADLINE, DROP, PUT
from crdtstore.types._arguments import SomeNames
from crdtstore.types._base import (
    CrdtType,
    Fields,
    Live,
    Names,
    Ttl,
    View,
    Write,
    deadline,
    mutator,
    reading_mutator,
)
from crdtstore.types.lww_register import explain_latest

__all__ = ["LwwMap"]


class LwwMap(CrdtType):
    """A map from names to values."""

    name = "lww_map"
    question = "What does the record say?"
    empty: ClassVar[Any] = {}
    has_fields = True

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

    @reading_mutator
    def expire(self, view: View, ttl_ms: Ttl, fields: SomeNames = None) -> list[Any]:
        """Let the key, or only these fields, end so many milliseconds from now; null: they do not end by themselves."""
        due_ms = deadline(view, ttl_ms)
        if fields is None:
            return [DEADLINE, [], due_ms]
        effects: list[Any] = []
        for name in fields:
            effects += (DEADLINE, [name], due_ms)
        return effects

    def read(self, view: View) -> dict[str, Any]:
        return {name: live[-1].value for name, live in _fields(view)}

    def conflicts(self, view: View) -> int:
        return sum(len(live) - 1 for _, live in _fields(view))

    def explain(self, view: View) -> Iterator[Write]:
        for name, live in _fields(view):
            yield from explain_latest((name,), live)


def _fields(view: View) -> Iterator[tuple[str, list[Live]]]:
    """The fields and their writes; what a later version stores beside them is passed over."""
    for name, child in view.children():
        if isinstance(name, str) and (live := child.live()):
            yield name, live
