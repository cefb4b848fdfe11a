"""A figure: what was measured, in which unit, against which target."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Figure", "repeat"]


@dataclass(frozen=True)
class Figure:
    """One row of docs/benchmarks.md. ``values`` has one entry per run; ``is_at_least`` says on which side of the target is good."""

    name: str
    unit: str
    values: list[float]
    target: float | None = None
    is_at_least: bool = True
    notes: dict[str, Any] = field(default_factory=dict)
    commit: str = ""
    """At which state of the code it was measured."""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """(greatest - least) / median."""
        return (max(self.values) - min(self.values)) / self.median if self.median else 0.0

    @property
    def ratio(self) -> float | None:
        """How many times the target: above 1 is reached, on either side."""
        if self.target is None or not self.median:
            return None
        return self.median / self.target if self.is_at_least else self.target / self.median

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "median": self.median, "spread": self.spread, "ratio": self.ratio}


def repeat(runs: int, measure: Callable[[], float]) -> list[float]:
    """The results of several runs."""
    return [measure() for _ in range(runs)]
