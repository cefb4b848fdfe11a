"""The node's clock: Unix milliseconds that never run backward.

The question: what happens when the system clock is set back? Every instant the engine waits for would lie in a future that does not
come for hours: no gossip, no timeouts. So a step back is not followed but waited out at half speed; a step forward is followed at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["WallClock"]


class WallClock:
    """Mutable: remembers the last instant it gave out. ``wall`` and ``steady`` are in seconds."""

    __slots__ = ("_last_ms", "_last_steady_ms", "_steady", "_wall")

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        self._last_ms = wall() * 1000
        self._last_steady_ms = steady() * 1000

    def now_ms(self) -> int:
        """Unix milliseconds, never fewer than before."""
        wall_ms, steady_ms = self._wall() * 1000, self._steady() * 1000
        waited_out = self._last_ms + (steady_ms - self._last_steady_ms) / 2 if wall_ms < self._last_ms else wall_ms
        self._last_ms, self._last_steady_ms = max(wall_ms, waited_out), steady_ms
        return int(self._last_ms)
