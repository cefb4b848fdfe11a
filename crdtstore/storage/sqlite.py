"""The state store of a node: rows in one SQLite file.

The question: how is a checkpoint written beside a busy event loop? By one thread that makes few, big C calls: statements of hundreds of
rows, since each call may wait for the interpreter as long as the loop is busy. Readers see what was committed and never wait (write-ahead
log); what is committed is moved into the file right after the commit, in the same thread, so no commit has to do it for many before.

SQLite finds damage where its own structure breaks; the checksum of every row finds what was changed in a row, and rows that come out of
order are noticed. What a read cannot notice is a row that is not found any more: ``SqlitePin.check`` does, and so does the state digest.

Source: DESIGN.md 5. https://www.sqlite.org/wal.html, https://www.sqlite.org/fileformat2.html
"""

from __future__ import annotations

import os
import sqlite3
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
from crdtstore.storage.sqlite_file import (
    FILE_NAME,
    FORMAT,
    SQLITE_ERRORS,
    WAIT_MS,
    beside,
    connect,
    create,
    damage,
    refuse_foreign,
    storage_error,
)

__all__ = ["FILE_NAME", "FORMAT", "SqlitePin", "SqliteState", "check_file", "read_rows"]

_STATEMENT_ROWS = 300
"""As many as a slice has mostly: a second statement for the rest would wait for the interpreter once more."""
_PIECE_BYTES = 1 << 23
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
        self._has_failed = False
        """Whether something of it could not be written: SQLite may have ended it by itself."""
        self._reader = connect(path)
        try:
            self._writer = connect(path)
            with segment.naming(path):
                self._files = {file: segment.identity_of(file) for file in (path, beside(path, "-wal"))}
                """Which they are: a name may be removed, or given to another file, while this writes into the one that had it."""
        except BaseException:
            self._reader.close()
            raise

    @classmethod
    def open(cls, directory: str | Path) -> Self:
        """Take the store in this directory, which is made if it is not there.

        Raises:  StorageError naming the file when it is not one of this store, or cannot be used; nothing is changed then.
        """
        path = Path(directory) / FILE_NAME
        with segment.naming(path):
            if not refuse_foreign(path):
                create(path)
            _write_again(beside(path, "-wal"))
        store = cls(path)
        store._move()
        return store

    # --- reading

    def rows(self, start: bytes, end: bytes, limit: int = -1) -> list[Row]:
        """Rows from ``start`` up to, without, ``end``, ascending, at most so many (-1: all); only what was committed.

        Raises:  StorageError naming file and row when one cannot be read, or is not what was written.
        """
        return read_rows(self._reader, self.path, start, end, limit)

    def pin(self) -> SqlitePin:
        """What is committed now, whatever is committed later.

        Cost:    a connection; and while it is held, what is committed stays in the write-ahead log.
        """
        return SqlitePin(self.path)

    @property
    def file_bytes(self) -> int:
        """The size of the file and of its write-ahead log."""
        with segment.naming(self.path):
            return sum(file.stat().st_size for file in (self.path, beside(self.path, "-wal")) if file.exists())

    # --- writing

    def write(self, part: Slice) -> tuple[int, int]:
        """Write into the transaction that the first call opens; return by how much the number of rows and the bytes of data change.

        Cost:    two statements for each ``_STATEMENT_ROWS`` rows, all in C; a checksum a row.
        Raises:  StorageError; then ``rollback`` is to follow.
        """
        assert not self._has_failed, "a write has failed: rollback is to follow"
        rows = sorted(dict(part.rows).items())
        gone = sorted(set(part.gone))
        count = size = 0
        try:
            if not self._is_open:
                self._writer.execute(f"PRAGMA busy_timeout = {WAIT_MS}")
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
        except SQLITE_ERRORS as error:
            self._has_failed = True
            raise storage_error(self.path, error) from error
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
        assert not self._has_failed, "a write has failed: rollback is to follow"
        self._check_names()
        try:
            if self._is_open:
                reach("checkpoint-commit-before")
                self._writer.execute("COMMIT")
                reach("checkpoint-commit-after")
                self._is_open = False
                self.commits += 1
        except SQLITE_ERRORS as error:
            self._has_failed = True
            raise storage_error(self.path, error) from error
        self._move()

    def _check_names(self) -> None:
        """See whether the next start would find what is written: SQLite goes on in files that have lost their names."""
        for file, opened in self._files.items():
            with segment.naming(file):
                found = segment.identity_of(file)
            if opened is not None and found != opened:
                self._has_failed = True
                why = "was removed or replaced while it was in use; nothing of this checkpoint counts"
                raise StorageError(f"{file}: {why}", file=str(file))

    def _move(self) -> None:
        """Move what is committed from the write-ahead log into the file, and empty the log.

        It is safe already: that it cannot be moved is not the commit's failure, the next one tries again. An empty log cannot rot: were
        a page of it not valid any more, SQLite would take all from there on for torn, and older pages for newer than those in the file.
        """
        try:
            self._writer.execute(f"PRAGMA busy_timeout = {_WAIT_FOR_READERS_MS}")
            is_busy, in_log, moved = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self.unmoved = f"{in_log - moved} of {in_log} pages wait for somebody who reads" if is_busy else None
        except SQLITE_ERRORS as error:
            self.unmoved = storage_error(self.path, error).detail

    def rollback(self) -> None:
        """Forget what was written since the last commit; on a full disk, give back the room that it took in the write-ahead log."""
        has_failed, self._is_open, self._has_failed = self._has_failed, False, False
        try:
            if self._writer.in_transaction:  # an error may have ended it
                self._writer.execute("ROLLBACK")
        except SQLITE_ERRORS as error:
            raise storage_error(self.path, error) from error
        if has_failed:
            self._move()

    def close(self) -> None:
        """Release the file; what was not committed is forgotten."""
        try:
            self._reader.close()
            self._writer.close()
        except sqlite3.Error as error:
            raise storage_error(self.path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _write_again(path: Path) -> None:
    """What a sync that failed has left in memory only, marked as clean, SQLite would read back and take for durable."""
    if path.exists():
        fd = os.open(path, os.O_RDWR)
        try:
            offset = 0
            while data := os.pread(fd, _PIECE_BYTES, offset):
                segment.write_all(fd, data, offset)
                offset += len(data)
            os.fdatasync(fd)
        finally:
            os.close(fd)


class SqlitePin:
    """The rows at one instant: a read transaction of its own, also beside another process that has the store open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = connect(path)
        try:
            self._connection.execute("BEGIN")
            self._connection.execute("SELECT path FROM state LIMIT 1").fetchall()  # only reading begins it
        except SQLITE_ERRORS as error:
            self._connection.close()
            raise storage_error(path, error) from error

    @classmethod
    def open(cls, directory: str | Path) -> Self | None:
        """What is committed in a directory whose store somebody else may have open; None: there is no store.

        Raises:  StorageError naming the file, as ``SqliteState.open``; nothing is changed.
        """
        path = Path(directory) / FILE_NAME
        with segment.naming(path):
            return cls(path) if refuse_foreign(path) else None

    def rows(self, start: bytes, end: bytes, limit: int = -1) -> list[Row]:
        return read_rows(self._connection, self._path, start, end, limit)

    def check(self) -> None:
        """See whether every row can be found: what no read of rows would notice.

        Cost:    the whole file is read, in one C call; about 0.3 s for a million rows.
        Raises:  StorageError naming the file and what is wrong with it.
        """
        check_file(self._connection, self._path)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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


def check_file(connection: sqlite3.Connection, path: Path) -> None:
    """As ``SqlitePin.check``."""
    try:
        [[found]] = connection.execute("PRAGMA quick_check(1)").fetchall()
    except SQLITE_ERRORS as error:
        raise storage_error(path, error) from error
    if found != b"ok":
        raise damage(path, found.decode(errors="replace").strip())


def read_rows(connection: sqlite3.Connection, path: Path, start: bytes, end: bytes, limit: int) -> list[Row]:
    """As ``SqliteState.rows``."""
    try:
        found = connection.execute(_ROWS, (start, end, limit)).fetchall()
    except SQLITE_ERRORS as error:
        raise storage_error(path, error) from error
    rows = unseal(found, str(path))
    if len(rows) > 1:
        paths = [row[0] for row in rows]
        if any(map(ge, paths, islice(paths, 1, None))):
            raise damage(path, "its rows come out of order")
    return rows
