"""The node's clock, and what heartbeats measure."""

from __future__ import annotations

import pytest

from crdtstore_node import heartbeat
from crdtstore_node.clock import WallClock
from crdtstore_node.heartbeat import Heartbeat, Sample


class Clocks:
    """A wall clock that can be set and one that cannot, in seconds."""

    def __init__(self) -> None:
        self.wall, self.steady = 1_000.0, 5.0

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def clock(clocks: Clocks) -> WallClock:
    return WallClock(lambda: clocks.wall, lambda: clocks.steady)


def test_time_follows_the_wall(clocks: Clocks, clock: WallClock) -> None:
    assert clock.now_ms() == 1_000_000
    clocks.pass_(1.5)
    assert clock.now_ms() == 1_001_500
    clocks.wall += 60
    assert clock.now_ms() == 1_061_500


def test_a_step_back_is_waited_out_at_half_speed(clocks: Clocks, clock: WallClock) -> None:
    clocks.wall -= 10
    assert clock.now_ms() == 1_000_000
    clocks.pass_(4)
    assert clock.now_ms() == 1_002_000
    clocks.pass_(16)
    assert clock.now_ms() == 1_010_000  # caught up with the wall
    clocks.pass_(1)
    assert clock.now_ms() == 1_011_000


def test_time_never_runs_backward(clocks: Clocks, clock: WallClock) -> None:
    before = clock.now_ms()
    for seconds in (0.1, -5, 0.2, 3, -0.5, 0, 10, -100):
        clocks.pass_(0.01)
        clocks.wall += seconds
        assert clock.now_ms() >= before
        before = clock.now_ms()


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The instant in microseconds, for both clocks."""
    instant = [1_000_000]
    monkeypatch.setattr(heartbeat.time, "time_ns", lambda: instant[0] * 1000)
    monkeypatch.setattr(heartbeat.time, "monotonic_ns", lambda: (instant[0] - 500) * 1000)
    return instant


def test_round_trip_and_offset(at: list[int]) -> None:
    mine = Heartbeat()
    assert mine.best is None
    ping = mine.ping()
    assert ping == "ping 1000000"
    ahead = 30_000  # the peer's clock; the way takes 2 ms there and 2 ms back, and the peer 1 ms
    pong = f"pong 1000000 {1_002_000 + ahead} {1_003_000 + ahead}"
    at[0] = 1_005_000
    assert mine.take(pong) is None
    assert mine.best == Sample(round_trip_us=4_000, offset_us=ahead)


def test_of_the_samples_the_one_with_the_least_round_trip_counts(at: list[int]) -> None:
    mine = Heartbeat()
    for round_trip in (9_000, 3_000, 5_000):
        left = at[0]
        mine.ping()
        at[0] += round_trip
        mine.take(f"pong {left} {left + 1_000} {left + 1_000}")
    assert mine.best is not None
    assert mine.best.round_trip_us == 3_000
    for _ in range(8):
        left = at[0]
        mine.ping()
        at[0] += 7_000
        mine.take(f"pong {left} {left + 3_500} {left + 3_500}")
    assert mine.best == Sample(7_000, 0)  # the old ones are forgotten


def test_an_answer_to_another_ping_is_no_measurement(at: list[int]) -> None:
    mine = Heartbeat()
    mine.ping()
    mine.take("pong 5 6 7")
    assert mine.best is None
    mine.take("pong 1000000 1000000 1000000")
    assert mine.best is not None
    assert mine.take("pong 1000000 1 1") is None
    assert mine.best == Sample(0, 0)


def test_a_ping_is_answered(at: list[int]) -> None:
    assert Heartbeat().take("ping 77") == "pong 77 1000000 1000000"


@pytest.mark.parametrize(
    "text", ["", "ping", "ping x", "ping 1 2", "pong 1 2", "ping -1", "ping ³", "x 1", "ping " + "1" * 100]
)
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"heartbeat|ping or pong"):
        Heartbeat().take(text)
