"""The crew of a node: its workers, each a process of its own, started, watched, started again, and stopped in order.

The question: what is one worker's trouble to the others? Nothing: they hold other shards. One that ends is started again, after a pause
that grows while it keeps ending. Only at the beginning a worker that cannot start ends all of them: whoever started the node is there and
hears why. Workers do not outlive this process, however it ends: their standard input is a pipe that only it holds.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from crdtstore_node.config import NodeConfig
from crdtstore_node.logs import event

__all__ = ["COMMAND", "Crew"]

_log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "crdtstore.cli", "node")
_USAGE = 2
"""How a process ends that will never start as it is told to."""
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_STEADY_S = 60.0
"""Who ran for so long is started again at once, or nearly so."""
_MOST_FAILURES = 5
"""So often one that has never served may end before that is called for ever."""
_LOOK_S = 0.1
_GRACE_S = 10.0
"""Beyond what requests in flight may take, so long a worker may take to stop; then it is killed."""


class _Worker:
    """One worker through all its processes. Mutable."""

    def __init__(self, config: NodeConfig, index: int) -> None:
        self.config = config
        self.index = index
        self.process: asyncio.subprocess.Process | None = None
        self.has_served = False
        """Whether it ever answered: then its directory is founded, and it could start."""
        self.is_ready = False
        self.failures = 0
        """How often it ended before it had run for a while."""
        self.code: int | None = None
        """How its last process ended."""


class Crew:
    """All workers of one node. ``options``: what the first start of each is told besides, such as ``--bootstrap``."""

    def __init__(
        self, path: Path, configs: Sequence[NodeConfig], options: Sequence[str], command: Sequence[str] = COMMAND
    ) -> None:
        self._path = path
        self._options = list(options)
        self._command = list(command)
        self._workers = [_Worker(config, index) for index, config in enumerate(configs)]
        self._never = asyncio.Event()
        """Set when a worker cannot start at all."""
        self._has_begun = False
        """Whether all of them were ready once."""

    async def run(self, stop: asyncio.Event) -> int:
        """Until told to stop, or a worker cannot start; the exit code. Nothing of it runs then."""
        tasks = [asyncio.create_task(self._keep(worker)) for worker in self._workers]
        tasks += [asyncio.create_task(self._look(worker)) for worker in self._workers]
        waits = [asyncio.create_task(stop.wait()), asyncio.create_task(self._never.wait())]
        try:
            done, _ = await asyncio.wait({*tasks, *waits}, return_when=asyncio.FIRST_COMPLETED)
            failed = [task for task in tasks if task in done]
        finally:
            for task in (*tasks, *waits):
                task.cancel()
            await asyncio.gather(*tasks, *waits, return_exceptions=True)
            await asyncio.gather(*(self._end(worker) for worker in self._workers))
        for task in failed:
            task.result()
        if self._never.is_set():
            codes = [worker.code for worker in self._workers if worker.code]
            return _USAGE if _USAGE in codes else 1
        event(_log, logging.INFO, "all workers stopped")
        return 0

    async def _keep(self, worker: _Worker) -> None:
        """Start a worker again whenever it ends."""
        while True:
            begun = time.monotonic()
            try:
                process = await self._spawn(worker)
            except OSError as error:  # too many processes, or no memory: not for ever, perhaps, and the others go on
                code, what = 1, f"not started: {error}"
            else:
                code = await process.wait()
                what = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
            worker.is_ready, worker.code = False, code
            ran_s = time.monotonic() - begun
            worker.failures = 1 if ran_s >= _STEADY_S else worker.failures + 1
            is_hopeless = code in (1, _USAGE) or worker.failures >= _MOST_FAILURES
            if not worker.has_served and not self._has_begun and is_hopeless:
                event(_log, logging.ERROR, "a worker cannot start", worker=worker.config.node, ended=what)
                self._never.set()
                return
            pause = min(_FIRST_PAUSE_S * 2 ** min(worker.failures - 1, 10), _LONGEST_PAUSE_S)
            event(
                _log,
                logging.ERROR,
                "a worker ended, and is started again; the others go on",
                worker=worker.config.node,
                ended=what,
                ran_s=round(ran_s, 1),
                pause_s=pause,
            )
            await asyncio.sleep(pause)

    async def _spawn(self, worker: _Worker) -> asyncio.subprocess.Process:
        """A new process of this worker.

        Raises:  OSError when the system has none to give.
        """
        command = [*self._command, "--config", str(self._path), "--worker", str(worker.index), "--exit-with-stdin"]
        if not worker.has_served:  # later a directory that is empty is one that was lost
            command += self._options
        worker.process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            process_group=0,  # Ctrl-C is for this process, which stops them in order
        )
        event(_log, logging.INFO, "worker started", worker=worker.config.node, pid=worker.process.pid)
        return worker.process

    async def _look(self, worker: _Worker) -> None:
        """Notice when a worker serves; the node is ready when all of its workers are."""
        while True:
            if not worker.is_ready and worker.process is not None and worker.process.returncode is None:
                ready = await _ask_ready(worker.config)
                if ready is not None:
                    worker.has_served, worker.is_ready = True, ready
                if worker.is_ready:
                    self._tell_ready()
            await asyncio.sleep(_LOOK_S)

    def _tell_ready(self) -> None:
        if all(worker.is_ready for worker in self._workers):
            apis = [worker.config.api for worker in self._workers]
            event(_log, logging.INFO, "all workers are ready", workers=len(apis), api=apis)
            self._has_begun = True

    async def _end(self, worker: _Worker) -> None:
        """SIGTERM; SIGKILL when that does not help."""
        process = worker.process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(worker.config.http.shutdown_ms / 1000 + _GRACE_S):
                await process.wait()
        except TimeoutError:
            event(_log, logging.ERROR, "a worker does not stop, and is killed", worker=worker.config.node)
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _ask_ready(config: NodeConfig) -> bool | None:
    """Whether this worker is ready; None when it does not answer there."""
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection(*config.api_address)
            try:
                writer.write(b"GET /v1/status HTTP/1.0\r\nHost: worker\r\nConnection: close\r\n\r\n")
                _, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.transport.abort()
        status = json.loads(body)
    except (OSError, ValueError):
        return None
    if not isinstance(status, dict) or status.get("node") != config.node:  # somebody else has its port
        return None
    return status.get("ready") is True
