"""Models of single values: registers and flags."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from crdtstore_sim.models.base import Act, Here, Model, Shown, element_order
from crdtstore_sim.models.history import There

__all__ = ["DwFlag", "EwFlag", "Extreme", "LwwRegister", "MvRegister"]


def _replace(here: Here, value: Any) -> None:
    here.clear(())
    here.write((), value)


class LwwRegister(Model):
    """The greatest in (hlc, replica) among the writes with no write that saw them."""

    acts: Mapping[str, Act] = {"set": lambda here, given: _replace(here, given["value"])}

    def read(self, there: There, options: Mapping[str, Any]) -> Shown:
        written = there.writes
        return Shown(written[-1].value, len(written) - 1) if written else Shown(None)


class MvRegister(Model):
    """All writes with no write that saw them."""

    acts = LwwRegister.acts

    def read(self, there: There, options: Mapping[str, Any]) -> Shown:
        return Shown([write.value for write in there.writes], max(0, len(there.writes) - 1))


class Extreme(Model):
    """The greatest or least value ever written and not deleted; integers before texts."""

    def __init__(self, choose: Callable[..., Any]) -> None:
        self._choose = choose
        self.acts = {"set": self._set}

    def _set(self, here: Here, given: Mapping[str, Any]) -> None:
        here.write((), given["value"], lambda before, after: self._choose((before, after), key=element_order))

    def read(self, there: There, options: Mapping[str, Any]) -> Shown:
        return Shown(self._choose((write.value for write in there.writes), key=element_order, default=None))


class EwFlag(Model):
    """Set when there is an enable that no disable had seen."""

    acts: Mapping[str, Act] = {
        "enable": lambda here, given: here.write((), True),
        "disable": lambda here, given: here.clear(()),
    }

    def read(self, there: There, options: Mapping[str, Any]) -> Shown:
        return Shown(bool(there.writes))


class DwFlag(Model):
    """Set when there are writes that no other had seen, and all of them are enables."""

    acts: Mapping[str, Act] = {
        "enable": lambda here, given: _replace(here, True),
        "disable": lambda here, given: _replace(here, False),
    }

    def read(self, there: There, options: Mapping[str, Any]) -> Shown:
        enables = sum(write.value for write in there.writes)
        is_set = enables > 0 and enables == len(there.writes)
        return Shown(is_set, 0 if is_set else enables)
