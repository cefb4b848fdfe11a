"""Routes: which worker of a node a request belongs to, where nodes consist of several.

The question: how does a request reach the process that holds its key without anybody forwarding it? The client computes
it as nodes do, from what their statuses say: how many workers there are, into how many shards each domain is divided.
What it knows may be old or nothing yet: then the node that is asked says whose the key is (``wrong-worker``), and that
is known from then on. Where every node is one process, nothing of this is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crdtstore.shards import shard_of

__all__ = ["OF_DECLARATIONS", "OF_DOMAIN", "OF_ONE_KEY", "Routes", "merge_pages"]

OF_DOMAIN = frozenset({"list", "conflicts"})
"""Requests about all shards of a domain."""
OF_DECLARATIONS = frozenset({"declare_domain", "domain"})
"""Requests whose answer says into how many shards a domain is divided."""
OF_ONE_KEY = frozenset({"explain", "members", "read"})
"""What shows one shard, which the answer names if it is not the first."""
_OF_KEYS = frozenset({"read", "members", "explain"})


class Routes:
    """What is known of the workers of a cluster. Mutable."""

    def __init__(self) -> None:
        self.workers = 1
        """Of how many each node consists."""
        self._shards: dict[str, int] = {}

    def learn(self, body: Mapping[str, Any]) -> None:
        """Take in a status, or what a worker said that does not hold what it was asked for."""
        workers = body.get("workers")
        if isinstance(workers, list) and workers:
            self.workers = len(workers)
        if self.workers == 1:
            return
        if isinstance(domains := body.get("domains"), dict):
            self._shards |= {str(name): number for name, number in domains.items() if type(number) is int}
        domain, shards = body.get("domain"), body.get("shards")
        if isinstance(domain, str) and type(shards) is int:
            self._shards[domain] = shards

    def shards(self, domain: str) -> int | None:
        """Into how many shards a domain is divided, which may be named with a number of its own; None: not known."""
        name, at, number = domain.partition("@")
        return int(number) if at and number.isdecimal() else self._shards.get(name)

    def worker(self, do: str, fields: Mapping[str, Any]) -> int | None:
        """The worker that a request is for; None: any, or it is not known."""
        if do in OF_DOMAIN:
            owners = self.owners(fields)
            asked: int | None = fields.get("shards_of", owners[0] if len(owners) == 1 else None)
            return asked
        if do in _OF_KEYS:
            collection, key = fields["collection"], fields["key"]
        elif do == "commit":
            first = fields["ops"][0]
            collection, key = first["collection"], first["key"]
        else:
            return None
        shards = self.shards(fields["domain"])
        return None if shards is None else shard_of(collection.partition("@")[0], key, shards) % self.workers

    def owners(self, fields: Mapping[str, Any]) -> list[int]:
        """The workers that hold a part of the domain that a request is about; empty: it is not known."""
        return list(range(min(self.shards(fields["domain"]) or 0, self.workers)))

    def divides(self, do: str, fields: Mapping[str, Any]) -> bool:
        """Whether a request has to be asked of several workers, each for its part."""
        return do in OF_DOMAIN and "shards_of" not in fields and len(self.owners(fields)) > 1


def merge_pages(do: str, pages: Sequence[dict[str, Any]], limit: int) -> dict[str, Any]:
    """One page from those of all workers, in the order that one worker would have.

    Each page is whole up to its ``next``, so the merged one is whole up to the least of them.
    """
    place = _place_of_item if do == "conflicts" else _key_of_item
    ends = [page["next"] for page in pages if page["next"] is not None]
    following = min(ends, key=_place_of_text if do == "conflicts" else str, default=None)
    items = sorted((item for page in pages for item in page["items"]), key=place)
    if following is not None:
        end = _place_of_text(following) if do == "conflicts" else following
        items = [item for item in items if place(item) <= end]
    if len(items) > limit:
        items = items[:limit]
        following = _text_of(items[-1]) if do == "conflicts" else items[-1]["key"]
    tokens = [page["token"] for page in pages if page.get("token")]
    return {**pages[0], "items": items, "next": following, "token": ",".join(tokens)}


def _key_of_item(item: Mapping[str, Any]) -> Any:
    return item["key"]


def _place_of_item(item: Mapping[str, Any]) -> Any:
    return f"{item['collection'].partition('@')[0]}:{item['type']}", item["key"]


def _place_of_text(text: str) -> Any:
    collection, _, key = text.partition("/")
    return collection.replace("@", ":"), key


def _text_of(item: Mapping[str, Any]) -> str:
    return f"{item['collection'].partition('@')[0]}@{item['type']}/{item['key']}"
