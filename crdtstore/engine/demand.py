"""Recent demand: how much was spent here of each key during the last seconds.

The question: what may a replica give away? What it is not about to need itself, and the only thing it knows of the future is the recent
past. Counted in slices of a tenth of the window, for a bounded number of keys, those spent last.
"""

from __future__ import annotations

from collections import OrderedDict, deque

__all__ = ["Demand", "Key"]

Key = tuple[str, str]
"""Collection as it stands in paths, key."""

_SLICES = 10


class Demand:
    """Amounts spent, by key. Mutable."""

    __slots__ = ("_max_keys", "_slice_ms", "_spent")

    def __init__(self, window_ms: int, max_keys: int) -> None:
        self._slice_ms = max(1, window_ms // _SLICES)
        self._max_keys = max_keys
        self._spent: OrderedDict[Key, deque[tuple[int, int]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._spent)

    def note(self, key: Key, at_ms: int, amount: int) -> None:
        """So much was spent then."""
        at = at_ms // self._slice_ms
        slices = self._spent.get(key)
        if slices is None:
            slices = self._spent[key] = deque(maxlen=_SLICES + 1)
            if len(self._spent) > self._max_keys:
                self._spent.popitem(last=False)
        self._spent.move_to_end(key)
        if slices and slices[-1][0] >= at:
            slices[-1] = (slices[-1][0], slices[-1][1] + amount)
        else:
            slices.append((at, amount))

    def recent(self, key: Key, now_ms: int) -> int:
        """What was spent within the window; forgets a key of which nothing was."""
        slices = self._spent.get(key)
        if slices is None:
            return 0
        oldest = now_ms // self._slice_ms - _SLICES
        while slices and slices[0][0] <= oldest:
            slices.popleft()
        if not slices:
            del self._spent[key]
        return max(0, sum(amount for _, amount in slices))
