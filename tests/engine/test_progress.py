"""What one replica believes of a peer: when silence is long enough to send again, and how that grows."""

from __future__ import annotations

from crdtstore.engine.progress import Progress

OWN, RESEND_MS, TIMEOUT_MS = 0, 100, 3_000


def streaming(round_trip_ms: int) -> tuple[Progress, int]:
    """A peer that has acknowledged one commit after this round trip; and what time it is then."""
    progress = Progress(2)
    progress.become_probing(0)
    progress.take_vector([0, 0], [0, 0], OWN, 0)
    progress.note_sent(OWN, 1, 0, 0)
    progress.take_vector([1, 0], [1, 0], OWN, round_trip_ms)
    return progress, round_trip_ms


def waits_ms(progress: Progress, now_ms: int) -> int:
    """Send one commit; how long is waited for its acknowledgement?"""
    progress.note_sent(OWN, progress.sent + 1, 0, now_ms)
    return next(ms for ms in range(10_000) if progress.is_overdue(OWN, now_ms + ms, 0, TIMEOUT_MS, RESEND_MS))


def test_patience_doubles_each_time_in_vain_up_to_the_limit() -> None:
    """A slow link would be filled with copies of what is on its way already."""
    progress, now_ms = streaming(5)
    waited = []
    for _ in range(6):
        waited.append(waits_ms(progress, now_ms))
        now_ms += waited[-1]
        progress.become_probing(now_ms)
        progress.take_vector([1, 0], [9, 0], OWN, now_ms)  # it answers, and has not got further
    assert waited == [500, 1_000, 2_000, 3_000, 3_000, 3_000]
    progress.note_sent(OWN, 2, 0, now_ms)
    progress.take_vector([2, 0], [2, 0], OWN, now_ms + 5)
    assert waits_ms(progress, now_ms + 5) == 500, "patient for ever"


def test_round_trips_rise_at_once_and_fall_slowly() -> None:
    """A peer that has to wait for a third region acknowledges late: nothing is lost then, and nothing sent again."""
    progress, now_ms = streaming(400)
    assert waits_ms(progress, now_ms) == 1_600
    now_ms += 8
    progress.take_vector([2, 0], [2, 0], OWN, now_ms)
    assert 1_300 < waits_ms(progress, now_ms) < 1_600


def test_a_new_connection_starts_over() -> None:
    progress, now_ms = streaming(5)
    progress.become_probing(now_ms)
    progress.become_down()
    progress.become_probing(now_ms)
    progress.take_vector([1, 0], [1, 0], OWN, now_ms)
    assert waits_ms(progress, now_ms) == 500


def test_a_peer_whose_answers_are_lost_is_not_doubted_for_ever() -> None:
    """Once all that was sent must have come or be lost, any of its words says where to go on."""
    progress = Progress(2)
    progress.become_probing(0)
    progress.note_asked()
    assert progress.note_answer()
    progress.take_vector([0, 0], [5, 0], 0, 0)
    progress.note_sent(0, 5, 100, 0)
    progress.become_probing(1_000, 100)
    for now_ms in range(1_000, 2_900, 100):
        progress.note_asked()  # one answer of two is lost
        is_answer = progress.note_answer() if now_ms % 200 else False
        progress.take_vector([0, 0], [5, 0], 0, now_ms, is_answer=is_answer)
        assert progress.state == "probing"
        progress.note_asked()
    progress.take_vector([0, 0], [5, 0], 0, 3_100, is_answer=False)
    assert (progress.state, progress.sent) == ("streaming", 0)
