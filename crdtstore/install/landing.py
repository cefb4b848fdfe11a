"""Landing: the store names the group; now memory has to hold what a start would find.

The question: what may happen in between? Anything: the disk says that the group is ours already, and a crash only means that the next start
does the rest. But nobody hears of it before all of it is here. What a start would read at once is read in slices, since others are
served meanwhile. Whatever is on its way to the disk about the members comes first; and no checkpoint may be under way, or its last part
would not name the group: until it has landed the group is a guest of each checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from crdtstore.commit import chain_start
from crdtstore.engine.checkpoint import Checkpoint
from crdtstore.engine.engine import Engine
from crdtstore.engine.history import History

if TYPE_CHECKING:
    from crdtstore.saving import Saving

__all__ = ["Landing"]

_SLICE = 500
"""So many entries of ledgers are read in one step: some ms."""


class Landing:
    """Mutable; made once, when the store names the group."""

    def __init__(self, engine: Engine, saving: Saving, history: History) -> None:
        self._engine, self._saving, self._history = engine, saving, history
        self._checkpoint: Checkpoint = saving.open(engine)
        self._entries: Iterator[None] = self._checkpoint.load_ledgers()
        self._has_ledgers = False

    def go_on(self) -> bool:
        """Do some of it; return whether the group is in memory as it is on disk.

        Raises:  StorageError when it cannot be read; then this node has to stop, its next start finds the group or says why not.
        """
        if not self._has_ledgers:
            read = sum([1 for _ in islice(self._entries, _SLICE)])
            self._has_ledgers = read < _SLICE
        if not self._has_ledgers or self._saving.is_under_way or self._engine.membership.is_silent:
            return False
        self._take_over()
        return True

    def _take_over(self) -> None:
        engine, history = self._engine, self._history
        connected = [engine.replicas[peer] for peer in engine.connected]
        kept, number = engine.membership.keep(), engine.durability.number
        engine.checkpoint = self._checkpoint
        engine.checkpoint.load(has_ledgers=True)
        engine.membership.restore(kept)
        for replica in engine.replicas[len(history.base) :]:
            history.admit(replica, chain_start(engine.cluster, engine.group, replica))
        engine.history = history
        engine.checkpoint.check()
        engine.durability.number = engine.durability.synced = number
        engine.connected = {engine.admit(replica) for replica in connected}
