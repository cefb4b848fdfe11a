"""The simulator: events per second with all checkers on, on all cores as ``crdtstore sim fuzz`` uses them, and in one process."""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.figures import Figure, repeat
from crdtstore_sim.fuzz import fuzz as fuzz_seeds
from crdtstore_sim.scenario import load
from crdtstore_sim.simulation import run

__all__ = ["figures"]

SCENARIO = Path(__file__).with_name("simulator.toml")
SEEDS = range(100)


def _fuzz(jobs: int) -> float:
    start = time.perf_counter()
    results = list(fuzz_seeds(SEEDS, None, None, jobs))
    seconds = time.perf_counter() - start
    assert all(result.is_ok for result in results)
    return sum(result.events for result in results) / seconds


def figures(runs: int) -> list[Figure]:
    """Seeds of the swarm on all cores; five replicas with 100 writes/s in total in one process."""
    jobs = os.cpu_count() or 1
    fuzzed = repeat(runs, lambda: _fuzz(jobs))
    scenario = load(str(SCENARIO))
    rates, factors = [], []
    for seed in range(runs):
        start = time.process_time()
        result = run(scenario, seed)
        seconds = time.process_time() - start
        assert result.is_ok, result.violations
        rates.append(result.events / seconds)
        factors.append(result.virtual_s / seconds)
    return [
        Figure(f"simulator with all checkers, {len(SEEDS)} seeds on {jobs} cores, events", "1/s", fuzzed, 60_000),
        Figure("simulator with all checkers, 5 replicas, one process, events", "1/CPU-s", rates),
        Figure("simulator, 5 replicas, 100 writes/s in total, times real time", "x", factors),
    ]
