"""Figures of a run, combined over the nodes that measured them.

The question: how do three nodes' percentiles become one? Not by averaging. Each node keeps a histogram of its own
divergence windows (how long until all members had acknowledged one of its commits); the histograms are added and the
percentiles read from the sum. A node that is killed takes its figures with it, so its last status before the kill is
added to what it measures afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Measures", "Windows", "merge_windows", "percentile_ms", "total_measures"]

_GOSSIP = ("bytes_sent", "commits_received", "commits_received_twice", "commit_bytes")


@dataclass(frozen=True, slots=True)
class Windows:
    p50_ms: float
    p99_ms: float
    max_ms: float
    count: int


@dataclass(frozen=True, slots=True)
class Measures:
    """``bytes_moved`` is what all nodes sent to each other, compressed; ``commit_bytes`` what the commits in it
    measure unpacked.
    """

    windows: Windows
    bytes_moved: int
    commit_bytes: int
    commits_received: int
    commits_received_twice: int

    @property
    def received_twice(self) -> float:
        """Share of received commits that were there already."""
        return self.commits_received_twice / self.commits_received if self.commits_received else 0.0


def total_measures(statuses: Iterable[Mapping[str, Any]], domain: str) -> Measures:
    """Add up the statuses of all nodes (and of killed processes, as they last were)."""
    groups: list[Mapping[str, Any]] = []
    sums = dict.fromkeys(_GOSSIP, 0)
    for status in statuses:
        groups += [group for group in status["groups"] if group["domain"] == domain]
        for name in _GOSSIP:
            sums[name] += status["gossip"][name]
    return Measures(
        windows=merge_windows(groups),
        bytes_moved=sums["bytes_sent"],
        commit_bytes=sums["commit_bytes"],
        commits_received=sums["commits_received"],
        commits_received_twice=sums["commits_received_twice"],
    )


def merge_windows(groups: Sequence[Mapping[str, Any]]) -> Windows:
    """One distribution from the histograms of several origins; the maximum is exact, percentiles are upper edges of
    buckets.
    """
    merged: dict[float, int] = {}
    for group in groups:
        for upper_ms, count in group["window_histogram"]:
            edge_ms = math.inf if upper_ms is None else upper_ms  # the last bucket has no edge
            merged[edge_ms] = merged.get(edge_ms, 0) + count
    buckets = sorted(merged.items())
    max_ms = max((group["window_ms"]["max"] or 0.0 for group in groups), default=0.0)
    return Windows(
        p50_ms=min(max_ms, percentile_ms(buckets, 0.50)),
        p99_ms=min(max_ms, percentile_ms(buckets, 0.99)),
        max_ms=max_ms,
        count=sum(merged.values()),
    )


def percentile_ms(buckets: Sequence[tuple[float, int]], share: float) -> float:
    """The smallest upper edge below which at least this share of the counts lies; 0 for no counts."""
    wanted = share * sum(count for _, count in buckets)
    seen = 0
    for upper_ms, count in buckets:
        seen += count
        if seen >= wanted and count:
            return upper_ms
    return 0.0
