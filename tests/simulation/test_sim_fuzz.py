"""The production code under the simulator: seeds of the swarm and the scenarios that come along, every law at every step."""

from __future__ import annotations

from pathlib import Path

import pytest

from crdtstore.types import REGISTRY
from crdtstore_sim.fuzz import fuzz, run_seed
from crdtstore_sim.mixes import collections
from crdtstore_sim.node import STORED
from crdtstore_sim.report import line
from crdtstore_sim.scenario import DIRECTORY
from crdtstore_sim.swarm import draw


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 30, 5))
def test_seeds_of_the_swarm_hold_every_law(first: int) -> None:
    failed = [line(result) for result in fuzz(range(first, first + 5), None, None, 1) if not result.is_ok]
    assert not failed, "\n".join(failed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 30, 5))
def test_seeds_of_all_types_hold_every_law(first: int) -> None:
    failed = [line(result) for result in fuzz(range(first, first + 5), None, None, 1, "all-types") if not result.is_ok]
    assert not failed, "\n".join(failed)


FAILED_ONCE = [
    (8, "basic", "a group could not be opened, since its rows could not be read"),
    (14, "all-types", "a commit was refused after it was applied, since its key could not be read again"),
    (85, "basic", "a clock was set back an hour between two attempts"),
    (312, "all-types", "a checkpoint was withdrawn, and what it had written stayed in the transaction"),
    (222, "all-types", "folding took an empty list of amounts, which was not noted: a byte"),
    (273, "basic", "commits that wait for others were not tried again after a key could not be read"),
]


def test_seeds_that_failed_once_hold_every_law_and_reach_all_that_happens_to_stores() -> None:
    results = [run_seed(seed, mix=mix) for seed, mix, _ in FAILED_ONCE]
    assert [line(result) for result in results if not result.is_ok] == []
    reached = {what: sum(result.storage[what] for result in results) for what in STORED}
    assert all(reached.values()), reached


def test_all_types_work_with_faults_deadlines_and_slices() -> None:
    drawn = [draw(seed, "all-types") for seed in range(40)]
    assert {one.type_name for one in collections("all-types", [])} == set(REGISTRY)
    assert any(made.cuts for made in drawn)
    assert any(made.crashes for made in drawn)
    assert any(made.work.expire for made in drawn)
    assert any(made.sweep_above == 3 for made in drawn)
    assert all(made.work.mix == "basic" for made in map(draw, range(40)))


def test_stock_with_a_bound_is_never_oversold_and_a_counter_is() -> None:
    result = run_seed(3, "oversell")
    assert result.is_ok, line(result)
    assert result.sold is not None
    bounded, plain = result.sold
    assert (bounded.type_name, bounded.oversold) == ("bounded_counter", 0)
    assert bounded.sold + bounded.left <= bounded.stock
    assert (plain.type_name, plain.oversold) == ("counter", plain.sold - plain.stock)
    assert plain.oversold > 0


@pytest.mark.parametrize("name", sorted(path.stem for path in Path(DIRECTORY).glob("*.toml")))
def test_a_scenario_holds_every_law(name: str) -> None:
    result = run_seed(1, name)
    assert result.is_ok, line(result)
    assert result.acknowledged > 50
    assert result.settled_s is not None
    assert result.windows_ms is not None


def test_a_cut_is_seen_in_the_divergence_windows_and_a_crash_in_the_restarts() -> None:
    whole, cut = run_seed(2, "crash-restart"), run_seed(2, "split-1-2")
    assert whole.crashes == 4
    assert cut.windows_ms is not None
    assert 7_000 < cut.windows_ms[2] < 9_000
    assert cut.windows_ms[0] < 100


def test_a_cut_adds_half_its_length_to_the_mean_window_of_the_commits_inside_it() -> None:
    expected, measured = zip(*(run_seed(seed, "split-2-2").cut_ms or (0, 0) for seed in range(4)), strict=True)
    assert set(expected) == {4000}
    assert sum(measured) / 4 == pytest.approx(4000, rel=0.07)


def test_two_processes_give_the_same_results_in_the_same_order() -> None:
    alone = [result.trace for result in fuzz(range(4), None, None, 1)]
    together = [result.trace for result in fuzz(range(4), None, None, 2)]
    assert alone == together
