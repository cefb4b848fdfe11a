"""Checkpoints of a node: when one is committed, what is cut afterwards, what a failure leaves, and what a start finds."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

import pytest

from crdtstore.causal import make_replica_id
from crdtstore.configuration import Cluster, Member
from crdtstore.engine.checkpoint import read_node, read_saved
from crdtstore.engine.events import Persisted, Tick
from crdtstore.engine.options import Options
from crdtstore.errors import CrdtStoreError, StorageError
from crdtstore.host import Host, HostOutput
from crdtstore.saving import Save, Saved
from crdtstore.service import Request, Service
from crdtstore.storage.memory import MemoryLog
from crdtstore.storage.memory_state import MemoryState
from crdtstore.storage.protocol import Row

MEMBER = Member(make_replica_id("a-1", 1), "a")
CLUSTER = Cluster("test", bytes(16), (MEMBER,))
SMALL = Options(checkpoint_ms=100, checkpoint_rows=1, retain_bytes=1_024, memory_bytes=1 << 30, fold_interval_ms=10)


class Flaky(MemoryState):
    """A store that may refuse to be read."""

    is_readable = True

    def rows(self, start: bytes, end: bytes, limit: int = -1) -> list[Row]:
        if not self.is_readable:
            raise StorageError("it cannot be read")
        return super().rows(start, end, limit)


class Alone:
    """A node alone in its cluster, whose disks do what the test says. Mutable."""

    def __init__(self, options: Options = SMALL) -> None:
        self.options = options
        self.log, self.store = MemoryLog(), Flaky()
        self.now_ms = 1_700_000_000_000
        self.saves: deque[Save] = deque()
        self.syncs = True
        self.unsynced: list[tuple[int, int]] = []
        self.cuts: list[int] = []
        self.replies: dict[int, Any] = {}
        self.start()

    def start(self) -> None:
        self.store.crash()
        self.log.crash()
        self.saves.clear()
        self.unsynced.clear()
        host = Host(CLUSTER, MEMBER.replica, self.options, Random(1), self.store, self.log.read)
        self.replayed = host.recover(self.log.replay(host.needed))
        self.host, self.service = host, Service(host)

    def step(self, event: Any) -> None:
        self.now_ms += 1
        self._do(self.service.step([event], self.now_ms))

    def _do(self, out: HostOutput) -> None:
        self.saves += out.save
        self.replies |= dict(out.replies)
        if out.cut is not None:
            self.cuts.append(out.cut)
            self.log.cut(out.cut)
        if out.persist:
            position = self.log.position
            self.log.stage([self.log.encode(out.persist)])
            self.unsynced.append((out.persist_number, position))
        if self.syncs and self.unsynced:
            self.sync()

    def sync(self) -> None:
        self.log.sync()
        done, self.unsynced = self.unsynced, []
        for number, position in done:
            self.step(Persisted(number, position))

    def ask(self, do: str, **fields: Any) -> Any:
        self.step(Request(len(self.replies) + 1000, do, fields))
        return next(reversed(self.replies.values()), None)

    def write(self, *keys: str, **fields: Any) -> Any:
        ops = [{"collection": "things", "key": key, "op": "add", "amount": 1} for key in keys]
        return self.ask("commit", domain="d", ops=ops, **fields)

    def save(self, *, most: int = 1_000_000, failure: StorageError | None = None) -> int:
        """Let the store do what it was asked for, up to so many things; the last fails if that is said."""
        done = 0
        while self.saves and done < most:
            save = self.saves.popleft()
            done += 1
            if failure is not None and (done == most or not self.saves):
                self.store.rollback()
                self.saves.clear()
                self.step(Saved(save.number, failure=failure))
                return done
            rows, data_bytes = (
                self.store.write(save.part) if save.part is not None else (self.store.commit(), (0, 0))[1]
            )
            self.step(Saved(save.number, rows, data_bytes))
        return done

    def wait(self, ms: int = 200) -> None:
        for _ in range(2):  # the first asks when to begin
            self.now_ms += ms
            self.step(Tick())

    def checkpoint(self) -> None:
        before = self.saving.checkpoints
        while self.saving.checkpoints == before:
            self.wait()
            self.save()

    @property
    def saving(self) -> Any:
        assert self.host.saving is not None
        return self.host.saving

    def value(self, key: str) -> Any:
        return self.ask("read", domain="d", collection="things", key=key)


@pytest.fixture
def node() -> Alone:
    made = Alone()
    made.ask("declare_domain", domain="d")
    made.ask("declare", domain="d", collection="things", type="counter")
    return made


def test_a_checkpoint_is_committed_only_when_the_log_is_durable_that_far(node: Alone) -> None:
    node.checkpoint()
    node.write("a")
    node.syncs = False
    node.write("b")
    node.wait()
    node.save()
    assert node.saving.checkpoints == 1
    assert not node.saves, "all of it is written, and nothing is committed"
    node.write("c")
    node.sync()
    node.save()
    assert node.saving.checkpoints == 2
    found = read_node(node.store)
    assert found is not None
    saved = read_saved(node.store, found.groups["d/0"])
    assert saved is not None
    assert saved.applied == [2], "what came after it began is not in it"


def test_a_start_finds_the_checkpoint_and_replays_what_came_later(node: Alone) -> None:
    for _ in range(5):
        node.write("a", "b")
    node.checkpoint()
    node.write("a")
    digest = node.host.groups["d/0"].digest
    node.start()
    assert node.replayed == 1
    assert node.host.groups["d/0"].digest == digest
    assert node.value("a")["value"] == 6
    assert node.value("b")["value"] == 5
    assert node.host.groups["d/0"].checkpoint.residence.loads  # type: ignore[union-attr]


def test_the_log_is_cut_where_no_start_and_no_peer_needs_it(node: Alone) -> None:
    for _ in range(60):
        node.write("a")
    node.checkpoint()
    node.wait()
    node.write("a")
    node.checkpoint()
    assert node.cuts
    assert 0 < node.log.first_position <= node.saving.needed
    node.start()
    assert node.value("a")["value"] == 61


@pytest.mark.parametrize("done", [1, 2, 5, 100])
def test_what_fails_is_begun_again_after_a_pause_and_nothing_is_lost(node: Alone, done: int) -> None:
    node.checkpoint()
    usage = (node.saving.usage.rows, node.saving.usage.data_bytes)
    node.write(*"abcdef", id="once")
    node.wait()
    node.save(most=done, failure=StorageError("no room", code="storage-full"))
    assert (node.saving.checkpoints, node.saving.failures) == (1, 1)
    assert node.saving.failure.code == "storage-full"
    assert (node.saving.usage.rows, node.saving.usage.data_bytes) == usage
    node.wait()
    assert not node.saves, "it waits a while"
    node.write("a")
    node.now_ms += 5_000
    node.checkpoint()
    assert node.saving.failure is None
    node.start()
    assert node.replayed == 0
    assert node.value("a")["value"] == 2
    assert node.value("f")["value"] == 1
    assert node.write(*"abcdef", id="once")["replayed"]


def test_only_leaves_are_counted_as_what_may_be_let_go(node: Alone) -> None:
    for at in range(20):
        node.write("a", id=f"id {at}")
    node.checkpoint()
    usage = node.saving.usage
    there = usage.rows
    assert 0 < there < 20
    node.start()
    node.value("a")
    assert 0 < node.saving.usage.rows <= there
    for at in range(20):
        node.write("a", id=f"other {at}")
    node.checkpoint()
    assert node.saving.usage.rows <= there


def test_a_new_group_reads_nothing_so_it_never_fails(node: Alone) -> None:
    node.checkpoint()
    node.store.is_readable = False
    answer = node.ask("declare_domain", domain="e")
    assert not isinstance(answer, CrdtStoreError)
    assert "e/0" in node.host.groups


def test_a_checkpoint_that_lost_a_group_is_refused(node: Alone) -> None:
    node.checkpoint()
    found = read_node(node.store)
    assert found is not None
    del node.store._rows[next(path for path in node.store._rows if path[:3] == bytes((0, found.groups["d/0"], 0)))]
    with pytest.raises(StorageError, match="d/0"):
        node.start()


def test_a_key_that_cannot_be_read_is_refused_and_changes_nothing(node: Alone) -> None:
    node.write("a", "b")
    node.checkpoint()
    node.start()
    digest, applied = node.host.groups["d/0"].digest, list(node.host.groups["d/0"].applied)
    node.store.is_readable = False
    assert isinstance(node.write("a"), StorageError)
    assert isinstance(node.value("a"), StorageError)
    assert (node.host.groups["d/0"].digest, node.host.groups["d/0"].applied) == (digest, applied)
    node.store.is_readable = True
    assert node.write("a")["values"] == [2]


def test_a_commit_that_was_applied_is_acknowledged_whatever_can_be_read_afterwards(node: Alone) -> None:
    """Of a key that was never there all is known once it was looked for: it is not looked for again."""
    node.write("a")
    node.checkpoint()
    node.start()
    node.value("a")  # now it knows what is declared
    reads = iter([True] * 2)
    store = node.store
    before = store.rows

    def twice(start: bytes, end: bytes, limit: int = -1) -> list[Row]:
        if not next(reads, False):
            raise StorageError("it cannot be read")
        return before(start, end, limit)

    store.rows = twice  # type: ignore[method-assign]
    ops = [{"collection": "things", "key": "never", "op": "delete"}]
    answer = node.ask("commit", domain="d", ops=ops)
    assert not isinstance(answer, CrdtStoreError), answer
    assert answer["values"] == [0]


def _until(node: Alone, done: Any) -> None:
    """Let time pass until something is so."""
    for _ in range(100):
        if done():
            return
        node.now_ms += 100
        node.step(Tick())
    raise AssertionError("it never was so")


def test_a_hold_whose_key_cannot_be_read_is_ended_once_it_can(node: Alone) -> None:
    node.ask("declare", domain="d", collection="stock", type="bounded_counter")
    at = {"collection": "stock", "key": "k"}
    node.ask("commit", domain="d", ops=[{**at, "op": "grant", "amount": 5}])
    node.ask("commit", domain="d", ops=[{**at, "op": "reserve", "amount": 2, "ttl_ms": 1_000}])
    node.checkpoint()
    node.start()
    engine = node.host.groups["d/0"]
    assert engine.rights.holds.open == 1
    node.store.is_readable = False
    unreadable = engine.measures.unreadable
    node.now_ms += 2_000
    _until(node, lambda: engine.measures.unreadable > unreadable)
    assert engine.rights.holds.open == 1
    node.store.is_readable = True
    _until(node, lambda: engine.rights.holds.open == 0)
    assert node.ask("read", domain="d", **at)["value"] == 5


def test_a_key_that_ends_and_cannot_be_read_is_removed_once_it_can(node: Alone) -> None:
    node.write("a", "b")
    ops = [{"collection": "things", "key": key, "op": "expire", "ttl_ms": 1_000} for key in ("a", "b")]
    node.ask("commit", domain="d", ops=ops)
    node.checkpoint()
    node.start()
    engine = node.host.groups["d/0"]
    assert len(engine.keyspace.expiry) == 2
    node.store.is_readable = False
    unreadable = engine.measures.unreadable
    node.now_ms += 2_000
    _until(node, lambda: engine.measures.unreadable > unreadable + 1)
    assert len(engine.keyspace.expiry) == 2
    node.store.is_readable = True
    _until(node, lambda: len(engine.keyspace.expiry) == 0)
    node.checkpoint()
    assert not engine.keyspace.tree.digest
    assert not list(engine.keyspace.tree.keys("things:counter"))


def test_what_cannot_be_sent_does_not_stop_what_is_to_be_done_here(
    node: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = node.host.groups["d/0"]
    node.write("a")
    dirty = engine.keyspace.tree.dirty_count

    def unreadable(now_ms: int, out: Any) -> None:
        raise StorageError("it cannot be read")

    monkeypatch.setattr(engine.antientropy, "on_tick", unreadable)
    node.write("a")
    node.write("a")
    assert engine.keyspace.tree.dirty_count >= dirty
    _until(node, lambda: engine.keyspace.tree.dirty_count == 0)
