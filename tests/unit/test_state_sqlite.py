"""The state store in a file: which files it takes, and what becomes of one that the disk has changed."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from crdtstore.errors import StorageError
from crdtstore.storage.protocol import Row, Slice
from crdtstore.storage.sqlite import FILE_NAME, SqlitePin, SqliteState

END = b"\xff"


def filled(directory: Path, count: int = 3) -> list[tuple[bytes, bytes]]:
    rows = [(b"%04d" % at, b"data %d" % at) for at in range(count)]
    with SqliteState.open(directory) as store:
        store.write(Slice(rows=rows))
        store.commit()
    return rows


def test_committed_rows_are_there_at_the_next_start(tmp_path: Path) -> None:
    rows = filled(tmp_path / "made" / "here")
    with SqliteState.open(tmp_path / "made" / "here") as store:
        assert store.rows(b"", END) == rows
        store.write(Slice(gone=[b"0000"]))
    with SqliteState.open(tmp_path / "made" / "here") as store:
        assert store.rows(b"", END) == rows
        assert store.file_bytes > 0


def test_an_open_store_is_read_as_it_was_committed(tmp_path: Path) -> None:
    """As a power cut would leave it: nothing was closed."""
    store = SqliteState.open(tmp_path)
    store.write(Slice(rows=[(b"a", b"1")]))
    store.commit()
    store.write(Slice(rows=[(b"b", b"2")]))
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tmp_path.glob(f"{FILE_NAME}*"):
        if not file.name.endswith("-shm"):
            (copy / file.name).write_bytes(file.read_bytes())
    with SqliteState.open(copy) as other:
        assert other.rows(b"", END) == [(b"a", b"1")]
    store.close()


def test_what_a_commit_leaves_in_the_log_is_moved_later(tmp_path: Path) -> None:
    with SqliteState.open(tmp_path) as store:
        pin = store.pin()
        store.write(Slice(rows=[(b"a", b"1")]))
        store.commit()
        assert "wait for somebody who reads" in str(store.unmoved)
        assert pin.rows(b"", END) == []
        pin.close()
        store.write(Slice(rows=[(b"b", b"1")]))
        store.commit()
        assert store.unmoved is None


def test_a_store_that_is_not_finished_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / f"{FILE_NAME}.new").write_bytes(b"half a file")
    with SqliteState.open(tmp_path) as store:
        assert store.rows(b"", END) == []
    assert not (tmp_path / f"{FILE_NAME}.new").exists()


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", ".new"])
def test_a_link_is_refused(tmp_path: Path, suffix: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    filled(elsewhere)
    before = (elsewhere / FILE_NAME).read_bytes()
    (tmp_path / f"{FILE_NAME}{suffix}").symlink_to(elsewhere / FILE_NAME)
    with pytest.raises(StorageError, match="not a regular file"):
        SqliteState.open(tmp_path)
    assert (elsewhere / FILE_NAME).read_bytes() == before


def test_a_directory_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(StorageError, match="not a regular file"):
        SqliteState.open(tmp_path)


@pytest.mark.parametrize(
    ("pragma", "why"),
    [("application_id = 7", "another application"), ("user_version = 2", "format 2, this program reads format 1")],
)
def test_the_database_of_another_is_refused(tmp_path: Path, pragma: str, why: str) -> None:
    filled(tmp_path)
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute(f"PRAGMA {pragma}")
    connection.close()
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(StorageError, match=why) as error:
        SqliteState.open(tmp_path)
    assert str(tmp_path / FILE_NAME) in error.value.detail
    assert (tmp_path / FILE_NAME).read_bytes() == before


@pytest.mark.parametrize("data", [b"", b"something else", b"SQLite format 3\0"])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(data)
    with pytest.raises(StorageError, match="does not begin as a SQLite file does"):
        SqliteState.open(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == data


def test_a_log_without_its_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"{FILE_NAME}-wal").write_bytes(b"x")
    with pytest.raises(StorageError, match="it is not there, but"):
        SqliteState.open(tmp_path)


def test_a_file_without_a_write_ahead_log_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    with pytest.raises(StorageError, match="not set to use a write-ahead log"):
        SqliteState.open(tmp_path)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file"):
        SqliteState.open(tmp_path / "file" / "below")


def test_the_loop_reads_whole_commits_beside_the_writer(tmp_path: Path) -> None:
    """Also while the write-ahead log is emptied; and a pin stays at its own."""
    paths, commits = [b"%04d" % at for at in range(700)], 15
    failures: list[BaseException] = []
    with SqliteState.open(tmp_path) as store:

        def work() -> None:
            try:
                for number in range(1, commits + 1):
                    for at in range(0, len(paths), 300):
                        store.write(Slice(rows=[(path, b"%d" % number) for path in paths[at : at + 300]]))
                    store.commit()
            except BaseException as error:
                failures.append(error)

        writer, seen = Thread(target=work), [0]
        pins: list[tuple[Any, list[Row]]] = []
        writer.start()
        while writer.is_alive():
            rows = store.rows(b"", END)
            assert len({data for _, data in rows}) <= 1
            assert len(rows) in (0, len(paths))
            seen.append(int(rows[0][1]) if rows else 0)
            assert seen[-1] >= seen[-2]
            if len(pins) < 3 and seen[-1] > seen[-2]:
                pin = store.pin()
                pins.append((pin, pin.rows(b"", END)))
        writer.join()
        assert not failures
        assert store.commits == commits
        assert store.rows(b"", END) == [(path, b"%d" % commits) for path in paths]
        for pin, before in pins:
            assert pin.rows(b"", END) == before
            pin.close()
        store.commit()
        assert store.unmoved is None
        assert len(set(seen)) > 2, "it was done before anybody read"


def test_a_full_disk_is_told_apart_and_passes(tmp_path: Path) -> None:
    rows = [(b"%04d" % at, bytes(100)) for at in range(1_000)]
    with SqliteState.open(tmp_path) as store:
        store.write(Slice(rows=rows[:10]))
        store.commit()
        store._writer.execute("PRAGMA max_page_count = 3")
        with pytest.raises(StorageError, match="full") as error:
            store.write(Slice(rows=rows))
        assert error.value.code == "storage-full"
        assert FILE_NAME in error.value.detail
        store.rollback()
        assert store.rows(b"", END) == rows[:10]
        store._writer.execute("PRAGMA max_page_count = 100000")
        assert store.write(Slice(rows=rows)) == (990, 99_000)
        store.commit()
        assert store.rows(b"", END) == rows


def test_after_a_failed_write_only_rollback_goes_on(tmp_path: Path) -> None:
    with SqliteState.open(tmp_path) as store:
        store._writer.execute("PRAGMA max_page_count = 3")
        with pytest.raises(StorageError):
            store.write(Slice(rows=[(b"%04d" % at, bytes(100)) for at in range(1_000)]))
        for call in (lambda: store.write(Slice(gone=[b"a"])), store.commit):
            with pytest.raises(AssertionError, match="rollback is to follow"):
                call()
        store.rollback()
        store.write(Slice(rows=[(b"a", b"1")]))
        store.commit()
        assert store.rows(b"", END) == [(b"a", b"1")]


def test_a_failed_commit_gives_its_room_back(tmp_path: Path) -> None:
    rows = [(b"%04d" % at, bytes(1_000)) for at in range(1_000)]
    log = tmp_path / f"{FILE_NAME}-wal"
    with SqliteState.open(tmp_path) as store:
        store.write(Slice(rows=rows))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
        try:
            with pytest.raises(StorageError, match="IOERR_WRITE"):
                store.commit()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert log.stat().st_size > 200_000
        store.rollback()
        assert log.stat().st_size == 0
        assert store.rows(b"", END) == []
        store.write(Slice(rows=rows))
        store.commit()
        assert store.rows(b"", END) == rows


LOOK = """
import sys
from crdtstore.storage.sqlite import SqlitePin

print(len(SqlitePin.open(sys.argv[1]).rows(b"", b"z")))
"""


def test_another_process_may_look_meanwhile(tmp_path: Path) -> None:
    assert SqlitePin.open(tmp_path) is None
    assert not list(tmp_path.iterdir())
    with SqliteState.open(tmp_path) as store:
        store.write(Slice(rows=[(b"a", b"1"), (b"b", b"2")]))
        store.commit()
        store.write(Slice(rows=[(b"c", b"3")]))
        command = [sys.executable, "-c", LOOK, str(tmp_path)]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "2\n"
        store.commit()
        pin = SqlitePin.open(tmp_path)
        assert pin is not None
        with pin:
            assert [path for path, _ in pin.rows(b"", END)] == [b"a", b"b", b"c"]


def test_a_check_of_the_file_finds_a_page_that_is_not_there(tmp_path: Path) -> None:
    filled(tmp_path, 2_000)
    store = SqliteState.open(tmp_path)
    with store.pin() as pin:
        pin.check()
    root = store._reader.execute("SELECT rootpage FROM sqlite_schema").fetchone()[0]
    store.close()
    data = bytearray((tmp_path / FILE_NAME).read_bytes())
    cells = (root - 1) * 4096 + 3
    data[cells + 1] -= 1  # the root says that it has one child less
    (tmp_path / FILE_NAME).write_bytes(data)
    with SqliteState.open(tmp_path) as store, store.pin() as pin:
        assert 0 < len(store.rows(b"", END)) < 2_000
        with pytest.raises(StorageError, match="damaged"):
            pin.check()
        pin._connection.close()
        with pytest.raises(StorageError, match="closed"):
            pin.check()


def test_a_file_of_another_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"something else")
    with pytest.raises(StorageError, match="does not begin"):
        SqlitePin.open(tmp_path)


def test_every_call_names_the_file_when_it_fails(tmp_path: Path) -> None:
    store = SqliteState.open(tmp_path)
    pin = store.pin()
    store.write(Slice(rows=[(b"a", b"1")]))
    for connection in (store._reader, store._writer, pin._connection):
        connection.close()
    for call in (
        lambda: store.rows(b"", END),
        lambda: pin.rows(b"", END),
        store.commit,
        store.rollback,
        lambda: store.write(Slice(gone=[b"a"])),
        store.rollback,
    ):
        with pytest.raises(StorageError) as error:
            call()
        assert str(tmp_path / FILE_NAME) in error.value.detail
        assert error.value.code == "storage-failed"
    (tmp_path / FILE_NAME).unlink()
    with pytest.raises(StorageError, match=FILE_NAME):
        store.pin()


def test_a_commit_holds_although_it_cannot_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def __init__(self, connection: sqlite3.Connection) -> None:
            self.connection = connection

        def execute(self, sql: str, *rest: object) -> sqlite3.Cursor:
            if "wal_checkpoint" in sql:
                raise sqlite3.OperationalError("disk I/O error")
            return self.connection.execute(sql, *rest)  # type: ignore[arg-type]

    with SqliteState.open(tmp_path) as store:
        real = store._writer
        monkeypatch.setattr(store, "_writer", Failing(real))
        store.write(Slice(rows=[(b"a", b"1")]))
        store.commit()
        assert "disk I/O error" in str(store.unmoved)
        monkeypatch.setattr(store, "_writer", real)
    with SqliteState.open(tmp_path) as store:
        assert store.rows(b"", END) == [(b"a", b"1")]
