"""Waiting for a node of the local cluster, with words on a terminal.

The question: when does the wait end? When the node serves all that there is, when it has ended, when it knows that it will not be ready by
itself, or after so long: then it goes on alone, and the error says what it lacks.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import click

from crdtstore.errors import Unavailable
from crdtstore.testing.processes_node import ENDED
from crdtstore_node.dev.control import request, words_for

__all__ = ["wait_ready"]

POLL_S = 0.1
LOG_TAIL_BYTES = 500  # its end says why, and has to fit into the sentence of an error


def wait_ready(directory: Path, name: str, timeout_s: float, *, is_quiet: bool) -> dict[str, Any]:
    """The status of a node once it is ready, or was removed from the cluster.

    Raises:  Unavailable when it ended, or was not ready in time (it runs on then).
    """
    deadline = time.monotonic() + timeout_s
    progress = _Progress(is_shown=not is_quiet and sys.stderr.isatty())
    try:
        while True:
            status = request(directory.absolute(), "status")
            node: dict[str, Any] = next(each for each in status["nodes"] if each["name"] == name)
            if node["ready"] or node["identity"] in ENDED:
                return node
            if node["pid"] is None:
                tail = Path(node["log"]).read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
                raise Unavailable(
                    f"node {node['node']} is {node['state']} and does not run. {node['log']}:\n{tail}", code="not-ready"
                )
            if time.monotonic() >= deadline:
                raise Unavailable(
                    f"node {node['node']} was not ready within {timeout_s:g} s: {node['why']} It runs, and goes on by itself: "
                    f"see {words_for(directory, 'status')}",
                    code="not-ready",
                )
            progress.show(f"{node['node']}: {node['why']}")
            time.sleep(POLL_S)
    finally:
        progress.clear()


class _Progress:
    """One line that is written again and again; nothing where nobody looks."""

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._last = ""

    def show(self, line: str) -> None:
        if self._is_shown and line != self._last:
            self.clear()
            click.echo(line[: shutil.get_terminal_size().columns - 1], err=True, nl=False)
            self._last = line

    def clear(self) -> None:
        if self._last:
            click.echo("\r\x1b[K", err=True, nl=False)
            self._last = ""
