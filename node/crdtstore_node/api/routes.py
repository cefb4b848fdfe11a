"""Which request a path and a method stand for.

The question: can a key collide with a route? The verb comes before the address, so a path is decided by its first segments and its length
alone, and whatever follows ``/v1/data/`` is data. A key is one segment, so what stands behind it is no key either.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from crdtstore.errors import UsageError
from crdtstore_node.api.target import Query, boolean, element, integer, text

__all__ = ["Action", "MethodNotAllowed", "find"]


_NONE: Query = MappingProxyType({})
_ADMIN = ("", "admin", "v1")


class Action(NamedTuple):
    """One request of the service, or one page of the node itself (``do`` begins with a full stop)."""

    do: str
    query: Query = _NONE
    body: frozenset[str] = frozenset()
    """Fields its body may have; none: it takes no body."""
    may_be_empty: bool = False
    status: int = 200
    """Of an answer that is no problem."""


class MethodNotAllowed(UsageError):
    """The path exists and does not take this method; ``allow`` are those it takes."""

    default_code = "method-not-allowed"

    def __init__(self, method: str, allow: str) -> None:
        super().__init__(f"this path takes {allow}, not {method[:20]}. Nothing changed.")
        self.allow = allow


_WAIT: Query = {"wait_ms": integer}
_READ = Action("read", {"consistency": text, "max_staleness_ms": integer, **_WAIT})
_LIST = Action(
    "list", {"prefix": text, "after": text, "limit": integer, "values": boolean, "shards_of": integer, **_WAIT}
)
_MEMBERS = Action("members", {"after": element, "limit": integer, "has": element, **_WAIT})
_EXPLAIN = Action("explain", {"limit": integer, **_WAIT})
_CONFLICTS = Action("conflicts", {"after": text, "limit": integer, "shards_of": integer, **_WAIT})
_COMMIT = Action("commit", body=frozenset(("ops", "reason", "regions", "wait_ms")))
_DOMAIN = Action("domain", _WAIT)
_DECLARE_DOMAIN = Action("declare_domain", body=frozenset(("owner", "description", "shards")), may_be_empty=True)
_COLLECTION = Action("collection", _WAIT)
_DECLARE = Action("declare", body=frozenset(("type", "options")))

_KEY = {"GET": _READ, "HEAD": _READ, "POST": _COMMIT}
_KEYS = {"GET": _LIST, "HEAD": _LIST}
_OF_KEY = {"members": {"GET": _MEMBERS, "HEAD": _MEMBERS}}
_WHY = {"GET": _EXPLAIN, "HEAD": _EXPLAIN}
_CLASHES = {"GET": _CONFLICTS, "HEAD": _CONFLICTS}
_OF_DOMAIN = {"GET": _DOMAIN, "HEAD": _DOMAIN, "PUT": _DECLARE_DOMAIN}
_OF_COLLECTION = {"GET": _COLLECTION, "HEAD": _COLLECTION, "PUT": _DECLARE}
_ORPHANS = Action("orphans", {"replica": text, "domain": text, "limit": integer, "after": integer})
_CHANGE = ("configuration", "yes", "wait_ms")
_OF_ADMIN: dict[tuple[str, ...], Mapping[str, Action]] = {
    ("members",): {"GET": Action("members_status"), "HEAD": Action("members_status")},
    ("members", "leave"): {"POST": Action("member_leave", body=frozenset(("node",)), may_be_empty=True, status=202)},
    ("members", "evict"): {"POST": Action("member_evict", body=frozenset(("nodes", *_CHANGE)))},
    ("members", "force"): {"POST": Action("member_force", body=frozenset(("survivors", *_CHANGE)))},
    ("members", "rejoin"): {"POST": Action("member_rejoin", body=frozenset(("yes",)), may_be_empty=True, status=202)},
    ("orphans",): {"GET": _ORPHANS, "HEAD": _ORPHANS},
    ("orphans", "apply"): {"POST": Action("orphan_apply", body=frozenset(("domain", "commits", "yes")))},
}
_OWN: dict[tuple[str, ...], Mapping[str, Action]] = {
    ("", *path.split("/")): {"GET": Action(do), "HEAD": Action(do)}
    for path, do in {"v1/status": ".status", "healthz": ".health", "readyz": ".ready", "metrics": ".metrics"}.items()
}
_OWN["", "v1", "session"] = {"GET": Action(".session")}


def find(method: str, parts: list[str]) -> tuple[Action, dict[str, str]]:
    """The action for a path and a method, and the names that stand in the path.

    Raises:  UsageError ``no-such-route``, MethodNotAllowed; nothing changed.
    """
    methods, names = _match(parts)
    action = methods.get(method)
    if action is None:
        raise MethodNotAllowed(method, ", ".join(methods))
    return action, names


def _match(parts: list[str]) -> tuple[Mapping[str, Action], dict[str, str]]:
    match parts:
        case ["", "v1", "data", domain, collection, key]:
            return _KEY, {"domain": domain, "collection": collection, "key": key}
        case ["", "v1", "data", domain, collection]:
            return _KEYS, {"domain": domain, "collection": collection}
        case ["", "v1", "data", domain, collection, key, page] if page in _OF_KEY:
            return _OF_KEY[page], {"domain": domain, "collection": collection, "key": key}
        case ["", "v1", "explain", domain, collection, key]:
            return _WHY, {"domain": domain, "collection": collection, "key": key}
        case ["", "v1", "conflicts", domain]:
            return _CLASHES, {"domain": domain}
        case ["", "v1", "domains", domain]:
            return _OF_DOMAIN, {"domain": domain}
        case ["", "v1", "domains", domain, "collections", collection]:
            return _OF_COLLECTION, {"domain": domain, "collection": collection}
    own = _OF_ADMIN.get(tuple(parts[3:])) if tuple(parts[:3]) == _ADMIN else _OWN.get(tuple(parts))
    if own is not None:
        return own, {}
    if tuple(parts[:3]) == _ADMIN:
        known = ", ".join("/".join((*_ADMIN, *path)) for path in _OF_ADMIN)
        raise UsageError(
            f"there is nothing at {'/'.join(parts)[:200]!r}; there are {known}. Nothing changed.", code="no-such-route"
        )
    hint = " Data is at /v1/data/domain/collection/key, declarations are at /v1/domains/domain/collections/collection."
    if parts[1:3] in (["v1", "data"], ["v1", "explain"]) and len(parts) > 6:
        hint = " A key is one segment: write / in it as %2F; what may stand behind it is /members."
    raise UsageError(f"there is nothing at {'/'.join(parts)[:200]!r}.{hint} Nothing changed.", code="no-such-route")
