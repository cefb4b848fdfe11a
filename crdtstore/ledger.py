"""Ledgers: what a replica remembers beside its state, as rows of checkpoints.

The question: as of when? As of the instant at which the checkpoint began, like the state itself: what is replayed from the log afterwards
has to meet what was known then, no more and no less. So whoever changes an entry says so first, and an entry that the checkpoint has yet
to write is encoded before it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from crdtstore.storage.protocol import Slice, StateRows
from crdtstore.storage.rows import PREFIX_BYTES, key_range, parts_of, row_path
from crdtstore.values import pack, unpack

__all__ = ["Ledger"]

Name = tuple[Any, ...]
"""What names an entry: the parts of its row's path."""


class Ledger:
    """The changes of one table since its last checkpoint. Mutable.

    ``value_of`` gives what is to be stored under a name, anything that ``values.pack`` takes; None: it is gone.
    """

    __slots__ = ("_changed", "_frozen", "_litter", "_space", "_taken", "_value_of", "is_kept")

    def __init__(self, space: int, value_of: Callable[[Name], Any]) -> None:
        self._space = space
        self._value_of = value_of
        self.is_kept = False
        """Whether there is a store at all."""
        self._changed: dict[Name, None] = {}
        self._frozen: dict[Name, None] = {}
        self._taken: list[tuple[Name, Any]] = []
        """Encoded, and not known to be on disk."""
        self._litter: list[tuple[Name, Any]] = []

    def note(self, name: Name) -> None:
        """An entry is about to change."""
        if self.is_kept:
            self._changed[name] = None
            if name in self._frozen:
                del self._frozen[name]
                self._encode(name)

    def _encode(self, name: Name) -> None:
        self._taken.append((name, self._value_of(name)))

    def begin(self) -> None:
        """From now on ``take`` gives the entries as they are now."""
        self._frozen, self._changed, self._taken = self._changed, {}, []

    def take(self, number: int, limit: int, taken: int) -> tuple[Slice | None, int]:
        """The next part of the checkpoint, of at most so many rows, after the first ``taken``; and how many are taken then."""
        while self._frozen and len(self._taken) < taken + limit:
            self._encode(self._frozen.popitem()[0])  # no other way to take the last one is O(1)
        part = Slice()
        for name, value in self._taken[taken : taken + limit]:
            where = row_path(number, self._space, name)
            if value is None:
                part.gone.append(where)
            else:
                part.rows.append((where, pack(value)))
        upto = taken + len(part.gone) + len(part.rows)
        return (part if upto > taken else None), upto

    def end(self, *, is_saved: bool) -> None:
        """The checkpoint is on disk, or it failed and all of it has still to be written."""
        if not is_saved:
            self._changed.update(self._frozen)
            self._changed.update(dict.fromkeys(name for name, _ in self._taken))
        self._litter = self._taken if is_saved else []
        self._frozen, self._taken = {}, []

    def tidy(self, limit: int) -> bool:
        """Free up to so many entries of what the last checkpoint needed; return whether there are more."""
        del self._litter[-limit:]
        return bool(self._litter)

    def load(self, rows: StateRows, number: int) -> Iterator[tuple[list[Any], Any]]:
        """All entries that the store holds: name and value.

        Raises:  StorageError when one cannot be read.
        """
        start, end = key_range(number, self._space, [])
        while found := rows.rows(start, end, _CHUNK):
            for where, data in found:
                yield parts_of(where, PREFIX_BYTES), unpack(data)
            if len(found) < _CHUNK:
                return
            start = found[-1][0] + b"\0"


_CHUNK = 1_000
