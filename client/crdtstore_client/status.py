"""Status: what one node says about itself, its groups and its peers (API.md, shapes)."""

from __future__ import annotations

from typing import Any

import msgspec

from crdtstore.causal import ReplicaId, worker_of

__all__ = ["GroupStatus", "PeerStatus", "Status"]


class GroupStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One group at this node. ``behind``, ``lag_ms``: known lag; ``staleness_ms``: null until all were heard."""

    domain: str
    replica: str
    configuration: str = ""
    split: int = 0
    """How many replicas go by lines of configurations that contradict its own."""
    vector: dict[ReplicaId, int]
    digest: str | None = None
    """Null while commits are applied and not yet durable."""
    shard: int = 0
    behind: int = 0
    lag_ms: float | None = None
    staleness_ms: float | None = None
    unacked: int = 0


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Another node as this one sees it: heard ``heard_ms`` ago, its clock ``offset_ms`` ahead."""

    node: str
    region: str
    state: str = ""
    heard_ms: float | None = None
    offset_ms: float | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer of one node."""

    node: str
    region: str
    cluster: str = ""
    ready: bool = True
    why: Any = None
    workers: list[dict[str, Any]] = []
    """All workers of its node; at most one: the node is one process."""
    groups: list[GroupStatus] = []
    peers: list[PeerStatus] = []
    storage: dict[str, Any] = {}
    """What its disk does; empty from what is no real node."""

    def is_to_hold(self, domain: str, shard: int) -> bool:
        """Whether a group is this node's to hold: of several workers each holds its own shards."""
        worker = worker_of(self.node)
        return worker is None or domain == "_sys" or not self.workers or shard % len(self.workers) == worker

    @classmethod
    def of(cls, body: dict[str, Any]) -> Status:
        """From the body of ``GET /v1/status``; fields of newer nodes are ignored."""
        return msgspec.convert(body, cls)
