"""Files that lose their names while they are in use: what is written into them then, no start would find."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crdtstore.causal import ReplicaId
from crdtstore.errors import StorageError
from crdtstore.storage import segment
from crdtstore.storage.cutting import SegmentLost
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.protocol import Entry, Slice
from crdtstore.storage.sqlite import FILE_NAME, SqliteState

END = b"\xff"
US = ReplicaId("us-1.0123456789abcdef")
LOST = "was removed or replaced while it was in use"


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(os, "fdatasync", lambda _: None)
        yield


def replace(path: Path) -> None:
    """As who restores a copy does: the same bytes, in another file."""
    shutil.copyfile(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


def move(path: Path) -> None:
    path.rename(path.with_name("moved"))


@pytest.mark.parametrize("lose", [Path.unlink, replace, move])
@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_checkpoint_into_a_store_without_its_name_does_not_count(
    tmp_path: Path, lose: Callable[[Path], None], suffix: str
) -> None:
    with SqliteState.open(tmp_path) as store:
        store.write(Slice(rows=[(b"a", b"1")]))
        store.commit()
        lose(tmp_path / f"{FILE_NAME}{suffix}")
        for _ in range(2):
            store.write(Slice(rows=[(b"b", b"2")]))
            with pytest.raises(StorageError, match=f"{FILE_NAME}{suffix}: {LOST}; nothing of this checkpoint counts"):
                store.commit()
            store.rollback()
        assert store.rows(b"", END) == [(b"a", b"1")]
        assert store.commits == 1


def put(log: SegmentedLog, count: int) -> list[int]:
    """Three fill a segment."""
    positions = [log.write([log.encode([Entry("shop/0", US, b"x" * 560)])]) for _ in range(count)]
    log._join_ahead()
    return positions


@pytest.mark.parametrize("lose", [Path.unlink, replace, move])
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "opened"])
@pytest.mark.parametrize("generation", [2, 3, 4], ids=["first needed", "between", "current"])
def test_a_cut_sees_that_a_segment_is_lost(
    tmp_path: Path, lose: Callable[[Path], None], is_new: bool, generation: int
) -> None:
    log = SegmentedLog.open(tmp_path, 2048)
    list(log.replay())
    positions = put(log, 11)
    if not is_new:
        log.close()
        log = SegmentedLog.open(tmp_path, 2048)
        list(log.replay())
    with log:
        path = segment.path_of(tmp_path, generation)
        lose(path)
        with pytest.raises(SegmentLost, match=f"{path.name}: {LOST}"):
            log.cut(positions[4])
        assert segment.path_of(tmp_path, 1).exists(), "nothing goes"
        with pytest.raises(StorageError, match=f"{path.name}: {LOST}; nothing was written now") as failed:
            put(log, 1)
        assert failed.value.code == "storage-failed"


@pytest.mark.parametrize("generation", [1, 2])
def test_a_switch_sees_that_a_segment_is_lost(tmp_path: Path, generation: int) -> None:
    with SegmentedLog.open(tmp_path, 2048) as log:
        list(log.replay())
        put(log, 5)
        segment.path_of(tmp_path, generation).unlink()
        put(log, 1)  # into the segment that is in use
        for _ in range(2):
            with pytest.raises(StorageError, match=f"0{generation}.log: {LOST}"):
                put(log, 1)
        assert len(segment.generations(tmp_path)) == 2, "one is gone, one is prepared"


def test_what_is_not_needed_may_be_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut that fails leaves any of it."""
    with SegmentedLog.open(tmp_path, 2048) as log:
        list(log.replay())
        positions = put(log, 11)
        with monkeypatch.context() as patch:
            patch.setattr(segment, "sync_directory", lambda _: os.stat(tmp_path / "nothing of this name"))
            with pytest.raises(StorageError, match="No such file"):
                log.cut(positions[9])
        positions += put(log, 10)
        log.cut(positions[19])
        assert log.held == (positions[18], 1)
    with SegmentedLog.open(tmp_path, 2048) as log:
        assert [position for position, _ in log.replay(positions[19])][-1] == positions[-1]


def test_a_segment_that_is_used_again_is_known_by_its_new_name(tmp_path: Path) -> None:
    with SegmentedLog.open(tmp_path, 2048) as log:
        list(log.replay())
        for _ in range(12):
            log.cut(put(log, 4)[-1])
        assert len(segment.generations(tmp_path)) <= 4
