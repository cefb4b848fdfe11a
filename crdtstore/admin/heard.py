"""What was heard of the others, and when.

The question: how many commits of a member are there only? Of one that is heard now, those that no row of another names. Of one that is
not heard nobody can say: it may go on making them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crdtstore.causal import ReplicaId
    from crdtstore.host import Host

__all__ = ["HEARD_MS", "heard_ms", "only_there"]

HEARD_MS = 5_000
"""Who was not heard for so long may have done anything meanwhile."""


def heard_ms(host: Host, replica: ReplicaId, now_ms: int) -> int | None:
    """How long ago anything was heard of a replica in any group; None: never since the start."""
    times = [
        heard[1]
        for engine in host.groups.values()
        if (heard := engine.membership.heard.get(replica)) is not None and heard[1]
    ]
    return max(0, now_ms - max(times)) if times else None


def only_there(host: Host, replicas: Sequence[ReplicaId], now_ms: int) -> int | None:
    """How many commits of these no other member is known to have; None when that is not known, for one of them is not heard."""
    if any(replica != host.me.replica and not _is_heard(host, replica, now_ms) for replica in replicas):
        return None
    count = 0
    for engine in host.groups.values():
        rest = [at for at in engine.others if engine.replicas[at] not in replicas]
        for replica in replicas:
            if replica not in engine.replicas or engine.configuration.member(replica) is None:
                continue
            at = engine.replicas.index(replica)
            row = engine.rows.newest[at]
            made = engine.durability.vector[at] if at == engine.me or row is None else row.vector[at]
            known = [row.vector[at] for other in rest if (row := engine.rows.newest[other]) is not None]
            if engine.me != at and host.me.replica not in replicas:
                known.append(engine.durability.vector[at])
            count += max(0, made - max(known, default=0))
    return count


def _is_heard(host: Host, replica: ReplicaId, now_ms: int) -> bool:
    ago_ms = heard_ms(host, replica, now_ms)
    return host.is_connected(replica) and ago_ms is not None and ago_ms <= HEARD_MS
