"""Tables of the command line.

The question: what gives way where a terminal is too narrow? First the space between columns, then names are folded: a row
gets higher and nothing of it is lost. Where there is no terminal, lines are as long as they need to be, up to a width.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Literal

import click
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from crdtstore_client.cli_show import plain

__all__ = ["WATCH_SECONDS", "echo", "natural_width", "open_console", "table_lines", "watch"]

PLAIN_WIDTH = 160
WATCH_SECONDS = 1.0


def open_console() -> Console:
    """The terminal, or lines of a width of their own where there is none."""
    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(width=PLAIN_WIDTH, highlight=False, markup=False, emoji=False)


def natural_width(table: Table, console: Console) -> int:
    """How wide the table would like to be."""
    return console.measure(table, options=console.options.update(max_width=PLAIN_WIDTH)).maximum


def echo(console: Console, what: RenderableType) -> None:
    """Print it, without blanks at the end of lines."""
    with console.capture() as capture:
        console.print(what)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def table_lines(
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    counts: Collection[str] = (),
    folds: Collection[str] = (),
    indent: int = 0,
) -> list[str]:
    """Rows under names. ``counts`` stand to the right of their column, ``folds`` are broken where the line is too short."""
    console = open_console()
    if not names[-1] and not any(row[-1] for row in rows):  # a last column without a name is for notes
        names, rows = names[:-1], [row[:-1] for row in rows]
    for pad in (2, 1):
        table = Table(box=None, pad_edge=False, padding=(0, pad, 0, 0), header_style="")
        for name in names:
            side: Literal["left", "right"] = "right" if name in counts else "left"
            table.add_column(name, justify=side, no_wrap=name not in folds, overflow="fold")
        for row in rows:
            table.add_row(*(Text(plain(cell) if cell else "") for cell in row))
        if natural_width(table, console) + indent <= console.width:
            break
    with console.capture() as capture:
        console.print(table, width=console.width - indent)
    return [" " * indent + line.rstrip() for line in capture.get().splitlines()]


async def watch(look: Callable[[], Awaitable[list[str]]]) -> None:
    """Show lines again and again, in place on a terminal, until somebody interrupts it."""
    console = open_console()
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            picture = Text("\n".join(await look()))
            if console.is_terminal:
                live.update(picture, refresh=True)
            else:
                console.print(picture)
            await asyncio.sleep(WATCH_SECONDS)
