"""The guard: what did an operation cost when docs/benchmarks.json was committed, and what does it cost now?

The question: how can a figure of one machine say anything on another? Both are divided by what a fixed piece of work costs there, in the
CPU-seconds that the same process spends on it just then; what is left is how much dearer the operation became. Only figures per
CPU-second are compared: wall time depends on who else is busy. More than ``LIMIT`` times as dear fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import process_time
from typing import Any

from xxhash import xxh3_64_intdigest

from benchmarks.figures import Figure
from crdtstore.values import pack, unpack

__all__ = ["LIMIT", "dearer", "speed", "table"]

LIMIT = 1.25
_ROUNDS = 5
_WORK = 40_000


def _work() -> None:
    """What a hot path is made of: maps, tuples, small integers, packing, hashing."""
    held: dict[str, tuple[int, int]] = {}
    for number in range(_WORK):
        key = f"key-{number & 1023}"
        before = held.get(key)
        held[key] = (number, 1 if before is None else before[1] + 1)
        data = pack([number, key, 1])
        xxh3_64_intdigest(data)
        if not number & 15:
            unpack(data)


def speed() -> float:
    """Pieces of the fixed work a CPU-second, at best: the others were disturbed."""
    best = 0.0
    for _ in range(_ROUNDS):
        start = process_time()
        _work()
        best = max(best, _WORK / (process_time() - start))
    return best


def dearer(found: Iterable[Figure], now: float, held: Iterable[Mapping[str, Any]], then: float) -> dict[str, float]:
    """By figure per CPU-second that both have: how many times as much CPU an operation takes now, on one and the same machine.

    ``now`` and ``then`` are the speeds of the machines. The best run of each counts.
    """
    before = {each["name"]: max(each["values"]) for each in held if _is_per_cpu(each["unit"])}
    return {
        figure.name: (before[figure.name] / then) / (max(figure.values) / now)
        for figure in found
        if _is_per_cpu(figure.unit) and figure.name in before
    }


def _is_per_cpu(unit: str) -> bool:
    return unit.startswith("1/CPU-s")


def table(costs: Mapping[str, float]) -> str:
    """What became dearer or cheaper, in words; what is beyond the limit is marked."""
    if not costs:
        return "the guard has nothing to compare: no figure per CPU-second was committed under these names"
    width = max(map(len, costs))
    lines = [
        f"  {name:<{width}}  {cost:5.2f} x{'  TOO DEAR' if cost > LIMIT else ''}"
        for name, cost in sorted(costs.items())
    ]
    return "\n".join([f"CPU an operation over that of docs/benchmarks.json (at most {LIMIT} x):", *lines])
