"""Collections: the keys of one name and one type.

Nothing here does I/O until it is awaited; a collection is a name with the session of its store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from crdtstore_client.address import check_part
from crdtstore_client.handles import Handle

if TYPE_CHECKING:
    from crdtstore_client.domain import Domain

__all__ = ["Collection"]

H = TypeVar("H", bound=Handle[Any])

PAGE = 500


class Collection(Generic[H]):
    """The keys of one collection: ``collection["key"]`` is a handle.

    ``options`` are those of the declaration as far as handles must know them.
    """

    __slots__ = ("_domain", "_handle", "_options", "_value_type", "name")

    def __init__(
        self,
        domain: Domain,
        name: str,
        handle: type[H],
        value_type: Any = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        check_part(name, "the collection")
        self._domain = domain
        self._handle = handle
        self._value_type = value_type
        self._options = dict(options or {})
        self.name = name

    def __getitem__(self, key: str) -> H:
        check_part(key, "the key")
        return self._handle(self._domain, self.name, key, self._value_type, options=self._options)

    async def items(self, *, prefix: str = "", after: str = "") -> AsyncIterator[tuple[str, Any]]:
        """Keys and values in the order of keys, page by page; keys written meanwhile may or may not be among them."""
        async for page in self._pages(prefix, after, values=True):
            for item in page:
                yield item["key"], self[item["key"]].decode(item["value"])

    async def keys(self, *, prefix: str = "", after: str = "") -> AsyncIterator[str]:
        """Keys in their order."""
        async for page in self._pages(prefix, after, values=False):
            for item in page:
                yield item["key"]

    async def _pages(self, prefix: str, after: str, *, values: bool) -> AsyncIterator[list[dict[str, Any]]]:
        following: str | None = after
        while following is not None:
            body = await self._domain.list_keys(self.name, prefix=prefix, after=following, limit=PAGE, values=values)
            yield body["items"]
            following = body["next"]

    def __repr__(self) -> str:
        return f"<{self._handle.type_name} {self._domain.name}/{self.name}>"
