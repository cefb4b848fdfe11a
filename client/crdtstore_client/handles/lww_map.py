"""The handle of a map whose fields are registers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import timedelta
from typing import Any, Generic, TypeVar

from crdtstore_client.handles._base import Expiring, milliseconds
from crdtstore_client.ops import Op

__all__ = ["LwwMap"]

M = TypeVar("M")


class LwwMap(Expiring[M], Generic[M]):
    """What does the record say? The latest write of each field wins."""

    type_name = "lww_map"
    _readings = dict
    __slots__ = ()

    def set(self, fields: Mapping[str, Any]) -> Op[None]:
        """Replace the values of these fields."""
        return self.op("set", fields=fields)

    def unset(self, *fields: str) -> Op[None]:
        """Remove fields as far as the region has seen them."""
        return self.op("unset", fields=fields)

    def expire(self, ttl: float | timedelta | None, *, fields: Iterable[str] | None = None) -> Op[None]:
        """Let the key, or some of its fields, end after so many seconds from now; None: not by itself."""
        names = fields if fields is None or isinstance(fields, str) else list(fields)  # a text is no list of names
        return self.op("expire", ttl_ms=milliseconds(ttl), fields=names)

    async def members(self, *, after: str | None = None) -> AsyncIterator[tuple[str, Any]]:
        """Fields and values in the order of names, page by page, for maps too large to be read at once."""
        async for item in self._members(after):
            yield item["field"], item["value"]

    def decode(self, value: Any) -> M:
        return self._convert(value)  # type: ignore[no-any-return]
