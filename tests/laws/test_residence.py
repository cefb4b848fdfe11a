"""A store changes nothing that anybody reads: every history with checkpoints, restarts and keys let go, beside the same without."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdtstore.kernel import Tree
from crdtstore.testing.laws import members
from crdtstore.types import REGISTRY
from crdtstore.unsaved import Unsaved
from tests.laws.kept import Mirrored, Twins
from tests.laws.test_laws import NAMES, upkeep

TYPES = sorted(REGISTRY)
FEW = settings(max_examples=max(8, settings().max_examples // 5))
FOREIGN = max(3, settings().max_examples // 20)
SEEDS = st.integers(0, 1 << 30)


@pytest.mark.parametrize("name", TYPES)
@FEW
@given(data=st.data(), seed=SEEDS)
def test_with_a_store_everything_reads_the_same(name: str, data: st.DataObject, seed: int) -> None:
    twins = Twins(REGISTRY[name], members(NAMES), Random(seed), id_window_ms=3)
    twins.run(data.draw(upkeep(REGISTRY[name])))
    twins.settle()


@pytest.mark.parametrize("name", TYPES)
@FEW
@given(data=st.data(), seed=SEEDS)
def test_drops_in_slices_are_the_same_with_a_store(name: str, data: st.DataObject, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tree, "sweep_above", 1)
        patch.setattr(Unsaved, "many", 1 + seed % 3)
        twins = Twins(REGISTRY[name], members(NAMES), Random(seed), is_watched=False)
        twins.run(data.draw(upkeep(REGISTRY[name])))
        twins.delete_everything()


@pytest.mark.parametrize("sweep_above", [2, 1 << 30])
@pytest.mark.parametrize("name", TYPES)
def test_what_a_type_does_not_know_is_kept_too(name: str, sweep_above: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tree, "sweep_above", sweep_above)
    for seed in range(FOREIGN):
        world = Mirrored(name, Random(seed))
        world.run_random(30)
        world.finish()
