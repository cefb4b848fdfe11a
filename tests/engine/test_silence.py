"""Progress of a peer: how long silence is waited for, and what its words can and cannot take back."""

from __future__ import annotations

from crdtstore.engine.progress import Progress
from tests.engine.wire import Wire, op

TIMEOUT, RESEND = 3_000, 100


def sending(took_ms: int) -> Progress:
    """A peer whose round trip is known to take so long, with commit 2 on its way since 10,000."""
    progress = Progress(2)
    progress.become_probing(0)
    progress.take_vector([0, 0], [0, 0], 0, 0)
    progress.note_sent(0, 1, 0, 1_000)
    progress.take_vector([1, 0], [1, 0], 0, 1_000 + took_ms)
    progress.note_sent(0, 2, 0, 10_000)
    return progress


def overdue_after(progress: Progress, since_ms: int) -> int:
    """The first millisecond at which an acknowledgement is overdue."""
    return next(ms for ms in range(10_000) if progress.is_overdue(0, since_ms + ms, 0, TIMEOUT, RESEND))


def test_without_a_known_round_trip_the_timeout_holds() -> None:
    progress = Progress(2)
    progress.become_probing(0)
    assert overdue_after(progress, 0) == TIMEOUT
    progress.take_vector([0, 0], [0, 0], 0, 0)
    assert not progress.is_overdue(0, 1 << 40, 0, TIMEOUT, RESEND), "it owes nothing"
    progress.note_sent(0, 1, 0, 5_000)
    assert overdue_after(progress, 5_000) == TIMEOUT


def test_four_round_trips_are_waited_for_and_never_less_than_five_resends() -> None:
    assert overdue_after(sending(1), 10_000) == 5 * RESEND
    assert overdue_after(sending(200), 10_000) == 800
    assert overdue_after(sending(2_000), 10_000) == TIMEOUT


def test_what_was_sent_twice_times_nothing() -> None:
    progress = sending(100)
    progress.become_probing(10_400)
    progress.take_vector([1, 0], [2, 0], 0, 10_500)
    progress.note_sent(0, 2, 0, 10_500)
    assert progress.sent == 2
    progress.take_vector([2, 0], [2, 0], 0, 10_501)
    assert progress.flow.round_trip_ms is not None
    assert progress.flow.round_trip_ms >= 87, "one quick answer is no proof of a quick link"


def test_words_that_overtook_each_other_take_nothing_back() -> None:
    progress = sending(100)
    progress.take_vector([2, 5], [2, 5], 0, 11_000)
    progress.take_vector([0, 3], [2, 5], 0, 11_001)
    assert progress.has == [2, 5]
    assert progress.to_relay(0, 1, 1 << 40, 1) == []


def test_a_third_origin_is_stalled_only_while_nothing_of_it_arrives() -> None:
    progress = Progress(3)
    progress.become_probing(0)
    progress.take_vector([0, 0, 0], [0, 0, 5], 0, 0)
    assert progress.to_relay(0, 1, 599, 600) == []
    assert progress.to_relay(0, 1, 600, 600) == [2]
    progress.take_vector([0, 0, 1], [0, 0, 5], 0, 600)
    assert progress.to_relay(0, 1, 1_199, 600) == []
    assert progress.to_relay(0, 1, 1_200, 600) == [2]
    progress.take_vector([0, 0, 5], [0, 0, 5], 0, 1_200)
    assert progress.to_relay(0, 1, 1 << 40, 600) == []


def test_a_lost_frame_is_sent_again_soon_once_round_trips_are_known() -> None:
    wire = Wire("us", "eu", gossip_interval_ms=3_600_000, ack_timeout_ms=10_000)
    wire.connect()
    wire.settle()
    for _ in range(3):
        wire.write("us", op("counter", "k", "add"))
        wire.settle()
        wire.tick(10)
        wire.settle()
        wire.deliver("eu", "us")
    assert wire.engines["us"].antientropy.peers[1].flow.round_trip_ms is not None
    wire.write("us", op("counter", "k", "add"))
    wire.sync("us")
    wire.lose("us", "eu")
    started = wire.now_ms
    wire.settle()
    assert wire.now_ms - started < 2_000, "long before the timeout of ten seconds"
    wire.check_same()
