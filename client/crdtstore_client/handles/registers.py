"""Handles of registers: one value, or those that nobody has decided between."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from crdtstore_client.handles._base import Expiring
from crdtstore_client.ops import Op

__all__ = ["LwwRegister", "MaxRegister", "MinRegister", "MvRegister"]

V = TypeVar("V")


class _Register(Expiring[V | None], Generic[V]):
    __slots__ = ()

    def set(self, value: V) -> Op[V]:
        """Replace the value."""
        return self.op("set", value=value)

    def decode(self, value: Any) -> V | None:
        return None if value is None else self._convert(value)


class LwwRegister(_Register[V]):
    """What is it now? The latest write wins."""

    type_name = "lww_register"
    __slots__ = ()


class MaxRegister(_Register[V]):
    """What was the most? Integers or text, one kind per key."""

    type_name = "max_register"
    __slots__ = ()

    def set(self, value: V) -> Op[V]:
        """Raise the value to this one, if it is higher."""
        return super().set(value)


class MinRegister(_Register[V]):
    """What was the least? Integers or text, one kind per key."""

    type_name = "min_register"
    __slots__ = ()

    def set(self, value: V) -> Op[V]:
        """Lower the value to this one, if it is lower."""
        return super().set(value)


class MvRegister(Expiring[list[V]], Generic[V]):
    """What did they all say? All concurrent values, oldest first."""

    type_name = "mv_register"
    _readings = list
    __slots__ = ()

    def set(self, value: V) -> Op[list[V]]:
        """Replace all values this region has seen."""
        return self.op("set", value=value)

    def decode(self, value: Any) -> list[V]:
        return [self._convert(one) for one in value]
