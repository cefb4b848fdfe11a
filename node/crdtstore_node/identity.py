"""Who a data directory is: the one replica id under which its log was written.

The question: when may a node take an id? An id stands for commits that others count, so an empty directory must never take one that may
have been used: it takes its founding id only when the operator says ``--bootstrap``, and a directory that has an id keeps it. The file
is on disk, and its name too, before the first commit can be.

A directory that was restored from a backup has a new id and says from where: whoever had the old id may live, or may have written what the
backup does not hold.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from msgspec import DecodeError, Struct, ValidationError, structs, to_builtins
from msgspec.json import decode

from crdtstore.causal import ReplicaId, node_of
from crdtstore.configuration import Cluster, Member
from crdtstore.errors import PUT_BACK, StorageError, UsageError

__all__ = ["FILE_NAME", "LOG_NAME", "Identity", "RestoredFrom", "read_identity", "take_identity", "write_identity"]

FILE_NAME = "identity.json"
LOG_NAME = "log"
_FORMAT, _FORMAT_RESTORED = 1, 2


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


class Identity(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    cluster: str
    nonce: str
    replica: str
    restored_from: RestoredFrom | None = None
    """Set until the node has joined: it serves reads and writes nothing."""


def read_identity(data: Path) -> Identity | None:
    """What the directory says it is; None when it says nothing.

    Raises:  StorageError when the file cannot be read as what was written there; nothing changed.
    """
    path = data / FILE_NAME
    try:
        identity = decode(path.read_bytes(), type=Identity)
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
        raise StorageError(
            f"{path}: format {identity.format}, this program reads {_format_of(identity)}. Start the version that wrote it. "
            "Nothing changed.",
            file=str(path),
        )
    return identity


def _what_to_do(data: Path, path: Path, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "Run this as the user that the data directory belongs to"
    if isinstance(error, NotADirectoryError):
        return f"{data} has to be a directory"
    if isinstance(error, IsADirectoryError):
        return f"A directory stands where the file {path.name} belongs. {PUT_BACK}"
    return f"When the disk can be read again, start again. {PUT_BACK}"


def _format_of(identity: Identity) -> int:
    return _FORMAT if identity.restored_from is None else _FORMAT_RESTORED


def take_identity(data: Path, cluster: Cluster, node: str, *, is_bootstrap: bool) -> tuple[Member, bool]:
    """The member that this directory is, and whether it became so just now. The caller holds the directory's lock.

    Raises:  UsageError when the directory belongs to another cluster or node, or is empty and was not told to bootstrap; nothing
             changed.
    """
    member = next((member for member in cluster.members if member.node == node), None)
    if member is None:
        nodes = ", ".join(member.node for member in cluster.members)
        raise UsageError(f"node: {node} is not in the cluster file; there are {nodes}. Nothing changed.")
    identity = read_identity(data)
    if identity is not None:
        _check_same(data, identity, cluster, member)
        return Member(ReplicaId(identity.replica), member.region, member.gossip), False
    if _has_segments(data / LOG_NAME):
        raise StorageError(f"{data}: there is a log but no {FILE_NAME}. {PUT_BACK}. Nothing changed.")
    if not is_bootstrap:
        raise UsageError(
            f"{data} is empty. A node takes its founding id only once: start with --bootstrap if this node never ran "
            "before. If it did, its data is not here: put the directory back from a copy or snapshot, if there is one; for what "
            "else there is, see 'A node that does not start' in docs/backup.md. Nothing changed."
        )
    write_identity(data, cluster, member.replica)
    return member, True


def write_identity(data: Path, cluster: Cluster, replica: ReplicaId, restored_from: RestoredFrom | None = None) -> None:
    """Let a directory be this replica, durably.

    Raises:  StorageError; nothing changed.
    """
    identity = Identity(
        format=0, cluster=cluster.name, nonce=cluster.nonce.hex(), replica=replica, restored_from=restored_from
    )
    _write_durably(data / FILE_NAME, structs.replace(identity, format=_format_of(identity)))


def _check_same(data: Path, identity: Identity, cluster: Cluster, member: Member) -> None:
    if identity.nonce != cluster.nonce.hex():
        raise UsageError(
            f"{data} belongs to the cluster {identity.cluster} (nonce {identity.nonce[:4]}…), "
            f"not to {cluster.name} (nonce {cluster.nonce.hex()[:4]}…) of the cluster file. Nothing changed."
        )
    if identity.restored_from is not None and node_of(ReplicaId(identity.replica)) == member.node:
        return  # an id of its own, which no cluster file names
    if identity.replica != member.replica:
        raise UsageError(
            f"{data} belongs to {identity.replica}, but the cluster file gives {member.node} the id {member.replica}. "
            "Nothing changed."
        )


def _has_segments(directory: Path) -> bool:
    return directory.is_dir() and any(path.is_file() and path.name != "lock" for path in directory.iterdir())


def _write_durably(path: Path, identity: Identity) -> None:
    """All of it or nothing, and still there after a power cut."""
    draft = path.with_name(path.name + ".new")
    document = {name: value for name, value in to_builtins(identity).items() if value is not None}
    text = json.dumps(document, indent=1) + "\n"
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise StorageError(f"{path}: {error.strerror}. Nothing changed.") from error
