"""Virtual time, seeded chance, and the trace: what makes two runs of one seed the same run.

The question: where could two runs differ? In the order of events at one instant (a counter breaks the tie), in chance (every purpose
draws from its own stream, so that one more draw for the network moves nothing in the workload), and in the hash order of sets and
maps, which never reaches an event. The trace is one running hash over all events and their bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from struct import Struct
from typing import Any

from xxhash import xxh3_64

__all__ = ["Streams", "Timeline", "Trace"]


class Timeline:
    """Events in the order of virtual time. Mutable. Units: microseconds since the start of the run."""

    __slots__ = ("_count", "_heap", "events", "now_us")

    def __init__(self) -> None:
        self.now_us = 0
        self.events = 0
        """How many events have happened."""
        self._heap: list[tuple[int, int, Callable[[Any], None], Any]] = []
        self._count = 0

    def at(self, time_us: int, action: Callable[[Any], None], argument: Any = None) -> None:
        """Let ``action(argument)`` happen at an instant, not before now."""
        self._count += 1
        now_us = self.now_us
        heappush(self._heap, (max(now_us, time_us), self._count, action, argument))

    def after(self, delay_us: int, action: Callable[[Any], None], argument: Any = None) -> None:
        self.at(self.now_us + delay_us, action, argument)

    def run(self, until_us: int, is_over: Callable[[], bool]) -> None:
        """Let everything up to an instant happen, or until ``is_over`` says so after an event."""
        heap = self._heap
        while heap and heap[0][0] <= until_us:
            self.now_us, _, action, argument = heappop(heap)
            self.events += 1
            action(argument)
            if is_over():
                return
        self.now_us = max(self.now_us, until_us)


class Streams:
    """One stream of chance per purpose, all from one seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def stream(self, purpose: str) -> Random:
        return Random(f"{self._seed}/{purpose}")  # noqa: S311 - a simulation must repeat; text seeds do not depend on hash()


class Trace:
    """The running hash over all events."""

    __slots__ = ("_hash", "_head")

    def __init__(self) -> None:
        self._hash = xxh3_64()
        self._head = Struct("<QBB").pack

    def note(self, time_us: int, kind: int, node: int, data: bytes = b"") -> None:
        """An event: when, what, where, and the bytes that came with it."""
        self._hash.update(self._head(time_us, kind, node) + data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
