"""The state file fails while its log does not: writes go on as long as the log can carry them, and nothing is lost.

The question: what does a checkpoint that fails cost? Nothing but the length of the log, which is bounded: beyond ``unsaved_bytes`` writes
are refused, until a checkpoint succeeds. What cannot be read back is answered with that, file and row, and everything else goes on.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from crdtstore.testing import diskfaults
from crdtstore.testing.diskfaults import Call
from tests.faults.bench import Bench, bench
from tests.faults.lengths import IS_SOAK
from tests.faults.recorded import KEYS, REGION, fast_directory
from tests.integration.clusters import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(diskfaults.available() is not None, reason=f"no failing disks here: {diskfaults.available()}"),
]

STATE = "state.sqlite*"
FEW = {"CRDTSTORE_STATE_UNSAVED_BYTES": "100000"}
"""About eighty writes."""
FAILURES = [(Call.SYNC, errno.EIO, 503, "storage-failed"), (Call.WRITE, errno.ENOSPC, 507, "storage-full")]
FAILURES += [(Call.WRITE, errno.EIO, 503, "storage-failed"), (Call.SYNC, errno.ENOSPC, 503, "storage-failed")] * IS_SOAK
# SQLite does not tell why a sync failed.


@pytest.fixture
def directory() -> Iterator[Path]:
    with fast_directory() as made:
        yield made


async def fail_to_save(made: Bench, call: Call, error: int, status: int, code: str) -> None:
    rule = made.disk.fail(call, error, name=STATE)
    refused = await made.write_until_refused()
    assert {(reply.status, reply.body["code"]) for reply in refused} == {(status, code)}
    assert {reply.body["effect"] for reply in refused} == {"none"}, "the log is well, so nothing is in doubt"
    assert rule.hits
    storage = await made.storage()
    assert storage["takes_writes"] is False
    assert storage["checkpoint"]["unsaved_bytes"] > 100_000
    assert "state.sqlite" in storage["state"]["failure"]
    assert storage["log"]["failure"] is None
    await made.check()
    rule.clear()
    await until(made.is_taking_writes, "writes are taken again")
    made.disk.clear()
    assert await made.write_until_refused(40) == []
    await made.check()


async def test_a_checkpoint_that_fails_is_tried_again_and_costs_nothing(directory: Path) -> None:
    async with bench(directory, env=FEW) as made:
        for failure in FAILURES:
            await fail_to_save(made, *failure)
        await made.restart()


async def test_a_node_whose_checkpoints_fail_starts_again_from_its_log(directory: Path) -> None:
    async with bench(directory) as made:
        assert await made.write_until_refused(60) == []
        await made.wait_for_checkpoint()
        made.disk.fail(Call.SYNC, errno.EIO, name=STATE)
        assert await made.write_until_refused(150) == []
        await made.restart()


async def test_what_cannot_be_read_back_is_named_and_everything_else_goes_on(directory: Path) -> None:
    """After a start the keys that a checkpoint holds are on disk only; after another one SQLite has to read them from there."""
    async with bench(directory) as made:
        assert await made.write_until_refused(60) == []
        await made.wait_for_checkpoint()
        cluster = made.api.cluster
        await cluster.stop(REGION)
        await cluster.start(REGION)
        await made.wait_for_checkpoint()
        unreadable = made.disk.fail(Call.READ, errno.EIO, name=STATE)
        replies = {key: await made.api.send(REGION, "GET", f"/v1/data/shop/pairs/{key}") for key in KEYS}
        failed = [reply for reply in replies.values() if reply.status != 200]
        assert unreadable.hits
        assert failed
        assert {(reply.status, reply.body["code"]) for reply in failed} == {(503, "storage-failed")}
        assert all("state.sqlite" not in reply.body["detail"] for reply in failed)
        status = (await made.api.send(REGION, "GET", "/v1/status")).body
        assert "state.sqlite" in status["storage"]["unreadable"]["last"]
        assert (await made.api.send(REGION, "GET", "/healthz")).status == 200
        written = [await made.write() for _ in range(len(KEYS))]
        told = {(reply.status, reply.body.get("effect", "applied")) for reply in written if reply is not None}
        assert told <= {(200, "applied"), (503, "none")}, "a write to a key that cannot be read changes nothing"
        unreadable.clear()
        await made.check()
        assert await made.write_until_refused(40) == []
        await made.restart()
