"""Starting a supervisor in the background, and making sure that it and all it owned are gone.

The question: when is "down" true? Not when a request was answered, but when no process that the supervisor had noted
runs any more. That is checked by process id together with its start time, so that a reused id is never taken for ours,
let alone killed.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from crdtstore.errors import CrdtStoreError, Unavailable, UsageError, from_problem
from crdtstore_node.dev.control import (
    Process,
    forget,
    is_running,
    process_start,
    read_state,
    request,
    supervisor_of,
    words_for,
)

__all__ = ["clean_up", "down", "refuse_second", "up"]

UP_TIMEOUT_S = 120.0
DOWN_TIMEOUT_S = 20.0
LEAVE_TIMEOUT_S = 5.0
POLL_S = 0.02
LOG_TAIL_BYTES = 500  # its end says why, and has to fit into the sentence of an error


def up(
    directory: Path,
    regions: Sequence[str] | None,
    *,
    command: Sequence[str],
    first_port: int,
    workers: int | None = None,
) -> dict[str, Any]:
    """Start a supervisor that stays when we leave; returns the status of the cluster once all nodes are ready.

    Raises:  UsageError when the directory is in use; Unavailable when a node does not become ready. Nothing runs then.
    """
    refuse_second(directory)
    clean_up(directory)
    directory.mkdir(parents=True, exist_ok=True)
    read, write = os.pipe()
    arguments = {
        "--directory": str(directory),
        "--regions": json.dumps(None if regions is None else list(regions)),
        "--command": json.dumps(list(command)),
        "--first-port": str(first_port),
        "--workers": json.dumps(workers),
        "--report": str(write),
    }
    log_path = directory / "supervisor.log"
    with os.fdopen(read, "rb") as report:
        try:
            with log_path.open("wb") as log:
                process = subprocess.Popen(  # noqa: S603 - our own module
                    [
                        sys.executable,
                        "-m",
                        "crdtstore_node.dev",
                        *(word for pair in arguments.items() for word in pair),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=directory,
                    pass_fds=(write,),
                    start_new_session=True,
                )
        finally:
            os.close(write)
        try:
            answer = _read_report(process, report.fileno(), log_path)
        except BaseException:  # also Ctrl-C: who did not see it start does not want it to stay
            _end(process)
            raise
    process.returncode = 0  # it is no child to wait for any more: it stays when we leave
    return answer


def refuse_second(directory: Path) -> None:
    """UsageError when a supervisor runs for ``directory``."""
    pid = supervisor_of(directory)
    if pid is None:
        return
    urls = read_state(directory).get("urls", {})
    where = "   ".join(f"{region}  {url}" for region, url in urls.items()) or "it is starting"
    raise UsageError(
        f"{directory} is running already (process {pid}): {where}; see {words_for(directory, 'status')}, stop it with: "
        f"{words_for(directory, 'down')}. Nothing changed."
    )


def down(directory: Path) -> dict[str, Any]:
    """Stop the supervisor of ``directory`` and verify that nothing it owned is left.

    Raises:  Unavailable naming the processes that are left.
    """
    pid = supervisor_of(directory)
    if pid is None:
        return {"stopped": [each for each, _ in clean_up(directory)], "was_running": False}
    noted = _noted(directory)
    start = process_start(pid)
    supervisor: list[Process] = [] if start is None else [(pid, start)]
    with suppress(CrdtStoreError):
        noted = sorted({*noted, *_from_status(request(directory, "status", timeout_s=LEAVE_TIMEOUT_S))})
    try:
        request(directory, "down", timeout_s=LEAVE_TIMEOUT_S)
    except CrdtStoreError:
        # It starts up, hangs or is stopped. The lock is held, so the process id in it is that of our supervisor.
        _signal(supervisor, signal.SIGTERM)
    if _wait_gone(supervisor, DOWN_TIMEOUT_S):
        _signal(supervisor, signal.SIGKILL)
        _wait_gone(supervisor, LEAVE_TIMEOUT_S)
    _finish(sorted({*noted, *supervisor}))
    forget(directory)
    return {"stopped": sorted({each for each, _ in (*noted, *supervisor)}), "was_running": True}


def clean_up(directory: Path) -> list[Process]:
    """Remove what a supervisor left that did not leave in order; returns the processes it had noted."""
    noted = _noted(directory)
    _finish(noted)
    forget(directory)
    return noted


def _finish(processes: Sequence[Process]) -> None:
    """Nodes leave by themselves when their supervisor is gone; one that cannot is killed."""
    _signal(_wait_gone(processes, LEAVE_TIMEOUT_S), signal.SIGKILL)
    left = _wait_gone(processes, LEAVE_TIMEOUT_S)
    if left:
        raise Unavailable(f"these processes are left: {', '.join(str(pid) for pid, _ in left)}", code="internal")


def _noted(directory: Path) -> list[Process]:
    noted = read_state(directory).get("processes", [])
    return [(int(pid), int(start)) for pid, start in noted if start is not None]


def _from_status(status: dict[str, Any]) -> list[Process]:
    pids = [status["pid"], *(node["pid"] for node in status["nodes"])]
    return [(pid, start) for pid in pids if pid is not None and (start := process_start(pid)) is not None]


def _wait_gone(processes: Sequence[Process], timeout_s: float) -> list[Process]:
    deadline = time.monotonic() + timeout_s
    while True:
        left = [process for process in processes if is_running(process)]
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(POLL_S)


def _signal(processes: Sequence[Process], number: signal.Signals) -> None:
    for process in processes:
        if is_running(process):
            with suppress(ProcessLookupError):
                os.kill(process[0], number)


def _read_report(process: subprocess.Popen[bytes], descriptor: int, log_path: Path) -> dict[str, Any]:
    deadline, line = time.monotonic() + UP_TIMEOUT_S, b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        data = os.read(descriptor, 65536) if ready else b""
        if not data:
            how = "ended" if ready else f"was not ready within {UP_TIMEOUT_S:g} s"
            tail = log_path.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
            raise Unavailable(f"the supervisor (process {process.pid}) {how}; {log_path}:\n{tail}", code="not-ready")
        line += data
    document: dict[str, Any] = json.loads(line)
    if "problem" in document:
        raise from_problem(document["problem"])
    return document


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(DOWN_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
