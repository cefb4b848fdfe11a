"""Which key a request is about: all alike, or some far more often than others.

The question: what is a skew that can be checked? Zipf's: the k-th most popular of n keys is asked for with a probability
in proportion to ``1 / k ** exponent``, exactly, by inversion of the summed probabilities. Exponent 0 is uniform; 0.99 is
what YCSB calls zipfian.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from itertools import accumulate
from random import Random

__all__ = ["Zipf"]


class Zipf:
    """Ranks from 0 (the most popular) to ``count - 1``. Immutable."""

    def __init__(self, count: int, exponent: float) -> None:
        """Cost:  O(count) memory (8 bytes each), none for exponent 0."""
        self.count = count
        self.exponent = exponent
        self._sums = array("d")
        if exponent:
            self._sums.extend(accumulate((rank + 1) ** -exponent for rank in range(count)))

    def draw(self, random: Random) -> int:
        """Cost:  O(log count)."""
        if not self._sums:
            return random.randrange(self.count)
        return min(bisect_left(self._sums, random.random() * self._sums[-1]), self.count - 1)

    def probability(self, rank: int) -> float:
        """How often a rank is drawn."""
        if not self._sums:
            return 1 / self.count
        return (self._sums[rank] - (self._sums[rank - 1] if rank else 0.0)) / self._sums[-1]
