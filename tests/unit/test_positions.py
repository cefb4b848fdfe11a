"""Positions: always room between any two, never one twice, and two writers at one place stay apart."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdtstore.errors import UsageError
from crdtstore.types import _positions
from crdtstore.types._positions import MAX_POSITION_BYTES, Inserter, between

OWNERS = [bytes([at]) * 8 for at in (3, 1, 2, 0)]
NUMBERS = st.one_of(st.integers(-99, 99), st.integers(-(1 << 34), (1 << 34) - 1))


def levels(position: bytes) -> int:
    return len(_positions._steps(position))


class Script:
    """Positions of one text, and a clock. Mutable."""

    def __init__(self, random: Random | None = None) -> None:
        self.random = random or Random(1)
        self.text: list[bytes] = []
        self.stamp = 0

    def insert(self, index: int, who: int, count: int = 1, text: list[bytes] | None = None) -> list[bytes]:
        """Insert where somebody sees it; every insertion has another stamp, not always a later one."""
        text = self.text if text is None else text
        self.stamp += 1
        stamp = self.stamp ^ self.random.getrandbits(2) << 40
        left, right = text[index - 1] if index else b"", text[index] if index < len(text) else None
        new = between(left, right, count, Inserter(OWNERS[who], stamp, 0))
        assert [left, *new, *([] if right is None else [right])] == sorted({left, *new, *([right] if right else [])})
        text[index:index] = new
        return new


# --- numbers


@given(NUMBERS, NUMBERS)
def test_numbers_as_bytes_keep_their_order_and_end_by_themselves(one: int, other: int) -> None:
    left, right = _positions._encode(one), _positions._encode(other)
    assert (left < right) == (one < other)
    assert one == other or not right.startswith(left)
    assert _positions._decode(left + b"rest", 0) == (one, len(left))
    assert left[0] not in (0x00, 0xFF)


@pytest.mark.parametrize("edge", [1 << bits for bits in (6, 13, 20, 27)])
def test_numbers_keep_their_order_where_they_get_longer(edge: int) -> None:
    near = [*range(-edge - 3, -edge + 3), *range(edge - 3, edge + 3)]
    assert [*map(_positions._encode, near)] == sorted(map(_positions._encode, near))


# --- one text


@given(st.randoms(use_true_random=False), st.integers(1, 60))
def test_there_is_always_room_and_no_position_comes_twice(random: Random, count: int) -> None:
    """In one text, as long as nothing is deleted; ``Script`` holds each step to it that positions ascend."""
    script = Script(random)
    for _ in range(count):
        script.insert(random.randrange(len(script.text) + 1), random.randrange(3), random.choice([1, 1, 2, 5]))
    assert script.text == sorted(set(script.text))


@given(st.randoms(use_true_random=False))
def test_what_two_insert_without_knowing_each_other_is_never_one(random: Random) -> None:
    """Nor is what one inserts again at a place where all he had put was deleted, unless it goes on in a run of his."""
    script = Script(random)
    for _ in range(random.randrange(12)):
        script.insert(random.randrange(len(script.text) + 1), random.randrange(3))
        if random.random() < 0.3:
            del script.text[random.randrange(len(script.text))]
    made: list[bytes] = []
    for who in range(3):
        text = list(script.text)
        for _ in range(5):
            made += script.insert(random.randrange(len(text) + 1), who, random.choice([1, 3]), text)
    assert len(set(made)) == len(made)


def test_only_its_owner_goes_on_in_a_run() -> None:
    script = Script()
    [first] = script.insert(0, 0)
    assert levels(first) == 1
    assert levels(script.insert(1, 0)[0]) == 1
    for who in (1, 2, 3):
        for index in (0, 2):
            text = list(script.text)
            [foreign] = script.insert(index, who, text=text)
            assert levels(foreign) == 2


def test_the_last_number_of_a_run_is_not_passed() -> None:
    [first] = between(b"", None, 1, Inserter(OWNERS[0], 5, 0))
    prefix = _positions._steps(first)[0].prefix
    last = prefix + _positions._encode(_positions._MAX_NUMBER - 1)
    [after] = between(last, None, 1, Inserter(OWNERS[0], 6, 0))
    assert levels(after) == 2
    least = prefix + _positions._encode(1 - _positions._MAX_NUMBER)
    [before] = between(b"", least, 1, Inserter(OWNERS[0], 6, 0))
    assert levels(before) == 2


def test_a_place_divided_too_finely_is_refused() -> None:
    script = Script()

    def divide() -> None:
        for step in range(MAX_POSITION_BYTES):
            script.insert(len(script.text) // 2, step % 2)

    with pytest.raises(UsageError, match=f"at most {MAX_POSITION_BYTES:,} are allowed. Nothing changed.") as refused:
        divide()
    assert refused.value.code == "too-large"
    middle = len(script.text) // 2
    del script.text[middle - 40 : middle + 40]
    shallow = script.insert(middle - 40, 0, 80)  # as the message says: the passage as a whole
    assert len(shallow[0]) < MAX_POSITION_BYTES


@given(st.binary(max_size=60))
def test_what_is_no_position_is_said_to_be_none(data: bytes) -> None:
    """Whatever a peer may have written: it is refused, or there is room before and after it."""
    try:
        [before] = between(b"", data, 1, Inserter(OWNERS[0], 1, 0))
        [after] = between(data, None, 1, Inserter(OWNERS[0], 1, 0))
    except ValueError:
        return
    assert before < data < after


@pytest.mark.parametrize(
    "pair", [(b"b", b"a"), (b"a", b"a"), (b"\x80", None), (b"", b"\x80" * 11), (b"\xff\x81", None)]
)
def test_neighbours_that_are_no_positions_are_refused(pair: tuple[bytes, bytes | None]) -> None:
    with pytest.raises(ValueError, match="position"):
        between(*pair, 1, Inserter(OWNERS[0], 1, 0))


# --- two writers at one place


@given(st.randoms(use_true_random=False))
def test_blocks_written_at_one_place_stay_whole(random: Random) -> None:
    """Each of two or three takes the same text and writes at the same place, forward, backward or back and forth in what he wrote."""
    script = Script(random)
    for _ in range(random.choice([0, 1, 2, 5, 10, 20])):
        if script.text and random.random() < 0.3:
            del script.text[random.randrange(len(script.text))]
        else:
            script.insert(random.randrange(len(script.text) + 1), random.randrange(3), random.choice([1, 1, 2]))
    place = random.randrange(len(script.text) + 1)
    blocks = [
        (who, _write_block(script, place, who, random.choice(["forward", "backward", "anyhow"])))
        for who in random.sample(range(4), random.choice([2, 3]))
    ]
    tagged = sorted([(position, who) for who, block in blocks for position in block])
    order = [who for at, (_, who) in enumerate(tagged) if not at or tagged[at - 1][1] != who]
    assert len(order) == len(set(order)), "one block is cut apart by another"


def _write_block(script: Script, place: int, who: int, how: str) -> list[bytes]:
    text, block, random = list(script.text), list[bytes](), script.random
    for _ in range(random.choice([1, 2, 3, 6])):
        if how == "anyhow" and block and random.random() < 0.25:
            position = block.pop(random.randrange(len(block)))
            text.remove(position)
            continue
        at = {"forward": len(block), "backward": 0, "anyhow": random.randrange(len(block) + 1)}[how]
        block[at:at] = script.insert(place + at, who, random.choice([1, 1, 1, 3]), text)
    return block


# --- how long positions are

MANNERS: dict[str, tuple[Callable[[Random, int], int], Callable[[Random, int, int], int], float, int]] = {
    "one, forward": (lambda random, step: 0, lambda random, step, length: length, 21, 1),
    "one, backward": (lambda random, step: 0, lambda random, step, length: 0, 21, 1),
    "one, anywhere": (lambda random, step: 0, lambda random, step, length: random.randrange(length + 1), 35, 15),
    "two in turn, at the end": (lambda random, step: step % 2, lambda random, step, length: length, 35, 2),
    "two in turn, at the beginning": (lambda random, step: step % 2, lambda random, step, length: 0, 35, 2),
    "two in turn, after a heading": (lambda random, step: step % 2, lambda random, step, length: min(1, length), 50, 3),
    "three at random, at the end": (
        lambda random, step: random.randrange(3),
        lambda random, step, length: length,
        45,
        3,
    ),
    "three, anywhere": (
        lambda random, step: random.randrange(3),
        lambda random, step, length: random.randrange(length + 1),
        120,
        25,
    ),
}


@pytest.mark.parametrize("manner", MANNERS)
def test_positions_stay_short(manner: str) -> None:
    who, where, most_bytes, most_levels = MANNERS[manner]
    script, random = Script(), Random(7)
    for step in range(4_000):
        script.insert(where(random, step, len(script.text)), who(random, step))
    average = sum(map(len, script.text)) / len(script.text)
    deepest = max(map(levels, script.text))
    print(f"{manner}: {average:.1f} bytes on average, at most {max(map(len, script.text))}, {deepest} levels")
    assert average <= most_bytes
    assert deepest <= most_levels
