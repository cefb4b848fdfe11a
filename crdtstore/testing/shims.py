"""Compile the LD_PRELOAD libraries of ``tests/shim`` and say where they cannot be used.

The question: what does a machine without a compiler do? It skips the tests that need one, with the reason in words.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["SHIMS", "compiled", "why_not"]

_ROOT = Path(__file__).parents[2]
SHIMS = _ROOT / "tests" / "shim"
"""Where the sources are."""


def why_not(source: Path) -> str | None:
    """None when this library can be used here, otherwise the reason, in words."""
    if not sys.platform.startswith("linux"):
        return f"LD_PRELOAD is used on Linux only, this is {sys.platform}"
    if not source.exists():
        return f"no source at {source}: it comes with the repository, not with the package"
    if _compiler() is None:
        return "no C compiler (cc, gcc or clang; apt install gcc)"
    try:
        compiled(source)
    except subprocess.CalledProcessError as error:
        return f"the C compiler refused {source}: {error.stderr[:500]}"
    return None


def compiled(source: Path, directory: Path | None = None) -> Path:
    """The library, kept in this directory (``build`` in the repository) until its source changes.

    Raises:  subprocess.CalledProcessError with the compiler's words.
    """
    directory = directory or _ROOT / "build"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    target = directory / f"{source.stem}-{digest}.so"
    if not target.exists():
        directory.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(f".{os.getpid()}")
        options = ["-std=gnu11", "-O2", "-Wall", "-fPIC", "-shared"]
        command = [_compiler() or "cc", *options, "-o", str(unfinished), str(source), "-ldl", "-lpthread"]
        subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 (our own command)
        unfinished.replace(target)
    return target


def _compiler() -> str | None:
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
