"""The commit log in memory: a crash takes what was not synced, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdtstore.causal import ReplicaId
from crdtstore.errors import StorageError
from crdtstore.storage.memory import MemoryLog
from crdtstore.storage.protocol import CommitLog, Entry

US = ReplicaId("us-1.0123456789abcdef")


def batch(number: int) -> list[Entry]:
    return [Entry("shop/0", US, str(number).encode())]


def test_it_is_a_commit_log() -> None:
    log: CommitLog = MemoryLog()
    log.write([log.encode(batch(1)), log.encode(batch(2))])
    log.close()
    assert [entries for _, entries in log.replay()] == [batch(1), batch(2)]


@given(st.lists(st.one_of(st.just("stage"), st.just("sync"), st.tuples(st.just("crash"), st.integers(0, 5)))))
def test_a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest(steps: list[str | tuple[str, int]]) -> None:
    log = MemoryLog()
    expected: list[list[Entry]] = []
    durable = 0
    for number, step in enumerate(steps):
        if step == "stage":
            expected.append(batch(number))
            assert log.stage([log.encode(batch(number))]) == len(expected)
        elif step == "sync":
            log.sync()
            durable = len(expected)
        else:
            survive = durable + int(step[1])
            assert log.crash(keep=int(step[1])) == max(0, len(expected) - survive)
            del expected[survive:]
            durable = len(expected)
        assert (log.staged, log.durable) == (len(expected), durable)
        assert [entries for _, entries in log.replay()] == expected


def test_a_sync_may_cover_a_part_and_never_takes_back() -> None:
    log = MemoryLog()
    upto = log.stage([log.encode(batch(1)), log.encode(batch(2))])
    log.stage([log.encode(batch(3))])
    log.sync(upto)
    log.sync(1)
    assert log.durable == 2
    assert log.crash() == 1
    assert [entries for _, entries in log.replay()] == [batch(1), batch(2)]
    with pytest.raises(AssertionError, match="3 of 2"):
        log.sync(3)


def test_blocks_are_read_by_their_position_once_they_are_durable() -> None:
    log = MemoryLog()
    first = log.write([log.encode(batch(1)), log.encode(batch(2))])
    second = log.position
    assert first == 0 < second
    assert log.read(first) == (batch(1) + batch(2), second)
    log.stage([log.encode(batch(3))])
    for position in (second, second + 1, first + 1, log.position):
        with pytest.raises(StorageError, match=f"no durable block at position {position}"):
            log.read(position)
    log.sync()
    assert log.read(second) == (batch(3), log.position)
    assert [position for position, _ in log.replay()] == [first, first, second]


def test_nothing_written_takes_no_position() -> None:
    log = MemoryLog()
    assert log.write([]) == log.position == log.staged == 0


@pytest.mark.parametrize("segment_bytes", [1, 200])
def test_what_is_cut_is_gone_in_whole_stretches(segment_bytes: int) -> None:
    log = MemoryLog(segment_bytes)
    positions = [log.write([log.encode(batch(number))]) for number in range(10)]
    length = positions[1]
    log.cut(positions[5])
    begins = positions[5] if segment_bytes == 1 else positions[(positions[5] // 200 * 200) // length]
    assert [position for position, _ in log.replay(begins)] == [each for each in positions if each >= begins]
    with pytest.raises(StorageError, match=f"holds positions {begins} to .* from 0 on is needed"):
        list(log.replay())
    with pytest.raises(StorageError, match="no durable block"):
        log.read(positions[0])
    assert log.staged == log.durable == 10
    assert log.write([log.encode(batch(10))]) == 10 * length
    assert (log.staged, log.durable) == (11, 11)


def test_all_may_be_cut_and_positions_go_on() -> None:
    log = MemoryLog()
    log.write([log.encode(batch(1))])
    end = log.position
    log.cut(end)
    assert log.position == end
    assert list(log.replay(end)) == []
    assert log.crash() == 0
    assert log.write([log.encode(batch(2))]) == end
    with pytest.raises(StorageError, match="needed"):
        list(log.replay(log.position + 1))


def test_what_is_not_durable_is_never_cut_and_torn_blocks_are_lost_whole() -> None:
    log = MemoryLog()
    log.write([log.encode(batch(1))])
    log.stage([log.encode(batch(2)), log.encode(batch(3))])
    log.cut(log.position)
    assert [entries for _, entries in log.replay(log._first[0])] == [
        batch(2),
        batch(3),
    ]
    assert log.crash(keep=1) == 2
    assert (log.staged, log.durable) == (1, 1)
