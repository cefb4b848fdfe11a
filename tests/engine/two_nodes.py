"""Two nodes with all their groups, on a wire that delivers at once and keeps every message."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

import msgspec

from crdtstore.causal import ReplicaId
from crdtstore.engine.events import Persisted, Tick
from crdtstore.engine.options import Options
from crdtstore.host import Host, HostOutput
from crdtstore.messages import Hello, decode_message, encode_message
from crdtstore.service import Event, PeerChanged, Received, Request, Service
from crdtstore.storage.memory import MemoryLog
from tests.engine.wire import START_MS, cluster_of

CLUSTER = cluster_of("us-1", "eu-1")
US, EU = (member.replica for member in CLUSTER.members)


class Nodes:
    """Two services on a wire that delivers at once; every message is kept."""

    def __init__(self) -> None:
        self.logs = {replica: MemoryLog() for replica in (US, EU)}
        self.services = {replica: Service(Host(CLUSTER, replica, Options(), Random(1))) for replica in (US, EU)}
        self.now_ms = START_MS
        self.replies: dict[int, Any] = {}
        self.heard: list[tuple[ReplicaId, bytes]] = []
        self._ticket = 0

    def run(self, who: ReplicaId, *events: Event) -> HostOutput:
        waiting = deque([(who, event) for event in events])
        first = HostOutput()
        while waiting:
            at, event = waiting.popleft()
            out = self.services[at].step([event], self.now_ms)
            first.rejected += out.rejected
            if out.persist_number:
                self.logs[at].write([self.logs[at].encode(out.persist)])
                waiting.append((at, Persisted(out.persist_number)))
            for peer, data in out.send:
                self.heard.append((at, data))
                if peer in self.services:
                    waiting.append((peer, Received(at, data)))
            self.replies.update(out.replies)
        return first

    def connect(self) -> None:
        self.run(US, PeerChanged(EU, True))
        self.run(EU, PeerChanged(US, True))

    def ask(self, who: ReplicaId, do: str, **fields: Any) -> Any:
        self._ticket += 1
        self.run(who, Request(self._ticket, do, fields))
        return self.replies.get(self._ticket)

    def pass_time(self, ms: int) -> None:
        for _ in range(ms // 100):
            self.now_ms += 100
            self.run(US, Tick())
            self.run(EU, Tick())


def nodes() -> Nodes:
    """Two nodes that share a domain with some keys."""
    made = Nodes()
    made.connect()
    made.ask(US, "declare_domain", domain="shop")
    for name in ("counter", "lww_map"):
        made.ask(US, "declare", domain="shop", collection=name.replace("_", "-"), type=name)
    made.ask(US, "commit", domain="shop", ops=[{"collection": "counter", "key": "k", "op": "add"}], id="x")
    made.ask(
        EU,
        "commit",
        domain="shop",
        ops=[{"collection": "lww-map", "key": "k", "op": "set", "fields": {"f": "x" * 2_000}}],
    )
    made.pass_time(1_000)
    return made


def hello_of(made: Nodes, who: ReplicaId = EU, **changes: Any) -> bytes:
    """The first words of one to the other, changed."""
    hello = decode_message(made.services[who].host.hello(US if who == EU else EU, made.now_ms))
    assert isinstance(hello, Hello)
    return encode_message(msgspec.structs.replace(hello, **changes))
