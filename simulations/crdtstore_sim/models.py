"""The models: what a key must read, told from the set of commits and their happens-before alone.

The question: how can a reading be wrong although all replicas agree? Only a second definition can tell. A model knows no tree, no leaf and
no engine: it has what users asked for, each request's dot, stamp and deps, and the sentences of ALGORITHMS 5:

* A key consists of cells: the whole value, an element, a field, an event id. An operation may clear a cell (what it had seen there is
  gone), write one, or both. What was written counts unless a clear had seen it. A delete clears all cells of its key.
* Of several commits of one operation the least in (hlc, replica, seq) counts in a cell, and none once any was cleared there.
* Within a commit operations count in their order: a clear takes what the same commit wrote before it.

Nothing of ours is imported but dots and the hybrid clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.msgpack import Encoder

from crdtstore.causal import Dot, ReplicaId
from crdtstore.clock import physical_ms, rfc3339

__all__ = ["MODELS", "Event", "Key", "Model", "Reading", "canonical"]

WHOLE = ("whole", None)
Cell = tuple[str, Any]
_encode = Encoder(order="deterministic").encode


class Event(Struct, frozen=True, eq=False):
    """One commit as the models see it: who made it, its number and stamp, what its maker had seen, and of which operation it is."""

    origin: int
    seq: int
    hlc: int
    deps: tuple[int, ...]
    operation: str | None = None


class Reading(NamedTuple):
    """What a read must show."""

    value: Any
    exists: bool
    conflicts: int


class Written(Struct, frozen=True, eq=False):
    """What one commit wrote in a cell."""

    event: Event
    value: Any
    order: tuple[int, ReplicaId, int]
    """Its place in the one order of all writes: (hlc, replica, seq)."""


class Model:
    """What the operations of a type do to cells, and what is read from the cells that are left."""

    def __init__(
        self,
        touches: Mapping[str, Callable[[Mapping[str, Any]], list[tuple[Cell, bool, tuple[Any] | None]]]],
        read: Callable[[Mapping[Cell, list[Written]], Sequence[ReplicaId]], tuple[Any, int]],
        join: Callable[[Any, Any], Any] = lambda earlier, later: earlier,
    ) -> None:
        self.touches = touches
        """Per operation its touches in order: (cell, whether it clears it, what it writes or None)."""
        self.read = read
        """From what counts per cell, oldest first, value and conflicts."""
        self.join = join
        """What one commit has written when it wrote twice in a cell without a clear between."""


class _Cell:
    """Writes and clears of a cell, per origin in the order of their numbers; ``attempts``: the writes of each operation."""

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

    def counted(self, wipes: Mapping[int, list[Event]], vector: Sequence[int]) -> list[Written]:
        """What counts of a cell in the set of commits that the vector names, oldest first."""
        seen = [0] * len(vector)
        for clears in (self.clears, wipes):
            for origin, events in clears.items():
                if (last := _last(events, vector[origin])) is not None:
                    seen = list(map(max, seen, last.deps))
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


_order = attrgetter("order")


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


class Key:
    """The history of one key. Mutable; commits are added as they are made and may be taken back by a crash that lost them."""

    __slots__ = ("_cells", "_model", "_newest", "_replicas", "_wipes")

    def __init__(self, model: Model, replicas: Sequence[ReplicaId]) -> None:
        self._model = model
        self._replicas = replicas
        self._cells: dict[Cell, _Cell] = {}
        self._wipes: dict[int, list[Event]] = {}
        self._newest: tuple[tuple[int, ...], Reading] | None = None
        """The vector that was read last, and its reading, as long as no commit came or went: many replicas stand at one vector."""

    def add(self, event: Event, op: str, arguments: Mapping[str, Any]) -> None:
        """An operation of a commit; those of one commit are added in their order, those of one origin too."""
        self._newest = None
        if op == "delete":
            for cell in self._cells.values():
                cell.take_back(event)
            self._wipes.setdefault(event.origin, []).append(event)
            return
        order = (event.hlc, self._replicas[event.origin], event.seq)
        for name, is_clear, written in self._model.touches[op](arguments):
            cell = self._cells.setdefault(name, _Cell())
            before = cell.take_back(event)
            if is_clear:
                cell.clears.setdefault(event.origin, []).append(event)
                before = None
            if written is not None:
                value = written[0] if before is None else self._model.join(before.value, written[0])
                cell.write(Written(event, value, order))

    def forget(self, origin: int, after: int) -> None:
        """The commits of an origin above a number are gone, before anybody else saw them."""
        self._newest = None
        _forget_events(self._wipes, origin, after)
        for cell in self._cells.values():
            cell.forget(origin, after)

    def reading(self, vector: Sequence[int]) -> Reading:
        """What the key reads in the set of commits that a vector names."""
        at, newest = tuple(vector), self._newest
        if newest is not None and newest[0] == at:
            return newest[1]
        counted = {
            name: written for name, cell in self._cells.items() if (written := cell.counted(self._wipes, vector))
        }
        value, conflicts = self._model.read(counted, self._replicas)
        reading = Reading(value, bool(counted), conflicts)
        self._newest = at, reading
        return reading


def canonical(value: Any) -> Any:
    """A value such that two are equal exactly when they are the same on the wire: 1, 1.0 and true differ, the order of maps does not."""
    try:
        return _encode(value)
    except OverflowError:  # msgpack has no integers beyond 64 bits
        return _spelled_out(value)


def _spelled_out(value: Any) -> Any:
    if isinstance(value, dict):
        return ("map", tuple(sorted((key, _spelled_out(item)) for key, item in value.items())))
    if isinstance(value, (list, tuple)):
        return ("list", tuple(_spelled_out(item) for item in value))
    return (type(value).__name__, value)


# --- the types


def _element(value: Any) -> Cell:
    return (type(value).__name__, value)


def _element_order(value: Any) -> tuple[int, Any]:
    return ((int, str, bytes).index(type(value)), value)


def _read_counter(cells: Mapping[Cell, list[Written]], replicas: Sequence[ReplicaId]) -> tuple[Any, int]:
    return sum(write.value for write in cells.get(WHOLE, [])), 0


def _read_register(cells: Mapping[Cell, list[Written]], replicas: Sequence[ReplicaId]) -> tuple[Any, int]:
    written = cells.get(WHOLE, [])
    return (written[-1].value, len(written) - 1) if written else (None, 0)


def _read_set(cells: Mapping[Cell, list[Written]], replicas: Sequence[ReplicaId]) -> tuple[Any, int]:
    return sorted((value for _, value in cells), key=_element_order), 0


def _read_map(cells: Mapping[Cell, list[Written]], replicas: Sequence[ReplicaId]) -> tuple[Any, int]:
    fields = {name: written[-1].value for (_, name), written in cells.items()}
    return fields, sum(len(written) - 1 for written in cells.values())


def _read_log(cells: Mapping[Cell, list[Written]], replicas: Sequence[ReplicaId]) -> tuple[Any, int]:
    first = sorted((*written[0].order, name, written[0].value) for (_, name), written in cells.items())
    events = [
        {"id": name, "body": value, "dot": str(Dot(replica, seq)), "time": rfc3339(physical_ms(hlc))}
        for hlc, replica, seq, name, value in first
    ]
    return events, sum(len({canonical(write.value) for write in written}) > 1 for written in cells.values())


MODELS: dict[str, Model] = {
    "aw_set": Model(
        {
            "add": lambda given: [(_element(item), True, (None,)) for item in given["elements"]],
            "remove": lambda given: [(_element(item), True, None) for item in given["elements"]],
        },
        _read_set,
    ),
    "counter": Model(
        {"add": lambda given: [(WHOLE, False, (given.get("amount", 1),))]},
        _read_counter,
        join=lambda earlier, later: earlier + later,
    ),
    "event_log": Model({"append": lambda given: [(("id", given["id"]), False, (given.get("body"),))]}, _read_log),
    "lww_map": Model(
        {
            "set": lambda given: [(("field", name), True, (value,)) for name, value in given["fields"].items()],
            "unset": lambda given: [(("field", name), True, None) for name in given["fields"]],
        },
        _read_map,
    ),
    "lww_register": Model({"set": lambda given: [(WHOLE, True, (given["value"],))]}, _read_register),
}
"""By the name of the type, one line per type; a type without a model is only held to convergence."""
