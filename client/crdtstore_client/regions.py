"""Regions: which node to ask first, which next.

The question: how does a client find the nearest region that works, without asking the dead ones again and again? At
first use all nodes are probed at once, and the first to answer is the nearest. A node that fails is set aside and
probed in the background after a pause that grows, so that no request of a user pays for finding out that it is still
gone.

Where nodes consist of several workers, each is a node here. Who was given the url of one of them finds the others from
its status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from crdtstore_client.routes import Routes
from crdtstore_client.transport import Response

__all__ = ["Node", "Nodes"]

PROBE_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0

Probe = Callable[[str, float], Coroutine[Any, Any, Response]]


@dataclass(slots=True)
class Node:
    """One node as this client sees it. ``distance`` is the measured round trip in seconds."""

    url: str
    position: int
    region: str = ""
    distance: float = float("inf")
    is_up: bool = True
    pause: float = FIRST_PAUSE_SECONDS
    probe_at: float = 0.0
    not_before: float = 0.0
    is_probing: bool = False
    name: str = ""
    worker: int | None = None
    """Which worker of its node it is; None: not known, or its node is one process."""
    found_at: Node | None = None
    """Who told of it; None: its url was given."""


class Nodes:
    """All nodes a store was connected to."""

    def __init__(self, urls: Iterable[str], probe: Probe) -> None:
        self._nodes = [Node(url.rstrip("/"), position) for position, url in enumerate(urls)]
        self.routes = Routes()
        self._probe = probe
        self._tasks: set[asyncio.Task[None]] = set()
        self._started: asyncio.Task[None] | None = None

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes)

    @property
    def nearest(self) -> Node:
        return min(self._nodes, key=_order)

    @property
    def is_measured(self) -> bool:
        """Whether ``start`` has nothing left to do."""
        return self._started is not None and self._started.done()

    async def start(self) -> None:
        """Measure once; returns when the nearest node has answered, or none will."""
        if self._started is None:
            self._started = self._spawn(self._measure())
        if not self._started.done():
            await asyncio.wait([self._started])

    async def _measure(self) -> None:
        probes = [self._spawn(self._look(node)) for node in self._nodes]
        pending: set[asyncio.Task[None]] = set(probes)
        while pending and not any(node.is_up and node.distance < float("inf") for node in self._nodes):
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)

    async def _look(self, node: Node) -> None:
        """Probe one node: its region, its distance, whether it is ready."""
        node.is_probing = True
        begun = monotonic()
        try:
            reply = await self._probe(node.url, PROBE_SECONDS)
        except Exception:  # silent, or a fault of the credential: the request that follows meets it again and tells
            self.failed(node)
            return
        finally:
            node.is_probing = False
        node.region = str(reply.body.get("region") or node.region)
        node.distance = monotonic() - begun
        self.learn(node, reply.body, str(reply.body.get("node", "")))
        if reply.status < 500 and reply.body.get("ready", True):
            self.worked(node)
        else:
            self.failed(node)

    def learn(self, node: Node, body: Mapping[str, Any], name: str = "") -> None:
        """Take in what a node says of the workers of its own node, in its status or because it was the wrong one."""
        self.routes.learn(body)
        workers = body.get("workers")
        if self.routes.workers == 1 or not isinstance(workers, list):
            return
        for each in workers:
            if each["node"] == name or each["index"] == body.get("index"):
                node.name, node.worker = each["node"], each["index"]
            elif each["api"]:
                self._found(node, each, _reachable(each["api"], node.url))

    def _found(self, by: Node, worker: Mapping[str, Any], url: str) -> None:
        known = next((node for node in self._nodes if url == node.url or worker["node"] == node.name), None)
        if known is None:
            known = Node(url, by.position, distance=by.distance, found_at=by)
            self._nodes.append(known)
        elif known.found_at is not None and known.url != url:  # it was started elsewhere
            known.url, known.is_up, known.pause = url, True, FIRST_PAUSE_SECONDS
        known.name, known.worker, known.region = worker["node"], worker["index"], worker["region"]

    def pick(
        self,
        asked: Collection[str],
        now: float,
        prefer: Collection[str] = (),
        only: str | None = None,
        worker: int | None = None,
    ) -> Node | None:
        """The next node: those of ``prefer`` first, up before down, then the nearest; None when all were asked.

        ``only``: the url of the one node that may be asked; ``worker``: which worker of any node it has to be.
        """
        best, least = None, None
        for node in self._nodes:
            if not node.is_up and node.probe_at <= now and not node.is_probing:
                self._spawn(self._look(node))
            if node.not_before <= now and node.url not in asked and _is_meant(node, only, worker):
                rank = (node.region not in prefer, *_order(node, worker))
                if least is None or rank < least:
                    best, least = node, rank
        return best

    def unasked(self, asked: Collection[str], only: str | None = None, worker: int | None = None) -> int:
        """How many nodes have not been asked yet in this round."""
        return len([node for node in self._nodes if node.url not in asked and _is_meant(node, only, worker)])

    def wait_until(self) -> float:
        """The earliest instant at which some node lets itself be asked again."""
        return min(node.not_before for node in self._nodes)

    def worked(self, node: Node) -> None:
        node.is_up, node.pause = True, FIRST_PAUSE_SECONDS

    def failed(self, node: Node) -> None:
        """Set aside, with a longer pause each time."""
        node.is_up = False
        node.probe_at = monotonic() + node.pause
        node.pause = min(node.pause * 2, LONGEST_PAUSE_SECONDS)
        if node.found_at is not None and not node.found_at.is_probing:  # perhaps it was started elsewhere
            self._spawn(self._look(node.found_at))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _reachable(api: str, by: str) -> str:
    """Where a worker is reached, from what it says and the url of who said it: one that listens everywhere names no host."""
    there, here = urlsplit(api), urlsplit(by)
    if there.hostname not in {"0.0.0.0", "::"}:  # noqa: S104 - nothing is bound here
        return api.rstrip("/")
    host = f"[{here.hostname}]" if ":" in (here.hostname or "") else here.hostname
    return f"{there.scheme}://{host}:{there.port}"


def _is_meant(node: Node, only: str | None, worker: int | None) -> bool:
    """Whether it may be asked; of whom it is not known which worker it is, it may be the one, or knows it."""
    if only is not None:
        return node.url == only
    return worker is None or node.worker is None or node.worker == worker


def _order(node: Node, worker: int | None = None) -> tuple[bool, bool, float, int]:
    return (not node.is_up, node.worker is None and worker is not None, node.distance, node.position)
