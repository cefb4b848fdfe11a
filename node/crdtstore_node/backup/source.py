"""Reading a backup: its manifest, its objects, and whether they are what the manifest says.

The question: what has to be looked at before anything of a backup is believed? Each object as it is read: its size and hash, before it is
unpacked. And all of it together, by ``verify``: that the rows give the state digest in the manifest, that the log has no gap and ends
with the chain heads in the manifest, and that nothing is missing.
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from msgspec import Struct, field, structs

from crdtstore.clock import rfc3339
from crdtstore.errors import CrdtStoreError, DecodeError, StorageError, UsageError
from crdtstore.storage.protocol import Entry, Row
from crdtstore.storage.record import decode_record
from crdtstore.storage.snapshot import (
    MANIFEST_NAME,
    Edge,
    Manifest,
    ObjectPart,
    decode_manifest,
    unpack_blocks,
    unpack_rows,
)
from crdtstore_node.backup.checkpoint import Walk
from crdtstore_node.backup.ends import Ends
from crdtstore_node.backup.take import NAME, group_part, manifest_hash
from crdtstore_node.backup.target import Target, open_target

__all__ = [
    "Backup",
    "Check",
    "Listed",
    "backups_of",
    "check_ends",
    "check_rows",
    "checked",
    "entries_of",
    "is_backup",
    "listing",
    "open_backup",
    "prune",
    "summary",
    "verify",
]


class Backup:
    """One backup that is there: what it says of itself, and its objects."""

    def __init__(self, target: Target, prefix: str, written: bytes) -> None:
        self._target, self._prefix = target, prefix
        self.name = f"{target.shown.rstrip('/')}/{prefix}".rstrip("/")
        self.manifest: Manifest = decode_manifest(written, f"{self.name}/{MANIFEST_NAME}")
        self.hash = manifest_hash(written)

    def _object(self, part: ObjectPart) -> tuple[bytes, str]:
        return self._target.get(f"{self._prefix}{part.name}"), f"{self.name}/{part.name}"

    def rows(self) -> Iterator[list[Row]]:
        """All rows, in order, object by object.

        Raises:  StorageError naming the object that is missing or not what the manifest says.
        """
        for part in self.manifest.objects:
            if part.kind == "rows":
                yield unpack_rows(part, *self._object(part))

    def blocks(self) -> Iterator[tuple[str, int, list[bytes]]]:
        """All blocks, in order: the name of the object, the position and the records.

        Raises:  as ``rows``.
        """
        for part in self.manifest.objects:
            if part.kind == "blocks":
                data, where = self._object(part)
                for position, records in unpack_blocks(part, data, where):
                    yield where, position, records

    def entries(self) -> Iterator[tuple[int, str, Entry]]:
        """All entries of the log, in order, with their position and, in words, where they stand."""
        for where, position, records in self.blocks():
            at = f"{where} at position {position}"
            for record in records:
                for entry in entries_of(record, at):
                    yield position, at, entry


def entries_of(record: bytes, where: str) -> list[Entry]:
    """The entries of a record.

    Raises:  StorageError saying where it stands.
    """
    try:
        return decode_record(record)
    except DecodeError as error:
        raise StorageError(f"{where}: {error.detail}. Nothing changed.", file=where) from error


def is_backup(target: Target) -> bool:
    """Whether this is a backup itself, and not where backups are kept."""
    try:
        target.get(MANIFEST_NAME)
    except StorageError as error:
        if not error.more.get("is_missing"):
            raise
        return False
    return True


def open_backup(source: str, *, newest: bool = False) -> Backup:
    """The backup at this address; with ``newest`` the address may also be that of a target, for the newest backup there.

    Raises:  UsageError when there is none, StorageError when its manifest is not what was written.
    """
    target = open_target(source)
    if is_backup(target):
        return Backup(target, "", target.get(MANIFEST_NAME))
    whole = [each.name for each in listing(target) if each.is_whole]
    if newest and whole:
        return _open(target, whole[-1])
    if whole:
        raise UsageError(f"{target.shown} holds the backups {', '.join(whole[-5:])}: name one. Nothing changed.")
    raise UsageError(f"{target.shown}: there is no backup (no {MANIFEST_NAME}). Nothing changed.")


def _open(target: Target, name: str) -> Backup:
    return Backup(target, f"{name}/", target.get(f"{name}/{MANIFEST_NAME}"))


def backups_of(target: Target) -> list[Backup]:
    """All backups of a target, the oldest first.

    Raises:  StorageError when a manifest is not what was written.
    """
    return [_open(target, each.name) for each in listing(target) if each.is_whole]


class Listed(NamedTuple):
    """A folder of a target that is named like a backup; without a manifest it is none: it was interrupted, or is under way."""

    name: str
    is_whole: bool
    objects: list[str]


def listing(target: Target) -> list[Listed]:
    """The backups of a target, the oldest first.

    Raises:  StorageError.
    """
    folders: dict[str, list[str]] = {}
    for name in target.names():
        folder, slash, rest = name.partition("/")
        if slash and NAME.fullmatch(folder):
            folders.setdefault(folder, []).extend([rest] if rest else [])
    return [Listed(name, MANIFEST_NAME in objects, objects) for name, objects in sorted(folders.items())]


def summary(target: Target, listed: Listed) -> dict[str, Any]:
    """What there is to say of a backup without reading it; of one that is none, what its name says."""
    taken = rfc3339(int(_began_s(listed.name) * 1000))
    said: dict[str, Any] = {
        "name": listed.name,
        "finished": listed.is_whole,
        "objects": len(listed.objects),
        "node": listed.name[17:-9],
        "taken": taken,
        "commits": None,
        "bytes": None,
        "left_out": [],
        "why": None,
    }
    if listed.is_whole:
        try:
            manifest = _open(target, listed.name).manifest
        except StorageError as error:
            return {**said, "why": error.detail}
        said["taken"] = manifest.taken
        said["commits"] = sum(sum(part.end.vector.values()) for part in manifest.groups.values())
        said["bytes"] = sum(part.bytes for part in manifest.objects)
        said["left_out"] = sorted(manifest.arriving)
    return said


def prune(target: Target, older_than_s: float, now_s: float) -> list[str]:
    """Remove what interrupted backups left: folders without a manifest that were begun so long ago. Return their names.

    Raises:  StorageError.
    """
    removed = []
    for name, is_whole, objects in listing(target):
        if not is_whole and now_s - _began_s(name) >= older_than_s:
            for each in objects or [""]:
                target.delete(f"{name}/{each}")
            removed.append(name)
    return removed


def _began_s(name: str) -> float:
    return float(calendar.timegm(time.strptime(name[:16], "%Y%m%dT%H%M%SZ")))


# --- verifying


class Check(Struct):
    """One thing that was looked at: ``why`` is None when it is as it should be."""

    what: str
    why: str | None
    seconds: float
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def is_ok(self) -> bool:
        return self.why is None


def checked(what: str, look: Callable[[], Mapping[str, Any] | None]) -> Check:
    """Look at something; an error is what was found."""
    began = time.monotonic()
    try:
        more = look()
    except CrdtStoreError as error:
        return Check(what, error.detail, time.monotonic() - began, dict(error.more))
    return Check(what, None, time.monotonic() - began, dict(more or {}))


def verify(backup: Backup) -> list[Check]:
    """Everything that can be computed anew. One object in memory."""
    walk = Walk(backup.name)

    def look_at_rows() -> dict[str, Any]:
        for rows in backup.rows():
            walk.take(rows)
        check_rows(backup, walk)
        return {"rows": walk.rows}

    def look_at_log() -> dict[str, Any]:
        ends = Ends(backup.manifest.cluster, walk.checkpoint)
        for position, where, entry in backup.entries():
            ends.take(entry, position, where)
        if ends.left_out != backup.manifest.arriving:
            left_out = ", ".join(sorted(ends.left_out ^ backup.manifest.arriving))
            raise StorageError(f"{backup.name}: manifest and log do not agree on whether {left_out} is left out")
        check_ends(backup, ends)
        return {"commits": ends.commits} | ({"left_out": sorted(ends.left_out)} if ends.left_out else {})

    checks = [checked("rows: size, hash, state digest", look_at_rows)]
    if checks[0].is_ok:
        checks.append(checked("log: size, hash, no gap, chain heads", look_at_log))
    return checks


def check_rows(backup: Backup, walk: Walk) -> None:
    """What the rows say and give is what the manifest says.

    Raises:  StorageError.
    """
    manifest, checkpoint = backup.manifest, walk.checkpoint
    if checkpoint.needed != manifest.log.needed:
        raise StorageError(
            f"{backup.name}: the rows need the log from {checkpoint.needed}, the manifest says {manifest.log.needed}"
        )
    saved = {group: (group_part(each, None), walk.digest(group)) for group, each in checkpoint.groups.items()}
    said = {group: part for group, part in manifest.groups.items() if part.checkpoint is not None}
    if saved.keys() != said.keys():
        raise StorageError(f"{backup.name}: the rows hold {', '.join(saved)}, the manifest names {', '.join(said)}")
    for group, (found, digest) in saved.items():
        if found != structs.replace(said[group], end=found.end):
            raise StorageError(f"{backup.name}: {group}: what the rows say of it is not what the manifest says")
        if digest != found.digest:
            raise StorageError(f"{backup.name}: {group}: the rows give the state digest {digest}, not {found.digest}")
    walk.check_counts()


def check_ends(backup: Backup, ends: Ends) -> None:
    """The log ends as the manifest says; of groups that are left out it says nothing.

    Raises:  StorageError.
    """
    ends.check_reached(backup.name)
    said = {group: part.end for group, part in backup.manifest.groups.items()}
    found = {group: ends.edge(group) for group in ends.groups}
    nothing = Edge(vector={}, chains={})
    for group in sorted({*said, *found} - ends.left_out):
        if said.get(group, nothing) != found.get(group, nothing):
            raise StorageError(
                f"{backup.name}: {group}: vector and chain heads at the end are not those in the manifest"
            )
