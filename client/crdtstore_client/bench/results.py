"""Results: what a run found, as rows, and as a document.

The question: what must stand beside a latency, or it says nothing? How it was measured (open or closed loop), how much was
asked and how much failed, whether this process was the limit instead of the cluster, and whether what was acknowledged is
there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crdtstore_client.bench.books import Checked
from crdtstore_client.bench.generator import Generator, Plan, Series
from crdtstore_client.bench.histogram import RELATIVE_ERROR, Histogram

__all__ = ["QUANTILES", "Cleaned", "Result", "Row", "document", "joined"]

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
_BUSY = 0.8
"""A generator that uses so much of its core measures itself."""


@dataclass(frozen=True, slots=True)
class Row:
    """Requests of one kind, or of all. Latencies are milliseconds, None where there was none."""

    name: str
    done: int
    failed: int
    per_s: float
    latency_ms: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What became of the keys that were written."""

    removed: int = 0
    left: int = 0
    why: str = ""
    """Why some are left; empty: none is."""


@dataclass(frozen=True, slots=True)
class Result:
    """One run."""

    plan: Plan
    run: str
    domain: str
    regions: Sequence[str]
    """Per connection the region it asks first."""
    generator: Generator
    cpu_share: float
    """How much of one core this process used."""
    checked: Checked | None
    """None: the mix has nothing that adds up."""
    unchecked: str
    """Why not all could be read back; empty: it could."""
    cleaned: Cleaned
    waits_for: int = 0
    """How many other regions each write waited for."""

    @property
    def rows(self) -> list[Row]:
        series = self.generator.series
        return [self._row(name, [one for (_, of), one in series.items() if of == name]) for name in self.plan.mix.names]

    @property
    def regional_rows(self) -> list[Row]:
        """By region, when there is more than one."""
        regions, series = sorted(set(self.regions)), self.generator.series
        if len(regions) < 2:
            return []
        return [
            self._row(f"in {region}", [one for (at, _), one in series.items() if self.regions[at] == region])
            for region in regions
        ]

    @property
    def total(self) -> Row:
        return self._row("all", list(self.generator.series.values()))

    @property
    def failures(self) -> list[tuple[str, str, Histogram]]:
        """(code, kind, how long it took), the most frequent first."""
        found: dict[tuple[str, str], Histogram] = {}
        for (_, name), one in self.generator.series.items():
            for code, took in one.failed.items():
                found.setdefault((code, name), Histogram()).join(took)
        rows = [(code, name, took) for (code, name), took in found.items()]
        return sorted(rows, key=lambda row: (-row[2].count, row[:2]))

    @property
    def is_busy(self) -> bool:
        """Whether this process may have been what was measured."""
        return self.cpu_share > _BUSY

    @property
    def is_true(self) -> bool:
        """Whether what was acknowledged is there, as far as it was looked at."""
        return self.checked is None or not self.checked.wrong

    def _row(self, name: str, several: Sequence[Series]) -> Row:
        whole = joined(several)
        seconds = self.generator.elapsed_s
        per_s = whole.done.count / seconds if seconds else 0.0
        return Row(name, whole.done.count, whole.failures, per_s, _latency_ms(whole.latency))


def joined(several: Sequence[Series]) -> Series:
    whole = Series()
    for one in several:
        whole.join(one)
    return whole


def _latency_ms(took: Histogram) -> dict[str, float | None]:
    if not took.count:
        return dict.fromkeys([*QUANTILES, "max", "mean"])
    found = {name: took.quantile(share) for name, share in QUANTILES.items()}
    shown: dict[str, float | None] = {name: round((value or 0) / 1e6, 6) for name, value in found.items()}
    return {**shown, "max": round(took.greatest / 1e6, 6), "mean": round(took.mean / 1e6, 6)}


def _row_document(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "done": row.done,
        "failed": row.failed,
        "per_s": round(row.per_s, 3),
        "latency_ms": row.latency_ms,
    }


def document(result: Result) -> dict[str, Any]:
    """For programs."""
    plan, generator, checked = result.plan, result.generator, result.checked
    return {
        "run": result.run,
        "domain": result.domain,
        "loop": "closed" if plan.rate is None else "open",
        "rate": plan.rate,
        "mix": {kind.name if not kind.is_read else f"{kind.type_name}.read": kind.weight for kind in plan.mix.kinds},
        "keys": plan.keys,
        "zipf": plan.zipf,
        "connections": plan.connections,
        "tasks": plan.tasks,
        "regions": list(result.regions),
        "waits_for_regions": result.waits_for,
        "value_bytes": plan.value_bytes,
        "seed": plan.seed,
        "warm_up_s": plan.warm_up,
        "seconds": round(generator.elapsed_s, 6),
        "quantile_error": RELATIVE_ERROR,
        "kinds": [_row_document(row) for row in result.rows],
        "by_region": [_row_document(row) for row in result.regional_rows],
        "total": _row_document(result.total),
        "errors": [
            {"code": code, "kind": name, "count": took.count, "latency_ms": _latency_ms(took)}
            for code, name, took in result.failures
        ],
        "late_starts": generator.late,
        "not_sent": generator.not_sent,
        "interrupted": generator.is_stopped,
        "generator_cpu_share": round(result.cpu_share, 3),
        "verified": None
        if checked is None
        else {
            "ok": not checked.wrong,
            "keys": checked.keys,
            "acknowledged": checked.acknowledged,
            "unknown": checked.unknown,
            "found": checked.found,
            "elements": checked.elements,
            "wrong": checked.wrong,
            "examples": checked.examples,
        },
        "not_verified": result.unchecked or None,
        "cleaned": {"removed": result.cleaned.removed, "left": result.cleaned.left, "why": result.cleaned.why or None},
    }
