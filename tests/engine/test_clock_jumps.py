"""Clocks set by an hour or ten years, forth and back, while a node runs and over its restart: what was said stays true, work goes on."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from crdtstore.errors import CrdtStoreError
from crdtstore.promises import AHEAD_MS, Promises
from tests.engine.clocked import HOUR_MS, TEN_YEARS_MS, Site, World, shop

JUMPS = [HOUR_MS, -HOUR_MS, TEN_YEARS_MS, -TEN_YEARS_MS]
HOW = ["running", "crashed", "stopped"]
ROUTES = [(jump, there, back) for jump in JUMPS for there in HOW for back in HOW]


def named(value: Any) -> str:
    return f"{value / HOUR_MS:+.0f}h" if isinstance(value, int) else str(value)


def drifted(site: Site) -> int:
    return sum(engine.clock.drifted for engine in site.host.groups.values())


@pytest.fixture(params=[False, True], ids=["log", "checkpoints"])
def has_stores(request: pytest.FixtureRequest) -> bool:
    """Whether nodes start from a log alone, or from a checkpoint and what follows it in the log."""
    return bool(request.param)


@pytest.mark.parametrize(("jump", "there", "back"), ROUTES, ids=named)
def test_a_clock_that_is_set_and_set_right_again(jump: int, there: str, back: str, has_stores: bool) -> None:
    """``clocked`` checks stamps, promises and staleness at every output."""
    world = shop("us-1", "eu-1", has_stores=has_stores)
    us, eu = world.sites["us-1"], world.sites["eu-1"]
    acknowledged = 0

    def write_everywhere() -> None:
        nonlocal acknowledged
        for name in world.sites:
            for _ in range(3):
                before = world.read(name)["value"]
                answer = world.write(name, "add")
                assert not isinstance(answer, CrdtStoreError), f"writes go on: {answer.detail}"
                acknowledged += 1
                assert world.read(name)["value"] >= before + 1, "what is acknowledged is there at once"
                world.run(100)
        world.run(500)
        assert [world.read(name)["value"] for name in world.sites] == [acknowledged] * 2

    write_everywhere()
    assert drifted(us) == drifted(eu) == 0
    world.set_clock("us-1", jump, there)
    before = drifted(eu) if jump > 0 else drifted(us)
    write_everywhere()
    if jump > 0:
        assert drifted(eu) > before, "its peer sees that its clock is ahead"
        assert eu.host.groups["shop/0"].clock.last >> 16 < world.time_ms + 2_000, "and is not dragged along"
    elif there != "running":  # a running node waits a step back out, as if its clock went on slowly
        assert us.host.groups["shop/0"].clock.last >> 16 > world.time_ms - 60_000, (
            "it stamps above what it had promised"
        )
    world.set_clock("us-1", -jump, back)
    write_everywhere()
    world.run(3_000)
    assert world.read("eu-1")["staleness_ms"] < 2_500
    if jump < 0 or back != "running":  # else its own clock waits the step out, and is still ahead
        assert world.read("us-1")["staleness_ms"] < 2_500
    engines = [site.host.groups["shop/0"] for site in (us, eu)]
    assert engines[0].digest == engines[1].digest
    assert engines[0].stability.stable == engines[0].applied, "everybody knows that everybody has everything"
    assert bool(us.log.first_position) == has_stores, "the log was cut"


def test_without_the_mark_a_clock_set_back_over_a_restart_breaks_a_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check bites: what ``clocked`` asserts fails once promises do not end at the mark."""
    monkeypatch.setattr(Promises, "limit", lambda self, stamp, now_ms: stamp)
    world = shop("us-1", "eu-1")
    world.write("us-1", "add")
    world.run(2_000)
    world.set_clock("us-1", -HOUR_MS, "crashed")
    with pytest.raises(AssertionError, match="below a promise"):
        world.write("us-1", "add")


def test_without_the_mark_in_the_checkpoint_so_does_one_with_a_log_that_was_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mark = Promises.__dict__["mark_ms"]
    monkeypatch.setattr(Promises, "mark_ms", property(lambda self: 0, mark.fset))

    def restart_often() -> None:
        for wait_ms in range(0, 600, 20):  # a mark is renewed within that time, a checkpoint made more often
            world = shop("us-1", "eu-1", has_stores=True)
            world.run(wait_ms)
            for _ in range(4):  # what is needed of the log begins somewhere here, and mostly holds no mark
                world.write("us-1", "set", "notes", op_fields={"value": "x" * 600})
            world.run(160)
            world.set_clock("us-1", -HOUR_MS, "crashed")
            world.write("us-1", "add")

    with pytest.raises(AssertionError, match="below a promise"):
        restart_often()
    monkeypatch.setattr(Promises, "mark_ms", mark)
    restart_often()


@pytest.mark.parametrize("how", ["crashed", "stopped"])
def test_a_restart_stamps_ahead_by_the_rest_of_the_mark_and_after_a_stop_in_order_not_at_all(how: str) -> None:
    world = shop("us-1", "eu-1")
    us = world.sites["us-1"]
    ahead = []
    for _ in range(20):
        world.run(260)
        world.set_clock("us-1", 0, how)
        world.write("us-1", "add")
        ahead.append((us.made["shop/0"] >> 16) - world.time_ms)
        us.end(is_orderly=how == "stopped")
        us.start()
        world.write("us-1", "add")
        ahead.append((us.made["shop/0"] >> 16) - world.time_ms)
    assert max(ahead) <= (AHEAD_MS if how == "crashed" else 0)
    assert how == "stopped" or max(ahead) > 100, "a mark is ahead, or it was never used"


@pytest.mark.parametrize("jump", [HOUR_MS, TEN_YEARS_MS], ids=named)
@pytest.mark.parametrize("how", HOW)
def test_nothing_that_a_clock_ahead_took_for_expired_is_removed(jump: int, how: str, has_stores: bool) -> None:
    world = shop("us-1", "eu-1", has_stores=has_stores)
    world.write("us-1", "set", "notes", op_fields={"value": "kept"})
    world.write("us-1", "expire", "notes", op_fields={"ttl_ms": HOUR_MS // 2})
    world.run(500)
    world.set_clock("us-1", jump, how)
    world.run(7_000)
    assert world.read("us-1", "notes")["value"] is None, "by its own clock it has ended"
    assert world.read("eu-1", "notes")["value"] == "kept"
    world.set_clock("us-1", -jump, "crashed")
    assert world.read("us-1", "notes")["value"] == "kept", "and it was there all the time"
    world.write("eu-1", "set", "notes", op_fields={"value": "changed"})
    world.run(500)
    assert world.read("us-1", "notes")["value"] == "changed"


@pytest.mark.parametrize("jump", [-HOUR_MS, -TEN_YEARS_MS], ids=named)
@pytest.mark.parametrize("how", HOW)
def test_what_is_written_with_a_clock_set_back_to_before_a_key_ended_is_not_removed_with_it(
    jump: int, how: str, has_stores: bool
) -> None:
    world = shop("us-1", "eu-1", has_stores=has_stores, fold_interval_ms=100)
    world.write("eu-1", "set", "notes", op_fields={"value": "old"})
    world.write("eu-1", "expire", "notes", op_fields={"ttl_ms": 1_000})
    world.run(10_000)
    engine = world.sites["eu-1"].host.groups["shop/0"]
    assert engine.keyspace.tree.entry("notes:lww_register", "k") is None, "it was removed"
    world.set_clock("us-1", jump, how)
    assert not isinstance(world.write("us-1", "set", "notes", op_fields={"value": "new"}), CrdtStoreError)
    world.run(8_000)
    assert world.read("eu-1", "notes")["value"] == "new"
    assert world.read("us-1", "notes")["value"] == "new"


@pytest.mark.parametrize("jump", [-HOUR_MS, -TEN_YEARS_MS], ids=named)
@pytest.mark.parametrize("how", HOW)
def test_an_operation_that_was_forgotten_is_not_taken_for_new_with_a_clock_set_back(
    jump: int, how: str, has_stores: bool
) -> None:
    """Its id says when it was made, so a node that has forgotten it refuses it for good, whatever its clock shows."""
    world = shop("us-1", "eu-1", has_stores=has_stores, fold_interval_ms=100, retry_window_ms=2_000)
    made_ms = world.time_ms
    name = f"~{made_ms >> 16:08x}-{made_ms & 0xFFFF:04x}-7000-8000-000000000001"
    assert not isinstance(world.write("us-1", "add", id=name), CrdtStoreError)
    world.run(2_000)
    for site in world.sites.values():
        site.off_ms += 25 * HOUR_MS  # the id expires a day after it was made
    world.run(5_000)
    assert [len(site.host.groups["shop/0"].keyspace.operations) for site in world.sites.values()] == [0, 0]
    world.set_clock("us-1", jump - 25 * HOUR_MS, how)
    again = world.write("us-1", "add", id=name)
    assert isinstance(again, CrdtStoreError), "it would count twice"
    assert again.code in {"not-ready", "key-expired", "bad-request"}
    world.run(1_000)
    assert [world.read(name)["value"] for name in world.sites] == [1, 1]


def test_several_restarts_with_a_clock_set_back_each_time(has_stores: bool) -> None:
    world = shop("us-1", "eu-1", "ap-1", has_stores=has_stores)
    us = world.sites["us-1"]
    stamps = []
    for count in range(1, 7):
        assert not isinstance(world.write("us-1", "add"), CrdtStoreError)
        stamps.append(us.made["shop/0"])
        world.run(700)
        world.set_clock("us-1", -HOUR_MS, ("crashed", "stopped")[count % 2])
        assert [world.read(name)["value"] for name in world.sites] == [count] * 3
    assert all(later > earlier for earlier, later in pairwise(stamps))


def test_a_disk_that_does_not_answer_holds_promises_back_and_nothing_else() -> None:
    world = World("us-1", "eu-1")
    us = world.sites["us-1"]
    us.sync = lambda: None  # type: ignore[method-assign]
    before = max(us.promised.values())
    world.run(5_000)
    assert max(us.promised.values()) - before <= AHEAD_MS << 16
    del us.sync
    world.run(1_000)
    assert max(us.promised.values()) >> 16 >= world.time_ms - 300
