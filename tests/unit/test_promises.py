"""Promises: never beyond the durable mark, which is renewed in time and survives; of several notes the last one counts."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdtstore.clock import COUNTER_BITS, Clock
from crdtstore.errors import DecodeError
from crdtstore.promises import AHEAD_MS, NOTE_GROUP, Promises
from crdtstore.storage.protocol import Entry

NOW = 1_700_000_000_000


def hlc(ms: int) -> int:
    return ms << COUNTER_BITS


def written(promises: Promises, number: int, *, has_record: bool = False) -> Entry:
    note = promises.note(number, has_record=has_record)
    assert note is not None
    return note


def begun(now_ms: int = NOW) -> Promises:
    """One with a durable mark."""
    promises = Promises()
    promises.limit(hlc(now_ms), now_ms)
    written(promises, 1)
    promises.persisted(1)
    return promises


def test_nothing_is_promised_before_a_mark_is_durable() -> None:
    promises = Promises()
    assert promises.note(1, has_record=True) is None, "nobody wants to promise anything"
    assert promises.limit(hlc(NOW), NOW) == 0
    note = written(promises, 3)
    assert (note.group, note.origin) == (NOTE_GROUP, "")
    assert msgspec.msgpack.decode(note.data) == [1, "mark", NOW + AHEAD_MS]
    promises.persisted(2)
    assert promises.limit(hlc(NOW), NOW) == 0, "another record was written"
    promises.persisted(3)
    assert promises.limit(hlc(NOW), NOW) == hlc(NOW)
    assert promises.limit(hlc(NOW + 2 * AHEAD_MS), NOW) == hlc(NOW + AHEAD_MS)


def test_a_mark_is_renewed_early_with_a_record_and_later_without_and_one_at_a_time() -> None:
    promises = begun()
    promises.limit(hlc(NOW + 290), NOW + 290)
    assert promises.note(2, has_record=True) is None
    promises.limit(hlc(NOW + 310), NOW + 310)
    assert promises.note(2, has_record=False) is None
    written(promises, 2, has_record=True)
    promises.limit(hlc(NOW + 2_000), NOW + 2_000)
    assert promises.note(3, has_record=True) is None, "one is on its way"
    assert promises.limit(hlc(NOW + 2_000), NOW + 2_000) == hlc(NOW + AHEAD_MS)
    promises.persisted(2)
    written(promises, 4)


def test_an_idle_node_writes_twice_a_second() -> None:
    promises, number, notes = begun(), 1, 0
    for now_ms in range(NOW, NOW + 60_000, 50):
        assert promises.limit(hlc(now_ms), now_ms) == hlc(now_ms), "no promise lags"
        number += 1
        if promises.note(number, has_record=False) is not None:
            notes += 1
            promises.persisted(number)
    assert 100 <= notes <= 140


def test_a_start_begins_at_the_last_note() -> None:
    promises = begun()
    again = Promises()
    again.mark_ms = promises.mark_ms
    again.start()
    assert again.begin == hlc(NOW + AHEAD_MS)
    assert again.limit(hlc(NOW + 60_000), NOW + 60_000) == hlc(NOW + AHEAD_MS), "the mark is durable already"

    promises.limit(hlc(NOW + 20) + 3, NOW + 20)
    note = promises.close()
    assert note is not None
    again.recover(note.data)
    again.start()
    assert again.begin == hlc(NOW + 21), "an orderly stop: what was promised and not more"
    assert again.mark_ms == NOW + 21
    assert again.close() is None, "nothing was promised meanwhile"


def test_after_the_last_note_nothing_more_is_promised() -> None:
    promises = begun()
    promises.limit(hlc(NOW + 400), NOW + 400)
    written(promises, 7, has_record=True)
    assert promises.close() is not None
    promises.persisted(7)
    assert promises.limit(hlc(NOW + 700), NOW + 700) == hlc(NOW + 400)
    assert promises.note(8, has_record=True) is None


def test_a_stop_keeps_what_an_earlier_life_had_promised() -> None:
    promises = Promises()
    promises.mark_ms = NOW
    promises.limit(hlc(NOW - 3_600_000), NOW - 3_600_000)  # the clock was set back
    assert promises.note(1, has_record=True) is None, "the mark is far ahead"
    assert promises.close() is None
    assert promises.mark_ms == NOW


@pytest.mark.parametrize("what", [[2, "mark", 5], [1, "other", 5], [1, "mark", -1], [1, "mark", 1 << 47], [1], b"x"])
def test_a_note_of_another_version_is_refused(what: object) -> None:
    promises = begun()
    with pytest.raises(DecodeError, match="note of a node"):
        promises.recover(msgspec.msgpack.encode(what))
    assert promises.mark_ms == NOW + AHEAD_MS


MOVES = st.lists(
    st.tuples(
        st.sampled_from(("promise", "commit", "write", "sync", "crash", "stop", "set")), st.integers(-2_000, 900)
    ),
    max_size=60,
)


@given(MOVES)
def test_whatever_happens_to_clock_disk_and_process_no_commit_is_stamped_at_or_below_a_promise(
    moves: list[tuple[str, int]],
) -> None:
    promises, clock, now_ms, number = Promises(), Clock(), NOW, 0
    staged: list[tuple[int, bytes]] = []
    durable: list[bytes] = []
    promised = 0

    def start() -> tuple[Promises, Clock]:
        fresh = Promises()
        for data in durable:
            fresh.recover(data)
        fresh.start()
        return fresh, Clock(last=fresh.begin)  # commits themselves may be lost: the mark alone has to do

    for what, ms in moves:
        now_ms += abs(ms) // 10
        if what == "promise":
            promised = max(promised, promises.limit(clock.read(now_ms), now_ms))
        elif what == "commit":
            assert clock.tick(now_ms) > promised
        elif what == "write":
            number += 1
            note = promises.note(number, has_record=ms > 0)
            if note is not None:
                staged.append((number, note.data))
        elif what == "sync":
            durable += [data for _, data in staged]
            staged = []
            promises.persisted(number)
        elif what == "set":
            now_ms += ms * 50
        else:
            if what == "stop":
                note = promises.close()
                promised = max(promised, promises.limit(clock.read(now_ms), now_ms))
                durable += [data for _, data in staged] + ([note.data] if note is not None else [])
            staged = []
            promises, clock = start()
