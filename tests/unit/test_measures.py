"""Histograms in plain integers, and what an engine counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdtstore.engine.measures import Histogram, Measures


@given(
    st.lists(st.one_of(st.integers(-5, 100), st.integers(0, 1 << 40)), min_size=1),
    st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]),
)
def test_a_percentile_is_off_by_less_than_seven_percent(values: list[int], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.note(value)
    ordered = sorted(max(0, value) for value in values)
    rank = next(at for at in range(1, len(ordered) + 1) if at >= share * len(ordered))
    true = ordered[rank - 1]
    found = histogram.percentile(share)
    assert found is not None
    assert true <= found <= true * 1.07
    if true < 32:
        assert found == true
    assert histogram.greatest == ordered[-1]
    assert histogram.total == sum(ordered)
    assert sum(times for _, times in histogram.buckets()) == histogram.count == len(values)


@given(st.lists(st.one_of(st.integers(-5, 100), st.integers(0, 1 << 40))), st.lists(st.integers(0, 1_000)))
def test_many_values_count_as_one_by_one(values: list[int], before: list[int]) -> None:
    one_by_one, together = Histogram(), Histogram()
    for value in before:
        one_by_one.note(value)
        together.note(value)
    for value in values:
        one_by_one.note(value)
    together.note_all(values)
    for name in Histogram.__slots__:
        assert getattr(together, name) == getattr(one_by_one, name), name


def test_a_histogram_of_nothing() -> None:
    assert Histogram().percentile(0.5) is None
    assert Histogram().buckets() == []


def test_many_at_once() -> None:
    histogram = Histogram()
    histogram.note(3, times=5)
    histogram.note(1 << 20)
    assert histogram.count == 6
    assert histogram.percentile(0.5) == 3
    assert histogram.percentile(1.0) == 1 << 20
    assert histogram.percentile(2.0) == 1 << 20, "a share beyond all is the greatest"


@given(st.integers(0, 1 << 60))
def test_buckets_are_few(value: int) -> None:
    histogram = Histogram()
    histogram.note(value)
    ((upper, _),) = histogram.buckets()
    assert value <= upper <= max(31, value * 17 // 16)


def test_windows_close_in_order_and_once() -> None:
    measures = Measures(2)
    for now_ms in (0, 10, 20):
        measures.note_issued(now_ms)
    measures.note_acknowledged(2, 30)
    measures.note_acknowledged(2, 90)
    assert measures.window_ms.buckets() == [(20, 1), (30, 1)]
    measures.note_acknowledged(3, 120)
    assert measures.window_ms.greatest == 100


def test_those_of_a_member_that_was_away_close_together() -> None:
    """One by one they would be a stall: at 500 writes a second a minute's absence is 30,000."""
    measures = Measures(2)
    for now_ms in range(1_000):
        measures.note_issued(now_ms)
    noted = 0

    class Counting(Histogram):
        def note(self, value: int, times: int = 1) -> None:
            nonlocal noted
            noted += 1
            super().note(value, times)

    measures.window_ms = Counting()
    measures.note_acknowledged(999, 1_000)
    assert (measures.window_ms.count, measures.window_ms.total, noted) == (999, sum(range(2, 1_001)), 0)
    measures.note_acknowledged(1_000, 1_000)
    assert (measures.window_ms.count, noted) == (1_000, 1)


@pytest.mark.parametrize(("had", "measured"), [(1, 1), (2, 0), (0, 2)])
def test_what_all_had_before_the_start_is_not_measured(had: int, measured: int) -> None:
    measures = Measures(2)
    measures.note_issued(0, is_recovered=True)
    measures.note_issued(0, is_recovered=True)
    measures.note_acknowledged(had, 1_000, is_first=True)
    measures.note_acknowledged(2, 1_100)
    assert measures.window_ms.count == measured


def test_the_oldest_of_too_many_are_not_measured() -> None:
    """Else a member that stays away for a week would cost memory for every commit since."""
    measures = Measures(2)
    measures.note_issued(0, 1 << 17)
    for now_ms in (7, 8):
        measures.note_issued(now_ms)
    measures.note_acknowledged(1, 50)
    assert measures.window_ms.count == 0, "it was too long ago"
    measures.note_acknowledged((1 << 17) + 2, 50)
    assert measures.window_ms.count == 1 << 16
    assert measures.window_ms.buckets()[0][0] < 50, "the last are measured"
