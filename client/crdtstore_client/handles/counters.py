"""The handle of a counter."""

from __future__ import annotations

from typing import Any

from crdtstore_client.handles._base import Expiring
from crdtstore_client.ops import Op

__all__ = ["Counter"]


class Counter(Expiring[int]):
    """How many? Every add counts, and a delete removes what it has seen."""

    type_name = "counter"
    _readings = int
    __slots__ = ()

    def add(self, amount: int = 1) -> Op[int]:
        """Add an amount, which may be negative."""
        return self.op("add", amount=amount)

    def decode(self, value: Any) -> int:
        return int(value)
