"""The week as a list of events, and the clock that replays it.

The question: what happens at the seams? The cut begins at an instant and ends at an instant, and what happens in
between must have happened in between in the store too. So the week is replayed in three parts (before, during and
after the cut), each part ends when every write in it has been answered, and the clock starts anew with each part. A
slow machine stretches a part; it never drops an event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from crdtstore_client.demo.flights import DAY_MINUTES, Flight

__all__ = [
    "CUT",
    "CUT_REGION",
    "HEAL",
    "KILL",
    "PARTS",
    "PUBLISHER",
    "WEEK_END",
    "Clock",
    "Event",
    "Part",
    "events_of",
]

CUT = 4 * DAY_MINUTES  # Friday 8 February 00:00
HEAL = 6 * DAY_MINUTES  # Sunday 10 February 00:00
WEEK_END = 7 * DAY_MINUTES
KILL = CUT + 9 * 60  # Friday 09:00: the airports are still busy, and one of them is already cut off
CUT_REGION = "jfk"

# Who puts a flight on the board. Never the airport that takes it off: add and remove happen in different regions.
PUBLISHER = {"jfk": "ewr", "lga": "ewr", "ewr": "lga"}


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the week between two seams: ``start`` included, ``end`` not."""

    name: Literal["before", "cut", "after"]
    start: int
    end: int

    def has(self, minute: int) -> bool:
        return self.start <= minute < self.end


PARTS = (Part("before", 0, CUT), Part("cut", CUT, HEAL), Part("after", HEAL, WEEK_END))


@dataclass(frozen=True, slots=True)
class Event:
    """A flight leaves the board: at the minute it departs, or at the minute it was to depart when it is cancelled."""

    minute: int
    flight: Flight

    @property
    def is_departure(self) -> bool:
        return self.flight.departed is not None


def events_of(flights: Iterable[Flight]) -> list[Event]:
    """All events in order of time; flights of the same minute stay in the order of the file."""
    events = [Event(flight.scheduled if flight.departed is None else flight.departed, flight) for flight in flights]
    return sorted(events, key=lambda event: event.minute)


class Clock:
    """Replay time: minutes of the week by elapsed seconds, stopped between the parts."""

    def __init__(self, day_seconds: float) -> None:
        self._minutes_per_s = DAY_MINUTES / day_seconds
        self._origin_s: float | None = None
        self._part = PARTS[0]

    def start(self, part: Part) -> None:
        self._part = part
        self._origin_s = asyncio.get_running_loop().time()

    def stop(self) -> None:
        self._origin_s = None

    def minute(self) -> int:
        """Now, never beyond the end of the running part: the seam waits for the last answer."""
        if self._origin_s is None:
            return self._part.end
        elapsed_s = asyncio.get_running_loop().time() - self._origin_s
        return min(self._part.end, self._part.start + int(elapsed_s * self._minutes_per_s))

    async def until(self, minute: int) -> None:
        """Wait for a minute of the running part."""
        assert self._origin_s is not None, "the clock is stopped between the parts"
        due_s = self._origin_s + (minute - self._part.start) / self._minutes_per_s
        await asyncio.sleep(max(0.0, due_s - asyncio.get_running_loop().time()))
