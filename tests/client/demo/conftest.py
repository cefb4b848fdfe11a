"""The input and the truth about it, read once."""

from __future__ import annotations

import pytest

from crdtstore_client.demo.acks import Acknowledged
from crdtstore_client.demo.expected import Expected, compute
from crdtstore_client.demo.flights import REGIONS, Flight, load_flights, stamp
from crdtstore_client.demo.timeline import Event, events_of
from crdtstore_client.demo.verdict import COUNTERS, Evidence, Holding


@pytest.fixture(scope="session")
def flights() -> list[Flight]:
    return load_flights()


@pytest.fixture(scope="session")
def events(flights: list[Flight]) -> list[Event]:
    return events_of(flights)


@pytest.fixture(scope="session")
def expected() -> Expected:
    return compute()


@pytest.fixture
def evidence(expected: Expected) -> Evidence:
    """A run in which everything is as promised."""
    last = {plane: max(reports, key=lambda report: report[2]) for plane, reports in expected.last_reports.items()}
    holding = Holding(
        counters=expected.counters,
        board=frozenset(),
        positions={plane: {"from": origin, "to": to, "at": stamp(at)} for plane, (origin, to, at) in last.items()},
        master_records=expected.master_records,
        vector={"ewr-1.0": 7, "jfk-1.0": 3},
        digest="8c1f00112233",
        conflicts=expected.both_sides,
        early_markers=frozenset(),
        late_markers=frozenset(),
        refused=0,
    )
    acknowledged = Acknowledged(
        dots=frozenset({"ewr-1.0:7", "ewr-1.0:6", "jfk-1.0:3"}),
        amounts={collection: expected.counters[kind] for kind, collection in COUNTERS.items()},
        replayed=0,
    )
    return Evidence(expected, acknowledged, dict.fromkeys(REGIONS, holding))
