"""The thread that makes records durable.

The question: how does one sync serve many writers? While the disk is busy with one batch of records the next batch gathers on the event
loop; when the first returns, all that gathered is written with one sync. The thread makes few, big C calls, because Python code in a
thread starves beside a busy loop.

A disk that is full is not one that failed: the records that found no room are written again every ``RETRY_S``, and everything behind them
waits. Any other error is final.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import NamedTuple

from crdtstore.errors import StorageError
from crdtstore.storage.cutting import SegmentLost
from crdtstore.storage.protocol import CommitLog
from crdtstore_node.identity import Anchor

__all__ = ["RETRY_S", "LogWriter"]

RETRY_S = 1.0
"""So often what found no room is written again."""


class _Records(NamedTuple):
    number: int
    records: list[bytes]


class _Cut(NamedTuple):
    position: int


class LogWriter:
    """Hands records to the log in order. Lives on the loop; the functions it is given are called there.

    ``on_written(number, position)``: all records up to this number are durable, those that were not before in the block at this
    position · ``on_full(error)``: there is no room for the next ones; the next ``on_written`` says that there is again ·
    ``on_failed(error)``: nothing is written any more · ``on_not_cut(error)``: what is not needed any more could not be removed.
    """

    def __init__(
        self,
        log: CommitLog,
        on_written: Callable[[int, int], None],
        on_failed: Callable[[StorageError], None],
        on_full: Callable[[StorageError], None] = lambda error: None,
        on_not_cut: Callable[[StorageError], None] = lambda error: None,
    ) -> None:
        self._log = log
        self._on_written = on_written
        self._on_failed = on_failed
        self._on_full = on_full
        self._on_not_cut = on_not_cut
        self._loop = asyncio.get_running_loop()
        self.anchor: Anchor | None = None
        """Is told how far the log is durable before anybody else is."""
        self._gathered: list[bytes] = []
        self._number = 0
        self._is_busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._gives_up = Event()
        """Set when what finds no room is not tried again: the process ends."""
        self._queue: SimpleQueue[_Records | _Cut | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="commit-log", daemon=True)
        self._thread.start()

    def put(self, number: int, record: bytes) -> None:
        """Write this record after all before it; ``on_written`` will name its number or a later one."""
        self._gathered.append(record)
        self._number = number
        if not self._is_busy:
            self._hand_over()

    def cut(self, position: int) -> None:
        """Nothing in the log below this position is needed any more."""
        self._queue.put(_Cut(position))

    async def finish(self) -> None:
        """Wait until all that was put is written, or never will be: what finds no room now is tried once more."""
        self._gives_up.set()
        await self._idle.wait()

    async def stop(self) -> None:
        """Finish what was put, end the thread."""
        await self.finish()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _hand_over(self) -> None:
        self._is_busy = True
        self._idle.clear()
        records, self._gathered = self._gathered, []
        self._queue.put(_Records(self._number, records))

    def _written(self, number: int, position: int) -> None:
        self._is_busy = False
        if self._gathered:
            self._hand_over()
        self._on_written(number, position)
        if not self._is_busy:
            self._idle.set()

    def _failed(self, error: StorageError) -> None:
        self._is_busy = True  # for ever: nothing is handed over any more
        self._gathered.clear()
        self._idle.set()
        self._on_failed(error)

    # --- in the thread

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, _Cut):
                self._cut(item.position)
            else:
                self._write(item)

    def _write(self, item: _Records) -> None:
        log, tell = self._log, self._loop.call_soon_threadsafe
        is_told = False
        while True:
            try:
                position = log.write(item.records)
            except StorageError as error:
                if error.code != "storage-full" or self._gives_up.is_set():
                    tell(self._failed, error)
                    return
                if not is_told:
                    is_told = True
                    tell(self._on_full, error)
                self._gives_up.wait(RETRY_S)
                self._cut_waiting()  # what is cut makes room
            except Exception as error:  # whatever it is, nobody may take these records for durable
                broken = StorageError(f"the commit log failed: {type(error).__name__}: {error}")
                broken.effect = "unknown"
                tell(self._failed, broken)
                return
            else:
                if self.anchor is not None:
                    self.anchor.hold(log.position)
                tell(self._written, item.number, position)
                return

    def _cut_waiting(self) -> None:
        """Nothing but cuts is handed over while records find no room."""
        while True:
            try:
                item = self._queue.get_nowait()
            except Empty:
                return
            if not isinstance(item, _Cut):
                self._queue.put(item)
                return
            self._cut(item.position)

    def _cut(self, position: int) -> None:
        try:
            self._log.cut(position)
        except SegmentLost as error:
            self._loop.call_soon_threadsafe(self._failed, error)
        except StorageError as error:
            self._loop.call_soon_threadsafe(self._on_not_cut, error)
        except Exception as error:
            broken = StorageError(f"the commit log could not be cut: {type(error).__name__}: {error}")
            self._loop.call_soon_threadsafe(self._on_not_cut, broken)
