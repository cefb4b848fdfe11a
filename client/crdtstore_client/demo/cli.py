"""``crdtstore demo``: the command line of the demo."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from crdtstore.errors import CrdtStoreError
from crdtstore_client.demo.display import Display
from crdtstore_client.demo.flights import REGIONS
from crdtstore_client.demo.report import Result, document

__all__ = ["commands", "demo"]

_PLAIN_WIDTH = 132  # where there is no terminal to ask


@click.command(short_help="Three regions, one blizzard, one cut, one proof.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; everything else goes to stderr.")
@click.option(
    "--kill", type=click.Choice(REGIONS), help="Kill this region's node (SIGKILL) during the storm, and restart it."
)
@click.option(
    "--day-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=4.0,
    show_default=True,
    help="Pace of the replay; on a machine that is too slow for it a day takes longer, and no event is left out.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep data, configuration, logs and acknowledgement files here (new or empty); otherwise they are removed.",
)
@click.pass_context
def demo(ctx: click.Context, as_json: bool, kill: str | None, day_seconds: float, directory: Path | None) -> None:
    """One real week at three airports, one blizzard, one cut, one proof.

    Replays the flights of 4-10 February 2013 at three regions with a node each. JFK is cut off for the two days of the
    storm while all sides keep writing. Exit code 1 names the promise that was broken.
    """
    from crdtstore_client.demo.observe import Unmet  # noqa: PLC0415
    from crdtstore_client.demo.run import Options, run  # noqa: PLC0415 - aiohttp and the cluster only where they are used

    as_json = as_json or ctx.ensure_object(dict).get("as_json", False)  # it may stand before the verb
    console = _console(as_json)
    with _workplace(directory) as workplace, Display(console) as display:
        try:
            result = asyncio.run(_until_terminated(run(Options(workplace, day_seconds, kill), display)))
        except (KeyboardInterrupt, asyncio.CancelledError):
            display.stop()
            click.echo("interrupted; nothing is left running", err=True)
            sys.exit(130)
        except Unmet as error:
            display.stop()
            click.echo(f"broken promise: {error.promise}: {error}", err=True)
            if as_json:
                _print({"verdict": "broken", "broken": [error.promise], "detail": str(error)})
            sys.exit(1)
        except CrdtStoreError as error:
            display.stop()
            click.echo(f"error: the demo could not run: {error}", err=True)
            sys.exit(4)
        display.result(result)
    if as_json:
        _print(document(result))
    for refusal in result.refusals:
        click.echo(refusal, err=True)
    for promise in result.verdict.promises:
        if not promise.kept:
            found = ", ".join(f"{region} has {promise.values[region]}" for region in promise.broken)
            click.echo(
                f"broken promise: {promise.name}: {promise.title}: expected {promise.expected}, {found}", err=True
            )
    sys.exit(1 if result.verdict.broken else 0)


commands = [demo]


async def _until_terminated(running: Coroutine[Any, Any, Result]) -> Result:
    """SIGTERM ends a run as Ctrl-C does: in order, with nothing left behind."""
    task = asyncio.current_task()
    assert task is not None, "runs in a task of its own"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await running


def _print(found: Mapping[str, Any]) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))


def _console(as_json: bool) -> Console:
    console = Console(stderr=as_json)
    return console if console.is_terminal else Console(stderr=as_json, width=_PLAIN_WIDTH)


@contextlib.contextmanager
def _workplace(directory: Path | None) -> Iterator[Path]:
    if directory is None:
        made = Path(tempfile.mkdtemp(prefix="crdtstore-demo-"))
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise click.BadParameter(f"{directory} is not empty; the demo counts from nothing", param_hint="--directory")
    yield directory
