"""Deps: what the issuer of a commit had seen, sent as the increase since its previous commit.

The question: may this commit be applied here? Yes, when everything its issuer had seen is applied. Since its previous commit passed the
same test, only what increased needs a look. Rosters give the meaning of the short indexes; each origin has its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from crdtstore.causal import ReplicaId
from crdtstore.errors import ProtocolError

__all__ = ["NONE", "Causality", "Resolved"]

Resolved = Sequence[tuple[int, int]]
"""What increased: (index of replica, its new entry in the issuer's vector)."""
NONE: Resolved = ()
"""Nothing did: by far the most frequent."""


class Causality:
    """Rosters and last deps of every origin. Mutable; a step forward per applied commit."""

    __slots__ = ("_advanced", "_index", "_issuer", "_replicas", "deps", "rosters")

    def __init__(self, replicas: Sequence[ReplicaId]) -> None:
        self._replicas = replicas
        self._index = {replica: index for index, replica in enumerate(replicas)}
        self.rosters = [[index] for index in range(len(replicas))]
        self.deps = [[0] * len(replicas) for _ in replicas]
        """``deps[o]``: the vector of ``o`` when it made its last commit; as the cut of that commit, own entry = seq - 1. Empty: settled."""
        self._issuer = -1
        """Whose deps were asked for last."""
        self._advanced: set[int] = set()
        """The others that went on since its last commit: to look at all that ever were would cost each commit as much."""

    def admit(self, replica: ReplicaId) -> None:
        """There is one more replica, the last of the list this was made with."""
        index = len(self.rosters)
        self._index[replica] = index
        self.rosters.append([index])
        for deps in self.deps:
            if deps:
                deps.append(0)
        self.deps.append([0] * (index + 1))

    def settle(self, origin: int) -> None:
        """All commits of an origin that count are here: nobody asks for its deps any more, and of many that would be many."""
        self.deps[origin] = []

    def resolve(self, origin: int, increases: Sequence[str | int]) -> Resolved:
        """Deps on the wire as replica indexes and vector entries.

        Raises:  ProtocolError for a position or id that does not exist; nothing changed.
        """
        if not increases:
            return NONE
        roster, deps = self.rosters[origin], self.deps[origin]
        fresh: list[int] = []
        resolved = []
        for at in range(0, len(increases), 2):
            name, increase = increases[at], increases[at + 1]
            if isinstance(name, str):
                index = self._index.get(ReplicaId(name))
                if index is None or index in roster or index in fresh:
                    raise ProtocolError(f"deps introduce {name}, which is not a member or was introduced before")
                fresh.append(index)
            elif 0 < name < len(roster):
                index = roster[name]
            else:
                raise ProtocolError(f"deps name position {name} of a roster of {len(roster)}")
            resolved.append((index, deps[index] + int(increase)))
        return resolved

    def advance(self, origin: int, seq: int, resolved: Resolved) -> list[int]:
        """Take note that commit ``seq`` is applied; return its cut."""
        deps = self.deps[origin]
        if resolved:
            roster = self.rosters[origin]
            for index, entry in resolved:
                deps[index] = entry
                if index not in roster:
                    roster.append(index)
        deps[origin] = seq - 1
        if origin == self._issuer:
            self._advanced.clear()
        else:
            self._advanced.add(origin)
        return deps

    def increase(self, origin: int, applied: Sequence[int]) -> tuple[tuple[str | int, ...], Resolved]:
        """The deps of the next commit of ``origin``, whose vector is ``applied``: on the wire and resolved."""
        roster, deps = self.rosters[origin], self.deps[origin]
        if origin != self._issuer:
            self._issuer, self._advanced = origin, set(range(len(applied)))
        wire: list[str | int] = []
        resolved: list[tuple[int, int]] = []
        for index in sorted(self._advanced) if self._advanced else ():
            seq = applied[index]
            if seq > deps[index] and index != origin:
                wire += (roster.index(index) if index in roster else self._replicas[index], seq - deps[index])
                resolved.append((index, seq))
        return tuple(wire), resolved
