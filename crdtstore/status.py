"""The status of a node: what it holds, what it knows of its peers, how far behind it is. A pure view."""

from __future__ import annotations

from typing import Any

from crdtstore.admin.identity import state_of
from crdtstore.configuration import Member
from crdtstore.engine.engine import Engine
from crdtstore.errors import StorageError
from crdtstore.host import Host

__all__ = ["status"]


def status(host: Host, now_ms: int) -> dict[str, Any]:
    """The shape of ``GET /v1/status``."""
    groups = [_group(host, engine, now_ms) for _, engine in sorted(host.groups.items())]
    state, why = state_of(host)
    return {
        "node": host.me.node,
        "region": host.me.region,
        "cluster": host.cluster.name,
        "identity": state,
        "ready": state == "member",
        "why": why,
        "now_ms": now_ms,
        "workers": host.workers.directory(),
        "domains": _domains(host),
        "groups": groups,
        "peers": [_peer(host, member, now_ms) for member in host.roster.peers if member.replica != host.replica],
        "gossip": _gossip(host),
    }


def _domains(host: Host) -> dict[str, int]:
    """Of how many shards the domains are; none while that cannot be read: a node whose disk fails still says how it is."""
    try:
        return {name: host.declarations.numbers(name)[0] for name in host.declarations.domains()}
    except StorageError:
        return {}


def _group(host: Host, engine: Engine, now_ms: int) -> dict[str, Any]:
    durable, rows, window = engine.durability.vector, engine.rows, engine.measures.window_ms
    domain, _, shard = engine.group.partition("/")
    known = rows.known(durable)
    return {
        "domain": domain,
        "shard": int(shard),
        "replica": host.me.replica,
        "configuration": str(engine.configuration.id),
        "members": len(engine.configuration.members),
        "split": len(host.roster.splits(engine)),
        "vector": _vector(engine),
        "digest": f"{engine.digest:032x}" if durable == engine.applied else None,
        "behind": sum(there - here for there, here in zip(known, durable, strict=True)),
        "lag_ms": rows.lag_ms(durable, now_ms),
        "staleness_ms": rows.staleness_ms(now_ms),
        "unacked": durable[engine.me] - min(rows.floor[engine.me], durable[engine.me]) if engine.others else 0,
        "fenced": engine.is_fenced and not host.reads_only,
        "window_ms": {
            "p50": window.percentile(0.5),
            "p99": window.percentile(0.99),
            "max": window.greatest if window.count else None,
            "count": window.count,
        },
        "window_histogram": [list(bucket) for bucket in window.buckets()],
    }


def _vector(engine: Engine) -> dict[str, int]:
    """What is durable here, of removed replicas too: nodes compare what they hold, though one knows of a removal and the other does not."""
    live, durable = engine.membership.shape.origins, engine.durability.vector
    return {replica: durable[at] for at, replica in enumerate(engine.replicas) if durable[at] or at in live}


def _peer(host: Host, member: Member, now_ms: int) -> dict[str, Any]:
    progress = [
        engine.antientropy.peers[at]
        for engine in host.groups.values()
        for at in engine.others
        if engine.replicas[at] == member.replica
    ]
    heard = [peer.heard_ms for peer in progress if peer.heard_ms is not None]
    states = {peer.state for peer in progress}
    return {
        "node": member.node,
        "region": member.region,
        "state": next((state for state in ("down", "probing", "streaming") if state in states), "down"),
        "heard_ms": now_ms - max(heard) if heard else None,
        "offset_ms": None,
    }


def _gossip(host: Host) -> dict[str, int]:
    measures = [engine.measures for engine in host.groups.values()]
    return {
        "bytes_sent": host.bytes_sent,
        "bytes_received": host.bytes_received,
        "commits_received": sum(measure.commits_received for measure in measures),
        "commits_received_twice": sum(measure.commits_received_twice for measure in measures),
        "commit_bytes": sum(measure.commit_bytes_received for measure in measures),
        "commits_sent": sum(measure.commits_sent for measure in measures),
        "commits_relayed": sum(measure.commits_relayed for measure in measures),
        "rejected": host.rejected_count,
    }
