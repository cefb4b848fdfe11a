"""How long the tests of faults take: short in ``make test``, long where CRDTSTORE_SOAK is set, as ``make soak`` does."""

from __future__ import annotations

import os

__all__ = ["IS_SOAK", "short_or_long"]

IS_SOAK = os.environ.get("CRDTSTORE_SOAK", "") not in ("", "0")


def short_or_long(short: int, long: int) -> int:
    """How many, in this run."""
    return long if IS_SOAK else short
