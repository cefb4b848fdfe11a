"""Why a node that runs well does not take requests as a member does: it is none yet, or no more, or nobody knows whether it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdtstore.admin.identity import state_of
from crdtstore.configuration import SYSTEM_GROUP
from crdtstore.errors import CrdtStoreError, StorageError, Unavailable

if TYPE_CHECKING:
    from crdtstore.host import Host
    from crdtstore_node.node import Node

__all__ = ["why_no_data", "why_not_member"]

_CODES = {
    "fenced": "fenced",
    "joining": "not-ready",
    "leaving": "leaving",
    "removed": "fenced",
    "unproven": "identity-unproven",
}


def why_not_member(node: Node) -> CrdtStoreError | None:
    """Why requests had better go elsewhere; None: this node is a member."""
    host = node.host
    try:
        state, why = state_of(host)
    except StorageError:  # what cannot be read is told elsewhere
        return None
    if state == "member":
        return None
    if state == "joining":
        why = f"{why}; {_progress(host)}"
    return Unavailable(f"{why}.", code=_CODES[state], retry_after=1.0 if state == "joining" else 5.0)


def why_no_data(host: Host) -> CrdtStoreError | None:
    """Why nothing can be read or written here, None: it can. What this node has not taken over it would say is not there."""
    if host.groups[SYSTEM_GROUP].is_installed:
        return None
    return Unavailable(
        f"this node joins the cluster, {_progress(host)}. Ask another region. Nothing changed.",
        code="not-ready",
        retry_after=1.0,
    )


def _progress(host: Host) -> str:
    """How far a node that joins has come."""
    if not host.groups[SYSTEM_GROUP].membership.is_member:
        reached = len(host.connected)
        return f"it asks to be let in, {reached} nodes are reached" if reached else "no node is reached yet"
    arrivals = {} if host.installs is None else host.installs.arrivals
    parts = [
        f"{group.partition('/')[0]} ({arrival.bytes} bytes so far)"
        for group, arrival in sorted(arrivals.items())[:3]
        if not arrival.is_idle
    ]
    waiting = sum(not engine.is_installed for engine in host.groups.values())
    return f"{waiting} groups are to be taken over{': ' if parts else ''}{', '.join(parts)}"
