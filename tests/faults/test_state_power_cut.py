"""The state store by itself under power cuts: a commit is all there or not at all, and there once it has returned.

The question: what does a store do about a sync that failed before it was started? SQLite reads its write-ahead log back from the page
cache, where what could not be written still stands, and takes it for committed; moved into the file while the log itself is not on the
disk, it is half there after a power cut. So what a start reads there has to be written again first.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from crdtstore.errors import StorageError
from crdtstore.storage.sqlite import SqliteState
from crdtstore.testing import diskfaults
from crdtstore.testing.diskfaults import Call, DiskFaults
from crdtstore.testing.disktrace import Event, read_trace
from crdtstore.testing.powercut_images import Cut, cuts, uncertain_cut_points, write_image
from tests.faults.lengths import short_or_long
from tests.faults.recorded import fast_directory

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(diskfaults.available() is not None, reason=f"no recorded runs here: {diskfaults.available()}"),
]

ROWS = 30
WRITER = """
import os, sys
from crdtstore.errors import StorageError
from crdtstore.storage.protocol import Slice
from crdtstore.storage.sqlite import SqliteState
from crdtstore.testing.disktrace import Marks
from pathlib import Path

directory, first, last, rows = sys.argv[1], *map(int, sys.argv[2:])
marks = Marks(Path(os.environ["DISKFAULTS_TRACE"]))
store = SqliteState.open(directory)
for number in range(first, last):
    marks.mark(f"attempted {number}")
    try:
        for half in (range(rows // 2), range(rows // 2, rows)):
            put = [(b"\\0\\2\\1row-%03d" % row, b"%d " % number * (100 + row + 40 * (number % 3))) for row in half]
            store.write(Slice(rows=put))
        store.commit()
    except StorageError:
        os.kill(os.getpid(), 9)
    marks.mark(f"acknowledged {number}")
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    with fast_directory() as made:
        (made / "disk").mkdir()
        yield made


def run(disk: DiskFaults, first: int, last: int) -> None:
    command = [sys.executable, "-c", WRITER, str(disk.directory), str(first), str(last), str(ROWS)]
    child = subprocess.run(command, env=os.environ | disk.environment(), capture_output=True, text=True, check=False)
    assert (child.returncode, child.stderr) == (-signal.SIGKILL, "")


def numbers_in(cut: Cut) -> set[int] | str:
    """Of which commits there are rows; or why the store does not open."""
    with fast_directory() as directory:
        write_image(cut.image, directory / "disk")
        try:
            store = SqliteState.open(directory / "disk")
            try:
                rows = store.rows(b"", b"\xff")
            finally:
                store.close()
        except StorageError as error:
            return error.detail
    if rows and len(rows) != ROWS:
        return f"{len(rows)} rows"
    return {int(data.split()[0]) for _, data in rows} or {0}


def wrong(events: list[Event], count: int, *, after: int = 0) -> list[str]:
    points = [point for point in uncertain_cut_points(events) if point >= after]
    random, found = Random(7), []
    for cut in cuts(events, [(random.choice(points), seed) for seed in range(count)]):
        said = {word: [int(mark.split()[1]) for mark in cut.marks if mark.startswith(word)] for word in ("att", "ack")}
        possible = {*said["att"], 0} - set(range(max(said["ack"], default=0)))
        numbers = numbers_in(cut)
        if isinstance(numbers, str) or len(numbers) != 1 or not numbers <= possible:
            found.append(f"cut at {cut.at}, seed {cut.seed}: {numbers} of {max(said['ack'], default=0)}")
    return found


def test_a_commit_that_returned_is_there_and_none_is_there_by_halves(directory: Path) -> None:
    with DiskFaults(directory / "disk", directory / "control", directory / "trace") as disk:
        run(disk, 1, 12)
        run(disk, 12, 20)
        assert wrong(read_trace(directory / "trace"), short_or_long(200, 3_000)) == []


def test_without_syncs_this_finds_what_is_missing(directory: Path) -> None:
    with DiskFaults(directory / "disk", directory / "control", directory / "trace") as disk:
        disk.ignore_sync = True
        run(disk, 1, 12)
        assert wrong(read_trace(directory / "trace"), 100)


@pytest.mark.parametrize("name", ["state.sqlite-wal", "state.sqlite"])
def test_what_a_failed_sync_left_in_memory_only_is_built_upon_by_nobody(directory: Path, name: str) -> None:
    for failing in range(2, short_or_long(4, 10)):
        with fast_directory() as made:
            (made / "disk").mkdir()
            with DiskFaults(made / "disk", made / "control", made / "trace") as disk:
                disk.fail(Call.SYNC, errno.EIO, first=failing, last=failing, name=name)
                run(disk, 1, 12)
                disk.clear()
                begun = len(read_trace(made / "trace"))
                run(disk, 101, 105)
            assert wrong(read_trace(made / "trace"), short_or_long(150, 600), after=begun) == [], failing
