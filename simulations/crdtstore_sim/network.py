"""The network: latency, bandwidth, loss, repetition, disorder and cuts, per directed link.

The question: how bad may it be? Worse than TCP. A link keeps the order of its messages unless it is told to disorder them, but single
messages may vanish or come twice while the connection stays open, so whatever a transport can do to the engine happens here too.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from crdtstore_sim import scenario
from crdtstore_sim.timeline import Timeline

__all__ = ["SimulatedNetwork"]

_SAMPLES = 1024


class SimulatedNetwork:
    """Mutable. ``deliver((source, target, data))`` is called when a message arrives."""

    def __init__(
        self,
        timeline: Timeline,
        random: Random,
        options: scenario.Network,
        count: int,
        deliver: Callable[[tuple[int, int, Any]], None],
    ) -> None:
        self.sent = 0
        self.lost = 0
        self.bytes_sent = 0
        self._timeline = timeline
        self._random = random
        self._options = options
        self._count = count
        self._deliver = deliver
        self._cuts = [0] * (count * count)
        """How many cuts are on a directed link just now."""
        self._last_us = [0] * (count * count)
        self._free_us = [0] * (count * count)
        """When the last byte of what was sent has left, where links are narrow."""
        self._latency = [_draw(options.latency, random) for _ in range(count * count)]
        self._is_fair = not (options.loss or options.duplicate or options.reorder)

    def calm(self) -> None:
        """From now on nothing is lost, repeated or disordered any more."""
        self._is_fair = True

    def is_cut(self, source: int, target: int) -> bool:
        return self._cuts[source * self._count + target] > 0

    def cut(self, source: int, target: int) -> None:
        self._cuts[source * self._count + target] += 1

    def heal(self, source: int, target: int) -> None:
        self._cuts[source * self._count + target] -= 1

    def latency_us(self, source: int, target: int) -> int:
        return self._latency[source * self._count + target][int(self._random.random() * _SAMPLES)]

    def send(self, source: int, target: int, data: Any) -> None:
        """A message sets out: bytes, or what stands for them and has their length."""
        self.sent += 1
        self.bytes_sent += len(data)
        link = source * self._count + target
        if self._cuts[link]:
            self.lost += 1
            return
        arrives_us = self._timeline.now_us + self._latency[link][int(self._random.random() * _SAMPLES)]
        if self._options.bytes_per_s:
            begins_us = max(self._free_us[link], self._timeline.now_us)
            self._free_us[link] = begins_us + len(data) * 1_000_000 // self._options.bytes_per_s
            arrives_us += self._free_us[link] - self._timeline.now_us
        if self._is_fair:
            if arrives_us <= self._last_us[link]:
                arrives_us = self._last_us[link] + 1
            self._last_us[link] = arrives_us
            self._timeline.at(arrives_us, self._arrive, (source, target, data))
        else:
            self._send_unfairly(source, target, data, arrives_us)

    def _send_unfairly(self, source: int, target: int, data: Any, arrives_us: int) -> None:
        random, options, link = self._random.random, self._options, source * self._count + target
        if random() < options.loss:
            self.lost += 1
            return
        if random() < options.reorder:
            arrives_us += int(random() * 3 * options.latency.ms * 1000)
        else:
            arrives_us = max(arrives_us, self._last_us[link] + 1)
            self._last_us[link] = arrives_us
        self._timeline.at(arrives_us, self._arrive, (source, target, data))
        if random() < options.duplicate:
            again_us = arrives_us + int(random() * 10 * options.latency.ms * 1000)
            self._timeline.at(again_us, self._arrive, (source, target, data))

    def _arrive(self, message: tuple[int, int, Any]) -> None:
        if self._cuts[message[0] * self._count + message[1]]:
            self.lost += 1
        else:
            self._deliver(message)


def _draw(latency: scenario.Latency, random: Random) -> list[int]:
    """Samples of a link's latency; drawing them once makes sending cheap."""
    us = latency.ms * 1000
    if latency.kind == "constant":
        return [int(us)] * _SAMPLES
    if latency.kind == "uniform":
        return [int(us * (0.5 + random.random())) for _ in range(_SAMPLES)]
    return [int(us * random.lognormvariate(0, latency.sigma)) for _ in range(_SAMPLES)]
