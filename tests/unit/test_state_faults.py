"""What disks and kills do to the state store: nothing false is ever read.

A flipped bit in the file is named, or changes nothing, or makes rows vanish: that no read can know, only a check of the whole file, or the
state digest. In the write-ahead log it undoes the last commit as a whole, as a power cut in it would have; the commit log is what notices
that. How often a row vanishes is counted here, so that a change that makes it worse is seen.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from crdtstore.errors import StorageError
from crdtstore.storage import sqlite as module
from crdtstore.storage.protocol import Row, Slice
from crdtstore.storage.rows import CHECK_BYTES, LEAVES, row_path, seal
from crdtstore.storage.sqlite import FILE_NAME, SqliteState
from crdtstore.storage.sqlite_file import PAGE_BYTES

END = b"\xff"
FLIPS = 2_000
SIZES = [5, 20, 20, 50, 50, 200, 6_000]


def make_rows(random: Random, count: int = 400) -> list[Row]:
    keys = sorted({f"key-{random.randrange(10**6):06}" for _ in range(count)})
    return [(row_path(1, LEAVES, ["c:counter", key]), random.randbytes(random.choice(SIZES))) for key in keys]


def is_refused(directory: Path) -> bool:
    """Whether a check of the whole file finds fault with it."""
    try:
        with SqliteState.open(directory) as store, store.pin() as pin:
            pin.check()
    except StorageError as error:
        return FILE_NAME in error.detail
    return False


class Image:
    """The files of a store as a disk holds them, what is in it, and what was in it before the last commit."""

    def __init__(self, directory: Path, target: str, rows: list[Row], before: list[Row]) -> None:
        self.files = {file.name: file.read_bytes() for file in directory.iterdir() if file.name.startswith(FILE_NAME)}
        self.files.pop(f"{FILE_NAME}-shm", None)
        self.target, self.rows, self.before = target, rows, before

    @property
    def size(self) -> int:
        return len(self.files[self.target])

    def outcome(self, directory: Path, data: bytes) -> str:
        """What opening and reading everything gives with the target replaced."""
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        for name, content in self.files.items():
            (directory / name).write_bytes(data if name == self.target else content)
        try:
            with SqliteState.open(directory) as store:
                found = store.rows(b"", END)
        except StorageError as error:
            is_named = FILE_NAME in error.detail and error.code == "storage-failed"
            return "refused" if is_named else f"not named: {error}"
        if found == self.rows:
            return "the same"
        if found == self.before:
            return "as before the last commit"
        if not set(found) < set(self.rows):
            return "something false"
        return "rows vanished, and a check sees it" if is_refused(directory) else "rows vanished"

    def flips(self, directory: Path, count: int = FLIPS) -> Counter[str]:
        random, found = Random(4), Counter[str]()
        for at in random.sample(range(self.size), min(count, self.size)):
            data = bytearray(self.files[self.target])
            data[at] ^= 1 << random.randrange(8)
            found[self.outcome(directory, bytes(data))] += 1
        return found


def image_of_file(directory: Path) -> Image:
    rows = make_rows(Random(1))
    with SqliteState.open(directory) as store:
        store.write(Slice(rows=rows))
        store.commit()
        store.write(Slice(gone=[path for path, _ in rows[::7]]))
        store.commit()
    left = [row for at, row in enumerate(rows) if at % 7]
    return Image(directory, FILE_NAME, left, rows)


def image_of_log(directory: Path) -> Image:
    before = make_rows(Random(1))
    rows = [(path, data + b"!") for path, data in before]
    store = SqliteState.open(directory)
    store.write(Slice(rows=before))
    store.commit()
    store.write(Slice(rows=rows))
    store._move = lambda: None  # type: ignore[method-assign]  # a power cut right after the commit
    store.commit()
    image = Image(directory, f"{FILE_NAME}-wal", rows, before)
    store.close()
    return image


@pytest.mark.slow
def test_a_flipped_bit_in_the_file_never_gives_a_false_row(tmp_path: Path) -> None:
    image = image_of_file(tmp_path / "made")
    assert image.outcome(tmp_path / "work", image.files[FILE_NAME]) == "the same"
    found = image.flips(tmp_path / "work")
    assert set(found) <= {"refused", "the same", "rows vanished, and a check sees it"}
    assert found["refused"] > FLIPS / 2
    assert 0 < found["rows vanished, and a check sees it"] < FLIPS / 50, "these no read notices"
    shutil.rmtree(tmp_path / "work")
    shutil.copytree(tmp_path / "made", tmp_path / "work")
    assert not is_refused(tmp_path / "work")


def test_a_schema_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    """What SQLite quotes of it in its message is no UTF-8 then."""
    image = image_of_file(tmp_path / "made")
    data = image.files[FILE_NAME]
    start = data.index(b"CREATE TABLE state")
    found = Counter[str]()
    for at in range(start, PAGE_BYTES):
        bad = bytearray(data)
        bad[at] |= 0x80
        found[image.outcome(tmp_path / "work", bytes(bad))] += 1
    assert set(found) <= {"refused", "the same"}
    assert found["refused"] > 50


@pytest.mark.slow
def test_a_flipped_bit_in_the_log_undoes_the_last_commit_at_most(tmp_path: Path) -> None:
    image = image_of_log(tmp_path / "made")
    assert image.outcome(tmp_path / "work", image.files[image.target]) == "the same"
    found = image.flips(tmp_path / "work")
    assert set(found) <= {"the same", "as before the last commit"}


@pytest.mark.slow
@pytest.mark.parametrize("make", [image_of_file, image_of_log])
def test_a_file_cut_short_never_gives_a_false_row(tmp_path: Path, make: Callable[[Path], Image]) -> None:
    image = make(tmp_path / "made")
    whole = image.files[image.target]
    step = PAGE_BYTES if image.target == FILE_NAME else 512
    found = Counter(image.outcome(tmp_path / "work", whole[:size]) for size in range(0, len(whole), step))
    if image.target == FILE_NAME:
        assert set(found) == {"refused"}
    else:
        assert set(found) == {"as before the last commit"}


def test_without_the_checksum_false_rows_would_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the check above blind, this would not be seen either."""
    image = image_of_file(tmp_path / "made")
    monkeypatch.setattr(module, "unseal", lambda rows, _: [(path, data[:-CHECK_BYTES]) for path, data in rows])
    assert image.flips(tmp_path / "work", 200)["something false"] > 10


def test_rows_out_of_order_are_noticed(tmp_path: Path) -> None:
    rows = [(b"%d" % at, b"x") for at in range(3)]
    with SqliteState.open(tmp_path) as store:
        store.write(Slice(rows=rows))
        store.commit()
    data = (tmp_path / FILE_NAME).read_bytes()
    sealed = [path + data for path, data in seal(rows)]
    first, second = data.index(sealed[0]), data.index(sealed[1])
    swapped = bytearray(data)
    swapped[first : first + len(sealed[0])], swapped[second : second + len(sealed[1])] = sealed[1], sealed[0]
    (tmp_path / FILE_NAME).write_bytes(swapped)
    with SqliteState.open(tmp_path) as store, pytest.raises(StorageError, match="out of order"):
        store.rows(b"", END)


# --- kills

CHECKPOINT_ROWS = 1_500
CHILD = f"""
import sys
from crdtstore.storage.protocol import Slice
from crdtstore.storage.sqlite import SqliteState

with SqliteState.open(sys.argv[1]) as store:
    [number] = [int(data) for _, data in store.rows(b"n", b"o")] or [0]
    while True:
        number += 1
        text = b"%d" % number
        rows = [(b"k%04d" % at, text * 20) for at in range(number % 2, {CHECKPOINT_ROWS}, 2)]
        store.write(Slice(ranges=[(b"k", b"l")]))
        for at in range(0, len(rows), 300):
            store.write(Slice(rows=rows[at : at + 300]))
        store.write(Slice(rows=[(b"n", text)]))
        store.commit()
        print(number, flush=True)
"""


def start(directory: Path, code: str = CHILD, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, str(directory)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})


def committed(child: subprocess.Popen[str], least: int = 0) -> int:
    """What a child that is dead, or about to be killed, has said last; waits until it has said as much as ``least`` lines."""
    assert child.stdout is not None
    last = 0
    for _ in range(least):
        last = int(child.stdout.readline())
    return last


def check_whole(directory: Path) -> int:
    """The number of the checkpoint in a store, which is there as it was written."""
    with SqliteState.open(directory) as store:
        rows = dict(store.rows(b"", END))
    number = int(rows.pop(b"n", b"0"))
    text = b"%d" % number
    assert rows == {b"k%04d" % at: text * 20 for at in range(number % 2, CHECKPOINT_ROWS, 2) if number}
    return number


@pytest.mark.slow
def test_a_killed_process_leaves_its_last_checkpoint(tmp_path: Path) -> None:
    random, last = Random(7), 0
    for _ in range(25):
        with start(tmp_path) as child:
            said = committed(child, random.randrange(1, 4))
            time.sleep(random.random() * 0.02)  # a place within a checkpoint, whichever
            child.kill()
            assert child.stdout is not None
            lines = [line for line in child.stdout.read().split("\n")[:-1] if line]
            said = int(lines[-1]) if lines else said
        found = check_whole(tmp_path)
        assert found in (said, said + 1), "the one that was said, or one that was committed and not yet said"
        assert found > last
        last = found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "expected"),
    [("checkpoint-write:4", 0), ("checkpoint-commit-before:3", 2), ("checkpoint-commit-after:3", 3)],
)
def test_at_each_place_it_is_the_one_before_or_the_one_after(tmp_path: Path, place: str, expected: int) -> None:
    with start(tmp_path, CRDTSTORE_CRASH_AT=place) as child:
        assert child.wait(60) == -signal.SIGKILL
    assert check_whole(tmp_path) == expected


@pytest.mark.slow
def test_half_a_checkpoint_would_be_seen(tmp_path: Path) -> None:
    part = "rows=rows[at : at + 300]))"
    assert part in CHILD
    with start(
        tmp_path, CHILD.replace(part, f"{part}; store.commit()"), CRDTSTORE_CRASH_AT="checkpoint-write:4"
    ) as child:
        assert child.wait(60) == -signal.SIGKILL
    with pytest.raises(AssertionError):
        check_whole(tmp_path)
