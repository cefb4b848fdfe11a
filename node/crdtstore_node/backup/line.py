"""Which backups a point in time needs: one whose checkpoint is not beyond it, and those that go on with its log.

The question: what lies between two backups? The log, and each backup holds some of it from before its own checkpoint: positions count the
bytes since the log of a replica began, so where one backup ends another goes on, if they overlap. They do unless the node cut its log in
between: then it takes more frequent backups, or a greater ``retain_bytes``, to reach every moment.
"""

from __future__ import annotations

from collections.abc import Sequence

from crdtstore.errors import UsageError
from crdtstore_node.backup.point import Wanted, is_beyond, is_reached, parse_wanted
from crdtstore_node.backup.source import Backup, backups_of, is_backup, open_backup
from crdtstore_node.backup.target import open_target

__all__ = ["find_line", "open_line"]


def open_line(source: str, at: str | None) -> tuple[Backup, list[Backup]]:
    """The backup to restore, and those that go on with its log as far as the point asks; with a point ``source`` may also be a target.

    Raises:  UsageError when there is none, or none that the point can be reached from.
    """
    if at is None:
        return open_backup(source), []
    if is_backup(open_target(source)):
        base = open_backup(source)
        beside = source.rstrip("/").rpartition("/")[0] or ("/" if source.startswith("/") else ".")
        others = backups_of(open_target(beside))
        return base, _continued(base, others, parse_wanted(at, base.manifest))
    found = backups_of(open_target(source))
    if not found:
        return open_backup(source), []  # says that there is none
    return find_line(found, parse_wanted(at, found[-1].manifest))


def find_line(backups: Sequence[Backup], wanted: Wanted) -> tuple[Backup, list[Backup]]:
    """The newest of these that is not beyond the point, and those that go on with its log.

    Raises:  UsageError when all are beyond it.
    """
    usable = [backup for backup in backups if not is_beyond(backup.manifest, wanted)]
    if not usable:
        raise UsageError("the checkpoints of all backups here are beyond this point. Nothing changed.")
    return usable[-1], _continued(usable[-1], backups, wanted)


def _continued(base: Backup, backups: Sequence[Backup], wanted: Wanted) -> list[Backup]:
    line: list[Backup] = []
    last = base.manifest
    while not is_reached(last, wanted):
        following = [
            backup
            for backup in backups
            if (backup.manifest.replica, backup.manifest.nonce) == (last.replica, last.nonce)
            and backup.manifest.log.needed <= last.log.end < backup.manifest.log.end
        ]
        if not following:
            break
        line.append(following[0])
        last = following[0].manifest
    return line
