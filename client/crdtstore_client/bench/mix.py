"""The mix: which requests, and how many of each.

The question: how is a workload written down on one line? As ``what=weight`` pairs: ``add=50,read=50`` or
``counter.add=30,aw_set.add=10,aw_set.remove=5,read=55``. What is an operation of a type, ``type.read`` a read of it; a plain
``read`` reads whatever types the mix writes, in the same proportions. Arguments are drawn so that no request is refused.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Any

from crdtstore.errors import UsageError
from crdtstore.types import REGISTRY

__all__ = ["KINDS", "READ", "Kind", "Mix", "parse_mix"]

READ = "read"
_ELEMENTS = 100
"""Elements of sets and fields of maps are drawn from so many, so that a key grows up to a bound."""
_SHORT = {"add": "counter.add", "set": "lww_register.set"}
_Arguments = Callable[[Random, int], dict[str, Any]]


def _nothing(random: Random, size: int) -> dict[str, Any]:
    return {}


def _value(random: Random, size: int) -> dict[str, Any]:
    return {"value": _text(random, size)}


def _element(random: Random, size: int) -> dict[str, Any]:
    return {"elements": [random.randrange(_ELEMENTS)]}


def _integer(random: Random, size: int) -> dict[str, Any]:
    return {"value": random.randrange(1_000_000)}


def _field(random: Random, size: int) -> dict[str, Any]:
    return {"fields": {f"f{random.randrange(_ELEMENTS)}": _text(random, size)}}


def _unset(random: Random, size: int) -> dict[str, Any]:
    return {"fields": [f"f{random.randrange(_ELEMENTS)}"]}


def _event(random: Random, size: int) -> dict[str, Any]:
    return {"id": f"{random.getrandbits(64):016x}", "body": _text(random, size)}


def _text(random: Random, size: int) -> str:
    return f"{random.getrandbits(4 * size):0{size}x}" if size else ""


KINDS: dict[str, _Arguments] = {
    "counter.add": lambda random, size: {"amount": 1},
    "lww_register.set": _value,
    "mv_register.set": _value,
    "max_register.set": _integer,
    "min_register.set": _integer,
    "ew_flag.enable": _nothing,
    "ew_flag.disable": _nothing,
    "dw_flag.enable": _nothing,
    "dw_flag.disable": _nothing,
    "g_set.add": _element,
    "aw_set.add": _element,
    "aw_set.remove": _element,
    "rw_set.add": _element,
    "rw_set.remove": _element,
    "lww_map.set": _field,
    "lww_map.unset": _unset,
    "event_log.append": _event,
}
"""The writes there are, with what they are asked for: a source of chance, and the bytes of a value."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request: as it was written, of which type, which operation of it (or ``read``), and its weight."""

    name: str
    type_name: str
    op: str
    weight: float
    arguments: _Arguments

    @property
    def is_read(self) -> bool:
        return self.op == READ


class Mix:
    """Kinds with their weights. Immutable."""

    def __init__(self, kinds: list[Kind], text: str) -> None:
        self.kinds = kinds
        self.text = text
        self._sums = list(accumulate(kind.weight for kind in kinds))

    @property
    def types(self) -> list[str]:
        """All types that are touched."""
        return sorted({kind.type_name for kind in self.kinds})

    @property
    def names(self) -> list[str]:
        """What there are rows for, in the order in which it was written."""
        return list(dict.fromkeys(kind.name for kind in self.kinds))

    def has(self, type_name: str, op: str) -> bool:
        return any((kind.type_name, kind.op) == (type_name, op) for kind in self.kinds)

    def draw(self, random: Random) -> Kind:
        if len(self.kinds) == 1:
            return self.kinds[0]
        return self.kinds[min(bisect_right(self._sums, random.random() * self._sums[-1]), len(self.kinds) - 1)]


def parse_mix(text: str) -> Mix:
    """The mix that somebody typed.

    Raises:  UsageError saying what there is; nothing changed.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, typed = (each.strip() for each in part.partition("="))
        if name in weights:
            raise _refused(f"{name!r:.50} stands there twice")
        if name != READ and _SHORT.get(name, name) not in KINDS and _type_read(name) is None:
            raise _refused(f"there is no {name!r:.50}")
        try:
            weights[name] = float(typed or "1")
        except ValueError:
            raise _refused(f"the weight of {name} is a number, not {typed!r:.50}") from None
        if not (math.isfinite(weights[name]) and weights[name] >= 0):
            raise _refused(f"the weight of {name} is a number from 0 on, not {typed!r:.50}")
    if not any(weights.values()):
        raise _refused("all weights are 0")
    return Mix(_kinds({name: weight for name, weight in weights.items() if weight}), text)


def _type_read(name: str) -> str | None:
    type_name, _, op = name.partition(".")
    known = {kind.partition(".")[0] for kind in KINDS}
    return type_name if op == READ and type_name in known and type_name in REGISTRY else None


def _kinds(weights: dict[str, float]) -> list[Kind]:
    kinds = []
    for name, weight in weights.items():
        if name == READ:
            continue
        full = _SHORT.get(name, name)
        type_name, _, op = full.partition(".")
        kinds.append(Kind(name, type_name, op, weight, KINDS.get(full, _nothing)))
    if READ in weights:
        written: dict[str, float] = {}
        for kind in kinds:
            if not kind.is_read:
                written[kind.type_name] = written.get(kind.type_name, 0) + kind.weight
        total = sum(written.values())
        for type_name, share in (written or {"counter": 1.0}).items():
            kinds.append(Kind(READ, type_name, READ, weights[READ] * share / (total or 1.0), _nothing))
    return kinds


def _refused(what: str) -> UsageError:
    return UsageError(
        f"--mix is like add=50,read=50: {what}. There are read, TYPE.read, {', '.join(_SHORT)} (for "
        f"{', '.join(_SHORT.values())}) and {', '.join(KINDS)}. Nothing changed."
    )
