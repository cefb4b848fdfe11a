"""What a region answers when it is asked: readings, vectors, markers, conflicts.

The question: how do we see three regions at one moment? We do not. Each region is asked by itself, over its own
connection, for what it holds now; only where vectors are equal are readings compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from crdtstore.errors import UsageError
from crdtstore_client.demo.flights import load_master
from crdtstore_client.demo.verdict import COUNTERS
from crdtstore_client.demo.writers import BOARDS, COLLECTIONS, DOMAIN, MARKERS, POSITIONS
from crdtstore_client.link import Call
from crdtstore_client.store import Store

__all__ = ["Region", "Unmet", "equal_vectors", "until"]

_POLL_S = 0.005
_READERS = 16


class Unmet(Exception):
    """A promise broken so early that there is nothing left to compare."""

    def __init__(self, promise: str, detail: str) -> None:
        super().__init__(detail)
        self.promise = promise


class Region:
    """One region as its readers see it."""

    def __init__(self, name: str, store: Store) -> None:
        self.name = name
        self._store = store
        self._domain = store.domain(DOMAIN)

    async def status(self) -> Mapping[str, Any]:
        return await self._store.call(Call("status"))

    async def group(self) -> Mapping[str, Any]:
        """The demo's group in the status; its vector is empty until the domain is declared here."""
        found: Sequence[Mapping[str, Any]] = (await self.status())["groups"]
        return next((group for group in found if group["domain"] == DOMAIN), {"vector": {}, "digest": ""})

    async def has_declared(self) -> bool:
        """Whether every collection of the demo can be read here."""
        try:
            for collection in COLLECTIONS:
                await self._domain.describe(collection)
        except UsageError as error:
            if error.code == "not-declared":
                return False
            raise
        return True

    async def counters(self, kind: str) -> dict[str, int]:
        """Key -> departures of one kind: destinations, airlines or planes."""
        return {key: value async for key, value in self._domain.counter(COUNTERS[kind]).items()}

    async def all_counters(self) -> dict[str, dict[str, int]]:
        return {kind: await self.counters(kind) for kind in COUNTERS}

    async def board(self) -> frozenset[str]:
        """All flights on the boards of all airports."""
        return frozenset([name async for _, names in self._domain.aw_set(BOARDS).items() for name in names])

    async def positions(self) -> dict[str, Mapping[str, str]]:
        return {plane: report async for plane, report in self._domain.lww_register(POSITIONS).items()}

    async def right_master_records(self) -> int:
        """How many records of master data read here as they stand in the files."""
        right = 0
        for collection, records in load_master().items():
            right += sum([record == records.get(key) async for key, record in self._domain.lww_map(collection).items()])
        return right

    async def has_marker(self, region: str) -> bool:
        """Whether the marker of a region can be read here, whatever this session has seen elsewhere."""
        return (await self._domain.lww_register(MARKERS)[region].read(consistency="local")).exists

    async def conflicts(self, planes: Iterable[str]) -> frozenset[str]:
        """The planes with more than one live report here."""
        positions, todo, found = self._domain.lww_register(POSITIONS), iter(planes), set()

        async def work() -> None:
            for plane in todo:
                if (await positions[plane].read()).conflicts:
                    found.add(plane)

        await asyncio.gather(*(work() for _ in range(_READERS)))
        return frozenset(found)


async def equal_vectors(regions: Sequence[Region]) -> bool:
    """Whether all regions have the same commits, at least one, and all of it durable (a digest is given only then)."""
    groups = await asyncio.gather(*(region.group() for region in regions))
    return all(group["digest"] and group["vector"] == groups[0]["vector"] for group in groups)


async def until(what: str, condition: Callable[[], Any], timeout_s: float) -> float:
    """Wait for an asynchronous condition.

    Units:   returns the seconds it took.
    Raises:  Unmet ``convergence`` that names what was waited for.
    """
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    while not await condition():
        if loop.time() - started_s > timeout_s:
            raise Unmet("convergence", f"{what}: not within {timeout_s:g} s")
        await asyncio.sleep(_POLL_S)
    return loop.time() - started_s
