"""What a run shows: how it goes, and at the end a table.

The question: what gives way on a narrow terminal? Space between columns, then the 90th percentile; never a column that says
how much failed. Without a terminal there is a line now and then instead of one that is drawn again.
"""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from crdtstore_client.bench.generator import Generator, Plan
from crdtstore_client.bench.histogram import Histogram
from crdtstore_client.bench.results import QUANTILES, Result, Row

__all__ = ["Progress", "show"]

_BAR = 20
_LINES = 10
"""So many lines of progress at most, where there is no terminal."""


def milliseconds(value: float | None) -> str:
    """Three digits that mean something."""
    if value is None:
        return "-"
    if value < 10:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


class Progress:
    """The line that says how it goes. On stderr, so that stdout holds results only."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._whole_s = plan.warm_up + plan.seconds
        self._next_line_s = 0.0

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """What is done before and after."""
        if self._live is not None:
            self._live.update(Text(text), refresh=True)
        else:
            self._console.print(text, soft_wrap=True)

    def frame(self, generator: Generator, recent: Histogram, per_s: float) -> None:
        """How it goes; ``recent``: what was answered since the last time, so many per second."""
        line = self._line(generator, recent, per_s)
        if self._live is not None:
            self._live.update(Text(line, no_wrap=True, overflow="crop"), refresh=True)
        elif generator.begun_s >= self._next_line_s:
            self._next_line_s = generator.begun_s + self._whole_s / _LINES - 0.01
            self._console.print(line, soft_wrap=True)

    def _line(self, generator: Generator, recent: Histogram, per_s: float) -> str:
        done_s = min(generator.begun_s, self._whole_s)
        filled = round(_BAR * done_s / self._whole_s) if self._whole_s else _BAR
        bar = f"[{'#' * filled}{'.' * (_BAR - filled)}] " if self._live is not None else ""
        what = "warming up" if generator.begun_s < self._plan.warm_up else "measuring "
        if generator.begun_s > self._whole_s:
            what = "waiting for what is under way"
        p50, p99 = ((recent.quantile(share) or 0) / 1e6 if recent.count else None for share in (0.5, 0.99))
        failed = f"  failed {generator.failures:,}" if generator.failures else ""
        return (
            f"{bar}{done_s:5.1f} of {self._whole_s:g} s  {what}  {per_s:,.0f}/s"
            f"  p50 {milliseconds(p50)}  p99 {milliseconds(p99)} ms{failed}"
        )


# --- the end


def show(result: Result, console: Console) -> None:
    """The table, what it is worth, and what was left behind."""
    _print(console, _table(result, console))
    if result.failures:
        click.echo()
        _print(console, _failures(result))
    click.echo()
    for line in [*_how(result), *_warnings(result), *_found(result), _left(result)]:
        console.print(line, soft_wrap=False)


def _print(console: Console, table: Table) -> None:
    with console.capture() as capture:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def _table(result: Result, console: Console) -> Table:
    for pad, left_out in ((3, ""), (2, ""), (1, ""), (1, "p90")):
        table = _table_of(result, pad, left_out)
        if console.measure(table, options=console.options.update(max_width=400)).maximum <= console.width:
            break
    return table


def _table_of(result: Result, pad: int, left_out: str) -> Table:
    names = [name for name in (*QUANTILES, "max") if name != left_out]
    table = Table(box=None, pad_edge=False, padding=(0, pad, 0, 0), header_style="bold")
    table.add_column("latency in ms", no_wrap=True)
    for name in ("done", "per s", *names, "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    groups: Sequence[Sequence[Row]] = (
        result.rows,
        result.regional_rows,
        [result.total] if len(result.rows) > 1 or result.regional_rows else [],
    )
    for at, rows in enumerate(group for group in groups if group):
        if at:
            table.add_row()
        for row in rows:
            failed = Text(f"{row.failed:,}", style="bold red" if row.failed else "")
            shown = [milliseconds(row.latency_ms[name]) for name in names]
            table.add_row(row.name, f"{row.done:,}", f"{row.per_s:,.0f}", *shown, failed)
    return table


def _failures(result: Result) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("failed with", no_wrap=True)
    table.add_column("of", no_wrap=True)
    for name in ("count", "p50", "max"):
        table.add_column(name, justify="right", no_wrap=True)
    for code, name, took in result.failures:
        p50, most = (took.quantile(0.5) or 0) / 1e6, took.greatest / 1e6
        table.add_row(code, name, f"{took.count:,}", milliseconds(p50), milliseconds(most))
    return table


def _how(result: Result) -> list[str]:
    plan, late = result.plan, result.generator.late
    keys = f"{plan.keys:,} keys, {f'Zipf {plan.zipf:g}' if plan.zipf else 'all alike'}"
    where = ", ".join(sorted(set(result.regions)))
    waits = f", writes wait for {result.waits_for} more" if result.waits_for else ""
    connections = "1 connection" if plan.connections == 1 else f"{plan.connections} connections"
    tasks = "1 task" if plan.tasks == 1 else f"{plan.tasks} tasks"
    lines = [
        f"{result.generator.elapsed_s:.1f} s measured · {keys} · {connections} to {where}{waits} · {tasks} · seed {plan.seed}"
    ]
    if plan.rate is None:
        lines.append(
            "closed loop: each task asks again when it is answered, so while the cluster stands still nobody asks, and "
            "such a pause counts once per task; with --rate latency counts from when a request was due"
        )
    else:
        measured = result.total.done + result.total.failed
        share = f", {late:,} of {measured:,} began more than 1 ms late" if late else ""
        lines.append(f"open loop: {plan.rate:,g} requests per s were due, latency counts from when they were{share}")
    return lines


def _warnings(result: Result) -> list[Text]:
    found = []
    if result.generator.is_stopped:
        found.append("interrupted: measured until then")
    if result.generator.not_sent:
        found.append(
            f"{result.generator.not_sent:,} requests were due and never sent: neither the cluster nor {result.plan.tasks} tasks "
            "kept up; they count with the time that they had waited at the end"
        )
    if result.is_busy:
        found.append(
            f"this process used {result.cpu_share:.0%} of a core: what you see may be its limit, not the cluster's; "
            "run several at once, or ask for less"
        )
    return [Text(line, style="yellow") for line in found]


def _found(result: Result) -> list[Text]:
    checked = result.checked
    if result.unchecked:
        return [Text(f"not verified: {result.unchecked}", style="yellow")]
    if checked is None:
        return [Text("nothing to verify: the mix adds nothing to counters or sets, or removes from them too")]
    if checked.wrong:
        lines = [
            f"BROKEN: {checked.wrong:,} of {checked.keys:,} keys do not hold what was acknowledged",
            *checked.examples,
        ]
        return [Text(line, style="bold red") for line in lines]
    sums = []
    if checked.acknowledged or checked.unknown:
        unknown = f" .. {checked.acknowledged + checked.unknown:,}" if checked.unknown else ""
        sums.append(f"counters hold {checked.found:,}, acknowledged {checked.acknowledged:,}{unknown}")
    if checked.elements:
        sums.append(f"sets hold all {checked.elements:,} acknowledged elements and no others")
    return [Text(f"verified: {' · '.join(sums)} ({checked.keys:,} keys)", style="green")]


def _left(result: Result) -> str:
    cleaned = result.cleaned
    removed = (
        f"removed the {cleaned.removed:,} keys of this run from the domain {result.domain}" if cleaned.removed else ""
    )
    left = (
        f"left {cleaned.left:,} keys that begin with {result.run}- in the domain {result.domain}: {cleaned.why}"
        if cleaned.left
        else ""
    )
    return "; ".join(filter(None, (removed, left))) or f"no key was written in the domain {result.domain}"
