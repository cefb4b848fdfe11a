"""The input, the timeline, the second reader and the model: what they must find in the packaged files."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

from crdtstore_client.demo.expected import Expected
from crdtstore_client.demo.flights import DAY_MINUTES, REGIONS, Flight, load_master, position_of, stamp
from crdtstore_client.demo.lww import last_write_wins
from crdtstore_client.demo.timeline import CUT, HEAL, KILL, PARTS, PUBLISHER, WEEK_END, Clock, Event, events_of


def test_master_data_has_every_record_with_typed_fields() -> None:
    master = load_master()
    assert {name: len(records) for name, records in master.items()} == {
        "airlines": 16,
        "airports": 1458,
        "planes": 3322,
    }
    assert master["airports"]["JFK"]["alt"] == 13
    assert isinstance(master["airports"]["JFK"]["lat"], float)
    assert "speed" not in master["planes"]["N10156"]  # marked as not available


def test_flights_have_unique_names_and_departures_that_cross_midnight(flights: list[Flight]) -> None:
    assert len({flight.name for flight in flights}) == len(flights) == 6104
    assert {flight.origin for flight in flights} == set(REGIONS)
    late = [f for f in flights if f.departed is not None and f.departed // DAY_MINUTES > f.scheduled // DAY_MINUTES]
    assert late
    assert all(flight.plane for flight in flights if flight.departed is not None)


def test_instants_are_named_as_in_the_calendar() -> None:
    assert stamp(0) == "Mon 4 Feb 00:00"
    assert stamp(CUT) == "Fri 8 Feb 00:00"
    assert stamp(HEAL) == "Sun 10 Feb 00:00"
    assert stamp(KILL) == "Fri 8 Feb 09:00"


def test_a_position_is_the_report_of_the_airport_it_left(flights: list[Flight]) -> None:
    first = next(flight for flight in flights if flight.plane == "N557UW")
    assert position_of(first) == {"from": "EWR", "to": "CLT", "at": "Mon 4 Feb 04:53"}


def test_events_are_ordered_and_fall_into_the_parts(events: list[Event]) -> None:
    assert len(events) == 6104
    assert [event.minute for event in events] == sorted(event.minute for event in events)
    assert all(sum(part.has(event.minute) for part in PARTS) == 1 for event in events)
    assert Counter(event.is_departure for event in events) == {True: 5175, False: 929}
    assert events[-1].minute < WEEK_END


def test_no_airport_publishes_its_own_flights() -> None:
    assert set(PUBLISHER) == set(REGIONS)
    assert all(publisher != airport for airport, publisher in PUBLISHER.items())


def test_the_second_reader_agrees_with_the_files_own_description(expected: Expected) -> None:
    assert (expected.scheduled, expected.departures, expected.cancelled) == (6104, 5175, 929)
    assert expected.cut_departures == 752
    assert expected.left_on_board == 0
    assert len(expected.both_sides) == 11
    assert expected.master_records == 4796
    assert {kind: len(keys) for kind, keys in expected.counters.items()} == {
        "destinations": 87,
        "airlines": 15,
        "planes": 1871,
    }
    assert all(sum(keys.values()) == 5175 for keys in expected.counters.values())


def test_the_second_reader_and_the_replay_find_the_same_week(events: list[Event], expected: Expected) -> None:
    departures = [event for event in events if event.is_departure]
    assert Counter(event.flight.destination for event in departures) == expected.counters["destinations"]
    assert Counter(event.flight.plane for event in departures) == expected.counters["planes"]
    sides: dict[str, set[bool]] = {}
    for event in departures:
        if CUT <= event.minute < HEAL:
            sides.setdefault(event.flight.plane, set()).add(event.flight.origin == "jfk")
    assert {plane for plane, found in sides.items() if len(found) == 2} == expected.both_sides
    reports = {(e.flight.plane, e.flight.origin.upper(), e.flight.destination, e.minute) for e in departures}
    assert all((plane, *report) in reports for plane, found in expected.last_reports.items() for report in found)


def test_last_write_wins_loses_267_of_5175_departures(events: list[Event]) -> None:
    loss = last_write_wins(events)
    assert (loss.lost, loss.departures, loss.counted) == (267, 5175, 4908)


def test_last_write_wins_loses_nothing_without_a_cut(events: list[Event]) -> None:
    assert last_write_wins(events, cut=HEAL).lost == 0


def test_last_write_wins_keeps_the_later_side_only() -> None:
    flight = Flight("f", "jfk", "BOS", "B6", "N1", CUT, CUT)
    week = [replace(flight, origin=origin, departed=CUT + at) for at, origin in enumerate(["jfk", "jfk", "ewr"])]
    assert last_write_wins(events_of(week)).counted == 1  # the two of jfk are gone: ewr wrote later
    after = replace(flight, origin="lga", departed=HEAL)
    assert last_write_wins(events_of([*week, after])).counted == 2


async def test_the_clock_runs_through_a_part_and_waits_at_its_end() -> None:
    clock = Clock(day_seconds=0.02)
    clock.start(PARTS[1])
    assert CUT <= clock.minute() < HEAL
    await clock.until(HEAL)
    assert clock.minute() == HEAL
    await asyncio.sleep(0.005)
    assert clock.minute() == HEAL  # not a minute of Sunday before it is started
    clock.stop()
    assert clock.minute() == HEAL
    clock.start(PARTS[2])
    assert clock.minute() < HEAL + DAY_MINUTES // 2
