"""Histogram: any number of durations in little memory, with quantiles whose error is bounded.

The question: how is a p99.9 told apart from the p99 without keeping a million numbers? By buckets that grow with what is
in them: 128 to each power of two, so that a bucket is never wider than 1/128 of what it holds. A quantile is the upper
end of its bucket: never less than the true one, and at most so much more. The greatest and the least are kept as they are.

Source: the shape is that of Gil Tene's HdrHistogram.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

__all__ = ["RELATIVE_ERROR", "Histogram"]

_BITS = 7
_SUB = 1 << _BITS
RELATIVE_ERROR = 1 / _SUB
"""A quantile is at most so much greater than the true one, and never less."""


def _bucket(value: int) -> int:
    shift = max(0, value.bit_length() - _BITS - 1)
    return shift * _SUB + (value >> shift)


def _upper(bucket: int) -> int:
    """The greatest value of a bucket."""
    if bucket < 2 * _SUB:
        return bucket
    shift = bucket // _SUB - 1
    return ((bucket - shift * _SUB + 1) << shift) - 1


class Histogram:
    """Durations as whole numbers from zero on (nanoseconds, say). Mutable."""

    __slots__ = ("_counts", "count", "greatest", "least", "total")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.count = 0
        self.total = 0
        self.greatest = 0
        self.least = 0

    def add(self, value: int, times: int = 1) -> None:
        """Take in a value; what is below zero (a clock that went back) counts as zero.

        Cost:    O(1).
        """
        value = max(0, value)
        bucket = _bucket(value)
        self._counts[bucket] = self._counts.get(bucket, 0) + times
        self.least = min(self.least, value) if self.count else value
        self.greatest = max(self.greatest, value)
        self.count += times
        self.total += value * times

    def join(self, other: Histogram) -> None:
        """Take in all of another one."""
        if not other.count:
            return
        for bucket, times in other._counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + times
        self.least = min(self.least, other.least) if self.count else other.least
        self.greatest = max(self.greatest, other.greatest)
        self.count += other.count
        self.total += other.total

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else math.nan

    def quantile(self, share: float) -> int | None:
        """The least value that this share of all does not exceed (nearest rank), up to ``RELATIVE_ERROR`` too great; None of nothing."""
        if not self.count:
            return None
        rank = min(max(1, math.ceil(share * self.count)), self.count)
        seen = 0
        for upper, times in self:
            seen += times
            if seen >= rank:
                return max(self.least, min(upper, self.greatest))
        raise AssertionError("a histogram counts what it holds")

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The buckets that hold something: greatest value, how many."""
        for bucket in sorted(self._counts):
            yield _upper(bucket), self._counts[bucket]
