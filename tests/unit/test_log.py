"""The commit log on disk while it runs: what is written comes back, and what failed is final."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdtstore.causal import ReplicaId
from crdtstore.errors import DecodeError, StorageError
from crdtstore.storage import segment
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.protocol import CommitLog, Entry
from crdtstore.storage.record import decode_record, encode_record

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")

US = ReplicaId("us-1.0123456789abcdef")
EU = ReplicaId("eu-1.00000000000000ff")

entries = st.builds(
    Entry, st.sampled_from(["_sys", "shop/0", "ü/0"]), st.sampled_from([US, EU]), st.binary(max_size=300)
)
records = st.lists(entries, min_size=1, max_size=8)
writes = st.lists(st.lists(records, min_size=1, max_size=3), max_size=8)


def entry(text: str) -> Entry:
    return Entry("shop/0", US, text.encode())


def opened(directory: Path, segment_bytes: int = 4096) -> SegmentedLog:
    log = SegmentedLog.open(directory, segment_bytes)
    list(log.replay())
    return log


def content(directory: Path) -> list[list[Entry]]:
    with SegmentedLog.open(directory, 4096) as log:
        return [entries for _, entries in log.replay()]


def failing(error: int) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise OSError(error, os.strerror(error))

    return fail


@given(records)
def test_a_record_comes_back_as_it_was(batch: list[Entry]) -> None:
    assert decode_record(encode_record(batch)) == batch


def test_a_record_names_groups_and_replicas_once() -> None:
    batch = [Entry("shop/0", replica, b"x") for replica in (US, EU) * 50]
    data = encode_record(batch)
    assert data.count(b"shop/0") == data.count(US.encode()) == data.count(EU.encode()) == 1
    assert len(data) < 100 * 4 + 100


@pytest.mark.parametrize("data", [b"", b"\xc1", encode_record([entry("a")])[:-1], encode_record([entry("a")]) + b"\0"])
def test_other_bytes_are_no_record(data: bytes) -> None:
    with pytest.raises(DecodeError, match="not a record"):
        decode_record(data)


def test_a_record_that_points_outside_of_its_tables_is_refused() -> None:
    data = encode_record([entry("a")])
    with pytest.raises(DecodeError, match="index"):
        decode_record(data.replace(b"\x91\x00", b"\x91\x07"))


@settings(max_examples=40, deadline=None)
@given(writes, writes, st.integers(160, 3000))
def test_what_is_written_comes_back_in_order(
    first: list[list[list[Entry]]], second: list[list[list[Entry]]], segment_bytes: int
) -> None:
    expected: list[list[Entry]] = []
    with tempfile.TemporaryDirectory() as name:
        for batches in (first, second):
            with SegmentedLog.open(name, segment_bytes) as log:
                assert [entries for _, entries in log.replay()] == expected
                for write in batches:
                    log.write([log.encode(batch) for batch in write])
                    expected += write
                assert (log.records, log.syncs) == (sum(map(len, batches)), len(batches))
        assert content(Path(name)) == expected


def test_it_is_a_commit_log(tmp_path: Path) -> None:
    log: CommitLog = opened(tmp_path)
    log.close()


def test_nothing_written_is_nothing_synced(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        log.write([])
        assert (log.syncs, log.position) == (0, 0)
    assert content(tmp_path) == []


def test_segments_are_zeros_of_full_size_before_they_are_used(tmp_path: Path) -> None:
    with opened(tmp_path / "deep" / "log"):
        assert segment.path_of(tmp_path / "deep" / "log", 1).read_bytes() == bytes(4096)


def test_the_next_segment_is_prepared_when_half_of_this_one_is_used(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        log.write([log.encode([entry("a" * 1000)])])
        assert segment.generations(tmp_path) == [1]
        log.write([log.encode([entry("b" * 2000)])])
    assert segment.generations(tmp_path) == [1, 2]
    assert segment.path_of(tmp_path, 2).read_bytes() == bytes(4096)
    with opened(tmp_path) as log:
        log.write([log.encode([entry("c" * 2000)])])
    assert [len(batch[0].data) for batch in content(tmp_path)] == [1000, 2000, 2000]


def test_a_batch_larger_than_a_segment_gets_one_of_its_own(tmp_path: Path) -> None:
    large = entry("x" * 10_000)
    with opened(tmp_path) as log:
        for item in (entry("before"), large, entry("after")):
            log.write([log.encode([item])])
    assert content(tmp_path) == [[entry("before")], [large], [entry("after")]]
    assert segment.path_of(tmp_path, 2).stat().st_size > 10_000


def test_a_segment_is_on_disk_whole_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Synced: the parent for the new directory, then the zeros under another name, then the directory with the name."""
    directory = tmp_path / "log"
    synced: list[tuple[int, list[str]]] = []

    def watch(fd: int) -> None:
        status = os.fstat(fd)
        names = sorted(file.name for file in directory.iterdir()) if directory.exists() else []
        synced.append((status.st_ino if stat.S_ISDIR(status.st_mode) else -status.st_size, names))

    monkeypatch.setattr(os, "fsync", watch)
    opened(directory).close()
    assert synced == [
        (tmp_path.stat().st_ino, []),
        (-4096, ["0000000001.new", "lock"]),
        (directory.stat().st_ino, ["0000000001.log", "lock"]),
    ]


def test_a_prepared_segment_that_is_too_small_is_made_anew(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        log.write([log.encode([entry("x" * 3000)])])
    assert segment.generations(tmp_path) == [1, 2]
    prepared = segment.path_of(tmp_path, 2)
    with opened(tmp_path) as log, prepared.open("rb") as small:
        log.write([log.encode([entry("y" * 5000)])])
        assert not os.path.samestat(os.fstat(small.fileno()), prepared.stat())
    assert len(content(tmp_path)) == 2


def test_an_unfinished_segment_is_swept_away(tmp_path: Path) -> None:
    unfinished = tmp_path / "0000000001.new"
    unfinished.write_bytes(b"half")
    with opened(tmp_path) as log:
        log.write([log.encode([entry("a")])])
    assert not unfinished.exists()


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    with opened(tmp_path) as log:
        monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:7], offset))
        log.write([log.encode([entry("a" * 100)])])
    monkeypatch.undo()
    assert content(tmp_path) == [[entry("a" * 100)]]


@pytest.mark.parametrize(
    ("call", "error", "code"),
    [
        ("fdatasync", errno.EIO, "storage-failed"),
        ("fdatasync", errno.EROFS, "storage-failed"),
        ("pwrite", errno.EIO, "storage-failed"),
        ("pwrite", errno.EROFS, "storage-failed"),
    ],
)
def test_a_failure_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: int, code: str) -> None:
    with opened(tmp_path) as log:
        log.write([log.encode([entry("kept")])])
        monkeypatch.setattr(os, call, failing(error))
        with pytest.raises(StorageError, match=r"0000000001\.log: .*no more writes") as failed:
            log.write([log.encode([entry("in doubt")])])
        assert (failed.value.code, failed.value.effect) == (code, "unknown")
        monkeypatch.undo()
        for _ in range(2):
            with pytest.raises(StorageError, match=r"0000000001\.log: .*nothing was written now") as later:
                log.write([log.encode([entry("refused")])])
            assert (later.value.code, later.value.effect) == (code, "none")
        assert (log.records, log.syncs) == (1, 1)
    assert content(tmp_path)[0] == [entry("kept")]
    assert [entry("refused")] not in content(tmp_path)


def test_a_partial_write_that_failed_is_cut_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite

    def half(fd: int, data: memoryview, offset: int) -> int:
        pwrite(fd, data[: len(data) // 2], offset)
        return failing(errno.EIO)()

    with opened(tmp_path) as log:
        log.write([log.encode([entry("kept")])])
        monkeypatch.setattr(os, "pwrite", half)
        with pytest.raises(StorageError):
            log.write([log.encode([entry("lost" * 100)])])
    monkeypatch.undo()
    with opened(tmp_path) as log:
        assert log.torn is not None
        assert "0000000001.log" in log.torn
        log.write([log.encode([entry("new")])])
    assert content(tmp_path) == [[entry("kept")], [entry("new")]]


def test_preparing_ahead_may_fail_without_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as log:
        monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
        log.write([log.encode([entry("x" * 3000)])])
        assert log._ahead is not None
        log._ahead.join()
        monkeypatch.undo()
        log.write([log.encode([entry("y" * 3000)])])
    assert len(content(tmp_path)) == 2


def test_two_owners_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path):
        with pytest.raises(StorageError, match=f"in use by process {os.getpid()}"):
            SegmentedLog.open(tmp_path)
        program = "import sys; from crdtstore.storage.log import SegmentedLog; SegmentedLog.open(sys.argv[1])"
        other = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
        assert "StorageError: storage-failed: " in other.stderr
        assert "only one may have it; nothing was changed" in other.stderr
    opened(tmp_path).close()


def test_a_lock_that_cannot_be_taken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    with pytest.raises(StorageError, match="No locks available"):
        SegmentedLog.open(tmp_path)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"file/log: File exists"):
        SegmentedLog.open(tmp_path / "file" / "log")


def test_writing_needs_a_replayed_and_open_log(tmp_path: Path) -> None:
    log = SegmentedLog.open(tmp_path)
    with pytest.raises(AssertionError, match="replayed"):
        log.write([log.encode([entry("a")])])
    list(log.replay())
    with pytest.raises(AssertionError, match="first thing"):
        list(log.replay())
    log.close()
    log.close()
    with pytest.raises(AssertionError, match="closed"):
        log.write([log.encode([entry("a")])])
