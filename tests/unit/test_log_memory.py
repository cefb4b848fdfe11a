"""The commit log in memory: a crash takes what was not synced, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdtstore.causal import ReplicaId
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
