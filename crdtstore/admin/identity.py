"""What a node is at the moment, in one word and a sentence.

The question: who may be trusted with a reading? Whoever was removed, or does not know whether it still is who it says, may lack what all
others have, and may show what nobody else will ever have. It goes on to serve reads, and every one of them says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from crdtstore.configuration import SYSTEM_GROUP, name_of
from crdtstore.errors import Unavailable

if TYPE_CHECKING:
    from crdtstore.engine.engine import Engine
    from crdtstore.host import Host

__all__ = ["State", "check_writes", "mark_of", "state_of"]

State = Literal["member", "joining", "leaving", "removed", "fenced", "unproven"]


def state_of(host: Host) -> tuple[State, str | None]:
    """What this node is, and why it is not simply a member.

    Cost:    O(groups).
    """
    system = host.groups[SYSTEM_GROUP]
    if host.reads_only:
        return "unproven", f"restored from a backup of {host.replica}, has not joined: serves reads only"
    if host.fenced_by is not None:
        return "fenced", f"this id takes no write any more: {host.fenced_by}"
    if host.unproven is not None:
        return "unproven", host.unproven
    removed = [engine.group for engine in host.groups.values() if engine.membership.is_removed]
    if system.membership.is_removed:
        how = "it left" if host.is_leaving else "it was removed from"
        return "removed", f"{how} the cluster: its id does not count any more, and never will again"
    if host.is_leaving:
        return "leaving", "it takes no writes, and goes as soon as all others have its commits"
    if not system.membership.is_member or not system.is_installed:
        return "joining", "it is not a member yet, or does not hold what the others declared"
    if removed:
        return "removed", f"its id was removed from {', '.join(removed[:5])}"
    missing = sorted(name_of(group, host.groups) for group, engine in host.groups.items() if not engine.is_installed)
    if missing:
        return "joining", f"it does not hold {', '.join(missing[:5])} yet{' and others' if len(missing) > 5 else ''}"
    return "member", None


def mark_of(host: Host, engine: Engine) -> str | None:
    """How a reading of a group is marked; None: it is not. Looked at for every read."""
    if host.reads_only or host.unproven is not None:
        return "unproven"
    if engine.fenced_by is not None:
        return "fenced"
    return None if engine.membership.is_member else "removed"


def check_writes(host: Host) -> None:
    """Refuse what is to be written while it is not known whose id this is.

    Raises:  Unavailable ``identity-unproven``; nothing changed.
    """
    if host.reads_only:
        raise Unavailable(
            "this node was restored from a backup and has not joined the cluster: it serves reads only. Nothing changed.",
            code="identity-unproven",  # another region may take it; waiting for this one helps nobody
        )
    if host.unproven is not None:
        raise Unavailable(f"{host.unproven}. Nothing changed.", code="identity-unproven", retry_after=1.0)
