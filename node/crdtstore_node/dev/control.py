"""What ``crdtstore dev`` and its supervisor say to each other: one JSON line each way over a unix socket.

The question: how is the supervisor of a directory found, and is it alive? ``supervisor.json`` in the directory says
where its socket is; whether it lives is told by the lock of the directory alone, which the kernel frees with its
holder. A file left behind by a dead supervisor therefore misleads nobody.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from crdtstore.errors import CrdtStoreError, Unavailable, UsageError, from_problem
from crdtstore.testing.processes_files import DirectoryLock, write_atomically

__all__ = [
    "DIRECTORY",
    "LINE_BYTES",
    "Process",
    "as_error",
    "forget",
    "is_running",
    "open_socket",
    "process_start",
    "read_state",
    "request",
    "supervisor_of",
    "words_for",
    "write_state",
]

DIRECTORY = ".crdtstore"
LINE_BYTES = 1 << 20
SOCKET_PATH_BYTES = 100  # the kernel takes about 107
SHORT_DIRECTORY = "crdtstore-dev-"

Process = tuple[int, int]
"""A process id and when it started, in clock ticks since boot: together they never name a stranger."""


def words_for(directory: Path, words: str) -> str:
    """The command for this cluster as its user has to type it here."""
    return f"crdtstore dev {words}" + (
        "" if directory.absolute() == Path(DIRECTORY).absolute() else f" --directory {directory}"
    )


def supervisor_of(directory: Path) -> int | None:
    """The process id of the supervisor that runs for ``directory``; None when none does."""
    return DirectoryLock.holder(directory)


def open_socket(directory: Path) -> tuple[socket.socket, Path]:
    """A listening unix socket for our user only, in ``directory`` or, when that path is too long, in a short one."""
    path = directory / "control.sock"
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        path = Path(tempfile.mkdtemp(prefix=SHORT_DIRECTORY)) / "control.sock"
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener, path


def write_state(directory: Path, state: dict[str, Any]) -> None:
    write_atomically(directory / "supervisor.json", json.dumps(state, indent=1) + "\n", 0o600)


def read_state(directory: Path) -> dict[str, Any]:
    """What the last supervisor wrote; empty when it left in order."""
    try:
        state = json.loads((directory / "supervisor.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def forget(directory: Path) -> None:
    """Remove the traces of a supervisor that is gone."""
    path = Path(str(read_state(directory).get("socket", directory / "control.sock")))
    path.unlink(missing_ok=True)
    if path.parent.name.startswith(SHORT_DIRECTORY):
        shutil.rmtree(path.parent, ignore_errors=True)
    (directory / "supervisor.json").unlink(missing_ok=True)


def request(directory: Path, do: str, timeout_s: float = 60.0, **fields: Any) -> dict[str, Any]:
    """Ask the supervisor of ``directory``.

    Raises:  UsageError when none runs; Unavailable when it does not answer; else what it answered.
    """
    if supervisor_of(directory) is None:
        raise UsageError(f"nothing runs in {directory}; start it with: {words_for(directory, 'up')}. Nothing changed.")
    path = read_state(directory).get("socket")
    answer = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.sendall(json.dumps({"do": do, **fields}).encode() + b"\n")
            while not answer.endswith(b"\n") and (data := connection.recv(65536)):
                answer += data
    except OSError as error:
        raise Unavailable(
            f"the supervisor of {directory} does not answer at {path}: {error or type(error).__name__}",
            code="unreachable",
        ) from error
    if not answer.endswith(b"\n"):
        raise Unavailable(f"the supervisor of {directory} ended before it answered {do}", code="unreachable")
    document: dict[str, Any] = json.loads(answer)
    if "problem" in document:
        raise from_problem(document["problem"])
    return document


def process_start(pid: int) -> int | None:
    """When a living process started; None when there is none (a zombie is none). 0 where /proc does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
        with suppress(OSError):
            os.kill(pid, 0)
            return 0
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def is_running(process: Process) -> bool:
    """Whether exactly this process still runs."""
    return process_start(process[0]) == process[1]


def as_error(error: Exception) -> CrdtStoreError:
    """What the supervisor answers when a request failed in a way nobody foresaw."""
    if isinstance(error, CrdtStoreError):
        return error
    if isinstance(error, KeyError | TypeError | ValueError):
        return UsageError(f"the supervisor does not understand this request ({error!r}). Nothing changed.")
    return Unavailable(f"{type(error).__name__}: {error}", code="internal")
