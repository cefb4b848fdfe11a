"""What must come out, computed by sqlite3 over the same CSV files: the second reader.

The question: who checks the checker? Nothing here is shared with the replay. The rows go into SQLite as the text they
are, and the answers are SQL; a mistake in the replay's own reading of the files, of delays or of midnight shows as a
difference, not as agreement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from crdtstore_client.demo.flights import FLIGHTS_FILE, MASTER, rows

__all__ = ["Expected", "compute"]

# at: the minute since Monday 00:00 at which the flight departs or, cancelled, was to depart.
_VIEWS = """
create view flight as
select *, dep_time <> '' as departed,
       cast(julianday(date) - julianday('2013-02-04') as integer) * 1440
         + cast(sched_dep_time as integer) / 100 * 60 + cast(sched_dep_time as integer) % 100
         + case when dep_time <> '' then cast(dep_delay as integer) else 0 end as at
from flights;
create view departure as
select *, at >= 4 * 1440 and at < 6 * 1440 as in_cut from flight where departed;
"""
_PER_KEY = {
    "destinations": "select dest, count(*) from departure group by dest",
    "airlines": "select carrier, count(*) from departure group by carrier",
    "planes": "select tailnum, count(*) from departure group by tailnum",
}
_BOTH_SIDES = """
select tailnum from departure where in_cut group by tailnum
having sum(origin = 'JFK') > 0 and sum(origin <> 'JFK') > 0
"""
# The last report of each airport about each plane: one of these is the position in the end, whichever write came last.
_LAST_REPORTS = "select tailnum, origin, dest, max(at) from departure group by tailnum, origin"


@dataclass(frozen=True, slots=True)
class Expected:
    """Counters per key, totals of the week, and who reported from both sides of the cut."""

    counters: Mapping[str, Mapping[str, int]]  # destinations, airlines, planes -> key -> departures
    scheduled: int
    departures: int
    cancelled: int
    cut_departures: int
    both_sides: frozenset[str]
    last_reports: Mapping[
        str, frozenset[tuple[str, str, int]]
    ]  # plane -> (origin, destination, minute), one per airport
    master_records: int

    @property
    def left_on_board(self) -> int:
        """What stays on the board: scheduled, but neither departed nor cancelled."""
        return self.scheduled - self.departures - self.cancelled


def compute() -> Expected:
    """Read the packaged files into an SQLite database in memory and ask it."""
    database = sqlite3.connect(":memory:")
    try:
        for table, file in {"flights": FLIGHTS_FILE, **{name: file for name, (file, _) in MASTER.items()}}.items():
            _fill(database, table, rows(file))
        database.executescript(_VIEWS)
        return _answers(database)
    finally:
        database.close()


def _fill(database: sqlite3.Connection, table: str, lines: Iterable[Mapping[str, str]]) -> None:
    taken = list(lines)
    columns = ", ".join(f'"{name}" text' for name in taken[0])
    places = ", ".join("?" for _ in taken[0])
    database.execute(f'create table "{table}" ({columns})')
    database.executemany(f'insert into "{table}" values ({places})', [tuple(line.values()) for line in taken])  # noqa: S608 - our own names


def _answers(database: sqlite3.Connection) -> Expected:
    def number(query: str) -> int:
        return int(database.execute(query).fetchone()[0])

    def column(query: str) -> Sequence[str]:
        return [row[0] for row in database.execute(query)]

    reports: dict[str, set[tuple[str, str, int]]] = {}
    for plane, origin, destination, minute in database.execute(_LAST_REPORTS):
        reports.setdefault(plane, set()).add((origin, destination, minute))
    return Expected(
        counters={name: dict(database.execute(query).fetchall()) for name, query in _PER_KEY.items()},
        scheduled=number("select count(*) from flight"),
        departures=number("select count(*) from departure"),
        cancelled=number("select count(*) from flight where not departed"),
        cut_departures=number("select count(*) from departure where in_cut"),
        both_sides=frozenset(column(_BOTH_SIDES)),
        last_reports={plane: frozenset(found) for plane, found in reports.items()},
        master_records=sum(number(f'select count(*) from "{table}"') for table in MASTER),  # noqa: S608 - our own names
    )
