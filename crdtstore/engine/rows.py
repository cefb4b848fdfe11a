"""What a replica knows of the others: their newest rows, and from these how far it is behind and how stale its reads may be.

Lists are over all replicas that were ever known; ``others`` says which of them count, the other members of the configuration.

The question: what does silence mean? Not health. The frontier of an origin is the time up to which this replica surely has everything
of it; it moves only when something of that origin arrives, so in a cut staleness grows with slope one, also when nobody writes (L6).
Formulas: ALGORITHMS 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from crdtstore.clock import physical_ms
from crdtstore.messages import Row

__all__ = ["Rows"]


class Rows:
    """The newest row of every replica that said one, and per origin the frontier in Unix ms. Mutable."""

    __slots__ = ("_awaited", "_beats", "floor", "frontier", "moves", "newest", "others")

    def __init__(self, replicas: int, me: int) -> None:
        self.others = [at for at in range(replicas) if at != me]
        """The indexes of the other members."""
        self._awaited = self.others
        """Of whom something may be missing here: the others, and who is gone but may have left what others have."""
        self.newest: list[Row | None] = [None] * replicas
        self.moves = 0
        """Counts how often more became known of what others have, or who they are: whoever waits for that looks when it changes."""
        self.floor = [0] * replicas
        """What every other member is known to have; one never heard counts as zero (P6)."""
        self.frontier: list[int | None] = [None] * replicas
        """Per origin the time (Unix ms) up to which everything of it is here."""
        self._beats: list[tuple[int, int] | None] = [None] * replicas
        """Per origin the oldest heartbeat (seq, ms) whose commits are not all here yet; keeping the newest would starve."""

    def admit(self, start: bytes) -> None:
        """There is one more replica, of which nobody has anything yet; ``start`` is the beginning of its chain."""
        for at, row in enumerate(self.newest):
            if row is not None:
                self.newest[at] = replace(row, vector=[*row.vector, 0], chains=[*row.chains, start])
        self.newest.append(None)
        self.floor = [*self.floor, 0]
        self.frontier.append(None)
        self._beats.append(None)

    def adopt(self, others: Sequence[int], awaited: Sequence[int] = ()) -> None:
        """From now on these are the other members; rows that were said before count no more. What was surely here still is.

        ``awaited``: who is no member any more, but may have left commits that are not here yet; reads are as stale as that.
        """
        self.others, self._awaited = list(others), [*others, *awaited]
        self.newest = [None] * len(self.newest)
        self.moves += 1
        self.floor = [0] * len(self.floor)

    def take(self, member: int, row: Row, applied: Sequence[int], now_ms: int) -> None:
        """Take in a row of a member, from itself or by way of others.

        Its heartbeat is true whether it is news or not, and counts: after a clock was set back the newest heartbeat is not the greatest.
        """
        heard_ms = min(physical_ms(row.hlc), now_ms)
        if not row.hlc:
            pass  # no heartbeat: it has just begun, and promises nothing yet
        elif row.vector[member] <= applied[member]:
            self._advance(member, heard_ms)
        elif self._beats[member] is None:
            self._beats[member] = (row.vector[member], heard_ms)
        known = self.newest[member]
        if known is not None and row.vector == known.vector:  # a heartbeat, mostly
            if row.hlc > known.hlc:
                self.newest[member] = row
        elif known is None or (sum(row.vector), row.hlc) > (sum(known.vector), known.hlc):
            self.newest[member] = row
            self.moves += 1
            self._raise_floor()

    def _raise_floor(self) -> None:
        vectors = [row.vector for at in self.others if (row := self.newest[at]) is not None]
        if vectors and len(vectors) == len(self.others):
            self.floor = list(map(min, zip(*vectors, strict=True)))

    def applied(self, origin: int, seq: int, hlc: int, now_ms: int) -> None:
        """A commit of an origin was applied here."""
        self._advance(origin, min(physical_ms(hlc), now_ms))
        beat = self._beats[origin]
        if beat is not None and beat[0] <= seq:
            self._advance(origin, beat[1])
            self._beats[origin] = None

    def _advance(self, origin: int, ms: int) -> None:
        before = self.frontier[origin]
        if before is None or ms > before:
            self.frontier[origin] = ms

    def known(self, durable: Sequence[int]) -> list[int]:
        """The join of all vectors this replica knows of."""
        joined = list(durable)
        for row in self.newest:
            if row is not None:
                joined = [max(pair) for pair in zip(joined, row.vector, strict=True)]
        return joined

    def staleness_ms(self, now_ms: int) -> int | None:
        """No write older than this can be missing here; None until every member was heard."""
        oldest_ms = now_ms
        for origin in self._awaited:
            frontier_ms = self.frontier[origin]
            if frontier_ms is None:
                return None
            oldest_ms = min(oldest_ms, frontier_ms)
        return now_ms - oldest_ms

    def lag_ms(self, durable: Sequence[int], now_ms: int) -> int | None:
        """The commits known to be missing here are at most so old; 0 when none is, None when it cannot be told (never 0: L6)."""
        missing = [origin for origin, seq in enumerate(self.known(durable)) if seq > durable[origin]]
        frontiers = [frontier for origin in missing if (frontier := self.frontier[origin]) is not None]
        if len(frontiers) < len(missing):
            return None
        return max(0, now_ms - min(frontiers)) if frontiers else 0
