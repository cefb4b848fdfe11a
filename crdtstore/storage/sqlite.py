"""The state store of a node: rows in one SQLite file.

The question: how is a checkpoint written beside a busy event loop? By one thread that makes few, big C calls: statements of hundreds of
rows, since each call may wait for the interpreter as long as the loop is busy. Readers see what was committed and never wait (write-ahead
log); what is committed is moved into the file right after the commit, in the same thread, so no commit has to do it for many before.

SQLite finds damage where its own structure breaks; the checksum of every row finds what was changed in a row, and rows that come out of
order are noticed. What this store cannot notice is a row that is not found any more: the state digest does.

Source: DESIGN.md 5. https://www.sqlite.org/wal.html, https://www.sqlite.org/fileformat2.html
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain, islice
from operator import ge
from pathlib import Path
from typing import Self, TypeVar

from crdtstore.errors import StorageError
from crdtstore.storage import segment
from crdtstore.storage.crashpoints import reach
from crdtstore.storage.protocol import Row, Slice
from crdtstore.storage.rows import CHECK_BYTES, seal, unseal

__all__ = ["FILE_NAME", "FORMAT", "SqliteState"]

FILE_NAME = "state.sqlite"
FORMAT = 1
"""What ``user_version`` of a file must be."""

_APPLICATION = int.from_bytes(b"CRDT", "big")
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_USER_VERSION_AT, _APPLICATION_AT = 60, 68

_PAGE_BYTES = 4096
_CACHE_KIB = 16 << 10
"""Per connection; of the file, the kernel's page cache holds what it can besides."""
_WAL_KEPT_BYTES = 32 << 20
"""After a greater transaction the write-ahead log is cut to this."""
_STATEMENT_ROWS = 300
"""As many as a slice has mostly: a second statement for the rest would wait for the interpreter once more."""
_WAIT_S = 10.0
"""Nobody else writes; but the first reader after a crash waits until another has looked through the write-ahead log."""
_WAIT_FOR_READERS_MS = 50
"""Reads of the event loop take microseconds; a pin stays longer."""

_ROWS = "SELECT path, data FROM state WHERE path >= ? AND path < ? ORDER BY path LIMIT ?"
_COUNT = "SELECT count(*), coalesce(sum(length(data)), 0) FROM state WHERE "
_DELETE = "DELETE FROM state WHERE "
_PUT = "INSERT OR REPLACE INTO state VALUES "
_BETWEEN = "path >= ? AND path < ?"

_Item = TypeVar("_Item")


class SqliteState:
    """A ``StateStore`` in a file. ``write``, ``commit`` and ``rollback`` belong to one thread, ``rows`` to another; pins to anybody.

    ``commits`` counts since the start; ``unmoved`` says in words why the last commit is still in the write-ahead log only, if it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.commits = 0
        self.unmoved: str | None = None
        self._is_open = False
        """Whether a transaction is."""
        self._reader = _connect(path)
        self._writer = _connect(path)
        self._writer.execute(f"PRAGMA busy_timeout = {_WAIT_FOR_READERS_MS}")

    @classmethod
    def open(cls, directory: str | Path) -> Self:
        """Take the store in this directory, which is made if it is not there.

        Raises:  StorageError naming the file when it is not one of this store, or cannot be used; nothing is changed then.
        """
        path = Path(directory) / FILE_NAME
        with segment.naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _refuse_foreign(path)
            if not path.exists():
                _create(path)
        store = cls(path)
        store._move()
        return store

    # --- reading

    def rows(self, start: bytes, end: bytes, limit: int = -1) -> list[Row]:
        """Rows from ``start`` up to, without, ``end``, ascending, at most so many (-1: all); only what was committed.

        Raises:  StorageError naming file and row when one cannot be read, or is not what was written.
        """
        return _read(self._reader, self.path, start, end, limit)

    def pin(self) -> _Pin:
        """What is committed now, whatever is committed later.

        Cost:    a connection; and while it is held, what is committed stays in the write-ahead log.
        """
        return _Pin(self.path)

    @property
    def file_bytes(self) -> int:
        """The size of the file and of its write-ahead log."""
        with segment.naming(self.path):
            return sum(file.stat().st_size for file in (self.path, _beside(self.path, "-wal")) if file.exists())

    # --- writing

    def write(self, part: Slice) -> tuple[int, int]:
        """Write into the transaction that the first call opens; return by how much the number of rows and the bytes of data change.

        Cost:    two statements for each ``_STATEMENT_ROWS`` rows, all in C; a checksum a row.
        Raises:  StorageError; then ``rollback`` is to follow.
        """
        rows = sorted(dict(part.rows).items())
        gone = sorted(set(part.gone))
        count = size = 0
        try:
            if not self._is_open:
                self._writer.execute("BEGIN IMMEDIATE")
                self._is_open = True
            removals: list[tuple[str, Sequence[bytes]]] = [(_BETWEEN, bounds) for bounds in part.ranges]
            removals += [(_among(len(paths)), paths) for paths in _pieces(gone)]
            for where, parameters in removals:
                before = self._measure(where, parameters)
                self._writer.execute(_DELETE + where, parameters)
                count, size = count - before[0], size - before[1]
            for some in _pieces(rows):
                before = self._measure(_among(len(some)), [path for path, _ in some])
                self._writer.execute(_putting(len(some)), list(chain.from_iterable(seal(some))))
                count, size = count + len(some) - before[0], size + sum([len(data) for _, data in some]) - before[1]
            reach("checkpoint-write")
        except (sqlite3.Error, MemoryError) as error:
            raise _storage_error(self.path, error) from error
        return count, size

    def _measure(self, where: str, parameters: Sequence[bytes]) -> tuple[int, int]:
        """How many rows there are and how many bytes of data they hold."""
        count, size = self._writer.execute(_COUNT + where, parameters).fetchone()
        return count, size - count * CHECK_BYTES

    def commit(self) -> None:
        """Make what was written visible and durable, all of it; then move it from the write-ahead log into the file.

        Cost:    one sync for the commit, two to move it.
        Raises:  StorageError: nothing of it is visible; should its sync alone have failed, the next start may find all of it.
        """
        try:
            if self._is_open:
                reach("checkpoint-commit-before")
                self._writer.execute("COMMIT")
                reach("checkpoint-commit-after")
                self._is_open = False
                self.commits += 1
        except (sqlite3.Error, MemoryError) as error:
            raise _storage_error(self.path, error) from error
        self._move()

    def _move(self) -> None:
        """Move what is committed from the write-ahead log into the file, and empty the log.

        It is safe already: that it cannot be moved is not the commit's failure, the next one tries again. An empty log cannot rot: were
        a page of it not valid any more, SQLite would take all from there on for torn, and older pages for newer than those in the file.
        """
        try:
            is_busy, in_log, moved = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self.unmoved = f"{in_log - moved} of {in_log} pages wait for somebody who reads" if is_busy else None
        except (sqlite3.Error, MemoryError) as error:
            self.unmoved = _storage_error(self.path, error).detail

    def rollback(self) -> None:
        """Forget what was written since the last commit."""
        self._is_open = False
        try:
            if self._writer.in_transaction:  # an error may have ended it
                self._writer.execute("ROLLBACK")
        except (sqlite3.Error, MemoryError) as error:
            raise _storage_error(self.path, error) from error

    def close(self) -> None:
        """Release the file; what was not committed is forgotten."""
        try:
            self._reader.close()
            self._writer.close()
        except sqlite3.Error as error:
            raise _storage_error(self.path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Pin:
    """The rows at one instant: a read transaction of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = _connect(path)
        try:
            self._connection.execute("BEGIN")
            self._connection.execute("SELECT path FROM state LIMIT 1").fetchall()  # only reading begins it
        except (sqlite3.Error, MemoryError) as error:
            self._connection.close()
            raise _storage_error(path, error) from error

    def rows(self, start: bytes, end: bytes, limit: int = -1) -> list[Row]:
        return _read(self._connection, self._path, start, end, limit)

    def close(self) -> None:
        self._connection.close()


# --- statements


@cache
def _among(count: int) -> str:
    return f"path IN ({','.join('?' * count)})"


@cache
def _putting(count: int) -> str:
    return _PUT + ",".join(["(?,?)"] * count)


def _pieces(items: list[_Item]) -> Iterator[list[_Item]]:
    for at in range(0, len(items), _STATEMENT_ROWS):
        yield items[at : at + _STATEMENT_ROWS]


def _read(connection: sqlite3.Connection, path: Path, start: bytes, end: bytes, limit: int) -> list[Row]:
    try:
        found = connection.execute(_ROWS, (start, end, limit)).fetchall()
    except (sqlite3.Error, MemoryError) as error:
        raise _storage_error(path, error) from error
    rows = unseal(found, str(path))
    if len(rows) > 1:
        paths = [row[0] for row in rows]
        if any(map(ge, paths, islice(paths, 1, None))):
            raise _damage(path, "its rows come out of order")
    return rows


# --- files


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _refuse_foreign(path: Path) -> None:
    """Only a file that this store made is opened: SQLite itself would write to any database."""
    for file in (path, _beside(path, "-wal"), _beside(path, "-shm"), _beside(path, ".new")):
        if file.is_symlink() or (file.exists() and not stat.S_ISREG(file.stat().st_mode)):
            raise StorageError(f"{file}: not a regular file, so it is not opened; nothing was changed", file=str(file))
    if not path.exists():
        if _beside(path, "-wal").exists():
            raise _damage(path, f"it is not there, but {path.name}-wal is")
        return
    with path.open("rb") as opened:
        header = opened.read(_HEADER_BYTES)
    if not header.startswith(_MAGIC) or len(header) < _HEADER_BYTES:
        raise _damage(path, "it does not begin as a SQLite file does")
    application = int.from_bytes(header[_APPLICATION_AT : _APPLICATION_AT + 4], "big")
    if application != _APPLICATION:
        raise StorageError(
            f"{path}: a database of another application ({application:#x}, not {_APPLICATION:#x}); nothing was changed",
            file=str(path),
        )
    version = int.from_bytes(header[_USER_VERSION_AT : _USER_VERSION_AT + 4], "big")
    if version != FORMAT:
        raise StorageError(
            f"{path}: format {version}, this program reads format {FORMAT}; nothing was changed", file=str(path)
        )


def _create(path: Path) -> None:
    """A store without rows that is on disk whole, or not there under its name: then an empty file is damage."""
    unfinished = _beside(path, ".new")
    for leftover in (
        unfinished,
        _beside(unfinished, "-journal"),
        _beside(unfinished, "-wal"),
        _beside(unfinished, "-shm"),
    ):
        leftover.unlink(missing_ok=True)
    strict = ", STRICT" if sqlite3.sqlite_version_info >= (3, 37) else ""
    try:
        connection = sqlite3.connect(unfinished, isolation_level=None)
        try:
            for statement in (
                f"PRAGMA page_size = {_PAGE_BYTES}",
                "PRAGMA auto_vacuum = NONE",
                "PRAGMA synchronous = FULL",
                f"PRAGMA application_id = {_APPLICATION}",
                f"PRAGMA user_version = {FORMAT}",
                f"CREATE TABLE state(path BLOB PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID{strict}",
                "PRAGMA journal_mode = WAL",
            ):
                connection.execute(statement).fetchall()
        finally:
            connection.close()
    except (sqlite3.Error, MemoryError) as error:
        raise _storage_error(path, error) from error
    fd = os.open(unfinished, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    unfinished.replace(path)
    segment.sync_directory(path.parent)


def _connect(path: Path) -> sqlite3.Connection:
    """A connection; several may be used at a time, each by one thread at a time."""
    connection = None
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=_WAIT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.text_factory = bytes
        for statement in (
            "PRAGMA synchronous = FULL",
            f"PRAGMA cache_size = -{_CACHE_KIB}",
            "PRAGMA mmap_size = 0",  # through it a disk that fails would end the process
            "PRAGMA wal_autocheckpoint = 0",
            f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}",
            "PRAGMA cell_size_check = ON",
            "PRAGMA trusted_schema = OFF",
        ):
            connection.execute(statement).fetchall()
        [[mode]] = connection.execute("PRAGMA journal_mode").fetchall()
        if mode != b"wal":
            raise _damage(path, "it is not set to use a write-ahead log")
    except (sqlite3.Error, MemoryError) as error:
        if connection is not None:
            connection.close()
        raise _storage_error(path, error) from error
    return connection


# --- errors


def _damage(path: Path, why: str) -> StorageError:
    return StorageError(
        f"{path}: damaged: {why}; nothing was changed. Restore the file from a backup, or rejoin with an empty directory",
        file=str(path),
    )


def _storage_error(path: Path, error: BaseException) -> StorageError:
    code = getattr(error, "sqlite_errorcode", None)
    is_full = code is not None and (code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return StorageError(
        f"{path}: {error} ({name})", code="storage-full" if is_full else "storage-failed", file=str(path)
    )
