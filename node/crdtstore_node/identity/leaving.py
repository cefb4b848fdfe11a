"""Leaving an id: a directory gets a new one, and what belongs to the old one goes to ``left/<old id>/``.

The question: what does a start find when this was interrupted? First identity.json says the new id and that the old one is being left;
from then on nothing is served, and every start goes on moving before it does anything else. Each move is a rename, or finds that it was
done; only when all names are durable does identity.json stop saying so. Until the first of these writes everything is as it was.

The log's directory stays and only its files move: the lock in it is held all the time. Nothing is thrown away but segments of zeros: the
old log holds commits that perhaps nobody else has.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from secrets import randbits

from msgspec import structs

from crdtstore.causal import ReplicaId, make_replica_id, node_of
from crdtstore.storage.segment import make_directory, naming, read_bytes, sync_directory, used_bytes
from crdtstore.storage.sqlite import FILE_NAME as STATE_NAME
from crdtstore_node.identity.anchor import find_anchors
from crdtstore_node.identity.document import LOG_NAME, left_now, read_identity, replace_identity
from crdtstore_node.identity.seal import gather_facts, renew_seal

__all__ = ["LEFT_NAME", "finish_leaving", "leave_identity"]

LEFT_NAME = "left"
_LEFT_KEPT = 256
"""So many ids a directory remembers that it had; the folders in ``left/`` stay in any case."""


def leave_identity(data: Path, reason: str, places: Sequence[Path]) -> ReplicaId:
    """Give up the id of this directory; return the new one, which is not a member of anything yet.

    The caller holds the directory's lock, and has neither its log nor its state open: both are empty afterwards. ``places`` are those
    of anchors: one of this directory that knows of more than the directory says nothing about the new id.

    Raises:  StorageError. Whether the id was left shows at the next start, which finishes it then.
    """
    finish_leaving(data, places)
    identity = read_identity(data)
    assert identity is not None, f"{data} has no id to leave"
    new = make_replica_id(node_of(ReplicaId(identity.replica)), randbits(64))
    left = [*(identity.left or []), left_now(identity.replica, reason)][-_LEFT_KEPT:]
    replace_identity(
        data,
        structs.replace(
            identity, replica=new, restored_from=None, left=left, state="joining", leaving=identity.replica
        ),
    )
    finish_leaving(data, places)
    return new


def finish_leaving(data: Path, places: Sequence[Path]) -> None:
    """Move what belongs to an id that is being left, if there is one. The caller holds the directory's lock.

    Raises:  StorageError; the next start goes on.
    """
    identity = read_identity(data)
    if identity is None or identity.leaving is None:
        return
    target = data / LEFT_NAME / identity.leaving
    with naming(target):
        _move_all(data, target)
    numbers = [each.number for each in find_anchors(places, gather_facts(data / LOG_NAME))]
    renew_seal(data, ReplicaId(identity.replica), numbers)
    replace_identity(data, structs.replace(identity, leaving=None))


def _move_all(data: Path, target: Path) -> None:
    log = data / LOG_NAME
    make_directory(log)
    files = [path for path in sorted(log.iterdir()) if path.is_file() and path.name != "lock"]
    for path in files:
        if not used_bytes(read_bytes(path)):
            path.unlink()
        else:
            _move(path, target / LOG_NAME)
    for path in sorted(data.iterdir()):
        if path.is_file() and path.name.startswith(STATE_NAME):
            _move(path, target)
    # Also after a start that moved nothing more: an interrupted one may not have come as far.
    for directory in (target / LOG_NAME, target, log, data):
        if directory.is_dir():
            sync_directory(directory)


def _move(path: Path, folder: Path) -> None:
    make_directory(folder)
    try:
        os.rename(path, folder / path.name)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(path, folder / path.name)
        path.unlink()


def _copy(path: Path, target: Path) -> None:
    """The log may be on a disk of its own."""
    draft = target.with_name(target.name + ".new")
    shutil.copyfile(path, draft)
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(draft, target)
    sync_directory(target.parent)
