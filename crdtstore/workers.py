"""Workers: which groups this process holds when a node consists of several, and who holds the others.

The question: what does a worker answer that is asked for what it does not hold? Not a part of the truth as if it were all of it, and
nothing that it would have to fetch: it names the worker that holds it, and the client asks that one from then on.

With one worker per node, which is the default, everything is held, and nothing here costs anything.
"""

from __future__ import annotations

from typing import Any

from crdtstore.configuration import Cluster, Member
from crdtstore.errors import Unavailable

__all__ = ["Workers"]


class Workers:
    """What one process of a node holds. ``addresses``: the API of each worker of this node, by index, where the driver knows them."""

    def __init__(self, cluster: Cluster, me: Member) -> None:
        self._cluster = cluster
        self._me = me
        self.addresses: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many workers each node has."""
        return self._cluster.workers

    @property
    def index(self) -> int:
        """Which of them this is."""
        return self._me.worker

    def holds(self, group: str) -> bool:
        """Whether this worker holds a group."""
        if self._cluster.workers == 1:
            return True
        owner = self._cluster.worker_of(group)
        return owner is None or owner == self._me.worker

    def directory(self) -> list[dict[str, Any]]:
        """The workers of this node, and where users reach them; ``api`` is None where this is not known here."""
        me, addresses = self._me, self.addresses
        if self._cluster.workers == 1:
            return [{"index": 0, "node": me.node, "region": me.region, "api": addresses[0] if addresses else None}]
        return [
            {
                "index": worker,
                "node": f"{me.machine}+{worker}",
                "region": me.region,
                "api": addresses[worker] if addresses else None,
            }
            for worker in range(self._cluster.workers)
        ]

    def wrong(self, domain: str, shards: int, group: str | None = None) -> Unavailable:
        """The answer to a request about what other workers hold: about one group, or, without it, about all of a domain."""
        known, workers = self._cluster, self.directory()
        more: dict[str, Any] = {"domain": domain, "shards": shards, "index": self.index, "workers": workers}
        if group is not None:
            owner = known.worker_of(group)
            assert owner is not None, "every worker holds it"
            where = workers[owner]
            at = f" at {where['api']}" if where["api"] else ""
            return Unavailable(
                f"{group} is held by the worker {where['node']}{at}, and this is {self._me.node}. Nothing changed.",
                code="wrong-worker",
                group=group,
                worker=owner,
                **more,
            )
        owners = sorted({shard % known.workers for shard in range(shards)})
        named = ", ".join(f"{workers[at]['node']} ({workers[at]['api'] or 'address unknown'})" for at in owners)
        return Unavailable(
            f"the domain {domain} is held in parts by the workers {named}, and this is {self._me.node}: ask each of them with shards_of=K "
            "for its part, or use a client, which does. Nothing changed.",
            code="wrong-worker",
            owners=owners,
            **more,
        )
