"""The kernel against the plainest thing that could do its work: a dict of dicts, every drop a scan."""

from __future__ import annotations

from collections.abc import Sequence
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_128_intdigest

from crdtstore import shares
from crdtstore.causal import make_replica_id
from crdtstore.effects import Sibling, leaf_name, normal_form
from crdtstore.errors import UsageError
from crdtstore.kernel import Tree
from crdtstore.leaves import (
    ADD,
    DEADLINE,
    DROP,
    MARK,
    MAX,
    MIN,
    PUT,
    SEQ_BITS,
    SEQ_MASK,
    Branch,
    Many,
    One,
    Run,
    Sum,
    deadline_of,
    is_expired,
)
from crdtstore.types import REGISTRY, View
from crdtstore.values import MAX_INTEGER_BYTES, element_order, pack

REPLICAS = [make_replica_id("us", 1), make_replica_id("eu", 2)]
FUTURE = 9

PATHS = st.builds(
    lambda head, rest: [*head, *rest],
    st.sampled_from([["c"], ["c", "k"], ["c", "l"], ["d", "k"]]),
    st.lists(st.sampled_from(["x", 1, b"x"]), max_size=2),
).filter(lambda path: len(path) < 2 or isinstance(path[1], str))
VALUES = {
    ADD: st.sampled_from([0, 1, -2, 1 << 62, 1 << 70]),
    PUT: st.sampled_from([None, "v", {"a": [1]}]),
    MAX: st.sampled_from([1, 5, "a"]),
    MIN: st.sampled_from([1, 5, "a"]),
    MARK: st.none(),
    DEADLINE: st.sampled_from([3, 7, None]),
    FUTURE: st.sampled_from(["v", 1]),
    DROP: st.none(),
}


@st.composite
def effects(draw: st.DrawFn) -> list[Any]:
    flat: list[Any] = []
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(sorted(VALUES)))
        flat += (kind, draw(PATHS), draw(VALUES[kind]))
    return flat


class Plain:
    """The same rules without any cleverness."""

    def __init__(self) -> None:
        self.leaves: dict[bytes, tuple[list[Any], int, dict[int, tuple[int, Any]]]] = {}

    def apply(self, dot: int, hlc: int, cut: Sequence[int], effects: list[Any]) -> None:
        for at in range(0, len(effects), 3):
            kind, path, value = effects[at : at + 3]
            if kind == DROP:
                self._cut(path, cut, is_below=True)
                continue
            if kind != MARK and self.is_marked(path):  # who has seen a mark puts in the place of it and of what it hid
                self._cut(path, cut, is_below=False)
            dots = self.leaves.setdefault(pack([path, kind]), (path, kind, {}))[2]
            if kind == DEADLINE:
                for old in [old for old in dots if old & SEQ_MASK <= cut[old >> SEQ_BITS]]:
                    del dots[old]
            if dot in dots and kind == ADD:
                value += dots[dot][1]
            elif dot in dots and kind in (MAX, MIN):
                value = (max if kind == MAX else min)(value, dots[dot][1], key=element_order)
            elif dot in dots:
                value = dots[dot][1]
            dots[dot] = (hlc, value)

    def _cut(self, path: list[Any], cut: Sequence[int], *, is_below: bool) -> None:
        for name, (where, _, dots) in list(self.leaves.items()):
            if (where[: len(path)] if is_below else where) == path:
                for old in [old for old in dots if old & SEQ_MASK <= cut[old >> SEQ_BITS]]:
                    del dots[old]
                if not dots:
                    del self.leaves[name]

    def digest(self) -> int:
        return sum(self._share(*leaf) for leaf in self.leaves.values()) % ((1 << 128) - 159)

    def _share(self, path: list[Any], kind: int, dots: dict[int, tuple[int, Any]]) -> int:
        values = [value for _, value in dots.values()]
        if self.is_marked(path):
            return 0
        if kind in (MAX, MIN):
            best = (max if kind == MAX else min)(values, key=element_order)
            return xxh3_128_intdigest(pack([path, kind, best]))
        if kind == ADD:
            return sum(
                value * xxh3_128_intdigest(pack([path, ADD, REPLICAS[dot >> SEQ_BITS]]))
                for dot, (_, value) in dots.items()
            )
        return sum(
            xxh3_128_intdigest(pack([path, kind, REPLICAS[dot >> SEQ_BITS], dot & SEQ_MASK, value]))
            for dot, (_, value) in dots.items()
        )

    def at(self, path: list[Any], kind: int) -> list[tuple[Any, ...]]:
        dots = self.leaves.get(pack([path, kind]), (path, kind, {}))[2]
        return sorted((hlc, REPLICAS[dot >> SEQ_BITS], dot & SEQ_MASK, value) for dot, (hlc, value) in dots.items())

    def is_marked(self, path: list[Any]) -> bool:
        return pack([path, MARK]) in self.leaves

    def visible(self, head: list[Any]) -> list[tuple[list[Any], int, dict[int, tuple[int, Any]]]]:
        """What can be read at a path or below."""
        found = [leaf for leaf in self.leaves.values() if leaf[0][: len(head)] == head]
        return [leaf for leaf in found if leaf[1] not in (MARK, DEADLINE) and not self.is_marked(leaf[0])]

    def keys(self, collection: str) -> list[str]:
        return sorted({where[1] for where, _, _ in self.visible([collection]) if len(where) > 1})


COMMITS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9), effects(), st.booleans()), max_size=14)


class Small(Tree):
    """A tree to which a branch with two children is big."""

    sweep_above = 1
    __slots__ = ()


@given(COMMITS, st.booleans(), st.sampled_from([Tree, Small]))
def test_the_kernel_does_what_the_plainest_thing_does(
    drawn: list[tuple[int, int, list[Any], bool]], listed: bool, kind_of_tree: type[Tree]
) -> None:
    tree, plain = kind_of_tree(list(REPLICAS)), Plain()
    vectors: list[list[list[int]]] = [[[0, 0]], [[0, 0]]]
    """Per origin what it had seen when it made each of its commits."""
    for origin, wanted, flat, folds in drawn:
        if listed:
            list(tree.keys("c"))
        other = 1 - origin
        cut, made = [*vectors[origin][-1]], len(vectors[origin]) - 1
        cut[origin] = made
        seen = min(max(wanted, cut[other]), len(vectors[other]) - 1)
        cut = [max(pair) for pair in zip(cut, vectors[other][seen], strict=True)]
        cut[other] = max(cut[other], seen)
        vectors[origin].append(cut)
        dot = origin << SEQ_BITS | made + 1
        tree.apply(dot, seen << 16, cut, flat)
        plain.apply(dot, seen << 16, cut, flat)
        if folds:  # what both have seen by their last commits: a cut to come covers it
            tree.fold([min(vectors[0][-1][at], vectors[1][-1][at]) for at in (0, 1)], 100)
            tree.run_sweeps(1)
        if tree.is_settled:
            assert tree.digest == tree.share([]) == plain.digest()
    for collection in ("c", "d"):
        keys = [key for key in tree.keys(collection) if View(tree.replicas, tree.entry(collection, key)).exists]
        assert keys == plain.keys(collection)
        for key in keys:
            path = [collection, key]
            if plain.is_marked(path):
                continue  # what it hides may be gone already
            view = View(tree.replicas, tree.entry(collection, key))
            assert view.total() == sum(live[3] for live in plain.at(path, ADD))
            for kind, choose in ((MAX, max), (MIN, min)):
                values = [live[3] for live in plain.at(path, kind)]
                assert view.best(kind) == (choose(values, key=element_order) if values else None) or plain.is_marked(
                    path
                )
            for kind in (PUT, FUTURE):
                live = [live[:3] for live in view.live(kind)]
                assert live == [live[:3] for live in plain.at(path, kind)]
            dues = [live[3] for live in plain.at(path, DEADLINE)]
            assert deadline_of(view.entry) == (bool(dues), None if None in dues or not dues else max(dues))
            newest = max(hlc >> 16 for _, _, dots in plain.visible(path) for hlc, _ in dots.values())
            for now_ms in (2, 5, 9) if dues and None not in dues else ():
                assert is_expired(view.entry, now_ms) == (now_ms >= max(dues) > newest)  # type: ignore[arg-type]
    tree.share([])
    assert tree.is_settled
    assert tree.digest == plain.digest()
    assert _is_lean(tree.root.children)


def _is_lean(level: dict[Any, Any]) -> bool:
    """Nothing empty is kept, and no branch stands where a leaf would do."""
    for entry in level.values():
        if isinstance(entry, Branch):
            if not entry.children and len(entry.leaves) < 2:
                return False
            if not _is_lean(entry.children):
                return False
        elif isinstance(entry, Many):
            assert entry.dots
        elif isinstance(entry, Sum):
            assert entry.runs
        else:
            assert isinstance(entry, One)
    return True


@given(effects(), effects(), st.lists(st.sampled_from([0, 1]), max_size=2))
def test_normal_form_leaves_what_the_steps_leave(before: list[Any], flat: list[Any], cuts: list[int]) -> None:
    steps, at_once = Tree(list(REPLICAS)), Tree(list(REPLICAS))
    for tree in (steps, at_once):
        tree.apply(1 << SEQ_BITS | 1, 5, [0, 0], before)
    seen = sum(cuts) and 1
    for at in range(0, len(flat), 3):
        steps.apply(1, 6, [1, seen], flat[at : at + 3])
    normal = normal_form(flat)
    at_once.apply(1, 6, [0, seen], normal)
    assert at_once.digest == steps.digest
    assert normal_form(normal) == normal
    names = [pack([normal[at + 1], normal[at]]) for at in range(0, len(normal), 3)]
    assert len(set(names)) == len(names), "at most one put per path and class"


@pytest.mark.parametrize(
    ("flat", "normal"),
    [
        ([ADD, ["c", "k"], 3, ADD, ["c", "k"], 4], [ADD, ["c", "k"], 7]),
        ([PUT, ["c", "k", "x"], 1, DROP, ["c", "k"], None], [DROP, ["c", "k"], None]),
        ([DROP, ["c", "k"], None, DROP, ["c", "k"], None], [DROP, ["c", "k"], None]),
        ([MAX, ["c", "k"], 3, MAX, ["c", "k"], 5, MAX, ["c", "k"], 4], [MAX, ["c", "k"], 5]),
        ([MIN, ["c", "k"], 3, MIN, ["c", "k"], "a"], [MIN, ["c", "k"], 3]),
        ([PUT, ["c", "k"], 1, DROP, ["c", "l"], None], [DROP, ["c", "l"], None, PUT, ["c", "k"], 1]),
        ([PUT, ["c", "k"], 1, PUT, ["c", "k"], 2], [PUT, ["c", "k"], 1]),
        ([], []),
    ],
)
def test_normal_form(flat: list[Any], normal: list[Any]) -> None:
    assert normal_form(flat) == normal


def test_the_normal_form_of_many_effects_is_linear() -> None:
    flat = [
        part for element in range(50_000) for part in (DROP, ["c", "k", element], None, PUT, ["c", "k", element], None)
    ]
    started = process_time()
    assert len(normal_form(flat)) == len(flat)
    assert process_time() - started < 10, "compared each with each it takes minutes"


def test_a_commit_adds_no_more_than_peers_take() -> None:
    most = (1 << 8 * MAX_INTEGER_BYTES - 1) - 1
    with pytest.raises(UsageError, match=r"sum of the amounts.*at most 1024 bytes"):
        normal_form([ADD, ["c", "k"], most, ADD, ["c", "k"], 1])
    assert normal_form([ADD, ["c", "k"], most, ADD, ["c", "k"], 1, ADD, ["c", "k"], -1])[2] == most


# --- runs


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "cut", "fold"]),
            st.integers(1, 12),
            st.sampled_from([0, 1, -5, 1 << 63, 1 << 80]),
        ),
        max_size=40,
    )
)
def test_a_run_is_a_dict_of_amounts(moves: list[tuple[str, int, int]]) -> None:
    run, amounts, seq, stable = Run(0, 1), dict[int, int](), 0, 0
    for what, number, amount in moves:
        if what == "add":
            seq = max(seq + number % 3, 1)
            run.append(seq, amount, seq)
            amounts[seq] = amounts.get(seq, 0) + amount
        elif what == "cut":
            upto = max(number, stable)
            assert run.cut(upto) == sum(amounts.pop(at) for at in [at for at in amounts if at <= upto])
        else:
            stable = min(max(stable, number), seq)
            run.fold(stable)
            assert len(run._pairs()) <= sum(at > stable for at in amounts) + 1
        assert run.total() == sum(amounts.values())
        assert run.is_empty == (not amounts)
        assert run.last_hlc == max(amounts, default=0)


def test_one_more_dot_in_a_leaf_costs_one_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    tree, hashed = Tree(list(REPLICAS)), 0

    def counted(data: bytes) -> int:
        nonlocal hashed
        hashed += 1
        return xxh3_128_intdigest(data)

    monkeypatch.setattr(shares, "xxh3_128_intdigest", counted)
    for seq in range(1, 101):
        tree.apply(seq, seq, [seq - 1, 0], [PUT, ["c", "k", "id"], seq])
    assert hashed == 100, "an event whose id is appended again and again would cost more each time"
    assert tree.digest == tree.share([])


def test_a_scratch_shares_nothing_that_changes() -> None:
    tree = Tree(list(REPLICAS))
    for seq in range(1, 5):
        tree.apply(seq, seq, [0, 0], [ADD, ["c", "k"], seq, PUT, ["c", "k", "x"], seq, PUT, ["c", "l"], 1])
    before = (tree.digest, tree.share([]))
    scratch = tree.scratch([("c", "k"), ("c", "never")])
    assert scratch.share([]) == tree.share(["c", "k"])
    scratch.apply(9, 9, [2, 0], [DROP, ["c", "k"], None, ADD, ["c", "k"], 5, PUT, ["c", "k", "y"], 1])
    assert (tree.digest, tree.share([])) == before
    assert scratch.share([]) != tree.share(["c", "k"])
    assert list(tree.keys("c", after="k")) == ["l"]
    assert list(tree.keys("c", prefix="l")) == ["l"]
    assert tree.share(["c", "never"]) == tree.share(["c", "k", "x", "deeper"]) == 0


def test_the_digest_sees_multiples_of_powers_of_two() -> None:
    tree = Tree(REPLICAS)
    digests = {tree.digest}
    for seq, amount in enumerate((1 << 128, 1 << 127, -(1 << 129), 1 << 1000), start=1):
        tree.apply(seq, seq, [0, 0], [ADD, ["c:counter", "k"], amount])
        digests.add(tree.digest)
        assert tree.digest == tree.share([])
    assert len(digests) == 5


def test_who_looks_at_a_key_may_carry_out_drops_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields that are gone by then leave the level that is being looked through."""
    monkeypatch.setattr(Tree, "sweep_above", 1)
    tree = Tree(list(REPLICAS))
    fields = [f"{name}:aw_set" for name in "abcd"]
    for seq, field in enumerate(fields, start=1):
        tree.apply(seq, seq, [seq - 1, 0], [MAX, ["c", "k", field, "x"], 1, MAX, ["c", "k", field, "y"], 1])
    tree.apply(5, 5, [4, 0], [DEADLINE, ["c", "k"], 9, MAX, ["c", "k", fields[3], "z"], 1])
    other = 1 << SEQ_BITS | 1
    tree.apply(other, 5, [5, 0], [part for field in fields for part in (DROP, ["c", "k", field], None)])
    entry = tree.entry("c", "k")
    assert entry is not None
    assert is_expired(entry, 10 << 16)
    assert not View(REPLICAS, entry, 10 << 16).exists
    assert [part for part, _ in View(REPLICAS, tree.entry("c", "k")).children()] == []
    assert tree.share([]) == tree.digest


def test_a_mark_hides_what_folding_takes_with_it() -> None:
    tree = Tree(list(REPLICAS))
    tree.apply(
        1, 1, [0, 0], [ADD, ["c", "k"], 5, PUT, ["c", "k"], "v", DEADLINE, ["c", "k"], 9, PUT, ["c", "k", "x"], 1]
    )
    tree.apply(1 << SEQ_BITS | 1, 1, [0, 0], [MARK, ["c", "k"], None])

    def told() -> tuple[Any, ...]:
        entry = tree.entry("c", "k")
        view = View(REPLICAS, entry)
        return view.total(), view.live(), view.has(ADD), view.totals(), deadline_of(entry), tree.digest

    before = told()
    assert before[:5] == (0, [], False, {}, (False, None))
    assert [live.value for live in View(REPLICAS, tree.entry("c", "k")).hidden()] == ["v"]
    tree.fold([1, 1], 9)
    assert told() == before
    assert View(REPLICAS, tree.entry("c", "k")).hidden() == []


def test_folding_a_mark_leaves_a_drop_that_is_still_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tree, "sweep_above", 1)
    tree = Tree(list(REPLICAS))
    for seq in (1, 2, 3):
        tree.apply(seq, seq, [seq - 1, 0], [PUT, ["c", "k", seq], None])
    other = 1 << SEQ_BITS | 1
    tree.apply(other, 3, [2, 0], [DROP, ["c", "k"], None, MARK, ["c", "k"], None])
    late = tree.digest
    tree.fold([2, 1], 9)
    assert tree.digest == late, "the drop has not been carried out yet"
    tree.run_sweeps(9)
    assert late != tree.digest == tree.share([])
    assert [part for part, _ in View(REPLICAS, tree.entry("c", "k")).children()] == [3]


def test_an_order_by_what_stands_there_is_made_anew_when_that_changes() -> None:
    """A character may stand beside, or under, what no type of this version puts there."""
    text = REGISTRY["text"]
    tree = Tree(list(REPLICAS))
    tree.apply(1, 1, [0, 0], [PUT, ["c", "k", b"1"], [b"\x40", "a"], ADD, ["c", "k", b"2"], 1])

    def read() -> Any:
        return text.read(View(REPLICAS, tree.entry("c", "k")))

    assert read() == "a"
    tree.apply(2, 2, [1, 0], [PUT, ["c", "k", b"2"], [b"\x80", "b"]])
    assert read() == "ab"
    tree.apply(1 << SEQ_BITS | 1, 2, [0, 0], [MARK, ["c", "k", b"1"], None])
    assert read() == "b"
    tree.fold([2, 1], 9)
    assert read() == "b"


def test_conflicts_that_are_over_are_forgotten() -> None:
    tree = Tree(list(REPLICAS))
    for seq, key in enumerate("abc", start=1):
        tree.apply(seq, seq, [seq - 1, 0], [PUT, ["c", key], 1])
        tree.apply(1 << SEQ_BITS | seq, seq, [0, seq - 1], [PUT, ["c", key], 2])
    assert len(tree.contested) == 3
    tree.apply(4, 4, [3, 3], [DROP, ["c", "a"], None, DROP, ["c", "b"], None, PUT, ["c", "b"], 3])
    tree.review_contested(1)
    assert list(tree.contested) == [("c", "b"), ("c", "c")]
    tree.review_contested(100)
    assert list(tree.contested) == [("c", "c")]


def test_a_leaf_whose_operations_are_spent_is_not_looked_at_for_ever() -> None:
    path, other = ["c", "k"], 1 << SEQ_BITS | 1
    for kind in (ADD, PUT, MAX):
        tree = Tree(list(REPLICAS))
        siblings = {leaf_name(path, kind): [Sibling(1, 1)]}
        tree.apply(1, 1, [0, 0], [kind, path, 1], is_repeatable=True)
        tree.apply(other, 2, [0, 0], [kind, path, 1], siblings, is_repeatable=True)
        tree.apply(2, 3, [1, 0], [kind, path, 2])
        tree.apply(other + 1, 4, [1, 1], [DROP, path, None, kind, path, 3])
        tree.fold([2, 2], 9)
        assert tree.dirty_count == 0, "nothing is left to fold"
