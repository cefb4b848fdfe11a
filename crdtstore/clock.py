"""Hybrid logical clock: stamps that follow physical time and never run backward at one replica.

The question: what may a stamp from elsewhere do to mine? It pushes mine forward, so that what I write next is stamped later; but a
stamp further ahead than ``max_drift_ms`` is kept with its commit and does not drag the clock, or one broken clock would poison all.
Nothing relies on happens-before implying stamp order: causally later writes win because they drop what they saw.

Source: Kulkarni, Demirbas et al., "Logical Physical Clocks", OPODIS 2014. The clock reads nothing: every call takes ``now_ms``.
"""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["COUNTER_BITS", "Clock", "physical_ms", "rfc3339"]

COUNTER_BITS = 16


def physical_ms(stamp: int) -> int:
    """The wall time in a stamp, Unix milliseconds."""
    return stamp >> COUNTER_BITS


def rfc3339(unix_ms: int) -> str:
    """An instant as people and JSON write it: UTC, with milliseconds."""
    try:
        return datetime.fromtimestamp(unix_ms // 1000, UTC).isoformat()[:19] + f".{unix_ms % 1000:03d}Z"
    except (ValueError, OverflowError, OSError):  # a stamp of a broken clock is kept and shown all the same
        return f"unix-ms {unix_ms}"


class Clock:
    """The clock of one replica. Stamps are ``unix_ms << 16 | counter``; a full counter carries into the milliseconds."""

    __slots__ = ("drifted", "last", "max_drift_ms")

    def __init__(self, max_drift_ms: int = 500, last: int = 0) -> None:
        self.max_drift_ms = max_drift_ms
        self.last = last
        self.drifted = 0
        """How many stamps were further ahead than ``max_drift_ms``: an alarm, not an error."""

    def tick(self, now_ms: int) -> int:
        """A stamp for a new commit: greater than every one before."""
        physical = now_ms << COUNTER_BITS
        self.last = physical if physical > self.last else self.last + 1
        return self.last

    def read(self, now_ms: int) -> int:
        """A stamp below that of every commit to come and not below any made: what a heartbeat says."""
        physical = now_ms << COUNTER_BITS
        self.last = max(self.last, physical)
        return self.last

    def observe(self, stamp: int, now_ms: int) -> None:
        """Take note of a stamp from elsewhere."""
        if stamp > self.last:
            if physical_ms(stamp) > now_ms + self.max_drift_ms:
                self.drifted += 1
            else:
                self.last = stamp
