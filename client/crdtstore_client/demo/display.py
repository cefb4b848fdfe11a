"""What the demo shows: a live table on a terminal, plain lines elsewhere.

The question: what must a reader see to believe that a cut happened? That the numbers of the two sides drift apart
while nobody refuses a write, and that they meet after the heal. So the table has one column per region, and says
beside it who lacks what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from crdtstore_client.demo.flights import DAY_MINUTES, REGIONS, stamp
from crdtstore_client.demo.report import Result
from crdtstore_client.demo.timeline import CUT, CUT_REGION, HEAL, WEEK_END
from crdtstore_client.demo.verdict import Verdict

__all__ = ["Display", "Frame", "Row"]

_CELLS_PER_DAY = 3
_LINE_EVERY_MINUTES = DAY_MINUTES // 2  # without a terminal
_TABLE_AT = CUT + 38 * 60  # Saturday 14:00: the one moment that stays, in full
_WIDE, _NARROW = 130, 92  # columns for the verdict with its notes; below the second without room to breathe


@dataclass(frozen=True, slots=True)
class Row:
    """One region at one moment of the replay; None: it did not answer."""

    departures: int | None
    behind: int | None
    staleness_ms: float | None
    refused: int
    acked_in_cut: int  # departures that its writer had acknowledged since the cut


@dataclass(frozen=True, slots=True)
class Frame:
    minute: int
    is_cut: bool
    day_seconds: float
    rows: Mapping[str, Row]


class Display:
    """Prints to one console; on a terminal the replay is drawn in place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._next_line = 0
        self._table_due = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def say(self, text: str | Text) -> None:
        """One line of its own; above the live table while that is drawn."""
        self._console.print(text, soft_wrap=True, highlight=False)

    def frame(self, frame: Frame) -> None:
        if not self._console.is_terminal:
            self._lines(frame)
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(Group(_bar(frame), Text(), _table(frame)), refresh=True)
        self._moment(frame)

    def _moment(self, frame: Frame) -> bool:
        """Print the regions at their farthest apart, once: the live table shows them converged when all is over."""
        is_due = self._table_due and frame.minute >= _TABLE_AT
        if is_due:
            self._table_due = False
            self._console.print(Text(), _table(frame), Text(), sep="\n")
        return is_due

    def _lines(self, frame: Frame) -> None:
        if self._moment(frame):
            return
        if frame.minute >= self._next_line:
            self._next_line = frame.minute - frame.minute % _LINE_EVERY_MINUTES + _LINE_EVERY_MINUTES
            self.say(_line(frame))

    def stop(self) -> None:
        """End the live table; its last state stays on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def result(self, result: Result) -> None:
        """The verdict and the figures of the run."""
        self.stop()
        verdict, measures, loss = result.verdict, result.measures, result.loss
        self._console.print()
        self._console.print(_promises(verdict, self._console.width))
        windows = measures.windows
        self.say(
            f" writes {result.writes:,} · divergence window p50 {_seconds(windows.p50_ms)},"
            f" p99 {_seconds(windows.p99_ms)}, max {_seconds(windows.max_ms)} · heal {_seconds(result.heal_ms)}"
        )
        self.say(
            f" {measures.bytes_moved / 1e6:.1f} MB moved for {measures.commit_bytes / 1e6:.1f} MB of commits, compressed"
            f" · received twice {measures.received_twice:.1%}"
        )
        self.say(
            f" last-write-wins counters on this timeline lose {loss.lost:,} of {loss.departures:,} departures (model);"
            f" ours lost {verdict.lost:,}"
        )
        self.say(Text.assemble(" verdict: ", (verdict.word, "bold red" if verdict.broken else "bold green")))


def _seconds(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "-"
    return f"{milliseconds / 1000:.2f} s" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _lacks(frame: Frame) -> str:
    alone = frame.rows[CUT_REGION].acked_in_cut
    others = sum(row.acked_in_cut for region, row in frame.rows.items() if region != CUT_REGION)
    return f"<- {CUT_REGION} lacks {others:,}, the others lack {alone:,}"


def _lines(frame: Frame) -> list[tuple[str, list[str], str]]:
    rows = [frame.rows[region] for region in REGIONS]
    return [
        ("departures counted", [_number(row.departures) for row in rows], _lacks(frame) if frame.is_cut else ""),
        ("behind, commits", [_number(row.behind) for row in rows], ""),
        (
            "staleness",
            [_seconds(row.staleness_ms) for row in rows],
            "<- grows, because nothing arrives" if frame.is_cut else "",
        ),
        ("writes refused", [_number(row.refused) for row in rows], ""),
    ]


def _table(frame: Frame) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 0, 0, 3), header_style="bold")
    table.add_column(f"   {stamp(frame.minute)}", min_width=21)
    for region in REGIONS:
        is_alone = frame.is_cut and region == CUT_REGION
        table.add_column(region, justify="right", min_width=8, header_style="bold red" if is_alone else "bold")
    table.add_column("", no_wrap=True, style="dim")
    for label, cells, note in _lines(frame):
        table.add_row(f"   {label}", *cells, note)
    return table


def _line(frame: Frame) -> str:
    """One moment in one line, for logs."""
    counted, behind, _, refused = (cells for _, cells, _ in _lines(frame))
    regions = "  ".join(f"{region} {cell:>5}" for region, cell in zip(REGIONS, counted, strict=True))
    cut = f"   {CUT_REGION} CUT OFF" if frame.is_cut else ""
    return f" {stamp(frame.minute):<16}  {regions}   behind {'/'.join(behind)}   refused {'/'.join(refused)}{cut}"


def _bar(frame: Frame) -> Text:
    """The week as a line; what lies ahead is dim."""
    text = Text(" replaying   ")
    seams: Sequence[tuple[str, int, int, str]] = (
        ("Mon 4 Feb ", 0, CUT, "green"),
        (f" Fri 8 Feb ┃ {CUT_REGION} CUT OFF ", CUT, HEAL, "red"),
        (" ┃ Sun 10 Feb ", HEAL, WEEK_END, "green"),
    )
    for label, start, end, colour in seams:
        text.append(label, style=f"bold {colour}" if frame.minute >= start else "dim")
        cells = (end - start) * _CELLS_PER_DAY // DAY_MINUTES
        done = max(0, min(cells, (frame.minute - start) * _CELLS_PER_DAY // DAY_MINUTES))
        text.append("━" * done, style=colour)
        text.append("━" * (cells - done), style="dim")
    text.append(f"   1 day = {frame.day_seconds:g} s")
    return text


def _shown(value: int | str) -> str:
    """Counts with separators, digests by their beginning, words as they are."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value[:4]}…" if len(value) > 8 else value


def _promises(verdict: Verdict, width: int) -> Table:
    """The verdict; every cell of it stands on 80 columns too."""
    wide, narrow = width >= _WIDE, width < _NARROW
    table = Table(box=None, pad_edge=False, padding=(0, 0, 0, 1), header_style="bold")
    table.add_column(" promise", min_width=44, no_wrap=True)
    table.add_column("expected", justify="right", min_width=8 if narrow else 9)
    for region in REGIONS:
        table.add_column(region, justify="right", min_width=5 if narrow else 8)
    table.add_column("", min_width=6 if narrow else 8, no_wrap=True)
    if wide:
        table.add_column("", style="dim", no_wrap=True)
    for promise in verdict.promises:
        cells = [Text(_shown(promise.values[r]), style="bold red" if r in promise.broken else "") for r in REGIONS]
        state = Text("ok", style="green") if promise.kept else Text("BROKEN", style="bold red")
        notes = [promise.note] if wide else []
        table.add_row(
            f" {promise.title}", _shown(promise.expected), *cells, state if narrow else Text("  ") + state, *notes
        )
    return table
