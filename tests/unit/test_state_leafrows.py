"""Leaves through rows and back: nobody may tell from a key whether it was let go and read again in between.

Two worlds take the same steps. In one of them every key is turned into rows, and built from these, again and again; whatever comes
afterwards must find the very same leaves in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdtstore.causal import make_replica_id
from crdtstore.effects import Sibling, leaf_name
from crdtstore.kernel import Tree
from crdtstore.leaves import ADD, DEADLINE, DROP, MARK, MAX, MIN, PUT, SEQ_BITS, Branch, Entry, Leaf
from crdtstore.shares import Shares
from crdtstore.storage.leafrows import build_entry, decode_leaves, encode_leaves, walk_entry
from crdtstore.storage.rows import LEAVES, PREFIX_BYTES, parts_of, path_bytes, row_path
from crdtstore.testing.laws import World, members
from crdtstore.testing.strategies import Step, histories
from crdtstore.types import REGISTRY, View

REPLICAS = [make_replica_id("us", 1), make_replica_id("eu", 2), make_replica_id("ap", 3)]
FUTURE = 200
HLC = 1_767_607_200_123 << 16 | 7


def rows_of(path: list[Any], entry: Entry) -> list[tuple[bytes, bytes]]:
    """The rows of a key in the order in which a store gives them back."""
    found = []
    for below, here in walk_entry(entry):
        data = encode_leaves(here)
        assert data is not None
        found.append((row_path(1, LEAVES, [*path, *below]), data))
    return sorted(found)


def read_back(replicas: Sequence[Any], path: list[Any], rows: list[tuple[bytes, bytes]]) -> Entry | None:
    shares = Shares(replicas)
    start = PREFIX_BYTES + len(path_bytes(path))

    def leaves(row: bytes, data: bytes) -> tuple[list[Any], list[Leaf]]:
        below = parts_of(row, start)
        return below, decode_leaves(data, lambda origin: shares.origin([*path, *below], origin))

    return build_entry([leaves(row, data) for row, data in rows])


def plain(entry: Entry | None) -> Any:
    """An entry without what is only there to be quick: orders, and what is newest below a branch."""
    if not isinstance(entry, Branch):
        return entry
    assert entry.sweep is None
    return entry.leaves, {part: plain(child) for part, child in entry.children.items()}


def reload(tree: Tree) -> int:
    """Let go of every key and read it again; how many rows there were."""
    count = 0
    for collection, level in tree.root.children.items():
        if not isinstance(level, Branch):
            continue
        for key in list(level.children):
            path = [collection, key]
            share, old = tree.share(path), level.children[key]
            rows = rows_of(path, old)
            new = read_back(tree.replicas, path, rows)
            assert plain(new) == plain(old)
            assert new is not None
            level.children[key] = new
            level.order = None
            assert tree.share(path) == share
            count += len(rows)
    return count


def finish(tree: Tree) -> None:
    """Carry out every drop; what may be done late must not be what differs."""
    tree.share([])


def check_alike(one: Tree, other: Tree) -> None:
    finish(one)
    finish(other)
    assert one.digest == other.digest
    assert plain(one.root) == plain(other.root)


# --- histories of every type, with operations that are attempted in several regions


def run_both(crdt: Any, steps: list[Step], reload_after: list[bool]) -> None:
    kept, read = World(crdt, members(["us", "eu", "ap"])), World(crdt, members(["us", "eu", "ap"]))
    for at, step in enumerate(steps):
        kept.step(step)
        read.step(step)
        for one, other in zip(kept.replicas, read.replicas, strict=True):
            check_alike(one.keyspace.tree, other.keyspace.tree)
            if reload_after[at % len(reload_after)]:
                reload(other.keyspace.tree)
    for world in (kept, read):
        world.settle()
        for replica in world.replicas:
            replica.keyspace.tree.fold(replica.applied, 1 << 20)
    for one, other in zip(kept.replicas, read.replicas, strict=True):
        check_alike(one.keyspace.tree, other.keyspace.tree)
        for key in ("a", "b"):
            assert one.reading(crdt, key) == other.reading(crdt, key)


@pytest.mark.parametrize("name", sorted(REGISTRY))
@settings(max_examples=25)
@given(data=st.data())
def test_no_type_can_tell(name: str, data: st.DataObject) -> None:
    crdt = REGISTRY[name]
    steps = data.draw(histories(crdt, has_operations=True, has_folds=True))
    run_both(crdt, steps, data.draw(st.lists(st.booleans(), min_size=1, max_size=4)))


# --- effects of all kinds, those of the future too


PATHS = st.builds(
    lambda key, rest: ["c", key, *rest],
    st.sampled_from(["k", "k", "l"]),
    st.lists(st.sampled_from(["x", 1, b"x", -(1 << 70), "\0", "\1", ""]), max_size=3),
)
_BIG = 1 << 8190
VALUES: dict[int, st.SearchStrategy[Any]] = {
    ADD: st.sampled_from([0, 1, -2, (1 << 63) - 1, 1 << 70, _BIG, -_BIG]),
    PUT: st.sampled_from([None, True, 1.5, "v", b"\0", {"b": [1, 1 << 90], "a": {}}, -_BIG]),
    MAX: st.sampled_from([1, 5, "a", 1 << 80]),
    MIN: st.sampled_from([1, 5, "a", -(1 << 80)]),
    MARK: st.none(),
    DEADLINE: st.sampled_from([3, 7, None]),
    FUTURE: st.sampled_from(["v", 1]),
    255: st.just([]),
    DROP: st.none(),
}
KINDS = [ADD, ADD, ADD, DROP, *VALUES]


@st.composite
def effects(draw: st.DrawFn) -> list[Any]:
    flat: list[Any] = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(KINDS))
        flat += (kind, draw(PATHS), draw(VALUES[kind]))
    return flat


COMMITS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 3), effects(), st.sampled_from([None, None, 0, 1]), st.booleans()),
    min_size=2,
    max_size=16,
)


class Origins:
    """Commits of three replicas, each with what it had seen, made of what was drawn: deps grow, and are closed under what they name."""

    def __init__(self) -> None:
        self.vectors: list[list[list[int]]] = [[[0, 0, 0]] for _ in REPLICAS]
        self.attempts: dict[int, list[tuple[Sibling, set[int]]]] = {}

    def commit(self, origin: int, choice: int, flat: list[Any], operation: int | None) -> tuple[Any, ...]:
        cut = [*self.vectors[origin][-1]]
        cut[origin] = len(self.vectors[origin]) - 1
        for other, rows in enumerate(self.vectors):
            if other != origin and choice & 1 << other % 2:
                seen = rows[-1]
                cut = [max(pair) for pair in zip(cut, seen, strict=True)]
                cut[other] = max(cut[other], len(rows) - 1)
        self.vectors[origin].append(cut)
        seq = len(self.vectors[origin]) - 1
        cut[origin] = seq - 1
        dot, hlc = origin << SEQ_BITS | seq, HLC + sum(len(rows) for rows in self.vectors)
        siblings: dict[int, list[Sibling]] | None = None
        if operation is not None:
            names = {leaf_name(flat[at + 1], flat[at]) for at in range(0, len(flat), 3) if flat[at] != DROP}
            before = self.attempts.setdefault(operation, [])
            siblings = {}
            for sibling, theirs in before:
                for name in theirs:
                    siblings.setdefault(name, []).append(sibling)
            before.append((Sibling(hlc, dot), names))
        return dot, hlc, cut, flat, siblings

    @property
    def stable(self) -> list[int]:
        return [min(rows[-1][at] for rows in self.vectors) for at in range(len(REPLICAS))]


class Small(Tree):
    """A tree to which a branch with two children is big."""

    sweep_above = 1
    __slots__ = ()


@settings(max_examples=300)
@given(COMMITS, st.sampled_from([Tree, Small]))
def test_effects_of_any_kind_come_back(drawn: list[tuple[Any, ...]], kind_of_tree: type[Tree]) -> None:
    kept, read, origins = kind_of_tree(list(REPLICAS)), kind_of_tree(list(REPLICAS)), Origins()
    for origin, choice, flat, operation, folds in drawn:
        dot, hlc, cut, effects, siblings = origins.commit(origin, choice, flat, operation)
        for tree in (kept, read):
            tree.apply(dot, hlc, cut, effects, siblings, is_repeatable=operation is not None)
            finish(tree)
            if folds:
                tree.fold(origins.stable, 100)
        reload(read)
        check_alike(kept, read)
        for key in ("k", "l"):
            one, other = (View(tree.replicas, tree.entry("c", key)) for tree in (kept, read))
            assert (one.exists, one.total(), one.best(MAX), one.live(PUT)) == (
                other.exists,
                other.total(),
                other.best(MAX),
                other.live(PUT),
            )
