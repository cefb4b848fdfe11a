"""Restoring a backup: a new data directory, under a new id.

The question: why never under the old id? Whoever had it may live; and if not, it may have written what the backup does not hold, and a
second commit under one number would part the replicas for good. So the directory gets an id that no group knows: it serves reads, and
writes once it has joined.

It is built beside its place and renamed at the end: it is there whole, or not at all. Everything is checked while it is copied: what is
restored is what ``verify`` would have passed.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from secrets import randbits
from typing import NamedTuple

from crdtstore.causal import ReplicaId, make_replica_id
from crdtstore.clock import rfc3339
from crdtstore.configuration import Cluster
from crdtstore.errors import UsageError
from crdtstore.promises import NOTE_GROUP
from crdtstore.storage import segment
from crdtstore.storage.crashpoints import reach
from crdtstore.storage.log import SEGMENT_BYTES
from crdtstore.storage.protocol import Entry, Slice
from crdtstore.storage.record import encode_record
from crdtstore.storage.sqlite import FILE_NAME as STATE_NAME
from crdtstore.storage.sqlite import SqliteState
from crdtstore_node.backup.checkpoint import Walk
from crdtstore_node.backup.ends import Ends
from crdtstore_node.backup.logcopy import NewLog
from crdtstore_node.backup.point import Point, Wanted, parse_wanted, point_of, unix_ms
from crdtstore_node.backup.source import Backup, check_ends, check_rows, entries_of
from crdtstore_node.backup.take import Progress
from crdtstore_node.identity import FILE_NAME, LOG_NAME, RestoredFrom, write_identity

__all__ = ["PARTIAL", "Restored", "restore"]

PARTIAL = ".partial"
"""What the name of an unfinished directory ends with."""
_COMMIT_ROWS = 200_000
_LEAST_SEGMENT_BYTES = 1 << 16
_OURS = (FILE_NAME, STATE_NAME, LOG_NAME)


class Restored(NamedTuple):
    """What was restored."""

    replica: ReplicaId
    directory: Path
    rows: int
    commits: int
    """From the log, above the checkpoint."""
    left_out: int
    """After the point in time."""
    seconds: float


def restore(
    backup: Backup,
    directory: Path,
    cluster: Cluster,
    node: str,
    at: str | None = None,
    segment_bytes: int = SEGMENT_BYTES,
    later: Sequence[Backup] = (),
    progress: Progress = lambda what, size: None,
) -> Restored:
    """Make a data directory from a backup, all of it or up to a point in time; ``later`` backups go on with its log.

    Cost:    one object in memory; what an interrupted restore left beside the directory is removed first.
    Raises:  UsageError when the backup, the cluster file and the directory do not go together, StorageError naming object or file. There is
             no directory then.
    """
    began = time.monotonic()
    _check_cluster(backup, cluster, node)
    _check_free(directory)
    partial = directory.with_name(directory.name + PARTIAL)
    replica = make_replica_id(node, randbits(64))
    _clear(partial)
    with segment.naming(partial):
        directory.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir(mode=0o750)
    try:
        walk = _restore_rows(backup, partial, progress)
        line = [backup, *later]
        point = None
        if at is not None:
            wanted = parse_wanted(at, cluster.nonce)
            _check_reached(line[-1], wanted)
            point = point_of(wanted, walk.checkpoint)
        commits, left_out = _restore_log(line, partial / LOG_NAME, walk, point, segment_bytes, progress)
        restored_from = RestoredFrom(
            replica=backup.manifest.replica,
            manifest=backup.hash,
            taken=backup.manifest.taken,
            restored=rfc3339(int(time.time() * 1000)),
            at=at,
            log_of=[each.hash for each in later] or None,
        )
        write_identity(partial, cluster, replica, restored_from)
        reach("snapshot-rename-before")
        _rename(partial, directory)
        reach("snapshot-rename-after")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # gives back the space, above all where there was too little
        raise
    return Restored(replica, directory, walk.rows, commits, left_out, time.monotonic() - began)


def _check_cluster(backup: Backup, cluster: Cluster, node: str) -> None:
    manifest = backup.manifest
    if manifest.nonce != cluster.nonce.hex():
        raise UsageError(
            f"{backup.name} is of the cluster {manifest.cluster} (nonce {manifest.nonce[:4]}…), the cluster file names "
            f"{cluster.name} (nonce {cluster.nonce.hex()[:4]}…). Nothing changed."
        )
    if node not in [member.node for member in cluster.members]:
        nodes = ", ".join(member.node for member in cluster.members)
        raise UsageError(f"--node: {node[:100]!r} is not in the cluster file; there are {nodes}. Nothing changed.")


def _check_free(directory: Path) -> None:
    try:
        is_free = not directory.exists() or not any(directory.iterdir())
    except OSError as error:
        raise UsageError(f"{directory}: {error.strerror}. Nothing changed.") from None
    if not is_free:
        raise UsageError(f"{directory} is not empty; a backup is restored into a new directory. Nothing changed.")


def _check_reached(last: Backup, wanted: Wanted) -> None:
    taken = last.manifest.taken
    if isinstance(wanted, int) and wanted > unix_ms(taken):
        raise UsageError(
            f"{rfc3339(wanted)} is after {last.name} was taken ({taken}), and no backup here goes on with its log. Nothing changed."
        )


def _clear(partial: Path) -> None:
    """Remove what an interrupted restore left, and nothing else."""
    if partial.is_dir():
        strange = [path.name for path in partial.iterdir() if not path.name.startswith(_OURS)]
        if strange:
            raise UsageError(
                f"{partial} holds {strange[0][:100]}, which no restore wrote: move it away. Nothing changed."
            )
        with segment.naming(partial):
            shutil.rmtree(partial)


def _restore_rows(backup: Backup, partial: Path, progress: Progress) -> Walk:
    walk, uncommitted = Walk(backup.name), 0
    with SqliteState.open(partial) as store:
        for rows in backup.rows():
            walk.take(rows)
            store.write(Slice(rows=rows))
            progress("rows", sum(len(path) + len(data) for path, data in rows))
            uncommitted += len(rows)
            if (
                uncommitted >= _COMMIT_ROWS
            ):  # the directory does not count yet, and one great transaction needs twice the space
                store.commit()
                uncommitted = 0
        store.commit()
    check_rows(backup, walk)
    return walk


def _restore_log(
    line: Sequence[Backup], log: Path, walk: Walk, point: Point | None, segment_bytes: int, progress: Progress
) -> tuple[int, int]:
    """Copy the log, without what does not belong to the point; return how many commits above the checkpoint, and how many left out."""
    held = line[0].manifest
    ends = Ends(held.cluster, walk.checkpoint)
    room = line[-1].manifest.log.end - held.log.needed + 2 * segment.OVERHEAD_BYTES
    new = NewLog(log, min(segment_bytes, max(_LEAST_SEGMENT_BYTES, room)), held.log.needed)
    left_out, reached = 0, held.log.needed
    for backup in line:
        for where, position, records in backup.blocks():
            if position < reached:  # the backup before had it
                continue
            kept, left = _kept(records, ends, point, f"{where} at position {position}")
            left_out += left
            if kept:
                new.write(kept)
                progress("blocks", sum(map(len, kept)))
        reached = backup.manifest.log.end
        check_ends(backup, ends)
    new.close()
    if point is not None:
        point.finish()
    return ends.commits - left_out, left_out


def _kept(records: list[bytes], ends: Ends, point: Point | None, where: str) -> tuple[list[bytes], int]:
    """What of a block goes into the new log, and how many commits do not."""
    kept, left_out = [], 0
    for record in records:
        entries = entries_of(record, where)
        chosen = list(_chosen(entries, ends, point, where))
        left_out += sum(entry.group != NOTE_GROUP for entry in entries) - len(chosen)
        if chosen:
            kept.append(record if len(chosen) == len(entries) else encode_record(chosen))
    return kept, left_out


def _chosen(entries: list[Entry], ends: Ends, point: Point | None, where: str) -> Iterator[Entry]:
    """What goes into the new log: no notes of the old replica to itself, and of the commits those that belong to the point."""
    for entry in entries:
        if entry.group == NOTE_GROUP:
            continue
        is_above = ends.take(entry, where)
        if point is None:
            yield entry
        elif not is_above:
            point.below(entry, where)
            yield entry
        elif point.admits(entry, where):
            yield entry


def _rename(partial: Path, directory: Path) -> None:
    with segment.naming(directory):
        segment.sync_directory(partial)
        try:
            os.replace(partial, directory)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise UsageError(f"{directory} is not empty any more; a backup is restored into a new directory.") from None
        segment.sync_directory(directory.parent)
