"""Several shards, and two numbers of them, under faults: every law holds, and what does not serve is told."""

from __future__ import annotations

import pytest

from crdtstore_sim.fuzz import run_seed
from crdtstore_sim.report import line
from crdtstore_sim.swarm import draw


def test_the_swarm_reaches_shards_and_numbers_that_clash() -> None:
    drawn = [draw(seed).work for seed in range(60)]
    assert {work.shards for work in drawn} == {1, 2, 3, 5}
    assert any(work.other_shards not in (0, work.shards) for work in drawn)
    assert sum(work.shards == 1 for work in drawn) > 30, "most have one, as most users will"


@pytest.mark.parametrize("seed", [1, 2])
def test_two_numbers_that_were_declared_apart(seed: int) -> None:
    result = run_seed(seed, "shards-apart")
    assert result.is_ok, line(result)


@pytest.mark.parametrize("seed", [1, 19, 29])
def test_the_number_that_a_map_would_read_is_noticed(seed: int) -> None:
    result = run_seed(seed, None, "latest-number-serves")
    assert {violation.checker for violation in result.violations} >= {"shards"}, line(result)


@pytest.mark.slow
@pytest.mark.parametrize("mix", ["basic", "all-types"])
def test_seeds_with_shards_hold_every_law(mix: str) -> None:
    seeds = [seed for seed in range(200) if draw(seed).work.shards > 1][:15]
    failed = [line(result) for seed in seeds if not (result := run_seed(seed, mix=mix)).is_ok]
    assert not failed, "\n".join(failed)
