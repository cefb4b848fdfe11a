"""Addresses and paths: ``domain/collection/key`` as users type it, and as it stands in a URL.

Keys may hold ``/`` and ``:``, so each part is escaped on its own, full stops of ``.`` and ``..`` included: whatever
stands between client and node must find nothing to normalise. Which names are legal is the node's to judge, in one
place for all clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from crdtstore.errors import UsageError

__all__ = [
    "check_part",
    "collection_path",
    "conflicts_path",
    "data_path",
    "domain_path",
    "explain_path",
    "members_path",
    "place",
    "split_address",
    "with_query",
]


def _escape(part: str, what: str) -> str:
    if not isinstance(part, str):
        raise UsageError(f"{what} must be text, got {part!r:.100}. Nothing changed.", code="bad-request")
    if not part:
        raise UsageError(f"{what} must not be empty. Nothing changed.", code="bad-request")
    try:
        escaped = quote(part, safe="")
    except UnicodeEncodeError:
        raise UsageError(
            f"{what} must be valid Unicode, got a lone surrogate. Nothing changed.", code="bad-request"
        ) from None
    return escaped.replace(".", "%2E") if part in {".", ".."} else escaped


def check_part(part: str, what: str) -> None:
    """Refuse what no URL could carry, where it is named and not at the end of a batch.

    Raises:  UsageError (bad-request); nothing changed.
    """
    if not part or type(part) is not str or not part.isascii():
        _escape(part, what)


def place(domain: str, collection: str, *key: str) -> dict[str, str]:
    """The fields that say which collection, or which key of it, a request is about.

    Raises:  UsageError (bad-request); nothing changed.
    """
    check_part(domain, "the domain")
    check_part(collection, "the collection")
    fields = {"domain": domain, "collection": collection}
    for part in key:
        check_part(part, "the key")
        fields["key"] = part
    return fields


def data_path(domain: str, collection: str, *key: str) -> str:
    """The path under which a collection, or one key of it, is read and written."""
    parts = [_escape(domain, "the domain"), _escape(collection, "the collection")]
    return "/".join(["/v1/data", *parts, *(_escape(part, "the key") for part in key)])


def members_path(domain: str, collection: str, key: str) -> str:
    """The path under which a large key is paged."""
    return f"{data_path(domain, collection, key)}/members"


def explain_path(domain: str, collection: str, key: str) -> str:
    """The path under which a value is explained."""
    return data_path(domain, collection, key).replace("/v1/data/", "/v1/explain/", 1)


def conflicts_path(domain: str) -> str:
    """The path under which the conflicts of a domain are listed."""
    return f"/v1/conflicts/{_escape(domain, 'the domain')}"


def domain_path(domain: str) -> str:
    """The path of a domain's declaration."""
    return f"/v1/domains/{_escape(domain, 'the domain')}"


def collection_path(domain: str, collection: str) -> str:
    """The path of a collection's declaration."""
    return f"{domain_path(domain)}/collections/{_escape(collection, 'the collection')}"


def with_query(path: str, query: Mapping[str, Any]) -> str:
    """The path with those parameters that are not None; booleans as ``true`` and ``false``."""
    pairs = [
        f"{name}={quote(('true' if value else 'false') if isinstance(value, bool) else str(value), safe='')}"
        for name, value in query.items()
        if value is not None
    ]
    return f"{path}?{'&'.join(pairs)}" if pairs else path


def split_address(address: str, parts: int) -> list[str]:
    """``domain/collection`` (2 parts) or ``domain/collection/key`` (3); the first slashes split, keys may hold more.

    Raises:  UsageError (bad-request) when there are too few parts.
    """
    found = address.split("/", parts - 1)
    if len(found) < parts or not all(found) or (parts == 2 and "/" in found[1]):
        form = "domain/collection/key" if parts == 3 else "domain/collection"
        raise UsageError(f"an address is {form}, got {address!r:.100}. Nothing changed.", code="bad-request")
    return found
