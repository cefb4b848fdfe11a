"""The run: three regions, one week, one cut, one verdict, in the order in which it is told.

The question: what may the run itself assume? Only that its own processes start. It waits for conditions with a
deadline, never for a guess; it takes nothing from a node that the verdict is about, except what the node holds; and it
stops what it started, also when it is interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crdtstore.errors import CrdtStoreError
from crdtstore.testing.processes import LocalCluster
from crdtstore_client import connect
from crdtstore_client.demo.acks import AckFile, read_acks
from crdtstore_client.demo.display import Display, Frame, Row
from crdtstore_client.demo.expected import Expected, compute
from crdtstore_client.demo.flights import REGIONS, load_flights, stamp
from crdtstore_client.demo.lww import last_write_wins
from crdtstore_client.demo.measures import total_measures
from crdtstore_client.demo.observe import Region, Unmet, equal_vectors, until
from crdtstore_client.demo.report import Result
from crdtstore_client.demo.timeline import CUT_REGION, KILL, PARTS, Clock, Part, events_of
from crdtstore_client.demo.verdict import Evidence, Holding, judge
from crdtstore_client.demo.writers import DOMAIN, Writer

__all__ = ["Options", "run"]

_DEADLINE_S = 30.0  # for each condition that is waited for
_WRITE_TIMEOUT_S = 60.0  # longer than any restart: a write that still fails then was refused
_FIRST_PORT = 7401  # if it is free
_FRAME_S = 0.5
_FRAMES_PER_DAY = 4
_OTHERS = tuple(region for region in REGIONS if region != CUT_REGION)


@dataclass(frozen=True, slots=True)
class Options:
    directory: Path
    day_seconds: float
    kill: str | None = None


async def run(options: Options, display: Display) -> Result:
    """Run the demo in a directory of its own and return what was found.

    Raises:  Unmet when regions do not come together, so that there is nothing to compare; Unavailable when a node does
             not start.
    """
    started_s = asyncio.get_running_loop().time()
    cluster = LocalCluster(options.directory, list(REGIONS), first_port=_FIRST_PORT)
    async with cluster, contextlib.AsyncExitStack() as stack:
        display.say(_addresses(cluster))
        regions, writers, paths = {}, {}, {}
        for name in REGIONS:
            writing = await stack.enter_async_context(connect(cluster.urls[name], timeout=_WRITE_TIMEOUT_S))
            reading = await stack.enter_async_context(connect(cluster.urls[name], timeout=_WRITE_TIMEOUT_S))
            paths[name] = options.directory / f"acks-{name}.jsonl"
            regions[name] = Region(name, reading)
            writers[name] = Writer(name, writing, stack.enter_context(AckFile(paths[name])))
        return await _Run(options, display, cluster, regions=regions, writers=writers, paths=paths).play(started_s)


def _addresses(cluster: LocalCluster) -> str:
    urls = "   ".join(f"{region}  {cluster.urls[region]}" for region in REGIONS)
    return f" {urls}\n 3 processes; their links run through the fault proxy"


class _Run:
    """The state of one run; each step is a method, ``play`` says in which order."""

    def __init__(
        self,
        options: Options,
        display: Display,
        cluster: LocalCluster,
        *,
        regions: Mapping[str, Region],
        writers: Mapping[str, Writer],
        paths: Mapping[str, Path],
    ) -> None:
        self.options = options
        self.display = display
        self.cluster = cluster
        self.regions = regions
        self.writers = writers
        self.paths = paths
        self.flights = load_flights()
        self.events = events_of(self.flights)
        self.clock = Clock(options.day_seconds)
        self.is_cut = False
        self.down: str | None = None
        self.last_words: list[Mapping[str, Any]] = []  # statuses of processes that were killed
        self.early: dict[str, frozenset[str]] = {}
        self.late: dict[str, frozenset[str]] = {}
        self.conflicts: dict[str, frozenset[str]] = {}

    async def play(self, started_s: float) -> Result:
        expected = compute()
        await self._declare()
        readable_s = await self._load_master()
        await self._publish()
        before, cut, after = PARTS
        async with self._watched():
            await self._replay(before)
            await self._cut()
            await _together(self._replay(cut), self._maybe_kill())
            heal_s = await self._heal()
            await self._replay(after)
            await self._equal("equal vectors after the week")
            await self._draw()
        return await self._judge(expected, started_s, readable_s * 1000, heal_s * 1000)

    # --- before the week

    async def _declare(self) -> None:
        await self.writers[REGIONS[0]].declare()
        for region in self.regions.values():
            await until(f"declarations in {region.name}", region.has_declared, _DEADLINE_S)

    async def _load_master(self) -> float:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        records = await self.writers[REGIONS[0]].load_master()
        loaded_s = loop.time() - started_s
        readable_s = await self._equal("master data in all regions")
        self.display.say(
            f" master data   {records:,} records through {REGIONS[0]} in {loaded_s:.1f} s,"
            f" readable in {' and '.join(REGIONS[1:])} {readable_s * 1000:.0f} ms later"
        )
        return readable_s

    async def _publish(self) -> None:
        await _together(*(writer.publish(self.flights) for writer in self.writers.values()))
        await self._equal("the board in all regions")
        boards = await asyncio.gather(*(region.board() for region in self.regions.values()))
        if any(len(board) != len(self.flights) for board in boards):
            shown = ", ".join(f"{name} shows {len(board):,}" for name, board in zip(self.regions, boards, strict=True))
            raise Unmet("board", f"{len(self.flights):,} flights were published, vectors are equal, and {shown}")
        self.display.say(
            f" boards        {len(self.flights):,} flights, each put up by another airport than its own, readable in all three"
        )

    async def _equal(self, what: str) -> float:
        regions = list(self.regions.values())
        return await until(what, lambda: equal_vectors(regions), _DEADLINE_S)

    # --- the week

    async def _replay(self, part: Part) -> None:
        self.clock.start(part)
        await _together(*(writer.replay(self.events, self.clock, part) for writer in self.writers.values()))
        self.clock.stop()

    async def _cut(self) -> None:
        """Nothing is under way when the cut begins; then a marker on each side, and proof that the links of one side
        still carry.
        """
        await self._equal("equal vectors before the cut")
        self.cluster.partition(CUT_REGION)
        self.is_cut = True
        here, there = _OTHERS[0], _OTHERS[1]
        await _together(self.writers[here].mark(), self.writers[CUT_REGION].mark())
        await until(f"the marker of {here} in {there}", lambda: self.regions[there].has_marker(here), _DEADLINE_S)
        await self._look_across()

    async def _look_across(self) -> None:
        """Note which markers of the other side can be read although nothing should pass."""
        for name in REGIONS:
            other = _OTHERS[0] if name == CUT_REGION else CUT_REGION
            if await self.regions[name].has_marker(other):
                self.early[name] = frozenset({other})

    async def _maybe_kill(self) -> None:
        if self.options.kill is None:
            return
        await self.clock.until(KILL)
        self.down = self.options.kill
        self.last_words.append(await self.regions[self.down].status())
        await self.cluster.kill(self.down)
        self.display.say(f" {stamp(self.clock.minute())}   {self.down} killed (SIGKILL), starting it again")
        await self.cluster.start(self.down)
        self.display.say(f" {stamp(self.clock.minute())}   {self.down} is back")
        self.down = None

    async def _heal(self) -> float:
        """Heal, wait for equal vectors, and read what the two sides disagreed about before Sunday writes over it."""
        await self._look_across()
        started_s = asyncio.get_running_loop().time()
        self.cluster.heal()
        self.is_cut = False
        await self._equal("equal vectors after the heal")
        heal_s = asyncio.get_running_loop().time() - started_s
        self.display.say(f" healed at {stamp(PARTS[1].end)}; equal vectors after {heal_s:.2f} s")
        reported = sorted({e.flight.plane for e in self.events if e.is_departure and PARTS[1].has(e.minute)})
        for name, region in self.regions.items():
            self.conflicts[name] = await region.conflicts(reported)
            seen = [await region.has_marker(marker) for marker in (_OTHERS[0], CUT_REGION)]
            self.late[name] = frozenset(
                m for m, is_there in zip((_OTHERS[0], CUT_REGION), seen, strict=True) if not is_there
            )
        return heal_s

    # --- watching and judging

    @contextlib.asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        """Draw frames meanwhile; a node that ends by itself ends the run."""
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch())
                yield
                watching.cancel()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self.display.stop()

    async def _watch(self) -> None:
        while True:
            for name in REGIONS:
                node = self.cluster.node(name)
                if node.pid is None and name != self.down:
                    raise Unmet("nodes", f"node {node.name} ended with {node.returncode}:\n{node.log_tail()}")
            await self._draw()
            await asyncio.sleep(min(_FRAME_S, self.options.day_seconds / _FRAMES_PER_DAY))

    async def _draw(self) -> None:
        minute, was_cut = self.clock.minute(), self.is_cut
        rows = await asyncio.gather(*(self._row(name) for name in REGIONS))
        if self.is_cut != was_cut:
            return  # some of it was read before the cut began or ended, and some after
        lacking = _behind([vector for _, vector in rows])
        drawn = {name: replace(row, behind=lacks) for name, (row, _), lacks in zip(REGIONS, rows, lacking, strict=True)}
        self.display.frame(Frame(minute, self.is_cut, self.options.day_seconds, drawn))

    async def _row(self, name: str) -> tuple[Row, Mapping[str, int] | None]:
        writer, region = self.writers[name], self.regions[name]
        row = Row(None, None, None, writer.refused, writer.departures_in_cut)
        if name == self.down:
            return row, None
        try:
            async with asyncio.timeout(_FRAME_S):
                group, counted = await asyncio.gather(region.group(), region.counters("destinations"))
        except (CrdtStoreError, TimeoutError):  # it is being killed, or busy: the next frame will tell
            return row, None
        return replace(row, departures=sum(counted.values()), staleness_ms=group["staleness_ms"]), group["vector"]

    async def _judge(self, expected: Expected, started_s: float, readable_ms: float, heal_ms: float) -> Result:
        holdings = {name: await self._holding(name) for name in REGIONS}
        acknowledged = read_acks(self.paths.values())
        statuses = [await region.status() for region in self.regions.values()]
        return Result(
            verdict=judge(Evidence(expected, acknowledged, holdings)),
            measures=total_measures([*statuses, *self.last_words], DOMAIN),
            loss=last_write_wins(self.events),
            writes=acknowledged.writes,
            replayed=acknowledged.replayed,
            heal_ms=heal_ms,
            readable_ms=readable_ms,
            elapsed_s=asyncio.get_running_loop().time() - started_s,
            killed=self.options.kill,
            refusals=[refusal for writer in self.writers.values() for refusal in writer.refusals],
            further_conflicts=max(len(found - expected.both_sides) for found in self.conflicts.values()),
        )

    async def _holding(self, name: str) -> Holding:
        region = self.regions[name]
        group = await region.group()
        return Holding(
            counters=await region.all_counters(),
            board=await region.board(),
            positions=await region.positions(),
            master_records=await region.right_master_records(),
            vector=group["vector"],
            digest=group["digest"],
            conflicts=self.conflicts[name],
            early_markers=self.early.get(name, frozenset()),
            late_markers=self.late[name],
            refused=self.writers[name].refused,
        )


async def _together(*steps: Coroutine[Any, Any, None]) -> None:
    """Run steps side by side; when one fails, the others end before its error goes on."""
    try:
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(step)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _behind(vectors: Sequence[Mapping[str, int] | None]) -> list[int | None]:
    """How many commits each region lacks of what any of them has."""
    known: dict[str, int] = {}
    for vector in vectors:
        for replica, seq in (vector or {}).items():
            known[replica] = max(seq, known.get(replica, 0))
    return [
        None if vector is None else sum(seq - vector.get(replica, 0) for replica, seq in known.items())
        for vector in vectors
    ]
