"""The file of the state store: which one is taken, how it is made, and what its errors say.

The question: what may happen to a file that is not ours, or not whole? Nothing, and it is named: SQLite itself would write to any database,
and make a new one where one has gone. So a file is made under another name and appears complete, and one that is there must say in its
first bytes that it is ours, before SQLite sees it.

Source: https://www.sqlite.org/fileformat2.html
"""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

from crdtstore.errors import PUT_BACK, StorageError
from crdtstore.storage import segment

__all__ = [
    "FILE_NAME",
    "FORMAT",
    "PAGE_BYTES",
    "SQLITE_ERRORS",
    "WAIT_MS",
    "beside",
    "connect",
    "create",
    "damage",
    "refuse_foreign",
    "storage_error",
]

FILE_NAME = "state.sqlite"
FORMAT = 1
"""What ``user_version`` of a file must be."""

_APPLICATION = int.from_bytes(b"CRDT", "big")
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_USER_VERSION_AT, _APPLICATION_AT = 60, 68

PAGE_BYTES = 4096
_CACHE_KIB = 16 << 10
"""Per connection; of the file, the kernel's page cache holds what it can besides."""
_WAL_KEPT_BYTES = 32 << 20
"""After a greater transaction the write-ahead log is cut to this."""
SQLITE_ERRORS = (sqlite3.Error, MemoryError, UnicodeDecodeError)
"""What a file that is damaged may raise: sizes in it may be anything, and so may the text that SQLite quotes."""
WAIT_MS = 10_000
"""Nobody else writes for long: a backup may be taking its place, or the first reader after a crash looking through the log."""


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def refuse_foreign(path: Path) -> bool:
    """Whether there is a file; it is one that this store made.

    Raises:  StorageError naming it if it is not.
    """
    for file in (path, beside(path, "-wal"), beside(path, "-shm"), beside(path, ".new")):
        if file.is_symlink() or (file.exists() and not stat.S_ISREG(file.stat().st_mode)):
            raise StorageError(f"{file}: not a regular file, so it is not opened; nothing was changed", file=str(file))
    if not path.exists():
        if beside(path, "-wal").exists():
            raise damage(path, f"it is not there, but {path.name}-wal is")
        return False
    with path.open("rb") as opened:
        header = opened.read(_HEADER_BYTES)
    if not header.startswith(_MAGIC) or len(header) < _HEADER_BYTES:
        raise damage(path, "it does not begin as a SQLite file does")
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
    return True


def create(path: Path) -> None:
    """A store without rows that is on disk whole, or not there under its name: then an empty file is damage."""
    segment.make_directory(path.parent)
    unfinished = beside(path, ".new")
    for leftover in (
        unfinished,
        beside(unfinished, "-journal"),
        beside(unfinished, "-wal"),
        beside(unfinished, "-shm"),
    ):
        leftover.unlink(missing_ok=True)
    strict = ", STRICT" if sqlite3.sqlite_version_info >= (3, 37) else ""
    try:
        connection = sqlite3.connect(unfinished, isolation_level=None)
        try:
            for statement in (
                f"PRAGMA page_size = {PAGE_BYTES}",
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
    except SQLITE_ERRORS as error:
        raise storage_error(path, error) from error
    fd = os.open(unfinished, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    unfinished.replace(path)
    segment.sync_directory(path.parent)


def connect(path: Path) -> sqlite3.Connection:
    """A connection; several may be used at a time, each by one thread at a time."""
    connection = None
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=WAIT_MS / 1000,
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
            "PRAGMA secure_delete = FAST",  # what was removed is overwritten where that writes no page more
        ):
            connection.execute(statement).fetchall()
        [[mode]] = connection.execute("PRAGMA journal_mode").fetchall()
    except SQLITE_ERRORS as error:
        if connection is not None:
            connection.close()
        raise storage_error(path, error) from error
    if mode != b"wal":
        connection.close()
        raise damage(path, "it is not set to use a write-ahead log")
    return connection


# --- errors


def damage(path: Path, why: str) -> StorageError:
    return StorageError(
        f"{path}: damaged: {why}; nothing was changed. {PUT_BACK}",
        file=str(path),
    )


def storage_error(path: Path, error: BaseException) -> StorageError:
    code = getattr(error, "sqlite_errorcode", None)
    is_full = code is not None and (code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    is_damaged = code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    remedy = f". {PUT_BACK}" if is_damaged else ""
    return StorageError(
        f"{path}: {error} ({name}){remedy}", code="storage-full" if is_full else "storage-failed", file=str(path)
    )
