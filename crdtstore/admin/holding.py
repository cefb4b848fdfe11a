"""Which member holds back how much: what all members have need not be kept, so one that has little keeps the log of all others long.

The question: whom may the others evict for it by themselves? Only who holds back more than the operator allowed, and went on doing so for
a while; only while the others are a quorum that can be spoken to now, for a node that is cut off must not blame those it cannot hear; and
never oneself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdtstore.causal import ReplicaId
from crdtstore.engine.membership.changes import Evict

if TYPE_CHECKING:
    from crdtstore.engine.engine import Engine
    from crdtstore.host import Host

__all__ = ["Holding", "held_back"]

_PATIENCE_MS = 5_000
"""Who lacks too much gets so long to catch up."""


def held_back(engine: Engine) -> tuple[int, ReplicaId | None]:
    """How many bytes of commits one member lacks that all of them are kept for, and who it is; the one that lacks most.

    What was last heard of a member counts, under whatever configuration.

    Cost:    O(members x replicas).
    """
    most, who = 0, None
    if not engine.takes_part:
        return most, who
    durable = engine.durability.vector
    known = list(engine.stability.stable)
    for replica, final in engine.configuration.finals.items():
        known[engine.replicas.index(replica)] = final
    if known == durable:
        return most, who
    claims = engine.membership.claims.keep()
    for other in engine.others:
        claim = claims.get(str(engine.replicas[other]))
        said = {} if claim is None else claim.vector
        lacks = 0
        for origin, (everywhere, here) in enumerate(zip(known, durable, strict=True)):
            has = max(everywhere, said.get(str(engine.replicas[origin]), 0))
            if has < here:
                lacks += engine.history.size(origin, has, here)
        if lacks > most:
            most, who = lacks, engine.replicas[other]
    return most, who


class Holding:
    """Since when who holds back too much. Mutable; part of the roster."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._since_ms: dict[ReplicaId, int] = {}

    def evicts(self, system: Engine, now_ms: int) -> Evict | None:
        """Whom the others are to evict because of what is kept for it; None: nobody, or the operator does not want that."""
        allowed = self._host.options.evict_held_bytes
        if not allowed:
            return None
        found = set[ReplicaId]()
        for engine in self._host.groups.values():
            held, who = held_back(engine)
            if who is not None and held > allowed and self._may_go(system, who):
                found.add(who)
        self._since_ms = {replica: self._since_ms.get(replica, now_ms) for replica in sorted(found)}
        for replica, since_ms in self._since_ms.items():
            if now_ms - since_ms >= _PATIENCE_MS:
                return Evict((replica,), system.configuration.id)
        return None

    def _may_go(self, system: Engine, who: ReplicaId) -> bool:
        """Whether those others that can be spoken to now may decide without it."""
        configuration = system.configuration
        rest = [self._host.me.replica, *(each for each in self._host.connected if each != who)]
        left = [member for member in configuration.members if member.replica != who]
        return (
            configuration.member(who) is not None
            and configuration.is_quorum(rest)
            and not self._host.cluster.missing_workers(left)
        )
