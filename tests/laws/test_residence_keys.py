"""Keys that are awkward on disk: prefixes of each other, borders of chunks, text of every kind; listed, read, dropped and warmed up."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from crdtstore import state
from crdtstore.leaves import ADD, DROP, PUT
from crdtstore.residence import Usage
from crdtstore.storage.rows import LEAVES
from crdtstore.testing.laws import BASE_MS, Bare, members
from tests.laws.kept import Kept, check_counts

MEMBERS = members(("us", "eu"))
NAMES = ["", "\0", "\0\0", "\0\1", "\1", "\1\1", "\1\2", " ", "a", "a\0", "a\0b", "a\1", "aa", "ab", "b", "z" * 300]
NAMES += ["é", "\ud7ff", "\ue000", "\uffff", "😀", "😀a", "\U0010ffff", "a" * 299 + "\0", "a" * 299 + "😀", "~"]
PREFIXES = ["", "\0", "a", "a\0", "aa", "z", "😀", "\uffff", "none"]
BIG = 700


class Pair:
    """A replica with a store and one without, told the same. Mutable."""

    def __init__(self) -> None:
        self.plain, self.kept = Bare(0, MEMBERS), Kept(0, MEMBERS)
        self.seq = 0

    def commit(self, *effects: object) -> None:
        self.seq += 1
        stamp, cut = BASE_MS + self.seq << 16, [self.seq - 1, 0]
        for replica in (self.plain, self.kept):
            tree = replica.keyspace.tree
            tree.bring_all(list(effects))
            tree.apply(self.seq, stamp, cut, list(effects))
            replica.applied[0] = self.seq

    def put(self, *path: object) -> None:
        self.commit(PUT, list(path), self.seq)

    def compare(self) -> None:
        for replica in (self.plain, self.kept):  # a big branch that was on disk goes in slices, else perhaps at once
            replica.keyspace.tree.run_sweeps(1 << 30)
        for collection in ("c", "ca", "d"):
            for prefix in PREFIXES:
                for after in ("", "\0", "a", "a\0", "aa", "k0003", "😀", "\U0010ffff"):
                    there = [list(one.keyspace.tree.keys(collection, after, prefix)) for one in (self.plain, self.kept)]
                    assert there[0] == there[1], (collection, prefix, after)
        one, other = self.plain.keyspace.tree, self.kept.keyspace.tree
        assert one.digest == other.digest == other.share([]) == one.share([])

    def forget(self) -> None:
        """Everything is on disk only."""
        self.kept.checkpoint(1000)
        self.kept.evict()
        assert not self.kept.keyspace.tree.root.children
        check_counts(self.kept)


def _full() -> Pair:
    pair = Pair()
    for collection in ("c", "ca"):
        for name in NAMES:
            pair.put(collection, name)
            pair.put(collection, name, "x", 7)
    for at in range(BIG):
        pair.put("c", "big", at)
        pair.put("d", f"k{at:04}")
    return pair


@pytest.fixture(scope="module")
def shelf() -> Pair:
    pair = _full()
    pair.forget()
    return pair


def test_every_list_from_disk_is_the_one_from_memory(shelf: Pair) -> None:
    shelf.compare()
    shelf.forget()
    rows = shelf.kept.rows(LEAVES)
    assert len(rows) == 4 * len(NAMES) + 2 * BIG
    for first, second in pairwise(rows):
        assert first < second


@pytest.mark.parametrize("seed", range(4))
def test_lists_that_stop_and_go_on_give_every_key_once(shelf: Pair, seed: int) -> None:
    random = Random(seed)
    for collection in ("c", "d"):
        shelf.kept.evict()
        found: list[str] = []
        while True:
            keys = shelf.kept.keyspace.tree.keys(collection, found[-1] if found else "")
            page = [
                key
                for key, _ in zip(
                    keys, range(random.choice((1, 50, 255, 256, 257) if found else (50, 256))), strict=False
                )
            ]
            if found and not page:
                break
            found += page
            if random.random() < 0.5:
                shelf.kept.evict()
            if len(page) == 1 and len(found) > 5:
                found = [*found, *shelf.kept.keyspace.tree.keys(collection, found[-1])]
                break
        assert found == list(shelf.plain.keyspace.tree.keys(collection))


@pytest.mark.parametrize("limit", [1, 3, 255, 256, 5000])
def test_warming_up_brings_everything_whatever_happens_in_between(limit: int) -> None:
    pair = Pair()
    for name in NAMES:
        pair.put("c", name, "x")
        pair.put("c", name)
    for at in range(30):
        pair.put("c", "big", at)
    pair.put("d", "k0003")
    pair.kept.checkpoint(1000)
    pair.kept.restart()
    random = Random(limit)
    while pair.kept.residence.warm_up(limit, 1 << 40):
        if limit < 255 and random.random() < 0.3:
            pair.commit(DROP, ["c", random.choice(NAMES)], None)
        if limit < 255 and random.random() < 0.3:
            pair.put("c", random.choice([*NAMES, "big"]), "y")
    assert pair.kept.residence.is_whole
    pair.compare()
    pair.kept.evict()
    pair.kept.checkpoint(3)
    pair.kept.evict()
    assert pair.kept.usage == Usage()
    pair.compare()


def test_dropping_all_of_a_collection_leaves_no_row_of_it_and_all_of_the_next() -> None:
    pair = _full()
    pair.forget()
    pair.commit(DROP, ["c"], None)
    pair.compare()
    pair.kept.checkpoint(1)
    pair.kept.evict()
    assert len(pair.kept.rows(LEAVES)) == 2 * len(NAMES) + BIG
    pair.compare()


def test_dropping_a_big_key_on_disk_leaves_its_neighbours() -> None:
    pair = _full()
    pair.forget()
    pair.commit(DROP, ["c", "big"], None, DROP, ["c", "a"], None)
    pair.kept.begin()
    pair.put("c", "a", "new")
    pair.put("c", "big", 3)
    pair.kept.finish(5)
    pair.kept.store.crash()
    assert len(pair.kept.rows(LEAVES)) == 4 * len(NAMES) + BIG - 2
    pair.compare()
    pair.forget()
    assert len(pair.kept.rows(LEAVES)) == 4 * len(NAMES) + BIG
    pair.compare()


def _counts_after_folds() -> Usage:
    """A counter is read back, folded and let go again and again."""
    kept = Kept(0, MEMBERS)
    for seq in range(1, 40):
        kept.keyspace.tree.apply(seq, BASE_MS + seq << 16, [seq - 1, 0], [ADD, ["c", "k"], 1 << 40])
    for _ in range(3):
        kept.checkpoint()
        kept.evict()
        assert kept.keyspace.tree.entry("c", "k") is not None
        kept.keyspace.tree.fold([1 << 40, 0], 10)
        kept.evict()
    kept.checkpoint()
    kept.evict()
    return kept.usage


def test_what_was_folded_is_counted_as_what_it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _counts_after_folds() == Usage()
    monkeypatch.setattr(state, "extent", lambda entry: 0)
    assert _counts_after_folds() != Usage()
