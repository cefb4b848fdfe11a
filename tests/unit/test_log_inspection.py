"""A log looked at from outside: every place that is not sound is named, and a log that is being written is no damaged one."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from crdtstore.causal import ReplicaId
from crdtstore.errors import StorageError
from crdtstore.storage import inspection, segment
from crdtstore.storage.inspection import Damage, Finding, Part, Prepared, Started, Torn, inspect
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.protocol import Entry
from crdtstore.storage.segment import OVERHEAD_BYTES

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")

US = ReplicaId("us-1.0123456789abcdef")
SEGMENT_BYTES = 2048


def write(directory: Path, *lengths: int, cut: int | None = None, needed: int = 0) -> list[int]:
    """One block each; their positions, and the position at the end."""
    with SegmentedLog.open(directory, SEGMENT_BYTES) as log:
        list(log.replay(needed))
        positions = []
        for number, length in enumerate(lengths):
            data = (b"%d " % number * length)[:length]
            positions.append(log.write([log.encode([Entry("shop/0", US, data)])]))
            log._join_ahead()
            if number == cut:
                log.cut(positions[-1])
        return [*positions, log.position]


def path(directory: Path, generation: int) -> Path:
    return segment.path_of(directory, generation)


def seen(directory: Path) -> tuple[list[int], list[Damage], list[Torn]]:
    """Positions of the sound blocks, and what is not sound; the look changes nothing."""
    before = {file: file.read_bytes() for file in directory.iterdir()}
    found: list[Finding] = []
    for finding in inspect(directory):
        found.append(finding)
        if isinstance(finding, Part):
            assert segment.records_of(finding.payload)
    assert {file: file.read_bytes() for file in directory.iterdir()} == before
    parts = [each.position for each in found if isinstance(each, Part)]
    return (
        parts,
        [each for each in found if isinstance(each, Damage)],
        [each for each in found if isinstance(each, Torn)],
    )


def flip(file: Path, offset: int, bit: int = 1) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= bit
    file.write_bytes(data)


def test_a_sound_log_in_several_segments(tmp_path: Path) -> None:
    positions = write(tmp_path, 580, 580, 580, 580, 3000, 10, 1200)
    parts, damage, torn = seen(tmp_path)
    assert (parts, damage, torn) == (positions[:-1], [], [])
    kinds = [finding for finding in inspect(tmp_path) if not isinstance(finding, Part)]
    assert [type(each) for each in kinds] == [Started, Started, Started, Started, Prepared]
    assert [each.position for each in kinds if isinstance(each, Started)] == [0, *positions[3:6]]


def test_a_log_that_was_cut_and_recycled_is_sound(tmp_path: Path) -> None:
    positions = write(tmp_path, *[580] * 20, cut=10)
    parts, damage, torn = seen(tmp_path)
    assert (parts, damage, torn) == (positions[9:-1], [], [])
    assert any(isinstance(each, Started) and each.is_recycled for each in inspect(tmp_path))


def test_every_flipped_byte_of_a_log_is_told_and_all_else_is_read(tmp_path: Path) -> None:
    """Recycled segments too; a flip in the last block looks torn, one where nothing counts is nothing or torn."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    positions = write(original, *[400] * 14, cut=8)
    sound, *_ = seen(original)
    started = [each for each in inspect(original) if isinstance(each, Started)]
    assert started[-1].is_recycled
    shutil.copytree(original, copy)
    length = positions[1] - positions[0]
    for each in started:
        data = each.path.read_bytes()
        for offset in range(0, len(data), 7):
            changed = bytearray(data)
            changed[offset] ^= 1 << offset % 8
            with path(copy, each.generation).open("r+b") as file:  # in place: truncated, it would go to the disk
                file.write(changed)
            parts, damage, torn = seen(copy)
            at = each.position + (offset - OVERHEAD_BYTES) // length * length
            if offset < OVERHEAD_BYTES:
                assert [(found.offset, found.path.name) for found in damage] == [(0, each.path.name)]
                assert (parts, torn) == (sound, [])
            elif at == positions[-2]:
                assert (parts, damage) == (sound[:-1], [])
                assert [found.offset for found in torn] == [OVERHEAD_BYTES + at - each.position]
            elif at in sound and at + length <= each.position + SEGMENT_BYTES - OVERHEAD_BYTES:
                assert parts == [position for position in sound if position != at]
                assert [(found.path.name, found.offset, found.size) for found in damage] == [
                    (each.path.name, OVERHEAD_BYTES + at - each.position, length)
                ]
                assert torn == []
            else:
                assert (parts, damage, torn) == (sound, [], [])
        path(copy, each.generation).write_bytes(data)


def test_all_damage_is_counted(tmp_path: Path) -> None:
    positions = write(tmp_path, *[100] * 30)
    length = positions[1]
    for number in (1, 2, 5, 9):
        flip(path(tmp_path, 1), OVERHEAD_BYTES + number * length + 50)
    flip(path(tmp_path, 2), 3)
    second = next(each.position for each in inspect(tmp_path) if isinstance(each, Started) and each.generation == 2)
    flip(path(tmp_path, 2), OVERHEAD_BYTES + 60)
    parts, damage, torn = seen(tmp_path)
    assert [(each.path.name, each.offset, each.size) for each in damage] == [
        ("0000000001.log", OVERHEAD_BYTES + length, 2 * length),
        ("0000000001.log", OVERHEAD_BYTES + 5 * length, length),
        ("0000000001.log", OVERHEAD_BYTES + 9 * length, length),
        ("0000000002.log", 0, OVERHEAD_BYTES),
        ("0000000002.log", OVERHEAD_BYTES, length),
    ]
    assert torn == []
    gone = {positions[number] for number in (1, 2, 5, 9)} | {second}
    assert parts == [position for position in positions[:-1] if position not in gone]


def test_the_end_of_a_segment_that_is_not_the_last(tmp_path: Path) -> None:
    positions = write(tmp_path, *[580] * 5)
    flip(path(tmp_path, 1), OVERHEAD_BYTES + positions[2] + 100)
    parts, damage, torn = seen(tmp_path)
    assert parts == [*positions[:2], *positions[3:5]]
    (found,) = damage
    assert (found.path.name, found.offset, found.size) == (
        "0000000001.log",
        OVERHEAD_BYTES + positions[2],
        positions[1],
    )
    assert f"ends at position {positions[2]} here, but segment 2 begins at {positions[3]}" in found.why
    assert torn == []


def test_a_missing_segment_is_named_with_its_size(tmp_path: Path) -> None:
    positions = write(tmp_path, *[580] * 10)
    path(tmp_path, 2).unlink()
    parts, damage, _ = seen(tmp_path)
    assert parts == positions[:3] + positions[6:10]
    (found,) = damage
    assert (found.path.name, found.offset, found.size) == ("0000000002.log", 0, positions[6] - positions[3])
    path(tmp_path, 2).write_bytes(bytes(SEGMENT_BYTES))
    path(tmp_path, 3).write_bytes(b"?" * SEGMENT_BYTES)
    _, damage, _ = seen(tmp_path)
    assert [(each.path.name, each.size, each.why) for each in damage] == [
        ("0000000002.log", 0, "no valid header, but segment 4 is in use"),
        ("0000000003.log", 0, "no valid header, but segment 4 is in use"),
    ]


def test_a_torn_tail_is_no_damage(tmp_path: Path) -> None:
    positions = write(tmp_path, 100, 100, 500)
    data = path(tmp_path, 1).read_bytes()
    begin = OVERHEAD_BYTES + positions[2]
    path(tmp_path, 1).write_bytes(data[: begin + 50] + bytes(len(data) - begin - 50))
    parts, damage, (torn,) = seen(tmp_path)
    assert (parts, damage) == (positions[:2], [])
    assert torn == Torn(path(tmp_path, 1), begin, 50)
    path(tmp_path, 1).write_bytes(data)
    path(tmp_path, 2).write_bytes(b"torn".ljust(SEGMENT_BYTES, b"\0"))
    parts, damage, (torn,) = seen(tmp_path)
    assert (parts, damage, torn) == (positions[:3], [], Torn(path(tmp_path, 2), 0, 4))


def test_a_page_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SegmentedLog.open(tmp_path, 1 << 16) as log:
        list(log.replay())
        for _ in range(40):
            log.write([log.encode([Entry("shop/0", US, bytes(1000))])])
    preadv = os.preadv

    def spoilt(fd: int, views: list[memoryview], offset: int) -> int:
        if offset <= 8192 < offset + len(views[0]):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return preadv(fd, views, offset)

    monkeypatch.setattr(os, "preadv", spoilt)
    found = list(inspect(tmp_path))
    first, *others = [each for each in found if isinstance(each, Damage)]
    assert (first.path, first.offset, first.size, first.why) == (path(tmp_path, 1), 8192, 4096, "Input/output error")
    assert [each.offset <= 8192 < each.offset + each.size for each in others] == [True]
    assert sum(isinstance(each, Part) for each in found) >= 34


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 10)

    def fail(*_: Any) -> int:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", fail)
    assert Damage(path(tmp_path, 1), 0, 4096, "Permission denied") in list(inspect(tmp_path))


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 10)
    monkeypatch.setattr(segment, "FORMAT", 2)
    with pytest.raises(StorageError, match="format 1, this program reads format 2"):
        list(inspect(tmp_path))


def test_beside_a_writer_that_cuts_nothing_is_damaged(tmp_path: Path) -> None:
    """The plant is below: who does not look a second time sees damage."""
    assert _look_beside_a_writer(tmp_path, 40) == []


def test_who_looks_once_only_sees_damage_where_none_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment is read while it is written, and the next one is in use when that is read."""
    positions = write(tmp_path, *[580] * 2)
    read = inspection._read

    def late(file: Path, *args: Any) -> Any:
        found = read(file, *args)
        if file == path(tmp_path, 1) and not path(tmp_path, 3).exists():
            write(tmp_path, *[580] * 5)
        return found

    path(tmp_path, 2).touch()
    monkeypatch.setattr(inspection, "_read", late)
    assert [each for each in inspect(tmp_path) if isinstance(each, Damage)] == []
    monkeypatch.undo()
    for file in tmp_path.glob("*.log"):
        file.unlink()
    assert write(tmp_path, *[580] * 2) == positions
    path(tmp_path, 2).touch()
    monkeypatch.setattr(inspection, "_read", late)
    monkeypatch.setattr(inspection._Reached, "follow", lambda _: iter(()))
    assert [each for each in inspect(tmp_path) if isinstance(each, Damage)] != []


def _look_beside_a_writer(directory: Path, looks: int) -> list[Damage]:
    done = Event()
    with SegmentedLog.open(directory, 1 << 14) as log:
        list(log.replay())
        log.write([log.encode([Entry("shop/0", US, b"first")])])

        def work() -> None:
            number, positions = 0, [0]
            while not done.is_set():
                number += 1
                positions.append(log.write([log.encode([Entry("shop/0", US, b"%d" % number * (number % 500))])]))
                if number % 200 == 0:
                    log.cut(positions[-100])
                    del positions[:-200]

        thread = Thread(target=work)
        thread.start()
        try:
            return [each for _ in range(looks) for each in inspect(directory) if isinstance(each, Damage)]
        finally:
            done.set()
            thread.join()
