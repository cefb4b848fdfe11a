"""Who the members are, as this node knows them. A pure view.

The question: what does one node know of the others? What it last heard of them, and how long ago. Of a member that is not heard nobody
knows how much only it has: that is shown as not known, never as nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crdtstore.admin.costs import what_now
from crdtstore.admin.heard import heard_ms, only_there
from crdtstore.admin.holding import held_back
from crdtstore.admin.identity import state_of
from crdtstore.configuration import SYSTEM_GROUP, Configuration, Member, name_of
from crdtstore.engine.membership.changes import Change, Evict, Join

if TYPE_CHECKING:
    from crdtstore.causal import ReplicaId
    from crdtstore.engine.engine import Engine
    from crdtstore.host import Host

__all__ = ["members_body", "says_it_leaves"]

_MOST_ORDERS = 50
_MOST_REMOVED = 1_000
"""The latest are shown."""


def members_body(host: Host, now_ms: int) -> dict[str, Any]:
    """The shape of ``GET /admin/v1/members``.

    Cost:    O(groups x members x replicas).
    """
    system = host.groups[SYSTEM_GROUP]
    configuration = system.configuration
    state, why = state_of(host)
    body = {
        "node": host.me.node,
        "region": host.me.region,
        "replica": host.me.replica,
        "cluster": host.cluster.name,
        "state": state,
        "why": why,
        "configuration": str(configuration.id),
        "workers": host.workers.directory(),
        "members": [_member(host, member, now_ms) for member in configuration.members],
        "removed": _removed(host, configuration),
        "quorum": _quorum(host, configuration),
        "split": _splits(host),
        "orders": [
            _order(host, engine, change) for engine in host.groups.values() for change in engine.membership.orders
        ][:_MOST_ORDERS],
        "shards": _shards(host),
        "groups": [_group(host, engine) for _, engine in sorted(host.groups.items())],
    }
    body["what_now"] = what_now(host, body)
    return body


def _member(host: Host, member: Member, now_ms: int) -> dict[str, Any]:
    replica = member.replica
    is_self = replica == host.me.replica
    return {
        "replica": replica,
        "node": member.node,
        "region": member.region,
        "gossip": member.gossip,
        "is_self": is_self,
        "connected": is_self or host.is_connected(replica),
        "heard_ms": 0 if is_self else heard_ms(host, replica, now_ms),
        "is_installed": _is_installed(host, replica),
        "is_leaving": host.is_leaving if is_self else says_it_leaves(host, replica),
        "only_there": {"commits": only_there(host, [replica], now_ms)},
    }


def _is_installed(host: Host, replica: ReplicaId) -> bool | None:
    """Whether a member holds all groups that it is a member of: only who holds a group has a row; None: it was not heard."""
    answers = list[bool | None]()
    for engine in host.groups.values():
        membership = engine.membership
        if engine.configuration.member(replica) is None:
            continue
        if replica == host.me.replica:
            answers.append(membership.is_installed)
        elif engine.rows.newest[engine.replicas.index(replica)] is not None:
            answers.append(True)
        else:
            heard = membership.heard.get(replica)
            answers.append(False if heard is not None and heard[0] == engine.configuration.id and heard[1] else None)
    if False in answers:
        return False
    return None if None in answers else True


def says_it_leaves(host: Host, replica: ReplicaId) -> bool:
    """Whether a member was heard to leave."""
    rows = [
        engine.rows.newest[engine.replicas.index(replica)]
        for engine in host.groups.values()
        if replica in engine.replicas
    ]
    return any(row is not None and row.is_leaving for row in rows)


def _removed(host: Host, configuration: Configuration) -> list[dict[str, Any]]:
    found = []
    for removed in configuration.removed[-_MOST_REMOVED:]:
        finals = {}
        for group, engine in sorted(host.groups.items()):
            there = engine.configuration.removal(removed.replica)
            if there is not None:
                finals[name_of(group, host.groups)] = there.final
        member = removed.member
        found.append({"replica": member.replica, "node": member.node, "region": member.region, "final": finals})
    return found


def _quorum(host: Host, configuration: Configuration) -> dict[str, Any]:
    count = len(configuration.members)
    oldest = configuration.members[0].node
    needed = (
        f"more than half of {count} members"
        if count % 2
        else f"more than half of {count} members, or half with {oldest}"
    )
    reached = [
        member
        for member in configuration.members
        if member.replica == host.me.replica or host.is_connected(member.replica)
    ]
    return {
        "needed": "the only member" if count == 1 else needed,
        "reachable": configuration.is_quorum([member.replica for member in reached]),
        "reached": [member.node for member in reached],
    }


def _shards(host: Host) -> list[dict[str, Any]]:
    """Domains that were declared with several numbers of shards by regions that could not hear each other."""
    declared = ((domain, host.declarations.numbers(domain)) for domain in host.declarations.domains())
    return [
        {"domain": domain, "serves": numbers[0], "also": sorted(numbers[1:])}
        for domain, numbers in declared
        if len(numbers) > 1
    ]


def _splits(host: Host) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for engine in host.groups.values():
        for replica, there in host.roster.splits(engine).items():
            member = host.roster.member(replica)
            node = replica.rpartition(".")[0] if member is None else member.node
            said = {"replica": replica, "node": node, "configuration": str(there), "domain": _domain(engine.group)}
            found.setdefault(replica, said)
    return [found[replica] for replica in sorted(found)]


def _order(host: Host, engine: Engine, change: Change) -> str:
    where = name_of(engine.group, host.groups)
    if isinstance(change, Join):
        return f"let {change.member.replica} join {where}"
    if isinstance(change, Evict):
        return f"evict {', '.join(change.replicas)} from {where}"
    return f"settle that {change.seq} commits of {change.replica} count in {where}"


def _group(host: Host, engine: Engine) -> dict[str, Any]:
    configuration, (bytes_, who) = engine.configuration, held_back(engine)
    arrival = None if host.installs is None else host.installs.arrivals.get(engine.group)
    shard = int(engine.group.partition("/")[2])
    return {
        "domain": _domain(engine.group),
        "shard": shard,
        "configuration": str(configuration.id),
        "members": list(configuration.ids),
        "waits_for": [removed.replica for removed in configuration.removed if removed.final is None],
        "installing": None if arrival is None or arrival.is_idle else {"of": arrival.sender, "parts": arrival.parts},
        "held_back_bytes": bytes_,
        "held_back_by": who,
    }


def _domain(group: str) -> str:
    return group.partition("/")[0]
