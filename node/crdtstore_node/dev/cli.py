"""``crdtstore dev``: a cluster of several regions on this machine, for people who build on it.

The question: what must a command say? What is running where, what was changed, and when nothing was changed, why. With
``--json`` the same as one document on standard output.
"""

from __future__ import annotations

import asyncio
import functools
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from crdtstore.causal import MAX_WORKERS
from crdtstore.cli import exit_code
from crdtstore.errors import CrdtStoreError, problem
from crdtstore.testing import processes
from crdtstore_node.dev import launch
from crdtstore_node.dev.control import DIRECTORY, request, words_for
from crdtstore_node.dev.supervisor import FIRST_API_PORT, supervise
from crdtstore_node.dev.waiting import wait_ready

__all__ = ["dev"]

PLAIN_WIDTH = 140


@click.group()
def dev() -> None:
    """A local cluster, with a fault proxy on every link.

    Every region is a process of its own; its log and data are below --directory.
    """


def command(function: Callable[..., None]) -> Callable[..., None]:
    """What all commands share: ``--directory``, ``--json`` (which may also stand before ``dev``), errors as exit codes."""

    @functools.wraps(function)
    def guarded(as_json: bool, **options: Any) -> None:
        settings = click.get_current_context().find_root().obj
        as_json = as_json or (isinstance(settings, dict) and bool(settings.get("as_json")))
        try:
            function(as_json=as_json, **options)
        except CrdtStoreError as error:
            if as_json:
                _print_json(problem(error))
            click.echo(f"error: {error}", err=True)
            sys.exit(exit_code(error))

    directory = click.option(
        "--directory",
        type=click.Path(file_okay=False, path_type=Path),
        default=DIRECTORY,
        show_default=True,
        help="Where the cluster lives.",
    )
    as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
    return directory(as_json(guarded))


def waiting(function: Callable[..., None]) -> Callable[..., None]:
    """Whether to wait until a node is ready, and for how long."""
    wait = click.option("--wait/--no-wait", default=True, show_default=True, help="Until it serves all domains.")
    timeout = click.option("--timeout", default=60.0, show_default=True, metavar="SECONDS", help="So long at most.")
    return wait(timeout(function))


@dev.command()
@click.option("--regions", help="Comma separated; us,eu,ap for a new cluster, else those that are there.")
@click.option("--workers", type=click.IntRange(1, MAX_WORKERS), help="Processes per node; 1 for a new cluster.")
@click.option("--foreground", is_flag=True, help="Stay; Ctrl-C stops everything.")
@command
def up(directory: Path, as_json: bool, regions: str | None, workers: int | None, foreground: bool) -> None:
    """Start a cluster, or continue the one that is in the directory.

    Its nodes take CRDTSTORE_ENGINE_..., CRDTSTORE_LOG_... and CRDTSTORE_STATE_... of the environment, such as
    CRDTSTORE_ENGINE_CHECKPOINT_MS=2000, until the cluster is stopped.
    """
    names = None if regions is None else [name.strip() for name in regions.split(",")]
    where = directory.absolute()

    def report(status: dict[str, Any]) -> None:
        if as_json:
            _print_json(status)
        else:
            stop = "Ctrl-C" if foreground else words_for(directory, "down")
            urls = "   ".join(f"{node['name']}  {node['url']}" for node in status["nodes"])
            click.echo(f"{urls}      data in {directory}/, stop with: {stop}")
            for node in status["nodes"]:
                if not node["ready"]:
                    click.echo(f"{node['name']} is not ready: {node['why']}")

    if not foreground:
        command = processes.NODE_COMMAND
        report(launch.up(where, names, command=command, first_port=FIRST_API_PORT, workers=workers))
        return
    launch.refuse_second(where)
    launch.clean_up(where)
    asyncio.run(
        supervise(where, names, report, command=processes.NODE_COMMAND, first_port=FIRST_API_PORT, workers=workers)
    )


@dev.command()
@click.argument("region")
@click.option("--node", metavar="NAME", help="How it is named; else the next free of sa-1, sa-2, …")
@waiting
@command
def add(directory: Path, as_json: bool, region: str, node: str | None, wait: bool, timeout: float) -> None:
    """Add a node in REGION to the running cluster.

    It joins by itself while the others go on. A region that is there already gets another node.
    """
    answer = _ask(directory, "add", region=region, node=node)
    _print_started(answer, directory, as_json, wait, timeout)


@dev.command()
@command
def env(directory: Path, as_json: bool) -> None:
    """Print what a client needs: eval "$(crdtstore dev env)"."""
    urls = ",".join(node["url"] for node in _ask(directory, "status")["nodes"])
    if as_json:
        _print_json({"CRDTSTORE_URL": urls})
    else:
        click.echo(f"export CRDTSTORE_URL={urls}")


@dev.command()
@click.argument("region")
@click.option("--from", "peer", metavar="REGION", help="Only from this region, not from all others.")
@click.option("--one-way", is_flag=True, help="REGION does not hear them, but they hear REGION.")
@command
def partition(directory: Path, as_json: bool, region: str, peer: str | None, one_way: bool) -> None:
    """Cut REGION off: connections stay open, nothing arrives."""
    answer = _ask(directory, "partition", region=region, one_way=one_way, **{"from": peer})
    _print_cuts(answer, as_json)


@dev.command()
@command
def heal(directory: Path, as_json: bool) -> None:
    """End all cuts; connections that saw one are reset."""
    _print_cuts(_ask(directory, "heal"), as_json)


@dev.command()
@click.argument("region")
@command
def kill(directory: Path, as_json: bool, region: str) -> None:
    """Kill the node of REGION (SIGKILL)."""
    answer = _ask(directory, "kill", region=region)
    if as_json:
        _print_json(answer)
    else:
        again = words_for(directory, f"start {region}")
        click.echo(f"{region} killed (process {answer['pid']}); start it with: {again}")


@dev.command()
@click.argument("region")
@waiting
@command
def start(directory: Path, as_json: bool, region: str, wait: bool, timeout: float) -> None:
    """Start the node of REGION again, on its data."""
    answer = _ask(directory, "start", region=region)
    _print_started(answer, directory, as_json, wait, timeout)


@dev.command()
@command
def status(directory: Path, as_json: bool) -> None:
    """Show nodes and cuts."""
    answer = _ask(directory, "status")
    if as_json:
        _print_json(answer)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title in ("region", "node", "pid", "url", "state", "links cut"):
        table.add_column(title, no_wrap=title != "links cut")
    for node in answer["nodes"]:
        cut = _cuts_of(node["name"], [(each["from"], each["to"]) for each in answer["cut"]])
        table.add_row(node["region"], node["node"], str(node["pid"] or "-"), node["url"], _state(node), cut)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    console.print(table)
    for node in answer["nodes"]:
        if node["pid"] is not None and not node["ready"]:
            click.echo(f"{node['node']}: {node['why']}")


@dev.command()
@command
def down(directory: Path, as_json: bool) -> None:
    """Stop everything; the data stays.

    Says so only when no process is left.
    """
    answer = launch.down(directory.absolute())
    if as_json:
        _print_json(answer)
    elif answer["was_running"]:
        click.echo(f"stopped, nothing is left running; data stays in {directory}/")
    else:
        click.echo(f"nothing runs in {directory}/")


def _ask(directory: Path, do: str, **fields: Any) -> dict[str, Any]:
    return request(directory.absolute(), do, **fields)


def _print_started(answer: dict[str, Any], directory: Path, as_json: bool, wait: bool, timeout_s: float) -> None:
    """Say where a node is that was started, when it serves, or when it will not by itself."""
    node = {"ready": False, "why": "starting"} | answer
    if wait:
        node = wait_ready(directory, answer["region"], timeout_s, is_quiet=as_json)
    if as_json:
        _print_json({**answer, "ready": node["ready"], "why": node["why"]})
        return
    click.echo(f"{answer['region']}  {answer['url']}  (process {answer['pid']})")
    if wait and not node["ready"]:
        click.echo(f"it is not ready: {node['why']}")


def _state(node: dict[str, Any]) -> str:
    if node["state"] == "exited":
        return f"exited ({node['returncode']})"
    if node["pid"] is None:
        return str(node["state"])
    return "ready" if node["ready"] else node["identity"] or "not ready"


def _cuts_of(region: str, cuts: Iterable[tuple[str, str]]) -> str:
    """The links of a region that are cut: ``eu`` both ways, ``from eu`` or ``to eu`` one way."""
    deaf_to = {source for source, target in cuts if target == region}
    unheard_by = {target for source, target in cuts if source == region}
    words = [
        peer if peer in deaf_to and peer in unheard_by else f"from {peer}" if peer in deaf_to else f"to {peer}"
        for peer in sorted(deaf_to | unheard_by)
    ]
    return ", ".join(words) or "-"


def _print_cuts(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(answer)
        return
    cuts = [(each["from"], each["to"]) for each in answer["cut"]]
    pairs = [
        f"{source} | {target}" if (target, source) in cuts else f"{source} -> {target} (one way)"
        for source, target in cuts
        if source < target or (target, source) not in cuts
    ]
    click.echo(f"cut: {', '.join(pairs)}" if pairs else f"healed, connections reset: {answer.get('reset', 0)}")


def _print_json(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document))
