"""Numbering: under which number the rows of a group stand in the state store.

The question: which rows of a store count? Those of the groups that the row about the node names. An install writes the rows of a group
long before it is known whether it will succeed, and any checkpoint may commit them meanwhile; so there may be rows under numbers that
nobody names. They are *waste*: at a start they are looked for, the next checkpoint removes them, and until that is on disk their number
is given to nobody, or another group would find them among its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from crdtstore.storage.protocol import Slice, StateRows
from crdtstore.storage.rows import META, row_path

__all__ = ["MOST_GROUPS", "Numbering"]

MOST_GROUPS = (1 << 16) - 2


class Numbering:
    """The numbers of the groups of one node. Mutable."""

    def __init__(self) -> None:
        self._of: dict[str, int] = {}
        self._lent: set[int] = set()
        """Numbers of groups that are being installed."""
        self._waste: set[int] = set()
        self._removed: set[int] = set()
        """Those of them that the checkpoint under way removes."""

    def load(self, rows: StateRows, named: Mapping[str, int]) -> None:
        """These groups the store names; all other rows in it are waste.

        Cost:    a look per number that has rows.
        Raises:  StorageError when it cannot be read.
        """
        self._of = dict(named)
        known = {0, *named.values()}
        number = 1
        while number <= MOST_GROUPS and (
            found := rows.rows(row_path(number, META, []), row_path(MOST_GROUPS + 1, META, []), 1)
        ):
            number = int.from_bytes(found[0][0][:2], "big")
            if number not in known:
                self._waste.add(number)
            number += 1

    def of(self, group: str) -> int:
        """The number of a group, which gets one if it has none."""
        number = self._of.get(group)
        if number is None:
            number = self._of[group] = self._free()
        return number

    def find(self, group: str) -> int | None:
        """The number of a group, None when it has none."""
        return self._of.get(group)

    def _free(self) -> int:
        taken = {*self._of.values(), *self._lent, *self._waste}
        return next(number for number in range(1, MOST_GROUPS + 1) if number not in taken)

    # --- groups that are being installed

    def lend(self) -> int:
        """A number under which nothing stands."""
        number = self._free()
        self._lent.add(number)
        return number

    def keep(self, group: str, number: int) -> None:
        """The install succeeded: the number is that of the group."""
        self._lent.discard(number)
        before = self._of.get(group)
        if before is not None and before != number:
            self._waste.add(before)
        self._of[group] = number

    def give_up(self, number: int) -> None:
        """The install came to nothing: what it wrote is waste."""
        self._lent.discard(number)
        self._waste.add(number)

    # --- waste

    def remove(self) -> Iterator[Slice]:
        """A checkpoint begins: what it has to remove."""
        self._removed = set(self._waste)
        for number in sorted(self._removed):
            yield Slice(ranges=[(row_path(number, META, []), row_path(number + 1, META, []))])

    def saved(self) -> None:
        """The checkpoint is on disk."""
        self._waste -= self._removed
        self._removed = set()
