"""Large values: how much is looked at, whatever the clock says. Times stand in benchmarks/large.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.sites import footprint
from crdtstore.causal import make_replica_id
from crdtstore.commit import FORMAT, Commit, with_operation
from crdtstore.engine.operations import Operations
from crdtstore.kernel import Tree
from crdtstore.leaves import ADD, DROP, MAX, PUT, SEQ_BITS, Branch, Many, One, Order, Sum
from crdtstore.members import has_member, members
from crdtstore.types import REGISTRY, View

REPLICAS = [make_replica_id("us", 1), make_replica_id("eu", 2)]
SET = REGISTRY["aw_set"]
KEY = ["things:aw_set", "k"]
NOTHING = [0, 0]


class Site:
    """A tree to which both replicas write. Mutable; ``seen`` is how many commits of each are applied."""

    def __init__(self) -> None:
        self.tree = Tree(list(REPLICAS))
        self.seen = [0, 0]

    def write(self, origin: int, effects: list[Any], cut: list[int] | None = None) -> None:
        """A commit of a replica that has seen everything, or only what ``cut`` says."""
        cut = list(self.seen) if cut is None else cut
        cut[origin] = self.seen[origin]
        self.seen[origin] += 1
        seq = self.seen[origin]
        self.tree.apply(origin << SEQ_BITS | seq, sum(self.seen) << 16, cut, effects)

    def add(self, origin: int, *elements: Any, cut: list[int] | None = None) -> None:
        self.write(origin, [each for element in elements for each in (MAX, [*KEY, element], 1)], cut)

    def drop(self, origin: int, path: list[Any] = KEY, cut: list[int] | None = None) -> None:
        self.write(origin, [DROP, path, None], cut)

    @property
    def view(self) -> View:
        return View(self.tree.replicas, self.tree.entry(*KEY))

    @property
    def branch(self) -> Branch:
        entry = self.tree.entry(*KEY)
        assert isinstance(entry, Branch)
        return entry

    def settle(self) -> int:
        """Carry out what is left of drops, a hundred at a time; in how many slices."""
        slices = 0
        while not self.tree.is_settled:
            self.tree.run_sweeps(100)
            slices += 1
        assert self.tree.digest == self.tree.share([])
        return slices


@pytest.fixture
def site() -> Site:
    site = Site()
    site.add(0, *range(1_000))
    return site


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many hashes of dots, or cuts of entries, there were since it was last asked: the work behind every effect and every drop."""
    count = 0
    cut, subtract = Tree.cut_entry, Tree.subtract

    def counted(plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            return plain(*arguments)

        return call

    monkeypatch.setattr(Tree, "cut_entry", counted(cut))
    monkeypatch.setattr(Tree, "subtract", counted(subtract))

    def asked() -> int:
        nonlocal count
        before, count = count, 0
        return before

    return asked


# --- one drop of much


def test_a_drop_that_has_seen_everything_is_one_look(site: Site, looks: Callable[[], int]) -> None:
    site.drop(1)
    assert looks() == 1
    assert site.tree.entry(*KEY) is None
    assert not site.view.exists
    assert SET.read(site.view) == []
    assert site.tree.share(KEY) == 0, "an etag does not wait for what is gone"
    assert looks() == 0, "nobody who looks at the key carries anything out"
    assert not site.tree.is_settled
    slices = site.settle()
    assert (looks(), slices) == (1_000, 10)
    assert site.tree.digest == 0


def test_what_is_added_after_a_drop_is_not_taken_for_what_was_there_before(
    site: Site, looks: Callable[[], int]
) -> None:
    site.drop(1)
    site.add(0, 5, 2_000)
    looks()
    assert SET.read(site.view) == [5, 2_000]
    assert looks() == 0
    site.settle()
    assert looks() == 1_000
    assert SET.read(site.view) == [5, 2_000]


def test_a_drop_beside_a_concurrent_add_goes_on_in_slices(site: Site, looks: Callable[[], int]) -> None:
    site.add(1, 5, 2_000, cut=[0, 0])
    site.drop(0, cut=[1, 0])
    assert looks() == 1, "the cut is only noted at the branch"
    assert site.view.child(7).exists is False
    assert site.view.child(5).exists
    assert looks() == 2, "who looks at a child has it carried out there, and nowhere else"
    site.add(0, 8)
    assert site.view.child(8).exists
    assert looks() == 1
    before = site.seen
    site.tree.run_sweeps(100)
    assert looks() == 100
    site.settle()
    assert looks() == 1_001 - 103, "each child once"
    assert before == site.seen
    assert SET.read(site.view) == [5, 8, 2_000]


def test_whoever_wants_to_see_all_of_a_branch_looks_for_what_is_left_only(site: Site, looks: Callable[[], int]) -> None:
    site.add(1, 5, cut=[0, 0])
    site.drop(0, cut=[1, 0])
    looks()
    assert site.view.exists
    assert looks() <= 101, "a few from the end, then a search"
    assert SET.read(site.view) == [5]
    assert looks() <= 2
    site.settle()


def test_a_second_drop_joins_the_first(site: Site) -> None:
    site.add(1, 5, 2_000, cut=[0, 0])
    site.drop(0, cut=[1, 0])
    site.tree.run_sweeps(100)
    site.add(1, 6)
    site.drop(0, cut=[2, 1])
    assert SET.read(site.view) == [6]
    site.settle()
    assert list(site.branch.children) == [6]
    site.drop(0)
    assert site.tree.entry(*KEY) is None
    site.settle()
    assert site.tree.digest == 0


def test_a_drop_goes_below_all_levels_at_once(looks: Callable[[], int]) -> None:
    """No level is large, but all of them together are."""
    site = Site()
    for field in range(150):
        path = ["things:or_map", "k", f"{field}:aw_set"]
        site.write(0, [each for element in range(150) for each in (MAX, [*path, element], 1)])
    site.drop(1, ["things:or_map", "k"])
    assert looks() == 1
    assert site.tree.entry("things:or_map", "k") is None
    site.tree.run_sweeps(100)
    assert looks() == 100
    site.settle()
    assert looks() == 150 * 151 - 100
    assert site.tree.digest == 0


def test_a_drop_of_all_but_one_field_takes_the_others_away_as_a_whole(looks: Callable[[], int]) -> None:
    site = Site()
    for field in range(50):
        path = ["things:or_map", "k", f"{field}:aw_set"]
        site.write(0, [each for element in range(150) for each in (MAX, [*path, element], 1)])
    site.write(1, [MAX, ["things:or_map", "k", "7:aw_set", 200], 1], cut=[0, 0])
    site.drop(0, ["things:or_map", "k"], cut=[50, 0])
    assert looks() == 1 + 50, "fields, not elements"
    view = View(site.tree.replicas, site.tree.entry("things:or_map", "k"))
    assert [(part, SET.read(child)) for part, child in view.children()] == [("7:aw_set", [200])]
    site.settle()


def test_a_copy_to_judge_on_has_no_drop_left_to_carry_out() -> None:
    site = Site()
    path = ["things:or_map", "k", "f:aw_set"]
    site.write(0, [each for element in range(150) for each in (MAX, [*path, element], 1)])
    site.write(1, [MAX, [*path, 200], 1], cut=[0, 0])
    site.drop(0, path, cut=[1, 0])
    scratch = site.tree.scratch([("things:or_map", "k")])
    field = scratch.at(path)
    assert isinstance(field, Branch)
    assert list(field.children) == [200]


def test_an_order_is_let_go_of_in_slices(site: Site) -> None:
    members(SET, site.view, None, 10)
    order = site.branch.order
    assert order is not None
    site.drop(1)
    assert len(order) == 1_000, "freed at once it would be the stall that is to be avoided"
    site.settle()
    assert not order


# --- pages and membership


def test_a_set_is_sorted_for_its_first_page_only(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert members(SET, site.view, None, 100).items == list(range(100))
    sorts = 0
    begin = Order.__init__

    def count(order: Order, *arguments: Any, **named: Any) -> None:
        nonlocal sorts
        sorts += 1
        begin(order, *arguments, **named)

    monkeypatch.setattr(Order, "__init__", count)
    for at in range(0, 900, 100):
        site.add(1, at * 1_000 + 2_000)
        site.write(0, [DROP, [*KEY, at + 150], None])
        page = members(SET, site.view, at, 10)
        assert page.items == list(range(at + 1, at + 11))
    assert not sorts
    assert members(SET, site.view, 149, 1).items == [151]


def test_a_page_and_a_look_touch_no_more_than_they_show(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    members(SET, site.view, None, 1)
    touched: list[Any] = []
    child = View.child

    def look(view: View, part: Any) -> View:
        touched.append(part)
        return child(view, part)

    monkeypatch.setattr(View, "child", look)
    assert len(members(SET, site.view, 499, 100).items) == 100
    assert len(touched) == 101, "and the first of the next page"
    touched.clear()
    assert has_member(SET, site.view, 7)
    assert not has_member(SET, site.view, -1)
    assert touched == [7, -1]


# --- what is left when everybody has it


def test_adds_and_removes_leave_what_the_elements_need() -> None:
    site = Site()
    for number in range(3_000):
        site.add(number % 2, number % 10)
        site.add(1 - number % 2, number % 10, cut=[max(0, each - 3) for each in site.seen])
        if number >= 10:
            site.write(number % 2, [DROP, [*KEY, number % 10], None, MAX, [*KEY, (number + 5) % 10], 1])
    tree = site.tree
    while tree.dirty_count:
        tree.fold(site.seen, 100)
    assert len(site.branch.children) <= 10
    assert all(isinstance(leaf, One) for leaf in site.branch.children.values()), "one dot each"
    assert tree.digest == tree.share([])


def test_a_counter_keeps_one_amount_a_replica_once_all_have_them() -> None:
    site = Site()
    path = ["things:counter", "k"]
    for number in range(2_000):
        site.write(number % 2, [ADD, path, 1])
    leaf = site.tree.entry(*path)
    assert isinstance(leaf, Sum)
    assert [len(run.older or ()) for run in leaf.runs] == [16 * 999] * 2, "16 bytes an add"
    assert site.tree.dirty_count == 1, "one path, however many adds"
    site.tree.fold([500, 500], 1)
    assert [len(run.older or ()) for run in leaf.runs] == [16 * 500] * 2
    site.tree.fold([1_000, 1_000], 1)
    assert [run.older for run in leaf.runs] == [None, None]
    assert leaf.total == 2_000
    assert site.tree.dirty_count == 0


def test_adds_with_operation_ids_are_folded_as_well() -> None:
    site = Site()
    path = ["things:counter", "k"]
    for seq in range(1, 1_001):
        site.tree.apply(seq, seq << 16, [seq - 1, 0], [ADD, path, 1], None, is_repeatable=True)
    leaf = site.tree.entry(*path)
    assert isinstance(leaf, Sum)
    [run] = leaf.runs
    assert run.loose is not None
    assert len(run.loose.rows) == 20 * 1_000
    site.tree.fold([500, 0], 1)
    assert len(run.loose.rows) == 20 * 500
    assert site.tree.dirty_count == 1
    site.tree.fold([1_000, 0], 1)
    assert (run.loose, run.base, site.tree.dirty_count) == (None, 1_000, 0)
    assert site.tree.digest == site.tree.share([])


def test_concurrent_adds_of_one_element_are_one_dot_once_all_have_them() -> None:
    site = Site()
    for _ in range(50):
        site.add(0, "x", cut=[0, 0])
        site.add(1, "x", cut=[0, 0])
    leaf = site.branch.children["x"]
    assert isinstance(leaf, Many)
    site.tree.fold(site.seen, 1)
    assert isinstance(site.branch.children["x"], One)


def test_a_part_of_a_text_is_one_leaf() -> None:
    site = Site()
    path = ["things:text", "k"]
    for number in range(200):
        site.write(0, [PUT, [*path, number.to_bytes(4, "big")], [b"\x01", "x"]])
    assert all(isinstance(leaf, One) for leaf in site.tree.entry(*path).children.values())  # type: ignore[union-attr]
    assert site.tree.dirty_count == 0


def test_nothing_is_kept_for_operations_that_are_forgotten() -> None:
    operations = Operations()
    for seq in range(1, 5_001):
        attributes = with_operation([], (seq.to_bytes(16, "big"), seq), expires_ms=100)
        commit = Commit(FORMAT, 0, seq, seq, [], "me", attributes, [ADD, ["things:counter", "k"], 1])
        operations.record((seq.to_bytes(16, "big"), seq, 100 << 16), seq, commit, NOTHING)
    operations.forget([4_000, 0], 101 << 16, 1_000)
    assert len(operations) == 4_000, "so many at once"
    while operations.forget([4_000, 0], 101 << 16, 1_000):
        pass
    assert len(operations) == 1_000, "these are not stable"
    while operations.forget([5_000, 0], 101 << 16, 1_000):
        pass
    assert footprint(operations._attempts, operations._expiries, operations._expiring) == footprint({}, [], {})
