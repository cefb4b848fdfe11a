"""The commit log on a full disk: nothing of a write counts, and it is written again at the same place when there is room."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdtstore.causal import ReplicaId
from crdtstore.errors import StorageError
from crdtstore.storage import segment
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.protocol import Entry
from crdtstore.storage.segment import OVERHEAD_BYTES

US = ReplicaId("us-1.0123456789abcdef")
SEGMENT_BYTES = 4096
_pwrite = os.pwrite


class Disk:
    """Calls that fail from the n-th one on, until there is room again; what was written stays written."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.error = errno.ENOSPC
        self.calls_left: int | None = None
        self.is_partial = False
        patch.setattr(os, "fsync", self._sync)
        patch.setattr(os, "fdatasync", self._sync)
        patch.setattr(os, "pwrite", self._write)

    def _count(self) -> bool:
        if self.calls_left is None:
            return False
        self.calls_left -= 1
        return self.calls_left < 0

    def _sync(self, _: int) -> None:
        if self._count():
            raise OSError(self.error, os.strerror(self.error))

    def _write(self, fd: int, data: Any, offset: int) -> int:
        if self._count():
            if self.is_partial and len(data) > 1:
                self.is_partial = False
                return _pwrite(fd, data[: len(data) // 2], offset)
            raise OSError(self.error, os.strerror(self.error))
        return _pwrite(fd, data, offset)


@pytest.fixture
def disk() -> Iterator[Disk]:
    with pytest.MonkeyPatch.context() as patch:
        yield Disk(patch)


def batch(text: str) -> list[Entry]:
    return [Entry("shop/0", US, text.encode())]


def opened(directory: Path) -> SegmentedLog:
    log = SegmentedLog.open(directory, SEGMENT_BYTES)
    list(log.replay())
    return log


def put(log: SegmentedLog, *texts: str) -> int:
    return log.write([log.encode(batch(text)) for text in texts])


def content(directory: Path) -> list[str]:
    with SegmentedLog.open(directory, SEGMENT_BYTES) as log:
        return [entries[0].data.decode() for _, entries in log.replay()]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("is_partial", [False, True])
@pytest.mark.parametrize("calls", [0, 1])
@pytest.mark.parametrize("length", [10, 3000, 5000])
def test_a_full_disk_is_not_final(
    tmp_path: Path, disk: Disk, calls: int, is_partial: bool, error: int, length: int
) -> None:
    """Wherever it fails, in the segment or at the switch to another: the same records go to the same position."""
    with opened(tmp_path) as log:
        put(log, "a" * 2000)
        begin, counted = log.position, (log.records, log.syncs)
        disk.error, disk.is_partial = error, is_partial
        for _ in range(3):
            disk.calls_left = calls
            with pytest.raises(StorageError, match=r"may be tried again") as failed:
                put(log, "b" * length)
            assert (failed.value.code, failed.value.effect) == ("storage-full", "unknown")
            assert failed.value.more["file"].endswith(".log")
            assert log.position == begin
            assert (log.records, log.syncs) == counted
            with pytest.raises(StorageError, match="no durable block"):
                log.read(begin)
        disk.calls_left = None
        assert put(log, "b" * length) == begin
        assert log.read(begin)[0] == batch("b" * length)
        put(log, "c")
    assert content(tmp_path) == ["a" * 2000, "b" * length, "c"]


def test_an_error_of_the_disk_after_a_full_one_is_final(tmp_path: Path, disk: Disk) -> None:
    with opened(tmp_path) as log:
        put(log, "a")
        disk.calls_left = 0
        with pytest.raises(StorageError, match="may be tried again"):
            put(log, "b")
        disk.error = errno.EIO
        with pytest.raises(StorageError, match="no more writes") as failed:
            put(log, "b")
        assert failed.value.code == "storage-failed"
        disk.calls_left = None
        with pytest.raises(StorageError, match="earlier write"):
            put(log, "b")


def test_what_was_not_tried_again_is_a_torn_tail(tmp_path: Path, disk: Disk) -> None:
    with opened(tmp_path) as log:
        put(log, "kept")
        begin = OVERHEAD_BYTES + log.position
        disk.is_partial, disk.calls_left = True, 0
        with pytest.raises(StorageError):
            put(log, "lost" * 100)
    disk.calls_left = None
    assert segment.used_bytes(segment.path_of(tmp_path, 1).read_bytes()) > begin
    with opened(tmp_path) as log:
        assert "never acknowledged" in str(log.torn)
        put(log, "next")
    assert content(tmp_path) == ["kept", "next"]


def test_what_was_written_but_not_synced_counts_once_when_it_is_written_elsewhere(tmp_path: Path, disk: Disk) -> None:
    """The first try may be durable after all; the second one has more records and goes to another segment."""
    with opened(tmp_path) as log:
        put(log, "a" * 1500)
        disk.calls_left = 1
        with pytest.raises(StorageError, match="No space left"):
            put(log, "b" * 1500)
        disk.calls_left = None
        put(log, "b" * 1500, "c" * 1500)
        put(log, "d")
    assert content(tmp_path) == ["a" * 1500, "b" * 1500, "c" * 1500, "d"]
    assert segment.generations(tmp_path)[:2] == [1, 2]


def test_a_new_segment_that_could_not_be_synced_is_replaced_by_a_larger_one(tmp_path: Path, disk: Disk) -> None:
    with opened(tmp_path) as log:
        put(log, "a" * 3000)
        log._join_ahead()
        disk.calls_left = 1
        with pytest.raises(StorageError, match=r"0000000002\.log: No space left"):
            put(log, "b" * 3000)
        disk.calls_left = None
        put(log, "b" * 3000, "c" * 3000)
        assert [generation for _, generation in log._segments] == [1, 2]
    assert content(tmp_path) == ["a" * 3000, "b" * 3000, "c" * 3000]


def test_a_segment_that_could_not_be_made_leaves_no_file(tmp_path: Path, disk: Disk) -> None:
    """It would hold the very space that everybody waits for."""
    with opened(tmp_path) as log:
        put(log, "a")
        disk.is_partial, disk.calls_left = True, 0
        with pytest.raises(StorageError, match=r"0000000002\.log"):
            put(log, "x" * 5000)
        assert sorted(file.name for file in tmp_path.iterdir()) == ["0000000001.log", "lock"]


def test_preparing_is_tried_again_when_the_segment_is_needed(tmp_path: Path, disk: Disk) -> None:
    with opened(tmp_path) as log:
        disk.calls_left = 2  # the write and its sync; then the segment after this one is prepared, and cannot be
        put(log, "x" * 3000)
        log._join_ahead()
        assert segment.generations(tmp_path) == [1]
        with pytest.raises(StorageError, match=r"0000000002\.log: No space left"):
            put(log, "y" * 3000)
        disk.calls_left = None
        put(log, "y" * 3000)
    assert content(tmp_path) == ["x" * 3000, "y" * 3000]


steps = st.lists(
    st.tuples(st.integers(1, 3000), st.one_of(st.none(), st.integers(0, 6)), st.booleans()), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(steps, st.booleans())
def test_wherever_the_disk_is_full_nothing_is_lost_and_nothing_is_twice(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int | None, bool]], is_gathering: bool
) -> None:
    """The caller keeps what did not go in and writes it again, with what came meanwhile or without it."""
    directory = tmp_path_factory.mktemp("log")
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch)
        expected: list[str] = []
        waiting: list[str] = []
        with opened(directory) as log:
            for number, (length, calls, is_partial) in enumerate(steps):
                waiting.append(f"{number}." * (length // 2))
                disk.calls_left, disk.is_partial = calls, is_partial
                while waiting:
                    now = waiting[:] if is_gathering else waiting[:1]
                    try:
                        put(log, *now)
                    except StorageError:
                        assert log._failure is None
                        break
                    expected += now
                    del waiting[: len(now)]
                log._join_ahead()
            disk.calls_left = None
            for text in waiting:
                put(log, text)
                expected.append(text)
        assert content(directory) == expected


@pytest.mark.parametrize("calls", range(1, 6))
def test_what_was_to_be_replaced_is_never_written_to_again(tmp_path: Path, disk: Disk, calls: int) -> None:
    """The file that is open may have lost its name to the one that takes its place."""
    with opened(tmp_path) as log:
        disk.calls_left = 0
        with pytest.raises(StorageError):
            put(log, "a" * 2000)
        disk.calls_left = calls
        with suppress(StorageError):
            put(log, "b" * 5000)
        disk.calls_left = None
        wanted = [*(["b" * 5000] if log.position else []), "c" * 2000, "d" * 3000]
        for text in wanted[-2:]:
            put(log, text)
    assert content(tmp_path) == wanted


def test_a_full_disk_taken_for_final_would_be_noticed(tmp_path: Path, disk: Disk) -> None:
    """The plant: a log that counts what it could not sync holds it twice, or with a hole before it."""
    counted: Callable[..., None] = SegmentedLog._append

    def careless(log: SegmentedLog, records: list[bytes]) -> None:
        try:
            counted(log, records)
        except StorageError:
            log.position += 50
            raise

    with pytest.MonkeyPatch.context() as patch, opened(tmp_path) as log:
        patch.setattr(SegmentedLog, "_append", careless)
        put(log, "a")
        disk.calls_left = 0
        with pytest.raises(StorageError):
            put(log, "b")
        disk.calls_left = None
        put(log, "b")
        put(log, "c")
    assert content(tmp_path) != ["a", "b", "c"]


SMALL_DISK = """
import os, sys
from pathlib import Path
from crdtstore.causal import ReplicaId
from crdtstore.errors import StorageError
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.protocol import Entry

directory, filler = Path(sys.argv[1]) / "log", Path(sys.argv[1]) / "filler"
me, kept, refused, room = ReplicaId("us-1.0123456789abcdef"), [], 0, True
filler.write_bytes(bytes(1 << 20))
with SegmentedLog.open(directory, 1 << 17) as log:
    list(log.replay())
    for number in range(180):
        record = log.encode([Entry("shop/0", me, b"%d " % number * 4000)])
        while True:
            try:
                log.write([record])
                break
            except StorageError as error:
                assert error.code == "storage-full", error
                refused += 1
                filler.unlink()
        kept.append(number)
with SegmentedLog.open(directory, 1 << 17) as log:
    held = [int(entries[0].data.split()[0]) for _, entries in log.replay()]
    assert log.torn is None, log.torn
assert held == kept
print("refused", refused)
"""


def test_on_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A file system of 3 MB in a mount namespace of its own; a third of it comes free when it is full."""
    script = f"mount -t tmpfs -o size=3m tmpfs {tmp_path} && exec {sys.executable} -c '{SMALL_DISK}' {tmp_path}"
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace can be had here (root is needed)")
    run = subprocess.run([unshare, "-m", "sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    if "mount:" in run.stderr:
        pytest.skip(f"no file system can be mounted here: {run.stderr.strip()}")
    assert run.returncode == 0, run.stderr
    assert run.stdout == "refused 1\n"
