"""What a start makes of a log that a power cut or a bad disk has changed: torn is cut, damaged is refused by name."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdtstore.causal import ReplicaId
from crdtstore.errors import StorageError
from crdtstore.storage import segment
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.protocol import Entry
from crdtstore.storage.record import encode_record
from crdtstore.storage.segment import OVERHEAD_BYTES

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")

US = ReplicaId("us-1.0123456789abcdef")
SEGMENT_BYTES = 2048
SECTOR = 512


def batch(text: str) -> list[Entry]:
    return [Entry("shop/0", US, text.encode())]


def opened(directory: Path) -> SegmentedLog:
    log = SegmentedLog.open(directory, SEGMENT_BYTES)
    list(log.replay())
    return log


def write(directory: Path, *texts: str) -> list[int]:
    """Append one block each; the log's position after each."""
    with opened(directory) as log:
        ends = []
        for text in texts:
            log.write([log.encode(batch(text))])
            ends.append(log.position)
    return ends


def content(directory: Path) -> list[str]:
    with SegmentedLog.open(directory, SEGMENT_BYTES) as log:
        return [entries[0].data.decode() for _, entries in log.replay()]


def path(directory: Path, generation: int = 1) -> Path:
    return segment.path_of(directory, generation)


def snapshot(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.glob("*.log")}


def assert_damage(directory: Path, file: Path, offset: int) -> None:
    before = snapshot(directory)
    with pytest.raises(StorageError, match=f"{file.name}: damaged at byte {offset}: .*nothing was changed") as refused:
        content(directory)
    assert refused.value.more == {"file": str(file), "offset": offset}
    assert snapshot(directory) == before


def assert_cut(directory: Path, expected: list[str], *, says_so: bool = True) -> None:
    """The log holds this, can go on, and finds no second thing to cut."""
    with SegmentedLog.open(directory, SEGMENT_BYTES) as log:
        assert [entries[0].data.decode() for _, entries in log.replay()] == expected
        assert (log.torn is not None) == says_so
        log.write([log.encode(batch("next"))])
    with SegmentedLog.open(directory, SEGMENT_BYTES) as log:
        assert [entries[0].data.decode() for _, entries in log.replay()] == [*expected, "next"]
        assert log.torn is None


@pytest.fixture
def copies(tmp_path: Path) -> Iterator[Iterator[Path]]:
    """Fresh copies of ``tmp_path/original``, one at a time."""

    def make() -> Iterator[Path]:
        while True:
            copy = tmp_path / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(tmp_path / "original", copy)
            yield copy

    return make()


@pytest.mark.parametrize("filler", [b"", b"\0", b"\xff"])
def test_the_last_block_may_end_at_any_byte(tmp_path: Path, copies: Iterator[Path], filler: bytes) -> None:
    """However much of it arrived, the blocks before it stay, and the log goes on."""
    _, begin, end = (OVERHEAD_BYTES + position for position in write(tmp_path / "original", "one", "two", "three"))
    data = path(tmp_path / "original").read_bytes()
    for cut in range(begin, end):
        copy = next(copies)
        path(copy).write_bytes(data[:cut] + filler * (len(data) - cut))
        assert_cut(copy, ["one", "two"], says_so=cut > begin or filler == b"\xff")


def test_the_first_block_of_all_may_end_at_any_byte(tmp_path: Path, copies: Iterator[Path]) -> None:
    (position,) = write(tmp_path / "original", "one")
    data = path(tmp_path / "original").read_bytes()
    for cut in range(1, OVERHEAD_BYTES + position):
        copy = next(copies)
        path(copy).write_bytes(data[:cut] + bytes(len(data) - cut))
        assert_cut(copy, [], says_so=cut != OVERHEAD_BYTES)


def test_a_new_segment_may_be_torn_at_any_byte(tmp_path: Path, copies: Iterator[Path]) -> None:
    first, second = write(tmp_path / "original", "one", "x" * 2000)
    data = path(tmp_path / "original", 2).read_bytes()
    for cut in (1, 20, OVERHEAD_BYTES - 1, OVERHEAD_BYTES, OVERHEAD_BYTES + 10, OVERHEAD_BYTES + second - first - 1):
        copy = next(copies)
        path(copy, 2).write_bytes(data[:cut] + bytes(len(data) - cut))
        assert_cut(copy, ["one"], says_so=cut != OVERHEAD_BYTES)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 1800), min_size=1, max_size=5), st.data())
def test_any_sectors_of_the_last_write_may_be_missing(lengths: list[int], data: st.DataObject) -> None:
    """Sectors arrive in any order: everything before the last write stays, the last one stays only whole."""
    texts = [f"{number}" * length for number, length in enumerate(lengths)]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write(directory, *texts[:-1])
        before = snapshot(directory)
        write(directory, texts[-1])
        whole = True
        for file, after in snapshot(directory).items():
            old = before.get(file, b"").ljust(len(after), b"\0")
            sectors = []
            for offset in range(0, len(after), SECTOR):
                was, is_now = (content[offset : offset + SECTOR] for content in (old, after))
                arrived = was == is_now or data.draw(st.booleans())
                whole &= arrived
                sectors.append(is_now if arrived else was)
            (directory / file).write_bytes(b"".join(sectors))
        expected = texts if whole else texts[:-1]
        assert content(directory) == expected
        write(directory, "next")
        assert content(directory) == [*expected, "next"]


def test_several_records_of_one_write_are_torn_together(tmp_path: Path) -> None:
    """One sync covers them, so a whole record behind a torn one proves nothing and is no damage."""
    write(tmp_path, "kept")
    with opened(tmp_path) as log:
        begin = OVERHEAD_BYTES + log.position
        log.write([log.encode(batch(text)) for text in ("a" * 600, "b" * 600)])
    data = bytearray(path(tmp_path).read_bytes())
    data[begin + 100 : begin + 600] = bytes(500)
    path(tmp_path).write_bytes(data)
    assert_cut(tmp_path, ["kept"])


def test_a_flipped_bit_before_the_last_block_is_damage(tmp_path: Path, copies: Iterator[Path]) -> None:
    first, second, _ = write(tmp_path / "original", "one", "two", "three")
    data = path(tmp_path / "original").read_bytes()
    for begin, end in ((0, first), (first, second)):
        for byte in range(begin, end):
            copy = next(copies)
            changed = bytearray(data)
            changed[OVERHEAD_BYTES + byte] ^= 1 << byte % 8
            path(copy).write_bytes(changed)
            assert_damage(copy, path(copy), OVERHEAD_BYTES + begin)


def test_a_flipped_bit_in_a_header_with_blocks_is_damage(tmp_path: Path, copies: Iterator[Path]) -> None:
    write(tmp_path / "original", "one")
    data = path(tmp_path / "original").read_bytes()
    for byte in range(OVERHEAD_BYTES):
        copy = next(copies)
        changed = bytearray(data)
        changed[byte] ^= 16
        path(copy).write_bytes(changed)
        assert_damage(copy, path(copy), 0)


def test_a_flipped_bit_in_the_last_block_looks_like_a_torn_tail(tmp_path: Path, copies: Iterator[Path]) -> None:
    _, begin, end = write(tmp_path / "original", "one", "two", "three")
    data = path(tmp_path / "original").read_bytes()
    for byte in range(begin, end):
        copy = next(copies)
        changed = bytearray(data)
        changed[OVERHEAD_BYTES + byte] ^= 1 << byte % 8
        path(copy).write_bytes(changed)
        assert_cut(copy, ["one", "two"])


def test_the_end_of_a_full_segment_is_not_the_end_of_the_log(tmp_path: Path) -> None:
    first, second, _ = write(tmp_path, "one", "two", "x" * 2000)
    data = path(tmp_path).read_bytes()
    changed = bytearray(data)
    changed[OVERHEAD_BYTES + second - 1] ^= 1
    path(tmp_path).write_bytes(changed)
    assert_damage(tmp_path, path(tmp_path), OVERHEAD_BYTES + first)
    path(tmp_path).write_bytes(data[: OVERHEAD_BYTES + first] + bytes(len(data) - OVERHEAD_BYTES - first))
    assert_damage(tmp_path, path(tmp_path), OVERHEAD_BYTES + first)


@pytest.mark.parametrize("missing", [1, 2])
def test_a_missing_segment_is_damage(tmp_path: Path, missing: int) -> None:
    write(tmp_path, *("x" * 1500 for _ in range(3)))
    path(tmp_path, missing).unlink()
    assert_damage(tmp_path, path(tmp_path, missing), 0)


def test_old_blocks_of_a_recycled_file_are_not_valid(tmp_path: Path) -> None:
    """A file used again still holds blocks with good checksums, of an older generation."""
    _, end = write(tmp_path, "one", "two")
    old = path(tmp_path).read_bytes()
    path(tmp_path, 2).write_bytes(old)
    assert content(tmp_path) == ["one", "two"]
    begin = segment.make_header(2, end) + segment.make_block(2, end, [encode_record(batch("3"))])
    begin += segment.make_block(1, end + len(begin) - OVERHEAD_BYTES, [encode_record(batch("of generation 1"))])
    path(tmp_path, 2).write_bytes(begin + old[len(begin) :])
    assert_cut(tmp_path, ["one", "two", "3"])


def test_a_copy_of_the_log_inside_of_a_value_is_not_a_block(tmp_path: Path) -> None:
    """A block is valid only where it was written, so a torn value full of blocks is torn and not damage."""
    first, *_ = write(tmp_path, "one", "two")
    data = path(tmp_path).read_bytes()
    with opened(tmp_path) as log:
        begin = OVERHEAD_BYTES + log.position
        log.write([log.encode([Entry("shop/0", US, data[: OVERHEAD_BYTES + first])])])
    changed = bytearray(path(tmp_path).read_bytes())
    changed[begin + OVERHEAD_BYTES - 1] ^= 1
    assert changed.find(data[OVERHEAD_BYTES : OVERHEAD_BYTES + first], begin) > 0
    path(tmp_path).write_bytes(changed)
    assert_cut(tmp_path, ["one", "two"])


def test_another_format_is_refused_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "FORMAT", 2)
    write_format = segment.make_header(1, 0)
    monkeypatch.undo()
    tmp_path.joinpath(path(tmp_path).name).write_bytes(write_format.ljust(SEGMENT_BYTES, b"\0"))
    before = snapshot(tmp_path)
    with pytest.raises(
        StorageError, match=r"0000000001\.log: format 2, this program reads format 1; nothing was changed"
    ):
        content(tmp_path)
    assert snapshot(tmp_path) == before


def test_a_block_with_a_good_checksum_and_no_records_in_it_is_damage(tmp_path: Path) -> None:
    data = segment.make_header(1, 0) + segment.make_block(1, 0, [b"\xc1"])
    path(tmp_path).write_bytes(data.ljust(SEGMENT_BYTES, b"\0"))
    assert_damage(tmp_path, path(tmp_path), OVERHEAD_BYTES)


def test_segments_of_real_size_are_read_alike(tmp_path: Path) -> None:
    (end,) = write(tmp_path, "one")
    shutil.rmtree(tmp_path)
    with SegmentedLog.open(tmp_path, 1 << 20) as log:
        list(log.replay())
        log.write([log.encode(batch("one"))])
        log.write([log.encode(batch("x" * 300_000))])
    data = path(tmp_path).read_bytes()
    path(tmp_path).write_bytes(data[:200_000] + bytes(len(data) - 200_000))
    with SegmentedLog.open(tmp_path) as log:
        assert len(list(log.replay())) == 1
        assert f" {200_000 - OVERHEAD_BYTES - end} bytes after byte {OVERHEAD_BYTES + end} " in str(log.torn)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path(tmp_path).mkdir()
    with pytest.raises(StorageError, match=r"0000000001\.log: Is a directory"):
        content(tmp_path)


def test_a_page_that_cannot_be_read_is_named_and_nothing_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a segment that is needed; one that is not may be as spoilt as it likes."""
    with SegmentedLog.open(tmp_path, 1 << 16) as log:
        list(log.replay())
        positions = [log.write([log.encode(batch("x" * 1000))]) for _ in range(90)]
    before, spoilt, pread = snapshot(tmp_path), path(tmp_path).stat().st_ino, os.pread

    def read(fd: int, size: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino == spoilt and (offset <= 8192 < offset + size or offset == 0):
            if offset == 8192:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            if size > 4096 or size == OVERHEAD_BYTES:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", read)
    with pytest.raises(StorageError, match=r"0000000001\.log: Input/output error at byte 8192") as refused:
        content(tmp_path)
    assert refused.value.more == {"file": str(path(tmp_path)), "offset": 8192}
    assert snapshot(tmp_path) == before
    with SegmentedLog.open(tmp_path, 1 << 16) as log:
        assert len(list(log.replay(positions[-1]))) < 40


@pytest.mark.parametrize(("texts", "begins"), [(("one",), 0), (("one", "two"), 1)])
def test_the_last_block_is_written_and_synced_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: tuple[str, ...], begins: int
) -> None:
    """After a failed sync a reader sees pages that are not on disk; only writing them again makes them so."""
    positions = [0, *write(tmp_path, *texts)]
    begin = OVERHEAD_BYTES + positions[-2] if begins else 0
    calls: list[object] = []
    pwrite, fdatasync = os.pwrite, os.fdatasync

    def watched_pwrite(fd: int, data: memoryview, offset: int) -> int:
        calls.append((offset, len(data)))
        return pwrite(fd, data, offset)

    def watched_fdatasync(fd: int) -> None:
        calls.append("sync")
        fdatasync(fd)

    with SegmentedLog.open(tmp_path, SEGMENT_BYTES) as log:
        monkeypatch.setattr(os, "pwrite", watched_pwrite)
        monkeypatch.setattr(os, "fdatasync", watched_fdatasync)
        assert len(list(log.replay())) == len(texts)
    assert calls == [(begin, OVERHEAD_BYTES + positions[-1] - begin), "sync"]


def test_a_recovery_that_cannot_sync_is_no_recovery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "one")

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with SegmentedLog.open(tmp_path, SEGMENT_BYTES) as log:
        monkeypatch.setattr(os, "fdatasync", fail)
        with pytest.raises(StorageError, match=r"0000000001\.log: Input/output error"):
            list(log.replay())
        with pytest.raises(AssertionError):
            log.write([log.encode(batch("two"))])
    monkeypatch.undo()
    assert content(tmp_path) == ["one"]
