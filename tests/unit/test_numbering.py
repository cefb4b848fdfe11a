"""Numbers of groups in the state store: no group is ever given rows of another."""

from __future__ import annotations

from crdtstore.numbering import Numbering
from crdtstore.storage.memory_state import MemoryState
from crdtstore.storage.protocol import Slice
from crdtstore.storage.rows import HOLDS, LEAVES, META, row_path


def store(*numbers: int) -> MemoryState:
    """A store with rows under these numbers."""
    made = MemoryState()
    rows = [(row_path(number, space, ["a"]), b"x") for number in numbers for space in (META, LEAVES, HOLDS)]
    made.write(Slice(rows=rows))
    made.commit()
    return made


def numbers(rows: MemoryState) -> set[int]:
    return {int.from_bytes(path[:2], "big") for path, _ in rows.rows(b"", b"\xff" * 4)}


def remove(numbering: Numbering, rows: MemoryState) -> None:
    for part in numbering.remove():
        rows.write(part)
    rows.commit()


def test_groups_are_numbered_as_they_come() -> None:
    numbering = Numbering()
    assert [numbering.of(group) for group in ("a", "b", "a", "c")] == [1, 2, 1, 3]
    assert numbering.find("b") == 2
    assert numbering.find("d") is None


def test_rows_that_nobody_names_are_removed_before_their_number_is_used() -> None:
    rows = store(0, 1, 2, 4, 65_000)
    numbering = Numbering()
    numbering.load(rows, {"a": 1, "b": 3})
    assert numbering.of("b") == 3
    assert numbering.of("c") == 5
    assert numbering.lend() == 6
    remove(numbering, rows)
    assert numbers(rows) == {0, 1}
    assert numbering.of("d") == 7, "the removal may fail yet"
    numbering.saved()
    assert numbering.of("e") == 2
    assert numbering.of("f") == 4


def test_a_removal_that_failed_is_done_by_the_next_checkpoint() -> None:
    rows = store(0, 1, 2)
    numbering = Numbering()
    numbering.load(rows, {"a": 1})
    for part in numbering.remove():
        rows.write(part)
    rows.rollback()
    remove(numbering, rows)
    assert numbers(rows) == {0, 1}


def test_a_lent_number_becomes_that_of_the_group_or_waste() -> None:
    numbering = Numbering()
    numbering.of("a")
    lent = numbering.lend()
    assert numbering.of("b") != lent
    numbering.keep("c", lent)
    assert numbering.of("c") == lent
    other = numbering.lend()
    numbering.give_up(other)
    assert numbering.lend() != other
    list(numbering.remove())
    late = numbering.lend()
    numbering.give_up(late)
    numbering.saved()
    assert numbering.of("d") == other, "what was removed may be used"
    assert numbering.of("e") != late, "what became waste meanwhile may not"
