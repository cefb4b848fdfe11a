"""Growth: the table of the replicas that were ever known here gets longer, and which of them count changes.

The question: what does an index mean once somebody joined? What it meant before, for ever: dots in memory, in checkpoints and in what
waits for the disk are made of indexes. So replicas are only added, behind all others, and every list by replica gets a place more. Who
counts, for what is stable and for how stale a read may be, is another matter: the others of the configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from crdtstore.causal import ReplicaId
from crdtstore.commit import chain_start
from crdtstore.engine.causality import Causality
from crdtstore.engine.durability import Durability
from crdtstore.engine.early import Early
from crdtstore.engine.measures import Histogram
from crdtstore.engine.replay import Replay
from crdtstore.engine.rows import Rows
from crdtstore.engine.stability import Stability
from crdtstore.engine.trust import Trust

if TYPE_CHECKING:
    from crdtstore.engine.engine import Engine

__all__ = ["admit", "count_members", "members_of", "renumber"]


def admit(engine: Engine, replica: ReplicaId) -> int:
    """The index of a replica, which is entered in the table if it is not there.

    Cost:  O(replicas), and a look at what is on its way to the disk; nothing per commit or key.
    """
    replicas = engine.replicas
    if replica in replicas:
        return replicas.index(replica)
    start = chain_start(engine.cluster, engine.group, replica)
    replicas.append(replica)
    engine.applied.append(0)
    engine.causality.admit(replica)
    engine.durability.admit()
    engine.early.admit()
    engine.history.admit(replica, start)
    engine.keyspace.tree.admit()
    engine.measures.admit()
    engine.rows.admit(start)
    engine.stability.admit()
    engine.trust.admit()
    engine.replay.admit()
    engine.antientropy.admit()
    return len(replicas) - 1


def members_of(engine: Engine) -> list[ReplicaId]:
    """The members that count here, this replica among them, in the order of the configuration."""
    indexes = [*engine.others[: engine.position], engine.me, *engine.others[engine.position :]]
    return [engine.replicas[at] for at in indexes]


def count_members(
    engine: Engine, members: Sequence[ReplicaId], me: ReplicaId, awaited: Sequence[ReplicaId] = ()
) -> None:
    """From now on these are the members, in this order, and this replica is ``me``; who is new is admitted. What rows said before counts
    no more.

    ``awaited``: who was removed, but may have left commits that are not here yet: no stamp and no reading may pass over these.
    """
    engine.me = engine.admit(me)
    engine.others = [engine.admit(member) for member in members if member != me]
    engine.position = members.index(me) if me in members else len(members)
    gone = [engine.admit(replica) for replica in awaited if replica != me]
    engine.rows.adopt(engine.others, gone)
    engine.stability.adopt(engine.others, gone)
    engine.antientropy.adopt(engine.others)
    engine.trust.adopt()
    engine.early.clear()


def renumber(engine: Engine, replicas: Sequence[ReplicaId]) -> None:
    """Before anything happened: let the table be this one. Who the members are, and who of them this replica is, has to be said again
    (``count_members``), and the history to be made anew.
    """
    engine.replicas[:] = replicas
    count = len(replicas)
    engine.applied[:] = [0] * count
    engine.causality = Causality(engine.replicas)
    engine.durability = Durability(count)
    engine.early = Early(count, engine.options.early_bytes)
    engine.measures.visibility_ms = [Histogram() for _ in range(count)]
    engine.rows, engine.stability = Rows(count, -1), Stability(count, -1)
    engine.trust, engine.replay = Trust(engine), Replay(engine)
    engine.antientropy.peers = {}
