"""Requests over HTTP: the path, the body and the headers in which a request of the session stands there.

The question: who knows paths? Nobody but this module: the client's rules speak of requests and their fields, as a node's
service does, so that a transport which carries them as they are builds no path for the other end to take apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from crdtstore.values import to_json_bytes
from crdtstore_client.address import (
    collection_path,
    conflicts_path,
    data_path,
    domain_path,
    explain_path,
    members_path,
    with_query,
)
from crdtstore_client.transport import Response, Transport

__all__ = ["ask_over_http", "http_form"]

LEAST_SECONDS = 0.001
_HEADERS = {"token": "Crdtstore-Token", "id": "Idempotency-Key", "traceparent": "traceparent"}
_FORMS: dict[str, tuple[str, Callable[..., str], tuple[str, ...]]] = {
    "collection": ("GET", collection_path, ("domain", "collection")),
    "commit": ("POST", data_path, ("domain", "collection", "key")),
    "conflicts": ("GET", conflicts_path, ("domain",)),
    "declare": ("PUT", collection_path, ("domain", "collection")),
    "declare_domain": ("PUT", domain_path, ("domain",)),
    "domain": ("GET", domain_path, ("domain",)),
    "explain": ("GET", explain_path, ("domain", "collection", "key")),
    "list": ("GET", data_path, ("domain", "collection")),
    "members": ("GET", members_path, ("domain", "collection", "key")),
    "read": ("GET", data_path, ("domain", "collection", "key")),
    "status": ("GET", lambda: "/v1/status", ()),
}


def http_form(do: str, fields: Mapping[str, Any]) -> tuple[str, str, dict[str, Any] | None, dict[str, str]]:
    """Method, path with its query, body and headers of a request."""
    method, path, names = _FORMS[do]
    rest = dict(fields)
    headers = {header: rest.pop(name) for name, header in _HEADERS.items() if name in rest}
    if do == "commit":
        ops = [dict(op) for op in rest["ops"]]
        for op in ops:  # all of one key, which stands in the path
            rest["collection"], rest["key"] = op.pop("collection"), op.pop("key")
        rest["ops"] = ops
    target = path(*(rest.pop(name) for name in names))
    if method != "GET":
        return method, target, rest, headers
    if do == "members":  # an element is JSON in a query, so that "7" and 7 stay two
        rest |= {name: to_json_bytes(rest[name]).decode() for name in ("after", "has") if name in rest}
    return method, with_query(target, rest), None, headers


async def ask_over_http(
    transport: Transport,
    url_base: str,
    do: str,
    fields: Mapping[str, Any],
    authorization: str | None,
    deadline: float,
) -> Response:
    """Send a request of the session over a transport that knows HTTP only.

    Raises:  NotSent or ReplyLost, at ``deadline`` at the latest, an instant of ``time.monotonic``.
    """
    method, path, body, headers = http_form(do, fields)
    if authorization is not None:
        headers["Authorization"] = authorization
    seconds = max(deadline - monotonic(), LEAST_SECONDS)
    return await transport.request(url_base, method, path, body=body, headers=headers, timeout=seconds)
