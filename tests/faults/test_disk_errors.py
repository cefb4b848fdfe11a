"""A node whose disk fails while it runs, or when it starts: what it answers, what it keeps, and when it goes on.

The question: what may a node say after a failed sync? Not that anything is durable: the kernel has forgotten what it could not write, and
the next sync says yes to nothing. After "no space left" it may try again. In both cases reads go on, every answer says whether anything
changed, and the next start has all that was ever acknowledged. Real node processes, real files; the disk fails by
``crdtstore.testing.diskfaults`` and is repaired while the node runs.
"""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from crdtstore.errors import Unavailable
from crdtstore.testing import diskfaults
from crdtstore.testing.diskfaults import CHANGES, Call
from crdtstore.testing.processes import NODE_COMMAND
from tests.faults.bench import WRITERS, Bench, bench
from tests.faults.lengths import IS_SOAK, short_or_long
from tests.faults.recorded import (
    REGION,
    fast_directory,
)
from tests.integration.clusters import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(diskfaults.available() is not None, reason=f"no failing disks here: {diskfaults.available()}"),
]


@pytest.fixture
def directory() -> Iterator[Path]:
    with fast_directory() as made:
        yield made


# --- errors that are final


FINAL = [(Call.SYNC, number) for number in (range(1, 51) if IS_SOAK else (1, 2, 5, 13, 34, 50))]
FINAL += [(Call.WRITE, number) for number in (range(1, 11) if IS_SOAK else (3,))]


async def fail_for_ever(made: Bench, call: Call, number: int) -> None:
    """One call fails, once; every later one would succeed."""
    rule = made.disk.fail(call, errno.EIO, first=number, last=number, name="log/*.log")
    refused = await made.write_until_refused()
    assert rule.hits == 1
    assert len(refused) == WRITERS, f"a node takes writes after the {call.name} no. {number} failed"
    assert {(reply.status, reply.body["code"]) for reply in refused} == {(503, "storage-failed")}
    assert "unknown" in {reply.body["effect"] for reply in refused}, "whether those survive shows at the next start"
    assert await made.reads_quietly() == 200
    assert (await made.api.send(REGION, "GET", "/readyz")).status == 503
    assert (await made.api.send(REGION, "GET", "/healthz")).status == 200
    later = await made.write()
    assert later is not None
    assert (later.status, later.body["code"], later.body["effect"]) == (503, "storage-failed", "none")
    assert "Input/output error" in later.body["detail"]
    assert rule.seen <= number + 3, "a log whose sync failed is left alone"


async def test_a_failed_sync_is_final_and_takes_nothing(directory: Path) -> None:
    async with bench(directory) as made:
        for call, number in FINAL:
            await fail_for_ever(made, call, number)
            await made.restart()


SWALLOWS_ERRORS = """
import os
from crdtstore.cli import main

def swallowing(call, answer):
    def swallow(*arguments):
        try:
            return call(*arguments)
        except OSError:
            return answer(*arguments)
    return swallow

os.fdatasync = swallowing(os.fdatasync, lambda descriptor: None)
os.pwrite = swallowing(os.pwrite, lambda descriptor, data, offset: len(data))
main(prog_name="crdtstore")
"""


async def test_a_node_that_swallows_errors_is_found_out(directory: Path) -> None:
    async with bench(directory, [sys.executable, "-c", SWALLOWS_ERRORS, "node"]) as made:
        made.disk.fail(Call.SYNC, errno.EIO, first=2, last=2, name="log/*.log")
        assert await made.write_until_refused(40) == [], "it acknowledges what is not on the disk"
        made.disk.fail(Call.WRITE, errno.ENOSPC, name="log/*.log")
        assert await made.write_until_refused(40) == []
        with pytest.raises((AssertionError, Unavailable)):
            await made.restart()


# --- a disk that is full, and has space again


def full_calls() -> list[tuple[Call, int, int]]:
    """(what fails, from which call on, with what)"""
    numbers = range(1, 51) if IS_SOAK else (1, 2, 7, 30)
    found = [(Call.WRITE | Call.CREATE, number, errno.ENOSPC) for number in numbers]
    return [*found, (Call.SYNC, 2, errno.ENOSPC), (Call.WRITE, 3, errno.EDQUOT)]


async def fill_and_empty(made: Bench, calls: Call, number: int, error: int) -> None:
    full = made.disk.fail(calls, error, first=number)
    refused = await made.write_until_refused()
    assert len(refused) == WRITERS
    assert {(reply.status, reply.body["code"]) for reply in refused} == {(507, "storage-full")}
    later = await made.write()
    assert later is not None
    assert (later.status, later.body["code"]) == (507, "storage-full")
    assert await made.reads_quietly() == 200
    full.clear()
    await until(made.is_taking_writes, f"writes are taken again after {calls!r} no. {number} failed")
    made.disk.clear()
    assert await made.write_until_refused(40) == []
    await made.check()


async def test_a_full_disk_refuses_writes_until_there_is_space(directory: Path) -> None:
    async with bench(directory) as made:
        for calls, number, error in full_calls():
            await fill_and_empty(made, calls, number, error)
        await made.restart()


async def test_a_start_on_a_full_disk_serves_or_says_why_and_goes_on_with_space(directory: Path) -> None:
    """As on a real one: what need not grow can be written."""
    async with bench(directory) as made:
        assert await made.write_until_refused(100) == []
        await made.api.cluster.kill(REGION)
        full = made.disk.fail(Call.WRITE | Call.TRUNCATE, errno.ENOSPC, only_growing=True)
        creates = made.disk.fail(Call.CREATE, errno.ENOSPC)
        try:
            await made.api.cluster.start(REGION)
        except Unavailable:
            said = only_line(made)
            assert "No space left" in said or "SQLITE_IOERR_SHMSIZE" in said
            made.disk.clear()
            await made.api.cluster.start(REGION)
        else:
            await made.check()
            refused = await made.write_until_refused()
            assert {(reply.status, reply.body["code"]) for reply in refused} == {(507, "storage-full")}
            full.clear()
            creates.clear()
        await until(made.is_taking_writes, "writes are taken again")
        await made.restart()


async def test_writes_that_are_cut_short_are_finished(directory: Path) -> None:
    async with bench(directory) as made:
        made.disk.put(Call.WRITE, keep_bytes=700)
        assert await made.write_until_refused(100) == []
        assert made.disk.failed(Call.WRITE) > 100
        await made.restart()


# --- whatever fails, wherever

ANY = [Call.WRITE, Call.SYNC, Call.SYNC_DIRECTORY, Call.CREATE, Call.RENAME, Call.UNLINK, Call.OPEN_TO_WRITE, Call.READ]


async def test_whatever_fails_once_takes_nothing_that_was_acknowledged(directory: Path) -> None:
    random = Random(4)
    async with bench(directory) as made:
        for _ in range(short_or_long(2, 60)):
            call, error = random.choice(ANY), random.choice((errno.EIO, errno.ENOSPC, errno.EROFS))
            number = random.randint(1, 30 if call in (Call.WRITE, Call.SYNC) else 2)
            keep_bytes = random.choice((-1, -1, 100))
            made.disk.put(call, error=error, first=number, last=number, keep_bytes=keep_bytes)
            refused = await made.write_until_refused(150)
            assert {reply.status for reply in refused} <= {503, 507}, (call, number, error, refused)
            await made.restart()


# --- starting


async def refuse_start(made: Bench) -> str:
    """The one line of a node that does not start."""
    await made.api.cluster.kill(REGION)
    with pytest.raises(Unavailable):
        await made.api.cluster.start(REGION)
    return only_line(made)


def only_line(made: Bench) -> str:
    node = made.api.cluster.node(REGION)
    assert node.returncode == 1
    said = node.log_tail()
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1, said
    assert said.startswith("error: ")
    return said


async def test_a_directory_that_cannot_be_written_or_read_is_named(directory: Path) -> None:
    async with bench(directory) as made:
        assert await made.write_until_refused(100) == []
        made.disk.fail(CHANGES, errno.EROFS)
        said = await refuse_start(made)
        assert str(made.disk.directory) in said
        assert "Read-only file system" in said
        made.disk.clear()
        await made.api.cluster.start(REGION)
        made.disk.fail(Call.READ, errno.EIO, name="log/*.log", first=2)
        said = await refuse_start(made)
        assert str(made.disk.directory / "log") in said
        assert "Input/output error" in said
        made.disk.clear()
        await made.api.cluster.start(REGION)
        await made.check()


async def test_a_start_that_fails_anywhere_says_so_and_takes_nothing(directory: Path) -> None:
    """Every call of a start fails, once or for ever; then the next start has everything."""
    random = Random(5)
    async with bench(directory, start_timeout_s=10) as made:
        for _ in range(short_or_long(2, 40)):
            assert await made.write_until_refused(30) == []
            await made.api.cluster.kill(REGION)
            call = random.choice([*ANY, Call.OPEN, Call.READ, Call.MKDIR])
            error, first = random.choice((errno.EIO, errno.ENOSPC, errno.EROFS)), random.randint(1, 4)
            made.disk.put(call, error=error, first=first, last=first if random.random() < 0.5 else 1 << 60)
            try:
                await made.api.cluster.start(REGION)
            except Unavailable:
                node = made.api.cluster.node(REGION)
                said = node.log_tail()
                assert "Traceback" not in said, (call, error, said)
                # A node that took its directory runs, and says that it cannot write; this one was not waited for any longer.
                assert "error: " in said if node.state == "exited" else "takes no writes" in said, (call, error, said)
                made.disk.clear()
                await made.api.cluster.start(REGION)
                await made.check()
            else:
                await made.restart()


def start_raw(config: Path, *options: str, data: Path) -> subprocess.Popen[str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith("CRDTSTORE_")}
    mine |= {"CRDTSTORE_API": "127.0.0.1:0", "CRDTSTORE_GOSSIP": "127.0.0.1:0", "CRDTSTORE_DATA": str(data)}
    return subprocess.Popen(
        [*NODE_COMMAND, "--config", str(config), "--exit-with-stdin", *options],
        env=mine,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_two_processes_on_one_directory_are_refused(directory: Path) -> None:
    async with bench(directory) as made:
        cluster = made.api.cluster
        second = start_raw(cluster.config_path(REGION), data=cluster.data_path(REGION))
        _, said = second.communicate(timeout=20)
        assert second.returncode == 1
        assert f"in use by process {cluster.node(REGION).pid}" in said
        assert "Traceback" not in said
        assert await made.write_until_refused(20) == []
        await made.restart()


async def test_of_two_that_found_one_directory_together_one_is_refused(directory: Path) -> None:
    async with bench(directory) as made:
        config = made.api.cluster.config_path(REGION)
        both = [start_raw(config, "--bootstrap", data=directory / "fresh") for _ in range(2)]
        try:

            async def is_one_gone() -> bool:
                return any(each.poll() is not None for each in both)

            await until(is_one_gone, "one of them gives up")
            refused = [each for each in both if each.poll() is not None]
            assert [each.returncode for each in refused] == [1]
            assert "in use by process" in refused[0].communicate()[1]
        finally:
            for each in both:
                if each.poll() is None:
                    each.kill()
                each.communicate()


# --- a disk that hangs


async def test_reads_go_on_while_the_disk_hangs(directory: Path) -> None:
    async with bench(directory) as made:
        hangs = made.disk.put(Call.SYNC, delay_s=1.0, last=1)
        write = asyncio.create_task(made.write())

        async def is_hanging() -> bool:
            return hangs.hits > 0

        await until(is_hanging, "the write reaches the disk")
        begun = time.monotonic()
        assert await made.reads_quietly() == 200
        assert time.monotonic() - begun < 0.7
        assert not write.done()
        reply = await write
        assert reply is not None
        assert reply.status == 200
