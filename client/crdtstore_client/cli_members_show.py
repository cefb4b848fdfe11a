"""What ``crdtstore member`` shows: the table of the members, and the whole picture of one node.

The question: what does a person need who may have to give an order? Who is counted, who was heard, and what only one of
them may have; then, below, what the node itself advises.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from crdtstore_client.cli_show import is_safe, plain
from crdtstore_client.cli_tables import table_lines
from crdtstore_client.convergence import span
from crdtstore_client.members import Member, Members, Removed, short_replica

__all__ = ["byte_count", "commit_count", "heard", "list_lines", "named", "part_count", "safe", "status_lines"]

LABEL_WIDTH = 15
MAX_GROUPS = 4
"""So many groups are named one by one."""


def safe(line: str) -> str:
    """A sentence of a node as a terminal can bear it."""
    return line if is_safe(line) else plain(line)


def commit_count(count: int) -> str:
    return f"{count:,} commit{'' if count == 1 else 's'}"


def byte_count(size: int) -> str:
    """Bytes as people say them."""
    amount, units = float(size), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:.0f} {units[0]}" if units[0] == "bytes" else f"{amount:.1f} {units[0]}"


def heard(member: Member) -> str:
    """When it was heard last."""
    if member.is_self:
        return "itself"
    if member.heard_ms is None:
        return "never"
    return f"{member.heard_ms:.0f} ms ago" if member.heard_ms < 1000 else f"{span(member.heard_ms)} ago"


def named(names: Iterable[str]) -> str:
    """The first few of many names."""
    every = list(names)
    more = len(every) - MAX_GROUPS
    return ", ".join(every) if more <= 1 else f"{', '.join(every[:MAX_GROUPS])} and {more} more"


def _state(member: Member, members: Members) -> str:
    if member.is_self:
        return members.state
    if member.is_leaving:
        return "leaving"
    return "joining" if member.is_installed is False else "member"


def _is_installed(member: Member) -> str:
    return "?" if member.is_installed is None else "yes" if member.is_installed else "no"


def list_lines(members: Members) -> list[str]:
    """The members, oldest first, and below them the ids that were removed."""
    head = f"configuration {members.configuration} of {members.cluster or '?'}, as {members.node} sees it"
    rows = [
        (
            member.node,
            member.region,
            short_replica(member.replica).rpartition(".")[2],
            _state(member, members),
            "-" if member.is_self else "yes" if member.connected else "no",
            heard(member),
            _is_installed(member),
            "?" if member.only_there.commits is None else f"{member.only_there.commits:,}",
        )
        for member in members.members
    ]
    names = ("node", "region", "id", "state", "connected", "heard", "installed", "only there")
    lines = [safe(head), *table_lines(names, rows, counts={"only there"}, folds={"node", "region"})]
    if members.split:
        nodes = ", ".join(sorted({each.node for each in members.split}))
        lines.append(safe(f"split: {nodes} and {members.node} contradict each other, see crdtstore doctor"))
    if members.removed:
        rows_ = [
            (each.node, each.region, each.replica.rpartition(".")[2][:8], finals(members, each))
            for each in members.removed
        ]
        lines += [
            "",
            *table_lines(
                ("removed", "region", "id", "commits that count"), rows_, folds={"removed", "commits that count"}
            ),
        ]
    return lines


def finals(members: Members, removed: Removed) -> str:
    """Up to where its commits count, per domain."""
    known = [f"{domain} {final:,}" for domain, final in sorted(removed.final.items()) if final is not None]
    if waiting := members.unsettled().get(removed.replica):
        known.append(f"not settled yet: {named(waiting)}")
    return ", ".join(known) or "-"


def status_lines(members: Members) -> list[str]:
    """All that one node says of the members."""
    cluster = members.cluster or "its cluster"
    states = {
        "member": f"a member of {cluster}",
        "removed": f"removed from {cluster}",
        "unproven": f"not proven yet to be itself in {cluster}",
    }
    lines = [f"{members.node} ({members.region}) is {states.get(members.state, f'{members.state} in {cluster}')}"]
    lines += _labelled("why", [members.why] if members.why else [])
    lines += _labelled("id", [members.replica])
    lines += _labelled("configuration", [f"{members.configuration}: {_everybody(members)}"])
    lines += _labelled("quorum", [_quorum(members)])
    lines += _labelled(
        "SPLIT", [f"{each.node} ({short_replica(each.replica)}) goes by {each.configuration}" for each in members.split]
    )
    lines += _labelled(
        "unheard",
        [f"{each.node} ({heard(each)})" for each in members.members if not each.connected and not each.is_self],
    )
    lines += _labelled("orders", members.orders)
    lines += _labelled("waiting", _waits(members))
    lines += _labelled("installing", _installs(members))
    lines += _labelled("held back", _held_back(members))
    lines += _labelled(
        "what now",
        members.what_now or ["nothing: all is as it should be" if is_calm(members) else "wait, and look again"],
    )
    return [safe(line) for line in lines]


def is_calm(members: Members) -> bool:
    """Whether nothing is under way."""
    busy = bool(members.unsettled()) or any(group.installing is not None for group in members.groups)
    is_whole = all(each.connected or each.is_self for each in members.members)
    return members.state == "member" and is_whole and members.quorum.reachable and not members.split and not busy


def _labelled(label: str, said: Sequence[str]) -> list[str]:
    return [f"{label if at == 0 else '':{LABEL_WIDTH}}{line}" for at, line in enumerate(said)]


def _everybody(members: Members) -> str:
    return ", ".join(each.node for each in members.members) or "nobody"


def _quorum(members: Members) -> str:
    reached = f"reached: {', '.join(members.quorum.reached) or 'nobody'}"
    verdict = "" if members.quorum.reachable else "NOT REACHED; "
    return f"{verdict}{members.quorum.needed}; {reached}" if members.quorum.needed else f"{verdict}{reached}"


def _waits(members: Members) -> list[str]:
    unsettled = members.unsettled().items()
    return [f"{named(groups)}: up to where commits of {members.names(replica)} count" for replica, groups in unsettled]


def _installs(members: Members) -> list[str]:
    found = [(group.name, group.installing) for group in members.groups]
    return [
        f"{name}: {part_count(each.parts)} from {members.names(each.of)}" for name, each in found if each is not None
    ]


def part_count(parts: int) -> str:
    return f"{parts:,} part{'' if parts == 1 else 's'}"


def _held_back(members: Members) -> list[str]:
    return [
        f"{group.name}: {byte_count(group.held_back_bytes)} of log until {members.names(group.held_back_by)} has them"
        for group in members.groups
        if group.held_back_by is not None and group.held_back_bytes
    ]
