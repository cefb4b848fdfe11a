"""Ledgers: what a checkpoint writes of a table is the table as it was when it began."""

from __future__ import annotations

from typing import Any

from crdtstore.ledger import Ledger
from crdtstore.storage.memory_state import MemoryState
from crdtstore.storage.rows import PLANS

NUMBER = 3


class Table:
    """A dict with a ledger, and a store for it. Mutable."""

    def __init__(self) -> None:
        self.entries: dict[tuple[Any, ...], Any] = {}
        self.ledger = Ledger(PLANS, self.entries.get)
        self.ledger.is_kept = True
        self.store = MemoryState()
        self._taken = 0

    def set(self, name: str, value: Any) -> None:
        self.ledger.note((name,))
        if value is None:
            self.entries.pop((name,), None)
        else:
            self.entries[name,] = value

    def begin(self) -> None:
        self.ledger.begin()
        self._taken = 0

    def write(self, limit: int) -> int:
        """The next part; how many rows it has."""
        part, self._taken = self.ledger.take(NUMBER, limit, self._taken)
        if part is None:
            return 0
        self.store.write(part)
        return len(part.rows) + len(part.gone)

    def finish(self) -> None:
        while self.write(2):
            pass
        self.store.commit()
        self.ledger.end(is_saved=True)

    @property
    def on_disk(self) -> dict[str, Any]:
        return {name[0]: value for name, value in self.ledger.load(self.store, NUMBER)}


def test_what_changes_while_it_is_written_is_written_as_it_was() -> None:
    table = Table()
    for name in "abcde":
        table.set(name, 1)
    table.begin()
    assert table.write(2) == 2
    for name in "abcde":
        table.set(name, 2)
    table.set("f", 2)
    table.set("e", None)
    table.finish()
    assert table.on_disk == dict.fromkeys("abcde", 1)
    table.begin()
    table.finish()
    assert table.on_disk == {**dict.fromkeys("abcd", 2), "f": 2}


def test_what_a_failed_checkpoint_wrote_is_written_by_the_next() -> None:
    table = Table()
    for name in "abc":
        table.set(name, 1)
    table.begin()
    table.write(1)
    table.set("a", 2)
    table.set("d", 2)
    table.store.rollback()
    table.ledger.end(is_saved=False)
    assert table.on_disk == {}
    table.begin()
    table.finish()
    assert table.on_disk == {"a": 2, "b": 1, "c": 1, "d": 2}
    table.begin()
    assert table.write(9) == 0


def test_a_long_table_is_read_in_chunks_and_freed_in_slices() -> None:
    table = Table()
    for at in range(2_500):
        table.set(f"{at:05}", at)
    table.begin()
    assert table.write(5_000) == 2_500
    table.finish()
    assert list(table.on_disk.values()) == list(range(2_500))
    calls = 1
    while table.ledger.tidy(1_000):
        calls += 1
    assert calls == 3


def test_without_a_store_nothing_is_remembered() -> None:
    table = Table()
    table.ledger.is_kept = False
    table.set("a", 1)
    table.begin()
    assert table.write(1) == 0
