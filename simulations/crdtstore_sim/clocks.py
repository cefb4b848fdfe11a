"""The clock of a simulated node: wrong from the start, faster or slower than the others, and sometimes set.

The question: which time may a node see? Only its own. What it asks to be woken at is its own time too, so both directions are needed.
"""

from __future__ import annotations

__all__ = ["EPOCH_MS", "NodeClock"]

EPOCH_MS = 1_700_000_000_000
"""Unix time at the start of every run."""


class NodeClock:
    """Units: ``skew_us`` is how far ahead it was at the start, ``drift_ppm`` how many microseconds it gains per second. Mutable."""

    __slots__ = ("drift_ppm", "skew_us")

    def __init__(self, skew_us: int = 0, drift_ppm: int = 0) -> None:
        self.skew_us = skew_us
        self.drift_ppm = drift_ppm

    def now_ms(self, now_us: int) -> int:
        """What it shows, in Unix milliseconds."""
        return EPOCH_MS + (now_us + self.skew_us + now_us * self.drift_ppm // 1_000_000) // 1000

    def when_us(self, local_ms: int) -> int:
        """The first virtual instant at which it shows ``local_ms`` (as long as nobody sets it)."""
        local_us = (local_ms - EPOCH_MS) * 1000 - self.skew_us
        return -(-local_us * 1_000_000 // (1_000_000 + self.drift_ppm)) + 1

    def set_by(self, step_us: int) -> None:
        """Somebody sets it forward or back."""
        self.skew_us += step_us
