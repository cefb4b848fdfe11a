"""Blocks read one after the other come out of spans: few calls, and never anything but what is durable now."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest

from crdtstore.causal import ReplicaId
from crdtstore.errors import StorageError
from crdtstore.storage import reader
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.protocol import Entry
from crdtstore.storage.segment import OVERHEAD_BYTES

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")

US = ReplicaId("us-1.0123456789abcdef")


def batch(data: bytes) -> list[Entry]:
    return [Entry("shop/0", US, data)]


def opened(directory: Path, segment_bytes: int = 1 << 20) -> SegmentedLog:
    log = SegmentedLog.open(directory, segment_bytes)
    list(log.replay())
    return log


def put(log: SegmentedLog, data: bytes) -> int:
    return log.write([log.encode(batch(data))])


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of all reads from now on."""
    read, lengths = os.pread, list[int]()

    def counted(fd: int, length: int, offset: int) -> bytes:
        lengths.append(length)
        return read(fd, length, offset)

    monkeypatch.setattr(reader.os, "pread", counted)
    return lengths


def test_many_small_blocks_one_after_the_other_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as log:
        written = [(put(log, b"%d" % number * 30), b"%d" % number * 30) for number in range(3_000)]
        lengths = count_reads(monkeypatch)
        assert [log.read(position)[0] for position, _ in written] == [batch(data) for _, data in written]
        assert len(lengths) <= 2 + log.position // reader._SPAN_BYTES + 1
        lengths.clear()
        for position, data in Random(1).sample(written, 50):
            assert log.read(position)[0] == batch(data)
        assert all(length <= reader._GUESS_BYTES for length in lengths), "who reads here and there reads little"


@pytest.mark.parametrize("segment_bytes", [2_048, 1 << 20])
@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_read_while_more_is_written_is_what_stands_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, segment_bytes: int
) -> None:
    random = Random(seed)
    monkeypatch.setattr(reader, "_SPAN_BYTES", random.choice((64, 500, 5_000)))
    monkeypatch.setattr(reader, "_GUESS_BYTES", random.choice((64, 500)))
    with opened(tmp_path, segment_bytes) as log:
        written: list[tuple[int, bytes]] = []
        at = cut = 0
        for _ in range(400):
            what = random.random()
            if what < 0.3 or at >= len(written):
                data = random.randbytes(random.choice((1, 30, 700)))
                written.append((put(log, data), data))
                log._join_ahead()
            elif what < 0.33:
                cut = random.randrange(cut, len(written))
                log.cut(written[cut][0])
                at = max(at, cut)
            else:
                at = at if what < 0.9 else random.randrange(cut, len(written))
                position, data = written[at]
                end = written[at + 1][0] if at + 1 < len(written) else log.position
                assert log.read(position) == (batch(data), end)
                at += 1


def test_what_was_behind_the_end_when_a_span_was_read_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that found no room may have left a whole block there, and another one takes its place."""
    with opened(tmp_path) as log:
        positions = [put(log, b"one"), put(log, b"two")]
        sync, is_full = os.fdatasync, True

        def full(fd: int) -> Any:
            if is_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return sync(fd)

        monkeypatch.setattr(os, "fdatasync", full)
        end = log.position
        with pytest.raises(StorageError, match="tried again"):
            put(log, b"six")
        for position in positions:
            log.read(position)
        is_full = False
        assert put(log, b"ten") == end
        assert log.read(end)[0] == batch(b"ten")


def test_a_span_that_was_damaged_on_its_way_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as log:
        positions = [put(log, b"%d" % number * 30) for number in range(20)]
        read = os.pread

        def flipped(fd: int, length: int, offset: int) -> bytes:
            data = bytearray(read(fd, length, offset))
            if length > OVERHEAD_BYTES + 1_000:
                data[900] ^= 1
            return bytes(data)

        log.read(positions[0])
        with monkeypatch.context() as patch:
            patch.setattr(reader.os, "pread", flipped)
            log.read(positions[1])
        for number in range(1, 20):
            assert log.read(positions[number])[0] == batch(b"%d" % number * 30)
