"""Farewell: what a replica that is to leave gives away, before it says that no commit of its own follows.

The question: what would go with it that others cannot make good? Rights of bounded counters: nobody else may spend them, ever. So all that
are its own move to another member, in slices, and its holds are ended before, for nobody can confirm them at a replica that takes no
writes. After a crash it begins anew: what is given already is not its own any more. What is given to it after its last word is stranded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from crdtstore.causal import ReplicaId
from crdtstore.engine.demand import Key
from crdtstore.engine.output import Output
from crdtstore.errors import StorageError
from crdtstore.leaves import Branch
from crdtstore.types.bounded_counter import BoundedCounter, account, move

if TYPE_CHECKING:
    from crdtstore.engine.engine import Engine

__all__ = ["Farewell"]

_SUFFIX = f":{BoundedCounter.name}"
_SLICE, _LOOKS = 100, 500
"""So many keys are given away, and so many of any type looked at, in one step."""
_PAUSE_MS = 100
_NEVER = 1 << 62


class Farewell:
    """Mutable; part of the rights of one replica."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._scan: Iterator[Key | None] | None = None
        self._keys: deque[Key] = deque()
        """Of which something may be its own."""
        self.is_done = False
        """Whether nothing is left to give."""
        self.next_ms = 0

    def note(self, key: Key) -> None:
        """Somebody gave this replica rights of a key."""
        if self._scan is not None and not self.is_done:
            self._keys.append(key)

    def go_on(self, now_ms: int, out: Output) -> None:
        """Give away some more.

        Raises:  StorageError when a key cannot be read; it is tried again.
        """
        engine, heir = self._engine, self._heir()
        self.next_ms = now_ms + (1 if heir is not None else _PAUSE_MS)
        if heir is None or engine.rights.holds.end_due(_NEVER, now_ms, out):
            return
        if self._look():
            return
        batch = list(islice(self._keys, _SLICE))
        me, effects = engine.replicas[engine.me], list[Any]()
        for key in dict.fromkeys(batch):
            amount = account(engine.keyspace.view(*key)).rights.get(me, 0)
            if amount > 0:
                kind, path, value = move(heir, amount)
                effects += kind, [*key, *path], value
        if effects:
            engine.issue(effects, "rights of a region that leaves", now_ms, out)
        for _ in batch:
            self._keys.popleft()
        self.is_done = not self._keys

    def _heir(self) -> ReplicaId | None:
        """Who gets all: the oldest of those that are heard and stay."""
        engine = self._engine
        heard = [(row.is_leaving, at) for at, other in enumerate(engine.others) if (row := engine.rows.newest[other])]
        return engine.replicas[engine.others[min(heard)[1]]] if heard else None

    def _look(self) -> bool:
        """Look at some more keys; return whether there may be others."""
        if self._scan is None:
            self._scan = self._all()
        try:
            found = list(islice(self._scan, _LOOKS))
        except StorageError:
            self._scan = None
            raise
        self._keys += [key for key in found if key is not None]
        return len(found) == _LOOKS

    def _all(self) -> Iterator[Key | None]:
        """All keys of bounded counters, first those that are on disk only; None for each of another type."""
        tree = self._engine.keyspace.tree
        if tree.residence is not None:
            for at, _ in tree.residence.cold([]):
                yield (at[0], at[1]) if at[0].endswith(_SUFFIX) else None
        for collection, branch in list(tree.root.children.items()):
            if collection.endswith(_SUFFIX) and type(branch) is Branch:
                yield from [(collection, key) for key in branch.children]
