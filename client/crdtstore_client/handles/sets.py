"""Handles of sets: of texts, integers and bytes, or of what ``msgspec.convert`` makes of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Generic, TypeVar

from crdtstore_client.handles._base import Expiring, Handle
from crdtstore_client.ops import Op

__all__ = ["AwSet", "GSet", "RwSet"]

E = TypeVar("E")


class _Elements(Handle[frozenset[E]], Generic[E]):
    _readings = list
    __slots__ = ()

    def add(self, *elements: E) -> Op[None]:
        """Add elements."""
        return self.op("add", elements=elements)

    async def has(self, element: E) -> bool:
        """Whether an element is in; costs the same however large the set is."""
        return await self._has(self._plain(element))

    async def members(self, *, after: E | None = None) -> AsyncIterator[E]:
        """Elements in their order (integers, text, bytes), page by page, for sets too large to be read at once.

        Elements added or removed meanwhile may or may not be among them.
        """
        async for element in self._members(self._plain(after)):
            yield self._convert(element)

    def decode(self, value: Any) -> frozenset[E]:
        return frozenset(self._convert(element) for element in value)


class GSet(_Elements[E]):
    """Who was ever there? Nothing is taken out."""

    type_name = "g_set"
    __slots__ = ()


class _Removable(_Elements[E], Expiring[frozenset[E]]):
    __slots__ = ()

    def remove(self, *elements: E) -> Op[None]:
        """Remove elements as far as the region has seen them added."""
        return self.op("remove", elements=elements)


class AwSet(_Removable[E]):
    """Who is in? An add wins over a concurrent remove."""

    type_name = "aw_set"
    __slots__ = ()


class RwSet(_Removable[E]):
    """Who is still allowed? A remove wins over a concurrent add."""

    type_name = "rw_set"
    __slots__ = ()

    def remove(self, *elements: E) -> Op[None]:
        """Remove elements, also those that are being added elsewhere."""
        return super().remove(*elements)
