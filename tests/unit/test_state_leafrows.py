"""Leaves through rows and back: nobody may tell from a key whether it was let go and read again in between.

Two worlds take the same steps. In one of them every key is turned into rows, and built from these, again and again; whatever comes
afterwards must find the very same leaves in both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import fields, replace

from crdtstore.causal import make_replica_id
from crdtstore.effects import Sibling, leaf_name
from crdtstore.errors import DecodeError
from crdtstore.kernel import Tree
from crdtstore.leaves import ADD, DEADLINE, DROP, MARK, MAX, MIN, PUT, SEQ_BITS, Branch, Entry, Leaf, Many, One, Sum
from crdtstore.loose import Loose
from crdtstore.runs import Run
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


SKEW = (0, 500, -500)
"""Clocks that are off: what comes later may be stamped earlier, and then takes the place of another attempt at its operation."""


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
        dot, hlc = origin << SEQ_BITS | seq, HLC + SKEW[origin] + sum(len(rows) for rows in self.vectors)
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


def shapes_of(entry: Entry) -> Iterator[str]:
    """What is to be met, if a property is to say anything."""
    if isinstance(entry, Branch):
        yield "several classes" if len(entry.leaves) > 1 else "branch"
        for inner in (*entry.leaves, *entry.children.values()):
            yield from shapes_of(inner)
    elif not isinstance(entry, One):
        yield "shadows" if entry.shadows else "no shadows"
        yield "best" if isinstance(entry, Many) and entry.best is not None else "no best"
        for run in entry.runs if isinstance(entry, Sum) else ():
            loose = run.loose
            yield from (name for name in ("base", "gone", "older", "loose") if getattr(run, name))
            if isinstance(run.older, list):
                yield "older, big"
            if loose is not None:
                yield from (f"loose {name}" for name in ("gone", "holes") if getattr(loose, name))
                if isinstance(loose.rows, list):
                    yield "loose, big"


SHAPES = {
    "several classes",
    "shadows",
    "best",
    "base",
    "gone",
    "older",
    "older, big",
    "loose",
    "loose, big",
    "loose gone",
    "loose holes",
}


def test_effects_of_any_kind_come_back() -> None:
    met = Counter[str]()

    @settings(max_examples=400, database=None)
    @given(COMMITS, st.sampled_from([Tree, Small]))
    def check(drawn: list[tuple[Any, ...]], kind_of_tree: type[Tree]) -> None:
        met.update(check_commits(drawn, kind_of_tree))

    check()
    assert SHAPES - {"gone", "loose gone", "loose holes"} <= set(met)


def check_commits(drawn: list[tuple[Any, ...]], kind_of_tree: type[Tree]) -> set[str]:
    met: set[str] = set()
    kept, read, origins = kind_of_tree(list(REPLICAS)), kind_of_tree(list(REPLICAS)), Origins()
    for origin, choice, flat, operation, folds in drawn:
        dot, hlc, cut, effects, siblings = origins.commit(origin, choice, flat, operation)
        for tree in (kept, read):
            tree.apply(dot, hlc, cut, effects, siblings, is_repeatable=operation is not None)
            finish(tree)
            if folds:
                tree.fold(origins.stable, 100)
        met |= set(shapes_of(read.root))
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
    return met


def test_long_histories_of_few_leaves_come_back() -> None:
    met = Counter[str]()
    for seed in range(60):
        random, operations = Random(seed), 0
        drawn: list[tuple[Any, ...]] = []
        for _ in range(60):
            kind = random.choice([ADD, ADD, ADD, ADD, DROP, MAX, PUT])
            path = random.choice([["c", "k"], ["c", "k"], ["c", "k", "x"], ["c", "k", 1]])
            value = None if kind == DROP else random.choice([1, 2, -3, 1 << 70] if seed % 2 else [1, 2, -3])
            operation = random.choice([None, operations])
            attempts = 1 if operation is None else random.choice([1, 2, 3])
            operations += operation is not None
            origins = random.sample(range(3), attempts)
            drawn += [
                (origin, random.choice([0, 0, 1, 2]), [kind, path, value], operation, random.random() < 0.2)
                for origin in origins
            ]
        met.update(check_commits(drawn, Small if seed % 3 else Tree))
    assert set(met) >= SHAPES


# --- the form


LOOSE = Loose(3, [(3, HLC, 5), (4, HLC + 1, 1 << 70)], 5 + (1 << 70), 1 << 71, 7, 4, {3: 9})
RUN = Run(2, 77, base=4, loose=LOOSE, gone=3, last_seq=9, last_sum=1 << 65, last_hlc=HLC, older=[(5, 1 << 64), (7, -1)])
NOT_STORED: dict[Any, set[str]] = {Run: {"weight"}, Sum: {"total", "kind"}, Many: {"best"}, Loose: set(), One: set()}
"""Computed anew, or said by the form itself."""


@pytest.mark.parametrize("shape", NOT_STORED)
def test_no_field_of_a_leaf_is_forgotten(shape: Any) -> None:
    """Who gives a leaf one more field finds here that it is to be stored, too."""
    leaves: dict[Any, Callable[[Any], Entry]] = {
        Run: lambda run: Sum(run.total(), (run,)),
        Loose: lambda loose: Sum(0, (replace(RUN, loose=loose),)),
        Sum: lambda leaf: leaf,
        Many: lambda leaf: leaf,
        One: lambda leaf: leaf,
    }
    samples: dict[Any, Any] = {
        Run: RUN,
        Loose: LOOSE,
        Sum: Sum(RUN.total(), (RUN,), {1: 2}),
        Many: Many(PUT, {5: (HLC, "x")}, {6: 5}, "best"),
        One: One(PUT, 5, HLC, "x"),
    }
    others = {"runs": (RUN, RUN), "shadows": {7: 5}, "dots": {}, "holes": None, "rows": bytearray(20), "loose": None}
    sample, wrap = samples[shape], leaves[shape]
    for name in fields(sample):
        field = name.name
        other = others.get(field, 12345 if field != "older" else None)
        is_same = encode_leaves(wrap(replace(sample, **{field: other}))) == encode_leaves(wrap(sample))
        assert is_same == (field in NOT_STORED[shape]), field


@pytest.mark.parametrize(
    "entry",
    [
        One(0, 0, 0, None),
        One(FUTURE, (1 << 62) - 1, (1 << 64) - 1, {"b": 1, "a": [1.0, 1, True, b"\xff"]}),
        Sum(RUN.total() - 4, (RUN, Run(0, 77, last_seq=1, last_sum=-4, last_hlc=1)), {1: 2}),
        Sum(5 << 8190, tuple(Run(at, 77, last_seq=1, last_sum=1 << 8190, last_hlc=1) for at in range(5))),
        Sum(4, (Run(0, 77, last_seq=1, last_sum=4, last_hlc=1),), {1: 2}),
        Many(MIN, {5: (HLC, "x"), 4: (HLC, "a")}, None, "a"),
        Many(MAX, {}, {5: 4}, None),
        Branch([One(MARK, 1, 2, None), Many(PUT, {1: (2, 3), 2: (3, 4)})], {}),
    ],
)
def test_a_leaf_comes_back_with_its_types(entry: Entry) -> None:
    data = encode_leaves(entry)
    assert data is not None
    leaves = decode_leaves(data, lambda _: 77)
    assert build_entry([([], leaves)]) == entry
    assert repr(leaves) == repr(entry.leaves if isinstance(entry, Branch) else [entry]), "1 is not 1.0, nor true"


def test_of_a_branch_only_what_stands_there_itself_is_a_row() -> None:
    below = {"x": One(PUT, 1, 2, 3)}
    assert encode_leaves(Branch([], dict(below))) is None
    assert encode_leaves(Branch([One(PUT, 1, 2, 3)], dict(below))) == encode_leaves(One(PUT, 1, 2, 3))
    assert build_entry([]) is None


def test_a_drop_that_is_under_way_cannot_be_walked() -> None:
    tree = Small(list(REPLICAS))
    tree.apply(1, 1, [0, 0, 0], [part for at in range(5) for part in (PUT, ["c", "k", at], at)])
    tree.apply(1 << SEQ_BITS | 1, 2, [0, 0, 0], [PUT, ["c", "k", 9], 9])
    tree.apply(2, 3, [1, 0, 0], [DROP, ["c", "k"], None, PUT, ["c", "k", 7], 7])
    entry = tree.entry("c", "k")
    assert isinstance(entry, Branch)
    with pytest.raises(AssertionError, match="still being carried out"):
        list(walk_entry(entry))
    finish(tree)
    assert sorted(below for below, _ in walk_entry(entry)) == [[7], [9]]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x02\x94\x01\x01\x01\x01",
        b"\x01",
        b"\x01\x94\x01\x01\x01",
        b"\x01\x90",
        b"\x01\x91\xfb",
        b"\x01\x93\x01\x01\x01",
        b"\x01\x92\xff\x01",
        b"\x01\x93\xfe\xc0\x91\x01",
        b"\x01\x94\xfd\x01\xc0\x05",
        b"\x01\x94\x01\x01\x01\xd4\x07\x00",
        b"\x01\x91\xa1x",
        b"\x01\x91\xc0",
        b"\x01\xc0",
    ],
)
def test_other_data_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_leaves(data, lambda _: 77)


@given(st.binary(max_size=40), st.data())
def test_no_bytes_make_it_fail_in_another_way(noise: bytes, data: st.DataObject) -> None:
    whole = encode_leaves(Branch([Sum(RUN.total(), (RUN,), {1: 2}), Many(PUT, {5: (1, "x")}, {6: 5})], {}))
    assert whole is not None
    at = data.draw(st.integers(1, len(whole) - 1))
    for bad in (b"\x01" + noise, whole[:at] + noise, whole[:at] + noise + whole[at:]):
        with suppress(DecodeError):
            decode_leaves(bad, lambda _: 77)
