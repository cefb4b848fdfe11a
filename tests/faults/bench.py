"""A node on a disk that fails on command, and the books of those who write to it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from crdtstore.testing.diskfaults import DiskFaults
from crdtstore.testing.processes import NODE_COMMAND
from crdtstore_client.transport import NotSent, ReplyLost, Response
from tests.faults.recorded import REGION, TABLES, complaints, declare_pairs, read_all, write_marked
from tests.integration.clusters import Api, running, until

__all__ = ["QUIET", "WRITERS", "Bench", "bench"]

WRITERS = 8
QUIET = "shop/pairs/quiet"
"""Written once and left alone, so that it is durable whatever happens to the others."""

BUSY = "shop/pairs/busy"


class Bench:
    """A node, its disk, and the books of those who write to it."""

    def __init__(self, api: Api, disk: DiskFaults) -> None:
        self.api = api
        self.disk = disk
        self.marks = ["declared"]
        self._numbers = itertools.count(1)

    async def write(self) -> Response | None:
        """One write, noted; None when no answer came."""
        number = next(self._numbers)
        self.marks.append(f"attempted {number}")
        try:
            reply = await write_marked(self.api, number, timeout_s=10.0)
        except (ReplyLost, NotSent):
            return None
        if reply.status == 200:
            self.marks.append(f"acknowledged {number}")
        elif reply.body["effect"] == "none":
            self.marks.append(f"refused {number}")
        return reply

    async def write_until_refused(self, most: int = 1_000) -> list[Response]:
        """Several writers, each until it is told no, or so many writes in all; what they were told then."""
        refused: list[Response] = []
        budget = iter(range(most))

        async def writer() -> None:
            for _ in budget:
                reply = await self.write()
                if reply is None or reply.status != 200:
                    refused.extend([] if reply is None else [reply])
                    return

        await asyncio.gather(*(writer() for _ in range(WRITERS)))
        return refused

    async def is_taking_writes(self) -> bool:
        reply = await self.write()
        return reply is not None and reply.status == 200

    async def check(self) -> None:
        assert complaints(await read_all(self.api), self.marks) == []
        assert await self.reads_quietly() == 200

    async def storage(self) -> dict[str, Any]:
        """What the node says of its disk."""
        found: dict[str, Any] = (await self.api.ask(REGION, "/v1/status"))["storage"]
        return found

    async def wait_for_checkpoint(self) -> None:
        """Until one has been written that was begun from now on; what is written for it goes to a key of its own."""
        count = (await self.storage())["checkpoint"]["count"]

        async def is_written() -> bool:
            await self.add_to(BUSY)
            return bool((await self.storage())["checkpoint"]["count"] >= count + 2)

        await until(is_written, "a checkpoint is written")

    async def add_to(self, address: str) -> None:
        body = {"ops": [{"path": ["count"], "op": "add"}]}
        assert (await self.api.send(REGION, "POST", f"/v1/data/{address}", body)).status == 200

    async def reads_quietly(self) -> int:
        return (await self.api.send(REGION, "GET", f"/v1/data/{QUIET}")).status

    async def restart(self) -> None:
        """SIGKILL and a start; what was acknowledged is there then."""
        await self.api.cluster.kill(REGION)
        self.disk.clear()
        await self.api.cluster.start(REGION)
        await self.check()


@asynccontextmanager
async def bench(
    directory: Path, command: Sequence[str] = NODE_COMMAND, env: Mapping[str, str] | None = None, **options: Any
) -> AsyncIterator[Bench]:
    """A node with the collection of ``recorded`` declared; ``env`` is for settings of the node, ``options`` for the cluster."""
    with DiskFaults(directory / f"{REGION}-1", directory / "control") as disk:
        async with running(
            directory, [REGION], env={**disk.environment(), **(env or {})}, command=command, **TABLES
        ) as api:
            await declare_pairs(api)
            made = Bench(api, disk)
            await made.add_to(QUIET)
            yield made
