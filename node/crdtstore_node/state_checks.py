"""Whether the state beside a log is what was written there, found out without changing anything.

The question: what does it take to say so? SQLite finds a page that is no page. A row that vanished, or one that came from elsewhere,
only the digest and the counts of the checkpoint give away, and for them every row has to be read.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from msgspec import Struct, field

from crdtstore.engine.checkpoint import read_node
from crdtstore.errors import StorageError
from crdtstore.scrub import group_steps
from crdtstore.storage.sqlite_file import FILE_NAME, refuse_foreign
from crdtstore_node.log_checkpoint import Checkpoint, StateFile, checkpoint_of

__all__ = ["StateReport", "check_state", "read_checkpoint"]


class StateReport(Struct):
    """What ``check_state`` found."""

    path: Path
    is_there: bool = False
    checkpoint: Checkpoint | None = None
    """What the log has to hold for it; None: nobody can say."""
    rows: int | None = None
    """How many were read, all as they were written; None: they were not looked at."""
    damage: list[tuple[str, str]] = field(default_factory=list)
    """File, and what is wrong with it."""

    def note(self, error: StorageError) -> None:
        file = str(error.more.get("file", self.path))
        found = file, error.detail.removeprefix(f"{file}: ")
        if found not in self.damage:
            self.damage.append(found)


def read_checkpoint(data: Path) -> Checkpoint | None:
    """What the log has to hold for the state: all of it when there is none; None: the state cannot be read."""
    try:
        return checkpoint_of(data) or Checkpoint(0, {}, {})
    except StorageError:
        return None


def check_state(data: Path, *, reads_rows: bool) -> StateReport:
    """Check the file of the state; with ``reads_rows`` also every row, the state digest of each group and how many rows it has.

    Cost:    one pass over the file; with ``reads_rows`` a few microseconds a row.
    """
    report = StateReport(data / FILE_NAME)
    try:
        report.is_there = refuse_foreign(report.path)
        if report.is_there:
            with closing(StateFile(report.path)) as state:
                state.check()
                if reads_rows:
                    _read_rows(report, state)
        report.checkpoint = checkpoint_of(data) or Checkpoint(0, {}, {})
    except StorageError as error:
        report.note(error)
    return report


def _read_rows(report: StateReport, state: StateFile) -> None:
    node = read_node(state)
    report.rows = 0
    if node is None:
        return
    for group, number in node.groups.items():
        try:
            for _ in group_steps(state, group, number, node.counts[group]):
                pass
        except StorageError as error:
            report.note(error)
        else:
            report.rows += node.counts[group]
