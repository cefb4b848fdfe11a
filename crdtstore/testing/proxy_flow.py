"""One direction of a link: its faults, its counters, and when the next bytes may go.

The question: what can a proxy do to a TCP stream that a network does, without corrupting it? A network loses packets
and TCP sends them again, so the reader sees the bytes late or never, but in order. Hence no fault here drops a part of
a stream: a cut holds, a delay shifts, a throttle spreads; what was held is lost only together with its connection.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Literal

__all__ = ["DIRECTIONS", "Direction", "Flow"]

Direction = Literal["out", "in", "both"]
"""``out``: from the side that dials to the target; ``in``: back."""

DIRECTIONS: dict[Direction, tuple[Literal["out", "in"], ...]] = {"out": ("out",), "in": ("in",), "both": ("out", "in")}
SLICES_PER_SECOND = 20


class Flow:
    """All bytes that go one way over one link, whatever connection they belong to."""

    def __init__(self) -> None:
        self.delay_ms = 0.0
        self.jitter_ms = 0.0
        self.bytes_per_second: int | None = None
        self.forwarded = 0
        self.dropped = 0
        self._open = asyncio.Event()
        self._open.set()
        self._line_free_at = 0.0

    @property
    def is_cut(self) -> bool:
        return not self._open.is_set()

    def cut(self) -> None:
        self._open.clear()

    def heal(self) -> None:
        self._open.set()

    def set_throttle(self, bytes_per_second: int | None) -> None:
        self.bytes_per_second = bytes_per_second
        self._line_free_at = 0.0

    async def passable(self) -> None:
        """Wait until this direction is not cut."""
        await self._open.wait()

    def due(self, after: float, dice: random.Random) -> float:
        """When bytes that arrive now may leave: delayed, but never before what arrived earlier (``after``)."""
        wait_ms = self.delay_ms + (dice.random() * self.jitter_ms if self.jitter_ms else 0.0)
        return max(after, asyncio.get_running_loop().time() + wait_ms / 1000)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """``data`` in pieces of at most a twentieth of a second of the throttled line."""
        rate = self.bytes_per_second
        size = len(data) if rate is None else max(1, rate // SLICES_PER_SECOND)
        for start in range(0, len(data), max(1, size)):
            yield data[start : start + size]

    async def admit(self, size: int) -> None:
        """Wait for the line (all connections share it), then for the cut; the caller writes without another await."""
        rate = self.bytes_per_second
        if rate is not None:
            now = asyncio.get_running_loop().time()
            self._line_free_at = max(self._line_free_at, now) + size / rate
            await asyncio.sleep(self._line_free_at - now)
        await self._open.wait()
