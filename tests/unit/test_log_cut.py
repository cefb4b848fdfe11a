"""The beginning of a log goes when nobody needs it any more, and any durable block of the rest can be read."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from itertools import pairwise, product
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from crdtstore.causal import ReplicaId
from crdtstore.errors import StorageError
from crdtstore.storage import cutting, segment
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.protocol import Entry
from crdtstore.storage.segment import OVERHEAD_BYTES

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")

US = ReplicaId("us-1.0123456789abcdef")
SEGMENT_BYTES = 2048


def batch(text: str) -> list[Entry]:
    return [Entry("shop/0", US, text.encode())]


def opened(directory: Path, needed: int = 0) -> SegmentedLog:
    log = SegmentedLog.open(directory, SEGMENT_BYTES)
    list(log.replay(needed))
    return log


def put(log: SegmentedLog, *texts: str) -> list[int]:
    """One block each; the position of each."""
    positions = [log.write([log.encode(batch(text))]) for text in texts]
    log._join_ahead()
    return positions


def content(directory: Path, needed: int = 0) -> list[str]:
    with SegmentedLog.open(directory, SEGMENT_BYTES) as log:
        return [entries[0].data.decode() for _, entries in log.replay(needed)]


def path(directory: Path, generation: int) -> Path:
    return segment.path_of(directory, generation)


def filler(number: int) -> str:
    """Three of these fill a segment."""
    return f"{number:03d}" * 190


# --- cut


def test_segments_wholly_below_the_position_go_and_one_becomes_the_next(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        positions = put(log, *map(filler, range(10)))
        assert [generation for _, generation in log._segments] == [1, 2, 3, 4]
        assert segment.generations(tmp_path) == [1, 2, 3, 4]
        inode = path(tmp_path, 3).stat().st_ino
        log.cut(positions[9])
        assert segment.generations(tmp_path) == [4, 5]
        assert path(tmp_path, 5).stat().st_ino == inode
        assert log._segments == ((positions[9], 4),)
        positions += put(log, *map(filler, range(10, 14)))
        assert log._is_recycled
        assert path(tmp_path, 5).stat().st_ino == inode
    assert content(tmp_path, positions[9]) == [filler(number) for number in range(9, 14)]


def test_a_cut_inside_of_a_segment_keeps_it(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        positions = put(log, *map(filler, range(8)))
        log.cut(positions[3] - 1)
        assert segment.generations(tmp_path) == [1, 2, 3, 4]
        log.cut(positions[3])
        log.cut(positions[5])
        assert segment.generations(tmp_path) == [2, 3, 4, 5]
        log.cut(log.position)
        assert min(segment.generations(tmp_path)) == 3
    assert content(tmp_path, positions[6]) == [filler(6), filler(7)]


def test_at_most_two_segments_are_kept_for_later(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        positions = put(log, *map(filler, range(20)))
        for position in positions:
            log.cut(position)
        assert segment.generations(tmp_path) == [7, 8, 9]
        put(log, *map(filler, range(20, 26)))
        assert (log._generation, log._is_recycled) == (9, True)
        put(log, *map(filler, range(26, 29)))
        assert (log._generation, log._is_recycled) == (10, False)
    assert content(tmp_path, positions[18]) == [filler(number) for number in range(18, 29)]


def test_a_segment_of_another_size_is_not_used_again(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        positions = put(log, "x" * 5000, filler(1))
        log.cut(positions[1])
        assert segment.generations(tmp_path) == [2]


def test_the_segment_in_use_never_goes(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        put(log, "a")
        log.cut(1 << 40)
        put(log, "b")
    assert content(tmp_path) == ["a", "b"]


def test_a_log_that_begins_above_what_is_needed_is_damage(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        positions = put(log, *map(filler, range(8)))
        log.cut(positions[6])
    for needed in (0, positions[3], positions[6] - 1):
        with pytest.raises(StorageError, match=r"0000000002\.log: damaged at byte 0: .*no file.*begins at") as refused:
            content(tmp_path, needed)
        assert refused.value.more == {"file": str(path(tmp_path, 2)), "offset": 0}
    assert content(tmp_path, positions[6]) == [filler(6), filler(7)]
    assert content(tmp_path, positions[7]) == [filler(6), filler(7)]


def test_a_log_that_ends_below_what_is_needed_is_damage(tmp_path: Path) -> None:
    """What looks like a torn tail was durable when the state was saved."""
    with opened(tmp_path) as log:
        positions = put(log, "one", "two")
        end = log.position
    assert content(tmp_path, end) == ["one", "two"]
    data = bytearray(path(tmp_path, 1).read_bytes())
    data[OVERHEAD_BYTES + end - 1] ^= 1
    path(tmp_path, 1).write_bytes(data)
    with pytest.raises(StorageError, match=rf"damaged at byte {OVERHEAD_BYTES + positions[1]}: .*was durable up to"):
        content(tmp_path, end)
    assert content(tmp_path, positions[1]) == ["one"]
    with pytest.raises(StorageError, match="damaged at byte 0"):
        content(tmp_path / "another", 5)


def test_a_position_inside_of_a_block_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        put(log, "one", "two")
    with pytest.raises(StorageError, match="begins below position 7, and ends above it"):
        content(tmp_path, 7)


def test_a_log_whose_only_segment_is_gone_is_not_a_new_log(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        positions = put(log, *map(filler, range(4)))
        log.cut(positions[3])
        assert segment.generations(tmp_path) == [2, 3]
    path(tmp_path, 2).unlink()
    with pytest.raises(StorageError, match=r"0000000002\.log: damaged at byte 0: no file, but segment 1 was in use"):
        content(tmp_path)


def test_a_spoilt_header_of_the_only_segment_is_damage(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        positions = put(log, *map(filler, range(4)))
        log.cut(positions[3])
    data = bytearray(path(tmp_path, 2).read_bytes())
    data[20] ^= 1
    path(tmp_path, 2).write_bytes(data)
    for needed in (0, positions[3]):
        with pytest.raises(StorageError, match=r"0000000002\.log: damaged at byte 0: no valid header, but valid"):
            content(tmp_path, needed)


def test_a_segment_under_the_name_of_another_is_damage(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        put(log, *map(filler, range(4)))
    path(tmp_path, 2).rename(path(tmp_path, 1))
    with pytest.raises(StorageError, match="this is segment 2 under the name of another"):
        content(tmp_path)


def test_any_of_the_removed_segments_may_come_back(tmp_path: Path) -> None:
    """Names that were removed without a sync: every combination starts, holds the same, and is cleared away."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    with opened(original) as log:
        positions = put(log, *map(filler, range(11)))
        end = log.position
    for there in product([False, True], repeat=3):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(original, copy)
        for generation, is_there in enumerate(there, start=1):
            if not is_there:
                path(copy, generation).unlink()
        with SegmentedLog.open(copy, SEGMENT_BYTES) as log:
            records = list(log.replay(positions[9]))
            assert [position for position, _ in records] == positions[9:]
            assert log.position == end
            log.cut(positions[10])
            assert min(segment.generations(copy)) == 4
            put(log, "next")
        assert content(copy, positions[9]) == [filler(9), filler(10), "next"]


def test_damage_below_what_is_needed_is_nobodys_concern(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        positions = put(log, *map(filler, range(8)))
    path(tmp_path, 1).write_bytes(bytes(SEGMENT_BYTES))
    path(tmp_path, 2).write_bytes(b"?" * SEGMENT_BYTES)
    assert content(tmp_path, positions[6]) == [filler(6), filler(7)]
    with opened(tmp_path, positions[7]) as log:
        log.cut(positions[7])
        assert min(segment.generations(tmp_path)) == 3


def test_while_somebody_holds_the_pin_nothing_goes(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        positions = put(log, *map(filler, range(8)))
        with cutting.pinned(tmp_path), cutting.pinned(tmp_path):
            log.cut(positions[6])
            assert min(segment.generations(tmp_path)) == 1
            assert log.read(positions[0])[0] == batch(filler(0))
        log.cut(positions[6])
        assert min(segment.generations(tmp_path)) == 3


def test_a_pin_in_another_process_counts(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        positions = put(log, *map(filler, range(8)))
        ready, done = os.pipe(), os.pipe()
        child = os.fork()
        if not child:
            with cutting.pinned(tmp_path):
                os.write(ready[1], b"x")
                os.read(done[0], 1)
            os._exit(0)
        assert os.read(ready[0], 1) == b"x"
        log.cut(positions[6])
        assert min(segment.generations(tmp_path)) == 1
        os.write(done[1], b"x")
        assert os.waitpid(child, 0)[1] == 0
        log.cut(positions[6])
        assert min(segment.generations(tmp_path)) == 3
        for fd in (*ready, *done):
            os.close(fd)


def test_a_cut_that_fails_is_named_and_finished_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with opened(tmp_path) as log:
        positions = put(log, *map(filler, range(11)))
        for name in ("unlink", "rename"):
            with monkeypatch.context() as patch:
                patch.setattr(Path, name, fail)
                with pytest.raises(StorageError, match=f"{tmp_path}: Input/output error"):
                    log.cut(positions[9])
        monkeypatch.setattr(fcntl, "flock", fail)
        with pytest.raises(StorageError, match="pin: Input/output error"):
            log.cut(positions[9])
        monkeypatch.undo()
        put(log, "still writable")
        log.cut(positions[9])
        assert min(segment.generations(tmp_path)) == 4
    assert content(tmp_path, positions[9]) == [filler(9), filler(10), "still writable"]


def test_a_recycled_segment_is_not_zeroed_and_nothing_in_it_is_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start writes the last block again and forty bytes, not the rest of the file."""
    with opened(tmp_path) as log:
        positions = put(log, *map(filler, range(4)))
        log.cut(positions[3])
        positions += put(log, *map(filler, range(4, 8)))
        assert log._is_recycled
        assert log._generation == 3
    old = path(tmp_path, 3).read_bytes()
    written: list[tuple[int, int]] = []
    pwrite = os.pwrite
    for _ in range(2):
        with SegmentedLog.open(tmp_path, SEGMENT_BYTES) as log:
            monkeypatch.setattr(
                os, "pwrite", lambda fd, data, at: written.append((at, len(data))) or pwrite(fd, data, at)
            )
            list(log.replay(positions[3]))
            monkeypatch.undo()
            assert log.torn is None
    last = OVERHEAD_BYTES + positions[7] - positions[6]
    length = log.position - positions[7]
    assert written == [(last, length + OVERHEAD_BYTES), (last, length)]
    new = path(tmp_path, 3).read_bytes()
    assert new[last + length + OVERHEAD_BYTES :] == old[last + length + OVERHEAD_BYTES :] != bytes(SEGMENT_BYTES)


# --- read


def test_every_durable_block_can_be_read_by_its_position(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        positions = put(log, *map(filler, range(20)), "x" * 40_000)
        ends = [*positions[1:], log.position]
        for _ in range(2):
            for number, (position, end) in enumerate(zip(positions, ends, strict=True)):
                text = filler(number) if number < 20 else "x" * 40_000
                assert log.read(position) == (batch(text), end)
        assert len(log._reader._fds) == 4
        both = log.write([log.encode(batch("a") * 2), log.encode(batch("b"))])
        assert log.read(both) == (batch("a") * 2 + batch("b"), log.position)
        end = log.position
    with opened(tmp_path) as log:
        assert log.read(both) == (batch("a") * 2 + batch("b"), end)


def test_what_is_not_there_or_not_durable_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as log:
        positions = put(log, *map(filler, range(8)))
        log.cut(positions[6])
        for position in (0, positions[6] - 1, log.position, log.position + 1, 1 << 60):
            with pytest.raises(StorageError, match=f"no durable block at position {position}, it holds positions"):
                log.read(position)
        with pytest.raises(StorageError, match=r"0000000003\.log: damaged at byte 41: no valid block of position"):
            log.read(positions[6] + 1)
        end = log.position

        def fail(_: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fdatasync", fail)
        with pytest.raises(StorageError, match="no more writes"):
            put(log, "written, not synced")
        with pytest.raises(StorageError, match="no durable block"):
            log.read(end)


@pytest.mark.parametrize("length", [10, 30_000])
def test_a_block_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    def fail(*_: Any) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with opened(tmp_path) as log:
        _, second, third = put(log, "one", "2" * length, "three")
        generation = 1 if length == 10 else 2
        offset = OVERHEAD_BYTES + (second if length == 10 else 0)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", fail)
            with pytest.raises(StorageError, match=rf"000{generation}\.log: Input/output error at byte {offset}") as no:
                log.read(second)
        assert no.value.more == {"file": str(path(tmp_path, generation)), "offset": offset}
        data = path(tmp_path, generation).read_bytes()
        begin = offset
        for at in (0, 8, 16, 22, 24, 32, 40, 45, third - second - 1):
            changed = bytearray(data)
            changed[begin + at] ^= 8
            path(tmp_path, generation).write_bytes(changed)
            with pytest.raises(StorageError, match=rf"damaged at byte {offset}: no valid block of position {second}"):
                log.read(second)
        path(tmp_path, generation).write_bytes(data)
        assert log.read(second)[0] == batch("2" * length)


def test_a_block_that_holds_no_records_is_named(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        position = log.write([b"\xc1"])
        with pytest.raises(StorageError, match=r"0000000001\.log: damaged at byte 40: the checksum is right, but"):
            log.read(position)


def test_segments_that_go_are_no_longer_open(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        positions = put(log, *map(filler, range(8)))
        for position in positions:
            log.read(position)
        log.cut(positions[6])
        links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)]
        assert not [link for link in links if str(tmp_path) in link and "deleted" in link]
        assert set(log._reader._fds) == {3}


def _is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


def test_reading_while_another_thread_writes_and_cuts(tmp_path: Path) -> None:
    """Whatever is durable and not cut is read as it was written; this is wrong if a reader looks beyond."""
    positions: list[int] = []
    floor = [0]
    done, failures = Event(), []
    with opened(tmp_path) as log:

        def write() -> None:
            try:
                for number in range(600):
                    positions.append(log.write([log.encode(batch(filler(number)))]))
                    if number % 50 == 49:
                        floor[0] = positions[number - 25]
                        log.cut(floor[0])
            except BaseException as error:
                failures.append(error)
            done.set()

        thread = Thread(target=write)
        thread.start()
        read = 0
        try:
            while not done.is_set() or not read:
                count = len(positions)
                for number in range(max(0, count - 20), count):
                    try:
                        entries, end = log.read(positions[number])
                    except StorageError:
                        assert positions[number] < floor[0]
                        continue
                    assert entries == batch(filler(number))
                    assert number + 1 >= count or end == positions[number + 1]
                    read += 1
        finally:
            thread.join()
    assert read > 100
    assert not failures
    assert all(second - first == positions[1] - positions[0] for first, second in pairwise(positions))
    assert content(tmp_path, positions[580])[-20:] == [filler(number) for number in range(580, 600)]
