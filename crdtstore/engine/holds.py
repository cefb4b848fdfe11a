"""Holds of bounded counters: their owner ends them when their time has passed, and later forgets how they ended.

The question: who ends a hold? Its owner alone: nobody else can know that it was not confirmed. So the owner must find its own holds
without looking through all keys; what stands here is built from its commits, and at start from those in its log.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

from crdtstore.engine.output import Output
from crdtstore.errors import StorageError
from crdtstore.ledger import Ledger
from crdtstore.storage.rows import ENDED_HOLDS, HOLDS
from crdtstore.types.bounded_counter import EXPIRED, end_hold, ended_by, forget_hold, live_hold

if TYPE_CHECKING:
    from crdtstore.engine.engine import Engine

__all__ = ["Agenda", "Holds", "Place"]

SLICE = 200
"""How many are ended, and how many forgotten, in one commit."""
_AGAIN_MS = 1_000
"""What could not be read is looked at again so much later."""
MAX_ENDED = 1_000
"""Of so many holds of a key it is remembered how they ended, of the latest; of the others less long."""

Place = tuple[str, str, str]
"""Collection as it stands in paths, key, hold."""


class Agenda:
    """Places with an instant (Unix ms) and an amount each. Mutable.

    What is gone before its time stays in the heap until that has grown to twice what is there, and is passed over.
    """

    __slots__ = ("_at", "_heap", "ledger")

    def __init__(self, space: int) -> None:
        self.ledger = Ledger(space, lambda place: list(self._at[place]) if place in self._at else None)
        self._at: dict[Place, tuple[int, int]] = {}
        self._heap: list[tuple[int, Place]] = []

    def __len__(self) -> int:
        return len(self._at)

    def set(self, place: Place, at_ms: int, amount: int = 0) -> None:
        """From now on this place is due then."""
        self.ledger.note(place)
        self._at[place] = (at_ms, amount)
        heappush(self._heap, (at_ms, place))
        if len(self._heap) > 2 * len(self._at) + 64:
            self._heap = [(at_ms, place) for place, (at_ms, _) in self._at.items()]
            heapify(self._heap)

    def pop(self, place: Place) -> int:
        """This place is gone; return its amount."""
        if place not in self._at:
            return 0
        self.ledger.note(place)
        return self._at.pop(place)[1]

    def load(self, place: list[Any], due: list[int]) -> None:
        """Take in what a checkpoint holds."""
        name = (place[0], place[1], place[2])
        self._at[name] = (due[0], due[1])
        heappush(self._heap, (due[0], name))

    def next_ms(self) -> int | None:
        """When the next is due, None when there is none."""
        heap = self._heap
        while heap and self._at.get(heap[0][1], (None, 0))[0] != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def take_due(self, now_ms: int, most: int) -> list[tuple[Place, int]]:
        """Those whose time has come, at most so many, with their amounts; they are not here any more."""
        due: list[tuple[Place, int]] = []
        while len(due) < most and (at_ms := self.next_ms()) is not None and at_ms <= now_ms:
            place = heappop(self._heap)[1]
            due.append((place, self.pop(place)))
        return due


class Holds:
    """The holds of one replica. Mutable; part of the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open = Agenda(HOLDS)
        self._ended = Agenda(ENDED_HOLDS)
        self._ended_of: dict[tuple[str, str], dict[str, None]] = {}
        """Per key the holds of which it is remembered how they ended, the earliest first."""

    @property
    def ledgers(self) -> list[Ledger]:
        """What checkpoints are to hold."""
        return [self._open.ledger, self._ended.ledger]

    def loaders(self) -> list[tuple[Ledger, Callable[[list[Any], Any], None]]]:
        """The same, with who takes it in again."""
        return [(self._open.ledger, self._open.load), (self._ended.ledger, self._load_ended)]

    def _load_ended(self, place: list[Any], due: list[int]) -> None:
        self._ended.load(place, due)
        self._ended_of.setdefault((place[0], place[1]), {})[place[2]] = None

    @property
    def open(self) -> int:
        """How many own holds have not been ended."""
        return len(self._open)

    # --- what own commits say

    def opened(self, place: Place, amount: int, deadline_ms: int) -> None:
        self._open.set(place, deadline_ms, amount)

    def closed(self, place: Place) -> int:
        """The hold is no longer there; return what it had put aside."""
        return self._open.pop(place)

    def remembered(self, place: Place, until_ms: int) -> None:
        """It was written how the hold ended."""
        self._ended.set(place, until_ms)
        marks = self._ended_of.setdefault(place[:2], {})
        marks[place[2]] = None
        if len(marks) > MAX_ENDED:
            earliest = next(iter(marks))
            del marks[earliest]
            self._ended.set((*place[:2], earliest), 0)

    def forgotten(self, place: Place) -> None:
        """How the hold ended is no longer there."""
        self._ended.pop(place)
        marks = self._ended_of.get(place[:2])
        if marks is not None:
            marks.pop(place[2], None)
            if not marks:
                del self._ended_of[place[:2]]

    # --- what is due

    @property
    def next_ms(self) -> int | None:
        """When something is due, None when nothing is."""
        times = [at_ms for agenda in (self._open, self._ended) if (at_ms := agenda.next_ms()) is not None]
        return min(times, default=None)

    def on_tick(self, now_ms: int, out: Output) -> None:
        """End what has expired, forget what was remembered long enough; a slice of each. What is gone already is passed over."""
        self.end_due(now_ms, now_ms, out)
        engine, effects = self._engine, []
        me = engine.replicas[engine.me]
        for place, _ in self._ended.take_due(now_ms, SLICE):
            collection, key, hold = place
            try:
                marks = ended_by(engine.keyspace.view(collection, key), hold)
            except StorageError as error:
                engine.note_unreadable(error)
                self._ended.set(place, now_ms + _AGAIN_MS)
                continue
            self.forgotten(place)
            if any(live.replica == me for live in marks):
                effects += _below(place, forget_hold(hold))
        if effects:
            engine.issue(effects, "how holds ended is forgotten", now_ms, out)

    def end_due(self, until_ms: int, now_ms: int, out: Output) -> bool:
        """End some of what expires until then; return whether any was open."""
        engine, effects = self._engine, []
        me = engine.replicas[engine.me]
        due = list(self._open.take_due(until_ms, SLICE))
        for place, amount in due:
            collection, key, hold = place
            try:
                live = live_hold(engine.keyspace.view(collection, key), hold)
            except StorageError as error:  # another time
                engine.note_unreadable(error)
                self._open.set(place, now_ms + _AGAIN_MS, amount)
                continue
            if live is not None and live.replica == me:
                effects += _below(place, end_hold(hold, EXPIRED, now_ms))
        if effects:
            engine.issue(effects, "holds expired", now_ms, out)
        return bool(due)


def _below(place: Place, effects: list[Any]) -> list[Any]:
    """The same effects on full paths."""
    for at in range(1, len(effects), 3):
        effects[at] = [*place[:2], *effects[at]]
    return effects
