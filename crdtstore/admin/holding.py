"""Which member holds back how much: what all members have need not be kept, so one that has little keeps the log of all others long.

The question: whom may the others evict for it by themselves? Only who holds back more than the operator allowed; only while the others
are a quorum that can be spoken to now, for a node that is cut off must not blame those it cannot hear; and never oneself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdtstore.causal import ReplicaId
from crdtstore.engine.membership.changes import Evict

if TYPE_CHECKING:
    from crdtstore.engine.engine import Engine
    from crdtstore.host import Host

__all__ = ["held_back", "who_holds_back"]


def held_back(engine: Engine) -> tuple[int, ReplicaId | None]:
    """How many bytes of commits one member lacks that all of them are kept for, and who it is; the one that lacks most.

    What was last heard of a member counts, under whatever configuration.

    Cost:    O(members x replicas).
    """
    most, who = 0, None
    if not engine.takes_part:
        return most, who
    claims, stable, durable = engine.membership.claims.keep(), engine.stability.stable, engine.durability.vector
    for other in engine.others:
        claim = claims.get(str(engine.replicas[other]))
        said = {} if claim is None else claim.vector
        lacks = 0
        for origin, (known, here) in enumerate(zip(stable, durable, strict=True)):
            has = max(known, said.get(str(engine.replicas[origin]), 0))
            if has < here:
                lacks += engine.history.size(origin, has, here)
        if lacks > most:
            most, who = lacks, engine.replicas[other]
    return most, who


def who_holds_back(host: Host, system: Engine) -> Evict | None:
    """Whom the others are to evict because of what is kept for it; None: nobody, or the operator does not want that."""
    allowed = host.options.evict_held_bytes
    if not allowed:
        return None
    configuration = system.configuration
    for engine in host.groups.values():
        held, who = held_back(engine)
        if who is None or held <= allowed or configuration.member(who) is None:
            continue
        rest = [host.me.replica, *(each for each in host.connected if each != who)]
        if configuration.is_quorum([each for each in rest if configuration.member(each) is not None]):
            return Evict((who,), configuration.id)
    return None
