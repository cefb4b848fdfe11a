"""The driver: one step per turn, group commit, and what a failing disk or service looks like from outside."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from crdtstore.causal import make_replica_id
from crdtstore.configuration import Cluster, Member
from crdtstore.engine.options import Options
from crdtstore.errors import CrdtStoreError, StorageError, Unavailable
from crdtstore.host import Host
from crdtstore.service import Service
from crdtstore.storage.protocol import Entry
from crdtstore.storage.record import encode_record
from crdtstore_node.clock import WallClock
from crdtstore_node.driver import Driver
from crdtstore_node.node import Node
from tests.node.running import Lines, Nodes, call, declare, until

ME = Member(make_replica_id("us-1", 1), "us")
KEY = "/v1/data/shop/counter/k"
ADD: dict[str, Any] = {"ops": [{"op": "add", "amount": 1}]}


class SlowLog:
    """A log whose writes wait until they are let go, and fail when told so."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.go = threading.Semaphore(0)
        self.failure: Exception | None = None
        self.is_slow = False

    position = 0

    def replay(self, needed: int = 0) -> Iterator[tuple[int, list[Entry]]]:
        return iter(())

    def encode(self, entries: Sequence[Entry]) -> bytes:
        return encode_record(entries)

    def write(self, records: Sequence[bytes]) -> int:
        if self.is_slow:
            self.go.acquire()
        if self.failure is not None:
            raise self.failure
        self.batches.append(len(records))
        return 0

    def read(self, position: int) -> tuple[list[Entry], int]:
        raise AssertionError

    def cut(self, position: int) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def log() -> SlowLog:
    return SlowLog()


@pytest_asyncio.fixture
async def driver(log: SlowLog) -> AsyncIterator[Driver]:
    cluster = Cluster("test", bytes(16), (ME,))
    host = Host(cluster, ME.replica, Options(max_waiting=100), random.Random(1))
    driver = Driver(Service(host), log, WallClock())
    driver.start()
    await ask(driver, "declare_domain", domain="shop")
    await ask(driver, "declare", domain="shop", collection="counter", type="counter")
    yield driver
    log.is_slow = False
    log.go.release(1000)
    await driver.stop()


async def ask(driver: Driver, do: str, **fields: Any) -> Any:
    async with asyncio.timeout(5):
        return await driver.request(do, fields)[1]


def add(driver: Driver, key: str = "k") -> asyncio.Future[Any]:
    ops = [{"collection": "counter", "key": key, "op": "add", "amount": 1}]
    return driver.request("commit", {"domain": "shop", "ops": ops})[1]


async def test_requests_of_one_turn_are_one_step_and_one_record(driver: Driver, log: SlowLog) -> None:
    steps, records = driver.steps, driver.records
    replies = await asyncio.gather(*(add(driver) for _ in range(64)))
    assert [reply["values"] for reply in replies] == [[number] for number in range(1, 65)]
    assert driver.records - records == 1
    assert driver.steps - steps < 10  # the commits, that they are durable, and a tick or two
    assert log.batches[-1] == 1


async def test_records_gather_while_the_disk_is_busy(driver: Driver, log: SlowLog) -> None:
    log.is_slow = True
    done = len(log.batches)
    writes = []
    for _ in range(5):
        writes.append(add(driver))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not any(write.done() for write in writes)
    log.go.release(2)
    await asyncio.gather(*writes)
    assert log.batches[done:] == [1, 4]


async def test_nothing_is_answered_or_read_before_it_is_durable(driver: Driver, log: SlowLog) -> None:
    log.is_slow = True
    write = add(driver)
    read = asyncio.ensure_future(ask(driver, "read", domain="shop", collection="counter", key="k"))
    other = await ask(driver, "read", domain="shop", collection="counter", key="other")
    assert other["value"] == 0
    await asyncio.sleep(0.02)
    assert not write.done()
    assert not read.done()
    log.go.release()
    assert (await write)["values"] == [1]
    assert (await read)["value"] == 1


@pytest.mark.parametrize(
    ("failure", "code", "status"),
    [
        (StorageError("x.log: input/output error"), "storage-failed", 503),
        (ZeroDivisionError("what a log never raises"), "storage-failed", 503),
    ],
)
async def test_a_failed_disk_takes_no_writes_and_serves_reads(
    driver: Driver, log: SlowLog, lines: Lines, failure: Exception, code: str, status: int
) -> None:
    await add(driver, "old")
    log.failure, log.is_slow = failure, True
    writes = [add(driver), add(driver)]
    waiting = asyncio.ensure_future(ask(driver, "read", domain="shop", collection="counter", key="k"))
    await asyncio.sleep(0.01)
    log.go.release()
    for write in writes:
        error = await write
        assert isinstance(error, Unavailable)
        assert (error.code, error.status, error.effect) == (code, status, "unknown")
    assert (await waiting).code == code
    with pytest.raises(Unavailable, match="Nothing changed") as raised:
        add(driver)
    assert (raised.value.code, raised.value.effect) == (code, "none")
    # What is durable is read; what is not never is.
    assert (await ask(driver, "read", domain="shop", collection="counter", key="old"))["value"] == 1
    error = await ask(driver, "read", domain="shop", collection="counter", key="k")
    assert isinstance(error, CrdtStoreError)
    assert error.code == code
    assert driver.waiting == 0
    assert len(lines.of("the commit log failed, this node takes no writes")) == 1


async def test_a_node_with_a_failed_disk_says_so(shop: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await call(shop, "POST", KEY, ADD)).status == 200

    def fail(records: Sequence[bytes]) -> None:
        raise StorageError("0000000001.log: Input/output error; nothing more is written")

    monkeypatch.setattr(shop.log, "write", fail)
    first = await call(shop, "POST", KEY, ADD)
    assert (first.status, first.body["code"], first.body["effect"]) == (503, "storage-failed", "unknown")
    assert first.body["retryable"] is True
    second = await call(shop, "POST", KEY, ADD)
    assert (second.status, second.body["code"], second.body["effect"]) == (503, "storage-failed", "none")
    assert "Input/output error" in second.body["detail"]
    assert second.headers["retry-after"] == "5"
    declaration = await call(shop, "PUT", "/v1/domains/other")
    assert (declaration.status, declaration.body["code"]) == (503, "storage-failed")
    ready = await call(shop, "GET", "/readyz")
    assert (ready.status, ready.body["code"]) == (503, "storage-failed")
    assert "Input/output error" in ready.body["detail"]
    status = (await call(shop, "GET", "/v1/status")).body
    assert status["ready"] is False
    assert "Input/output error" in status["why"]
    assert (await call(shop, "GET", "/v1/data/shop/counter/other")).status == 200
    assert (await call(shop, "GET", "/healthz")).status == 200
    assert b"crdtstore_log_failed 1.0" in (await call(shop, "GET", "/metrics")).raw


async def test_with_a_failed_disk_peers_are_served_and_keys_they_write_stay_readable(
    make_nodes: Callable[..., Nodes], monkeypatch: pytest.MonkeyPatch
) -> None:
    us, eu = await make_nodes("us", "eu").start_all()
    await declare(us, "shop", "counter")
    await until(lambda: "shop/0" in eu.host.groups)
    await call(us, "POST", KEY, ADD)

    def fail(records: Sequence[bytes]) -> None:
        raise StorageError("0000000001.log: Input/output error")

    monkeypatch.setattr(us.log, "write", fail)
    assert (await call(us, "POST", "/v1/data/shop/counter/other", ADD)).status == 503
    assert (await call(eu, "POST", KEY, ADD)).body["values"] == [2]
    await until(lambda: us.status()["groups"][1]["behind"] == 1)
    reply = await call(us, "GET", KEY)
    assert (reply.status, reply.body["value"]) == (200, 1)
    assert us.host.groups["shop/0"].applied == [2, 0]
    assert (await call(eu, "GET", KEY)).body["value"] == 2
    assert (await call(eu, "GET", "/v1/data/shop/counter/other")).body["value"] == 0


async def test_a_failed_service_stops_the_node(shop: Node, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise AssertionError("a law does not hold")

    monkeypatch.setattr(shop.driver.service, "step", fail)
    reply = await call(shop, "POST", KEY, ADD)
    assert (reply.status, reply.body["code"], reply.body["effect"]) == (500, "internal", "unknown")
    assert b"law" not in reply.raw
    await until(shop.failed.is_set)
    assert (await call(shop, "GET", KEY)).status == 500
    assert (await call(shop, "GET", "/readyz")).status == 503
    assert len(lines.of("the service failed; this node stops, its next start rebuilds the state from the log")) == 1


async def test_a_refused_request_leaves_nothing_behind(driver: Driver) -> None:
    def errors() -> int:
        gc.collect()
        return sum(isinstance(each, CrdtStoreError) for each in gc.get_objects())

    before = errors()
    for number in range(50):
        assert isinstance(await ask(driver, "read", domain=f"none{number}", collection="c", key="k"), CrdtStoreError)
        assert isinstance(await ask(driver, "read", domain="shop", collection=5, key="k"), CrdtStoreError)
    assert errors() <= before + 2


async def test_a_cancelled_write_goes_on(driver: Driver, log: SlowLog) -> None:
    log.is_slow = True
    ops = [{"collection": "counter", "key": "k", "op": "add", "amount": 1}]
    ticket, _ = driver.request("commit", {"domain": "shop", "ops": ops})
    await asyncio.sleep(0.01)
    driver.forget(ticket)
    assert driver.waiting == 0
    log.go.release()
    log.is_slow = False
    assert (await ask(driver, "read", domain="shop", collection="counter", key="k"))["value"] == 1


async def test_too_many_wait(driver: Driver, log: SlowLog) -> None:
    log.is_slow = True
    writes = [add(driver) for _ in range(100)]
    with pytest.raises(Unavailable, match="100 requests wait") as raised:
        add(driver)
    assert (raised.value.code, raised.value.retry_after) == ("overloaded", 1.0)
    log.go.release(100)
    assert len(await asyncio.gather(*writes)) == 100


async def test_time_passes_without_requests(driver: Driver) -> None:
    steps = driver.steps
    await until(lambda: driver.steps > steps + 2)
