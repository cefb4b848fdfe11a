"""The hybrid clock: never backward, not dragged by broken ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdtstore.clock import COUNTER_BITS, Clock, physical_ms, rfc3339

MOVES = st.lists(
    st.tuples(st.sampled_from(("tick", "read", "observe")), st.integers(0, 50), st.integers(0, 900)), max_size=30
)


@given(MOVES)
def test_stamps_only_grow_and_a_reading_lies_between(moves: list[tuple[str, int, int]]) -> None:
    clock, made, said = Clock(max_drift_ms=500), [0], [0]
    for what, now_ms, far in moves:
        if what == "tick":
            made.append(clock.tick(now_ms))
            assert made[-1] > made[-2]
            assert made[-1] > said[-1], "a commit is above every heartbeat before it"
        elif what == "read":
            said.append(clock.read(now_ms))
            assert said[-1] >= made[-1], "a heartbeat is not below a commit before it"
            assert said[-1] >= said[-2]
        else:
            before = clock.last
            clock.observe(now_ms + far << COUNTER_BITS, now_ms)
            assert clock.last >= before
            assert clock.last <= max(before, now_ms + 500 << COUNTER_BITS)


def test_a_full_counter_carries_into_the_milliseconds() -> None:
    clock = Clock()
    first = clock.tick(7)
    for _ in range(1 << COUNTER_BITS):
        last = clock.tick(7)
    assert physical_ms(first) == 7
    assert physical_ms(last) == 8
    assert clock.tick(7) == last + 1


def test_a_stamp_too_far_ahead_is_counted_and_not_followed() -> None:
    clock = Clock(max_drift_ms=500)
    clock.tick(1_000)
    clock.observe(1_501 << COUNTER_BITS, 1_000)
    assert clock.drifted == 1
    assert physical_ms(clock.last) == 1_000
    clock.observe(1_500 << COUNTER_BITS, 1_000)
    assert physical_ms(clock.last) == 1_500
    assert physical_ms(clock.tick(1_000)) == 1_500


@pytest.mark.parametrize(
    ("unix_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
        ((1 << 48) - 1, "unix-ms 281474976710655"),
    ],
)
def test_instants_as_people_write_them(unix_ms: int, text: str) -> None:
    assert rfc3339(unix_ms) == text
