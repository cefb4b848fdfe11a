"""The faults of a scenario, carried out at their time.

The question: when is a fault over? Before the users stop, but for cuts without an end. Whatever is still on then is undone, so that
what must be equal afterwards is everybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase

from crdtstore_sim.connections import Connections
from crdtstore_sim.network import SimulatedNetwork
from crdtstore_sim.node import Node
from crdtstore_sim.scenario import Cut, Scenario
from crdtstore_sim.timeline import Timeline, Trace

__all__ = ["Faults"]

_CUT, _HEAL, _PAUSE, _RESUME, _STEP = range(30, 35)
_SECOND_US = 1_000_000


class Faults:
    """Mutable: what is cut just now."""

    def __init__(
        self,
        timeline: Timeline,
        trace: Trace,
        network: SimulatedNetwork,
        connections: Connections,
        nodes: Sequence[Node],
    ) -> None:
        self._timeline = timeline
        self._trace = trace
        self._network = network
        self._connections = connections
        self._nodes = nodes

    def plan(self, scenario: Scenario) -> None:
        """Put all faults on the timeline; those that would last longer than the users end with them."""
        at = self._timeline.at
        end_us = int(scenario.seconds * _SECOND_US)

        def when(seconds: float) -> int:
            return min(int(seconds * _SECOND_US), end_us)

        at(end_us, self._on_end)
        for cut in scenario.cuts:
            at(when(cut.from_s), self._on_cut, cut)
            if cut.to_s is not None:
                at(when(cut.to_s), self._on_heal, cut)
        for crash in scenario.crashes:
            index = ascii_lowercase.index(crash.replica)
            if index < len(self._nodes):
                at(when(crash.at_s), self._on_crash, (index, crash.is_orderly))
                at(when(crash.at_s + crash.down_s), self._on_restart, index)
        for pause in scenario.pauses:
            index = ascii_lowercase.index(pause.replica)
            if index < len(self._nodes):
                at(when(pause.at_s), self._on_pause, (index, True))
                at(when(pause.at_s + pause.for_s), self._on_pause, (index, False))
        for step in scenario.steps:
            index = ascii_lowercase.index(step.replica)
            if index < len(self._nodes):
                at(when(step.at_s), self._on_step, (index, step.ms))

    def _on_end(self, _: None) -> None:
        for node in self._nodes:
            node.disk.heal()

    def _on_cut(self, cut: Cut) -> None:
        self._trace.note(self._timeline.now_us, _CUT, 0)
        links = cut.directed()
        for source, target in links:
            self._network.cut(source, target)
        for source, target in links:
            self._connections.on_cut(source, target)

    def _on_heal(self, cut: Cut) -> None:
        self._trace.note(self._timeline.now_us, _HEAL, 0)
        links = cut.directed()
        for source, target in links:
            self._network.heal(source, target)
        for source, target in links:
            self._connections.on_heal(source, target)

    def _on_crash(self, argument: tuple[int, bool]) -> None:
        index, is_orderly = argument
        if self._nodes[index].is_alive:
            self._nodes[index].crash(is_orderly=is_orderly)
            self._connections.on_crash(index)

    def _on_restart(self, index: int) -> None:
        if not self._nodes[index].is_alive:
            self._nodes[index].start()
            self._connections.on_restart(index)

    def _on_pause(self, argument: tuple[int, bool]) -> None:
        index, is_paused = argument
        self._trace.note(self._timeline.now_us, _PAUSE if is_paused else _RESUME, index)
        self._nodes[index].pause(is_paused)

    def _on_step(self, argument: tuple[int, int]) -> None:
        index, step_ms = argument
        self._trace.note(self._timeline.now_us, _STEP, index, b"%d" % step_ms)
        self._nodes[index].set_clock_by(step_ms * 1000)
