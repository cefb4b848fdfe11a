"""Requests about orphans: how many there are, what they did, and having them done once more.

The question: whose orphans can a node show? Those of ids that it had itself: of the one that was removed under its hands, and of those
it gave up before, whose logs it keeps. Which commits are orphans the configurations in force say, so a node that does not take part any
more knows it as soon as it has heard how that was settled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from crdtstore.admin.asked import OrphanApplyRequest, OrphansRequest
from crdtstore.admin.identity import check_writes
from crdtstore.causal import Dot, ReplicaId
from crdtstore.commit import head_of
from crdtstore.configuration import SYSTEM_GROUP, group_named, name_of
from crdtstore.engine.output import Committed, Refused
from crdtstore.errors import CrdtStoreError, StorageError, UsageError
from crdtstore.leaves import SEQ_BITS, SEQ_MASK
from crdtstore.orphans import NO_LIVES, Life, Lives, Orphan, decode_orphan, draft_of, operation_of, shown

if TYPE_CHECKING:
    from crdtstore.engine.engine import Engine
    from crdtstore.host import Host, HostOutput
    from crdtstore.service import Request, Service

__all__ = ["Orphaned"]

_PAGE_BYTES = 1 << 20


def final_of(host: Host, engine: Engine, replica: str) -> int | None:
    """How many commits of a replica count in a group; None: it is not settled, or it is a member. One that was removed before this group
    knew it has none here."""
    configuration = engine.configuration
    removal = configuration.removal(replica)
    if removal is not None:
        return removal.final
    system = host.groups[SYSTEM_GROUP].configuration
    is_stranger = configuration.member(replica) is None and system.removal(replica) is not None
    return 0 if is_stranger else None


class _Applying(Struct):
    """A request that waits until all of its commits were judged, and those that were taken are durable."""

    ticket: int
    left: int
    applied: list[dict[str, str]] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)


class Orphaned:
    """The requests about orphans at one node. Mutable; part of the administration.

    ``left`` is what the node keeps of its earlier ids; whoever drives it reads from there before it hands a request in.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._host = service.host
        self.left: Lives = NO_LIVES

    # --- what there is

    def own_count(self) -> int | None:
        """How many commits of this node's present id count nowhere; None: that is not settled, or not known here."""
        count = 0
        for engine in self._host.groups.values():
            final = self._final(engine, self._host.me.replica)
            if final is None:
                if engine.applied[engine.me]:
                    return None
                continue
            count += max(0, engine.applied[engine.me] - final)
        return count

    def count(self) -> int:
        """How many orphans are known to be kept here."""
        return sum(domain["orphans"] for life in self._lives() for domain in self._domains(life).values())

    def _final(self, engine: Engine, replica: str) -> int | None:
        return final_of(self._host, engine, replica)

    def _lives(self) -> list[Life]:
        host, found = self._host, self.left.lives()
        if any(engine.membership.is_removed for engine in host.groups.values()):
            return [Life(host.me.replica, None, "it was removed, or left"), *found]
        return found

    def _made(self, replica: ReplicaId) -> dict[str, int]:
        if replica != self._host.me.replica:
            return self.left.made(replica)
        return {group: engine.durability.vector[engine.me] for group, engine in self._host.groups.items()}

    def _domains(self, life: Life) -> dict[str, dict[str, Any]]:
        made, found = self._made(life.replica), {}
        for group in sorted({*made, *self._host.groups}):
            engine = self._host.groups.get(group)
            final = None if engine is None else self._final(engine, life.replica)
            count = max(made.get(group, 0), final or 0)
            if count:
                orphans = 0 if final is None else count - final
                found[name_of(group, self._host.groups)] = {"final": final, "made": count, "orphans": orphans}
        return found

    def show(self, request: Request, parsed: OrphansRequest, now_ms: int, out: HostOutput) -> None:
        """All ids with their counts, or the orphans of one id in one domain."""
        lives = self._lives()
        if parsed.replica is None or parsed.domain is None:
            replicas = [
                {"replica": life.replica, "left": life.left, "why": life.why, "domains": self._domains(life)}
                for life in lives
            ]
            self._service.reply(request.ticket, {"replicas": replicas})
            return
        life = next((life for life in lives if life.replica == parsed.replica), None)
        engine = self._host.groups.get(group_named(parsed.domain))
        if life is None or engine is None:
            what = f"the id {parsed.replica[:100]}" if life is None else f"the domain {parsed.domain[:100]}"
            known = ", ".join(each.replica for each in lives) or "none"
            raise UsageError(
                f"this node, {self._host.me.node}, keeps no orphans of {what}; ids it gave up or that were removed here: {known}. "
                "Nothing changed."
            )
        final = self._final(engine, life.replica)
        body: dict[str, Any] = {"orphans": [], "final": final, "next": None}
        if final is not None:
            self._page(body, engine, life, max(final, parsed.after), parsed.limit)
        self._service.reply(request.ticket, body)

    def _page(self, body: dict[str, Any], engine: Engine, life: Life, after: int, limit: int) -> None:
        size, last = 0, after
        for data in self._commits(engine, life, after, limit + 1):
            if len(body["orphans"]) == limit or (size and size + len(data) > _PAGE_BYTES):
                body["next"] = last
                return
            size += len(data)
            last = head_of(data)[0]
            body["orphans"].append(
                shown(engine.group, life.replica, data, self._applied(engine, Dot(life.replica, last)))
            )
        if size and last < self._made(life.replica).get(engine.group, 0):
            body["next"] = last  # what was read ended before what there is

    def _commits(self, engine: Engine, life: Life, after: int, most: int) -> list[bytes]:
        if life.left is not None:
            return self.left.commits(life.replica, engine.group, after, most)
        upto = engine.durability.vector[engine.me]
        if after < engine.history.base[engine.me] < upto:
            raise StorageError(
                f"the log of {life.replica} in {engine.group} begins only above {engine.history.base[engine.me]}"
            )
        return engine.history.span(engine.me, after, upto, 2 * _PAGE_BYTES)[:most] if after < upto else []

    def _applied(self, engine: Engine, dot: Dot) -> str | None:
        attempts = engine.keyspace.operations.attempts(operation_of(dot))
        if not attempts:
            return None
        at = attempts[0].dot
        return str(Dot(engine.replicas[at >> SEQ_BITS], at & SEQ_MASK))

    # --- once more

    def apply(self, request: Request, parsed: OrphanApplyRequest, now_ms: int, out: HostOutput) -> None:
        """Do again what these commits did, as new commits of who asks; what cannot be done again is said."""
        domain = parsed.domain.partition("/")[0]
        if domain != "_sys":
            self._service.check_domain(domain)
        check_writes(self._host)
        orphans = [decode_orphan(text) for text in parsed.commits]
        if not parsed.yes:
            keys = sorted({f"{each['collection']}/{each['key']}" for each in self._all_changes(orphans)})
            costs = [
                f"{len(orphans)} commits take effect now, after all that was written since: in {', '.join(keys[:10])}"
                + (f" and {len(keys) - 10} more keys" if len(keys) > 10 else "")
            ]
            raise UsageError(
                f"applying orphans changes data: {'; '.join(costs)}. Say yes to do it. Nothing changed.",
                code="confirm-needed",
                costs=costs,
            )
        applying = _Applying(request.ticket, len(orphans))
        for orphan in orphans:
            self._apply_one(applying, domain, orphan, request.principal, now_ms)
        self._answer_when_done(applying)

    def _all_changes(self, orphans: list[Orphan]) -> list[dict[str, Any]]:
        return [
            change
            for orphan in orphans
            for change in shown(orphan.group, orphan.dot.replica, orphan.data, None)["changes"]
        ]

    def _apply_one(self, applying: _Applying, domain: str, orphan: Orphan, author: str, now_ms: int) -> None:
        def judged(reply: Committed | Refused) -> None:
            applying.left -= 1
            if isinstance(reply, Refused):
                applying.refused.append({"orphan": str(orphan.dot), "why": reply.error.detail})
            else:
                dot = Dot(self._host.groups[orphan.group].replicas[reply.origin], reply.seq)
                applying.applied.append({"orphan": str(orphan.dot), "dot": str(dot)})
            self._answer_when_done(applying)

        try:
            engine = self._engine_of(domain, orphan)
            self._check_orphan(engine, orphan)
            self._service.submit_own(engine, draft_of(orphan, 0, author, now_ms), judged)
        except CrdtStoreError as error:
            applying.left -= 1
            applying.refused.append({"orphan": str(orphan.dot), "why": error.detail})

    def _engine_of(self, domain: str, orphan: Orphan) -> Engine:
        """The group that a commit belongs to.

        Raises:  UsageError when that is none of the domain, or not held here; nothing changed.
        """
        engine = self._host.groups.get(orphan.group)
        if orphan.group.partition("/")[0] != domain:
            raise UsageError(f"it belongs to {orphan.group.partition('/')[0]}. Nothing changed.")
        if engine is None or not engine.is_installed:
            raise UsageError(f"this node does not hold {orphan.group}. Nothing changed.")
        return engine

    def _check_orphan(self, engine: Engine, orphan: Orphan) -> None:
        """Whether this commit counts nowhere: one that does must not be done twice.

        Raises:  UsageError; nothing changed.
        """
        dot = orphan.dot
        final, removal = self._final(engine, dot.replica), engine.configuration.removal(dot.replica)
        if final is None and removal is None:
            raise UsageError(
                f"{dot.replica} was not removed, as far as this node knows: its commits count. Nothing changed."
            )
        if final is None:
            raise UsageError(
                f"how many commits of {dot.replica} count is not settled yet: try again later. Nothing changed."
            )
        if dot.seq <= final:
            raise UsageError(
                f"it is no orphan: {final} commits of {dot.replica} count, this one among them. Nothing changed."
            )

    def _answer_when_done(self, applying: _Applying) -> None:
        if not applying.left and applying.ticket >= 0:
            self._service.reply(applying.ticket, {"applied": applying.applied, "refused": applying.refused})
            applying.ticket = -1
