"""The input: a week of flights from New York and the master data around them, read from the packaged CSV files.

The question: what is the instant of a departure? The files give the scheduled time, the day it was scheduled for, and
the delay in minutes; a flight of 23:59 that leaves 40 minutes late leaves on the next day. So the instant is scheduled
+ delay, in minutes since Monday 00:00 local time, and never the printed clock time. A flight without a departure time
was cancelled.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from importlib.resources import files
from typing import Any

__all__ = [
    "DAY_MINUTES",
    "FLIGHTS_FILE",
    "MASTER",
    "MONDAY",
    "REGIONS",
    "Flight",
    "load_flights",
    "load_master",
    "position_of",
    "rows",
    "stamp",
]

REGIONS = ("ewr", "lga", "jfk")
MONDAY = date(2013, 2, 4)
DAY_MINUTES = 24 * 60
FLIGHTS_FILE = "flights-2013-02-04-to-10.csv.gz"

# Collection of master data: its file and the column that is the key.
MASTER: Mapping[str, tuple[str, str]] = {
    "airlines": ("airlines.csv.gz", "carrier"),
    "airports": ("airports.csv.gz", "faa"),
    "planes": ("planes.csv.gz", "tailnum"),
}
_INTEGERS = frozenset({"alt", "engines", "seats", "speed", "tz", "year"})
_FLOATS = frozenset({"lat", "lon"})


@dataclass(frozen=True, slots=True)
class Flight:
    """One scheduled flight. ``scheduled`` and ``departed`` are minutes since Monday 00:00; ``departed`` is None when
    cancelled.
    """

    name: str  # unique in the week, and what stands on the board: "2013-02-08 B6 1053"
    origin: str  # a region: ewr, lga, jfk
    destination: str
    airline: str
    plane: str  # empty for some cancelled flights: no plane was assigned
    scheduled: int
    departed: int | None


def rows(file: str) -> Iterator[dict[str, str]]:
    """The rows of one packaged file, as text."""
    packed = files(__package__).joinpath("data", "nycflights13", file).read_bytes()
    return csv.DictReader(io.StringIO(gzip.decompress(packed).decode()))


def load_flights() -> list[Flight]:
    """All flights of the week, in the order of the file (scheduled time)."""
    return [_flight(row) for row in rows(FLIGHTS_FILE)]


def load_master() -> dict[str, dict[str, dict[str, Any]]]:
    """Collection -> key -> fields. Fields that the source marks as not available are left out."""
    return {
        collection: {row[key]: _fields(row, key) for row in rows(file)} for collection, (file, key) in MASTER.items()
    }


def position_of(flight: Flight) -> dict[str, str]:
    """What the departing airport reports about the plane."""
    assert flight.departed is not None, "a cancelled flight moves no plane"
    return {"from": flight.origin.upper(), "to": flight.destination, "at": stamp(flight.departed)}


def stamp(minute: int) -> str:
    """'Sat 9 Feb 14:10' for minutes since Monday 00:00."""
    at = datetime.combine(MONDAY, datetime.min.time()) + timedelta(minutes=minute)
    return f"{at:%a} {at.day} {at:%b %H:%M}"


def _flight(row: Mapping[str, str]) -> Flight:
    clock = int(row["sched_dep_time"])
    days = (date.fromisoformat(row["date"]) - MONDAY).days
    scheduled = days * DAY_MINUTES + clock // 100 * 60 + clock % 100
    return Flight(
        name=f"{row['date']} {row['carrier']} {row['flight']}",
        origin=row["origin"].lower(),
        destination=row["dest"],
        airline=row["carrier"],
        plane=row["tailnum"],
        scheduled=scheduled,
        departed=scheduled + int(row["dep_delay"]) if row["dep_time"] else None,
    )


def _fields(row: Mapping[str, str], key: str) -> dict[str, Any]:
    return {name: _typed(name, text) for name, text in row.items() if name != key and text not in {"", "NA"}}


def _typed(name: str, text: str) -> Any:
    if name in _INTEGERS:
        return int(text)
    if name in _FLOATS:
        return float(text)
    return text
