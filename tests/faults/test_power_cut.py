"""Whenever the power goes, the disk holds what was acknowledged, nothing that was never asked for, and no half of anything.

The question: which orders may a disk choose? ``crdtstore.testing.powercut_images`` says; here a recorded run of 200 writes by 8 writers
is cut at every call, and at sampled calls with sampled combinations of lost, torn and reordered unsynced writes and names. Believed
because the same test finds a node that does not sync and a node that answers before its sync.
"""

from __future__ import annotations

import asyncio
import errno
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from crdtstore.errors import CrdtStoreError
from crdtstore.testing import diskfaults
from crdtstore.testing.diskfaults import Call
from crdtstore.testing.disktrace import EventKind
from crdtstore.testing.powercut_images import Cut, cut_points, cuts, uncertain_cut_points
from tests.faults.lengths import IS_SOAK, short_or_long
from tests.faults.recorded import (
    KEYS,
    PADDING,
    REGION,
    TABLES,
    Recorded,
    Run,
    complaints,
    every,
    fast_directory,
    place_image,
    read_all,
    record,
    starting,
    values_of,
    write_marked,
)
from tests.integration.clusters import running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(diskfaults.available() is not None, reason=f"no recorded runs here: {diskfaults.available()}"),
]

SAMPLES = short_or_long(200, 2_000)
STARTED = short_or_long(1, 36)
PLANTED_SAMPLES = 200

Pick = tuple[int, int | None]
"""After how many records the power goes, and the seed that says what is kept."""


@pytest.fixture(scope="module")
def recorded() -> Iterator[Recorded]:
    with fast_directory() as directory:
        yield record(directory)


def judge(recorded: Recorded, cut: Cut) -> list[str]:
    """What is wrong with one image."""
    with starting(recorded, cut) as (config, is_bootstrap):
        try:
            values = values_of(config, is_bootstrap=is_bootstrap)
        except CrdtStoreError as error:
            return [f"it does not start: {error.detail}"]
    return complaints(values, cut.marks)


def images(recorded: Recorded, picks: list[Pick]) -> Iterator[Cut]:
    return cuts(recorded.events, picks, recorded.initial, recorded.marks)


def wrong(recorded: Recorded, picks: list[Pick]) -> list[str]:
    """What is wrong with all these images, each named so that it can be made again."""
    return [
        f"cut at {cut.at} of {len(recorded.events)}, seed {cut.seed}: {what}"
        for cut in images(recorded, picks)
        for what in judge(recorded, cut)
    ]


def sampled(recorded: Recorded, count: int, seed: int = 4) -> list[Pick]:
    points, random = uncertain_cut_points(recorded.events, recorded.initial), Random(seed)
    return [(random.choice(points), number) for number in range(count)]


def test_the_run_is_worth_cutting(recorded: Recorded) -> None:
    """Several segments, some used again, checkpoints, writes that share a sync, and calls between which something is open."""
    names = {event.name for event in recorded.events if event.name.startswith("log/0")}
    assert len(names) >= 4
    renamed = [event.name for event in recorded.events if event.kind is EventKind.RENAME]
    assert any(name.startswith("log/") and name.endswith(".log") for name in renamed)
    synced = [event.name for event in recorded.events if event.kind is EventKind.SYNCED]
    assert synced.count("state.sqlite-wal") > 5
    assert 20 < sum(name.startswith("log/") for name in synced) < 190
    points = uncertain_cut_points(recorded.events)
    assert len(points) > 100
    different = {tuple(sorted(cut.image.items())) for cut in images(recorded, sampled(recorded, 100))}
    assert len(different) > 60


def test_after_every_call_all_is_well(recorded: Recorded) -> None:
    points = cut_points(recorded.events)
    assert wrong(recorded, [(at, None) for at in (points if IS_SOAK else every(len(points) // 10, points))]) == []


@pytest.mark.parametrize("part", range(short_or_long(1, 8)))
def test_whatever_the_disk_kept_of_what_was_not_synced_all_is_well(recorded: Recorded, part: int) -> None:
    assert wrong(recorded, sampled(recorded, SAMPLES)[part :: short_or_long(1, 8)]) == []


async def start_as_node(recorded: Recorded, cut: Cut, directory: Path) -> list[str]:
    """The same with a real process, which has to take writes too and to have them after its next start."""
    place_image(recorded, cut, directory)
    marks = [*cut.marks, "attempted 1001", "acknowledged 1001"]
    found: list[str] = []
    for is_first in (True, False):
        async with running(directory, [REGION], **TABLES) as api:
            if is_first:
                assert (await write_marked(api, 1001)).status == 200
            found += complaints(await read_all(api), marks)
    return found


@pytest.mark.parametrize("part", range(short_or_long(1, 6)))
def test_images_start_as_nodes_and_go_on(recorded: Recorded, part: int) -> None:
    begun = next(at for at, event in enumerate(recorded.events) if event.name == "declared")
    picks = [pick for pick in sampled(recorded, 4 * STARTED) if pick[0] > begun][:STARTED]
    for cut in images(recorded, picks[part :: short_or_long(1, 6)]):
        with fast_directory() as directory:
            assert asyncio.run(start_as_node(recorded, cut, directory)) == [], (cut.at, cut.seed)


# --- other runs


async def goes_on(run: Run) -> None:
    assert await run.write(range(501, 531)) == []


def test_the_power_may_go_again_while_a_node_starts(recorded: Recorded) -> None:
    """A start cuts a torn tail, writes the last block again, prepares segments; an image of that has all that the first one had."""
    chosen = [cut for cut in images(recorded, sampled(recorded, 60)) if len(cut.marks) > 200]
    for cut in chosen[: short_or_long(1, 12)]:
        with fast_directory() as directory:
            second = record(directory, goes_on, before=(recorded, cut))
            at_start = next(at for at, event in enumerate(second.events) if event.name == "founded")
            first = [pick for pick in sampled(second, SAMPLES) if pick[0] <= at_start]
            assert first, "nothing is open while it starts"
            assert wrong(second, [*first[:100], *sampled(second, 100)]) == []


async def with_a_failing_sync(run: Run) -> None:
    await run.declare()
    assert await run.write(range(1, 41)) == []
    failing = run.disk.fail(Call.SYNC, errno.EIO, first=3, last=3, name="log/*.log")
    refused = await run.write(range(41, 401))
    assert failing.hits == 1
    assert set(refused) == {503}
    await run.api.cluster.kill(REGION)
    await run.api.cluster.start(REGION)
    assert await run.write(range(401, 441)) == []


async def with_a_failing_checkpoint(run: Run, call: int, name: str) -> None:
    await run.declare()
    failing = run.disk.fail(Call.SYNC, errno.EIO, first=call, last=call, name=name)
    assert await run.write(range(1, 161)) == [], "the log is well"
    assert failing.hits == 1
    await run.api.cluster.kill(REGION)
    await run.api.cluster.start(REGION)
    assert await run.write(range(161, 201)) == []


FAILING_CHECKPOINTS = [(number, name) for number in range(1, 5) for name in ("state.sqlite-wal", "state.sqlite")]


@pytest.mark.skipif(not IS_SOAK, reason="long; test_state_power_cut has the short form, make soak runs this")
@pytest.mark.parametrize(("call", "name"), FAILING_CHECKPOINTS)
def test_after_a_failed_sync_of_the_state_nothing_is_lost(call: int, name: str) -> None:
    with fast_directory() as directory:
        failed = record(directory, lambda run: with_a_failing_checkpoint(run, call, name))
        begun = next(at for at, event in enumerate(failed.events) if event.kind is EventKind.SYNC_FAILED)
        picks = [pick for pick in sampled(failed, 2_000) if pick[0] > begun][: short_or_long(200, 500)]
        assert wrong(failed, picks) == []


def test_after_a_failed_sync_the_next_start_builds_on_nothing_that_was_lost() -> None:
    """The kernel takes what it could not write for clean: a later sync says yes, and nothing is on the disk."""
    with fast_directory() as directory:
        failed = record(directory, with_a_failing_sync)
        assert sum(event.kind is EventKind.SYNC_FAILED for event in failed.events) == 1
        begun = next(at for at, event in enumerate(failed.events) if event.kind is EventKind.SYNC_FAILED)
        picks = [pick for pick in sampled(failed, 2_000) if pick[0] > begun][: short_or_long(200, 500)]
        assert wrong(failed, picks) == []


# --- the same with faults planted


async def without_syncs(run: Run) -> None:
    await run.declare()
    run.disk.ignore_sync = True
    await run.write(range(1, 101))


def test_a_node_that_does_not_sync_is_found_out() -> None:
    with fast_directory() as directory:
        planted = record(directory, without_syncs)
        found = wrong(planted, sampled(planted, PLANTED_SAMPLES))
    assert any("was acknowledged and is not there" in each for each in found)


WRITES_NOTHING_AGAIN = """
from crdtstore.cli import main
from crdtstore.storage import recovery

recovery._mend = lambda *_: None
main(prog_name="crdtstore")
"""


def test_a_start_that_believes_what_it_reads_is_found_out() -> None:
    """The last block is in the page cache only, after a failed sync; a start that does not write it again builds on it."""
    with fast_directory() as directory:
        planted = record(directory, with_a_failing_sync, command=[sys.executable, "-c", WRITES_NOTHING_AGAIN, "node"])
        found = wrong(planted, sampled(planted, 2 * PLANTED_SAMPLES))
    assert any("does not start" in each or "is not there" in each for each in found)


CUTS_EARLY = """
from crdtstore.cli import main
from crdtstore.storage.sqlite import SqliteState

def init(self, path, init=SqliteState.__init__):
    init(self, path)
    self._writer.execute("PRAGMA synchronous = OFF")

SqliteState.__init__ = init
main(prog_name="crdtstore")
"""


def test_a_node_that_cuts_its_log_behind_a_checkpoint_that_is_not_synced_is_found_out() -> None:
    with fast_directory() as directory:
        planted = record(directory, command=[sys.executable, "-c", CUTS_EARLY, "node"])
        found = wrong(planted, sampled(planted, PLANTED_SAMPLES))
    assert any("does not start" in each or "is not there" in each for each in found)


ANSWERS_EARLY = """
from crdtstore.cli import main
from crdtstore_node.writer import LogWriter

def put(self, number, record, put=LogWriter.put):
    put(self, number, record)
    self._loop.call_soon(self._on_written, number, self._log.position)

LogWriter.put = put
main(prog_name="crdtstore")
"""


def test_a_node_that_answers_before_its_sync_is_found_out() -> None:
    with fast_directory() as directory:
        planted = record(directory, command=[sys.executable, "-c", ANSWERS_EARLY, "node"])
        found = wrong(planted, sampled(planted, PLANTED_SAMPLES))
    assert any("was acknowledged and is not there" in each for each in found)


def test_the_checker_tells_what_is_wrong() -> None:
    marks = ["founded", "declared", "attempted 1", "acknowledged 1", "attempted 2"]
    one, two = (f"{number} {PADDING}" for number in (1, 2))
    empty = {key: {} for key in KEYS}
    for good in ([one], [one, two]):
        assert complaints(empty | {"key-1": {"members": good, "count": len(good)}}, marks) == []
    assert complaints(empty, marks) == ["1 was acknowledged and is not there"]
    assert complaints(empty, [*marks, "acknowledged 2"])[1:] == ["2 was acknowledged and is not there"]
    assert complaints(empty | {"key-1": {"members": [one, two], "count": 2}}, marks[:4]) == [
        "2 is there and was never attempted"
    ]
    assert complaints(empty | {"key-1": {"members": [one], "count": 1}}, [*marks, "refused 1"]) == [
        "1 is there and was refused"
    ]
    assert "half a commit" in complaints(empty | {"key-1": {"members": [one]}}, marks)[0]
    assert complaints({}, marks[:2])[0] == "key-0 is not declared"
    assert complaints({}, marks[:1]) == []
