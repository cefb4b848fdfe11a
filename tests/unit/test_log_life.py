"""The whole life of a log: written, cut, recycled, torn by crashes and flipped bits; it keeps what it must and names what it cannot."""

from __future__ import annotations

import shutil
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdtstore.causal import ReplicaId
from crdtstore.errors import StorageError
from crdtstore.storage import cutting, segment
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.protocol import Entry
from crdtstore.storage.segment import OVERHEAD_BYTES

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")

US = ReplicaId("us-1.0123456789abcdef")
SEGMENT_BYTES = 1024
SMALL_BYTES = 512
SECTOR = 512
LAST = 7
"""The generation of the last segment in the log that the tests of single faults spoil."""


def batch(text: str) -> list[Entry]:
    return [Entry("d/0", US, text.encode())]


def put(log: SegmentedLog, *texts: str) -> int:
    position = log.write([log.encode(batch(text)) for text in texts])
    log._join_ahead()
    return position


def replayed(log: SegmentedLog, needed: int) -> list[tuple[int, str]]:
    return [(position, entries[0].data.decode()) for position, entries in log.replay(needed)]


def start(directory: Path, needed: int) -> tuple[list[tuple[int, str]], SegmentedLog, StorageError | None]:
    """What a start finds, or why there is none."""
    log = SegmentedLog(directory, SMALL_BYTES, -1)
    try:
        return replayed(log, needed), log, None
    except StorageError as error:
        return [], log, error
    finally:
        log.close()


def overwrite(file: Path, data: bytes | bytearray) -> None:
    """In place: a file that is truncated first goes to the disk, and these tests do it thousands of times."""
    with file.open("r+b" if file.exists() else "wb", buffering=0) as open_file:
        open_file.write(data)
        open_file.truncate()


def files(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.glob("*.log")}


def restore(directory: Path, content: dict[str, bytes]) -> None:
    for name in files(directory):
        if name not in content:
            (directory / name).unlink()
    for name, data in content.items():
        overwrite(directory / name, data)


# --- single faults in a log that was cut, its last segments recycled


@pytest.fixture
def recycled(tmp_path: Path) -> tuple[Path, int, list[tuple[int, str]]]:
    """A log that is needed from the middle of a recycled segment, with the old blocks of it behind its last one."""
    log = SegmentedLog.open(tmp_path, SMALL_BYTES)
    texts: list[tuple[int, str]] = []
    with log:
        replayed(log, 0)
        for number in range(32):
            texts.append((put(log, f"{number:02d}" * 5), f"{number:02d}" * 5))
            log.cut(texts[-10:][0][0])
        assert log._is_recycled
        assert len(log._segments) == 3
        last = segment.path_of(tmp_path, LAST).read_bytes()
        assert segment.used_bytes(last) > log._offset
        needed = texts[-10][0]
        assert needed not in [position for position, _ in log._segments]
    return tmp_path, needed, texts


def test_a_flipped_bit_in_any_byte_is_damage_by_name_or_in_the_last_block_a_torn_tail(
    recycled: tuple[Path, int, list[tuple[int, str]]],
) -> None:
    directory, needed, texts = recycled
    before = files(directory)
    blocks = dict(texts)
    headers = {name: header for name, data in before.items() if (header := segment.header_of(data)) is not None}
    starts = {name: header.position for name, header in headers.items() if header.generation == int(name[:10])}
    order = sorted(starts, key=lambda name: starts[name])
    ends = {name: starts[following] for name, following in pairwise(order)}
    holding = max(name for name in order if starts[name] <= needed)
    last, length = texts[-1][0], texts[1][0]
    kinds = dict.fromkeys(("damage", "torn", "nothing"), 0)
    for name, data in before.items():
        for offset in range(len(data)):
            changed = bytearray(data)
            changed[offset] ^= 1 << offset % 8
            overwrite(directory / name, changed)
            position = starts.get(name, -1) + offset - OVERHEAD_BYTES
            is_counted = name >= holding and name in starts
            is_header = is_counted and offset < OVERHEAD_BYTES
            begin = position - position % length
            is_block = is_counted and not is_header and begin in blocks and begin < ends.get(name, last + length)
            held, log, error = start(directory, needed)
            if is_header or (is_block and begin < last):
                assert error is not None, f"byte {offset} of {name} was not noticed"
                assert error.more["file"].endswith(name)
                assert error.more["offset"] == (0 if is_header else OVERHEAD_BYTES + begin - starts[name])
                kinds["damage"] += 1
                continue
            assert error is None, f"byte {offset} of {name}: {error}"
            if is_block:
                assert (held[-1][0], log.position) == (texts[-2][0], last)
                assert log.torn is not None
                kinds["torn"] += 1
            else:
                assert held == [each for each in texts if each[0] >= starts[holding]]
                kinds["nothing"] += 1
            restore(directory, before)
        overwrite(directory / name, data)
    assert kinds["torn"] == length
    assert kinds["damage"] > 5 * length
    assert kinds["nothing"] > 0


def test_the_last_blocks_may_end_at_any_byte_of_a_recycled_segment(
    recycled: tuple[Path, int, list[tuple[int, str]]],
) -> None:
    """What is behind the end is what was there before: blocks of an older generation."""
    directory, needed, texts = recycled
    after = files(directory)
    name = segment.path_of(directory, LAST).name
    begins = segment.header_of(after[name])
    assert begins is not None
    end = len(texts) * texts[1][0]
    old = bytes(index * 7 % 251 for index in range(SMALL_BYTES))
    for cut in range(OVERHEAD_BYTES, end - begins.position + OVERHEAD_BYTES):
        overwrite(directory / name, after[name][:cut] + old[cut:])
        left = (cut - OVERHEAD_BYTES + begins.position) // texts[1][0]
        with SegmentedLog.open(directory, SMALL_BYTES) as log:
            assert replayed(log, needed)[-1] == texts[left - 1]
            assert log.position == texts[left][0]
            assert put(log, "next") == texts[left][0]
        with SegmentedLog.open(directory, SMALL_BYTES) as log:
            assert replayed(log, needed)[-1] == (texts[left][0], "next")
            assert log.torn is None
        restore(directory, after)


def test_a_flipped_bit_planted_as_torn_is_noticed(
    recycled: tuple[Path, int, list[tuple[int, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plant: a start that does not look for later blocks loses what was acknowledged, and the check above sees it."""
    directory, needed, texts = recycled
    monkeypatch.setattr(segment, "find_block", lambda *_: None)
    file = segment.path_of(directory, LAST)
    data = bytearray(file.read_bytes())
    data[OVERHEAD_BYTES + 50] ^= 1
    file.write_bytes(data)
    with SegmentedLog.open(directory, SMALL_BYTES) as log:
        assert replayed(log, needed) != [each for each in texts if each[0] >= needed]


# --- all of it together


class Model:
    """A log, the list it has to be, and a disk that loses what was not synced."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kept: list[tuple[int, str]] = []
        self.needed = 0
        self.count = 0
        self.log = self.open()

    def open(self) -> SegmentedLog:
        log = SegmentedLog.open(self.directory, SEGMENT_BYTES)
        held = replayed(log, self.needed)
        assert [each for each in held if each[0] >= self.needed] == [
            each for each in self.kept if each[0] >= self.needed
        ]
        assert all(each in self.kept for each in held)
        return log

    def write(self, length: int) -> None:
        self.count += 1
        text = f"{self.count}." * (length // 2 + 1)
        self.kept.append((put(self.log, text), text))

    def checkpoint(self, share: float) -> None:
        """Nothing below a block, or the end, is needed any more; the log is not told yet."""
        positions = [position for position, _ in self.kept] + [self.log.position]
        self.needed = max(self.needed, positions[int(share * (len(positions) - 1))])

    def cut(self, pinned: bool) -> None:
        before = segment.generations(self.directory)
        if pinned:
            with cutting.pinned(self.directory):
                self.log.cut(self.needed)
            assert segment.generations(self.directory) == before
        else:
            self.log.cut(self.needed)
            assert len(segment.generations(self.directory)) <= len(before)

    def read(self, share: float) -> None:
        kept = [each for each in self.kept if each[0] >= self.needed]
        if kept:
            at = int(share * (len(kept) - 1))
            entries, end = self.log.read(kept[at][0])
            assert entries == batch(kept[at][1])
            assert end == (kept[at + 1][0] if at + 1 < len(kept) else self.log.position)

    def reopen(self) -> None:
        self.log.close()
        self.log = self.open()

    def crash_in_write(self, length: int, draw: Any) -> None:
        """Of a write that was never acknowledged any sectors arrive; it counts whole or not at all."""
        before = files(self.directory)
        kept, needed = list(self.kept), self.needed
        self.write(length)
        self.log.close()
        lost = self.kept.pop()
        assert (self.kept, self.needed) == (kept, needed)
        is_whole = True
        for name, after in files(self.directory).items():
            old = before.get(name, b"").ljust(len(after), b"\0")
            sectors = []
            for offset in range(0, len(after), SECTOR):
                was, is_now = (content[offset : offset + SECTOR] for content in (old, after))
                arrived = was == is_now or draw(st.booleans())
                is_whole &= arrived
                sectors.append(is_now if arrived else was)
            (self.directory / name).write_bytes(b"".join(sectors))
        if is_whole:
            self.kept.append(lost)
        self.log = self.open()

    def crash_in_cut(self, draw: Any) -> None:
        """Of the names that were removed or changed, any may be as before; the bytes are those of whatever has the name."""
        before = files(self.directory)
        self.log.cut(self.needed)
        self.log.close()
        for name in sorted(set(before) - set(files(self.directory))):
            if draw(st.booleans()):
                (self.directory / name).write_bytes(before[name])
        for name in sorted(set(files(self.directory)) - set(before)):
            if draw(st.booleans()):
                (self.directory / name).unlink()
        self.log = self.open()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 1500)),
        st.tuples(st.just("write"), st.integers(0, 200)),
        st.tuples(st.just("write"), st.integers(200, 600)),
        st.tuples(st.just("checkpoint"), st.floats(0, 1)),
        st.tuples(st.just("checkpoint"), st.floats(0.8, 1)),
        st.tuples(st.just("cut"), st.sampled_from([False, False, True])),
        st.tuples(st.just("read"), st.floats(0, 1)),
        st.tuples(st.just("reopen")),
        st.tuples(st.just("crash_in_write"), st.integers(0, 1500)),
        st.tuples(st.just("crash_in_cut")),
    ),
    max_size=40,
)


@settings(max_examples=80, deadline=None)
@given(steps, st.data())
def test_a_log_keeps_what_is_needed_through_all_its_life(steps: list[tuple[Any, ...]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        model = Model(Path(name))
        try:
            for do, *arguments in steps:
                if do.startswith("crash"):
                    arguments.append(data.draw)
                getattr(model, do)(*arguments)
            model.reopen()
        finally:
            model.log.close()


def test_the_model_notices_a_cut_that_takes_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plant: one segment more than may go."""
    remove = cutting.remove

    def greedy(directory: Path, generations: list[int], *rest: Any) -> bool:
        return remove(directory, [*generations, generations[-1] + 1], *rest)

    model = Model(tmp_path)
    for _ in range(20):
        model.write(300)
    model.checkpoint(0.5)
    monkeypatch.setattr(cutting, "remove", greedy)
    model.cut(False)
    with pytest.raises((AssertionError, StorageError)):
        model.reopen()
    shutil.rmtree(tmp_path)
