"""The disk of a simulated node: a log in memory that syncs later than it is asked, and a power cut that takes what was not synced.

The question: what is durable, told by somebody who is not the engine? The disk says how many records are synced; which commits these
hold is counted here, from the entries that were written, and every checker of durability asks this.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from crdtstore.storage.memory import MemoryLog
from crdtstore.storage.protocol import Entry
from crdtstore_sim import scenario
from crdtstore_sim.timeline import Timeline

__all__ = ["SimulatedDisk"]

_LONGEST_STALL_US = 3_000_000


class _Pending(NamedTuple):
    upto: int
    number: int
    entries: Sequence[Entry]


class SimulatedDisk:
    """Mutable. ``on_synced(number, entries)`` is called when writes up to a number are durable, with what they held."""

    def __init__(
        self,
        timeline: Timeline,
        random: Random,
        options: scenario.Disk,
        on_synced: Callable[[int, list[Entry]], None],
    ) -> None:
        self.log = MemoryLog()
        self.syncs = 0
        self._timeline = timeline
        self._random = random
        self._slowest_us = options.slowest_ms * 1000
        self._fastest_us = options.sync_ms * 1000
        self._stalls = options.stalls
        self._on_synced = on_synced
        self._pending: deque[_Pending] = deque()
        self._is_syncing = False
        self._life = 0

    def append(self, number: int, entries: Sequence[Entry]) -> None:
        """Write one record; it is durable some time later."""
        log = self.log
        upto = log.stage([log.encode(entries)])
        self._pending.append(_Pending(upto, number, entries))
        if not self._is_syncing:
            self._sync()

    def _sync(self) -> None:
        """One sync for all that is waiting: whoever comes later waits for the next."""
        self._is_syncing = True
        random = self._random
        delay_us = self._fastest_us + random.random() * (self._slowest_us - self._fastest_us)
        if self._stalls and random.random() < self._stalls:
            delay_us += random.random() * _LONGEST_STALL_US
        self._timeline.after(int(delay_us), self._synced, (self._life, self.log.staged))

    def _synced(self, argument: tuple[int, int]) -> None:
        life, upto = argument
        if life != self._life:  # asked before a crash
            return
        self.syncs += 1
        self.log.sync(upto)
        self._is_syncing = False
        entries: list[Entry] = []
        number = 0
        pending = self._pending
        while pending and pending[0].upto <= upto:
            record = pending.popleft()
            number = record.number
            entries += record.entries
        if pending:
            self._sync()
        self._on_synced(number, entries)

    def finish(self, last: Sequence[Entry]) -> None:
        """The process ends in order: all that waits is written, and this after it; nobody is told any more."""
        if last:
            self.log.stage([self.log.encode(last)])
        self.log.sync()

    def crash(self) -> int:
        """The power goes: of what was not synced a random beginning survives. Returns how many records are gone."""
        self._life += 1
        self._is_syncing = False
        self._pending.clear()
        return self.log.crash(self._random.randint(0, self.log.staged - self.log.durable))
