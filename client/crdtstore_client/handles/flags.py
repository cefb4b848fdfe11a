"""Handles of flags: yes or no, and which of the two wins."""

from __future__ import annotations

from typing import Any

from crdtstore_client.handles._base import Expiring
from crdtstore_client.ops import Op

__all__ = ["DwFlag", "EwFlag"]


class _Flag(Expiring[bool]):
    _readings = bool
    __slots__ = ()

    def enable(self) -> Op[bool]:
        """Say yes."""
        return self.op("enable")

    def disable(self) -> Op[bool]:
        """Say no."""
        return self.op("disable")

    def decode(self, value: Any) -> bool:
        return bool(value)


class EwFlag(_Flag):
    """Has anybody said yes? A concurrent enable wins."""

    type_name = "ew_flag"
    __slots__ = ()


class DwFlag(_Flag):
    """Do all agree? A concurrent disable wins."""

    type_name = "dw_flag"
    __slots__ = ()
