"""One node as an operating-system process: start, kill, stop, pause, and never forget one.

The question: what is left when the supervisor itself is killed? A handler cannot run then, so the node watches instead:
its standard input is a pipe that only the supervisor holds, and ``--exit-with-stdin`` makes it leave when the pipe
closes. A paused node cannot watch; it is in a process group of its own inside the supervisor's session, so that the
kernel sends SIGHUP and SIGCONT to it when the supervisor is gone.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Literal

from crdtstore.errors import Unavailable, UsageError
from crdtstore.testing.processes_ports import is_served_by
from crdtstore.testing.proxy_pipe import Address

__all__ = ["ENDED", "NodeProcess", "NodeState", "http_get", "node_environment", "readiness"]

NodeState = Literal["stopped", "running", "paused", "killed", "exited"]
"""``stopped``: not started, or stopped in order; ``killed``: by us; ``exited``: by itself."""

ENDED = ("removed",)
"""What a node is in the cluster when it will never be ready by itself."""
POLL_S = 0.01
READY_POLL_S = 0.05
LOG_BYTES = 8 << 20
LOG_TAIL_BYTES = 500  # its end says why, and has to fit into the sentence of an error
ANSWER_BYTES = 1 << 20


async def http_get(address: Address, path: str, timeout_s: float = 2.0) -> tuple[int, bytes]:
    """Status and body (at most 1 MiB) of one GET.

    Raises:  OSError (TimeoutError is one) when there is no HTTP answer in time.
    """
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(
                f"GET {path} HTTP/1.0\r\nHost: {address[0]}:{address[1]}\r\nConnection: close\r\n\r\n".encode()
            )
            answer = bytearray()
            while len(answer) < ANSWER_BYTES and (data := await reader.read(65536)):
                answer += data
        finally:
            writer.transport.abort()
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise ConnectionError(f"{address[0]}:{address[1]} does not speak HTTP")
    return int(words[1]), body


async def readiness(address: Address, ready_path: str, timeout_s: float = 2.0) -> tuple[bool, str, str]:
    """Whether a node is ready; if not why, and what it is in the cluster, if it says so.

    Raises:  OSError when there is no HTTP answer in time.
    """
    status, body = await http_get(address, ready_path, timeout_s)
    if status == 200:
        return True, "", ""
    _, more = await http_get(address, "/v1/status", timeout_s)
    detail, identity = _field(body, "detail"), _field(more, "identity")
    return False, detail or f"{ready_path} answers {status} {body[:200].decode(errors='replace')}", identity


def _field(body: bytes, name: str) -> str:
    """A text of a JSON document; empty when there is none."""
    try:
        document = json.loads(body)
    except ValueError:
        return ""
    found = document.get(name) if isinstance(document, dict) else None
    return found if isinstance(found, str) else ""


class NodeProcess:
    """A node that this process started and answers for."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        address: Address,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        ready_path: str = "/readyz",
    ) -> None:
        self.name = name
        self.command = list(command)
        self.address = address  # of its HTTP listener; may be changed while the node does not run
        self.log_path = log_path
        self._env = None if env is None else dict(env)
        self._cwd = cwd
        self._ready_path = ready_path
        self._process: subprocess.Popen[bytes] | None = None
        self._ended: NodeState = "stopped"
        self._is_paused = False
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def returncode(self) -> int | None:
        """How the last run ended (negative: by this signal); None while it runs or before the first."""
        return None if self._process is None else self._process.poll()

    @property
    def state(self) -> NodeState:
        if self.pid is not None:
            return "paused" if self._is_paused else "running"
        return self._ended

    async def start(self, timeout_s: float = 30.0) -> None:
        """Spawn and wait until ready.

        Raises:  UsageError when it runs already; Unavailable when it is not ready in time (it does not run then).
        """
        self.spawn()
        await self.wait_ready(timeout_s)

    def spawn(self) -> None:
        """Start the process, without waiting."""
        if self.pid is not None:
            raise UsageError(f"node {self.name} runs already (pid {self.pid}). Nothing changed.")
        self._is_paused = False
        self._ended = "exited"  # what it will have done unless we do it
        self._close_pipe()
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_BYTES:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(  # noqa: S603 - the command comes from the caller
                self.command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._env,
                cwd=self._cwd,
                process_group=0,
            )

    async def wait_ready(self, timeout_s: float = 30.0, instead: Container[str] | None = ()) -> None:
        """Wait for 200 on the ready path, or until it is one of ``instead`` in the cluster; None: until it answers.

        On failure the process is killed and the end of its log quoted.
        """
        answer = "no answer"
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    if self.pid is None:
                        answer = f"it exited with {self.returncode}"
                        break
                    try:
                        is_ready, answer, identity = await readiness(self.address, self._ready_path)
                    except OSError as error:
                        answer = str(error) or type(error).__name__
                    else:
                        if (is_ready or instead is None or identity in instead) and self.pid is not None:
                            if is_served_by(self.address[1], self.pid):
                                return
                            answer = f"another process serves port {self.address[1]}"
                    await asyncio.sleep(READY_POLL_S)
        except TimeoutError:
            answer = f"not within {timeout_s:g} s: {answer}"
        except asyncio.CancelledError:
            await self.kill()
            raise
        exited = self.pid is None
        await self.kill()
        self._ended = "exited" if exited else "killed"
        raise Unavailable(
            f"node {self.name} did not become ready: {answer}. It does not run. {self.log_path}:\n{self.log_tail()}",
            code="not-ready",
        )

    async def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed. Returns when the process is gone; a dead one stays as it is."""
        if self.pid is not None:
            self._signal(signal.SIGKILL)
            await self._wait(None)
            self._ended = "killed"
        self._close_pipe()

    async def stop(self, grace_s: float = 10.0) -> int | None:
        """SIGTERM, and SIGKILL when it does not leave within ``grace_s``; returns the return code."""
        if self.pid is not None:
            self._signal(signal.SIGTERM)
            self.resume()  # a paused process takes the signal when it continues
            if not await self._wait(grace_s):
                self._signal(signal.SIGKILL)
                await self._wait(None)
            self._ended = "stopped"
        self._close_pipe()
        return self.returncode

    async def pause(self) -> None:
        """SIGSTOP: the process stays, its connections stay open, nothing answers. Returns when it stands still."""
        pid = self._running_pid("paused")
        self._signal(signal.SIGSTOP)
        while self.pid is not None and not _stands_still(pid):  # noqa: ASYNC110 - it is in another process
            await asyncio.sleep(POLL_S)
        self._is_paused = True

    def resume(self) -> None:
        """SIGCONT; harmless when it was not paused."""
        self._signal(signal.SIGCONT)
        self._is_paused = False

    def log_tail(self) -> str:
        """The last lines that this run wrote."""
        with self.log_path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, end - LOG_TAIL_BYTES))
            return log.read(LOG_TAIL_BYTES).decode(errors="replace")

    def _running_pid(self, done: str) -> int:
        if self.pid is None or self._is_paused:
            raise UsageError(f"node {self.name} is {self.state} and cannot be {done}. Nothing changed.")
        return self.pid

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)  # polls first, so that it cannot meet a stranger with the same pid

    async def _wait(self, timeout_s: float | None) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                while self.pid is not None:  # noqa: ASYNC110 - it is in another process
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            return False
        return True

    def _close_pipe(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


def _stands_still(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG) is not None


def node_environment(more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a node: this process's, with ``more``."""
    # A node takes settings from CRDTSTORE_…; those of the caller's shell (CRDTSTORE_URL is a client's) are not for it.
    mine = {name: value for name, value in os.environ.items() if not name.startswith("CRDTSTORE_")}
    return mine | dict(more)
