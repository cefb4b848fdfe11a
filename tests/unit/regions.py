"""Services of a cluster, with every message, sync and millisecond in the hands of the test."""

from __future__ import annotations

from collections import defaultdict, deque
from random import Random
from typing import Any

from crdtstore.engine.events import Persisted, Tick
from crdtstore.engine.options import Options
from crdtstore.errors import CrdtStoreError
from crdtstore.host import Host, HostOutput
from crdtstore.service import Event, PeerChanged, Received, Request, Service
from crdtstore.types import REGISTRY
from tests.engine.wire import START_MS, cluster_of

Reply = dict[str, Any]


class Regions:
    """One service per region (node ``us-1`` of region ``us``), all connected and quiet. Mutable."""

    def __init__(self, *regions: str, **options: Any) -> None:
        self.cluster = cluster_of(*(f"{region}-1" for region in regions))
        self.replicas = {member.region: member.replica for member in self.cluster.members}
        made = Options(**options)
        self.services = {
            region: Service(Host(self.cluster, replica, made, Random(1))) for region, replica in self.replicas.items()
        }
        self.now_ms = START_MS
        self.links: dict[tuple[str, str], deque[bytes]] = defaultdict(deque)
        self.numbers: dict[str, list[int]] = defaultdict(list)
        self.replies: dict[int, Reply | CrdtStoreError] = {}
        self.output = HostOutput()
        self._ticket = 0
        for left in regions:
            for right in regions:
                if left != right:
                    self.step(left, PeerChanged(self.replicas[right], True))
        self.flush()

    def step(self, region: str, *events: Event) -> HostOutput:
        out = self.output = self.services[region].step(events, self.now_ms)
        if out.persist_number:
            self.numbers[region].append(out.persist_number)
        for peer, data in out.send:
            target = next(name for name, replica in self.replicas.items() if replica == peer)
            self.links[region, target].append(data)
        for ticket, reply in out.replies:
            assert ticket not in self.replies, "a request is answered once"
            self.replies[ticket] = reply
        return out

    def ask(self, region: str, do: str, **fields: Any) -> int:
        """Hand in a request; its ticket."""
        return self.ask_as(region, "anonymous", do, **fields)

    def ask_as(self, region: str, principal: str, do: str, **fields: Any) -> int:
        self._ticket += 1
        self.step(region, Request(self._ticket, do, fields, principal))
        return self._ticket

    def answer(self, ticket: int) -> Reply | CrdtStoreError | None:
        return self.replies.get(ticket)

    def reply(self, ticket: int) -> Reply:
        """The answer, which is there and no error."""
        found = self.replies[ticket]
        assert isinstance(found, dict), found
        return found

    def error(self, ticket: int) -> CrdtStoreError:
        """The answer, which is there and an error."""
        found = self.replies[ticket]
        assert isinstance(found, CrdtStoreError), found
        return found

    def do(self, region: str, do: str, **fields: Any) -> Reply:
        """Ask, let the disk write, and take the answer."""
        ticket = self.ask(region, do, **fields)
        self.sync(region)
        return self.reply(ticket)

    def refused(self, region: str, do: str, **fields: Any) -> CrdtStoreError:
        """Ask for what is refused at once."""
        return self.error(self.ask(region, do, **fields))

    def commit(self, region: str, *ops: Reply, **fields: Any) -> Reply:
        return self.do(region, "commit", domain="shop", ops=list(ops), **fields)

    def sync(self, *regions: str) -> None:
        for region in regions or list(self.services):
            numbers, self.numbers[region] = self.numbers[region], []
            for number in numbers:
                self.step(region, Persisted(number))

    def deliver(self, source: str, target: str) -> int:
        link, count = self.links[source, target], 0
        while link:
            self.step(target, Received(self.replicas[source], link.popleft()))
            count += 1
        return count

    def flush(self) -> None:
        """Everything that is on its way arrives and is written; no time passes."""
        while sum(self.deliver(*pair) for pair in list(self.links)) or any(self.numbers.values()):
            self.sync()

    def lose(self) -> None:
        self.links.clear()

    def tick(self, ms: int) -> None:
        self.now_ms += ms
        for region in self.services:
            self.step(region, Tick())

    def settle(self, ms: int = 2_000) -> None:
        for _ in range(ms // 50):
            self.tick(50)
            self.flush()


def op(collection: str, key: str, name: str, **arguments: Any) -> Reply:
    return {"collection": collection, "key": key, "op": name, **arguments}


def shop(*regions: str, **options: Any) -> Regions:
    """Regions that share the domain ``shop`` with a collection of each type under its type's name (``_`` is ``-``)."""
    made = Regions(*(regions or ("us", "eu")), **options)
    first = next(iter(made.services))
    made.do(first, "declare_domain", domain="shop")
    for name in REGISTRY:
        made.do(first, "declare", domain="shop", collection=name.replace("_", "-"), type=name)
    made.settle(500)
    return made


def read(made: Regions, region: str, collection: str, key: str = "k") -> dict[str, Any]:
    return made.do(region, "read", domain="shop", collection=collection, key=key)


def nested(path: list[Any], name: str, **arguments: Any) -> dict[str, Any]:
    return op("or-map", "k", name, path=path, **arguments)
