"""Places in the code where a test lets a process die.

The question: does what is left between any two steps start again? A process with ``CRDTSTORE_CRASH_AT=name`` or
``name:count`` in its environment kills itself, as by SIGKILL, when it comes to that place for the ``count``-th time.
Without the variable ``reach`` does nothing; it is still called only where a system call is near.

    log-write-before         records are given to the log, nothing of them is written
    log-write-after          the block is written, not synced
    log-sync-before          the same place, named for the call that follows
    log-sync-after           the block is durable, not acknowledged
    log-switch-before        the segment is full, the next one is not in use
    log-switch-after         the next segment is in use, nothing is written to it
    log-remove-before        a segment below the cut is about to go
    log-remove-after         it is gone, the directory is not synced
    log-recycle-before       a segment below the cut is about to become the next one
    log-recycle-after        it has its new name, the directory is not synced
    checkpoint-begin         a checkpoint was begun, nothing is written
    checkpoint-write         a part of it is written, not committed
    checkpoint-commit-before all of it is written, not committed
    checkpoint-commit-after  it is committed, the log is not cut
    snapshot-rename-before   a snapshot is complete under a name that does not count
    snapshot-rename-after    it has its name
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from itertools import count

__all__ = ["NAMES", "VARIABLE", "reach"]

VARIABLE = "CRDTSTORE_CRASH_AT"
NAMES = tuple(line.split()[0] for line in (__doc__ or "").splitlines() if line.startswith("    "))


def _nothing(name: str) -> None:
    """Nothing happens here."""


def _resolve(setting: str | None) -> Callable[[str], None]:
    """What ``reach`` does under this setting.

    Raises:  ValueError for a name that is not in the table: a test that kills nobody proves nothing.
    """
    if not setting:
        return _nothing
    place, _, passage = setting.partition(":")
    if place not in NAMES:
        raise ValueError(f"{VARIABLE}: there is no place {place}; there are {', '.join(NAMES)}")
    passages, last = count(1), int(passage or 1)

    def die(name: str) -> None:
        if name == place and next(passages) == last:
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()  # the signal may reach another thread first

    return die


reach: Callable[[str], None] = _resolve(os.environ.get(VARIABLE))
"""Die here, if this place was asked for."""
