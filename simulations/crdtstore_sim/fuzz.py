"""Many seeds, on several processes: fuzzing, and the proof that the checkers bite.

The question: what may run beside each other? Seeds, for they share nothing. Results come back in the order of seeds, so that two fuzzes of
the same seeds print the same.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import NamedTuple

from crdtstore_sim.plants import PLANTS, plant_of, planted
from crdtstore_sim.regroup.draw import draw_members
from crdtstore_sim.report import failed
from crdtstore_sim.scenario import Scenario, load
from crdtstore_sim.simulation import Result, run
from crdtstore_sim.swarm import draw

__all__ = ["FAULTS", "Found", "fuzz", "prove", "run_seed", "scenario_of"]


FAULTS = ("all", "members")
"""What goes wrong in the scenarios that seeds draw: everything that happens to members that stay, or the members change too."""


def scenario_of(
    seed: int, scenario: str | None = None, plant: str | None = None, mix: str | None = None, faults: str | None = None
) -> Scenario:
    """The scenario that is asked for, else the one in which a plant is looked for, else the one that the seed draws."""
    if scenario is not None:
        return load(scenario)
    if faults == "members":
        return draw_members(seed)
    return plant_of(plant).scenario(seed) if plant is not None and mix is None else draw(seed, mix or "basic")


def run_seed(
    seed: int, scenario: str | None = None, plant: str | None = None, mix: str | None = None, faults: str | None = None
) -> Result:
    """One run, with or without a plant; ``mix``: what users work on, ``faults``: what goes wrong."""
    chosen = scenario_of(seed, scenario, plant, mix, faults)
    with planted(plant):
        return run(chosen, seed)


def _context() -> BaseContext:
    """Forked, a process has all modules at once; that is safe as long as no thread runs beside this one."""
    threads = Path("/proc/self/task")
    is_alone = threads.is_dir() and len(list(threads.iterdir())) == 1
    return multiprocessing.get_context("fork" if is_alone else "spawn")


def fuzz(
    seeds: range, scenario: str | None, plant: str | None, jobs: int, mix: str | None = None, faults: str | None = None
) -> Iterator[Result]:
    """Runs of all seeds, in their order."""
    if jobs == 1 or len(seeds) == 1:
        for seed in seeds:
            yield run_seed(seed, scenario, plant, mix, faults)
        return
    with ProcessPoolExecutor(jobs, mp_context=_context()) as pool:
        futures = [pool.submit(run_seed, seed, scenario, plant, mix, faults) for seed in seeds]
        try:
            for future in futures:
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


class Found(NamedTuple):
    """What became of one plant."""

    plant: str
    seed: int | None
    """The first seed that found it; None when no seed did."""
    checkers: list[str]
    """In the order in which they noticed."""
    at_s: float
    clean: bool
    """Whether all seeds up to that one pass without the plant."""


def prove_one(plant: str, seeds: range) -> Found:
    """Look for a plant seed by seed, from its first one on; then run the same seeds without it."""
    first = plant_of(plant).first
    seeds = range(seeds.start + first, seeds.stop + first)
    for seed in seeds:
        result = run_seed(seed, None, plant)
        if not set(failed(result)) - {"errors"}:  # a node that raises is no proof that a checker bites
            continue
        scenario = plant_of(plant).scenario
        clean = all(run(scenario(before), before).is_ok for before in range(seeds.start, seed + 1))
        return Found(plant, seed, failed(result), result.violations[0].time_us / 1e6, clean)
    return Found(plant, None, [], 0.0, True)


def prove(seeds: range, jobs: int, names: list[str] | None = None) -> Iterator[Found]:
    """Look for every plant."""
    chosen = names or list(PLANTS)
    if jobs == 1:
        for name in chosen:
            yield prove_one(name, seeds)
        return
    with ProcessPoolExecutor(jobs, mp_context=_context()) as pool:
        yield from pool.map(prove_one, chosen, [seeds] * len(chosen))
