"""What the checkpoint in a data directory says of the log beside it, read without changing anything.

The question: may a node have the store open? It may: then SQLite's own locks keep its file together. Nobody has it open
when there is no index of its write-ahead log, and then not even that index is made.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from crdtstore.causal import ReplicaId
from crdtstore.engine.checkpoint import read_node, read_saved
from crdtstore.storage.protocol import Row
from crdtstore.storage.sqlite import check_file, read_rows
from crdtstore.storage.sqlite_file import FILE_NAME, SQLITE_ERRORS, beside, refuse_foreign, storage_error
from crdtstore_node.identity import read_identity

__all__ = ["Checkpoint", "Origin", "StateFile", "checkpoint_of"]

Origin = tuple[str, ReplicaId]


class Checkpoint(Struct, frozen=True):
    """What the state says of the log; numbers and chain hashes are per group and origin."""

    needed: int
    """The log must hold everything from this position on."""
    starts: dict[Origin, tuple[int, bytes]]
    """The last commit that need not be in the log any more, and the chain hash after it."""
    heads: dict[Origin, tuple[int, bytes]]
    """The last commit that the state holds, and the chain hash after it."""
    begins: dict[str, int] = {}
    """The groups that the state holds: what the log has of them below this position is of installs that came to nothing."""
    logged: int = 0
    """The log must hold a block that begins at this position, or a later one; 0: that is not known."""


class StateFile:
    """The rows of a store at one instant; not a file is made or changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        is_open = any(beside(path, suffix).exists() for suffix in ("-wal", "-shm"))
        options = "mode=ro" if is_open else "mode=ro&immutable=1"
        try:
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?{options}", uri=True, isolation_level=None, timeout=5
            )
            self._connection.text_factory = bytes
            self._connection.execute("BEGIN")
        except SQLITE_ERRORS as error:
            raise storage_error(path, error) from error

    def rows(self, start: bytes, end: bytes, limit: int = -1) -> list[Row]:
        return read_rows(self._connection, self._path, start, end, limit)

    def check(self) -> None:
        """As ``SqlitePin.check``."""
        check_file(self._connection, self._path)

    def close(self) -> None:
        self._connection.close()


def checkpoint_of(data: Path) -> Checkpoint | None:
    """What the state in this data directory says of the log; None when no checkpoint was made.

    Raises:  StorageError when it cannot be read.
    """
    path = data / FILE_NAME
    if not refuse_foreign(path):
        return None
    with closing(StateFile(path)) as rows:
        node = read_node(rows)
        if node is None:
            return None
        identity = read_identity(data)
        is_restored = (
            identity is not None and identity.restored_from is not None
        )  # its log was written anew, and is shorter
        checkpoint = Checkpoint(node.needed, {}, {}, {}, 0 if is_restored else node.logged)
        for group, number in node.groups.items():
            saved = read_saved(rows, number)
            if saved is None:
                continue
            checkpoint.begins[group] = saved.begins
            for at, member in enumerate(saved.members):
                origin = (group, ReplicaId(member))
                checkpoint.starts[origin] = (saved.base[at], saved.base_chains[at])
                checkpoint.heads[origin] = (saved.applied[at], saved.heads[at])
        return checkpoint
