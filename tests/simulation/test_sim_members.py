"""Changing members under the simulator: machines lose disks, are copied, join and are thrown out, and every law holds at every step."""

from __future__ import annotations

import os
from collections import Counter
from typing import get_args

import pytest

from crdtstore_sim.fuzz import fuzz, run_seed
from crdtstore_sim.regroup.draw import draw_members
from crdtstore_sim.report import again, line
from crdtstore_sim.scenario import Trouble

IS_SOAK = os.environ.get("CRDTSTORE_SOAK", "") not in ("", "0")
SEEDS, AT_ONCE = (2_000, 50) if IS_SOAK else (200, 10)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_seeds_with_changing_members_hold_every_law(first: int) -> None:
    failed = [
        line(result)
        for result in fuzz(range(first, first + AT_ONCE), None, None, 1, faults="members")
        if not result.is_ok
    ]
    assert not failed, "\n".join(failed)


FAILED_ONCE = [
    (2, "a copy that was started under the same id wrote on"),
    (28, "a joiner cut its log beyond what its store said"),
    (45, "a removed node took a token for satisfied that named more than it had"),
    (46, "a joiner forgot the configuration that named it, and did not start any more"),
    (189, "a fenced copy went on to say what it had, under the id of the original"),
    (287, "a fenced replica decided alone"),
    (523, "a node that had forgotten a whole group did not listen for what others knew of it there"),
    (293, "a commit that was not durable yet at a peer did not fence the one that had forgotten it"),
]


@pytest.mark.parametrize(("seed", "why"), FAILED_ONCE, ids=[str(seed) for seed, _ in FAILED_ONCE])
def test_seeds_that_failed_once_hold_every_law(seed: int, why: str) -> None:
    result = run_seed(seed, faults="members")
    assert result.is_ok, f"{why}: {line(result)}"


def test_everything_that_happens_to_members_happens() -> None:
    drawn = [draw_members(seed) for seed in range(60)]
    kinds = {kind for scenario in drawn if scenario.members is not None for kind in scenario.members.kinds}
    assert kinds == set(get_args(Trouble))
    happened = Counter[str]()
    for result in fuzz(range(12), None, None, 1, faults="members"):
        happened.update(result.happened or {})
    for what in (
        "went back",
        "fenced",
        "evict",
        "leave",
        "join",
        "forced",
        "died between two messages",
        "orphans shown",
    ):
        assert happened[what] > 0, f"{what} never happened: {happened}"
    assert happened["lost"] < 4, "most runs end with somebody who holds the state"


def test_a_run_repeats_and_says_how() -> None:
    first, second = (run_seed(7, faults="members") for _ in range(2))
    assert first.trace == second.trace
    assert first.events == second.events
    assert again(first, None) == "crdtstore sim run --seed 7 --faults members"
