"""Requests of operators about members: judged, ordered, answered.

The question: when is an operator told that it is done? When it is decided, and durable here. What is not decided in time is withdrawn
and answered as unknown: a vote that was given may still be counted by somebody. Nothing of it happens by itself later, for what an
operator wanted in one hour he may not want in the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from crdtstore.admin.asked import (
    ADMIN,
    EvictRequest,
    ForceRequest,
    LeaveRequest,
    MembersStatusRequest,
    OrphanApplyRequest,
    OrphansRequest,
    RejoinRequest,
    parse_admin,
)
from crdtstore.admin.costs import evict_costs, force_costs, others_of, rejoin_costs
from crdtstore.admin.heard import HEARD_MS
from crdtstore.admin.identity import state_of
from crdtstore.admin.orphaned import Orphaned
from crdtstore.admin.view import members_body, says_it_leaves
from crdtstore.causal import ReplicaId
from crdtstore.configuration import SYSTEM_GROUP, Configuration, Member
from crdtstore.engine.membership.changes import Evict, forced
from crdtstore.errors import CrdtStoreError, Unavailable, UsageError

if TYPE_CHECKING:
    from crdtstore.engine.engine import Engine
    from crdtstore.host import HostOutput
    from crdtstore.service import Request, Service

__all__ = ["ADMIN", "Administration"]

_NEVER = 1 << 63
_MOST_WAITING = 100


class _Waiting(Struct):
    """A request that waits for a decision (``number`` 0), or until a record of the log is durable."""

    ticket: int
    deadline_ms: int
    number: int = 0


class Administration:
    """The requests about members at one node. Mutable; part of the service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._host = service.host
        self._host.on_decided = self._on_decided
        self.orphaned = Orphaned(service)
        self._order = 0
        self._waiting: dict[int, _Waiting] = {}
        """By the number of the order."""
        self.wake_ms = _NEVER
        self._doers: dict[type, Callable[[Request, Any, int, HostOutput], None]] = {
            EvictRequest: self._evict,
            ForceRequest: self._force,
            LeaveRequest: self._leave,
            MembersStatusRequest: self._status,
            OrphanApplyRequest: self.orphaned.apply,
            OrphansRequest: self.orphaned.show,
            RejoinRequest: self._rejoin,
        }

    def on_request(self, request: Request, now_ms: int, out: HostOutput) -> None:
        """Do it, or refuse it.

        Raises:  CrdtStoreError; nothing changed.
        """
        parsed = parse_admin(request.do, request.fields)
        self._doers[type(parsed)](request, parsed, now_ms, out)

    def on_step(self, now_ms: int) -> None:
        """Something became durable, or time has passed."""
        if not self._waiting:
            return
        for order, waiting in list(self._waiting.items()):
            if waiting.number and self._host.durable_number >= waiting.number:
                self._answer(order, None)
            elif now_ms >= waiting.deadline_ms:
                for engine in self._host.groups.values():
                    engine.membership.decision.give_up(order)
                self._answer(order, self._too_late(waiting))
        self._set_wake()

    def _status(self, request: Request, parsed: MembersStatusRequest, now_ms: int, out: HostOutput) -> None:
        self._service.reply(request.ticket, members_body(self._host, now_ms))

    # --- waiting

    def _wait(self, request: Request, wait_ms: int, now_ms: int) -> int:
        """Let a request wait; the number of its order."""
        if len(self._waiting) >= _MOST_WAITING:
            raise Unavailable(
                "too many changes of members wait on this node. Nothing changed.", code="overloaded", retry_after=1.0
            )
        self._order += 1
        deadline_ms = now_ms + min(wait_ms, self._host.options.max_wait_ms)
        self._waiting[self._order] = _Waiting(request.ticket, deadline_ms)
        self._set_wake()
        return self._order

    def _until_durable(self, request: Request, wait_ms: int, now_ms: int) -> None:
        """Answer when what this step has to write is on disk; it gets the next number, if there is anything."""
        order = self._wait(request, wait_ms, now_ms)
        self._waiting[order].number = self._host.last_number + 1

    def _set_wake(self) -> None:
        self.wake_ms = min((waiting.deadline_ms for waiting in self._waiting.values()), default=_NEVER)

    def _on_decided(self, decided: list[tuple[int, CrdtStoreError | None]]) -> None:
        for order, error in decided:
            self._answer(order, error)

    def _answer(self, order: int, error: CrdtStoreError | None) -> None:
        waiting = self._waiting.pop(order, None)
        if waiting is None:
            return
        self._set_wake()
        if error is not None:
            self._service.fail(waiting.ticket, error)
        else:
            self._service.reply(waiting.ticket, members_body(self._host, self._service.now_ms))

    def _too_late(self, waiting: _Waiting) -> CrdtStoreError:
        if waiting.number:
            error = Unavailable(
                "the disk of this node does not answer. Whether this took effect is not known.", code="storage-failed"
            )
            error.effect = "unknown"
            return error
        host = self._host
        configuration = host.groups[SYSTEM_GROUP].configuration
        reached = [each.node for each in configuration.members if self._is_reached(each.replica)]
        return Unavailable(
            f"no quorum of {len(configuration.members)} members has decided it in time; this node reaches {', '.join(reached)}. It is "
            f"not tried any more, but may have been decided: look at the members. If too few of them will ever come back: "
            f"crdtstore member force {' '.join(reached)}",
            code="no-quorum",
            reached=reached,
            configuration=str(configuration.id),
        )

    def _is_reached(self, replica: ReplicaId) -> bool:
        return replica == self._host.me.replica or self._host.is_connected(replica)

    # --- judging

    def _system(self) -> Engine:
        """``_sys``, at a node that may change the members.

        Raises:  Unavailable; nothing changed.
        """
        state, why = state_of(self._host)
        system = self._host.groups[SYSTEM_GROUP]
        if state in ("removed", "fenced"):
            raise Unavailable(f"{why}; ask a member. Nothing changed.", code="fenced")
        if state == "unproven":
            raise Unavailable(f"{why}; ask a member. Nothing changed.", code="identity-unproven")
        if not system.membership.is_member or not system.is_installed:
            raise Unavailable("this node is no member yet; ask one. Nothing changed.", retry_after=1.0)
        return system

    def _check_at(self, given: str | None, configuration: Configuration) -> None:
        if given is not None and given != str(configuration.id):
            raise UsageError(
                f"the members have changed since, the configuration is {configuration.id} now, not {given[:100]!r}: look at them again. "
                "Nothing changed.",
                code="membership-changed",
                configuration=str(configuration.id),
            )

    def _confirm(self, yes: bool, what: str, costs: Sequence[str]) -> None:
        if not yes:
            raise UsageError(
                f"{what} has a price: {'; '.join(costs)}. Say yes to do it. Nothing changed.",
                code="confirm-needed",
                costs=list(costs),
                configuration=str(self._host.groups[SYSTEM_GROUP].configuration.id),
            )

    def _named(self, names: Sequence[str], configuration: Configuration) -> tuple[list[ReplicaId], list[ReplicaId]]:
        """Members, and removed ids, that these names of nodes or ids stand for.

        Raises:  UsageError; nothing changed.
        """
        members, removed = list[ReplicaId](), list[ReplicaId]()
        for name in names:
            found = [each.replica for each in configuration.members if name in (each.node, each.replica)]
            workers = [each.replica for each in configuration.members if name == each.machine != each.node]
            if workers:  # all of the node
                found = workers
            elif len(found) > 1:
                raise UsageError(
                    f"{name} is the node of {len(found)} members: give the replica id, one of {', '.join(found)}. Nothing changed."
                )
            gone = {
                each.member.node: each.replica
                for each in configuration.removed
                if name in (each.member.node, each.member.machine, each.replica)
            }
            if found:
                members += found
            elif gone:
                removed += gone.values()
            else:
                known = ", ".join(each.node for each in configuration.members)
                raise UsageError(f"there is no member {name[:100]!r}; there are {known}. Nothing changed.")
        return members, removed

    # --- leaving and evicting

    def _leave(self, request: Request, parsed: LeaveRequest, now_ms: int, out: HostOutput) -> None:
        host = self._host
        if parsed.node is not None and parsed.node not in (host.me.node, host.me.replica):
            raise UsageError(
                f"this is the node {host.me.node}: a node leaves by itself. Send this to {parsed.node[:100]}, or, if it is gone for good, "
                f"evict it: crdtstore member evict {parsed.node[:100]}. Nothing changed."
            )
        system = self._system()
        others = [
            member.replica
            for member in system.configuration.members
            if member.replica != host.me.replica and member.worker == host.me.worker
        ]
        if not others:
            alone = "member" if host.cluster.workers == 1 else f"member that is worker {host.me.worker}"
            raise UsageError(f"this node is the only {alone}: nobody would have its data. Nothing changed.")
        if not host.is_leaving and all(says_it_leaves(host, replica) for replica in others):
            raise UsageError(
                "all other members leave already: nobody would have the data, and who is left last takes no writes any more. "
                "Nothing changed."
            )
        self._until_durable(request, host.options.max_wait_ms, now_ms)
        host.leave(now_ms, out)

    def _evict(self, request: Request, parsed: EvictRequest, now_ms: int, out: HostOutput) -> None:
        system, host = self._system(), self._host
        configuration = system.configuration
        gone, already = self._named(parsed.nodes, configuration)
        if already and not gone:
            self._service.reply(request.ticket, members_body(host, now_ms))
            return
        if host.me.replica in gone:
            raise UsageError(
                f"this is the node {host.me.node}: it does not evict itself. Ask another member, or let it leave. Nothing changed."
            )
        self._check_workers([each for each in configuration.members if each.replica not in gone])
        self._check_at(parsed.configuration, configuration)
        self._confirm(parsed.yes, f"evicting {', '.join(gone)}", evict_costs(host, gone, now_ms))
        order = self._wait(request, parsed.wait_ms, now_ms)
        host.order(SYSTEM_GROUP, Evict(tuple(gone), configuration.id), order, now_ms, out)

    def _check_workers(self, rest: Sequence[Member]) -> None:
        """Whether those who remain hold all shards.

        Raises:  UsageError; nothing changed.
        """
        cluster = self._host.cluster
        if missing := cluster.missing_workers(rest):
            raise UsageError(
                f"no member would be worker {missing[0]} of {cluster.workers}: its shards would be lost. Nothing changed."
            )

    # --- without a quorum

    def _force(self, request: Request, parsed: ForceRequest, now_ms: int, out: HostOutput) -> None:
        system, host = self._system(), self._host
        configuration = system.configuration
        self._check_at(parsed.configuration, configuration)
        survivors, removed = self._named(parsed.survivors, configuration)
        if removed:
            raise UsageError(f"{', '.join(removed)} was removed, and can be no survivor. Nothing changed.")
        if host.me.replica not in survivors:
            raise UsageError(
                f"this is the node {host.me.node}, which is to survive too: ask one that is. Nothing changed."
            )
        if not others_of(host, survivors):
            raise UsageError("these are all members: there is nobody to go on without. Nothing changed.")
        self._check_workers([each for each in configuration.members if each.replica in survivors])
        for engine in host.groups.values():
            self._check_line(engine, survivors, now_ms)
        self._confirm(parsed.yes, "going on without the others", force_costs(host, survivors, now_ms))
        self._until_durable(request, parsed.wait_ms, now_ms)
        for engine in list(host.groups.values()):
            if any(replica not in survivors for replica in engine.configuration.ids):
                host.force(engine.group, forced(engine.configuration, survivors, host.nonce()), now_ms, out)

    def _check_line(self, engine: Engine, survivors: Sequence[ReplicaId], now_ms: int) -> None:
        """Whether all survivors were heard just now under the configuration in force here, which then is the highest of theirs.

        Raises:  UsageError ``not-one-line``; nothing changed.
        """
        configuration, heard = engine.configuration, engine.membership.heard
        why = None
        if not engine.takes_part:
            why = f"this node does not hold {engine.group} yet"
        elif engine.membership.splits.keys() & set(survivors):
            why = f"{', '.join(sorted(engine.membership.splits.keys() & set(survivors)))} follows another line in {engine.group}"
        else:
            for replica in survivors:
                if replica == self._host.me.replica or configuration.member(replica) is None:
                    continue
                at, ms = heard.get(replica, (None, 0))
                if at is None or now_ms - ms > HEARD_MS:
                    why = f"{replica} was not heard in {engine.group} within {HEARD_MS // 1000} s"
                elif at != configuration.id:
                    why = f"{replica} was heard under the configuration {at} in {engine.group}, this node is at {configuration.id}"
        if why is not None:
            raise UsageError(
                f"the survivors do not all follow one configuration now: {why}. Nothing changed.", code="not-one-line"
            )

    # --- a new id

    def _rejoin(self, request: Request, parsed: RejoinRequest, now_ms: int, out: HostOutput) -> None:
        host = self._host
        state, why = state_of(host)
        is_parted = any(engine.membership.splits for engine in host.groups.values())
        if state in ("member", "leaving", "joining") and not is_parted:
            raise UsageError(
                f"this node is {'a member' if state == 'member' else state} under an id that counts: there is nothing "
                "to rejoin. Nothing changed."
            )
        self._confirm(parsed.yes, "taking a new id", rejoin_costs(host, self.orphaned.own_count()))
        out.rejoin = why or "its line and that of others had parted"
        self._service.reply(request.ticket, members_body(host, now_ms))
