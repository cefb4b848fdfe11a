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

from crdtstore.causal import ReplicaId, make_replica_id, node_of, worker_of
from crdtstore.clock import rfc3339
from crdtstore.configuration import SYSTEM_GROUP, Cluster
from crdtstore.engine.membership.notes import Adopted, Installed, decode_note
from crdtstore.errors import UsageError
from crdtstore.storage import segment
from crdtstore.storage.crashpoints import reach
from crdtstore.storage.log import SEGMENT_BYTES
from crdtstore.storage.protocol import Entry, Slice
from crdtstore.storage.record import encode_record
from crdtstore.storage.sqlite import FILE_NAME as STATE_NAME
from crdtstore.storage.sqlite import SqliteState
from crdtstore_node.backup.checkpoint import Walk
from crdtstore_node.backup.ends import Ends, Taken
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
            wanted = parse_wanted(at, backup.manifest)
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
    system = manifest.groups.get(SYSTEM_GROUP)
    known = [member.node for member in cluster.members]
    known += [node_of(ReplicaId(name)) for name in (manifest.replica, *(system.members if system is not None else []))]
    if (theirs := worker_of(node_of(ReplicaId(manifest.replica)))) != worker_of(node):
        raise UsageError(
            f"--node: {backup.name} is of worker {theirs} of its node and holds what this one holds; {node[:100]!r} is another one. "
            "Nothing changed."
        )
    if node not in known:
        nodes = ", ".join(dict.fromkeys(known))
        raise UsageError(
            f"--node: {node[:100]!r} is neither in the cluster file nor in the backup; there are {nodes}. Nothing changed."
        )


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
        store.write(Slice(rows=walk.checkpoint.moved()))
        store.commit()
    check_rows(backup, walk)
    return walk


def _restore_log(
    line: Sequence[Backup], log: Path, walk: Walk, point: Point | None, segment_bytes: int, progress: Progress
) -> tuple[int, int]:
    """Copy the log, without what does not belong to the point; return how many commits above the checkpoint, and how many left out."""
    held = line[0].manifest
    ends = Ends(held.cluster, walk.checkpoint, [group for each in line for group in each.manifest.arriving])
    choice = _Choice(ends, point)
    room = line[-1].manifest.log.end - held.log.needed + 2 * segment.OVERHEAD_BYTES
    new = NewLog(log, min(segment_bytes, max(_LEAST_SEGMENT_BYTES, room)), held.log.needed)
    reached = held.log.needed
    for backup in line:
        for where, position, records in backup.blocks():
            if position < reached:  # the backup before had it
                continue
            kept = choice.kept(records, position, f"{where} at position {position}")
            if kept:
                new.write(kept)
                progress("blocks", sum(map(len, kept)))
        reached = backup.manifest.log.end
        check_ends(backup, ends)
    new.close()
    if point is not None:
        point.finish()
    return ends.commits - choice.left_out, choice.left_out


class _Choice:
    """What goes into the new log: of the commits those that count and belong to the point, of the notes who is a member. Neither votes
    nor anything else that the old replica noted for itself. Mutable.

    With a point, a note goes in when a commit of its group does that came after it: the group has the members that it had then.
    """

    def __init__(self, ends: Ends, point: Point | None) -> None:
        self._ends, self._point = ends, point
        self._waiting: dict[str, list[Entry]] = {}
        self.left_out = 0
        """Commits on top of the checkpoint that do not belong to the point."""

    def kept(self, records: list[bytes], position: int, where: str) -> list[bytes]:
        """What of a block goes in."""
        kept = []
        for record in records:
            entries = entries_of(record, where)
            chosen = [one for entry in entries for one in self._chosen(entry, position, where)]
            if chosen:
                kept.append(record if chosen == entries else encode_record(chosen))
        return kept

    def _chosen(self, entry: Entry, position: int, where: str) -> Iterator[Entry]:
        """The entries that go in now."""
        what = self._ends.take(entry, position, where)
        if what is Taken.NOTE:
            if isinstance(decode_note(entry.data), Adopted | Installed):
                if self._point is None:
                    yield entry
                else:
                    self._waiting.setdefault(entry.group, []).append(entry)
        elif what is Taken.BELOW:
            if self._point is not None:
                self._point.below(entry, where)
            yield entry
        elif what is Taken.ABOVE:
            if self._point is None or self._point.admits(entry, where):
                yield from self._waiting.pop(entry.group, ())
                yield entry
            else:
                self.left_out += 1


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
