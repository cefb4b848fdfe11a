"""What a replica measures of itself, in plain integers: exported by the driver, never labelled here.

Histograms are log-linear: exact below 32, then 16 steps per power of two, so a percentile is off by less than 7 %.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence

from crdtstore.clock import COUNTER_BITS
from crdtstore.commit import Commit

__all__ = ["Histogram", "Measures"]

_SUB_BITS = 4
_MOST_ISSUED = 1 << 16


def _upper(value: int) -> int:
    """The greatest value of the bucket that this one falls into."""
    if value < 2 << _SUB_BITS:
        return value
    shift = value.bit_length() - _SUB_BITS - 1
    return ((value >> shift) + 1 << shift) - 1


class Histogram:
    """Counts of integers >= 0. Mutable."""

    __slots__ = ("count", "counts", "greatest", "total")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.count = 0
        self.total = 0
        self.greatest = 0

    @classmethod
    def joined(cls, parts: Iterable[Histogram]) -> Histogram:
        """One that has counted what these have."""
        whole = cls()
        for part in parts:
            for upper, times in part.counts.items():
                whole.counts[upper] = whole.counts.get(upper, 0) + times
            whole.count += part.count
            whole.total += part.total
            whole.greatest = max(whole.greatest, part.greatest)
        return whole

    def note(self, value: int, times: int = 1) -> None:
        """Count a value; a negative one (two clocks that differ) counts as zero."""
        value = max(0, value)
        upper = value
        if value >= 2 << _SUB_BITS:  # as ``_upper``: this is done for every commit
            shift = value.bit_length() - _SUB_BITS - 1
            upper = ((value >> shift) + 1 << shift) - 1
        self.counts[upper] = self.counts.get(upper, 0) + times
        self.count += times
        self.total += value * times
        self.greatest = max(self.greatest, value)

    def note_all(self, values: list[int]) -> None:
        """Count many values.

        Cost:    O(buckets) beside what sorting and adding up take, which is little for values that ascend or descend.
        """
        if not values:
            return
        values = sorted(values)
        if values[0] < 0:  # as in ``note``
            values = [max(0, value) for value in values]
        at = 0
        while at < len(values):
            upper = _upper(values[at])
            end = bisect_right(values, upper, at)
            self.counts[upper] = self.counts.get(upper, 0) + end - at
            at = end
        self.count += len(values)
        self.total += sum(values)
        self.greatest = max(self.greatest, values[-1])

    def buckets(self) -> list[tuple[int, int]]:
        """(greatest value of the bucket, count), ascending."""
        return sorted(self.counts.items())

    def percentile(self, share: float) -> int | None:
        """The value below or at which this share (0 to 1) of all lies; None when there is none."""
        if not self.count:
            return None
        wanted, seen = share * self.count, 0
        for upper, times in self.buckets():
            seen += times
            if seen >= wanted:
                return min(upper, self.greatest)
        return self.greatest


class Measures:
    """Counters of one group at one replica. Mutable."""

    def __init__(self, replicas: int) -> None:
        self.commits_received = 0
        self.commits_received_twice = 0
        self.commit_bytes_received = 0
        self.commits_sent = 0
        self.commits_relayed = 0
        self.commit_bytes_sent = 0
        self.refused = 0
        self.foreign_configuration = 0
        self.visibility_ms = [Histogram() for _ in range(replicas)]
        """Per origin: from a commit's stamp to its application here."""
        self.window_ms = Histogram()
        """Own commits: from issue until every other member was heard to have it durably (one way too long)."""
        self.unreadable = 0
        """How often something on disk could not be read."""
        self._issued_ms: deque[int] = deque()
        """When own commits were issued of which not all members are known to have them, from ``_first`` + 1 on."""
        self._recovered = self._first = 0

    def admit(self) -> None:
        """There is one more replica."""
        self.visibility_ms.append(Histogram())

    def start(self, seq: int) -> None:
        """Own commits up to this one were issued in an earlier life; when, the log may tell of the last of them."""
        self._first = seq

    def note_received(self, commits: list[bytes]) -> None:
        """A frame came."""
        self.commits_received += len(commits)
        self.commit_bytes_received += sum(map(len, commits))

    def note_visible(self, origin: int, commits: Sequence[Commit], now_ms: int) -> None:
        """Commits of one origin were applied here."""
        self.visibility_ms[origin].note_all([now_ms - (commit.hlc >> COUNTER_BITS) for commit in commits])

    def note_issued(self, now_ms: int, count: int = 1, *, is_recovered: bool = False) -> None:
        """Own commits are issued; of more than ``_MOST_ISSUED`` that not all members have, the oldest are not measured."""
        issued = self._issued_ms
        if count == 1:
            issued.append(now_ms)
        else:
            issued.extend([now_ms] * count)
        if is_recovered:
            self._recovered = self._first + len(issued)
        while len(issued) > _MOST_ISSUED:
            issued.popleft()
            self._first += 1

    def note_acknowledged(self, seq: int, now_ms: int, *, is_first: bool = False) -> None:
        """All members have own commits up to ``seq``. What they had already when first heard after a restart is not measured."""
        issued, first = self._issued_ms, self._first
        count = min(seq - first, len(issued))
        if count == 1 and not is_first:
            self.window_ms.note(now_ms - issued.popleft())
        elif count > 0:  # all that was issued since a member was last heard, perhaps
            known = max(0, min(self._recovered - first, count)) if is_first else 0
            gone = [issued.popleft() for _ in range(count)]
            self.window_ms.note_all([now_ms - issued_ms for issued_ms in gone[known:]])
        self._first = max(first, seq)
