"""What a change of the members costs, said before it happens; and what an operator can do now.

The question: what cannot be taken back? That an id is gone for good, that commits which only it had are in no region any more (they are
kept where it was, as orphans), and that of two sides which both went on alone one has to give up its ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crdtstore.admin.heard import heard_ms, only_there
from crdtstore.configuration import SYSTEM_GROUP, name_of

if TYPE_CHECKING:
    from crdtstore.causal import ReplicaId
    from crdtstore.host import Host

__all__ = ["evict_costs", "force_costs", "others_of", "rejoin_costs", "what_now"]


def _count(number: int, what: str = "commit") -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"


def _losses(host: Host, gone: Sequence[ReplicaId], now_ms: int) -> list[str]:
    said = []
    for replica in gone:
        ago_ms, only = heard_ms(host, replica, now_ms), only_there(host, [replica], now_ms)
        if only is None:
            when = "not heard since this node started" if ago_ms is None else f"last heard {ago_ms // 1000} s ago"
            said.append(
                f"{replica} was {when}: whatever it committed since then, and clients were told is safe, only it may have; "
                "those commits will count nowhere and stay there as orphans"
            )
        elif only:
            said.append(
                f"{_count(only)} of {replica} are known to be there only; they will count nowhere and stay there as orphans"
            )
        else:
            said.append(
                f"no commit of {replica} is known to be there only; what it commits from now on is lost to the others"
            )
    return said


def evict_costs(host: Host, gone: Sequence[ReplicaId], now_ms: int) -> list[str]:
    """What it costs to evict these members of ``_sys``."""
    configuration = host.groups[SYSTEM_GROUP].configuration
    rest = [member for member in configuration.members if member.replica not in gone]
    reached = [each.replica for each in rest if each.replica == host.me.replica or host.is_connected(each.replica)]
    said = _losses(host, gone, now_ms)
    said.append(
        f"{', '.join(gone)} can never be a member again: a node that comes back takes a new id and copies everything"
    )
    said.append(
        f"{_count(len(rest), 'member')} of {len(configuration.members)} will remain: {', '.join(each.node for each in rest)}"
    )
    voters = [*reached, *[replica for replica in gone if host.is_connected(replica)]]
    if configuration.is_quorum(reached):
        said.append("this node reaches a quorum of the present members; the side that it reaches keeps going")
    elif configuration.is_quorum(voters):
        said.append(
            f"of those that would remain this node reaches {_count(len(reached), 'member')} only, which is no quorum of "
            f"{len(configuration.members)}: it is decided with the vote of who is evicted, and then {len(rest) - len(reached)} of "
            f"{len(rest)} members are not there. Is it the right one?"
        )
    else:
        said.append(
            f"this node reaches {_count(len(reached), 'member')} that would remain, which is no quorum of {len(configuration.members)}: "
            "it cannot be decided now"
        )
    if len(rest) == 2:
        said.append(
            f"of the two that remain {rest[0].node} decides alone when the other cannot be reached, never the other way round"
        )
    return said


def others_of(host: Host, survivors: Sequence[ReplicaId]) -> list[ReplicaId]:
    """Who else is a member of any group: one may be so of a group that never followed ``_sys``, for it has no quorum."""
    members = [replica for engine in host.groups.values() for replica in engine.configuration.ids]
    return [replica for replica in dict.fromkeys(members) if replica not in survivors]


def force_costs(host: Host, survivors: Sequence[ReplicaId], now_ms: int) -> list[str]:
    """What it costs to go on with these members only, without a vote."""
    configurations = [engine.configuration for engine in host.groups.values()]
    gone = others_of(host, survivors)
    said = _losses(host, gone, now_ms)
    said.append(f"{', '.join(gone)} can never be a member again")
    if all(configuration.is_quorum(survivors) for configuration in configurations):
        said.append(
            "the survivors are a quorum: crdtstore member evict does this by a vote, and cannot part the cluster"
        )
    elif any(configuration.is_quorum(gone) for configuration in configurations):
        said.append(
            "the others are a quorum: if they live and change their members meanwhile, there are two clusters afterwards, which refuse "
            "each other; then one side has to give up its ids (crdtstore member rejoin), and its commits since now are orphans"
        )
    else:
        said.append(
            "if the others live, and are forced too, there are two clusters afterwards, and one has to give up its ids"
        )
    return said


def rejoin_costs(host: Host, orphans: int | None) -> list[str]:
    """What it costs this node to take a new id."""
    said = [
        f"{host.me.replica} is given up for good; its log stays in the data directory, under left/{host.me.replica}",
        "until this node has joined and copied everything from another member it serves nothing",
    ]
    if orphans is None:
        said.append(
            "how many of its commits count is not settled, or not known here; all that others do not have will be orphans "
            "(crdtstore orphan list)"
        )
    elif orphans:
        what = "counts nowhere: it is an orphan" if orphans == 1 else "count nowhere: they are orphans"
        said.append(f"{_count(orphans)} made here {what}, to be reviewed with crdtstore orphan list")
    else:
        said.append("all commits made here count: nothing is lost")
    held = [
        name_of(engine.group, host.groups)
        for engine in host.groups.values()
        if engine.takes_part and all(engine.rows.newest[other] is None for other in engine.others)
    ]
    if held:
        said.append(
            f"no other node of its line is known to hold {', '.join(sorted(held))}: what only this node holds is lost to all"
        )
    if not host.connected:  # whoever it is: of a line that parted others are the members
        said.append("no member can be reached now: this node serves nothing until one can be")
    return said


def contested(host: Host) -> list[str]:
    """Members of whom two histories were heard."""
    found = {
        engine.replicas[origin]
        for engine in host.groups.values()
        for origin in engine.trust.contested
        if engine.configuration.member(engine.replicas[origin]) is not None
    }
    return sorted(found)


def what_now(host: Host, body: dict[str, Any]) -> list[str]:
    """What an operator can do about what the members' page shows, each with the command."""
    said, state = list[str](), body["state"]
    if state == "removed":
        said.append("this node was removed; to let it join under a new id: crdtstore member rejoin --yes")
    elif state == "fenced":
        said.append(
            "this node's id is fenced; it takes a new one and joins by itself as soon as it reaches a member. If it does not: "
            "crdtstore member rejoin --yes"
        )
    elif state == "joining" and not host.connected:
        said.append(
            "this node joins and reaches no other node: check join and gossip_advertise in its configuration, then crdtstore member status"
        )
    if body["split"]:
        nodes = ", ".join(sorted({each["node"] for each in body["split"]}))
        domains = ", ".join(sorted({each["domain"] for each in body["split"]}))
        said.append(
            f"this node and {nodes} follow configurations of lines that parted, in {domains}; choose the side that goes on, and at "
            "every node of the other one: crdtstore member rejoin --yes"
        )
    is_here = state in ("member", "leaving")
    for replica in contested(host):
        said.append(
            f"two histories of {replica} were heard: two nodes write under its id, or its disk was put back. Stop the one that is not to "
            f"be, then: crdtstore member evict {replica}"
        )
    silent = [each for each in body["members"] if not each["is_self"] and not each["connected"]]
    known = [each["node"] for each in body["members"]]
    names = " ".join(each["node"] if known.count(each["node"]) == 1 else each["replica"] for each in silent)
    if is_here and silent and body["quorum"]["reachable"]:
        said.append(
            f"{names.replace(' ', ', ')} cannot be reached; nothing is lost when it comes back. "
            f"If it never will: crdtstore member evict {names}"
        )
    elif is_here and silent:
        reached = " ".join(body["quorum"]["reached"])
        said.append(
            f"no quorum can be reached, so members cannot change; reads and writes go on. Bring {names.replace(' ', ' or ')} back, or, "
            f"if they never will be: crdtstore member force {reached}"
        )
    stuck = _stuck(host) if is_here and body["quorum"]["reachable"] else []
    if stuck:
        nodes = " ".join(
            each["node"] if known.count(each["node"]) == 1 else each["replica"] for each in body["members"]
        )
        said.append(
            f"the members of {', '.join(stuck[:5])} do not follow those of the cluster: most of who decided there were removed, "
            f"and cannot be reached. Bring them back, or, if they never will be: crdtstore member force {nodes}"
        )
    waits = sorted({replica for group in body["groups"] for replica in group["waits_for"]})
    if is_here and waits and silent:
        said.append(
            f"how many commits of {', '.join(waits)} count is settled once all members were heard: see crdtstore member list"
        )
    return said


def _stuck(host: Host) -> list[str]:
    """The domains whose groups have members that were removed from ``_sys``, and no quorum that can be reached to let them follow."""
    removed = {each.replica for each in host.groups[SYSTEM_GROUP].configuration.removed}
    found = set[str]()
    for group, engine in host.groups.items():
        ids = engine.configuration.ids
        reached = [replica for replica in ids if replica == host.me.replica or host.is_connected(replica)]
        if not removed.isdisjoint(ids) and not engine.configuration.is_quorum(reached):
            found.add(name_of(group, host.groups))
    return sorted(found)
