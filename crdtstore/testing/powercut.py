"""A power cut for tests: run a process so that its end loses whatever it did not sync.

The question: how can a test tell a store that syncs from one that does not? ``kill -9`` cannot, because the kernel
keeps written pages. Under the library compiled here from ``tests/shim/powercut.c``, writes below a directory are held
in the memory of the process until it syncs them, and gone with it. A test of durability is believed once it fails with
``ignore_sync``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

__all__ = ["available", "environment", "library"]

_ROOT = Path(__file__).parents[2]
_SOURCE = _ROOT / "tests" / "shim" / "powercut.c"


@cache
def available() -> str | None:
    """None when the library can be used here, otherwise the reason why not, in words."""
    if not sys.platform.startswith("linux"):
        return f"LD_PRELOAD is used on Linux only, this is {sys.platform}"
    if not _SOURCE.exists():
        return f"no source at {_SOURCE}: it comes with the repository, not with the package"
    if _compiler() is None:
        return "no C compiler (cc, gcc or clang; apt install gcc)"
    try:
        library()
    except subprocess.CalledProcessError as error:
        return f"the C compiler refused {_SOURCE}: {error.stderr[:500]}"
    return None


def library(directory: Path | None = None) -> Path:
    """The compiled library, kept in this directory (``build`` in the repository) until its source changes.

    Raises:  subprocess.CalledProcessError with the compiler's words.
    """
    directory = directory or _ROOT / "build"
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:12]
    target = directory / f"powercut-{digest}.so"
    if not target.exists():
        directory.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(f".{os.getpid()}")
        options = ["-std=gnu11", "-O2", "-Wall", "-fPIC", "-shared"]
        command = [_compiler() or "cc", *options, "-o", str(unfinished), str(_SOURCE), "-ldl", "-lpthread"]
        subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 (our own command)
        unfinished.replace(target)
    return target


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


def _compiler() -> str | None:
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
