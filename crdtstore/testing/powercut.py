"""A power cut for tests: run a process so that its end loses whatever it did not sync.

The question: how can a test tell a store that syncs from one that does not? ``kill -9`` cannot, because the kernel
keeps written pages. Under the library compiled here from ``tests/shim/powercut.c``, writes below a directory are held
in the memory of the process until it syncs them, and gone with it. A test of durability is believed once it fails with
``ignore_sync``.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from crdtstore.testing import shims

__all__ = ["available", "environment", "library"]

_SOURCE = shims.SHIMS / "powercut.c"


@cache
def available() -> str | None:
    """None when the library can be used here, otherwise the reason why not, in words."""
    return shims.why_not(_SOURCE)


def library(directory: Path | None = None) -> Path:
    """The compiled library, kept in this directory (``build`` in the repository) until its source changes.

    Raises:  subprocess.CalledProcessError with the compiler's words.
    """
    return shims.compiled(_SOURCE, directory)


def environment(directory: Path, *, ignore_sync: bool = False, leak: int | None = None) -> dict[str, str]:
    """The variables to add to a child's environment so that unsynced writes below ``directory`` die with it.

    ``ignore_sync`` plants the fault: a sync says yes and keeps nothing. ``leak`` is a seed: half of the sectors of each
    unsynced write reach the disk at once, which is what torn writes look like.
    """
    variables = {"LD_PRELOAD": str(library()), "POWERCUT_DIR": str(directory.resolve())}
    if ignore_sync:
        variables["POWERCUT_IGNORE_SYNC"] = "1"
    if leak is not None:
        variables["POWERCUT_LEAK"] = str(leak)
    return variables
