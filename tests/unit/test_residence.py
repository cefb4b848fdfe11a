"""Keys in memory and on disk: what is remembered of them is bounded, and no key is passed over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from crdtstore import residence as module
from crdtstore.errors import StorageError
from crdtstore.kernel import Tree
from crdtstore.leaves import DROP, PUT, SEQ_BITS
from crdtstore.residence import Residence, Usage
from crdtstore.storage.memory_state import MemoryState
from crdtstore.storage.protocol import Slice
from crdtstore.storage.rows import LEAVES, row_path
from crdtstore.testing.laws import members

NUMBER = 1
MUCH = 1 << 40


class Kept:
    """A tree with a store, and nobody else. Mutable."""

    def __init__(self, store: MemoryState | None = None) -> None:
        self.store = store or MemoryState()
        self.tree = Tree(members(["us"]))
        self.residence = Residence(self.tree, self.store, NUMBER, Usage(), is_empty=store is None)
        self.tree.residence = self.residence
        self._seqs: Iterator[int] = iter(range(1, 1 << 30))

    def do(self, kind: int, *path: str) -> None:
        seq = next(self._seqs)
        effects = [kind, list(path), None if kind == DROP else 1]
        self.tree.bring_all(effects)
        self.tree.apply(0 << SEQ_BITS | seq, seq, [seq], effects)

    def save(self) -> None:
        unsaved = self.residence.unsaved
        unsaved.begin()
        while (part := unsaved.take(100)) is not None:
            self.residence.counted(*self.store.write(part))
        self.store.commit()
        unsaved.end(is_saved=True)

    def evict(self) -> None:
        while self.residence.evict(-1, 1 << 20):
            pass


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_what_stands_at_a_collection_itself_hides_no_key(limit: int) -> None:
    """The last row of what is read at once may be one that is no key's."""
    made = Kept()
    for at in range(3):
        made.do(PUT, f"c{at}")
        for key in "ab":
            made.do(PUT, f"c{at}", key)
    made.save()
    again = Kept(made.store)
    assert again.residence.warm_up(limit, MUCH) == (limit < 9)
    for at in range(3):
        for key in "ab":
            assert again.tree.entry(f"c{at}", key) is not None, f"c{at} {key}"


def test_a_scan_of_what_is_cold_passes_over_no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 1)
    made = Kept()
    made.do(PUT, "c")
    made.do(PUT, "c", "k")
    whole = made.tree.share([])
    made.save()
    assert Kept(made.store).tree.share([]) == whole


def test_what_was_read_is_remembered_of_so_many_keys_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_READ", 10)
    made = Kept()
    made.do(PUT, "c", "k")
    made.save()
    made.evict()
    assert made.residence.is_pressed
    for at in range(100):
        made.do(PUT, "c", str(at))
        assert made.tree.entry("c", str(at)) is not None
        made.do(DROP, "c", str(at))
    assert len(made.residence._read) <= 10


def test_a_key_that_comes_back_before_the_next_checkpoint_can_be_let_go() -> None:
    """Tidying up which keys are in memory must not lose one that is gone just now."""
    made = Kept()
    made.do(PUT, "c", "k")
    made.do(DROP, "c", "k")
    for at in range(0x5000):
        made.residence._enlist("c", f"gone long ago {at}")
    assert len(made.residence._residents["c"]) < 0x4000, "tidied up"
    made.do(PUT, "c", "k")
    made.save()
    made.evict()
    assert made.residence.rows == 0


def test_a_row_of_a_later_version_is_a_failure_to_read_and_nobody_elses_fault() -> None:
    made = Kept()
    made.do(PUT, "c", "k")
    made.save()
    made.store.write(Slice(rows=[(row_path(NUMBER, LEAVES, ["c", "k"]), b"\x63 of later")]))
    made.store.commit()
    with pytest.raises(StorageError, match="format 99"):
        Kept(made.store).tree.entry("c", "k")
    with pytest.raises(StorageError, match="format 99"):
        Kept(made.store).tree.share([])
