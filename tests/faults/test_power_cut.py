"""Whenever the power goes, the disk holds what was acknowledged, nothing that was never asked for, and no half of anything.

The question: which orders may a disk choose? ``crdtstore.testing.powercut_images`` says; here a recorded run of 200 writes by 8 writers
is cut at every call, and at sampled calls with sampled combinations of lost, torn and reordered unsynced writes and names. Believed
because the same test finds a node that does not sync and a node that answers before its sync.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from crdtstore.errors import CrdtStoreError
from crdtstore.testing import diskfaults
from crdtstore.testing.powercut_images import Cut, cut_points, cuts, uncertain_cut_points, write_image
from tests.faults.lengths import IS_SOAK, short_or_long
from tests.faults.recorded import (
    KEYS,
    LOG,
    PADDING,
    REGION,
    Recorded,
    complaints,
    every,
    fast_directory,
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
STARTED = short_or_long(2, 36)
PLANTED_SAMPLES = 200


@pytest.fixture(scope="module")
def recorded() -> Iterator[Recorded]:
    with fast_directory() as directory:
        yield record(directory)


def judge(recorded: Recorded, cut: Cut) -> list[str]:
    """What is wrong with one image."""
    with starting(recorded, cut.image, cut.marks) as (config, is_bootstrap):
        try:
            values = values_of(config, is_bootstrap=is_bootstrap)
        except CrdtStoreError as error:
            return [f"it does not start: {error.detail}"]
    return complaints(values, cut.marks)


def wrong(recorded: Recorded, picks: list[tuple[int, int | None]]) -> list[str]:
    """What is wrong with all these images, each named so that it can be made again."""
    return [
        f"cut at {cut.at} of {len(recorded.events)}, seed {cut.seed}: {what}"
        for cut in cuts(recorded.events, picks)
        for what in judge(recorded, cut)
    ]


def sampled(recorded: Recorded, count: int) -> list[tuple[int, int | None]]:
    points, random = uncertain_cut_points(recorded.events), Random(4)
    return [(random.choice(points), seed) for seed in range(count)]


def test_the_run_is_worth_cutting(recorded: Recorded) -> None:
    """Several segments, writes that share a sync, and calls between which something is open."""
    names = {event.name for event in recorded.events if event.name.startswith("log/0")}
    assert len(names) >= 4
    syncs = sum(event.kind.name == "SYNCED" for event in recorded.events)
    assert 20 < syncs < 190
    points = uncertain_cut_points(recorded.events)
    assert len(points) > 100
    images = {tuple(sorted(cut.image.items())) for cut in cuts(recorded.events, sampled(recorded, 100))}
    assert len(images) > 60


def test_after_every_call_all_is_well(recorded: Recorded) -> None:
    points = cut_points(recorded.events)
    assert wrong(recorded, [(at, None) for at in (points if IS_SOAK else every(len(points) // 10, points))]) == []


@pytest.mark.parametrize("part", range(short_or_long(1, 8)))
def test_whatever_the_disk_kept_of_what_was_not_synced_all_is_well(recorded: Recorded, part: int) -> None:
    assert wrong(recorded, sampled(recorded, SAMPLES)[part :: short_or_long(1, 8)]) == []


async def start_as_node(recorded: Recorded, cut: Cut, directory: Path) -> list[str]:
    """The same with a real process, which has to take writes too and to have them after its next start."""
    is_founded = "founded" in cut.marks
    write_image(cut.image, directory / "us-1")
    source = Path(recorded.config.cluster_file).parent
    text = (source / "local.json").read_text()
    (directory / "local.json").write_text(
        text if is_founded else text.replace('"is_founded": true', '"is_founded": false')
    )
    marks = [*cut.marks, "attempted 1001", "acknowledged 1001"]
    found: list[str] = []
    for is_first in (True, False):
        async with running(directory, [REGION], log=LOG) as api:
            if is_first:
                assert "declared" in cut.marks
                assert (await write_marked(api, 1001)).status == 200
            found += complaints(await read_all(api), marks)
    return found


@pytest.mark.parametrize("part", range(short_or_long(1, 6)))
def test_images_start_as_nodes_and_go_on(recorded: Recorded, part: int) -> None:
    begun = next(at for at, event in enumerate(recorded.events) if event.name == "declared")
    picks = [pick for pick in sampled(recorded, 4 * STARTED) if pick[0] > begun][:STARTED]
    for cut in cuts(recorded.events, picks[part :: short_or_long(1, 6)]):
        with fast_directory() as directory:
            assert asyncio.run(start_as_node(recorded, cut, directory)) == [], (cut.at, cut.seed)


# --- the same with faults planted


def test_a_node_that_does_not_sync_is_found_out() -> None:
    with fast_directory() as directory:
        planted = record(directory, ignore_sync=True)
        found = wrong(planted, sampled(planted, PLANTED_SAMPLES))
    assert any("was acknowledged and is not there" in each for each in found)


ANSWERS_EARLY = """
from crdtstore.cli import main
from crdtstore_node.writer import LogWriter

def put(self, number, record, put=LogWriter.put):
    put(self, number, record)
    self._loop.call_soon(self._on_written, number)

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
