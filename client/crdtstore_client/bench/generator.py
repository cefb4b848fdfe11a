"""The generator: when requests begin, and how long each took from the moment in which it should have begun.

The question: what does a server that stands still for a second do to the figures? In a *closed* loop each task waits for
its answer before it asks again, so while the server stands still nobody asks, and one slow answer per task is all that is
seen: what would have been asked meanwhile is omitted (coordinated omission). In an *open* loop requests are due at fixed
moments whatever the server does; a task that comes late to its request counts the time from when it was due. Whatever was
due and could not be sent before the end, and a grace after it, counts with the time that it had waited by then.

Source: Gil Tene, "How NOT to Measure Latency"; Schroeder et al., "Open Versus Closed", NSDI 2006.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from crdtstore.errors import CrdtStoreError, UsageError
from crdtstore_client.bench.books import Books
from crdtstore_client.bench.histogram import Histogram
from crdtstore_client.bench.keys import Zipf
from crdtstore_client.bench.mix import Kind, Mix

__all__ = ["NOT_SENT", "Generator", "Plan", "Send", "Series"]

Send = Callable[[int, Kind, int, dict[str, Any]], Awaitable[None]]
"""Carries a request of one connection about one key; raises what the client raises."""
NOT_SENT = "not-sent"
GRACE_S = 10.0
_LATE_S = 0.001
_LOOK_S = 0.5
_WAITED = frozenset((NOT_SENT, "outcome-unknown", "unreachable"))
"""What failed because no answer came."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done. Times are in seconds; ``rate`` in requests per second over all tasks, None: a closed loop."""

    mix: Mix
    keys: int
    zipf: float
    connections: int
    tasks: int
    seconds: float
    warm_up: float
    rate: float | None
    value_bytes: int
    seed: int


@dataclass(slots=True)
class Series:
    """The requests of one kind over one connection that were measured. Durations are nanoseconds."""

    done: Histogram = field(default_factory=Histogram)
    failed: dict[str, Histogram] = field(default_factory=dict)
    """By the code of the error: how long it took until it was known."""

    def join(self, other: Series) -> None:
        self.done.join(other.done)
        for code, took in other.failed.items():
            self.failed.setdefault(code, Histogram()).join(took)

    @property
    def latency(self) -> Histogram:
        """What its users waited: for answers, or until they gave up. What was refused tells nothing of that, and is left out."""
        waited = Histogram()
        for took in (self.done, *(took for code, took in self.failed.items() if code in _WAITED)):
            waited.join(took)
        return waited

    @property
    def failures(self) -> int:
        return sum(took.count for took in self.failed.values())


class Generator:
    """One run. Mutable; ``clock`` gives seconds, and stands beside ``asyncio.sleep``."""

    def __init__(self, plan: Plan, books: Books, send: Send, clock: Callable[[], float]) -> None:
        self.plan = plan
        self.books = books
        self._send = send
        self._clock = clock
        self._zipf = Zipf(plan.keys, plan.zipf)
        self.series: dict[tuple[int, str], Series] = {}
        """By connection and kind."""
        self.recent = Histogram()
        """All that was answered since somebody took it."""
        self.requests = self.failures = 0
        """So far, the warm-up included."""
        self.late = 0
        """Measured requests that began more than a millisecond after they were due."""
        self.not_sent = 0
        self.elapsed_s = 0.0
        """How long the measured part took, until the last of its answers."""
        self._stopped = asyncio.Event()
        self._start = self._last = 0.0
        self._next = 0
        """How many requests of an open loop have found a task."""

    @property
    def begun_s(self) -> float:
        """How long it has been running."""
        return self._clock() - self._start if self._start else 0.0

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """Ask for nothing more; what is under way is waited for."""
        self._stopped.set()

    async def try_out(self) -> None:
        """Each kind once, over each connection: it opens them, and what is refused as wrong use is refused before the load.

        Raises:  UsageError as the cluster gave it.
        """
        random = Random(f"{self.plan.seed}/trial")  # noqa: S311 (repeats)
        for connection in range(self.plan.connections):
            for kind in self.plan.mix.kinds:
                arguments = kind.arguments(random, self.plan.value_bytes)
                _, error = await self._ask(connection, kind, self._zipf.draw(random), arguments)
                if isinstance(error, UsageError):
                    raise error

    async def run(self) -> None:
        """Ask for all that is planned, and wait for the answers."""
        plan = self.plan
        self._start = self._clock()
        self._last = measured = self._start + plan.warm_up
        tasks = [asyncio.create_task(self._work(at)) for at in range(plan.tasks)]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        self._count_not_sent()
        self.elapsed_s = max(self._last - measured, min(plan.seconds, self._clock() - measured), 0.0)

    async def _work(self, number: int) -> None:
        random = Random(f"{self.plan.seed}/{number}")  # noqa: S311 (repeats)
        connection = number % self.plan.connections
        while (due := await self._due()) is not None:
            kind = self.plan.mix.draw(random)
            key, arguments = self._zipf.draw(random), kind.arguments(random, self.plan.value_bytes)
            now, error = await self._ask(connection, kind, key, arguments)
            self._note(connection, kind, due, now, error)

    async def _due(self) -> float | None:
        """When the next request is due; returns in that moment, or at once if it has passed. None: there is none any more."""
        now, plan = self._clock(), self.plan
        end = self._start + plan.warm_up + plan.seconds
        if plan.rate is None:
            return None if self.is_stopped or now >= end else now
        due = self._start + self._next / plan.rate
        if self.is_stopped or due >= end or now >= end + GRACE_S:
            return None
        self._next += 1
        if not await self._wait_until(due):
            self._next -= 1
            return None
        now = self._clock()
        if now - due > _LATE_S and self._is_measured(due):
            self.late += 1
        return due

    async def _wait_until(self, due: float) -> bool:
        """False: somebody stopped it meanwhile."""
        while (left := due - self._clock()) > 0:
            await asyncio.sleep(min(left, _LOOK_S))
            if self.is_stopped:
                return False
        return True

    async def _ask(
        self, connection: int, kind: Kind, key: int, arguments: dict[str, Any]
    ) -> tuple[float, CrdtStoreError | None]:
        """When it was answered, and what went wrong."""
        try:
            await self._send(connection, kind, key, arguments)
        except CrdtStoreError as error:
            now = self._clock()
            error.__traceback__ = None  # its frames would keep all that they know
            if not kind.is_read and error.effect != "none":
                self.books.note(kind, key, arguments, is_known=error.effect == "applied")
            return now, error
        now = self._clock()
        if not kind.is_read:
            self.books.note(kind, key, arguments, is_known=True)
        return now, None

    def _is_measured(self, due: float) -> bool:
        return due >= self._start + self.plan.warm_up

    def _note(self, connection: int, kind: Kind, due: float, now: float, error: CrdtStoreError | None) -> None:
        took = round((now - due) * 1e9)
        self.requests += 1
        self.recent.add(took)
        self.failures += error is not None
        if self._is_measured(due):
            self._last = max(self._last, now)
            series = self._series(connection, kind.name)
            (series.done if error is None else series.failed.setdefault(error.code, Histogram())).add(took)

    def _series(self, connection: int, name: str) -> Series:
        return self.series.setdefault((connection, name), Series())

    def _count_not_sent(self) -> None:
        """What was due, and found no task that was free, counts with the time that it had waited."""
        plan, now = self.plan, self._clock()
        if plan.rate is None:
            return
        due, took = self._start + self._next / plan.rate, Histogram()
        until = now if self.is_stopped else self._start + plan.warm_up + plan.seconds
        while due < until:
            if self._is_measured(due):
                self.not_sent += 1
                took.add(round((now - due) * 1e9))
            self._next += 1
            due = self._start + self._next / plan.rate
        if self.not_sent:
            self._last = now
            self.failures += self.not_sent
            self._series(0, plan.mix.names[0]).failed[NOT_SENT] = took
