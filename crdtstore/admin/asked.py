"""Requests of operators, every field checked before anything happens.

The question: what does an operator have to say before members change? At which configuration he looked, and yes. Who was looked at
yesterday may be the last quorum today.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crdtstore.declarations import check_name
from crdtstore.errors import UsageError
from crdtstore.requests import Base, parse

__all__ = [
    "ADMIN",
    "EvictRequest",
    "ForceRequest",
    "LeaveRequest",
    "MembersStatusRequest",
    "OrphanApplyRequest",
    "OrphansRequest",
    "RejoinRequest",
    "parse_admin",
]

MAX_NAMED = 256
MAX_APPLIED = 1_000
"""Commits that one request applies."""
MAX_LISTED = 1_000


class MembersStatusRequest(Base, kw_only=True):
    """Who the members are."""


class LeaveRequest(Base, kw_only=True):
    """This node is to leave."""

    node: str | None = None


class _Confirmed(Base, kw_only=True):
    configuration: str | None = None
    """What the operator looked at, as the members' page says it: ``3.ab12cd34``."""
    yes: bool = False
    wait_ms: int = 10_000

    def check(self) -> None:
        super().check()
        if self.yes and not self.configuration:
            raise UsageError(
                "configuration is the one that you looked at, as the members' page has it, such as 3.ab12cd34. Nothing changed."
            )


class EvictRequest(_Confirmed, kw_only=True):
    """Members are to go, without their doing anything."""

    nodes: list[str]

    def check(self) -> None:
        super().check()
        _check_names(self.nodes, "nodes")


class ForceRequest(_Confirmed, kw_only=True):
    """These go on without the others, without a vote."""

    survivors: list[str]

    def check(self) -> None:
        super().check()
        _check_names(self.survivors, "survivors")


class RejoinRequest(Base, kw_only=True):
    """This node is to give up its id, and to join under a new one."""

    yes: bool = False


class OrphansRequest(Base, kw_only=True):
    """Commits that went with a removed id: how many there are, or those of one id in one domain."""

    replica: str | None = None
    domain: str | None = None
    limit: int = 100
    after: int = 0
    """The number of the commit after which the page begins."""

    def check(self) -> None:
        super().check()
        if (self.replica is None) != (self.domain is None):
            raise UsageError("replica and domain are given together, or neither. Nothing changed.")
        if not 0 < self.limit <= MAX_LISTED:
            raise UsageError(f"limit is 1 to {MAX_LISTED}, got {self.limit}. Nothing changed.")


class OrphanApplyRequest(Base, kw_only=True):
    """Orphans are to take effect, as new commits of who asks."""

    domain: str
    commits: list[str]
    """As a page of orphans has them in ``data``."""
    yes: bool = False

    def check(self) -> None:
        super().check()
        if self.domain != "_sys":
            check_name(self.domain.partition("/")[0], "domain")
        if not 0 < len(self.commits) <= MAX_APPLIED:
            raise UsageError(f"commits are 1 to {MAX_APPLIED}, got {len(self.commits)}. Nothing changed.")


def _check_names(names: list[str], what: str) -> None:
    if not 0 < len(names) <= MAX_NAMED or len(set(names)) != len(names):
        raise UsageError(
            f"{what} are 1 to {MAX_NAMED} different names of nodes or replica ids, got {len(names)}. Nothing changed."
        )


ADMIN: Mapping[str, type[Base]] = {
    "member_evict": EvictRequest,
    "member_force": ForceRequest,
    "member_leave": LeaveRequest,
    "member_rejoin": RejoinRequest,
    "members_status": MembersStatusRequest,
    "orphan_apply": OrphanApplyRequest,
    "orphans": OrphansRequest,
}


def parse_admin(do: str, fields: Mapping[str, Any]) -> Base:
    """The checked request.

    Raises:  UsageError; nothing changed.
    """
    return parse(do, fields, ADMIN)
