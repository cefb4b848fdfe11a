"""Admin: who belongs to the cluster, asked and changed.

The question: who is to be asked? For what a node knows of the cluster, any of them, and the one that can carry an order
out best. For what is about a node itself (leaving, rejoining, what it keeps of ids that it gave up) that node alone, so
all urls are asked first who they are. Nothing is repeated by itself: an order names the configuration that its giver looked
at, and where the answer is lost, looking again tells what became of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from crdtstore.causal import ReplicaId, node_of, worker_of
from crdtstore.errors import AccessError, CrdtStoreError, OutcomeUnknown, Unavailable, UsageError
from crdtstore_client.address import with_query
from crdtstore_client.link import Link
from crdtstore_client.members import Member, Members, Orphan, Orphans, matching, number_of, short_replica

__all__ = ["PAGE", "Admin", "Order", "View", "best_of"]

MEMBERS_PATH = "/admin/v1/members"
ORPHANS_PATH = "/admin/v1/orphans"
LOOK_SECONDS = 2.0
DECIDE_SHARE = 2.0
"""Members have so many times the timeout of a call to decide, before the node says that too few of them answer."""
AGAIN_SECONDS = 0.2
REPLY_SECONDS = 2.0
"""What an answer may take beyond that."""
COMMITS_PER_REQUEST = 50
PAGE = 500
"""Orphans are listed so many at a time."""


@dataclass(frozen=True, slots=True)
class View:
    """What one url said of the members; ``raw`` is the body as it came."""

    url: str
    members: Members
    raw: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Order:
    """A change of the members, and what was looked at when it was made: ``Admin.costs`` tells its price."""

    what: str
    view: View
    body: dict[str, Any]

    @property
    def has_costs(self) -> bool:
        """Leaving costs nothing that the node would have to tell: it waits until everything is elsewhere."""
        return self.what != "leave"


class Admin:
    """``store.admin``. Every method asks once; it raises what the node answered."""

    def __init__(self, link: Link, timeout: float) -> None:
        self._link = link
        self._timeout = timeout

    async def members(self, node: str | None = None) -> Members:
        """The members as the node that can tell best sees them, or as ``node`` does."""
        views = await self.views()
        return (best_of(views) if node is None else self.at(views, node)).members

    async def leave(self, node: str) -> Members:
        """Let a node go: it takes no more writes, and is removed once everything it has is elsewhere."""
        return await self.carry_out(await self.order_leave(node))

    async def evict(self, *nodes: str, configuration: str | None = None) -> Members:
        """Remove members that may never come back; what only they have does not count any more.

        ``configuration``: only if that is still the one (``Members.configuration``).
        Raises:  UsageError (membership-changed), Unavailable (no-quorum: it may be decided yet), OutcomeUnknown.
        """
        return await self.carry_out(await self.order_evict(nodes, configuration))

    async def force(self, *survivors: str, configuration: str | None = None) -> Members:
        """Let these go on without the others, where so many are gone that nothing can be decided any more."""
        return await self.carry_out(await self.order_force(survivors, configuration))

    async def rejoin(self, node: str) -> Members:
        """Let a node take a new id and join again; what only its old id had become orphans."""
        return await self.carry_out(await self.order_rejoin(node))

    # --- orders, and what they cost

    async def order_leave(self, node: str | None) -> Order:
        view = self._itself(await self.views(), node)
        return Order("leave", view, {"node": view.members.node})

    async def order_rejoin(self, node: str | None) -> Order:
        """Without a name: the only node that is out, as nodes advise it."""
        views = await self.views()
        out = [view for view in views if view.members.state in {"removed", "fenced"}]
        if node is None and len(out) == 1:
            return Order("rejoin", out[0], {})
        return Order("rejoin", self._itself(views, node), {})

    async def order_evict(self, nodes: Sequence[str], configuration: str | None = None) -> Order:
        views = await self.views()
        known = best_of(views).members
        nodes = known.each_worker(nodes)
        gone = {known.was_removed(name) or known.find(name).replica for name in nodes}
        view = best_of(views, without=gone)
        ids = list(dict.fromkeys(view.members.was_removed(name) or view.members.find(name).replica for name in nodes))
        return Order("evict", view, {"nodes": ids, "configuration": configuration or view.members.configuration})

    async def order_force(self, survivors: Sequence[str], configuration: str | None = None) -> Order:
        views = await self.views()
        known = best_of(views).members
        kept = {known.find(name).replica for name in known.each_worker(survivors)}
        view = best_of(views, among=kept)
        ids = [member.replica for member in view.members.members if member.replica in kept]
        return Order("force", view, {"survivors": ids, "configuration": configuration or view.members.configuration})

    async def costs(self, order: Order) -> list[str] | None:
        """What it costs, in sentences of the node; nothing is changed. None: it was done before.

        Raises:  what the order itself would meet, such as membership-changed.
        """
        try:
            await self._post(order, order.body)
        except CrdtStoreError as error:
            if error.code == "confirm-needed":
                return [str(cost) for cost in error.more.get("costs", ())]
            raise
        return None

    async def carry_out(self, order: Order) -> Members:
        """Do it."""
        return Members.of(await self.send(order))

    async def send(self, order: Order) -> dict[str, Any]:
        """Do it; the body of the answer."""
        body = await self._post(order, order.body | ({"yes": True} if order.has_costs else {}))
        if order.what == "force":
            await self._force_other_workers(order, Members.of(body))
        return body

    async def _force_other_workers(self, order: Order, now: Members) -> None:
        """Where nodes consist of several workers, the groups of each are forced by a survivor that holds them.

        One after the other, and only by who goes by the new configuration already: so all of them stay of one line.
        Raises:  Unavailable when one does not come to know of it; the order is to be given again then.
        """
        survivors, done = order.body["survivors"], {worker_of(now.node)}
        workers = {worker_of(node_of(ReplicaId(replica))) for replica in survivors}
        deadline = asyncio.get_running_loop().time() + self._timeout * DECIDE_SHARE
        while missing := workers - done:
            for view in await self.views():
                worker = worker_of(view.members.node)
                if worker not in done and view.members.replica in survivors and _follows(view.members, now):
                    body = {"survivors": survivors, "configuration": view.members.configuration, "yes": True}
                    try:
                        await self._post(Order("force", view, body), body)
                    except UsageError as error:
                        if error.code in {"membership-changed", "not-one-line"}:
                            continue  # it is just being settled what counts of those who are gone
                        if error.code != "bad-request":  # else all members of what it holds survive
                            raise
                    done.add(worker)
            if workers - done and asyncio.get_running_loop().time() > deadline:
                which = ", ".join(sorted(map(str, missing)))
                raise Unavailable(
                    f"the cluster goes on as {now.configuration}, but no survivor that is worker {which} answers under it: "
                    "give the order again once it does, or what it holds cannot change its members."
                )
            if workers - done:
                await asyncio.sleep(AGAIN_SECONDS)

    async def _post(self, order: Order, body: dict[str, Any]) -> dict[str, Any]:
        seconds = self._timeout
        if "configuration" in body:
            seconds *= DECIDE_SHARE
            body = body | {"wait_ms": int(seconds * 1000)}
            seconds += REPLY_SECONDS
        try:
            return await self._link.once(order.view.url, "POST", f"{MEMBERS_PATH}/{order.what}", body, seconds)
        except OutcomeUnknown as error:
            raise OutcomeUnknown(f"{error.detail} crdtstore member list shows what became of it.") from error

    # --- asking

    async def ask_everyone(self) -> dict[str, View | CrdtStoreError]:
        """What each url says, or why it says nothing."""

        async def ask(url: str) -> View | CrdtStoreError:
            try:
                body = await self._link.once(url, "GET", MEMBERS_PATH, None, min(self._timeout, LOOK_SECONDS))
                return View(url, Members.of(body), body)
            except CrdtStoreError as error:
                return error
            except msgspec.ValidationError as error:
                return Unavailable(f"{url} does not answer as a node of crdtstore does ({error}).", code="unreachable")

        nodes, found = self._link.nodes, dict[str, View | CrdtStoreError]()
        while urls := [node.url for node in nodes if node.url not in found]:  # workers tell of the others of their node
            answers = await asyncio.gather(*map(ask, urls))
            found |= zip(urls, answers, strict=True)
            for node in list(nodes):
                if isinstance(view := found.get(node.url), View):
                    nodes.learn(node, view.raw, view.members.node)
        return found

    async def views(self) -> list[View]:
        """What those say that answer.

        Raises:  why nobody does.
        """
        answers = await self.ask_everyone()
        if views := [answer for answer in answers.values() if isinstance(answer, View)]:
            return views
        errors = [answer for answer in answers.values() if isinstance(answer, CrdtStoreError)]
        for error in errors:
            if isinstance(error, AccessError):
                raise error
        if len(errors) == 1:
            raise errors[0]
        raise Unavailable(f"no answer from {', '.join(answers)}. Nothing changed.", code="unreachable")

    def at(self, views: Iterable[View], node: str) -> View:
        """What the node of this name, of this replica id or of its begin, says.

        Raises:  UsageError when it is at none of the urls, or when two are called so, whether there is a url of both or
                 not; Unavailable when it may be at one that does not answer.
        """
        found = {view.url: view for view in views}
        known: dict[str, Members | Member] = {view.members.replica: view.members for view in found.values()}
        for member in best_of(list(found.values())).members.members:
            known.setdefault(member.replica, member)
        meant = matching(node, known.values())
        if len(meant) > 1:
            at = {view.members.replica: f" at {view.url}" for view in found.values()}
            which = ", ".join(
                f"{short_replica(each.replica)}{at.get(each.replica, ' at none of the urls')}" for each in meant
            )
            raise UsageError(f"{node[:100]} may be any of {which}; say which. Nothing changed.", code="bad-request")
        for view in found.values():
            if meant and view.members.replica == meant[0].replica:
                return view
        where = [
            f"{each.url} is {found[each.url].members.node}" if each.url in found else f"{each.url} does not answer"
            for each in self._link.nodes
        ]
        text = (
            f"this is for {node[:100]} itself to do, and none of the urls is it: {', '.join(where)}. Nothing changed."
        )
        if len(found) < len(where):
            raise Unavailable(text, code="unreachable")
        raise UsageError(text, code="bad-request")

    def _itself(self, views: Sequence[View], node: str | None) -> View:
        """The node that is meant; without a name, the only one there is a url of."""
        if node is not None:
            return self.at(views, node)
        if len(list(self._link.nodes)) == 1:
            return views[0]
        known = ", ".join(f"{view.url} is {view.members.node}" for view in views)
        raise UsageError(f"say which node: {known}. Nothing changed.", code="bad-request")

    # --- orphans

    async def orphans(self) -> list[tuple[View, Orphans]]:
        """What every node that answers keeps of ids it gave up."""

        async def ask(view: View) -> list[tuple[View, Orphans]]:
            return [(view, each) for each in await self.orphans_at(view)]

        lists = await asyncio.gather(*map(ask, await self.views()))
        return [each for one in lists for each in one]

    async def orphans_at(self, view: View) -> list[Orphans]:
        """What one node keeps of ids it gave up."""
        body = await self._get_orphans(view)
        return msgspec.convert(body.get("replicas", []), list[Orphans])

    async def orphans_of(self, view: View, replica: str, domain: str) -> list[Orphan]:
        """The commits of an id above its final, in one domain."""
        found: list[Orphan] = []
        after: int | None = 0
        while after is not None:
            page, after = await self.orphan_page(view, replica, domain, after)
            found += page
        return found

    async def applied_of(self, view: View, kept: Orphans) -> dict[str, int]:
        """Per domain how many orphans of an id were made anew: all of them are looked at, page by page."""
        counts = dict.fromkeys(kept.domains, 0)
        for domain, found in kept.domains.items():
            after: int | None = 0 if found.orphans else None
            while after is not None:
                page, after = await self.orphan_page(view, kept.replica, domain, after)
                counts[domain] += sum(each.applied is not None for each in page)
        return counts

    async def orphan_page(
        self, view: View, replica: str, domain: str, after: int = 0
    ) -> tuple[list[Orphan], int | None]:
        """Some of them behind the commit of this number, and where the next page begins; None: there is none."""
        body = await self._get_orphans(view, replica=replica, domain=domain, limit=PAGE, after=after)
        return msgspec.convert(body.get("orphans", []), list[Orphan]), body.get("next")

    async def apply(self, view: View, domain: str, orphans: Sequence[Orphan]) -> dict[str, list[dict[str, str]]]:
        """Make commits anew with their effects: ``{"applied": [{"orphan", "dot"}], "refused": [{"orphan", "why"}]}``."""
        done: dict[str, list[dict[str, str]]] = {"applied": [], "refused": []}
        for start in range(0, len(orphans), COMMITS_PER_REQUEST):
            part = orphans[start : start + COMMITS_PER_REQUEST]
            body = {"domain": domain, "commits": [each.data for each in part], "yes": True}
            try:
                reply = await self._link.once(view.url, "POST", f"{ORPHANS_PATH}/apply", body, self._timeout)
            except OutcomeUnknown as error:
                raise OutcomeUnknown(f"{error.detail} Repeating it is safe: each counts once.") from error
            for name in done:
                done[name] += reply.get(name, [])
        return done

    async def _get_orphans(self, view: View, **query: str | int) -> dict[str, Any]:
        return await self._link.once(view.url, "GET", with_query(ORPHANS_PATH, query), None, self._timeout)


def _follows(members: Members, now: Members) -> bool:
    """Whether a node goes by a configuration, or by a later one of its line."""
    here, there = members.configuration, now.configuration
    return here.partition(".")[2] == there.partition(".")[2] and number_of(here) >= number_of(there)


def best_of(views: Sequence[View], *, without: Iterable[str] = (), among: Iterable[str] | None = None) -> View:
    """Who can best say who is a member, and carry an order out: a member that reaches a quorum, of the newest configuration.

    ``without``: not one of these replicas; ``among``: one of these only.
    Raises:  UsageError when no url is such a node.
    """
    barred = set(without)
    wanted = None if among is None else set(among)
    fit = [
        view
        for view in views
        if view.members.replica not in barred and (wanted is None or view.members.replica in wanted)
    ]
    if not fit:
        here = ", ".join(f"{view.url} is {view.members.node}" for view in views)
        which = "a member that remains" if wanted is None else "one of those that go on"
        raise UsageError(f"this needs the url of {which}: {here}. Nothing changed.", code="bad-request")

    def rank(view: View) -> tuple[bool, bool, int]:
        members = view.members
        return (members.state == "member", members.quorum.reachable, number_of(members.configuration))

    return max(fit, key=rank)
