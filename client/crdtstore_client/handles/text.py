"""The handle of a text that several write together."""

from __future__ import annotations

from typing import Any

from crdtstore_client.handles._base import Expiring
from crdtstore_client.ops import Op

__all__ = ["Text"]


class Text(Expiring[str]):
    """What does it say? Indexes count code points of the text as the region has it."""

    type_name = "text"
    _readings = str
    __slots__ = ()

    def insert(self, index: int, text: str) -> Op[None]:
        """Insert text before the character at ``index``, or at the end."""
        return self.op("insert", index=index, text=text)

    def cut(self, index: int, length: int) -> Op[None]:
        """Remove ``length`` characters from ``index`` on."""
        return self.op("cut", index=index, length=length)

    def decode(self, value: Any) -> str:
        return str(value)
