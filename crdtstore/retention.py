"""Retention: how much of the log is kept although nobody lacks it, for who asks later who wrote what, and why.

The question: how does one know what stands far back in the log, without a list of where each commit stands? By marks: every so many bytes
it is noted what stood up to there. The histories of the groups forget what is stable and stands behind the mark that is far enough back, a
little at a time; what they keep is what the log has to keep.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crdtstore.host import Host

__all__ = ["Retention"]

_MARKS = 8
"""So many places are remembered within what is retained: about an eighth more than that stays."""
_STEP = 1_000
"""So many commits of each origin are forgotten in one step."""


class Retention:
    """What the histories of one node forget. Mutable."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._bytes = host.options.retain_bytes
        self.position = 0
        """The block that was the last to become durable."""
        self.has_logged = False
        """Whether there is one."""
        self._marks: deque[tuple[int, dict[str, list[int]]]] = deque()
        """Places in the log, ascending, and what stood up to there, by group."""
        self._to_forget: list[tuple[str, list[int]]] = []
        self._forgotten: dict[str, list[int]] = {}
        """Up to where the histories were told to forget last."""

    def logged(self, position: int) -> None:
        """A block of the log became durable, or was replayed."""
        self.position = max(self.position, position)
        self.has_logged = True
        if not self._marks or position - self._marks[-1][0] >= self._bytes // _MARKS:
            reached = {group: list(engine.history.placed) for group, engine in self._host.groups.items()}
            self._marks.append((position, reached))

    def look_again(self) -> None:
        """More may be stable by now."""
        self._forgotten = {}

    def forget_some(self) -> bool:
        """Let the history of one group forget a little; return whether there is more."""
        if not self._to_forget:
            may_go = self._may_go()
            self._to_forget = list(may_go.items()) if may_go is not self._forgotten else []
            self._forgotten = may_go
        if self._to_forget:
            group, retained = self._to_forget[-1]
            engine = self._host.groups[group]
            base, goal = list(engine.history.base), list(map(min, engine.stability.stable, retained))
            goal += [0] * (len(base) - len(goal))  # who was admitted since then
            part = [min(known, before + _STEP) for known, before in zip(goal, base, strict=True)]
            engine.history.forget(part)
            if part == goal or engine.history.base == base:  # what is on disk goes block by block
                engine.history.forget(goal)
                self._to_forget.pop()
        return bool(self._to_forget)

    def _may_go(self) -> dict[str, list[int]]:
        """Per group the commits that stand so far back that they need not be retained."""
        marks, upto = self._marks, self.position - self._bytes
        while len(marks) > 1 and marks[1][0] <= upto:
            marks.popleft()
        return marks[0][1] if marks and marks[0][0] <= upto else {}
