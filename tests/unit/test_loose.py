"""Loose amounts against the plainest thing that could do their work: a dict."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.sites import footprint
from crdtstore.loose import Loose, Settled

AMOUNTS = st.sampled_from([0, 1, -7, 1 << 62, -(1 << 63), 1 << 80])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 3), AMOUNTS),
        st.tuples(st.just("take"), st.integers(0, 40), st.just(0)),
        st.tuples(st.just("cut"), st.integers(0, 40), st.just(0)),
    ),
    max_size=30,
)


@given(STEPS, st.sampled_from([1, 1 << 40]))
def test_loose_amounts_are_those_of_a_dict(steps: list[tuple[str, int, int]], first: int) -> None:
    loose, plain = Loose(first, bytearray()), dict[int, tuple[int, int]]()
    seq, floor = first, 0
    for what, number, amount in steps:
        if what == "append":
            seq += number
            if seq > floor and (seq in plain or not plain or seq > max(plain)):
                loose.append(seq, seq << 16, amount)
                plain[seq] = (seq << 16, amount + plain.get(seq, (0, 0))[1])
        elif what == "take":
            taken = plain.pop(first + number, None)
            assert loose.take(first + number) == (None if taken is None else taken[1])
            floor = max(floor, seq)  # a commit's amounts come before anything takes them out
        else:
            upto = first + number
            gone = {at: plain.pop(at) for at in sorted(plain) if at <= upto}
            newest = max(gone, default=0)
            total = sum(amount for _, amount in gone.values())
            assert loose.cut(upto) == Settled(total, newest, gone[newest][0] if gone else 0)
            floor = max(floor, seq)
        assert loose.total == sum(amount for _, amount in plain.values())
        assert [at for at in range(first, first + 100) if loose.has(at)] == sorted(plain)
        assert loose.newest == max(((at, hlc) for at, (hlc, _) in plain.items()), default=(0, 0))
        assert bool(loose.rows) == bool(plain)


def test_ten_thousand_loose_amounts_take_20_bytes_each() -> None:
    loose = Loose(1, bytearray())
    for seq in range(1, 10_001):
        loose.append(seq, seq << 16, 3)
    assert footprint(loose) < 24 * 10_000
    assert loose.take(5_000) == 3
    assert loose.cut(9_000).total == 3 * 8_999
    assert loose.total == 3_000
    assert loose.holes is None
