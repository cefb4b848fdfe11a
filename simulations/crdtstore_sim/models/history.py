"""The history of one key: who wrote and cleared what, and what of it counts in a given set of commits.

The question: what counts? What was written counts unless somebody cleared its place, or a place above it, who had seen it. Of several
commits of one operation the least in (hlc, replica, seq) counts in a cell, and none once any was cleared there. Within a commit operations
count in their order: a clear takes what the same commit wrote before it.

A place is the key itself, an element, a field, a place below a field. At each there are cells: what can be read (``DATA``), removals that
must be remembered (``MARK``), and until when it lives (``DEADLINE``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

from msgspec import Struct

from crdtstore.causal import ReplicaId
from crdtstore.clock import physical_ms

__all__ = ["DATA", "DEADLINE", "MARK", "NOTHING", "Event", "Place", "There", "Written"]

DATA, MARK, DEADLINE = "data", "mark", "deadline"


class Event(Struct, frozen=True, eq=False):
    """One commit as the models see it: who made it, its number and stamp, what its maker had seen, and of which operation it is."""

    origin: int
    seq: int
    hlc: int
    deps: tuple[int, ...]
    operation: str | None = None
    name: str = ""
    """How what it makes is named: after the operation, or after the commit."""

    @property
    def vector(self) -> tuple[int, ...]:
        """What its maker had seen, with the commit itself."""
        return (*self.deps[: self.origin], self.seq, *self.deps[self.origin + 1 :])


class Written(Struct, frozen=True, eq=False):
    """What one commit wrote in a cell."""

    event: Event
    value: Any
    order: tuple[int, ReplicaId, int]
    """Its place in the one order of all writes: (hlc, replica, seq)."""


class There:
    """What counts at a place and below it, in one set of commits; of each cell oldest first."""

    __slots__ = ("below", "deadlines", "marks", "writes")

    def __init__(
        self,
        writes: Sequence[Written] = (),
        marks: Sequence[Written] = (),
        deadlines: Sequence[Written] = (),
        below: Mapping[Any, There] | None = None,
    ) -> None:
        self.writes = writes
        self.marks = marks
        self.deadlines = deadlines
        self.below: Mapping[Any, There] = below if below is not None else {}

    @property
    def exists(self) -> bool:
        """Whether anything can be read: no marks and deadlines, and nothing that a mark hides."""
        return bool(self.writes and not self.marks) or any(there.exists for there in self.below.values())

    @property
    def has_deadline(self) -> bool:
        return bool(self.deadlines)

    @property
    def due_ms(self) -> int | None:
        """The greatest of the deadlines; None: never, or there is none."""
        values = [write.value for write in self.deadlines]
        return None if None in values or not values else max(values)

    def newest_ms(self) -> int:
        """When the last of what can be read was written."""
        here = [physical_ms(write.event.hlc) for write in self.writes] if not self.marks else []
        return max(here + [there.newest_ms() for there in self.below.values()], default=0)

    def is_expired(self, now_ms: int) -> bool:
        """Whether its deadline has passed and nothing was written after it."""
        due_ms = self.due_ms
        return due_ms is not None and due_ms <= now_ms and self.newest_ms() < due_ms

    def at_time(self, now_ms: int | None) -> There:
        """The same without what has expired."""
        if now_ms is None:
            return self
        if self.is_expired(now_ms):
            return NOTHING
        below = {part: left for part, there in self.below.items() if (left := there.at_time(now_ms)) is not NOTHING}
        return There(self.writes, self.marks, self.deadlines, below)

    def due_times(self) -> Iterator[int]:
        """All instants at which something here may end."""
        if self.due_ms is not None:
            yield self.due_ms
        for there in self.below.values():
            yield from there.due_times()


NOTHING = There()

_order = attrgetter("order")


class _Cell:
    """Writes of a cell, and clears of it alone, per origin in the order of their numbers; ``attempts``: the writes of each operation."""

    __slots__ = ("attempts", "clears", "writes")

    def __init__(self) -> None:
        self.writes: dict[int, list[Written]] = {}
        self.clears: dict[int, list[Event]] = {}
        self.attempts: dict[str, list[Written]] = {}

    def write(self, written: Written) -> None:
        event = written.event
        self.writes.setdefault(event.origin, []).append(written)
        if event.operation is not None:
            self.attempts.setdefault(event.operation, []).append(written)

    def take_back(self, event: Event) -> Written | None:
        """What the same commit wrote before; it is there no more."""
        writes = self.writes.get(event.origin)
        if not writes or writes[-1].event is not event:
            return None
        if event.operation is not None:
            self.attempts[event.operation].pop()
        return writes.pop()

    def forget(self, origin: int, after: int) -> None:
        for kept in (self.writes, self.attempts):
            for name, writes in kept.items():
                kept[name] = [write for write in writes if _is_left(write.event, origin, after)]  # type: ignore[index]
        _forget_events(self.clears, origin, after)

    def counted(self, seen: Sequence[int], vector: Sequence[int]) -> list[Written]:
        """What counts of a cell in the set of commits that the vector names, oldest first; ``seen`` was cleared."""
        seen = _cleared(self.clears, seen, vector)
        found: list[Written] = []
        for origin, writes in self.writes.items():
            after, upto = seen[origin], vector[origin]
            for write in reversed(writes):
                event = write.event
                if event.seq <= after:
                    break
                if event.seq <= upto and (event.operation is None or self._is_first(write, seen, vector)):
                    found.append(write)
        if len(found) > 1:
            found.sort(key=_order)
        return found

    def _is_first(self, write: Written, seen: Sequence[int], vector: Sequence[int]) -> bool:
        """Whether of all attempts of its operation none was cleared and this is the least."""
        attempts = self.attempts[write.event.operation]  # type: ignore[index]
        if len(attempts) == 1:
            return True
        there = [other for other in attempts if other.event.seq <= vector[other.event.origin]]
        return all(other.event.seq > seen[other.event.origin] for other in there) and min(there, key=_order) is write


class Place:
    """A place of a key: its cells, who cleared it, and what is below it. Mutable."""

    __slots__ = ("below", "cells", "clears")

    def __init__(self) -> None:
        self.cells: dict[str, _Cell] = {}
        self.clears: dict[int, list[Event]] = {}
        self.below: dict[Any, Place] = {}

    def at(self, path: Sequence[Any]) -> Place:
        """A place below this one; made if need be."""
        place = self
        for part in path:
            place = place.below.setdefault(part, Place())
        return place

    def find(self, path: Sequence[Any]) -> Place | None:
        place: Place | None = self
        for part in path:
            if place is None:
                return None
            place = place.below.get(part)
        return place

    def write(self, kind: str, written: Written, join: Any = None) -> None:
        """Write in a cell. What the same commit wrote there before stands, or is joined with it."""
        cell = self.cells.setdefault(kind, _Cell())
        before = cell.take_back(written.event)
        if before is not None:
            value = before.value if join is None else join(before.value, written.value)
            written = Written(written.event, value, written.order)
        cell.write(written)

    def replace(self, kind: str, written: Written) -> None:
        """Write in a cell in the place of all that was seen there."""
        cell = self.cells.setdefault(kind, _Cell())
        cell.take_back(written.event)
        cell.clears.setdefault(written.event.origin, []).append(written.event)
        cell.write(written)

    def clear(self, event: Event) -> None:
        """All that the event's maker had seen here and below is gone, and what the same commit wrote here before."""
        self.clears.setdefault(event.origin, []).append(event)
        self._take_back(event)

    def _take_back(self, event: Event) -> None:
        for cell in self.cells.values():
            cell.take_back(event)
        for place in self.below.values():
            place._take_back(event)

    def forget(self, origin: int, after: int) -> None:
        """The commits of an origin above a number are gone."""
        _forget_events(self.clears, origin, after)
        for cell in self.cells.values():
            cell.forget(origin, after)
        for place in self.below.values():
            place.forget(origin, after)

    def there(self, vector: Sequence[int], seen: Sequence[int]) -> There:
        """What counts here in the set of commits that the vector names; ``seen`` was cleared above."""
        seen = _cleared(self.clears, seen, vector)
        counted = {kind: cell.counted(seen, vector) for kind, cell in self.cells.items()}
        below = {}
        for part, place in self.below.items():
            if (there := place.there(vector, seen)) is not NOTHING:
                below[part] = there
        if not below and not any(counted.values()):
            return NOTHING
        return There(counted.get(DATA, ()), counted.get(MARK, ()), counted.get(DEADLINE, ()), below)


def _cleared(clears: Mapping[int, list[Event]], seen: Sequence[int], vector: Sequence[int]) -> Sequence[int]:
    for origin, events in clears.items():
        if (last := _last(events, vector[origin])) is not None:
            seen = list(map(max, seen, last.deps))
    return seen


def _last(events: list[Event], upto: int) -> Event | None:
    """The last of an origin's commits up to a number: it has seen all that those before it had."""
    for event in reversed(events):
        if event.seq <= upto:
            return event
    return None


def _is_left(event: Event, origin: int, after: int) -> bool:
    return event.origin != origin or event.seq <= after


def _forget_events(events: dict[int, list[Event]], origin: int, after: int) -> None:
    if origin in events:
        events[origin] = [event for event in events[origin] if event.seq <= after]
