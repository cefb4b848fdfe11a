"""Guests: groups whose rows come from a peer, and which become ours with a checkpoint.

The question: at which instant is a group installed? When a checkpoint is committed whose row about the node names it. Its rows go to the
store before that, in the transaction of whatever checkpoint is under way, and count for nothing until then. So a guest that has all
its rows written, and its part of the log durable, waits for the next checkpoint to begin; the last part of that holds its summary and
its name. Fails it, all that was written for a guest since the last commit is gone, and the guest begins anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from crdtstore.engine.checkpoint import saved_path
from crdtstore.storage.protocol import Row

if TYPE_CHECKING:
    from crdtstore.host import HostOutput

__all__ = ["Guest", "Guests"]


class Guest(Protocol):
    """A group that is being installed."""

    group: str
    number: int
    rows: int
    """How many rows of it are written."""
    summary: bytes | None
    """The row about the group, once nothing else is missing."""
    log_from: int | None
    """The log is needed from this position on."""

    def written(self, rows: int, now_ms: int, out: HostOutput) -> None:
        """The next part is written: so many rows more."""

    def failed(self, now_ms: int) -> None:
        """Nothing that was handed out counts any more."""

    def landed(self, now_ms: int, out: HostOutput) -> None:
        """It is committed: the group is ours."""


class Guests:
    """The guests of one node. Mutable; part of its saving."""

    def __init__(self) -> None:
        self._all: list[Guest] = []
        self._due: dict[int, Guest] = {}
        self._landing: list[Guest] = []
        """Those that the checkpoint under way names."""
        self.kept: dict[str, bytes] = {}
        """Of the groups that it does not name what their notes said when it began."""

    def admit(self, guest: Guest) -> None:
        self._all.append(guest)

    def dismiss(self, guest: Guest) -> None:
        """It came to nothing, or it has landed."""
        self._all = [each for each in self._all if each is not guest]
        self._landing = [each for each in self._landing if each is not guest]
        self._due = {number: each for number, each in self._due.items() if each is not guest}

    @property
    def is_writing(self) -> bool:
        return bool(self._due)

    # --- what the store does

    def due(self, number: int, guest: Guest) -> None:
        """This is on its way to the disk."""
        self._due[number] = guest

    def written(self, number: int, rows: int, now_ms: int, out: HostOutput) -> None:
        guest = self._due.pop(number, None)
        if guest is not None:
            guest.written(rows, now_ms, out)

    def fail(self, now_ms: int) -> None:
        self._due.clear()
        self._landing = []
        for guest in list(self._all):
            guest.failed(now_ms)

    # --- the checkpoint

    def begin(self) -> list[int]:
        """A checkpoint begins; return from where on guests need the log."""
        self._landing = [guest for guest in self._all if guest.summary is not None]
        return [guest.log_from for guest in self._all if guest.log_from is not None]

    def wait(self) -> None:
        """It came to nothing: they wait for the next one."""
        self._landing = []

    def rows(self) -> tuple[list[Row], dict[str, int], dict[str, int]]:
        """What its last part says of guests: rows about groups, numbers and counts of rows."""
        rows: list[Row] = []
        numbers, counts = dict[str, int](), dict[str, int]()
        for guest in self._landing:
            assert guest.summary is not None
            rows.append((saved_path(guest.number), guest.summary))
            numbers[guest.group], counts[guest.group] = guest.number, guest.rows + 1
        return rows, numbers, counts

    def landed(self) -> list[Guest]:
        """It is committed; return whom it names."""
        landed, self._landing = self._landing, []
        return landed
