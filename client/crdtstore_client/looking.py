"""A look around: what all urls answered about the members, put together.

The question: what do several nodes say together that none says alone? Each sees its own side of a cut. Who is missing is
said by the others, who is behind by the newest, and that lines of configurations parted by both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from crdtstore.causal import worker_of
from crdtstore.errors import CrdtStoreError
from crdtstore_client.admin import Admin, View
from crdtstore_client.members import Member, Members, Orphans, number_of

__all__ = ["Finding", "Look", "line_of", "look_around"]

LONG_MS = 10_000
"""A member that nobody heard for so long is not just being started anew."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be; ``mend``: a command, or what to do where no command can."""

    check: str
    what: str
    mend: str


@dataclass(frozen=True)
class Look:
    """What all urls answered. ``orphans``: per node the ids it gave up, and of each how many commits are left to review."""

    answers: Mapping[str, View | CrdtStoreError]
    orphans: Mapping[str, list[tuple[Orphans, int]] | CrdtStoreError] = field(default_factory=dict)

    @cached_property
    def views(self) -> list[Members]:
        return [answer.members for answer in self.answers.values() if isinstance(answer, View)]

    @cached_property
    def inside(self) -> list[Members]:
        """What those say that belong to the cluster."""
        return [each for each in self.views if each.state in {"member", "leaving"}]

    @cached_property
    def newest(self) -> Members | None:
        """Of whom knows most of the members."""
        return max(self.inside or self.views, key=lambda each: number_of(each.configuration), default=None)

    @cached_property
    def members(self) -> list[Member]:
        return [] if self.newest is None else self.newest.members

    def view_of(self, replica: str) -> Members | None:
        """What it says of itself."""
        return next((each for each in self.views if each.replica == replica), None)

    def heard_ms(self, replica: str) -> float | None:
        """How long ago any of the others heard it; None: none of them ever did."""
        times = [
            member.heard_ms
            for each in self.views
            if each.replica != replica
            for member in each.members
            if member.replica == replica and member.heard_ms is not None
        ]
        return min(times, default=None)

    @cached_property
    def failed(self) -> dict[str, CrdtStoreError]:
        """The urls that did not answer, or not to this."""
        return {url: answer for url, answer in self.answers.items() if isinstance(answer, CrdtStoreError)}

    @cached_property
    def silent(self) -> list[Member]:
        """Members that are at no url that answered."""
        return [member for member in self.members if self.view_of(member.replica) is None]

    @cached_property
    def are_silent_unheard(self) -> bool:
        """Whether those at the urls without an answer are those that the others miss: then one of the two is enough."""
        are_gone = all(error.code == "unreachable" for error in self.failed.values())
        return (
            are_gone and len(self.failed) == len(self.silent) and all(each in self.unheard_long for each in self.silent)
        )

    @cached_property
    def unheard_long(self) -> list[Member]:
        """Members that none of the others heard for long."""
        times = [(member, self.heard_ms(member.replica)) for member in self.unheard]
        return [member for member, ms in times if ms is None or ms >= LONG_MS]

    @cached_property
    def unheard(self) -> list[Member]:
        """Members that none of those is connected with who count them among theirs."""
        found = []
        for member in self.members:
            seen = [
                one for each in self.views for one in each.members if one.replica == member.replica and not one.is_self
            ]
            if seen and not any(one.connected for one in seen):
                found.append(member)
        return found

    @cached_property
    def sides(self) -> dict[str, tuple[str, list[str]]]:
        """Where lines of configurations parted: per line the newest of it that is known, and the nodes that go by it.

        Each line has a random word of its own; whoever is only behind has the word of the line that it is behind.
        """
        parted = [split for each in self.inside for split in each.split if split.domain == "_sys"]
        if not parted and not any(_contradict(one, other) for one in self.inside for other in self.inside):
            return {}
        known = {each.node: each.configuration for each in self.inside}
        for split in parted:
            known.setdefault(split.node, split.configuration)
        found: dict[str, tuple[str, list[str]]] = {}
        for node, configuration in sorted(known.items()):
            at, nodes = found.get(line_of(configuration), (configuration, []))
            newest = max(at, configuration, key=number_of)
            found[line_of(configuration)] = (newest, [*nodes, node])
        return found

    def only_at(self, nodes: Collection[str]) -> list[str]:
        """Domains of several nodes that nobody but these is known to hold: they must not all be given up.

        Who joins, or gets a group, holds nothing for sure; a member that is at no url holds all, unless it is said not
        to, or was not heard for long.
        """
        leaving = [each for each in self.views if each.node in nodes]
        others = [each for each in self.views if each.node not in nodes]
        workers = {worker_of(each.node) for each in leaving}  # others hold other shards
        known = {each.replica for each in self.views} | {each.replica for each in self.unheard_long}
        elsewhere = [
            member
            for each in self.views
            for member in each.members
            if member.replica not in known
            and member.node not in nodes
            and member.is_installed is not False
            and worker_of(member.node) in workers
        ]
        if elsewhere:
            return []
        listed = [name for each in self.views for name in {group.name for group in each.groups}]
        wanted = {name for name in listed if listed.count(name) > 1}
        held = {
            group.name
            for each in others
            if each.state in {"member", "leaving"}
            for group in each.groups
            if group.installing is None
        }
        only_here = {group.name: group.domain for each in leaving for group in each.groups}
        return sorted({domain for name, domain in only_here.items() if name in wanted - held})

    @cached_property
    def deaf(self) -> list[Members]:
        """Nodes that were removed by the newest configuration of their line, and go on as if they were members."""
        newest = self.newest
        if newest is None:
            return []
        members = {each.replica for each in newest.members}
        return [
            each
            for each in self.inside
            if number_of(each.configuration) < number_of(newest.configuration)
            and each.replica not in members
            and (not self.sides or line_of(each.configuration) == line_of(newest.configuration))
        ]

    @cached_property
    def parted_domains(self) -> dict[str, list[Members]]:
        """Per domain whose group goes by lines that parted, though all agree who the members are: the nodes that say so."""
        found: dict[str, list[Members]] = {}
        for each in self.views:
            for domain in sorted({split.domain for split in each.split} - {"_sys"}):
                found.setdefault(domain, []).append(each)
        return found


def line_of(configuration: str) -> str:
    """The random word of its line."""
    return configuration.partition(".")[2]


def _contradict(one: Members, other: Members) -> bool:
    """Whether two nodes go by lines of which neither leads to the other: they removed each other, or decided otherwise."""
    if number_of(one.configuration) == number_of(other.configuration):
        return one.configuration != other.configuration
    return all(
        any(removed.replica == each.replica for removed in by.removed) for each, by in ((one, other), (other, one))
    )


async def look_around(admin: Admin) -> Look:
    """Ask all urls for all that the checks want to know."""
    answers = await admin.ask_everyone()
    views = [answer for answer in answers.values() if isinstance(answer, View)]
    kept = await asyncio.gather(*(_to_review(admin, view) for view in views))
    return Look(answers, {view.members.node: each for view, each in zip(views, kept, strict=True)})


async def _to_review(admin: Admin, view: View) -> list[tuple[Orphans, int]] | CrdtStoreError:
    try:
        kept = await admin.orphans_at(view)
        return [(each, await _count_open(admin, view, each)) for each in kept]
    except CrdtStoreError as error:
        return error


async def _count_open(admin: Admin, view: View, kept: Orphans) -> int:
    """How many were not applied."""
    return kept.count - sum((await admin.applied_of(view, kept)).values())
