"""What is on its way to a peer: never more than the way carries soon, and not twice what may still arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdtstore.engine.flow import Flow
from crdtstore.engine.progress import Progress
from tests.engine.narrow import Narrow

MOST, TIMEOUT_MS, RESEND_MS = 1 << 22, 3_000, 100
SLOW = 20_000
"""Bytes a second."""


# --- what one replica believes of a way


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("sent", "arrived", "silence", "again", "begin")),
            st.integers(1, 1 << 23),
            st.integers(0, 60_000),
        ),
        max_size=60,
    )
)
def test_a_window_and_a_wait_have_bounds_whatever_happens(what: list[tuple[str, int, int]]) -> None:
    flow, now_ms, sent, arrived = Flow(MOST), 0, 0, 0
    for name, size, ms in what:
        now_ms += ms
        if name == "sent":
            sent += 1
            flow.note_sent(sent, size, now_ms)
            flow.is_limiting = size >= flow.window_bytes
        elif name == "arrived":
            arrived = min(sent, arrived + 1)
            flow.note_arrived(arrived, now_ms)
        else:
            {"silence": flow.note_silence, "again": flow.note_again, "begin": flow.begin}[name]()
        assert 0 < flow.window_bytes <= MOST
        assert 0 < flow.frame_bytes(1 << 18) <= max(flow.window_bytes, 8 << 10)
        assert 5 * RESEND_MS <= flow.patience_ms(0, TIMEOUT_MS, RESEND_MS) <= TIMEOUT_MS
        assert flow.patience_ms(size, TIMEOUT_MS, RESEND_MS) <= 300_000


def rounds(took_ms: Callable[[int], int], count: int) -> Flow:
    """A frame, then full windows one after the other, each acknowledged after what so many bytes take."""
    flow, now_ms = Flow(MOST), 0
    for number in range(1, count + 1):
        flow.is_limiting = True
        size = flow.window_bytes if number > 1 else flow.frame_bytes(MOST)
        flow.note_sent(number, size, now_ms)
        now_ms += took_ms(size)
        flow.note_arrived(number, now_ms)
    return flow


@pytest.mark.parametrize("latency_ms", [1, 100])
def test_a_wide_way_is_filled_after_a_few_round_trips(latency_ms: int) -> None:
    assert rounds(lambda size: latency_ms, 8).window_bytes == MOST


@pytest.mark.parametrize("latency_ms", [1, 100])
@pytest.mark.parametrize("rate", [1 << 11, 20_000, 1_000_000])
def test_a_narrow_way_holds_what_it_carries_soon(latency_ms: int, rate: int) -> None:
    flow = rounds(lambda size: latency_ms + 1000 * size // rate, 60)
    assert flow.window_bytes <= max(16 << 10, rate * 2 * (latency_ms + 1_250) // 1_000)
    assert flow.window_bytes >= min(16 << 10, rate // 16)


def test_a_way_that_became_longer_is_not_taken_for_narrow_for_ever() -> None:
    flow, now_ms = rounds(lambda size: 1, 20), 0
    for number in range(100, 140):
        flow.is_limiting = True
        flow.note_sent(number, flow.window_bytes, now_ms)
        now_ms += 900
        flow.note_arrived(number, now_ms)
    assert flow.window_bytes == MOST


def test_what_is_larger_than_a_window_is_waited_for_in_proportion() -> None:
    flow = rounds(lambda size: 10 + 1000 * size // SLOW, 20)
    assert flow.patience_ms(1 << 20, TIMEOUT_MS, RESEND_MS) >= 1000 * (1 << 20) // SLOW


# --- what a peer says


def doubted() -> Progress:
    """A peer that acknowledged one of three commits, and then nothing for too long."""
    progress = Progress(2)
    progress.become_probing(0)
    progress.take_vector([0, 0], [0, 0], 0, 0)
    progress.note_sent(0, 3, 300, 10)
    progress.take_vector([1, 0], [3, 0], 0, 20)
    progress.become_probing(5_000)
    progress.note_asked()
    return progress


def test_what_arrives_late_after_all_is_not_sent_again() -> None:
    progress = doubted()
    progress.take_vector([2, 0], [3, 0], 0, 5_100, is_answer=False)
    assert (progress.state, progress.sent) == ("streaming", 3)


def test_a_word_that_says_nothing_new_and_is_no_answer_is_no_reason_to_send_again() -> None:
    progress = doubted()
    progress.take_vector([1, 0], [3, 0], 0, 5_100, is_answer=False)
    assert progress.state == "probing"
    assert progress.note_answer()
    progress.take_vector([1, 0], [3, 0], 0, 5_200)
    assert (progress.state, progress.sent) == ("streaming", 1)


def test_only_the_last_answer_comes_after_all_that_was_sent() -> None:
    progress = doubted()
    progress.note_asked()
    assert not progress.note_answer()
    assert progress.note_answer()
    assert progress.note_answer(), "one that nobody asked for takes nothing away"


def test_what_was_lacked_before_a_cut_is_not_relayed_at_its_end() -> None:
    """Its maker may reach the peer again too; who cannot be reached by its maker lacks it for long."""
    progress = Progress(3)
    progress.become_probing(0)
    progress.take_vector([0, 0, 0], [0, 0, 5], 0, 0)
    progress.become_down()
    progress.become_probing(60_000)
    progress.take_vector([0, 0, 0], [0, 0, 9], 0, 60_000)
    assert progress.to_relay(0, 1, 60_599, 600) == []
    assert progress.to_relay(0, 1, 60_600, 600) == [2]


def test_a_relay_goes_on_while_it_is_the_only_one_and_hesitates_where_it_was_in_vain() -> None:
    progress = Progress(3)
    progress.become_probing(0)
    progress.take_vector([0, 0, 0], [0, 0, 99], 0, 0)
    sizes, waits, now_ms = [], [], 600
    for upto in (10, 20, 20, 20):
        assert progress.to_relay(0, 1, now_ms, 600) == [2]
        progress.begin_relay(now_ms)
        sizes.append(progress.relay_bytes)
        progress.note_relayed(2, progress.has[2] + 10)
        progress.take_vector([0, 0, upto], [0, 0, 99], 0, now_ms)
        begun_ms = now_ms
        while not progress.to_relay(0, 1, now_ms, 600):
            now_ms += 50
        waits.append(now_ms - begun_ms)
    assert sizes[1] == 2 * sizes[0]
    assert sizes[3] == sizes[2] // 2
    assert waits[:2] == [0, 0]
    assert waits[3] == 2 * waits[2]


# --- narrow links


@pytest.mark.parametrize(("count", "size"), [(600, 100), (60, 1_000), (3, 60_000), (1, 200_000), (1, 800_000)])
def test_a_narrow_link_carries_every_commit_once(count: int, size: int) -> None:
    """However large commits and frames are: what is under way is not lost, and what waits before the link is little."""
    wire = Narrow("us", "eu", bytes_per_s={("us", "eu"): SLOW})
    wire.make("us", count, size)
    wire.connect()
    took_ms = wire.run_until("eu", "us", 60_000)
    measures = wire.engines["us"].measures
    assert measures.commits_sent == count
    assert wire.engines["eu"].measures.commits_received_twice == 0
    assert wire.greatest_queue <= max(2 * size, 40 << 10)
    assert took_ms <= 1.5 * 1000 * wire.bytes_sent / SLOW + 1_000, "the link was not idle"


@pytest.mark.parametrize(("sync_ms", "latency_ms"), [(60, 1), (5, 50)])
def test_what_was_missed_fills_a_wide_link_after_a_few_round_trips(sync_ms: int, latency_ms: int) -> None:
    """Also where each acknowledgement covers all that was on its way."""
    wire = Narrow("us", "eu", sync_ms=sync_ms, latency_ms=latency_ms)
    wire.make("us", 1_500, 2_000)
    wire.run(2 * sync_ms)
    wire.connect()
    assert wire.run_until("eu", "us", 60_000) < 8 * (2 * latency_ms + 2 * sync_ms + 10)


def test_a_link_that_becomes_narrow_costs_one_window_at_most() -> None:
    wire = Narrow("us", "eu")
    wire.connect()
    wire.run(500)
    for _ in range(20):
        wire.make("us", 200, 500)
        wire.run_until("eu", "us", 5_000)
    window = wire.engines["us"].antientropy.peers[1].flow.window_bytes
    assert window > 64 << 10
    wire.bytes_per_s["us", "eu"] = SLOW
    before = wire.engines["us"].measures.commits_sent
    wire.make("us", 300, 2_000)
    wire.run_until("eu", "us", 200_000)
    assert wire.engines["us"].measures.commits_sent - before <= 1.1 * 300


@pytest.mark.parametrize("size", [100, 3_000])
def test_a_peer_that_never_acknowledges_is_sent_a_window_and_then_little(size: int) -> None:
    wire = Narrow("us", "eu", "ap")
    wire.connect()
    wire.run(500)
    wire.deaf.add("ap")
    wire.make("us", 400_000 // size, size)
    before = wire.bytes_sent
    took_ms = wire.run_until("eu", "us", 5_000)
    assert took_ms < 2_000, "the slow do not slow others down"
    for _ in range(20):
        wire.run(1_000)
        assert wire.on_their_way("us", "ap") <= (64 << 10) + size + 200
    assert wire.bytes_sent - before < 3 * 400_000


def test_a_narrow_link_does_not_slow_others_down() -> None:
    wire = Narrow("us", "eu", "ap", bytes_per_s={("us", "ap"): SLOW, ("eu", "ap"): SLOW})
    wire.connect()
    wire.run(500)
    wire.make("us", 100, 3_000)
    assert wire.run_until("eu", "us", 5_000) < 1_000
    wire.run_until("ap", "us", 100_000)
    assert wire.engines["us"].measures.commits_sent <= 1.05 * 200
    assert wire.greatest_queue < 48 << 10


def test_words_of_others_wait_no_longer_than_what_a_link_carries_soon() -> None:
    """A digest behind a window of commits arrives within a second or two, on a link that needs a minute for what is missing."""
    wire = Narrow("us", "eu", bytes_per_s={("us", "eu"): SLOW}, gossip_interval_ms=200)
    wire.make("us", 400, 3_000)
    wire.connect()
    wire.run(5_000)
    for _ in range(10):
        wire.run(1_000)
        heard_ms = wire.engines["eu"].antientropy.peers[0].heard_ms
        assert heard_ms is not None
        assert wire.now_ms - heard_ms < 2_000


@pytest.mark.parametrize("commits", [2_000, 6_000])
def test_what_was_missed_streams_through_buffers_of_one_size(commits: int) -> None:
    """Nobody holds more for three times as much, but eight bytes a block. What lies deep is read from the log."""
    budget, window, index = 32 << 10, 64 << 10, 9 * commits
    wire = Narrow("us", "eu", history_bytes=budget, window_bytes=window, early_bytes=budget, fold_interval_ms=200)
    for _ in range(commits // 100):
        wire.make("us", 100, 100)
        wire.run(3)
    assert wire.engines["us"].history.memory_bytes < 2 * budget + index
    assert not wire.engines["us"].history.is_in_memory(0, commits // 2)
    wire.greatest_held = {"us": 0, "eu": 0}
    wire.connect()
    wire.run_until("eu", "us", 60_000)
    assert wire.engines["us"].measures.commits_sent == commits
    two_extents = 2 * 3 * (64 << 10)
    assert wire.greatest_held["us"] < budget + window + two_extents + index
    assert wire.greatest_held["eu"] < 2 * budget + 2 * window + index


@pytest.mark.parametrize("loss", [0.02, 0.2])
def test_all_comes_over_links_that_lose_and_repeat(loss: float) -> None:
    wire = Narrow("us", "eu", bytes_per_s={("us", "eu"): 200_000}, loss=loss, again=loss)
    wire.connect()
    for _ in range(5):
        wire.make("us", 100, 300)
        wire.run(300)
    wire.run_until("eu", "us", 120_000)


def test_a_relay_over_a_narrow_link_sends_little_twice() -> None:
    """The maker cannot reach the third; who relays knows only from digests what has come."""
    wire = Narrow("us", "eu", "ap", bytes_per_s={("eu", "ap"): SLOW})
    wire.make("us", 100, 2_000)
    wire.connect(("us", "eu"), ("eu", "ap"))
    wire.run_until("ap", "us", 300_000)
    assert wire.engines["eu"].measures.commits_relayed <= 2 * 100


def test_who_was_cut_off_gets_from_each_maker_its_own_and_no_relay() -> None:
    wire = Narrow("us", "eu", "ap")
    wire.connect()
    wire.run(500)
    for name in ("us", "eu"):
        wire.cut(name, "ap")
    for _ in range(20):
        wire.make("us", 50, 200)
        wire.make("eu", 50, 200)
        wire.run(300)
    wire.connect(("us", "ap"), ("eu", "ap"))
    wire.run_until("ap", "us", 5_000)
    wire.run_until("ap", "eu", 5_000)
    assert wire.engines["ap"].measures.commits_received_twice == 0
    assert wire.engines["us"].measures.commits_relayed == wire.engines["eu"].measures.commits_relayed == 0


# --- the tests find what they are for


def _starts_again(self: Progress, *args: Any, **kwargs: Any) -> None:
    _take(self, *args, **{**kwargs, "is_answer": True})


_take = Progress.take_vector

PLANTS: list[tuple[type, str, Any, Callable[[], None]]] = [
    (Flow, "note_arrived", lambda *_: None, lambda: test_a_wide_way_is_filled_after_a_few_round_trips(1)),
    (Flow, "frame_bytes", lambda flow, most: most, lambda: test_a_narrow_link_carries_every_commit_once(1_500, 100)),
    (Flow, "patience_ms", lambda *_: 500, test_what_is_larger_than_a_window_is_waited_for_in_proportion),
    (Progress, "take_vector", _starts_again, lambda: test_a_narrow_link_carries_every_commit_once(1, 800_000)),
    (Progress, "take_vector", _starts_again, test_what_arrives_late_after_all_is_not_sent_again),
]


@pytest.mark.parametrize(("owner", "name", "plant", "test"), PLANTS)
def test_a_mistake_is_found(owner: type, name: str, plant: Any, test: Callable[[], None]) -> None:
    with patch.object(owner, name, plant), pytest.raises(AssertionError):
        test()
