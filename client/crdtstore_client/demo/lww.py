"""What the same week costs with last-write-wins counters: a model, not a store.

The question: what would the usual way to count have lost? Each airport counts a departure by "read, add one, write
back"; replicas keep the value with the latest timestamp. Replication is taken to be instant outside the cut, which is
kinder than any network; with one minute of delay more is lost. Across the cut nothing passes, and after the heal the
later of the two values wins: the other side's departures are gone without an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crdtstore_client.demo.timeline import CUT, CUT_REGION, HEAL, Event

__all__ = ["Loss", "last_write_wins"]

_Stamped = tuple[tuple[int, int], int]  # ((minute, position in the timeline), value); the greater one wins


@dataclass(frozen=True, slots=True)
class Loss:
    counted: int
    departures: int

    @property
    def lost(self) -> int:
        return self.departures - self.counted


def last_write_wins(events: Sequence[Event], *, cut: int = CUT, heal: int = HEAL, alone: str = CUT_REGION) -> Loss:
    """Count per destination on two sides that hear each other except from ``cut`` to ``heal`` (minutes)."""
    here: dict[str, _Stamped] = {}
    there: dict[str, _Stamped] = {}
    departures = [event for event in events if event.is_departure]
    for position, event in enumerate(departures):
        if event.minute >= heal:
            _merge(here, there)
        side = there if event.flight.origin == alone else here
        key = event.flight.destination
        written = ((event.minute, position), side.get(key, ((0, 0), 0))[1] + 1)
        sides: Iterable[dict[str, _Stamped]] = (side,) if cut <= event.minute < heal else (here, there)
        for hearing in sides:
            hearing[key] = written
    _merge(here, there)
    return Loss(sum(value for _, value in here.values()), len(departures))


def _merge(here: dict[str, _Stamped], there: dict[str, _Stamped]) -> None:
    for key in sorted(here.keys() | there.keys()):
        latest = max(stamped for stamped in (here.get(key), there.get(key)) if stamped is not None)
        here[key] = there[key] = latest
