"""The simulator: events per second with all checkers on, and how many times faster than real time."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.figures import Figure
from crdtstore_sim.scenario import load
from crdtstore_sim.simulation import run

__all__ = ["figures"]

SCENARIO = Path(__file__).with_name("simulator.toml")


def figures(runs: int) -> list[Figure]:
    """Events per CPU-second and virtual seconds per second, five replicas, 100 writes/s in total."""
    scenario = load(str(SCENARIO))
    rates, factors = [], []
    events = 0
    for seed in range(runs):
        start = time.process_time()
        result = run(scenario, seed)
        seconds = time.process_time() - start
        assert result.is_ok, result.violations
        events = result.events
        rates.append(result.events / seconds)
        factors.append(result.virtual_s / seconds)
    return [
        Figure("simulator with all checkers, events", "1/CPU-s", rates, 60_000, notes={"events of the last run": events}),
        Figure("simulator, 5 replicas, 100 writes/s, times real time", "x", factors),
    ]
