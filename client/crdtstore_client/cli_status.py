"""``crdtstore status``: the table of all nodes and the sentence below it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from crdtstore.errors import Unavailable
from crdtstore_client.admin import View
from crdtstore_client.cli_show import echo_json
from crdtstore_client.cli_support import ask_all
from crdtstore_client.cli_tables import WATCH_SECONDS, echo, natural_width, open_console
from crdtstore_client.convergence import Convergence, Row, assess
from crdtstore_client.looking import Look
from crdtstore_client.status import Status
from crdtstore_client.store import Store

__all__ = ["render", "show", "watch_forever"]

_STYLES = {"converged": "green", "diverged": "yellow", "unknown": "yellow", "false-convergence": "bold red"}


def _milliseconds(ms: float | None) -> str:
    if ms is None:
        return "-"
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def _cells(row: Row) -> tuple[str, ...]:
    counts = ["-" if count is None else str(count) for count in (row.commits, row.behind, row.unacked)]
    return (
        row.region,
        row.node,
        row.ready,
        counts[0],
        counts[1],
        _milliseconds(row.lag_ms),
        _milliseconds(row.staleness_ms),
        counts[2],
        "-" if row.clock_ms is None else f"{row.clock_ms:+.1f} ms",
        f"{row.digest[:4]}…{row.digest[-2:]}" if row.digest else "-",
        row.note,
    )


def render(convergence: Convergence, console: Console) -> RenderableType:
    """The table and its closing sentence; notes stand below it where the console is too narrow for them."""
    table = _table(convergence, has_notes=True, pad=2)
    notes: list[Text] = []
    if natural_width(table, console) > console.width:
        notes = [Text(f"{row.region} ({row.node}): {row.note}") for row in convergence.rows if row.note]
        table = _table(convergence, has_notes=False, pad=2)
        if natural_width(table, console) > console.width:
            table = _table(convergence, has_notes=False, pad=1)
    return Group(table, *notes, Text(convergence.sentence, style=_STYLES[convergence.verdict]))


def _table(convergence: Convergence, *, has_notes: bool, pad: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, pad, 0, 0), header_style="")
    for name in (
        "region",
        "node",
        "ready",
        "commits",
        "behind",
        "lag",
        "staleness",
        "unacked",
        "clock",
        "state digest" if pad > 1 else "digest",
    ):
        is_count = name in {"commits", "behind", "staleness", "unacked"}
        table.add_column(name, justify="right" if is_count else "left", no_wrap=True)
    if has_notes:
        table.add_column("", overflow="fold")
    for row in convergence.rows:
        cells = _cells(row) if has_notes else _cells(row)[:-1]
        table.add_row(*map(Text, cells))
    return table


async def _ask(store: Store) -> tuple[list[dict[str, Any]], Convergence]:
    answers = await ask_all(store)
    if not any(answers.values()):
        raise Unavailable(f"no answer from {', '.join(answers)}. Nothing changed.", code="unreachable")
    statuses = {url: None if body is None else Status.of(body) for url, body in answers.items()}
    said = await store.admin.ask_everyone()
    look = Look(said)  # empty where this credential may not ask about members
    parted = {node for _, nodes in look.sides.values() for node in nodes}
    return [body for body in answers.values() if body is not None], assess(
        statuses,
        parted={url for url, view in said.items() if isinstance(view, View) and view.members.node in parted},
        deaf={url for url, view in said.items() if isinstance(view, View) and view.members in look.deaf},
    )


def show(ctx: click.Context) -> Callable[[Store], Awaitable[None]]:
    """Once; exit code 1 when nodes that have seen the same hold other data."""

    async def work(store: Store) -> None:
        nodes, convergence = await _ask(store)
        if ctx.obj.get("as_json"):
            echo_json({"verdict": convergence.verdict, "summary": convergence.sentence, "nodes": nodes})
        else:
            console = open_console()
            echo(console, render(convergence, console))
        if convergence.verdict == "false-convergence":
            ctx.exit(1)

    return work


async def watch_forever(store: Store) -> None:
    """Again and again, in place on a terminal."""
    console = open_console()
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            try:
                _, convergence = await _ask(store)
                picture = render(convergence, console)
            except Unavailable as error:
                picture = Text(str(error), style="red")
            if console.is_terminal:
                live.update(picture, refresh=True)
            else:
                console.print(picture)
            await asyncio.sleep(WATCH_SECONDS)
