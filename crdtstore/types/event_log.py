"""What happened? Events in one order everywhere, one entry per id.

The question: what if an event is appended twice? The id decides: appended again, in any region, it is the same entry, and the first in
(hlc, replica, seq) order is read. The same id with another body is a recorded conflict, never a second entry. Events are not deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crdtstore.clock import physical_ms, rfc3339
from crdtstore.leaves import PUT
from crdtstore.types._base import CrdtType, Live, Text, Value, View, Write, mutator
from crdtstore.values import pack

__all__ = ["EventLog", "first_events"]


def first_events(view: View) -> list[tuple[str, Live]]:
    """Per id the event that counts, in the one order of all writes; what a later version stores beside them is passed over."""
    named = ((name, child.live()) for name, child in view.children() if isinstance(name, str))
    return sorted(((name, live[0]) for name, live in named if live), key=lambda event: event[1][:3])


class EventLog(CrdtType):
    """A log of events with ids."""

    name = "event_log"
    question = "What happened?"
    empty = ()
    deletable = False

    @mutator
    def append(self, view: View, id: Text, body: Value = None) -> list[Any]:  # noqa: A002 - the name of the argument in API
        """Append an event; its id makes a repetition harmless."""
        return [PUT, [id], body]

    def read(self, view: View) -> list[dict[str, Any]]:
        return [
            {"id": name, "body": live.value, "dot": str(live.dot), "time": rfc3339(physical_ms(live.hlc))}
            for name, live in first_events(view)
        ]

    def conflicts(self, view: View) -> int:
        return sum(len({pack(live.value) for live in child.live()}) > 1 for _, child in view.children())

    def explain(self, view: View) -> Iterator[Write]:
        for name, first in first_events(view):
            yield Write((name,), first, True, "the first with this id")
            for one in view.child(name).live()[1:]:
                same = pack(one.value) == pack(first.value)
                yield Write((name,), one, False, "appended again" if same else "another body under the same id")
