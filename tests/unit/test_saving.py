"""Checkpoints of a node, one step after the other: what each waits for, what a failure takes back, what a scrub sees."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from crdtstore.engine.checkpoint import read_node, read_saved
from crdtstore.engine.events import Persisted, Tick
from crdtstore.engine.options import Options
from crdtstore.errors import StorageError
from crdtstore.host import Host, HostOutput
from crdtstore.residence import ROW_BYTES
from crdtstore.saving import Save, Saved
from crdtstore.scrub import digest_steps
from crdtstore.service import Event, Request, Service
from crdtstore.storage.memory import MemoryLog
from crdtstore.storage.memory_state import MemoryState
from crdtstore.storage.protocol import Slice
from crdtstore.storage.rows import LEAVES, OPERATIONS, key_range
from crdtstore.unsaved import Unsaved
from tests.engine.wire import START_MS, cluster_of

CLUSTER = cluster_of("us-1")
ME = CLUSTER.members[0].replica


class One:
    """A node alone: a driver that does each thing only when it is told to."""

    def __init__(self, log: MemoryLog | None = None, state: MemoryState | None = None, **options: Any) -> None:
        self.log, self.state = log or MemoryLog(), state or MemoryState()
        self.now_ms = START_MS
        limits = {"checkpoint_ms": 1_000, "checkpoint_rows": 2, "retain_bytes": 1_024, **options}
        self.host = Host(CLUSTER, ME, Options(**limits), Random(1), self.state, self.log.read)
        self.host.recover(self.log.replay(self.host.needed))
        self.service = Service(self.host)
        self.saves: list[Save] = []
        self.waiting: list[HostOutput] = []
        self.replies: dict[int, Any] = {}
        self._ticket = 0

    @property
    def saving(self) -> Any:
        assert self.host.saving is not None
        return self.host.saving

    def step(self, *events: Event) -> None:
        out = self.service.step(list(events), self.now_ms)
        if out.persist_number:
            self.waiting.append(out)
        self.saves += out.save
        if out.cut is not None:
            self.log.cut(out.cut)
        self.replies.update(out.replies)

    def sync(self) -> None:
        """Everything that was to be written to the log is."""
        while self.waiting:
            waiting, self.waiting = self.waiting, []
            position = self.log.write([self.log.encode(out.persist) for out in waiting])
            self.step(Persisted(waiting[-1].persist_number, position))

    def save(self, limit: int = 1 << 30) -> None:
        """The store does what it was asked for, up to so many things."""
        while self.saves and limit:
            limit -= 1
            save = self.saves.pop(0)
            rows = data_bytes = 0
            if save.part is None:
                self.state.commit()
            else:
                rows, data_bytes = self.state.write(save.part)
            self.step(Saved(save.number, rows, data_bytes))

    def pass_time(self, ms: int = 2_000) -> None:
        self.now_ms += ms
        self.step(Tick())
        self.sync()

    def do(self, what: str, **fields: Any) -> Any:
        self._ticket += 1
        self.step(Request(self._ticket, what, {"wait_ms": 0, **fields}))
        self.sync()
        return self.replies[self._ticket]

    def add(self, key: str, amount: int = 1, name: str | None = None) -> None:
        fields: dict[str, Any] = {"id": name} if name else {}
        ops = [{"collection": "visits", "key": key, "op": "add", "amount": amount}]
        reply = self.do("commit", domain="shop", ops=ops, **fields)
        assert isinstance(reply, dict), reply

    def read(self, key: str) -> int:
        reply = self.do("read", domain="shop", collection="visits", key=key)
        assert isinstance(reply, dict), reply
        return int(reply["value"])

    def declare(self) -> One:
        self.do("declare_domain", domain="shop")
        self.do("declare", domain="shop", collection="visits", type="counter")
        return self

    def again(self, **options: Any) -> One:
        """The power goes, and comes back."""
        self.log.crash()
        self.state.crash()
        return One(self.log, self.state, **options)


def shop(**options: Any) -> One:
    made = One(**options).declare()
    for at in range(5):
        made.add(f"k{at}", at + 1, f"id-{at}")
    return made


def test_a_checkpoint_is_the_state_at_its_beginning_although_writes_go_on() -> None:
    made = shop()
    made.pass_time()
    assert made.saves, "it has begun"
    digest = made.host.groups["shop/0"].digest
    made.add("k0", 100)
    made.add("new", 7)
    made.save()
    made.sync()
    made.save()
    assert made.saving.checkpoints == 1
    saved = read_saved(made.state, 2)
    assert saved is not None
    assert int.from_bytes(saved.digest, "big") == digest
    *_, computed = digest_steps(made.state, 2, saved.members)
    assert computed == digest
    after = made.again()
    assert [after.read(key) for key in ("k0", "k4", "new")] == [101, 5, 7]


def test_nothing_of_it_is_committed_before_the_log_holds_what_it_stands_on() -> None:
    made = shop()
    made.now_ms += 2_000
    ops = [{"collection": "visits", "key": "late", "op": "add", "amount": 1}]
    made.step(Request(99, "commit", {"domain": "shop", "ops": ops}), Tick())
    made.save()
    assert made.saving.is_under_way
    assert not made.state.commits, "the last record is not durable"
    made.sync()
    made.save()
    assert made.state.commits == 1


def test_a_checkpoint_that_fails_is_taken_back_as_a_whole() -> None:
    made = shop()
    made.pass_time()
    made.save(2)
    usage = made.saving.usage.rows
    assert usage > 0
    made.state.rollback()
    made.saves.clear()
    made.step(Saved(3, failure=StorageError("state: no space left on device", code="storage-full")))
    assert (made.saving.usage.rows, made.saving.failures, made.saving.checkpoints) == (0, 1, 0)
    assert made.saving.unsaved >= 5
    assert made.again().read("k4") == 5, "the log has it all"
    made.pass_time(6_000)
    made.save()
    assert made.saving.checkpoints == 1
    assert made.saving.failure is None
    assert made.again().read("k4") == 5


@pytest.mark.parametrize("times", [1, 5])
def test_a_large_key_that_is_dropped_under_way_withdraws_the_checkpoint(
    monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """To encode all of it in that step would be a stall; but not for ever, or no checkpoint would end."""
    monkeypatch.setattr(Unsaved, "many", 10)
    made = One(checkpoint_rows=1).declare()
    made.do("declare", domain="shop", collection="tags", type="aw_set")
    for turn in range(times):
        elements = [f"e{at}" for at in range(150)]
        made.do("commit", domain="shop", ops=[{"collection": "tags", "key": "big", "op": "add", "elements": elements}])
        made.add(f"k{turn}")
        made.pass_time() if not turn else None
        made.save(3)
        made.do("commit", domain="shop", ops=[{"collection": "tags", "key": "big", "op": "delete"}])
    assert 1 <= made.saving.withdrawals <= min(times, 3)
    made.do("commit", domain="shop", ops=[{"collection": "tags", "key": "big", "op": "add", "elements": ["last"]}])
    for _ in range(5):
        made.save()
        made.pass_time(1_500)
    assert made.saving.checkpoints >= 1
    saved = read_saved(made.state, 2)
    assert saved is not None
    *_, computed = digest_steps(made.state, 2, saved.members)
    assert computed == int.from_bytes(saved.digest, "big") == made.host.groups["shop/0"].digest
    node = read_node(made.state)
    assert node is not None
    start, _ = key_range(2, 0, [])
    _, end = key_range(2, 200, [])
    assert node.counts["shop/0"] == len(made.state.rows(start, end))
    after = made.again()
    assert after.do("read", domain="shop", collection="tags", key="big")["value"] == ["last"]
    assert after.read("k0") == 1


def test_it_says_how_far_the_log_has_to_reach_for_what_it_holds() -> None:
    """As far as it was durable at the commit, not when the last of its rows was written."""
    made = shop()
    made.now_ms += 2_000
    ops = [{"collection": "visits", "key": "last", "op": "add"}]
    made.step(Request(99, "commit", {"wait_ms": 0, "domain": "shop", "ops": ops}), Tick())
    assert made.saving.is_under_way
    held = list(made.host.groups["shop/0"].applied)
    made.save()
    assert made.saving.checkpoints == 0, "it waits for the log"
    made.sync()
    made.save()
    assert made.saving.checkpoints == 1
    node = read_node(made.state)
    assert node is not None
    seen = 0
    for position, entries in made.again().log.replay():
        if position <= node.logged:
            seen += sum(entry.group == "shop/0" for entry in entries)
    assert seen >= sum(held) > 0


def test_a_key_that_is_deleted_leaves_no_row_behind() -> None:
    made = shop()
    made.pass_time()
    made.save()
    for at in range(5):
        made.do("commit", domain="shop", ops=[{"collection": "visits", "key": f"k{at}", "op": "delete"}])
    made.pass_time()
    made.save()
    assert made.saving.checkpoints == 2
    assert made.state.rows(*key_range(2, LEAVES, [])) == []


def test_the_log_is_cut_behind_the_checkpoint_and_what_is_retained() -> None:
    made = shop()
    for at in range(40):
        made.add(f"k{at}")
        if at % 10 == 9:
            made.pass_time()
            made.save()
    made.pass_time()
    made.save()
    made.add("last")
    made.pass_time()
    made.save()
    assert made.log.first_position > 0
    assert made.log.position - made.log.first_position > 1_024 // 2, "what is retained is there"
    after = made.again()
    assert after.host.needed >= made.log.first_position
    assert (after.read("k4"), after.read("k39"), after.read("last")) == (6, 1, 1)
    assert isinstance(after.do("explain", domain="shop", collection="visits", key="k0"), dict)


def test_a_request_is_known_again_after_a_start_from_a_checkpoint() -> None:
    made = shop()
    made.pass_time()
    made.save()
    after = made.again()
    assert after.host.groups["shop/0"].history.heads == made.host.groups["shop/0"].history.heads
    after.add("k3", 4, "id-3")
    assert after.read("k3") == 4, "it counted once"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda state: gone(state, LEAVES), "state digest"),
        (lambda state: gone(state, OPERATIONS), "rows, it was written with"),
        (lambda state: state.damage(state.rows(*key_range(2, LEAVES, []))[0][0]), "checksum"),
    ],
)
def test_a_scrub_sees_what_is_missing(spoil: Callable[[MemoryState], None], why: str) -> None:
    made = shop(scrub_every_ms=100, scrub_rows_per_s=1_000_000)
    made.pass_time()
    made.save()
    scrub_once(made)
    assert (made.saving.scrub.runs, made.saving.scrub.failure) == (1, None)
    spoil(made.state)
    scrub_once(made)
    assert why in made.saving.scrub.failure.detail
    assert made.read("k3") == 4, "what is in memory is still true"


def gone(state: MemoryState, space: int) -> None:
    [path, *_] = [path for path, _ in state.rows(*key_range(2, space, []))]
    state.write(Slice(gone=[path]))
    state.commit()


def scrub_once(made: One) -> None:
    before = made.saving.scrub.last_ms
    for _ in range(100):
        made.pass_time(150)
        made.save()
        if made.saving.scrub.last_ms != before:
            return
    pytest.fail("no scrub ended")


def test_a_log_of_another_directory_is_refused() -> None:
    made, other = shop(), One().declare()
    for at in range(9):
        other.add(f"k{at}", 7)
    made.pass_time()
    made.save()
    with pytest.raises(StorageError, match="not of one directory"):
        One(other.log, made.state)


def test_a_log_that_lost_what_the_checkpoint_stands_on_is_refused() -> None:
    made = shop()
    before = made.log.position
    made.add("k0")
    made.pass_time()
    made.save()
    with pytest.raises(StorageError, match=r"needed|acknowledged commits are missing"):
        One(cut_off(made.log, before), made.state)


def cut_off(log: MemoryLog, position: int) -> MemoryLog:
    short = MemoryLog()
    for at, entries in log.replay(log.first_position):
        if at < position:
            short.write([short.encode(entries)])
    return short


def test_nobody_is_woken_for_a_checkpoint_that_waits_for_somebody_else_or_has_nothing_to_hold() -> None:
    """Else a node ticks a thousand times a second for as long as its log finds no room."""
    made = shop(scrub_every_ms=3_600_000)
    made.pass_time()
    for _ in range(3):
        assert made.saving.is_under_way
        assert made.saving.wake_ms > made.now_ms
        made.now_ms += 2_000
        made.step(Tick())
    made.sync()
    made.save()
    made.save()
    while made.waiting or made.saves or made.saving.is_under_way:
        made.sync()
        made.save()
    made.saving.log_bytes = 0  # as at a node that serves reads only
    made.now_ms += 60_000
    made.saving.on_tick(made.now_ms)
    made.saving.on_step(made.now_ms, HostOutput())
    assert made.saving.wake_ms > made.now_ms


def _expiring(count: int, ttl_ms: int) -> One:
    """Keys that end by themselves, on disk only."""
    made = One(memory_bytes=1_024, fold_interval_ms=100)
    made.do("declare_domain", domain="shop")
    made.do("declare", domain="shop", collection="carts", type="lww_register")
    for at in range(count):
        ops = [{"op": "set", "value": at}, {"op": "expire", "ttl_ms": ttl_ms}]
        made.do("commit", domain="shop", ops=[{"collection": "carts", "key": f"k{at}", **op} for op in ops])
    _let_go(made)
    return made


def _let_go(made: One) -> None:
    for _ in range(3):
        made.pass_time()
        made.save()
        made.sync()
        made.save()
    residence = made.host.groups["shop/0"].checkpoint.residence
    while residence.evict(-1, 1 << 20):
        pass
    assert not residence.rows


def test_what_ends_while_it_cannot_be_read_is_removed_later(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _expiring(100, 60_000)
    engine, read = made.host.groups["shop/0"], made.state.rows

    def rows(start: bytes, end: bytes, limit: int = -1) -> Any:
        if b"k5" in start:
            raise StorageError("this cannot be read")
        return read(start, end, limit)

    monkeypatch.setattr(made.state, "rows", rows)
    made.now_ms += 100_000
    for _ in range(20):
        made.pass_time(10)
    assert engine.failure is not None
    assert len(engine.keyspace.expiry) == 11, "k5 and k50 to k59; the others are gone"
    monkeypatch.setattr(made.state, "rows", read)
    for _ in range(10):
        made.pass_time()
        made.save()
    assert len(engine.keyspace.expiry) == 0
    assert not made.state.rows(*key_range(2, LEAVES, ["carts:lww_register"]))


def test_what_was_deleted_early_is_not_remembered_until_its_deadline_when_it_is_on_disk_only() -> None:
    made = _expiring(60, 3_600_000)
    made.host.groups["shop/0"].upkeep._next_ms = 1 << 60  # a round has other plans to look at, while they are in memory
    for at in range(59):
        made.do("commit", domain="shop", ops=[{"collection": "carts", "key": f"k{at}", "op": "delete"}])
    engine = made.host.groups["shop/0"]
    _let_go(made)
    assert len(engine.keyspace.expiry) == 60
    engine.upkeep._next_ms = 0
    for _ in range(10):
        made.pass_time(100)
    assert len(engine.keyspace.expiry) == 1


@pytest.mark.parametrize(("keys", "is_due"), [(400, False), (800, True)])
def test_a_checkpoint_comes_before_what_is_unsaved_fills_the_memory(
    keys: int, is_due: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither time nor the bytes of the log are up: small commits of many keys are little log, and much memory."""
    monkeypatch.setattr("crdtstore.saving._LOOK_BYTES", 1 << 10)
    made = shop(checkpoint_ms=86_400_000, checkpoint_bytes=1 << 30, memory_bytes=1 << 20)
    made.pass_time(1)
    for first in range(0, keys, 50):
        ops = [{"collection": "visits", "key": f"key-{first + at}", "op": "add", "amount": 1} for at in range(50)]
        made.do("commit", domain="shop", ops=ops)
    assert (ROW_BYTES * keys > (1 << 20) // 4) == is_due
    assert made.saving.is_under_way == is_due
    made.save()
    assert made.saving.checkpoints == int(is_due)
