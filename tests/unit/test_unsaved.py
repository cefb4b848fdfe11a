"""What is unsaved: the order in which a checkpoint writes, and what is left when it fails."""

from __future__ import annotations

from typing import Any

import pytest

from crdtstore.kernel import Tree
from crdtstore.leaves import DROP, PUT
from crdtstore.storage.rows import LEAVES
from crdtstore.testing.laws import BASE_MS, members
from tests.laws.kept import Kept


class Shelf(Kept):
    """A replica that is told effects. Mutable."""

    def __init__(self) -> None:
        super().__init__(0, members(("us", "eu")))
        self.seq = 0

    def do(self, *effects: Any, seen: int | None = None) -> None:
        self.seq += 1
        self.keyspace.tree.bring_all(list(effects))
        cut = [self.seq - 1 if seen is None else seen, 0]
        self.keyspace.tree.apply(self.seq, BASE_MS + self.seq << 16, cut, list(effects))

    def put(self, *path: Any) -> None:
        self.do(PUT, list(path), self.seq)

    def drop(self, *path: Any, seen: int | None = None) -> None:
        self.do(DROP, list(path), None, seen=seen)

    def check(self) -> None:
        """What is on disk, and only that, is what was saved."""
        self.checkpoint(1)
        self.evict()
        assert self.keyspace.tree.share([]) == self.digest


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setattr(Tree, "sweep_above", 2)
    return Shelf()


def test_a_branch_that_is_dropped_and_written_again_goes_before_it_comes(shelf: Shelf) -> None:
    for part in range(5):
        shelf.put("c", "k", part)
    shelf.checkpoint()
    shelf.drop("c", "k")
    shelf.put("c", "k", 3)
    shelf.begin()
    parts = []
    while (part := shelf.residence.unsaved.take(1)) is not None:
        parts.append((len(part.ranges), len(part.rows)))
        shelf.store.write(part)
    assert parts[0][0] == 1, "what is gone as a whole goes first"
    assert not any(ranges for ranges, _ in parts[1:])
    shelf.store.commit()
    shelf._end(is_saved=True)
    assert len(shelf.rows(LEAVES)) == 1


def test_a_drop_after_the_checkpoint_began_is_not_in_it(shelf: Shelf) -> None:
    for part in range(5):
        shelf.put("c", "k", part)
    before = shelf.digest
    shelf.begin()
    shelf.take(1)
    shelf.drop("c", "k")
    shelf.put("c", "k", 9)
    shelf.finish(1)
    assert len(shelf.rows(LEAVES)) == 5
    shelf.restart()
    assert shelf.digest == before


def test_what_outlives_a_drop_in_slices_is_written_anew(shelf: Shelf) -> None:
    for part in range(6):
        shelf.put("c", "k", part)
    shelf.checkpoint()
    shelf.drop("c", "k", seen=3)
    assert not shelf.keyspace.tree.is_settled
    shelf.begin()
    shelf.finish(1)
    assert len(shelf.rows(LEAVES)) == 3
    shelf.check()


@pytest.mark.parametrize("written", [0, 1, 2, 9])
@pytest.mark.parametrize("later", ["nothing", "the key", "below", "a drop", "all anew"])
def test_a_checkpoint_that_fails_leaves_everything_to_the_next(shelf: Shelf, written: int, later: str) -> None:
    for part in range(4):
        shelf.put("c", "k", part)
    shelf.put("c", "k")
    shelf.put("c", "other")
    shelf.checkpoint()
    shelf.drop("c", "k")
    shelf.put("c", "k", 1)
    shelf.put("c", "third")
    shelf.begin()
    for _ in range(written):
        shelf.take(1)
    if later == "the key":
        shelf.put("c", "k")
    elif later == "below":
        shelf.put("c", "k", 2)
    elif later != "nothing":
        shelf.drop("c", "k")
    if later == "all anew":
        shelf.put("c", "k", 3)
    shelf.fail()
    shelf.check()
    rows = {"nothing": 1, "the key": 2, "below": 2, "a drop": 0, "all anew": 1}[later]
    assert len(shelf.rows(LEAVES)) == rows + 2


def test_what_was_needed_is_freed_in_slices(shelf: Shelf) -> None:
    for key in range(50):
        shelf.put("c", f"{key}")
    shelf.checkpoint(7)
    calls = 1
    while shelf.residence.unsaved.tidy(30):
        calls += 1
    assert calls >= 4
    assert not len(shelf.residence.unsaved)
