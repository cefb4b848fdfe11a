"""What tests of a real cluster share: waiting for conditions, comparing regions, and writers that keep their own books.

The question: who says what must be there? Not a node: each writer notes what was acknowledged to it, in this process, as replies arrive,
and what got no answer is noted as such. ``Books.missing`` compares both with what a region says afterwards.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crdtstore.testing.processes import LocalCluster
from crdtstore_client.http import HttpTransport
from crdtstore_client.transport import NotSent, ReplyLost, Response

DEADLINE_S = 20.0
POLL_S = 0.05

Status = dict[str, Any]


async def until(condition: Callable[[], Awaitable[Any]], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """The first result of ``condition`` that counts as true; a failure that says ``what`` was waited for."""
    end = time.monotonic() + deadline_s
    while not (result := await condition()):
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        await asyncio.sleep(POLL_S)
    return result


class Api:
    """One request at a time, to the region that is named, sent once: no retries, no other region."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self._transport = HttpTransport()

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.close()

    async def send(
        self, region: str, method: str, path: str, body: dict[str, Any] | None = None, timeout_s: float = 5.0
    ) -> Response:
        """The answer, whatever it is. Raises:  NotSent or ReplyLost."""
        url = self.cluster.url(region)
        return await self._transport.request(url, method, path, body=body, headers={}, timeout=timeout_s)

    async def ask(self, region: str, path: str) -> dict[str, Any]:
        reply = await self.send(region, "GET", path)
        assert reply.status == 200, reply
        return reply.body

    async def value(self, region: str, address: str) -> Any:
        return (await self.ask(region, f"/v1/data/{address}"))["value"]

    async def write(self, region: str, address: str, timeout_s: float = 5.0, **op: Any) -> Response:
        return await self.send(region, "POST", f"/v1/data/{address}", {"ops": [op]}, timeout_s)

    async def declare(self, region: str, domain: str, **types: str) -> None:
        """Declare collections in one region and wait until every region knows them."""
        assert (await self.send(region, "PUT", f"/v1/domains/{domain}", {})).status == 200
        for name, type_name in types.items():
            path = f"/v1/domains/{domain}/collections/{name}"
            assert (await self.send(region, "PUT", path, {"type": type_name})).status == 200

            async def is_everywhere(path: str = path) -> bool:
                replies = [await self.send(each, "GET", path) for each in self.cluster.regions]
                return all(reply.status == 200 for reply in replies)

            await until(is_everywhere, f"{name} is declared everywhere")

    async def statuses(self) -> dict[str, Status]:
        regions = self.cluster.regions
        return dict(
            zip(regions, await asyncio.gather(*(self.ask(each, "/v1/status") for each in regions)), strict=True)
        )

    async def converge(self, deadline_s: float = DEADLINE_S) -> dict[str, Status]:
        """Wait until all regions have seen the same; then they hold the same, or this fails (law L1)."""

        async def have_seen_the_same() -> dict[str, Status] | None:
            statuses = await self.statuses()
            vectors = [{name_of(group): group["vector"] for group in each["groups"]} for each in statuses.values()]
            is_durable = all(group["digest"] for each in statuses.values() for group in each["groups"])
            return statuses if is_durable and all(each == vectors[0] for each in vectors) else None

        statuses: dict[str, Status] = await until(have_seen_the_same, "equal vectors", deadline_s)
        digests = [{name_of(group): group["digest"] for group in each["groups"]} for each in statuses.values()]
        assert all(each == digests[0] for each in digests), f"equal vectors, different digests: {digests}"
        assert not any(group["fenced"] for each in statuses.values() for group in each["groups"])
        return statuses


@asynccontextmanager
async def running(directory: Path, regions: Sequence[str] | None = None, **options: Any) -> AsyncIterator[Api]:
    """A cluster (``api.cluster``) and requests to it; whatever the event loop complains of meanwhile is a failure."""
    loop, complaints = asyncio.get_running_loop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    try:
        async with LocalCluster(directory, regions, **options) as cluster, Api(cluster) as api:
            yield api
    finally:
        loop.set_exception_handler(None)
    assert not complaints


def name_of(group: Mapping[str, Any]) -> str:
    return f"{group['domain']}/{group['shard']}"


def group_of(status: Status, domain: str) -> dict[str, Any]:
    found: dict[str, Any] = next(group for group in status["groups"] if group["domain"] == domain)
    return found


def peer_of(status: Status, region: str) -> dict[str, Any]:
    found: dict[str, Any] = next(peer for peer in status["peers"] if peer["region"] == region)
    return found


def received_twice(statuses: Mapping[str, Status]) -> float:
    """The share of commits that arrived where they had been already."""
    gossip = [status["gossip"] for status in statuses.values()]
    received = sum(each["commits_received"] for each in gossip)
    return float(sum(each["commits_received_twice"] for each in gossip) / max(1, received))


@dataclass
class Books:
    """What writers know: acknowledged dots, acknowledged sums per address, and sums of which no answer came."""

    dots: set[str] = field(default_factory=set)
    acknowledged: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    refused: list[Response] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    not_sent: int = 0

    def note(self, address: str, amount: int, reply: Response | None) -> None:
        """One write and its answer; None when it may have arrived but no answer did."""
        if reply is None:
            self.unknown[address] = self.unknown.get(address, 0) + amount
        elif reply.status == 200:
            assert reply.body["dot"] not in self.dots, f"one dot was given twice: {reply.body['dot']}"
            self.dots.add(reply.body["dot"])
            self.acknowledged[address] = self.acknowledged.get(address, 0) + amount
        else:
            self.refused.append(reply)

    @classmethod
    def joined(cls, several: Iterable[Books]) -> Books:
        whole = cls()
        for books in several:
            assert not whole.dots & books.dots, f"one dot was given twice: {whole.dots & books.dots}"
            whole.dots |= books.dots
            for mine, theirs in ((whole.acknowledged, books.acknowledged), (whole.unknown, books.unknown)):
                for address, amount in theirs.items():
                    mine[address] = mine.get(address, 0) + amount
            whole.refused += books.refused
            whole.latencies_s += books.latencies_s
            whole.not_sent += books.not_sent
        return whole

    def missing(self, vector: Mapping[str, int], values: Mapping[str, int]) -> list[str]:
        """What was acknowledged and is not there; and what is there and nobody asked for."""
        gone = []
        for dot in sorted(self.dots):
            replica, _, seq = dot.rpartition(":")
            if vector.get(replica, 0) < int(seq):
                gone.append(f"{dot} was acknowledged, the vector ends at {vector.get(replica, 0)}")
        for address in sorted(self.acknowledged.keys() | self.unknown.keys()):
            least = self.acknowledged.get(address, 0)
            most = least + self.unknown.get(address, 0)
            if not least <= values[address] <= most:
                gone.append(f"{address} holds {values[address]}, acknowledged are {least}, asked for {most}")
        return gone


async def check_books(api: Api, region: str, books: Books) -> list[str]:
    """``Books.missing`` against what a region says; all addresses are of one domain."""
    addresses = books.acknowledged.keys() | books.unknown.keys()
    (domain,) = {address.partition("/")[0] for address in addresses}
    values = {address: await api.value(region, address) for address in addresses}
    return books.missing(group_of(await api.ask(region, "/v1/status"), domain)["vector"], values)


async def write_until(
    ended: asyncio.Event,
    api: Api,
    region: str,
    addresses: Sequence[str],
    books: Books,
    pause_s: float,
    timeout_s: float,
) -> None:
    """Add 1, 2, 3 … to one address after the other; a write that was begun is finished."""
    for amount, address in zip(itertools.count(1), itertools.cycle(addresses)):
        if ended.is_set():
            return
        begun = time.monotonic()
        reply: Response | None = None
        try:
            reply = await api.write(region, address, timeout_s, op="add", amount=amount)
            books.latencies_s.append(time.monotonic() - begun)
            books.note(address, amount, reply)
        except ReplyLost:
            books.note(address, amount, None)
        except NotSent:
            books.not_sent += 1
        await asyncio.sleep(pause_s)


@asynccontextmanager
async def writing(
    api: Api,
    regions: Iterable[str],
    addresses: Sequence[str],
    *,
    writers: int = 1,
    pause_s: float = 0.01,
    timeout_s: float = 5.0,
) -> AsyncIterator[dict[str, Books]]:
    """So many writers in each of these regions, for as long as the block runs; the books of each region."""
    books = {region: Books() for region in regions}
    ended = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for region in list(books) * writers:
            tasks.create_task(write_until(ended, api, region, addresses, books[region], pause_s, timeout_s))
        try:
            yield books
        finally:
            ended.set()
