"""Text: what is typed stands where it was typed, for everybody, and what is cut leaves nothing behind."""

from __future__ import annotations

from random import Random
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdtstore.errors import UsageError
from crdtstore.kernel import Tree
from crdtstore.leaves import MARK, PUT, SEQ_BITS, Branch
from crdtstore.types.or_map import part_of
from crdtstore.types.text import MAX_CHARACTERS
from tests.laws.text_model import text as model
from tests.laws.text_story import (
    KEY,
    PATH,
    REPLICAS,
    TEXT,
    WIPE,
    Call,
    Region,
    Sent,
    Story,
    cut,
    did,
    everywhere,
    insert,
)

US, EU, _ = REPLICAS


def regions() -> tuple[Region, Region, Region]:
    return Region(0), Region(1), Region(2)


def effects_of(sent: Sent) -> list[tuple[Any, ...]]:
    flat = sent.commit.effects
    return [tuple(flat[at : at + 3]) for at in range(0, len(flat), 3)]


# --- one region


def test_characters_stand_where_they_were_inserted() -> None:
    us, _, _ = regions()
    assert us.text == ""
    us.write(insert(0, "hello"), hlc=1)
    us.write(insert(5, " world"), insert(0, ">"), hlc=2)
    assert us.text == ">hello world"
    us.write(cut(1, 5), insert(1, "bye"), hlc=3)
    assert us.text == ">bye world"


def test_indexes_count_code_points() -> None:
    us, _, _ = regions()
    us.write(insert(0, "a👩‍👩‍👧e\u0301z"), hlc=1)
    us.write(cut(6, 2), hlc=2)
    assert us.text == "a👩‍👩‍👧z"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (insert(4, "x"), "index must be 0 to 3, the length of the text in this region, got 4"),
        (cut(1, 3), "has 3 characters in this region, got index 1 and length 3"),
        (cut(3), "has 3 characters in this region, got index 3 and length 1"),
        (insert(0, ""), "text must be 1 to 10,000 characters, got 0"),
        (insert(0, "x" * (MAX_CHARACTERS + 1)), "text must be 1 to 10,000 characters, got 10,001"),
        (cut(0, MAX_CHARACTERS + 1), "length must be 1 to 10,000 characters, got 10,001"),
        (cut(0, 0), "length must be at least 1, got 0"),
        (insert(-1, "x"), "index must not be negative, got -1"),
        (insert(0, "\ud800"), "valid Unicode"),
    ],
)
def test_what_does_not_fit_the_text_is_refused(call: Call, words: str) -> None:
    us, _, _ = regions()
    us.write(insert(0, "abc"), hlc=1)
    digest = us.digest
    with pytest.raises(UsageError, match=words) as refused:
        us.write(insert(0, "first"), call, hlc=2) if words.startswith("valid") else us.write(call, hlc=2)
    assert refused.value.code == "invalid-value"
    assert "Nothing changed." in str(refused.value)
    assert (us.text, us.digest) == ("abc", digest)


def test_nothing_is_left_of_what_was_cut() -> None:
    us, eu, _ = regions()
    commits = [us.write(insert(0, "a passage"), hlc=1)]
    commits += [us.write(cut(2, 7), hlc=2), us.write(cut(0, 2), hlc=3)]
    eu.apply(*commits)
    for region in (us, eu):
        assert region.text == ""
        assert region.keyspace.tree.entry(PATH, KEY) is None
        assert region.digest == 0


def test_a_character_typed_where_one_was_deleted_may_have_its_position() -> None:
    """No two characters of one position are seen together: whoever has the new one has the deletion too."""
    us, eu, ap = regions()
    first = us.write(insert(0, "abc"), hlc=1)
    eu.apply(first)
    beside = eu.write(insert(2, "-"), hlc=1)
    second, third = us.write(cut(1, 2), hlc=2), us.write(insert(1, "xy"), hlc=3)
    positions = [value[0] for sent in (first, third) for kind, _, value in effects_of(sent) if kind == PUT]
    assert positions[1:3] == positions[3:]
    ap.apply(first, beside)
    assert ap.text == "ab-c"
    ap.apply(second, third)
    assert everywhere(first, beside, second, third) == ap.text == "ax-y"


# --- several regions


@given(st.randoms(use_true_random=False), st.integers(1, 25))
def test_any_story_is_as_the_model_tells_it(random: Random, steps: int) -> None:
    Story(random).run(steps)


def type_forward(region: Region, index: int, text: str, hlc: int) -> list[Sent]:
    return [region.write(insert(index + at, char), hlc=hlc + at) for at, char in enumerate(text)]


def type_backward(region: Region, index: int, text: str, hlc: int) -> list[Sent]:
    return [region.write(insert(index, char), hlc=hlc + at) for at, char in enumerate(reversed(text))]


@pytest.mark.parametrize("one", [type_forward, type_backward])
@pytest.mark.parametrize("other", [type_forward, type_backward])
@pytest.mark.parametrize("text", ["", "-", "[]", "<()>"])
@pytest.mark.parametrize("maker", [0, 1, 2])
@pytest.mark.parametrize("stamps", [(10, 20), (20, 10), (10, 10)])
def test_what_two_write_at_one_place_stays_apart(
    one: Any, other: Any, text: str, maker: int, stamps: tuple[int, int]
) -> None:
    told = regions()
    first = [told[maker].write(insert(0, text), hlc=1)] if text else []
    for index in range(len(text) + 1):
        us, eu = Region(0), Region(1)
        us.apply(*first)
        eu.apply(*first)
        commits = [*one(us, index, "every", stamps[0]), *other(eu, index, "OTHER", stamps[1])]
        shown = everywhere(*first, *commits)
        assert shown.replace("every", "", 1).replace("OTHER", "", 1) == text
        assert shown.startswith(text[:index])


def test_a_cut_takes_what_it_has_seen() -> None:
    us, eu, _ = regions()
    first = us.write(insert(0, "one two three"), hlc=1)
    eu.apply(first)
    inserted = eu.write(insert(6, "XX"), hlc=2)
    passage = us.write(cut(3, 5), hlc=3)
    assert us.text == "onethree"[:3] + "three"
    assert everywhere(first, inserted, passage) == "oneXXthree"


def test_a_character_that_two_regions_cut_is_cut() -> None:
    us, eu, _ = regions()
    first = us.write(insert(0, "abcd"), hlc=1)
    eu.apply(first)
    assert everywhere(first, us.write(cut(1, 2), hlc=2), eu.write(cut(0, 2), hlc=2)) == "d"


def test_a_delete_takes_what_it_has_seen() -> None:
    us, eu, _ = regions()
    first = us.write(insert(0, "abcd"), hlc=1)
    eu.apply(first)
    assert everywhere(first, us.write(WIPE, hlc=2), eu.write(insert(2, "X"), hlc=2)) == "X"


def test_what_is_inserted_between_deleted_neighbours_keeps_its_order() -> None:
    us, eu, ap = regions()
    first = us.write(insert(0, "abc"), hlc=1)
    eu.apply(first)
    ap.apply(first)
    commits = [first, eu.write(insert(1, "X"), hlc=2), ap.write(insert(2, "Y"), hlc=2), us.write(cut(0, 3), hlc=2)]
    commits.append(us.write(insert(0, "Z"), hlc=3))
    shown = everywhere(*commits)
    assert sorted(shown) == ["X", "Y", "Z"]
    assert shown.index("X") < shown.index("Y")


# --- repeated operations

ONCE = b"operation-id-0-1"


def test_two_attempts_are_one_insertion_at_the_place_that_counts() -> None:
    us, eu, _ = regions()
    around = us.write(insert(0, "[]"), hlc=1), eu.write(insert(0, "<>"), hlc=2)
    late = us.write(insert(1, "abc"), hlc=9, operation=ONCE)
    early = eu.write(insert(1, "abc"), hlc=5, operation=ONCE)
    assert (us.text, eu.text) == ("[abc]", "<abc>")
    commits = [*around, late, early]
    us.hear(commits)
    eu.hear(commits)
    assert us.text == eu.text == everywhere(*commits) == model(did(commits)).value == "[]<abc>"


@pytest.mark.parametrize("is_read", [True, False])
def test_a_cut_that_saw_one_attempt_ends_the_character(is_read: bool) -> None:
    us, eu, ap = regions()
    one = us.write(insert(0, "abc"), hlc=2, operation=ONCE)
    other = eu.write(insert(0, "abc"), hlc=1, operation=ONCE)
    ap.apply(one)
    hole = ap.write(cut(1), hlc=3)
    reader = Region(2)
    for sent in (one, other, hole):
        reader.apply(sent)
        assert not is_read or len(reader.text) == (2 if sent is hole else 3)
    assert everywhere(one, other, hole) == reader.text == "ac"
    after = reader.write(insert(1, "B"), hlc=4)
    assert reader.text == "aBc"
    assert everywhere(one, other, hole, after) == model(did([one, other, hole, after])).value == "aBc"


# --- what no reading shows


def test_folding_changes_nothing() -> None:
    us, eu, _ = regions()
    one = us.write(insert(0, "abc"), hlc=2, operation=ONCE)
    other = eu.write(insert(0, "abc"), hlc=1, operation=ONCE)
    us.apply(other)
    us.write(cut(1), hlc=3)
    text, digest = us.text, us.digest
    us.keyspace.forget(us.applied, 1 << 70)
    us.keyspace.tree.fold(us.applied, 100)
    assert (us.text, us.digest) == (text, digest)
    us.write(insert(2, "d"), hlc=4)
    assert us.text == "acd"
    assert one.commit.operation is not None


def test_a_big_text_is_deleted_in_slices_while_others_write(monkeypatch: pytest.MonkeyPatch) -> None:
    us, eu, _ = regions()
    first = us.write(insert(0, "0123456789"), hlc=1)
    eu.apply(first)
    beside = eu.write(insert(5, "X"), hlc=2)
    monkeypatch.setattr(Tree, "sweep_above", 3)
    us.write(WIPE, hlc=3)
    us.apply(beside)
    us.keyspace.tree.run_sweeps(4)
    us.write(insert(1, "Y"), hlc=4)
    us.keyspace.tree.run_sweeps(1_000)
    assert us.text == "XY"
    assert us.keyspace.tree.digest == us.keyspace.tree.share([])


def test_what_another_version_wrote_is_passed_over() -> None:
    us, _, _ = regions()
    us.write(insert(0, "ab"), hlc=1)
    tree = us.keyspace.tree
    odd: list[Any] = [1, "x", [b"", "x"], [b"\xff", "x"], [b"\x80", "xy"], [b"\x80"], {"a": 1}]
    for at, value in enumerate(odd):
        tree.apply(1 << SEQ_BITS | at + 1, 9, [9, 9, 9], [PUT, [PATH, KEY, b"odd%d" % at], value])
    tree.apply(1 << SEQ_BITS | 20, 9, [9, 9, 9], [PUT, [PATH, KEY, "named"], [b"\x80", "x"]])
    tree.apply(1 << SEQ_BITS | 21, 9, [9, 9, 9], [9, [PATH, KEY, b"kind"], [b"\x80", "x"]])
    tree.apply(1 << SEQ_BITS | 22, 9, [9, 9, 9], [MARK, [PATH, KEY, b"marked"], None])
    assert us.text == "ab"
    us.write(insert(2, "c"), cut(0), hlc=2)
    assert us.text == "bc"
    tree.apply(1 << SEQ_BITS | 30, 9, [9, 9, 9], [PUT, [PATH, KEY, b"where"], [b"\x07", "?"]])
    assert us.text == "?bc"
    with pytest.raises(UsageError, match="written by another version"):
        us.write(insert(1, "x"), hlc=3)
    us.applied[1] = 30
    us.write(cut(0), hlc=3)
    assert us.text == "bc"


def test_explain_shows_passages_and_where_they_came_from() -> None:
    us, eu, _ = regions()
    first = us.write(insert(0, "hello"), hlc=1)
    eu.apply(first)
    us.apply(eu.write(insert(2, "XY"), hlc=2))
    writes = list(TEXT.explain(us.keyspace.view(PATH, KEY)))
    assert [(write.at, write.live.value, str(write.live.dot), write.counts) for write in writes] == [
        ((0,), "he", f"{US}:1", True),
        ((2,), "XY", f"{EU}:1", True),
        ((4,), "llo", f"{US}:1", True),
    ]
    assert not list(TEXT.explain(eu.keyspace.view(PATH, "never")))


def test_a_field_of_a_map_may_be_a_text() -> None:
    below = (part_of("body", "text"),)
    us, eu = Region(0, below), Region(1, below)
    first = us.write(insert(0, "ac"), hlc=1)
    eu.apply(first)
    eu.apply(us.write(insert(1, "b"), hlc=2))
    eu.write(cut(0), hlc=3)
    assert (us.text, eu.text) == ("abc", "bc")


# --- how long it takes


def typing(count: int) -> tuple[float, float, float]:
    """Seconds of one core: to type so many characters one by one, to merge that with as much of another region, to read it once."""
    us, eu, _ = regions()
    started = process_time()
    ours = [us.write(insert(at, "x"), hlc=at) for at in range(count)]
    typed = process_time() - started
    theirs = [eu.write(insert(0, "y"), hlc=at) for at in range(count)]
    assert len(us.text) == count
    started = process_time()
    us.apply(*theirs)
    merged = process_time() - started
    entry = us.keyspace.tree.entry(PATH, KEY)
    assert isinstance(entry, Branch)
    started = process_time()
    assert len(us.text) == 2 * count
    read = process_time() - started
    eu.apply(*ours)
    assert eu.text == us.text
    return typed, merged, read


def test_typing_costs_little_a_character() -> None:
    typed, merged, read = typing(2_000)
    print(f"2,000 characters: typed {typed:.3f} s, merged {merged:.3f} s, read {1000 * read:.1f} ms")
    assert typed < 1
    assert merged < 1
