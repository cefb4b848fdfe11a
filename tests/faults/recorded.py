"""A recorded run: writers at a real node, and what may and must be there after the power went at any point of it.

The question: how does one tell half a commit? Each write puts a mark into a set and adds one to a counter beside it, in one commit: the
set names every write that survived, and the counter has to agree with it.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from crdtstore.service import Request, Service
from crdtstore.testing.diskfaults import Call, DiskFaults
from crdtstore.testing.disktrace import Event, Marks, read_trace
from crdtstore.testing.powercut_images import Cut, Image, write_image
from crdtstore.testing.processes import NODE_COMMAND
from crdtstore_client.transport import Response
from crdtstore_node.config import NodeConfig, load
from crdtstore_node.node import Opened
from tests.integration.clusters import Api, running

__all__ = [
    "KEYS",
    "Recorded",
    "complaints",
    "declare_pairs",
    "every",
    "fast_directory",
    "read_all",
    "record",
    "starting",
    "values_of",
    "write_marked",
]

KEYS = [f"key-{number}" for number in range(12)]
FIELDS = {"members": "aw_set", "count": "counter"}
REGION = "us"
TABLES: dict[str, dict[str, Any]] = {
    "log": {"segment_bytes": 1 << 16},
    "engine": {
        "checkpoint_bytes": 30_000,
        "checkpoint_ms": 300,
        "checkpoint_rows": 20,
        "fold_interval_ms": 50,
        "history_bytes": 20_000,
        "memory_bytes": 10_000,
        "retain_bytes": 20_000,
    },
}
"""Small, so that 200 writes see segments, checkpoints, cuts of the log, and keys that are read back."""
PADDING = "x" * 1200
"""So that 200 writes fill several segments, and a write is more than a sector."""

Values = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Recorded:
    """The trace of one run, what was there and what had been said before it, and the configuration under which its images start."""

    events: list[Event]
    config: NodeConfig
    initial: Image
    marks: list[str]


@dataclass(frozen=True)
class Run:
    """A run that is being recorded, for whoever says what happens in it."""

    api: Api
    disk: DiskFaults
    marks: Marks

    async def write(self, numbers: Iterable[int], writers: int = 8) -> list[int]:
        """Write these; the statuses of those that were refused. Each writer ends at its first."""
        left, refused = iter(numbers), list[int]()

        async def writer() -> None:
            for number in left:
                self.marks.mark(f"attempted {number}")
                reply = await write_marked(self.api, number)
                if reply.status != 200:
                    refused.append(reply.status)
                    return
                self.marks.mark(f"acknowledged {number}")

        await asyncio.gather(*(writer() for _ in range(writers)))
        return refused

    async def declare(self) -> None:
        await declare_pairs(self.api)
        self.marks.mark("declared")


Story = Callable[[Run], Awaitable[None]]


@contextmanager
def fast_directory() -> Iterator[Path]:
    """A directory in memory where there is one: what counts here is the order of calls, not the disk."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as name:
        yield Path(name)


async def write_marked(api: Api, number: int, region: str = REGION, timeout_s: float = 5.0) -> Response:
    """One write that can be told from all others."""
    ops = [
        {"path": ["members"], "op": "add", "elements": [f"{number} {PADDING}"]},
        {"path": ["count"], "op": "add"},
    ]
    path = f"/v1/data/shop/pairs/{KEYS[number % len(KEYS)]}"
    return await api.send(region, "POST", path, {"ops": ops}, timeout_s)


async def declare_pairs(api: Api, region: str = REGION) -> None:
    assert (await api.send(region, "PUT", "/v1/domains/shop", {})).status == 200
    body = {"type": "or_map", "options": {"fields": FIELDS}}
    assert (await api.send(region, "PUT", "/v1/domains/shop/collections/pairs", body)).status == 200


async def many_writes(run: Run) -> None:
    """200 writes, from nothing."""
    await run.declare()
    assert await run.write(range(1, 201)) == []


def record(
    directory: Path,
    story: Story = many_writes,
    *,
    command: Sequence[str] = NODE_COMMAND,
    sync_s: float = 0.002,
    before: tuple[Recorded, Cut] | None = None,
) -> Recorded:
    """Run a node from its very first start, or from an image, until the end of the story; a sync takes a while, so that writes gather."""
    trace = directory / "trace"
    if before is not None:
        place_image(*before, directory)

    async def run() -> NodeConfig:
        with DiskFaults(directory / "us-1", directory / "control", trace) as disk, Marks(trace) as marks:
            disk.put(Call.SYNC, delay_s=sync_s)
            async with running(directory, [REGION], env=disk.environment(), command=command, **TABLES) as api:
                marks.mark("founded")
                await story(Run(api, disk, marks))
                await api.cluster.kill(REGION)  # an end in order is no power cut
                return load(api.cluster.config_path(REGION), {})

    config = asyncio.run(run())
    initial, marks = ({}, []) if before is None else (before[1].image, before[1].marks)
    return Recorded(read_trace(trace), config, initial, marks)


def place_image(recorded: Recorded, cut: Cut, directory: Path) -> None:
    """Make a directory for a cluster that goes on with this image."""
    write_image(cut.image, directory / "us-1")
    text = (Path(recorded.config.cluster_file).parent / "local.json").read_text()
    if "founded" not in cut.marks:
        text = text.replace('"is_founded": true', '"is_founded": false')
    (directory / "local.json").write_text(text)


# --- what an image says


async def read_all(api: Api, region: str = REGION) -> Values:
    """What a node that runs says."""
    return {key: await api.value(region, f"shop/pairs/{key}") for key in KEYS}


@contextmanager
def starting(recorded: Recorded, cut: Cut) -> Iterator[tuple[NodeConfig, bool]]:
    """The image as a directory of its own: the configuration for it, and whether its operator would still say --bootstrap."""
    with fast_directory() as directory:
        data = directory / "data"
        write_image(cut.image, data)
        yield replace(recorded.config, data=str(data)), "founded" not in cut.marks


def values_of(config: NodeConfig, *, is_bootstrap: bool) -> Values:
    """Start as a node does, without its sockets, and read all keys; nothing when the collection is not declared."""
    opened = Opened(config, is_bootstrap=is_bootstrap)
    try:
        service = Service(opened.host)
        requests = [
            Request(ticket, "read", {"domain": "shop", "collection": "pairs", "key": key})
            for ticket, key in enumerate(KEYS)
        ]
        answers = dict(service.step(requests, time.time_ns() // 1_000_000).replies)
        return {key: answers[ticket]["value"] for ticket, key in enumerate(KEYS) if isinstance(answers[ticket], dict)}
    finally:
        if opened.store is not None:
            opened.store.close()
        opened.log.close()


def complaints(values: Values, marks: Iterable[str]) -> list[str]:
    """What was acknowledged before the cut and is not there, what is there and was never attempted, what is there by halves.

    ``refused``: the answer said that nothing changed.
    """
    said: dict[str, set[int]] = {"attempted": set(), "acknowledged": set(), "refused": set()}
    words = [mark.split() for mark in marks]
    for word, *number in words:
        if number:
            said[word].add(int(number[0]))
    found = [f"{key} is not declared" for key in KEYS if key not in values and ["declared"] in words]
    there: list[int] = []
    for key, value in values.items():
        members = value.get("members", [])
        if value.get("count", 0) != len(members):
            found.append(f"{key}: half a commit: {value.get('count', 0)} were counted, {len(members)} are there")
        there += [int(member.split()[0]) for member in members]
        found += [f"{member[:20]} is not what was written" for member in members if not member.endswith(f" {PADDING}")]
    found += [f"{number} was acknowledged and is not there" for number in sorted(said["acknowledged"] - {*there})]
    found += [f"{number} is there and was never attempted" for number in sorted({*there} - said["attempted"])]
    found += [f"{number} is there and was refused" for number in sorted({*there} & said["refused"])]
    return found


def every(count: int, of: Sequence[int]) -> list[int]:
    """So many of these, evenly spread, the last one with them."""
    step = max(1, len(of) // count)
    return sorted({*itertools.islice(of, None, None, step), of[-1]})
