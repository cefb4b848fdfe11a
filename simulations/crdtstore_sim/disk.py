"""The disk of a simulated node: a log in memory that syncs later than it is asked, a state store that commits later, a power cut that
takes what was not synced, and now and then something that cannot be written, or read.

The question: what is durable, told by somebody who is not the engine? The disk says how many records are synced; which commits these
hold is counted here, from the entries that were written, and every checker of durability asks this.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from crdtstore.errors import StorageError
from crdtstore.saving import Save, Saved
from crdtstore.storage.memory import MemoryLog
from crdtstore.storage.memory_state import MemoryState
from crdtstore.storage.protocol import Entry, Row
from crdtstore_sim import scenario
from crdtstore_sim.timeline import Timeline

__all__ = ["SimulatedDisk"]

_LONGEST_STALL_US = 3_000_000
_LONGEST_FULL_US = 2_000_000


class _Pending(NamedTuple):
    number: int
    entries: Sequence[Entry]


class _State(MemoryState):
    """A state store that cannot always be read."""

    def __init__(self, disk: SimulatedDisk) -> None:
        super().__init__()
        self._disk = disk

    def rows(self, start: bytes, end: bytes, limit: int = -1) -> list[Row]:
        self._disk.may_fail("the state")
        return super().rows(start, end, limit)


class SimulatedDisk:
    """Mutable. ``on_synced(number, position, entries)`` is called when writes up to a number are durable in the block at a position, with
    what they held; ``on_saved`` when the state store has done something.
    """

    def __init__(
        self,
        timeline: Timeline,
        random: Random,
        options: scenario.Disk,
        on_synced: Callable[[int, int, list[Entry]], None],
        on_saved: Callable[[Saved], None],
    ) -> None:
        self.log = MemoryLog()
        self.state = _State(self)
        self.syncs = 0
        self.failed_saves = 0
        self.failed_reads = 0
        self.is_asked = False
        """Whether it is the node that reads, in a step: only then may it fail."""
        self._timeline = timeline
        self._random = random
        self._slowest_us = options.slowest_ms * 1000
        self._fastest_us = options.sync_ms * 1000
        self._stalls = options.stalls
        self._on_synced = on_synced
        self._on_saved = on_saved
        self._pending: list[_Pending] = []
        """What waits for the next sync."""
        self._written: list[_Pending] = []
        """What the sync under way makes durable, one block of the log."""
        self._saves: deque[tuple[int, Save]] = deque()
        """What the store is asked for, each with the attempt at a checkpoint that it belongs to."""
        self._save_fails, self._read_fails = options.save_fails, options.read_fails
        self._full_until_us = 0
        self._attempt, self._failed = 1, 0
        """The last attempt, which began when the node heard of a failure, and the last that failed: nothing of that is done any more."""
        self._heard_us = 0
        self._is_syncing = False
        self._life = 0

    def append(self, number: int, entries: Sequence[Entry]) -> None:
        """Write one record; it is durable some time later."""
        self._pending.append(_Pending(number, entries))
        if not self._is_syncing:
            self._sync()

    def _sync(self) -> None:
        """One block and one sync for all that is waiting: whoever comes later waits for the next."""
        self._is_syncing = True
        self._written, self._pending = self._pending, []
        position = self.log.position
        self.log.stage([self.log.encode(record.entries) for record in self._written])
        self._timeline.after(self._delay_us(), self._synced, (self._life, position))

    def _delay_us(self) -> int:
        random = self._random
        delay_us = self._fastest_us + random.random() * (self._slowest_us - self._fastest_us)
        if self._stalls and random.random() < self._stalls:
            delay_us += random.random() * _LONGEST_STALL_US
        return int(delay_us)

    def _synced(self, argument: tuple[int, int]) -> None:
        life, position = argument
        if life != self._life:  # asked before a crash
            return
        self.syncs += 1
        self.log.sync()
        self._is_syncing = False
        written, self._written = self._written, []
        if self._pending:
            self._sync()
        self._on_synced(written[-1].number, position, [entry for record in written for entry in record.entries])

    def save(self, saves: Sequence[Save]) -> None:
        """Hand something to the state store, which does one thing after the other."""
        was_idle = not self._saves
        self._saves.extend((self._attempt, save) for save in saves)
        if was_idle and self._saves:
            self._timeline.after(self._delay_us(), self._done, self._life)

    def _done(self, life: int) -> None:
        if life != self._life:
            return
        attempt, save = self._saves.popleft()
        if self._saves:
            self._timeline.after(self._delay_us(), self._done, self._life)
        if attempt == self._failed:
            return
        failure = self._failure()
        if failure is not None:
            self.failed_saves += 1
            self._failed = attempt
            self.state.rollback()
            self._tell_later(Saved(save.number, failure=failure))
            return
        rows = data_bytes = 0
        if save.part is None:
            self.state.commit()
        else:
            rows, data_bytes = self.state.write(save.part)
        self._tell_later(Saved(save.number, rows, data_bytes))

    def _tell_later(self, saved: Saved) -> None:
        """The node hears of it somewhat later, in the order in which it was done: a crash may come before."""
        self._heard_us = max(self._heard_us, self._timeline.now_us + self._delay_us() // 2)
        self._timeline.at(self._heard_us, self._tell, (self._life, saved))

    def _tell(self, argument: tuple[int, Saved]) -> None:
        life, saved = argument
        if life != self._life:
            return
        if saved.failure is not None:
            self._attempt += 1
        self._on_saved(saved)

    def _failure(self) -> StorageError | None:
        """Whether the next thing the store is asked for fails."""
        if not self._save_fails:
            return None
        now_us = self._timeline.now_us
        if now_us >= self._full_until_us:
            if self._random.random() >= self._save_fails:
                return None
            if self._random.random() < 0.5:
                return StorageError("state: it cannot be written")
            self._full_until_us = now_us + int(self._random.random() * _LONGEST_FULL_US)
        return StorageError("state: the disk is full", code="storage-full")

    def may_fail(self, what: str) -> None:
        """Raise StorageError now and then, when a node reads."""
        if self._read_fails and self.is_asked and self._random.random() < self._read_fails:
            self.failed_reads += 1
            raise StorageError(f"{what}: it cannot be read")

    def heal(self) -> None:
        """From now on everything can be written and read."""
        self._save_fails = self._read_fails = 0.0
        self._full_until_us = 0

    def read_log(self, position: int) -> tuple[list[Entry], int]:
        """``CommitLog.read``, which may fail."""
        self.may_fail("the log")
        return self.log.read(position)

    def finish(self, last: Sequence[Entry]) -> None:
        """The process ends in order: all that waits is written, and this after it; nobody is told any more."""
        records = [record.entries for record in self._pending] + ([last] if last else [])
        self.log.stage([self.log.encode(entries) for entries in records])
        self.log.sync()

    def crash(self) -> int:
        """The power goes: of what was not synced a random beginning survives. Returns how many records are gone."""
        self._life += 1
        self._is_syncing = False
        self._pending, self._written = [], []
        self._saves.clear()
        self._attempt += 1
        self.state.crash()
        return self.log.crash(self._random.randint(0, self.log.staged - self.log.durable))
