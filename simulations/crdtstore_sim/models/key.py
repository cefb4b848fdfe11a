"""The model of one key: the operations of all commits on it, and what it reads in any set of them.

The question: what does a deadline do? It is a register below the key or field. Every write puts it again, so that nothing that was written
in its time outlives it; a write stamped after it begins anew: it clears what it has seen and puts *never*. At an instant a place has
expired when the greatest of its deadlines has passed and nothing was written after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from crdtstore.causal import ReplicaId
from crdtstore.clock import physical_ms
from crdtstore_sim.models.base import Letter, Model
from crdtstore_sim.models.history import DATA, DEADLINE, MARK, NOTHING, Event, Place, There, Written
from crdtstore_sim.models.sequences import letters, placed

__all__ = ["Key", "Reading", "System"]

_DROP, _PUT, _ADD = 0, 1, 2
"""Kinds of effects, as the format of commits numbers them."""


class Reading(NamedTuple):
    """What a read must show."""

    value: Any
    exists: bool
    conflicts: int
    fading: int = 0
    """So many further conflicts may be shown: they are forgotten when all replicas have what stands behind them."""
    ends: Mapping[str, Any] = {}
    """``expires`` and ``field_expires``: when it, and which of its fields, end by themselves, as far as there are deadlines."""


class System(NamedTuple):
    """An effect of a commit that the store made by itself: what it did, where below the key."""

    kind: int
    path: tuple[Any, ...]
    value: Any


class Key:
    """The history of one key. Mutable; commits are added as they are made and may be taken back by a crash that lost them."""

    __slots__ = (
        "_drafts",
        "_has_deadlines",
        "_model",
        "_models",
        "_newest",
        "_options",
        "_root",
        "regions",
        "replicas",
    )

    def __init__(
        self,
        models: Mapping[str, Model],
        type_name: str,
        replicas: Sequence[ReplicaId],
        regions: Sequence[str],
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.replicas = replicas
        self.regions = regions
        self._models = models
        self._model = models[type_name]
        self._options = options or {}
        self._root = Place()
        self._drafts: dict[tuple[str, ...], list[Letter]] = {}
        """The texts that the commit just looked at touches, as it has left them so far, by their place."""
        self._has_deadlines = False
        self._newest: tuple[tuple[tuple[int, ...], int | None], Reading] | None = None
        """What was read last, as long as no commit came or went: many replicas stand at one vector."""

    # --- what happens

    def add(self, event: Event, op: str, given: Mapping[str, Any], path: Sequence[str] = (), index: int = 0) -> None:
        """An operation of a commit, at a field of a field …; those of one commit are added in their order, those of one origin too."""
        self._newest = None
        place = tuple(path)
        model = self._models[place[-1].rpartition(":")[2]] if place else self._model
        fields = model.fields(op, given)
        renewals = self._meet(event, op, place, fields)
        if op == "expire":
            self._renew(event, renewals)
            ttl_ms = given["ttl_ms"]
            due_ms = None if ttl_ms is None else physical_ms(event.hlc) + ttl_ms
            self._renew(event, [((*place, part), due_ms) for part in fields] or [(place, due_ms)])
            self._has_deadlines = True
            return
        if op == "delete":
            self.clear(event, place)
        else:
            model.acts[op](_Here(self, event, place, index), given)
        self._renew(event, renewals)

    def seal(self, event: Event, effects: Callable[[], Sequence[System]]) -> str | None:
        """A commit is complete: what it says of the positions of characters. Returns what is wrong with them, if anything is.

        ``effects`` are those on this key; they are looked at only where a text was touched.
        """
        wrong = None
        for place, draft in self._drafts.items():
            depth = len(place)
            puts = [
                value
                for kind, path, value in effects()
                if kind == _PUT and len(path) == depth + 1 and path[:-1] == place
            ]
            fresh = [letter for letter in draft if letter.position is None]
            wrong = wrong or placed(draft, puts)
            for letter in fresh:
                self.write(event, (*place, letter.name), (letter.position or b"", letter.char))
        self._drafts.clear()
        return wrong

    def system(self, event: Event, effect: System) -> str | None:
        """What the store did by itself: it removed what had expired, ended a hold, or moved rights.

        Returns what is wrong when it had no reason.
        """
        self._newest = None
        there = self._root.there(event.vector, [0] * len(event.deps))
        for part in effect.path:
            there = there.below.get(part, NOTHING)
        if effect.kind != _DROP:
            join = (lambda before, after: before + after) if effect.kind == _ADD else None
            self.write(event, effect.path, effect.value, join)
            return None
        self.clear(event, effect.path)
        now_ms = physical_ms(event.hlc)
        if there is NOTHING or there.is_expired(now_ms):
            return None
        if effect.path[:1] in {("H",), ("E",)} and all(write.value[1] <= now_ms for write in there.writes):
            return None  # a hold, or the memory of how one ended
        return f"removes {effect.path}, which has not come to its end"

    def forget(self, origin: int, after: int) -> None:
        """The commits of an origin above a number are gone, before anybody else saw them."""
        self._newest = None
        self._root.forget(origin, after)

    # --- deadlines

    def _meet(
        self, event: Event, op: str, place: tuple[str, ...], fields: Sequence[Any]
    ) -> list[tuple[tuple[Any, ...], int | None]]:
        """Clear what has expired on the way to a place; the deadlines to be put again, with where they stand."""
        renewals: list[tuple[tuple[Any, ...], int | None]] = []
        if not self._has_deadlines:
            return renewals
        now_ms = physical_ms(event.hlc)

        def has_ended(at: tuple[Any, ...], there: There, is_renewed: bool = True) -> bool:
            if not there.has_deadline:
                return False
            due_ms = there.due_ms
            if is_renewed:
                renewals.append((at, None if due_ms is None or due_ms <= now_ms else due_ms))
            if there.is_expired(now_ms):
                self.clear(event, at)
                return True
            return False

        there = self._root.there(event.vector, [0] * len(event.deps))
        for depth in range(len(place) + 1):
            is_end = depth == len(place)
            if has_ended(place[:depth], there, not (is_end and op == "delete")):
                return renewals
            if not is_end:
                there = there.below.get(place[depth], NOTHING)
        for part in fields:
            has_ended((*place, part), there.below.get(part, NOTHING))
        return renewals

    def _renew(self, event: Event, renewals: Sequence[tuple[tuple[Any, ...], int | None]]) -> None:
        for at, due_ms in renewals:
            self._root.at(at).replace(DEADLINE, self._written(event, due_ms))

    # --- what operations do

    def _written(self, event: Event, value: Any) -> Written:
        return Written(event, value, (event.hlc, self.replicas[event.origin], event.seq))

    def write(
        self,
        event: Event,
        path: Sequence[Any],
        value: Any,
        join: Callable[[Any, Any], Any] | None = None,
        kind: str = DATA,
    ) -> None:
        self._root.at(path).write(kind, self._written(event, value), join)

    def clear(self, event: Event, path: Sequence[Any]) -> None:
        self._root.at(path).clear(event)
        place = tuple(path)
        for at in [at for at in self._drafts if at[: len(place)] == place]:
            self._drafts[at].clear()

    def draft(self, event: Event, place: tuple[str, ...]) -> list[Letter]:
        if place not in self._drafts:
            self._drafts[place] = letters(self.seen(event, place))
        return self._drafts[place]

    def seen(self, event: Event, place: Sequence[Any]) -> There:
        """What the maker of a commit saw at a place just then: what it had applied, and what it had done so far in this commit."""
        there = self._root.there(event.vector, [0] * len(event.deps)).at_time(physical_ms(event.hlc))
        for part in place:
            there = there.below.get(part, NOTHING)
        return there

    # --- reading

    def there(self, vector: Sequence[int]) -> There:
        """What counts in the set of commits that a vector names, also what has expired."""
        return self._root.there(vector, [0] * len(vector))

    def reading(self, vector: Sequence[int], now_ms: int | None = None) -> Reading:
        """What the key reads in the set of commits that a vector names, at an instant; None: with all that has expired."""
        at, newest = (tuple(vector), now_ms if self._has_deadlines else None), self._newest
        if newest is not None and newest[0] == at:
            return newest[1]
        there = self.there(vector).at_time(now_ms)
        shown = self._model.read(there, self._options)
        ends = self._model.ends(there) if self._has_deadlines else {}
        reading = Reading(shown.value, there.exists, shown.conflicts, shown.fading, ends)
        self._newest = at, reading
        return reading

    def value_at(self, vector: Sequence[int], now_ms: int, path: Sequence[str]) -> Any:
        """What a field of a field … reads, and without a path the key."""
        there, model, options = self.there(vector).at_time(now_ms), self._model, self._options
        for part in path:
            there, model, options = there.below.get(part, NOTHING), self._models[part.rpartition(":")[2]], {}
        return model.read(there, options).value

    def instants(self, vectors: Sequence[Sequence[int]], from_ms: int, to_ms: int) -> list[int]:
        """The instants in a span at which the reading may change, with both its ends."""
        found = {from_ms, to_ms}
        if self._has_deadlines:
            for vector in vectors:
                found |= {due_ms for due_ms in self.there(vector).due_times() if from_ms < due_ms < to_ms}
        return sorted(found)


class _Here:
    """Where an operation happens."""

    __slots__ = ("_key", "_place", "event", "index", "regions", "replicas")

    def __init__(self, key: Key, event: Event, place: tuple[str, ...], index: int) -> None:
        self._key = key
        self._place = place
        self.event = event
        self.index = index
        self.replicas = key.replicas
        self.regions = key.regions

    def write(self, path: Sequence[Any], value: Any, join: Callable[[Any, Any], Any] | None = None) -> None:
        self._key.write(self.event, (*self._place, *path), value, join)

    def mark(self, path: Sequence[Any]) -> None:
        self._key.write(self.event, (*self._place, *path), None, kind=MARK)

    def clear(self, path: Sequence[Any]) -> None:
        self._key.clear(self.event, (*self._place, *path))

    def there(self) -> There:
        return self._key.seen(self.event, self._place)

    def draft(self) -> list[Letter]:
        return self._key.draft(self.event, self._place)
