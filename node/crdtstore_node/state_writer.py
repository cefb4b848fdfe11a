"""The thread that writes checkpoints to the state store.

The question: what becomes of a checkpoint that fails in the middle? All of it is rolled back in the thread at once, and what was handed
over before the failure was heard of is left out, or half of an old checkpoint would stand in the next one. So everything handed over
belongs to an *attempt*; the loop begins a new one by ``restart``, once the service knows of the failure.

The thread makes few, big C calls, because Python code in a thread starves beside a busy loop. And it rests after each part, or a checkpoint
would take a core and the disk for itself while users wait for both; unless the log grows faster than what is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Event, Thread
from time import perf_counter
from typing import NamedTuple

from crdtstore.errors import StorageError
from crdtstore.saving import Save, Saved
from crdtstore.storage.protocol import StateStore

__all__ = ["StateWriter"]


_REST = 4
"""So many times as long as a part took the thread rests, ``_MOST_REST_S`` at most: 50,000 rows take 5 s instead of 1."""
_MOST_REST_S = 0.03


class _Task(NamedTuple):
    attempt: int
    save: Save


class StateWriter:
    """Carries out what a service wants saved, in order. Lives on the loop; ``on_saved`` is called there, for each until one fails."""

    def __init__(self, store: StateStore, on_saved: Callable[[Saved], None]) -> None:
        self._store = store
        self._on_saved = on_saved
        self._loop = asyncio.get_running_loop()
        self._hurries = Event()
        self._attempt = 1
        self._failed_attempt = 0
        """In the thread: nothing of this attempt is done any more."""
        self._queue: SimpleQueue[_Task | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="state-store", daemon=True)
        self._thread.start()

    def put(self, save: Save) -> None:
        """Do this after all before it."""
        self._queue.put(_Task(self._attempt, save))

    def hurry(self, hurries: bool) -> None:
        """Whether there is no time to rest."""
        if hurries != self._hurries.is_set():
            (self._hurries.set if hurries else self._hurries.clear)()

    def restart(self) -> None:
        """The service knows that an attempt failed: what comes now belongs to another."""
        self._attempt += 1

    async def stop(self) -> None:
        """End the thread when what was put is done; a checkpoint that is not committed by then is forgotten."""
        self._hurries.set()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    # --- in the thread

    def _run(self) -> None:
        while (task := self._queue.get()) is not None:
            if task.attempt == self._failed_attempt:
                continue
            start = perf_counter()
            saved = self._do(task.save)
            took = perf_counter() - start
            if saved.failure is not None:
                self._failed_attempt = task.attempt
            self._loop.call_soon_threadsafe(self._on_saved, saved)
            if task.save.part is not None:
                self._hurries.wait(min(_REST * took, _MOST_REST_S))
        self._roll_back()

    def _do(self, save: Save) -> Saved:
        try:
            if save.part is None:
                self._store.commit()
                return Saved(save.number)
            return Saved(save.number, *self._store.write(save.part))
        except StorageError as error:
            failure = error
        except Exception as error:  # whatever it is, nobody may take this for saved
            failure = StorageError(f"the state store failed: {type(error).__name__}: {error}")
        failure.__traceback__ = None  # it is kept for long, and would keep what the thread was at
        self._roll_back()
        return Saved(save.number, failure=failure)

    def _roll_back(self) -> None:
        with suppress(StorageError):  # then the next write fails too, and says so
            self._store.rollback()
