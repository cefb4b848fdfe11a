"""Sessions: with its token a session never reads back in time, and always its own writes, whichever replica it asks.

The question: what has a session seen? Not what its token says, for the token may be wrong, but what it was shown: the dots of its
acknowledged writes and all that was durable at a node when that node answered it.
"""

from __future__ import annotations

from operator import gt

from crdtstore.causal import Dot
from crdtstore_sim.facts import Facts, Group

__all__ = ["Sessions"]


class Sessions:
    """Mutable: per session and group the vector of what it was shown."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._seen: dict[tuple[int, str], list[int]] = {}

    def on_written(self, session: int, group: Group, dot: Dot) -> None:
        """A write of a session was acknowledged."""
        seen = self._seen.setdefault((session, group.name), [0] * len(self._facts.members))
        origin = self._facts.index[dot.replica]
        seen[origin] = max(seen[origin], dot.seq)

    def forget(self, session: int) -> None:
        """A session begins anew: what it had seen is gone, and it was told so."""
        for known in [known for known in self._seen if known[0] == session]:
            del self._seen[known]

    def on_read(self, session: int, group: Group, node: int) -> None:
        """A session with its token was answered by a node."""
        seen = self._seen.setdefault((session, group.name), [0] * len(self._facts.members))
        shown = group.durable[node]
        if any(map(gt, seen, shown)):
            self._facts.report(
                "sessions",
                f"{group.name}: session {session} had seen {seen}, {self._facts.members[node]} answers at {shown}",
            )
        told = self._facts.told_durable(group, node)
        self._seen[session, group.name] = [max(pair) for pair in zip(seen, told, strict=True)]
