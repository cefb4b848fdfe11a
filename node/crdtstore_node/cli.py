"""``crdtstore node``: one node, in the foreground, until it is told to stop; of several workers the crew that starts them.

The question: who ends it? SIGTERM and SIGINT do, in order; with ``--exit-with-stdin`` also the end of its standard input, so that a node
does not outlive the supervisor that holds the other end.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import click
import uvloop

from crdtstore.causal import machine_of
from crdtstore.errors import CrdtStoreError, UsageError
from crdtstore_node import logs
from crdtstore_node.backup import cli as backup
from crdtstore_node.cli_log import log
from crdtstore_node.config import NodeConfig, load_workers
from crdtstore_node.crew import Crew
from crdtstore_node.dev import dev
from crdtstore_node.lives import Lives
from crdtstore_node.opening import Opened

__all__ = ["commands", "node"]

_log = logging.getLogger(__name__)


@click.command()
@click.option(
    "--config", "path", required=True, type=click.Path(path_type=Path), help="The node's configuration (TOML)."
)
@click.option("--bootstrap", is_flag=True, help="Let an empty data directory take this node's founding id.")
@click.option(
    "--only-copy",
    is_flag=True,
    help="Go on under the id of a directory that was copied or moved: no other copy of it runs, or ever will.",
)
@click.option("--worker", type=click.IntRange(min=0), help="Run this worker of the node alone, instead of all of them.")
@click.option("--exit-with-stdin", is_flag=True, help="Stop when standard input ends.")
def node(path: Path, bootstrap: bool, only_copy: bool, worker: int | None, exit_with_stdin: bool) -> None:
    """Run one node of a cluster."""
    try:
        configs = load_workers(path, os.environ)
        if worker is None and len(configs) > 1:
            options = [*(["--bootstrap"] if bootstrap else ()), *(["--only-copy"] if only_copy else ())]
            sys.exit(asyncio.run(_supervise(path, configs, options, exit_with_stdin)))
        if worker is not None and worker >= len(configs):
            raise UsageError(
                f"--worker: the node has {len(configs)}, counted from 0; there is no {worker}. Nothing changed."
            )
    except CrdtStoreError as error:
        _fail(error)
    gc.disable()  # what a start reads stays; walking it again and again would take longer than reading it
    try:
        opened = _open(configs[worker or 0], bootstrap, only_copy)
        code = uvloop.run(_serve(opened, exit_with_stdin))
    except CrdtStoreError as error:
        _fail(error)
    sys.exit(code)


def _fail(error: CrdtStoreError) -> NoReturn:
    click.echo(f"error: {error.detail}", err=True)
    sys.exit(2 if isinstance(error, UsageError) else 1)


def _open(config: NodeConfig, bootstrap: bool, only_copy: bool) -> Opened:
    opened = Opened(config, is_bootstrap=bootstrap, is_vouched=only_copy)
    logs.configure(opened.me.node, opened.me.region)
    if bootstrap and not opened.is_new:
        logs.event(_log, logging.INFO, "--bootstrap is ignored: the data directory has an id", data=config.data)
    return opened


async def _serve(opened: Opened, exit_with_stdin: bool) -> int:
    stop = _told_to_stop(exit_with_stdin)
    _raise_file_limit()
    return await Lives(opened, _settle).run(stop)


async def _supervise(path: Path, configs: list[NodeConfig], options: list[str], exit_with_stdin: bool) -> int:
    logs.configure(machine_of(configs[0].node), configs[0].region)
    return await Crew(path, configs, options).run(_told_to_stop(exit_with_stdin))


def _told_to_stop(exit_with_stdin: bool) -> asyncio.Event:
    """Set when somebody ends this process."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if exit_with_stdin:
        _watch_stdin(loop, stop)
    return stop


_YOUNG = 20_000
"""A collection comes after so many new objects: requests under way are more than Python's 700, and nearly all go by themselves."""


def _settle() -> None:
    """What is here stays; collections need not walk it again."""
    gc.unfreeze()  # what a life before had is garbage
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 10, 10)
    gc.enable()


def _raise_file_limit() -> None:
    """Every connection is a file; shells give few although more are allowed."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    descriptor = sys.stdin.fileno()
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)):
        stop.set()  # a file or /dev/null is at its end from the beginning
        return

    def on_readable() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            stop.set()

    loop.add_reader(descriptor, on_readable)


commands = [node, dev, log, *backup.commands]
