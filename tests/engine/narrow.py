"""Engines on links that carry so many bytes a second: what waits before a link is counted, and what is sent over it again."""

from __future__ import annotations

import heapq
from random import Random
from typing import Any

from crdtstore.engine import Engine
from crdtstore.engine.events import Event, Persisted, Tick
from crdtstore.engine.output import Output
from crdtstore.storage.protocol import Entry
from tests.engine.history_model import DictLog
from tests.engine.wire import GROUP, Watched, Wire, op

__all__ = ["Narrow"]


class Narrow(Wire):
    """Every message goes out at once, waits until the link is free, and arrives ``latency_ms`` after its last byte has left.

    ``bytes_per_s`` is per directed pair of names, others carry everything at once. Syncs take ``sync_ms``. Of messages the share ``loss``
    vanishes while connections stay open, the share ``again`` comes a second time, later. Mutable.
    """

    def __init__(
        self,
        *names: str,
        bytes_per_s: dict[tuple[str, str], int] | None = None,
        latency_ms: int = 10,
        sync_ms: int = 1,
        loss: float = 0.0,
        again: float = 0.0,
        **options: Any,
    ) -> None:
        self.logs = {name: DictLog() for name in names}
        super().__init__(*names, **options)
        self.bytes_per_s = bytes_per_s or {}
        self.latency_ms, self.sync_ms = latency_ms, sync_ms
        self.loss, self.again = loss, again
        self.random = Random(7)
        self.deaf: set[str] = set()
        """Who takes nothing in, and says nothing."""
        self.greatest_queue = 0
        """The most bytes that waited before a link."""
        self.greatest_held = dict.fromkeys(names, 0)
        """Per name the most bytes of commits that one held: kept for peers, waiting for others, on their way."""
        self.bytes_sent = 0
        self._free_ms: dict[tuple[str, str], float] = {}
        self._due: list[tuple[float, int, str, Any]] = []
        self._count = 0

    def _engine(self, name: str) -> Engine:
        me = self.configuration.ids[self.names.index(name)]
        random, read = Random(self.seed), self.logs[name].read
        return Watched(GROUP, self.configuration, me, self.cluster.name, self.options, random, None, read)

    def at(self, ms: float, name: str, event: Any) -> None:
        self._count += 1
        heapq.heappush(self._due, (ms, self._count, name, event))

    def step(self, name: str, event: Event) -> Output:
        out = super().step(name, event)
        engine = self.engines[name]
        held = engine.history.memory_bytes + engine.early._bytes
        held += sum(len(data) for target in self.names for data in self.links[name, target])
        self.greatest_held[name] = max(self.greatest_held[name], held)
        if out.persist:
            self.numbers[name].clear()
            replicas = self.engines[name].replicas
            position = self.logs[name].write([Entry(GROUP, replicas[at], data) for at, data in out.persist])
            self.at(self.now_ms + self.sync_ms, name, Persisted(out.number, position))
        for target in self.names:
            link = self.links[name, target]
            while link:
                self._send(name, target, link.popleft())
        return out

    def _send(self, source: str, target: str, data: bytes) -> None:
        rate = self.bytes_per_s.get((source, target))
        leaves = float(self.now_ms)
        self.bytes_sent += len(data)
        if rate is not None:
            free = max(self._free_ms.get((source, target), 0.0), leaves)
            self.greatest_queue = max(self.greatest_queue, int((free - leaves) * rate / 1000) + len(data))
            leaves = self._free_ms[source, target] = free + 1000 * len(data) / rate
        if self.random.random() >= self.loss:
            self.at(leaves + self.latency_ms, target, (source, data))
        if self.random.random() < self.again:
            self.at(leaves + self.latency_ms + self.random.randrange(50), target, (source, data))

    def run(self, ms: int) -> None:
        """Time passes, and what is due happens."""
        end = self.now_ms + ms
        while self.now_ms < end:
            self.now_ms += 1
            while self._due and self._due[0][0] <= self.now_ms:
                _, _, name, what = heapq.heappop(self._due)
                if isinstance(what, Persisted):
                    self.synced[name] += 1
                    self.step(name, what)
                elif name not in self.deaf:
                    source, data = what
                    if frozenset((source, name)) in self.connected:
                        self.receive(source, name, data)
            for name in self.names:
                if name not in self.deaf and self.engines[name].wake_ms <= self.now_ms:
                    self.step(name, Tick())

    def make(self, name: str, count: int, size: int) -> None:
        """A user writes so many values of about so many bytes, of which compression takes half; all become durable at once."""
        for number in range(count):
            text = self.random.randbytes(size // 2).hex()
            self.write(name, op("lww_register", f"k{number}", "set", value=text))

    def run_until(self, name: str, other: str, most_ms: int) -> int:
        """Time passes until one has all commits that another made; how long that was."""
        began, at = self.now_ms, self.names.index(other)
        while self.engines[name].durability.vector[at] < self.engines[other].applied[at]:
            assert self.now_ms - began < most_ms, f"not there after {most_ms} ms: {self.vectors()}"
            self.run(10)
        return self.now_ms - began

    def on_their_way(self, name: str, other: str) -> int:
        """Bytes of commits that one believes to be on their way to another."""
        engine = self.engines[name]
        progress = engine.antientropy.peers[self.names.index(other)]
        return engine.history.size(engine.me, progress.has[engine.me], progress.sent)
