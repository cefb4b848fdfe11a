"""Random operations of every type, derived from the registry: whatever a type declares is used.

The question: what makes a fuzz find conflicts? Few values. Elements, fields and event ids come from small pools, so that replicas meet
at the same places; numbers sometimes pass 64 bits, and 1, "1" and b"1" are three elements.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from crdtstore.types import Argument, CrdtType

__all__ = ["random_op"]

_ELEMENTS = ("a", "b", "1", 1, -7, b"1", 1 << 70)
_NAMES = ("f", "g", "h", "")
_TEXTS = ("e1", "e2", "e3", "é\u2028")


def _integer(random: Random) -> int:
    dice = random.random()
    if dice < 0.9:
        return random.randint(-3, 9)
    return random.choice((1 << 63, -(1 << 63) - 1, (1 << 64) + 5, 1 << 200, (1 << 63) - 1))


def _value(random: Random) -> Any:
    dice = random.random()
    if dice < 0.6:
        return random.randint(0, 99)
    if dice < 0.8:
        return f"v{random.randint(0, 9)}"
    return random.choice(
        (None, True, 1, 1.0, 0.5, b"\x00", [1, [2.0]], {"y": 1, "x": {"b": [None], "a": False}}, 1 << 90)
    )


def _some(random: Random, pool: tuple[Any, ...]) -> list[Any]:
    return [random.choice(pool) for _ in range(random.choice((1, 1, 1, 2, 3)))]


_KINDS: dict[str, Callable[[Random], Any]] = {
    "integer": _integer,
    "text": lambda random: random.choice(_TEXTS),
    "value": _value,
    "element": lambda random: random.choice(_ELEMENTS),
    "elements": lambda random: _some(random, _ELEMENTS),
    "fields": lambda random: {name: _value(random) for name in _some(random, _NAMES)},
    "names": lambda random: _some(random, _NAMES),
}


def _argument(random: Random, argument: Argument) -> Any:
    return _KINDS[argument.kind](random)


def random_op(random: Random, crdt: CrdtType, delete: float) -> tuple[str, dict[str, Any]]:
    """An operation of a type and its arguments; with the given share a delete."""
    if crdt.deletable and random.random() < delete:
        return "delete", {}
    mutator = random.choice(list(crdt.mutators.values()))
    return mutator.name, {
        argument.name: _argument(random, argument)
        for argument in mutator.arguments
        if argument.required or random.random() < 0.8
    }
