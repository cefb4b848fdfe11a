"""The judge: what was expected, what was acknowledged and what each region holds, compared promise by promise.

The question: what would convince somebody that nothing was lost? Each promise is one comparison with a name, made for
every region by itself, so that a broken one says what broke and where. Nothing here talks to a node: the same
functions judge the planted wrong numbers of the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from crdtstore_client.demo.acks import Acknowledged
from crdtstore_client.demo.expected import Expected
from crdtstore_client.demo.flights import stamp

__all__ = ["COUNTERS", "Evidence", "Holding", "Promise", "Verdict", "judge"]

# What is counted -> the collection of counters that counts it.
COUNTERS: Mapping[str, str] = {
    "destinations": "departures_by_destination",
    "airlines": "departures_by_airline",
    "planes": "departures_by_plane",
}


@dataclass(frozen=True, slots=True)
class Holding:
    """What one region answered."""

    counters: Mapping[str, Mapping[str, int]]  # as Expected.counters
    board: frozenset[str]
    positions: Mapping[str, Mapping[str, str]]  # plane -> the report that is read
    master_records: int  # that read as they are in the files
    vector: Mapping[str, int]
    digest: str
    conflicts: frozenset[str]  # planes with more than one live report, read right after the heal
    early_markers: frozenset[str]  # of the other side, readable during the cut
    late_markers: frozenset[str]  # not readable after the heal
    refused: int  # writes that this region refused


@dataclass(frozen=True, slots=True)
class Evidence:
    expected: Expected
    acknowledged: Acknowledged
    regions: Mapping[str, Holding]


@dataclass(frozen=True, slots=True)
class Promise:
    """One line of the verdict. ``values`` is what each region holds, ``broken`` names the regions where that is not
    as promised.
    """

    name: str
    title: str
    expected: int | str
    values: Mapping[str, int | str]
    broken: tuple[str, ...]
    note: str = ""

    @property
    def kept(self) -> bool:
        return not self.broken


@dataclass(frozen=True, slots=True)
class Verdict:
    promises: Sequence[Promise]
    lost: int  # acknowledged writes that the region which has the fewest does not hold
    refused: int
    digests_equal: bool
    broken: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "broken", tuple(promise.name for promise in self.promises if not promise.kept))

    @property
    def word(self) -> str:
        return "broken" if self.broken else "ok"


def judge(evidence: Evidence) -> Verdict:
    """Compare the three sources for every region."""
    expected, acknowledged = evidence.expected, evidence.acknowledged
    missing = {region: _missing(acknowledged, holding) for region, holding in evidence.regions.items()}
    surplus = {region: _surplus(acknowledged, holding) for region, holding in evidence.regions.items()}
    digest = _digest(evidence)
    kinds = len(expected.counters["destinations"])
    keys = sum(map(len, expected.counters.values()))

    def line(name: str, title: str, want: int, of: Callable[[str, Holding], int], note: str = "") -> Promise:
        values = {region: of(region, holding) for region, holding in evidence.regions.items()}
        broken = tuple(region for region, value in values.items() if value != want)
        return Promise(name, title, want, values, broken, note)

    promises = (
        line(
            "master-data",
            "master data, records as in the files",
            expected.master_records,
            lambda _, h: h.master_records,
        ),
        line(
            "departures",
            f"departures, sum over {kinds} destinations",
            expected.departures,
            lambda _, h: sum(h.counters["destinations"].values()),
            "expected: sqlite3 over the same CSV",
        ),
        line(
            "counters",
            "destination, airline and plane counters",
            keys,
            lambda _, h: _right(expected, h),
            "each with its own number",
        ),
        line(
            "board",
            "flights still on the board",
            expected.left_on_board,
            lambda _, h: len(h.board),
            "added and removed in different regions",
        ),
        line(
            "positions",
            "planes where an airport last reported them",
            len(expected.last_reports),
            lambda _, h: _placed(expected, h),
        ),
        line(
            "conflicts",
            "planes reported from both sides of the cut",
            len(expected.both_sides),
            lambda _, h: len(expected.both_sides & h.conflicts),
            "read right after the heal",
        ),
        line(
            "cut",
            "markers that crossed the cut before the heal",
            0,
            lambda _, h: len(h.early_markers),
            "one written on each side",
        ),
        line("heal", "markers missing after the heal", 0, lambda _, h: len(h.late_markers)),
        line(
            "acknowledged", "acknowledged writes missing", 0, lambda r, _: missing[r], "from the writers' own ack files"
        ),
        line("counted-once", "departures counted beyond the acknowledged", 0, lambda r, _: surplus[r]),
        line("refused", "writes refused", 0, lambda _, h: h.refused, "before, during and after the cut"),
        digest,
    )
    return Verdict(
        promises=promises,
        lost=max(missing.values()),
        refused=sum(holding.refused for holding in evidence.regions.values()),
        digests_equal=digest.kept,
    )


def _digest(evidence: Evidence) -> Promise:
    """Equal digests prove equal bytes only for equal vectors, so both must be equal."""
    regions = evidence.regions
    states = {region: (holding.digest, dict(holding.vector)) for region, holding in regions.items()}
    counted = [list(states.values()).count(state) for state in states.values()]
    usual = list(states.values())[counted.index(max(counted))]
    alone = max(counted) == 1 and len(states) > 1
    return Promise(
        name="digest",
        title="state digest, and what it is the digest of",
        expected="equal",
        values={region: holding.digest for region, holding in regions.items()},
        broken=tuple(region for region, state in states.items() if alone or state != usual),
    )


def _right(expected: Expected, holding: Holding) -> int:
    """Counters that read what they must; one that should not be there costs as much as one that is wrong."""
    right = 0
    for kind, wanted in expected.counters.items():
        read = {key: value for key, value in holding.counters[kind].items() if value}
        right += sum(read.get(key) == value for key, value in wanted.items()) - len(read.keys() - wanted.keys())
    return right


def _placed(expected: Expected, holding: Holding) -> int:
    """Planes whose position is the last report of one of the airports.

    Which of several airports wrote last is not promised by any store without one clock; that nothing older wins is.
    """
    allowed = {
        plane: {(origin, destination, stamp(minute)) for origin, destination, minute in reports}
        for plane, reports in expected.last_reports.items()
    }
    return sum(
        (position.get("from"), position.get("to"), position.get("at")) in allowed.get(plane, ())
        for plane, position in holding.positions.items()
    )


def _missing(acknowledged: Acknowledged, holding: Holding) -> int:
    """Acknowledged commits that are not covered, or, if that is more, acknowledged counts that are not in the
    readings.
    """
    return max(acknowledged.uncovered(holding.vector), sum(max(0, -d) for d in _differences(acknowledged, holding)))


def _surplus(acknowledged: Acknowledged, holding: Holding) -> int:
    return sum(max(0, d) for d in _differences(acknowledged, holding))


def _differences(acknowledged: Acknowledged, holding: Holding) -> list[int]:
    found = []
    for kind, collection in COUNTERS.items():
        read, acked = holding.counters[kind], acknowledged.amounts.get(collection, {})
        found += [read.get(key, 0) - acked.get(key, 0) for key in sorted(read.keys() | acked.keys())]
    return found
