"""The thread that makes records durable.

The question: how does one sync serve many writers? While the disk is busy with one batch of records the next batch gathers on the event
loop; when the first returns, all that gathered is written with one sync. The thread makes few, big C calls, because Python code in a
thread starves beside a busy loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

from crdtstore.errors import StorageError
from crdtstore.storage.protocol import CommitLog

__all__ = ["LogWriter"]


class LogWriter:
    """Hands records to the log in order. Lives on the loop; ``on_written`` and ``on_failed`` are called there."""

    def __init__(
        self, log: CommitLog, on_written: Callable[[int], None], on_failed: Callable[[StorageError], None]
    ) -> None:
        self._log = log
        self._on_written = on_written
        self._on_failed = on_failed
        self._loop = asyncio.get_running_loop()
        self._gathered: list[bytes] = []
        self._number = 0
        self._is_busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._queue: SimpleQueue[tuple[int, list[bytes]] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="commit-log", daemon=True)
        self._thread.start()

    def put(self, number: int, record: bytes) -> None:
        """Write this record after all before it; ``on_written`` will name its number or a later one."""
        self._gathered.append(record)
        self._number = number
        if not self._is_busy:
            self._hand_over()

    async def finish(self) -> None:
        """Wait until all that was put is written, or never will be."""
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
        self._queue.put((self._number, records))

    def _written(self, number: int) -> None:
        self._is_busy = False
        if self._gathered:
            self._hand_over()
        self._on_written(number)
        if not self._is_busy:
            self._idle.set()

    def _failed(self, error: StorageError) -> None:
        self._gathered.clear()  # busy for ever: nothing is handed over any more
        self._idle.set()
        self._on_failed(error)

    # --- in the thread

    def _run(self) -> None:
        log, loop = self._log, self._loop
        while (item := self._queue.get()) is not None:
            number, records = item
            try:
                log.write(records)
            except StorageError as error:
                loop.call_soon_threadsafe(self._failed, error)
            except Exception as error:  # whatever it is, nobody may take these records for durable
                broken = StorageError(f"the commit log failed: {type(error).__name__}: {error}")
                broken.effect = "unknown"
                loop.call_soon_threadsafe(self._failed, broken)
            else:
                loop.call_soon_threadsafe(self._written, number)
