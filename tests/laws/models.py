"""What each type means, told a second time: from the set of commits and who had seen what (ALGORITHMS 5).

The question: how can a reading be wrong although all replicas agree? Only a second definition can tell. Nothing of ours is imported but
dots: no effects, no leaves, no cut. A model looks at every pair of operations and is as slow as that. A write to a register takes the
place of those it has seen; ended by a removal that saw another attempt at it, it does not give that place back. An add to a set takes
nobody's place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from crdtstore.causal import Dot
from tests.laws.bounded_model import Deed, books
from tests.laws.deadline_model import Deadlines
from tests.laws.facts import DELETE, Did, Model, Told, Written, below, survivors
from tests.laws.text_model import text

__all__ = ["MODELS", "Oracle", "reading"]


def _of(ops: list[Did], *names: str) -> list[Did]:
    return [one for one in ops if one.op in names]


def _newest(live: list[Did]) -> int:
    return max((one.order[0] for one in live), default=0)


def _element_order(element: Any) -> tuple[int, Any]:
    return ((int, str, bytes).index(type(element)), element)


# --- numbers, registers, flags


def _counter(ops: list[Did]) -> Told:
    adds = survivors(_of(ops, "add"), _of(ops, DELETE))
    return Told(sum(add.arguments.get("amount", 1) for add in adds), bool(adds), 0, _newest(adds))


def _bounded_counter(ops: list[Did]) -> Told:
    """The books of all replicas; which spending is accepted is told in ``bounded_market``."""
    deeds = []
    for one in ops:
        given = one.arguments
        to = next((replica for replica in one.deps if replica.split(".")[0] == given.get("to")), None)
        deeds.append(
            Deed(one.dot, one.order[0], one.deps, one.op, given["amount"], one.order[3], to=to, hold=str(one.order))
        )
    return Told(books(deeds).left, bool(deeds), 0, _newest(ops))


def _lww_register(ops: list[Did]) -> Told:
    live = survivors(_of(ops, "set"), ops)
    return Told(live[-1].arguments["value"] if live else None, bool(live), max(0, len(live) - 1), _newest(live))


def _mv_register(ops: list[Did]) -> Told:
    live = survivors(_of(ops, "set"), ops)
    return Told([one.arguments["value"] for one in live], bool(live), max(0, len(live) - 1), _newest(live))


def _extremum(choose: Callable[..., Any]) -> Model:
    def model(ops: list[Did]) -> Told:
        live = survivors(_of(ops, "set"), _of(ops, DELETE))
        values = [one.arguments["value"] for one in live]
        return Told(choose(values, key=_element_order) if values else None, bool(live), 0, _newest(live))

    return model


def _ew_flag(ops: list[Did]) -> Told:
    enables = survivors(_of(ops, "enable"), _of(ops, "disable", DELETE))
    return Told(bool(enables), bool(enables), 0, _newest(enables))


def _dw_flag(ops: list[Did]) -> Told:
    live = survivors(_of(ops, "enable", "disable"), ops)
    enables = _of(live, "enable")
    is_set = bool(live) and len(enables) == len(live)
    return Told(is_set, bool(live), 0 if is_set else len(enables), _newest(live))


# --- sets


def _per_element(ops: list[Did]) -> list[tuple[Any, list[Did]]]:
    """Every element that was ever named, in order, and the operations that touch it."""
    elements = {element for one in ops for element in one.arguments.get("elements", ())}
    return [
        (element, [one for one in ops if one.op == DELETE or element in one.arguments["elements"]])
        for element in sorted(elements, key=_element_order)
    ]


def _aw_set(ops: list[Did]) -> Told:
    live = {
        element: survivors(_of(touching, "add"), _of(touching, "remove", DELETE))
        for element, touching in _per_element(ops)
    }
    present = [element for element, adds in live.items() if adds]
    return Told(present, bool(present), 0, max(map(_newest, live.values()), default=0))


def _rw_set(ops: list[Did]) -> Told:
    present, contested, newest = [], 0, 0
    for element, touching in _per_element(ops):
        live = survivors(_of(touching, "add", "remove"), touching)
        adds = _of(live, "add")
        if len(adds) == len(live) > 0:
            present.append(element)
            newest = max(newest, _newest(adds))
        elif adds:
            contested += 1
    return Told(present, bool(present), contested, newest)


# --- logs and maps


def _event_log(ops: list[Did]) -> Told:
    first: dict[str, Did] = {}
    bodies: dict[str, list[Any]] = {}
    commits: set[tuple[str, Dot]] = set()
    for one in survivors(_of(ops, "append"), _of(ops, DELETE)):
        name, body = one.arguments["id"], one.arguments.get("body")
        if (name, one.dot) in commits:
            continue  # an id appended twice in one commit is one entry: the first
        commits.add((name, one.dot))
        first.setdefault(name, one)
        bodies.setdefault(name, [])
        if body not in bodies[name] or any(type(body) is not type(other) for other in bodies[name]):
            bodies[name].append(body)
    value = [
        {"id": name, "body": one.arguments.get("body"), "dot": str(one.dot), "time": _time(one.order[0])}
        for name, one in sorted(first.items(), key=lambda item: (item[1].order[:3], item[0]))
    ]
    newest = _newest(survivors(_of(ops, "append"), _of(ops, DELETE)))
    return Told(value, bool(value), sum(len(found) > 1 for found in bodies.values()), newest)


def _time(hlc: int) -> str:
    ms = hlc >> 16
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{ms % 1000:03d}Z"


def _lww_map(ops: list[Did]) -> Told:
    """Each field a register."""
    return _map(ops, {(name, "lww_register") for one in ops for name in one.arguments.get("fields", ())})


def _or_map(ops: list[Did]) -> Told:
    """Per field the model of its type, on the operations that no removal of the field has seen."""
    return _map(ops, {one.path[0] for one in ops if one.path})


def _map(ops: list[Did], steps: set[tuple[str, str]]) -> Told:
    value: dict[str, Any] = {}
    conflicts, newest = 0, 0
    for name, type_name in sorted(steps):
        told = MODELS[type_name](below(ops, (name, type_name)))
        if not told.exists:
            continue
        newest = max(newest, told.newest_hlc)
        if name in value:
            conflicts += 1  # the first type in alphabetical order serves under the name
        else:
            value[name] = told.value
            conflicts += told.conflicts
    return Told(value, bool(value), conflicts, newest)


MODELS: dict[str, Model] = {
    "aw_set": _aw_set,
    "bounded_counter": _bounded_counter,
    "counter": _counter,
    "dw_flag": _dw_flag,
    "event_log": _event_log,
    "ew_flag": _ew_flag,
    "g_set": _aw_set,
    "lww_map": _lww_map,
    "lww_register": _lww_register,
    "max_register": _extremum(max),
    "min_register": _extremum(min),
    "mv_register": _mv_register,
    "or_map": _or_map,
    "rw_set": _rw_set,
    "text": text,
}
"""By the name of the type, one line per type. Those of more than a few sentences have files of their own, ``<type>_model.py``."""


class Oracle:
    """What keys of a type must read. It keeps what it has found out of deadlines, so commits must not be taken back."""

    def __init__(self, type_name: str) -> None:
        self._model = MODELS[type_name]
        self._deadlines: dict[str, Deadlines] = {}
        self._type_name = type_name

    def reading(self, facts: Iterable[Written], key: str, now_ms: int | None = None) -> tuple[Any, bool, int]:
        """Value, whether it exists, number of conflicts, at an instant (None: with what has expired); facts as they were made."""
        known = list(facts)
        deadlines = self._deadlines.setdefault(key, Deadlines(self._type_name, MODELS, key))
        return self._model(deadlines.applied_to(known, now_ms))[:3]


def reading(type_name: str, facts: Iterable[Written], key: str, now_ms: int | None = None) -> tuple[Any, bool, int]:
    """As ``Oracle.reading``, of one set of commits."""
    return Oracle(type_name).reading(facts, key, now_ms)
