"""One run: a scenario and a seed make a cluster, its users and its faults; what comes out is a result.

The question: when is a run over? Safety first: users work and faults happen, and every law is held at every step. Then liveness: users
stop, faults end, and within a bound everybody must have everything. Then everything is read once more, everywhere.
"""

from __future__ import annotations

import gc
import time
import traceback
from typing import NamedTuple
from unittest.mock import patch

from crdtstore.causal import make_replica_id
from crdtstore.configuration import Cluster, Member
from crdtstore.kernel import Tree
from crdtstore.unsaved import Unsaved
from crdtstore_sim.clocks import NodeClock
from crdtstore_sim.connections import Connections
from crdtstore_sim.facts import Facts, Violation
from crdtstore_sim.faults import Faults
from crdtstore_sim.network import SimulatedNetwork
from crdtstore_sim.node import STORED, Node
from crdtstore_sim.observer import Observer
from crdtstore_sim.sale import Sale, Sold
from crdtstore_sim.scenario import Cut, Scenario, names
from crdtstore_sim.timeline import Streams, Timeline, Trace
from crdtstore_sim.workload import Workload

__all__ = ["Result", "Simulation", "run"]

_SECOND_US = 1_000_000
_LOOK_EVERY = 400
_MAX_VIOLATIONS = 20


class Result(NamedTuple):
    """What a run showed. Units: milliseconds and seconds are virtual, but for ``real_s``."""

    seed: int
    scenario: Scenario
    trace: str
    events: int
    virtual_s: float
    real_s: float
    writes: int
    reads: int
    acknowledged: int
    replayed: int
    refused: dict[str, int]
    commits: int
    crashes: int
    messages: int
    messages_lost: int
    bytes_moved: int
    windows_ms: tuple[float, float, float] | None
    """Divergence window of users' commits: p50, p99, max; None when there was none."""
    cut_ms: tuple[float, float] | None
    """Of a run with one whole cut: by the closed form, half its length, and the measured mean window of commits made inside it."""
    settled_s: float | None
    """From the end of users and faults until everybody had everything; None when that did not happen."""
    violations: list[Violation]
    storage: dict[str, int]
    """How often what happened to the stores of all nodes."""
    sold: list[Sold] | None = None
    """Of a sale: how both shops did."""
    happened: dict[str, int] | None = None
    """Where members change: how often what happened to them."""

    @property
    def is_ok(self) -> bool:
        return not self.violations


class Simulation:
    """One run. Mutable; used once."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.seed = seed
        streams = Streams(seed)
        self.timeline = timeline = Timeline()
        self.trace = Trace()
        count = scenario.replicas
        identities = streams.stream("identities")
        members = tuple(Member(make_replica_id(f"{name}-1", identities.getrandbits(64)), name) for name in names(count))
        cluster = Cluster("sim", identities.randbytes(16), members)
        self.facts = Facts([member.replica for member in members], lambda: timeline.now_us, names(count))
        self.observer = Observer(self.facts, streams.stream("looks"))
        self.network = SimulatedNetwork(timeline, streams.stream("network"), scenario.network, count, self._on_message)
        clocks, options = streams.stream("clocks"), scenario.clocks
        self.nodes = [
            Node(
                index,
                cluster,
                timeline,
                self.trace,
                streams.stream(f"node {name}"),
                NodeClock(
                    clocks.randint(-options.skew_ms, options.skew_ms) * 1000,
                    clocks.randint(-options.drift_ppm, options.drift_ppm),
                ),
                scenario.disk,
                scenario.engine,
                self.observer,
                self.network,
            )
            for index, name in enumerate(names(count))
        ]
        self.connections = Connections(
            timeline,
            streams.stream("connections"),
            self.network,
            list(self.nodes),
            int(scenario.network.detection_s * _SECOND_US),
            lambda kind, node, data: self.trace.note(timeline.now_us, kind, node, data),
        )
        self._end_us = int(scenario.seconds * _SECOND_US)
        users = timeline, self.trace, streams.stream("workload")
        self.sale = scenario.sale and Sale(*users, scenario.sale, self.nodes, self.observer, self._end_us)
        self.workload = self.sale or Workload(*users, scenario.work, self.nodes, self.observer, self._end_us)
        for node in self.nodes:
            node.workload = self.workload
        self.faults = Faults(timeline, self.trace, self.network, self.connections, self.nodes)
        self._looks = streams.stream("when to look")
        self._next_look = _LOOK_EVERY

    def _on_message(self, message: tuple[int, int, bytes]) -> None:
        self.nodes[message[1]].on_message(message)

    # --- the run

    def run(self) -> Result:
        """Let it all happen. Whatever a node raises is a violation too."""
        began = time.perf_counter()
        settled_s: float | None = None
        try:
            for node in self.nodes:
                node.start()
            self.connections.start()
            self.workload.start()
            self.faults.plan(self.scenario)
            self.timeline.run(self._end_us, self._is_over)
            if not self.facts.violations:
                settled_s = self._settle()
                self.observer.on_end(
                    [node.service.host.groups for node in self.nodes], is_settled=settled_s is not None
                )
                if settled_s is not None:
                    self._stabilise()
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)[-3:]
            where = " < ".join(
                f"{frame.name} ({frame.filename.rpartition('/')[2]}:{frame.lineno})" for frame in frames[::-1]
            )
            self.facts.report("errors", f"{type(error).__name__}: {error} in {where}")
        return self._result(time.perf_counter() - began, settled_s)

    def _is_over(self) -> bool:
        """After every event: look around now and then; stop after enough violations."""
        if self.timeline.events >= self._next_look:
            self._next_look = self.timeline.events + self._looks.randint(1, 2 * _LOOK_EVERY)
            node = self._looks.choice(self.nodes)
            if node.is_alive:
                self.observer.look_around(node.index, node.service.host, node.disk.state)
        return bool(self.facts.violations) and len(self.facts.violations) >= _MAX_VIOLATIONS

    def _settle(self) -> float | None:
        """Faults are over: let time pass until everybody is equal; the seconds that took, None when the bound was reached."""
        bound_us = self._end_us + int(self.scenario.settle_s * _SECOND_US)
        equal_us: int | None = None
        while self.timeline.now_us < bound_us:
            self.timeline.run(self.timeline.now_us + 20_000, self._is_over)
            if self.facts.violations:
                return None
            engines = [node.service.host.groups for node in self.nodes if node.is_alive]
            if len(engines) == len(self.nodes) and self.observer.progress.is_settled(engines):
                equal_us = equal_us if equal_us is not None else self.timeline.now_us
                if not self.workload.open_requests:
                    return (equal_us - self._end_us) / _SECOND_US
            else:
                equal_us = None
        groups = [node.service.host.groups for node in self.nodes]
        self.observer.progress.on_late(groups, self.workload.open_requests, self.scenario.settle_s)
        return None

    def _stabilise(self) -> None:
        """Everybody has everything: within the bound everybody must know that, or nothing would ever be folded or forgotten."""
        wanted = {name: list(engine.applied) for name, engine in self.nodes[0].service.host.groups.items()}
        bound_us = self.timeline.now_us + int(self.scenario.settle_s * _SECOND_US)
        while not self.observer.stability.has_reached(wanted) and not self.facts.violations:
            if self.timeline.now_us >= bound_us:
                self.observer.stability.on_late(wanted, self.scenario.settle_s)
                return
            self.timeline.run(self.timeline.now_us + 50_000, self._is_over)

    def _result(self, real_s: float, settled_s: float | None) -> Result:
        work, network, facts = self.workload, self.network, self.facts
        stores = [node.storage for node in self.nodes]
        return Result(
            seed=self.seed,
            scenario=self.scenario,
            trace=self.trace.hexdigest(),
            events=self.timeline.events,
            virtual_s=self.timeline.now_us / _SECOND_US,
            real_s=real_s,
            writes=work.writes,
            reads=work.reads,
            acknowledged=work.acknowledged,
            replayed=work.replayed,
            refused=dict(sorted(work.refused.items())),
            commits=sum(len(records) for group in facts.groups.values() for records in group.records),
            crashes=sum(node.life - 1 for node in self.nodes),
            messages=network.sent,
            messages_lost=network.lost,
            bytes_moved=network.bytes_sent,
            windows_ms=_percentiles([window_us for _, window_us in facts.windows_us]),
            cut_ms=_closed_form(self.scenario, facts.windows_us),
            settled_s=settled_s,
            violations=facts.violations,
            storage={what: sum(stored[what] for stored in stores) for what in STORED},
            sold=self.sale.result() if self.sale else None,
        )


def _percentiles(values_us: list[int]) -> tuple[float, float, float] | None:
    if not values_us:
        return None
    ordered = sorted(values_us)
    return tuple(ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1000 for share in (0.5, 0.99, 1))  # type: ignore[return-value]


def _closed_form(scenario: Scenario, windows_us: list[tuple[int, int]]) -> tuple[float, float] | None:
    """A commit made inside a cut waits for its end: on average half the length of the cut (ALGORITHMS 3), if users work
    evenly, which they do as long as nobody goes over to the side that lacks what he wrote and waits there."""
    if scenario.work.roam:
        return None
    match scenario.cuts:
        case [Cut(from_s=from_s, to_s=float(to_s), groups=groups)] if groups:
            inside = [window_us for made_us, window_us in windows_us if from_s <= made_us / _SECOND_US < to_s]
            if inside:
                return (to_s - from_s) * 500, sum(inside) / len(inside) / 1000
    return None


def run(scenario: Scenario, seed: int) -> Result:
    """Run a scenario with a seed. Nothing of a run is garbage before its end: it is collected in one go, when all of it is."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        big = scenario.sweep_above
        with (
            patch.object(Tree, "sweep_above", big or Tree.sweep_above),
            patch.object(Unsaved, "many", big or Unsaved.many),
        ):
            if scenario.members is None:
                return Simulation(scenario, seed).run()
            from crdtstore_sim.regroup.world import World  # noqa: PLC0415 - it gives results of this module

            return World(scenario, seed).run()
    finally:
        if was_enabled:
            gc.collect(1)
            gc.enable()
