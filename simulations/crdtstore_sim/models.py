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

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from crdtstore.causal import Dot, ReplicaId
from crdtstore.clock import physical_ms, rfc3339

__all__ = ["MODELS", "Event", "Key", "Model", "Reading", "canonical"]

WHOLE = ("whole", None)
Cell = tuple[str, Any]


class Event(NamedTuple):
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


class Written(NamedTuple):
    """What one commit wrote in a cell."""

    event: Event
    value: Any


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
    __slots__ = ("clears", "writes")

    def __init__(self) -> None:
        self.writes: list[Written] = []
        self.clears: list[Event] = []

    def counted(self, wipes: Iterable[Event], vector: Sequence[int], replicas: Sequence[ReplicaId]) -> list[Written]:
        """What counts of a cell in the set of commits that the vector names, oldest first."""
        seen = [0] * len(vector)
        for clears in (self.clears, wipes):
            for clear in clears:
                if clear.seq <= vector[clear.origin]:
                    seen = [max(pair) for pair in zip(seen, clear.deps, strict=True)]
        alone: list[Written] = []
        repeated: dict[str, list[Written]] = {}
        for write in self.writes:
            event = write.event
            if event.seq > vector[event.origin]:
                continue
            if event.operation is not None:
                repeated.setdefault(event.operation, []).append(write)
            elif event.seq > seen[event.origin]:
                alone.append(write)

        def order(write: Written) -> tuple[int, str, int]:
            return (write.event.hlc, replicas[write.event.origin], write.event.seq)

        for attempts in repeated.values():
            if all(write.event.seq > seen[write.event.origin] for write in attempts):
                alone.append(min(attempts, key=order))
        return sorted(alone, key=order)


class Key:
    """The history of one key. Mutable; commits are added as they are made and may be taken back by a crash that lost them."""

    __slots__ = ("_cells", "_model", "_replicas", "_wipes")

    def __init__(self, model: Model, replicas: Sequence[ReplicaId]) -> None:
        self._model = model
        self._replicas = replicas
        self._cells: dict[Cell, _Cell] = {}
        self._wipes: list[Event] = []

    def add(self, event: Event, op: str, arguments: Mapping[str, Any]) -> None:
        """An operation of a commit; those of one commit are added in their order."""
        if op == "delete":
            for cell in self._cells.values():
                _take_back(cell.writes, event)
            self._wipes.append(event)
            return
        for name, is_clear, written in self._model.touches[op](arguments):
            cell = self._cells.setdefault(name, _Cell())
            if is_clear:
                _take_back(cell.writes, event)
                cell.clears.append(event)
            if written is not None:
                value = written[0]
                if cell.writes and cell.writes[-1].event is event:
                    value = self._model.join(cell.writes.pop().value, value)
                cell.writes.append(Written(event, value))

    def forget(self, origin: int, after: int) -> None:
        """The commits of an origin above a number are gone, before anybody else saw them."""

        def is_left(event: Event) -> bool:
            return event.origin != origin or event.seq <= after

        self._wipes = [event for event in self._wipes if is_left(event)]
        for cell in self._cells.values():
            cell.clears = [event for event in cell.clears if is_left(event)]
            cell.writes = [write for write in cell.writes if is_left(write.event)]

    def reading(self, vector: Sequence[int]) -> Reading:
        """What the key reads in the set of commits that a vector names."""
        counted = {
            name: written
            for name, cell in self._cells.items()
            if (written := cell.counted(self._wipes, vector, self._replicas))
        }
        value, conflicts = self._model.read(counted, self._replicas)
        return Reading(value, bool(counted), conflicts)


def _take_back(writes: list[Written], event: Event) -> None:
    while writes and writes[-1].event is event:
        writes.pop()


def canonical(value: Any) -> Any:
    """A value such that two are equal exactly when they are the same on the wire: 1, 1.0 and true differ, the order of maps does not."""
    if isinstance(value, dict):
        return ("map", tuple(sorted((key, canonical(item)) for key, item in value.items())))
    if isinstance(value, list | tuple):
        return ("list", tuple(canonical(item) for item in value))
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
    first = sorted(
        (event.hlc, replicas[event.origin], event.seq, name, value)
        for (_, name), written in cells.items()
        for event, value in written[:1]
    )
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
