"""The result of a run, for machines: one JSON document with every figure that the table shows.

The question: what does a script need that a reader does not? Stable names, plain numbers with their unit in the name,
and one word that decides. Numbers that a reader compares by eye stand per promise under the regions' names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crdtstore_client.demo.lww import Loss
from crdtstore_client.demo.measures import Measures
from crdtstore_client.demo.verdict import Verdict

__all__ = ["Result", "document"]


@dataclass(frozen=True, slots=True)
class Result:
    """All that a run found out."""

    verdict: Verdict
    measures: Measures
    loss: Loss
    writes: int  # acknowledged commits
    replayed: int  # of them answered from an earlier attempt
    heal_ms: float
    readable_ms: float  # from the last acknowledged record of master data until lga and jfk had it
    elapsed_s: float
    killed: str | None
    refusals: Sequence[str]  # the first of each writer, in words
    further_conflicts: int  # planes with concurrent reports beside those of the two sides, most of any region


def document(result: Result) -> Mapping[str, Any]:
    """The document of ``crdtstore demo --json``."""
    verdict, measures, windows = result.verdict, result.measures, result.measures.windows
    return {
        "verdict": verdict.word,
        "broken": list(verdict.broken),
        "lost": verdict.lost,
        "refused": verdict.refused,
        "digests_equal": verdict.digests_equal,
        "writes": result.writes,
        "replayed": result.replayed,
        "killed": result.killed,
        "divergence_window_ms": {
            "p50": round(windows.p50_ms, 3),
            "p99": round(windows.p99_ms, 3),
            "max": round(windows.max_ms, 3),
            "count": windows.count,
        },
        "heal_ms": round(result.heal_ms, 3),
        "master_readable_ms": round(result.readable_ms, 3),
        "bytes_moved": measures.bytes_moved,
        "commit_bytes": measures.commit_bytes,
        "received_twice": round(measures.received_twice, 6),
        "commits_received": measures.commits_received,
        "commits_received_twice": measures.commits_received_twice,
        "refusals": list(result.refusals),
        "further_conflicts": result.further_conflicts,
        "last_write_wins_model": {"lost": result.loss.lost, "departures": result.loss.departures},
        "elapsed_s": round(result.elapsed_s, 3),
        "promises": {
            promise.name: {"title": promise.title, "kept": promise.kept, "expected": promise.expected, **promise.values}
            for promise in verdict.promises
        },
    }
