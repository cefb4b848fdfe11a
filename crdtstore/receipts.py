"""Write receipts: replies to commits that wait until other regions have them durably, and which regions these are.

The question: how does this node know what is durable elsewhere? From the rows that members say of themselves, which name durable commits
only: a region has a commit when the row of one of its members covers it, and the region of its maker has whatever came from there. A row
counts in the configuration in which it was said, so whoever is no member any more counts no more, and who has just become one has said
nothing yet. Only one thing is certain without rows: a reply is given when the commit is durable here.

Waiting costs a look when rows have moved, per group, maker and number of regions, and no look at those who wait: what k other regions have
is one number, and who waits stands in its order.

Source: DESIGN 4 (rows); API 3 (write).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct
from sortedcontainers import SortedList

from crdtstore.engine.output import Committed, doubt
from crdtstore.errors import CrdtStoreError, UsageError

if TYPE_CHECKING:
    from crdtstore.engine.engine import Engine

__all__ = ["Receipts"]

_NEVER = 1 << 63
"""Unix ms at which nothing is due."""
_Answer = tuple[int, dict[str, Any] | CrdtStoreError]


class _Line(Struct):
    """Who waits for so many other regions to have commits of one maker in one group."""

    engine: Engine
    origin: int
    wanted: int
    waiting: SortedList[tuple[int, int]]
    """(number of the commit, ticket)."""
    moves: int = -1
    """Which state of the rows was looked at."""


class _Receipt(Struct):
    """One reply that waits."""

    line: _Line
    seq: int
    deadline_ms: int
    body: dict[str, Any]


class Receipts:
    """The receipts of one node. Mutable; part of the service, which bounds how many wait."""

    def __init__(self, region: str) -> None:
        """``region`` is that of this node."""
        self._region = region
        self._lines: dict[tuple[str, int, int], _Line] = {}
        self._waiting: dict[int, _Receipt] = {}
        """By ticket."""
        self._deadlines: SortedList[tuple[int, int]] = SortedList()
        self.late = 0
        """How often fewer regions than were asked for had a commit in time."""

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, ticket: int) -> bool:
        return ticket in self._waiting

    @property
    def wake_ms(self) -> int:
        """When the next one has waited long enough."""
        return self._deadlines[0][0] if self._deadlines else _NEVER

    # --- what is known

    def check(self, engine: Engine, wanted: int) -> None:
        """Refuse to wait for more regions than there are.

        Raises:  UsageError ``bad-request`` saying how many there are; nothing changed.
        """
        others = self._others(engine)
        if wanted > len(others):
            there_are = f"there are {len(others)} ({', '.join(sorted(others))})" if others else "there are none"
            raise UsageError(
                f"regions says how many other regions are to have the write durably, and {there_are}, got {wanted}. Nothing changed."
            )

    def durable_in(self, engine: Engine, origin: int, seq: int) -> list[str]:
        """The regions that are known to have a commit durably: this one, in which it is, then others in alphabetical order."""
        reached = self._reached(engine, origin)
        return [self._region, *sorted(region for region, upto in reached.items() if upto >= seq)]

    def _others(self, engine: Engine) -> set[str]:
        return {member.region for member in engine.configuration.members} - {self._region}

    def _reached(self, engine: Engine, origin: int) -> dict[str, int]:
        """Up to which number each other region is known to have the commits of a replica.

        Cost:    O(members).
        """
        newest = engine.rows.newest
        reached: dict[str, int] = {}
        for member, at in zip(engine.configuration.members, engine.membership.shape.members, strict=True):
            if member.region == self._region:
                continue
            upto = reached.get(member.region, 0)
            if at == origin:  # nothing leaves its maker before it is durable there
                upto = max(upto, engine.durability.vector[origin])
            elif (row := newest[at]) is not None:
                upto = max(upto, row.vector[origin])
            reached[member.region] = upto
        return reached

    # --- waiting

    def wait(self, engine: Engine, committed: Committed, wanted: int, deadline_ms: int, body: dict[str, Any]) -> None:
        """Keep the reply to a commit that is durable here until ``wanted`` other regions have it, or it is time; ``on_step`` gives it."""
        key = (engine.group, committed.origin, wanted)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(engine, committed.origin, wanted, SortedList())
        line.waiting.add((committed.seq, committed.ticket))
        line.moves = -1
        self._waiting[committed.ticket] = _Receipt(line, committed.seq, deadline_ms, body)
        self._deadlines.add((deadline_ms, committed.ticket))

    def forget(self, ticket: int) -> None:
        """Who asked is gone; the write stays."""
        if ticket in self._waiting:
            self._take(ticket)

    def _take(self, ticket: int) -> _Receipt:
        receipt = self._waiting.pop(ticket)
        line = receipt.line
        line.waiting.remove((receipt.seq, ticket))
        self._deadlines.remove((receipt.deadline_ms, ticket))
        if not line.waiting:
            del self._lines[line.engine.group, line.origin, line.wanted]
        return receipt

    def on_step(self, now_ms: int) -> list[_Answer]:
        """The answers to those that need not wait any longer.

        Cost:    O(lines), and O(members) for each of which rows have moved.
        """
        answers: list[_Answer] = []
        for line in list(self._lines.values()):
            engine = line.engine
            if engine.fenced_by is not None or engine.membership.is_removed:
                answers += [self._doubtful(ticket) for _, ticket in list(line.waiting)]
            elif line.moves != engine.rows.moves:
                line.moves = engine.rows.moves
                answers += self._look(line)
        while self._deadlines and self._deadlines[0][0] <= now_ms:
            ticket = self._deadlines[0][1]
            answers.append(self._answer(ticket))
            self.late += 1
        return answers

    def _look(self, line: _Line) -> list[_Answer]:
        reached = sorted(self._reached(line.engine, line.origin).values(), reverse=True)
        if (
            len(reached) < line.wanted
        ):  # a region went; until it is time another may come, and all others say their rows anew
            return []
        upto = reached[line.wanted - 1]
        count = line.waiting.bisect_left((upto + 1, -_NEVER))
        return [self._answer(ticket) for _, ticket in list(line.waiting[:count])]

    def _answer(self, ticket: int) -> _Answer:
        receipt = self._take(ticket)
        line = receipt.line
        return ticket, receipt.body | {"durable_in": self.durable_in(line.engine, line.origin, receipt.seq)}

    def _doubtful(self, ticket: int) -> _Answer:
        """This node's id has come to count no more; the write may go with it."""
        self._take(ticket)
        return ticket, doubt()
