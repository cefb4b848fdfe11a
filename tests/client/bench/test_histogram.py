"""The histogram against exact quantiles, and Zipf's law against theory."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdtstore_client.bench.histogram import RELATIVE_ERROR, Histogram
from crdtstore_client.bench.keys import Zipf

VALUES = st.lists(
    st.one_of(st.integers(0, 300), st.integers(0, 1 << 20), st.integers(0, 1 << 45)), min_size=1, max_size=200
)
SHARES = [0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0]


def histogram_of(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


def exact(values: list[int], share: float) -> int:
    """The nearest rank."""
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]


@given(VALUES)
def test_a_quantile_is_never_too_low_and_too_high_by_a_bounded_share(values: list[int]) -> None:
    histogram = histogram_of(values)
    assert (histogram.count, histogram.total) == (len(values), sum(values))
    assert (histogram.least, histogram.greatest) == (min(values), max(values))
    for share in SHARES:
        told, true = histogram.quantile(share), exact(values, share)
        assert told is not None
        assert true <= told <= true * (1 + RELATIVE_ERROR)


@given(VALUES, VALUES)
def test_joined_is_as_if_all_had_been_told_to_one(left: list[int], right: list[int]) -> None:
    joined, whole = histogram_of(left), histogram_of(left + right)
    joined.join(histogram_of(right))
    joined.join(Histogram())
    assert list(joined) == list(whole)
    assert (joined.least, joined.greatest, joined.mean) == (whole.least, whole.greatest, whole.mean)
    empty = Histogram()
    empty.join(whole)
    assert [empty.quantile(share) for share in SHARES] == [whole.quantile(share) for share in SHARES]


def test_buckets_lie_side_by_side() -> None:
    """Whatever is the greatest of one bucket, the next number is of the next one."""
    last = -1
    for power in range(50):
        for value in sorted({1 << power, (1 << power) + 1, (3 << power) // 2, (2 << power) - 1}):
            (upper, _), *_ = histogram_of([value])
            assert value <= upper
            assert upper - value <= value * RELATIVE_ERROR
            assert upper >= last
            last = upper
            (after, _), *_ = histogram_of([upper + 1])
            assert after > upper


def test_memory_is_bounded_by_the_range_and_not_by_the_count() -> None:
    random = Random(1)
    histogram = histogram_of([round(random.expovariate(1e-6)) for _ in range(100_000)])
    assert len(list(histogram)) < 24 * 128


def test_nothing_and_what_cannot_be() -> None:
    nothing = Histogram()
    assert nothing.quantile(0.5) is None
    assert math.isnan(nothing.mean)
    nothing.add(-5)
    assert (nothing.quantile(0.5), nothing.least, nothing.greatest) == (0, 0, 0)


# --- keys


@pytest.mark.parametrize("exponent", [0.0, 0.5, 0.99, 1.5])
def test_popular_keys_are_drawn_as_often_as_theory_says(exponent: float) -> None:
    """Chi-square over 50 keys, the observed sum against mean and spread of the distribution (mean n - 1, variance 2 (n - 1))."""
    count, draws, random, zipf = 50, 100_000, Random(7), Zipf(50, exponent)
    seen = [0] * count
    for _ in range(draws):
        seen[zipf.draw(random)] += 1
    weights = [(rank + 1) ** -exponent for rank in range(count)]
    expected = [draws * weight / sum(weights) for weight in weights]
    assert all(
        math.isclose(zipf.probability(rank), weights[rank] / sum(weights), rel_tol=1e-9) for rank in range(count)
    )
    chi_square = sum((found - wanted) ** 2 / wanted for found, wanted in zip(seen, expected, strict=True))
    assert chi_square < (count - 1) + 5 * math.sqrt(2 * (count - 1))


def test_a_wrong_exponent_would_be_noticed() -> None:
    draws, random, zipf = 100_000, Random(7), Zipf(50, 0.8)
    seen = [0] * 50
    for _ in range(draws):
        seen[zipf.draw(random)] += 1
    other = Zipf(50, 0.99)
    chi_square = sum(
        (found - draws * other.probability(rank)) ** 2 / (draws * other.probability(rank))
        for rank, found in enumerate(seen)
    )
    assert chi_square > 49 + 5 * math.sqrt(98)


@given(st.integers(1, 300), st.floats(0, 3), st.integers())
def test_ranks_are_those_there_are(count: int, exponent: float, seed: int) -> None:
    zipf = Zipf(count, exponent)
    random = Random(seed)
    assert all(0 <= zipf.draw(random) < count for _ in range(50))
    assert math.isclose(sum(map(zipf.probability, range(count))), 1.0, rel_tol=1e-9)
