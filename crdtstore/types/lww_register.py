"""What is it now? One value, the latest write wins.

The question: latest by which clock? By none, for writes that know of each other: a set drops what it has seen, so it wins whatever the
stamps say. The hybrid clock orders only truly concurrent writes, by (hlc, replica, seq) and never by arrival. The writes that lost stay
visible as the conflict until somebody who saw them writes again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crdtstore.leaves import DROP, PUT
from crdtstore.types._base import CrdtType, Live, Value, View, Write, mutator

__all__ = ["LwwRegister", "explain_latest"]


def explain_latest(at: tuple[Any, ...], live: list[Live]) -> Iterator[Write]:
    """The latest of the writes at one place (oldest first) and those that lost against it, newest first."""
    if live:
        why = "the latest write" if len(live) == 1 else f"latest of {len(live)} concurrent writes"
        yield Write(at, live[-1], True, why)
    for one in reversed(live[:-1]):
        yield Write(at, one, False, "concurrent and earlier")


class LwwRegister(CrdtType):
    """One value."""

    name = "lww_register"
    question = "What is it now?"
    shows_value = True

    @mutator
    def set(self, view: View, value: Value) -> list[Any]:
        """Replace the value."""
        return [DROP, [], None, PUT, [], value]

    def read(self, view: View) -> Any:
        live = view.live()
        return live[-1].value if live else None

    def conflicts(self, view: View) -> int:
        return max(0, len(view.live()) - 1)

    def explain(self, view: View) -> Iterator[Write]:
        return explain_latest((), view.live())
