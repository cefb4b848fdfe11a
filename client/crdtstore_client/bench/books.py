"""Books: what was acknowledged, and what nobody knows, held against what the cluster shows afterwards.

The question: what may be found? Of a counter no less than the sum of all acknowledged adds, and no more than that and all
those of which no answer came; of a set that nobody removes from all acknowledged elements, and none that nobody added. The
books are this process's own, written as answers arrive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crdtstore_client.bench.mix import Kind, Mix

__all__ = ["Books", "Checked"]

_SETS = ("aw_set", "g_set", "rw_set")
_SHOWN = 5


@dataclass(slots=True)
class Checked:
    """What was compared, and what was not as it should be."""

    keys: int = 0
    acknowledged: int = 0
    """The sum of acknowledged adds."""
    unknown: int = 0
    """The sum of adds of which no answer came."""
    found: int = 0
    elements: int = 0
    """Acknowledged elements of sets (of each key, each once)."""
    wrong: int = 0
    examples: list[str] = field(default_factory=list)

    def note(self, problem: str) -> None:
        self.wrong += 1
        if len(self.examples) < _SHOWN:
            self.examples.append(problem)


class Books:
    """Mutable. Memory: two numbers per counter that was written, the elements of each set."""

    def __init__(self, mix: Mix) -> None:
        self._sets = {name for name in _SETS if mix.has(name, "add") and not mix.has(name, "remove")}
        self.written: dict[str, set[int]] = {name: set() for name in mix.types}
        """Per type the keys that were written, or may have been."""
        self._sums: dict[int, list[int]] = {}
        """Per counter what was acknowledged and what is unknown."""
        self._elements: dict[tuple[str, int], tuple[set[int], set[int]]] = {}

    def note(self, kind: Kind, key: int, arguments: Mapping[str, Any], *, is_known: bool) -> None:
        """A write took place, or may have."""
        self.written[kind.type_name].add(key)
        if (kind.type_name, kind.op) == ("counter", "add"):
            self._sums.setdefault(key, [0, 0])[not is_known] += arguments["amount"]
        elif kind.type_name in self._sets and kind.op == "add":
            sets = self._elements.setdefault((kind.type_name, key), (set(), set()))
            sets[not is_known].update(arguments["elements"])

    @property
    def checkable(self) -> list[str]:
        """The types of which it can be told whether all is there."""
        names = {name for name, _ in self._elements} | ({"counter"} if self._sums else set())
        return sorted(names)

    def check(self, type_name: str, found: Mapping[int, Any], checked: Checked) -> None:
        """Compare with the values of all keys of a type; a key that is not there is empty."""
        if type_name == "counter":
            self._check_counters(found, checked)
            return
        for (name, key), (acknowledged, unknown) in self._elements.items():
            if name != type_name:
                continue
            there = set(found.get(key, ()))
            checked.keys += 1
            checked.elements += len(acknowledged)
            if missing := acknowledged - there:
                checked.note(f"{name} key {key} lacks {len(missing)} acknowledged elements, {min(missing)} is one")
            if strange := there - acknowledged - unknown:
                checked.note(f"{name} key {key} has {len(strange)} elements that nobody added, {min(strange)} is one")

    def _check_counters(self, found: Mapping[int, Any], checked: Checked) -> None:
        for key in self._sums.keys() | found.keys():
            acknowledged, unknown = self._sums.get(key, (0, 0))
            value = found.get(key, 0)
            checked.keys += 1
            checked.acknowledged += acknowledged
            checked.unknown += unknown
            checked.found += value
            if not acknowledged <= value <= acknowledged + unknown:
                most = f" to {acknowledged + unknown}" if unknown else ""
                checked.note(f"counter key {key} holds {value}, acknowledged are {acknowledged}{most}")
