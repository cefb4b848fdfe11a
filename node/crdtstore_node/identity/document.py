"""identity.json: the one replica id under which a directory's log was written, and those it had before.

The question: what has to be on disk before the first commit? The id, and the name of the file that holds it. A file of this kind is
therefore replaced whole, and its folder synced, before anything is built on it.

A directory that was restored from a backup has a new id and says from where: whoever had the old id may live, or may have written what the
backup does not hold. A directory that left an id says which, when and why.

Formats: 1, a founder · 2, restored from a backup · 3, with any of ``left``, ``state``, ``leaving``.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from msgspec import DecodeError, Struct, ValidationError, structs, to_builtins
from msgspec.json import decode

from crdtstore.causal import ReplicaId
from crdtstore.clock import rfc3339
from crdtstore.configuration import Cluster
from crdtstore.errors import PUT_BACK, StorageError
from crdtstore.storage.segment import naming, sync_directory

__all__ = [
    "FILE_NAME",
    "LOG_NAME",
    "Identity",
    "Left",
    "RestoredFrom",
    "left_now",
    "mark_joined",
    "new_identity",
    "read_identity",
    "replace_identity",
    "write_document",
    "write_identity",
]

FILE_NAME = "identity.json"
LOG_NAME = "log"
_FORMAT, _FORMAT_RESTORED, _FORMAT_LEFT = 1, 2, 3
_REASON_CHARS = 1_000


class RestoredFrom(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From which backup a directory was made: it holds what another replica held, under an id that no group knows yet."""

    replica: str
    manifest: str
    """The hash of the backup's manifest."""
    taken: str
    restored: str
    at: str | None = None
    """The token or instant to which it was restored; None: all of it."""
    log_of: list[str] | None = None
    """The hashes of the manifests of later backups that went on with its log."""


class Left(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An id that this directory had and never takes again."""

    replica: str
    reason: str
    at: str


class Identity(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    cluster: str
    nonce: str
    replica: str
    restored_from: RestoredFrom | None = None
    """Set until the node has joined: it serves reads and writes nothing."""
    left: list[Left] | None = None
    """Oldest first; the oldest ones are dropped when there are many."""
    state: Literal["joining", "joined"] | None = None
    """joining: the id is new, and no group is known to have it as a member. None: a founder, under the id of the cluster file."""
    leaving: str | None = None
    """What belongs to this id is on its way to ``left/``; nothing here may be used before it is there."""


class _Format(Struct):
    format: int


def read_identity(data: Path) -> Identity | None:
    """What the directory says it is; None when it says nothing.

    Raises:  StorageError when the file cannot be read as what was written there; nothing changed.
    """
    path = data / FILE_NAME
    try:
        text = path.read_bytes()
        _check_format(path, text)
        identity = decode(text, type=Identity)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(
            f"{path}: {error.strerror or error}. {_what_to_do(data, path, error)}. Nothing changed.", file=str(path)
        ) from None
    except (DecodeError, ValidationError) as error:
        why = str(error).removesuffix(".")
        raise StorageError(
            f"{path}: not the identity that was written there: {why}. {PUT_BACK}. Nothing changed.", file=str(path)
        ) from None
    if identity.format != _format_of(identity):
        raise _other_format(path, identity.format, _format_of(identity))
    return identity


def _check_format(path: Path, text: bytes) -> None:
    """A later format may have fields of which nobody here can say more than that they are unknown."""
    found = decode(text, type=_Format).format
    if found > _FORMAT_LEFT:
        raise _other_format(path, found, _FORMAT_LEFT)


def _other_format(path: Path, found: int, expected: int) -> StorageError:
    return StorageError(
        f"{path}: format {found}, this program reads {expected}. Start the version that wrote it. Nothing changed.",
        file=str(path),
    )


def _what_to_do(data: Path, path: Path, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "Run this as the user that the data directory belongs to"
    if isinstance(error, NotADirectoryError):
        return f"{data} has to be a directory"
    if isinstance(error, IsADirectoryError):
        return f"A directory stands where the file {path.name} belongs. {PUT_BACK}"
    return f"When the disk can be read again, start again. {PUT_BACK}"


def _format_of(identity: Identity) -> int:
    if identity.left or identity.state or identity.leaving:
        return _FORMAT_LEFT
    return _FORMAT if identity.restored_from is None else _FORMAT_RESTORED


def left_now(replica: str, reason: str) -> Left:
    """The entry for an id that is left at this instant."""
    return Left(replica=replica, reason=reason[:_REASON_CHARS], at=rfc3339(int(time.time() * 1000)))


def new_identity(
    cluster: Cluster,
    replica: ReplicaId,
    restored_from: RestoredFrom | None = None,
    *,
    is_joining: bool = False,
) -> Identity:
    """The identity of a directory that had none."""
    return Identity(
        format=0,
        cluster=cluster.name,
        nonce=cluster.nonce.hex(),
        replica=replica,
        restored_from=restored_from,
        state="joining" if is_joining else None,
    )


def write_identity(data: Path, cluster: Cluster, replica: ReplicaId, restored_from: RestoredFrom | None = None) -> None:
    """Let a directory be this replica, durably.

    Raises:  StorageError; nothing changed.
    """
    replace_identity(data, new_identity(cluster, replica, restored_from))


def replace_identity(data: Path, identity: Identity) -> None:
    """Let the directory say this from now on, durably.

    Raises:  StorageError; what it said before is still there, or what it says now.
    """
    document = to_builtins(structs.replace(identity, format=_format_of(identity)))
    write_document(data / FILE_NAME, {name: value for name, value in document.items() if value is not None})


def mark_joined(data: Path) -> None:
    """The groups have this id as a member: the directory is no joiner any more. Whoever calls it again changes nothing.

    Raises:  StorageError; the node joins once more at its next start, which changes nothing.
    """
    identity = read_identity(data)
    assert identity is not None, f"{data} has joined without an id"
    if identity.state == "joining":
        replace_identity(data, structs.replace(identity, state="joined"))


def write_document(path: Path, document: dict[str, Any]) -> None:
    """All of it or nothing, and still there after a power cut.

    Raises:  StorageError naming the file; the old text is still there, or the new one.
    """
    draft = path.with_name(path.name + ".new")
    text = json.dumps(document, indent=1) + "\n"
    try:
        with naming(path):
            with draft.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
            sync_directory(path.parent)
    except StorageError:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
