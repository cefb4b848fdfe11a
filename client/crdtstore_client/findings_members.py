"""What can be wrong with the members: one function for each kind of trouble, each finding with the command that mends it.

The question: what is a person to do? Where a command mends it, its words; where none can, what to look at. A trouble that
follows from another one is not named beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from crdtstore.errors import AccessError, CrdtStoreError
from crdtstore_client.convergence import span
from crdtstore_client.looking import Finding, Look, line_of
from crdtstore_client.members import number_of, short_replica

__all__ = ["MEMBER_CHECKS"]


def _urls(look: Look) -> Iterator[Finding]:
    """A url behind which nobody answers, or nobody who may be asked."""
    for url, error in look.failed.items():
        if isinstance(error, AccessError):
            yield Finding("url", f"{url} does not let you ask: {error.detail}", "crdtstore doctor --auth-file FILE")
        elif error.code == "no-such-route":
            yield Finding("url", f"{url} answers, but not about members", "install a newer version at that node")
        elif not look.are_silent_unheard:
            is_known = len(look.failed) == 1 and len(look.silent) == 1
            who = f" ({look.silent[0].node}, by all that is known)" if is_known else ""
            is_spare = bool(look.members) and not look.silent
            mend = "start the node, or correct the url"
            if is_spare:
                mend = "start the node, or take the url out: all members answer at the others"
            yield Finding("url", f"no answer from {url}{who}: {_cause(url, error)}", mend)


def _cause(url: str, error: CrdtStoreError) -> str:
    why = str(error.__cause__) if error.__cause__ is not None else error.detail
    return why.removeprefix(f"{url}: ").removeprefix(f"{url} ")


def _split(look: Look) -> Iterator[Finding]:
    """Two lines of configurations of which neither leads to the other."""
    sides = look.sides
    if not sides:
        return
    both = " and ".join(f"{', '.join(nodes)} ({at})" for at, nodes in sides.values())
    side = min((nodes for _, nodes in sides.values()), key=lambda nodes: _worth(look, nodes))
    if only := look.only_at(side):
        mend = _keep(side, only)
    else:
        commands = "; ".join(f"crdtstore member rejoin {node}" for node in side)
        mend = f"choose the side that goes on, and let the nodes of the other one rejoin, such as: {commands}"
    yield Finding(
        "split",
        f"{both} go by lines of configurations that contradict each other: neither side takes what the other writes",
        mend,
    )


def _worth(look: Look, nodes: list[str]) -> tuple[bool, bool, int, list[str]]:
    """What would go with these nodes: first what nobody else holds, then nodes that hold anything for sure."""
    states = {each.state for each in look.views if each.node in nodes}
    return bool(look.only_at(nodes)), not states or not states <= {"joining", "removed"}, len(nodes), nodes


def _keep(nodes: list[str], domains: list[str]) -> str:
    """What is to be done instead of a rejoin that would let the last go who holds something."""
    who = f"let none of {', '.join(nodes)} rejoin" if len(nodes) > 1 else f"do not let {nodes[0]} rejoin"
    return (
        f"{who}, nor stop for good: nobody else is known to hold {', '.join(domains)}. "
        "Bring back another node that holds it first, or copy what it has there"
    )


def _split_domain(look: Look) -> Iterator[Finding]:
    """One domain whose group began twice: nodes that do not hold it yet are the ones to give way."""
    if look.sides:  # what is said of the members comes first
        return
    for domain, views in look.parted_domains.items():
        names = ", ".join(sorted(each.node for each in views))
        without = sorted(each.node for each in views if each.state in {"joining", "removed"})
        chosen = without or ["NODE"]
        commands = "; ".join(f"crdtstore member rejoin {node}" for node in chosen)
        which = "those that do not hold it" if without else "those of one side"
        mend = f"let {which} rejoin: {commands}"
        if only := look.only_at(without):
            mend = _keep(without, only)
        yield Finding(
            "split",
            f"{names}: the domain {domain} goes by two lines there that contradict each other",
            mend,
        )


def _quorum(look: Look) -> Iterator[Finding]:
    """Nobody, or not everybody, reaches as many members as a change needs."""
    without = [each for each in look.inside if not each.quorum.reachable]
    if not without:
        return
    if len(without) < len(look.inside):
        for each in without:
            names = ", ".join(each.quorum.reached) or "nobody"
            text = f"{each.node} reaches {names} only, too few to change the members; others reach enough"
            yield Finding("quorum", text, f"mend the network between {each.node} and the others")
        return
    best = max(without, key=lambda each: len(each.quorum.reached))
    reached = best.quorum.reached
    missing = [member.node for member in best.members if member.node not in reached]
    yield Finding(
        "quorum",
        f"no node reaches enough members to change them ({best.quorum.needed}): {', '.join(missing)} cannot be reached. "
        "Reads and writes go on",
        f"bring {' or '.join(missing)} back; if gone for good: crdtstore member force {' '.join(reached)}",
    )


def _states(look: Look) -> Iterator[Finding]:
    """Nodes that are not simply members."""
    for each in look.views:
        why = f": {each.why}" if each.why else ""
        only = look.only_at([each.node])
        if each.state == "removed":
            text = f"{each.node} takes no writes: {each.why or 'it was removed from the cluster'}"
            mend = f"stop it for good, or let it join anew: crdtstore member rejoin {each.node}"
            yield Finding("removed", text, _keep([each.node], only) if only else mend)
        elif each.state == "fenced":
            text = f"{each.node} must not use its id {short_replica(each.replica)} any more, and joins under a new one{why}"
            mend = f"crdtstore member join --wait {each.node}"
            then = _keep([each.node], only) if only else f"if it does not go on: crdtstore member rejoin {each.node}"
            mend = f"{mend}; {then}"
            yield Finding("fenced", text, mend)
        elif each.state == "unproven":
            text = f"{each.node} has not proven yet that it is itself, and takes no writes{why}"
            mend = (
                f"let it reach a member: it goes on or joins by itself then; look: crdtstore member status {each.node}"
            )
            yield Finding("unproven", text, mend)
        elif each.state == "joining":
            parts = sum(group.installing.parts for group in each.groups if group.installing is not None)
            came = f", {parts:,} parts of what there is have come" if parts else ""
            text = f"{each.node} is joining{came}{why}"
            yield Finding("joining", text, f"crdtstore member join --wait {each.node}")
        elif each.state == "leaving":
            yield Finding("leaving", f"{each.node} is leaving{why}", f"crdtstore member status {each.node}")


def _joining(look: Look) -> Iterator[Finding]:
    """Members without the data that belongs to them, of which no url was given."""
    for member in look.members:
        if member.is_installed is False and look.view_of(member.replica) is None and member not in look.unheard:
            text = f"{member.node} was admitted and does not hold all yet"
            yield Finding("joining", text, f"crdtstore member join --wait {member.node}")
        elif member.is_leaving and look.view_of(member.replica) is None and member not in look.unheard:
            yield Finding("leaving", f"{member.node} is leaving", "crdtstore member list")


def _unheard(look: Look) -> Iterator[Finding]:
    """A member that no other one hears, and what waits for it."""
    for member in look.unheard_long:
        ms = look.heard_ms(member.replica)
        when = "was not heard by the others since they started" if ms is None else f"was heard last {span(ms)} ago"
        held = sum(
            group.held_back_bytes
            for group in (look.newest.groups if look.newest is not None else [])
            if group.held_back_by == member.replica
        )
        waits = f"; {_size(held)} of log are kept for it" if held else ""
        name = look.newest.names(member.replica) if look.newest is not None else member.node
        if look.view_of(member.replica) is not None:
            text = f"{name} answers here, but {when}{waits}"
            yield Finding("unheard", text, f"mend the network between the nodes, to {member.gossip or member.node}")
        else:
            urls = f"; no answer from {', '.join(look.failed)}" if look.are_silent_unheard else ""
            text = f"{name} {when}{urls}{waits}; what it wrote since may be nowhere else"
            can_decide = any(each.quorum.reachable for each in look.inside)
            gone = f"; if it is gone for good: crdtstore member evict {name}" if can_decide else ""
            yield Finding("unheard", text, f"start it{gone}")


def _size(size: int) -> str:
    from crdtstore_client.cli_members_show import byte_count  # noqa: PLC0415 - rich is dear

    return byte_count(size)


def _finals(look: Look) -> Iterator[Finding]:
    """Removed ids of which it is not settled how many commits count."""
    waiting: dict[str, set[str]] = {}
    for each in look.inside:
        for replica, unsettled in each.unsettled().items():
            waiting.setdefault(replica, set()).update(unsettled)
    for replica, groups in waiting.items():
        name = short_replica(replica)
        text = (
            f"how many commits of {name} count is not settled in {len(groups)} group{'' if len(groups) == 1 else 's'}"
        )
        if look.unheard:
            names = ", ".join(member.node for member in look.unheard)
            yield Finding("final", f"{text}: {names} must be heard first", "see what is said of them here")
        else:
            yield Finding(
                "final", text, "wait: it settles by itself while all members hear each other; then crdtstore doctor"
            )


def _differing(look: Look) -> Iterator[Finding]:
    """Nodes that do not know of the newest configuration yet."""
    if look.newest is None:
        return
    newest = look.newest.configuration
    for each in look.inside:
        is_of_line = not look.sides or line_of(each.configuration) == line_of(newest)
        if number_of(each.configuration) < number_of(newest) and is_of_line:
            if each in look.deaf:
                text = (
                    f"{each.node} was removed by configuration {newest} of {look.newest.node}, and has not heard of it"
                )
                yield Finding(
                    "configuration", text, "mend the network between them; then it is to rejoin, or to be stopped"
                )
                continue
            yield Finding(
                "configuration",
                f"{each.node} goes by configuration {each.configuration}, {look.newest.node} by {newest}",
                f"wait: it follows when it hears of it; if not, see what it is connected with: crdtstore member status {each.node}",
            )


def _orphans(look: Look) -> Iterator[Finding]:
    """Commits that were cut off, and that nobody has looked at."""
    for node, kept in look.orphans.items():
        if isinstance(kept, CrdtStoreError):
            text = f"{node} does not say what it keeps of ids it gave up: {kept.detail}"
            yield Finding("orphans", text, "crdtstore orphan list --timeout 60")
            continue
        for each, count in kept:
            if count > 0:
                name = short_replica(each.replica)
                commits = f"{count:,} commit{'' if count == 1 else 's'}"
                is_one = count == 1
                text = f"{commits} of {name}, kept at {node}, {'is' if is_one else 'are'} in no other region and not applied"
                yield Finding(
                    "orphans",
                    text,
                    f"crdtstore orphan show {name}; those not wanted go with the folder left/{each.replica} of {node}",
                )


MEMBER_CHECKS: tuple[Callable[[Look], Iterator[Finding]], ...] = (
    _split,
    _split_domain,
    _quorum,
    _urls,
    _states,
    _unheard,
    _joining,
    _finals,
    _differing,
    _orphans,
)
"""The worst first."""
