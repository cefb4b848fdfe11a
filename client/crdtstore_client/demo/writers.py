"""The writers of one airport: everything it reports goes to the node of its own region, and to no other.

The question: how does a writer stay fast without ever reordering what belongs together? A flight's writes follow each
other, and so do the flights of one plane, since a position is the latest of them; everything else may overlap. So each
plane has its lane, lanes work side by side, and a lane that is full holds up the airport instead of growing. A write
that fails is not tried again here: the client has retried it under its operation id until the deadline, so what
arrives here as an error was refused, and counts as that.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from crdtstore.errors import CrdtStoreError
from crdtstore_client.demo.acks import Ack, AckFile
from crdtstore_client.demo.flights import Flight, load_master, position_of
from crdtstore_client.demo.timeline import PUBLISHER, Clock, Event, Part
from crdtstore_client.demo.verdict import COUNTERS
from crdtstore_client.domain import Domain
from crdtstore_client.ops import Op
from crdtstore_client.store import Store

__all__ = ["BOARDS", "COLLECTIONS", "DOMAIN", "MARKERS", "POSITIONS", "Writer"]

DOMAIN = "flights"
BOARDS = "boards"
MARKERS = "markers"
POSITIONS = "positions"

# Collection -> type. Master data has one collection per file.
COLLECTIONS = {
    **dict.fromkeys(COUNTERS.values(), "counter"),
    **dict.fromkeys(("airlines", "airports", "planes"), "lww_map"),
    BOARDS: "aw_set",
    MARKERS: "lww_register",
    POSITIONS: "lww_register",
}

_LANES = 16
_LANE_EVENTS = 64
_BOARD_CHUNK = 200  # flights per commit when the board is published
_KEPT_REFUSALS = 3  # all are counted, so many are shown


class Writer:
    """All writes of one airport, their acknowledgements and refusals."""

    def __init__(self, region: str, store: Store, acks: AckFile) -> None:
        self.region = region
        self.departures_in_cut = 0
        self.refused = 0
        self.refusals: list[str] = []
        self._store = store
        self._domain = store.domain(DOMAIN)
        self._acks = acks

    async def declare(self) -> None:
        """Declare what the demo writes to; the other regions hear of it."""
        for collection, type_name in COLLECTIONS.items():
            await self._domain.declare(collection, type_name)

    async def load_master(self) -> int:
        """Write all master data; returns the number of records."""
        master = load_master()
        await self._write_all(
            self._domain.lww_map(collection)[key].set(fields)
            for collection, records in master.items()
            for key, fields in records.items()
        )
        return sum(map(len, master.values()))

    async def publish(self, flights: Sequence[Flight]) -> None:
        """Put the flights on the board that this airport publishes for others."""
        boards = self._domain.aw_set(BOARDS)
        await self._write_all(
            boards[airport.upper()].add(*chunk)
            for airport, publisher in PUBLISHER.items()
            if publisher == self.region
            for chunk in _chunks([flight.name for flight in flights if flight.origin == airport])
        )

    async def mark(self) -> None:
        """Leave a marker: whoever can read it hears this region."""
        await self.write(self._domain.lww_register(MARKERS)[self.region].set("written during the cut"))

    async def replay(self, events: Iterable[Event], clock: Clock, part: Part) -> None:
        """Write what happens at this airport in one part of the week; returns when all of it has been answered."""
        lanes: list[asyncio.Queue[Event | None]] = [asyncio.Queue(_LANE_EVENTS) for _ in range(_LANES)]
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(self._work(lane, part))
            for event in events:
                if event.flight.origin == self.region and part.has(event.minute):
                    await clock.until(event.minute)
                    await lanes[_lane_of(event.flight)].put(event)
            for lane in lanes:
                await lane.put(None)

    async def write(self, op: Op[Any], amount: int = 0) -> bool:
        """Send one op; returns whether it was acknowledged. The acknowledgement is on file before anything else
        happens.
        """
        try:
            ack = await op
        except CrdtStoreError as error:
            self.refused += 1
            if len(self.refusals) < _KEPT_REFUSALS:
                self.refusals.append(f"{self.region} refused {op!r}: {error}")
            return False
        self._acks.append(Ack(ack.dot, op.collection, op.key, time.time_ns() // 1_000_000, amount, ack.replayed))
        return True

    async def _work(self, lane: asyncio.Queue[Event | None], part: Part) -> None:
        domain = self._store.session().domain(DOMAIN)  # a desk of its own: what it has seen is no matter of the others
        board = domain.aw_set(BOARDS)[self.region.upper()]
        while (event := await lane.get()) is not None:
            if event.is_departure:
                await self._depart(domain, event.flight, part)
            await self.write(board.remove(event.flight.name))

    async def _depart(self, domain: Domain, flight: Flight, part: Part) -> None:
        for kind, key in (("airlines", flight.airline), ("planes", flight.plane)):
            await self.write(domain.counter(COUNTERS[kind])[key].add(1), amount=1)
        if await self.write(domain.counter(COUNTERS["destinations"])[flight.destination].add(1), amount=1):
            self.departures_in_cut += part.name == "cut"
        await self.write(domain.lww_register(POSITIONS)[flight.plane].set(position_of(flight)))

    async def _write_all(self, ops: Iterable[Op[Any]]) -> None:
        """Write many independent ops, a bounded number at a time."""
        todo = iter(ops)

        async def work() -> None:
            for op in todo:
                await self.write(op)

        async with asyncio.TaskGroup() as group:
            for _ in range(2 * _LANES):
                group.create_task(work())


def _lane_of(flight: Flight) -> int:
    return zlib.crc32((flight.plane or flight.name).encode()) % _LANES


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + _BOARD_CHUNK] for start in range(0, len(names), _BOARD_CHUNK))
