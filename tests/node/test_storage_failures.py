"""Every way a disk can fail under a running node: what users are told, what goes on, and how it comes back by itself where it can."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crdtstore.engine.engine import Engine
from crdtstore.errors import StorageError, Unavailable
from crdtstore.saving import Save, Saved
from crdtstore.storage.memory_state import MemoryState
from crdtstore.storage.protocol import Slice
from crdtstore_node.cli import node as node_command
from crdtstore_node.node import Node
from crdtstore_node.state_writer import StateWriter
from tests.node.failing import FailingLog, FailingState, Shop, broken, full, running, told
from tests.node.running import Lines, Nodes, call, declare, until

pytestmark = pytest.mark.usefixtures("quick")

KEY = "/v1/data/shop/counter/k"
ADD: dict[str, Any] = {"ops": [{"op": "add", "amount": 1}]}


# --- the log finds no room


async def test_a_full_disk_refuses_writes_serves_reads_and_resumes_by_itself(
    log: FailingLog, state: FailingState, lines: Lines
) -> None:
    async with running(log, state, checkpoint_ms=60_000) as shop:
        await shop.declare()
        await shop.add("old")
        log.failure = full()
        first = shop.start_add()
        waiting = asyncio.ensure_future(shop.value())
        assert told(await first) == ("storage-full", 507, "unknown")
        assert told(await waiting) == ("storage-full", 507, "none")
        applied = list(shop.host.groups["shop/0"].applied)
        with pytest.raises(Unavailable, match=r"No space left.*Nothing changed") as refused:
            shop.start_add()
        assert told(refused.value) == ("storage-full", 507, "none")
        assert refused.value.retry_after == 1.0
        assert await shop.value("old") == 1
        assert told(await shop.value()) == ("storage-full", 507, "none"), "what is not durable is not shown"
        assert shop.host.groups["shop/0"].applied == applied, "nothing was judged"
        tried = len(log.tried)
        await until(lambda: len(log.tried) > tried + 2)
        assert log.tried[-1] == log.tried[-2], "the same records again"
        assert shop.driver.full_times == 1

        log.failure = None
        await until(lambda: shop.driver.full is None)
        assert shop.driver.why_no_writes is None
        assert await shop.value() == 1, "the write that was told unknown took effect, once"
        assert (await shop.add())["values"] == [2]
    assert len(lines.of("the disk is full, this node takes no writes until there is room")) == 1
    assert len(lines.of("the disk has room again, this node takes writes")) == 1
    again = Shop(log, state)
    assert await again.value() == 2
    assert await again.value("old") == 1
    await again.driver.stop()


async def test_what_came_with_the_news_is_refused_before_it_is_judged(log: FailingLog, state: FailingState) -> None:
    async with running(log, state) as shop:
        await shop.declare()
        before = list(shop.host.groups["shop/0"].applied)
        write = shop.start_add()  # in the same turn of the loop
        shop.driver._on_full(full())
        assert told(await write) == ("storage-full", 507, "none")
        assert shop.host.groups["shop/0"].applied == before
        shop.driver.full = None
        assert (await shop.add())["values"] == [1]


@pytest.mark.parametrize("failure", [full(), broken()], ids=["full", "failed"])
async def test_nothing_is_removed_by_itself_while_nothing_can_be_written(
    log: FailingLog, state: FailingState, failure: StorageError
) -> None:
    async with running(log, state, fold_interval_ms=10) as shop:
        await shop.declare()
        await shop.add("ends")
        await shop.add("stays")
        expire = {"collection": "counter", "key": "ends", "op": "expire", "ttl_ms": 150}
        assert isinstance(await shop.ask("commit", domain="shop", ops=[expire]), dict)
        log.failure = failure
        assert told(await shop.start_add())[2] == "unknown"
        engine = shop.host.groups["shop/0"]
        applied = list(engine.applied)
        await asyncio.sleep(0.3)
        assert await shop.value("ends") == 0, "it has ended"
        assert engine.applied == applied, "and is not removed, or it could not be read any more"
        log.failure = None
        if failure.code == "storage-full":
            await until(lambda: engine.applied[0] > applied[0])
            await until(lambda: engine.keyspace.tree.entry("counter:counter", "ends") is None)


async def test_a_node_that_stops_while_its_disk_is_full_does_not_wait_for_room(
    log: FailingLog, state: FailingState
) -> None:
    shop = Shop(log, state)
    await shop.declare()
    log.failure = full()
    assert told(await shop.start_add())[2] == "unknown"
    async with asyncio.timeout(2):
        await shop.driver.stop()
    log.failure = None
    again = Shop(log, state)
    assert await again.value() == 0
    await again.driver.stop()


async def test_a_full_disk_that_then_fails_is_final(log: FailingLog, state: FailingState) -> None:
    async with running(log, state) as shop:
        await shop.declare()
        log.failure = full()
        assert told(await shop.start_add())[0] == "storage-full"
        log.failure = broken()
        await until(lambda: shop.driver.failure is not None)
        with pytest.raises(Unavailable, match="Input/output error at offset 4096") as refused:
            shop.start_add()
        assert told(refused.value) == ("storage-failed", 503, "none")
        log.failure = None
        await asyncio.sleep(0.05)
        with pytest.raises(Unavailable):
            shop.start_add()


async def test_with_a_full_disk_frames_of_peers_wait_and_everything_says_so(
    make_nodes: Callable[..., Nodes], monkeypatch: pytest.MonkeyPatch
) -> None:
    us, eu = await make_nodes("us", "eu").start_all()
    await declare(us, "shop", "counter")
    await until(lambda: "shop/0" in eu.host.groups)
    assert (await call(us, "POST", KEY, ADD)).status == 200
    await until(lambda: eu.host.groups["shop/0"].applied == [1, 0])
    write, is_full = us.log.write, True

    def find_no_room(records: Sequence[bytes]) -> int:
        if is_full:
            raise full()
        return write(records)

    monkeypatch.setattr(us.log, "write", find_no_room)
    assert (await call(us, "POST", "/v1/data/shop/counter/other", ADD)).status == 507
    assert (await call(eu, "POST", KEY, ADD)).body["values"] == [2]
    await until(lambda: us.status()["groups"][1]["behind"] == 1)
    assert us.host.groups["shop/0"].applied == [2, 0]
    reply = await call(us, "POST", KEY, ADD)
    assert (reply.status, reply.body["code"], reply.body["effect"]) == (507, "storage-full", "none")
    assert reply.headers["retry-after"] == "1"
    assert (await call(us, "GET", KEY)).body["value"] == 1
    ready = await call(us, "GET", "/readyz")
    assert (ready.status, ready.body["code"]) == (507, "storage-full")
    storage = (await call(us, "GET", "/v1/status")).body["storage"]
    assert storage["takes_writes"] is False
    assert "No space left" in storage["log"]["full"]
    page = (await call(us, "GET", "/metrics")).raw.decode()
    assert "crdtstore_log_full 1.0" in page
    assert "crdtstore_takes_writes 0.0" in page

    is_full = False
    await until(lambda: us.host.groups["shop/0"].durability.vector == [2, 1])
    await until(lambda: eu.host.groups["shop/0"].durability.vector == [2, 1])
    assert (await call(us, "GET", KEY)).body["value"] == 2
    assert (await call(eu, "GET", "/v1/data/shop/counter/other")).body["value"] == 1
    assert (await call(us, "GET", "/readyz")).status == 200
    assert (await call(us, "GET", "/v1/status")).body["storage"]["takes_writes"] is True


# --- the state store


@pytest.mark.parametrize("call_that_fails", ["write", "commit"])
@pytest.mark.parametrize("failure", [broken("state.sqlite"), full("state.sqlite")], ids=["failed", "full"])
async def test_a_checkpoint_that_fails_is_rolled_back_and_tried_again_while_the_log_goes_on(
    log: FailingLog, state: FailingState, lines: Lines, call_that_fails: str, failure: StorageError
) -> None:
    async with running(log, state) as shop:
        await shop.declare()
        state.failures[call_that_fails] = failure
        for _ in range(3):
            await shop.add()
        saving = shop.host.saving
        assert saving is not None
        await until(lambda: saving.failures >= 3)
        assert state.calls.count("rollback") >= 3
        assert state.commits == 0
        assert shop.driver.why_no_writes is None
        assert (await shop.add())["values"] == [4]
        assert saving.failure is failure
        assert log.cuts == []
        assert len(lines.of("no checkpoint can be written, which is tried again; the log grows meanwhile")) == 1

        state.failures.clear()
        await until(lambda: saving.checkpoints >= 1 and saving.unsaved_bytes == 0)
        assert saving.failure is None
        assert len(lines.of("checkpoints are written again")) == 1
    again = Shop(log, state)
    assert await again.value() == 4
    await again.driver.stop()


async def test_writes_are_refused_once_too_much_is_in_no_checkpoint(log: FailingLog, state: FailingState) -> None:
    async with running(log, state, unsaved_bytes=2_000) as shop:
        await shop.declare()
        state.failures["commit"] = full("state.sqlite")
        count = 0
        while shop.driver.why_no_writes is None:
            assert isinstance(await shop.add(), dict)
            count += 1
            await asyncio.sleep(0.001)
            assert count < 5_000
        with pytest.raises(Unavailable, match=r"state.sqlite: No space left.*Nothing changed") as refused:
            shop.start_add()
        assert told(refused.value) == ("storage-full", 507, "none")
        assert await shop.value() == count
        state.failures.clear()
        await until(lambda: shop.driver.why_no_writes is None)
        assert (await shop.add())["values"] == [count + 1]


async def test_nothing_of_a_failed_checkpoint_stands_in_the_next_one(state: FailingState) -> None:
    saved: list[Saved] = []
    state.go.clear()
    saver = StateWriter(state, saved.append)
    for number, path in enumerate((b"a", b"b", b"c"), 1):
        saver.put(Save(number, Slice(rows=[(path, b"old")])))
    state.failures["write"] = broken("state.sqlite")
    state.go.set()
    await until(lambda: len(saved) == 1)
    assert saved[0].failure is not None
    state.failures.clear()
    saver.put(Save(4, Slice(rows=[(b"d", b"old")])))  # the service has not heard of it yet
    saver.restart()
    saver.put(Save(5, Slice(rows=[(b"e", b"new")])))
    saver.put(Save(6, None))
    await until(lambda: len(saved) == 3)
    assert [(each.number, each.failure) for each in saved[1:]] == [(5, None), (6, None)]
    assert state.rows(b"", b"z") == [(b"e", b"new")]
    await saver.stop()


async def test_a_checkpoint_that_is_not_committed_when_the_node_stops_is_forgotten(state: FailingState) -> None:
    saver = StateWriter(state, lambda saved: None)
    saver.put(Save(1, Slice(rows=[(b"a", b"half")])))
    await saver.stop()
    state.commit()
    assert state.rows(b"", b"z") == []


async def test_a_log_that_cannot_be_cut_is_named_and_goes_on(
    log: FailingLog, state: FailingState, lines: Lines
) -> None:
    async with running(log, state) as shop:
        await shop.declare()
        log.uncuttable = broken("0000000001.log")
        await shop.add()
        await until(lambda: shop.driver.cut_failures >= 1)
        assert isinstance(await shop.add(), dict)
        assert "0000000001.log" in lines.of("the log could not be cut, it is longer than it needs to be")[0]["detail"]
        log.uncuttable = None
        await until(lambda: bool(log.cuts))


async def test_the_log_is_cut_while_its_disk_is_full(log: FailingLog, state: FailingState) -> None:
    """Nothing else may ever make room."""
    async with running(log, state) as shop:
        await shop.declare()
        log.failure = full()
        await shop.add()
        await until(lambda: shop.driver.full is not None)
        log.cuts.clear()
        shop.driver._writer.cut(100)
        await until(lambda: log.cuts == [100])
        log.failure = None
        await until(lambda: shop.driver.full is None)
        assert isinstance(await shop.add(), dict)


# --- at start


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_directory_that_cannot_be_written_is_named_and_ends_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    nodes = Nodes(tmp_path, ("us",), {})
    path = nodes.write_config("us")
    data = tmp_path / "data-us"
    real = os.mkdir

    def mkdir(where: Any, *rest: Any, **more: Any) -> None:
        if str(where).startswith(str(data)):
            raise OSError(number, os.strerror(number), str(where))
        real(where, *rest, **more)

    monkeypatch.setattr(os, "mkdir", mkdir)
    result = CliRunner().invoke(node_command, ["--config", str(path), "--bootstrap"])
    assert result.exit_code == 1
    assert str(data) in result.output
    assert os.strerror(number) in result.output
    assert result.output.count("\n") == 1, "one sentence, no traceback"


async def test_a_directory_that_became_read_only_is_named_and_ends_the_node(
    make_nodes: Callable[..., Nodes], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = make_nodes()
    us = await nodes.start("us")
    await declare(us, "shop", "counter")
    assert (await call(us, "POST", KEY, ADD)).status == 200
    await nodes.stop("us")
    data, real = nodes.directory / "data-us", os.open

    def open_for_reading(where: Any, flags: int, *rest: Any, **more: Any) -> int:
        if str(where).startswith(str(data)) and flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(where))
        return real(where, flags, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_for_reading)
        result = CliRunner().invoke(node_command, ["--config", str(nodes.directory / "us.toml")])
    assert result.exit_code == 1
    assert f"{data}/log" in result.output
    assert "Read-only file system" in result.output
    assert result.output.count("\n") == 1
    us = await nodes.start("us")
    assert (await call(us, "GET", KEY)).body["value"] == 1


async def test_a_healthy_node_says_what_its_disk_holds(shop: Node) -> None:
    assert (await call(shop, "POST", KEY, ADD)).status == 200
    storage = (await call(shop, "GET", "/v1/status")).body["storage"]
    assert storage["takes_writes"] is True
    assert storage["why"] is None
    assert storage["log"]["bytes"] == storage["log"]["position"] > 0
    assert (storage["log"]["first_position"], storage["log"]["segments"]) == (0, 1)
    assert storage["log"]["failure"] is storage["log"]["full"] is storage["state"]["failure"] is None
    assert storage["state"]["bytes"] > 0
    assert storage["checkpoint"]["unsaved_bytes"] > 0
    assert storage["checkpoint"]["unsaved_keys"] > 0
    assert storage["scrub"] == {"runs": 0, "is_under_way": False, "age_ms": None, "failure": None}
    assert storage["unreadable"] == {"count": 0, "last": None}


def test_the_fakes_are_what_they_stand_for() -> None:
    assert issubclass(FailingState, MemoryState)
    assert Engine.note_unreadable
