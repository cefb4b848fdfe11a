"""The laws over the registry: a type that joins it is tested by joining."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdtstore.kernel import Tree
from crdtstore.testing.laws import BASE_MS, Bare, World, check_explained, check_same, members
from crdtstore.testing.strategies import Deliver, Step, Write, histories
from crdtstore.types import REGISTRY, CrdtType
from tests.laws.models import MODELS, Oracle

TYPES = sorted(REGISTRY)
DELETABLE = [name for name in TYPES if REGISTRY[name].deletable]
NAMES = ("us", "eu", "ap")
KEYS = ("a", "b", "never")
FEWER = settings(max_examples=settings().max_examples // 3)
"""For laws that run a history several times, and say little that the others do not."""


def run(crdt: CrdtType, steps: list[Step], names: tuple[str, ...] = NAMES, **how: Any) -> World:
    """A history to its end, every law checked on the way, every reading against the model."""
    world, oracle = World(crdt, members(names), **how), Oracle(crdt.name)
    for step in steps:
        world.step(step)
        check_told(world, oracle, world.replicas[step.replica % len(names)])
    world.settle()
    check_told(world, oracle, world.replicas[0])
    for key in KEYS:
        check_explained(crdt, world.replicas[0], key)
    return world


def upkeep(crdt: CrdtType, palette: tuple[str, ...] | None = None) -> st.SearchStrategy[list[Step]]:
    """Histories in which replicas also do what no reading shows."""
    return histories(crdt, has_operations=True, has_folds=True, max_steps=20, palette=palette)


def run_by_the_clock(crdt: CrdtType, steps: list[Step]) -> None:
    """A history by clocks that agree, so that what is written later is stamped later; read at instants before and after its end."""
    world, oracle = World(crdt, members(NAMES), has_true_clocks=True), Oracle(crdt.name)
    at_ms = 0
    for step in [*steps, *(Deliver(at, 0, 99) for at in range(len(NAMES)))]:
        at_ms += step.at_ms // 2 if isinstance(step, Write) else 0
        world.step(step._replace(at_ms=at_ms) if isinstance(step, Write) else step)
        replica = world.replicas[step.replica]
        check_told(world, oracle, replica, *range(BASE_MS + at_ms - 1, BASE_MS + at_ms + 6))


def run_in_slices(crdt: CrdtType, steps: list[Step]) -> None:
    """The same history with and without slices; replicas go on with them while others write, and nobody looks."""
    whole = World(crdt, members(NAMES))
    whole.run(steps)
    whole.settle()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tree, "sweep_above", 1)
        sliced = World(crdt, members(NAMES), is_watched=False)
        sliced.run(steps)
        sliced.settle()
    for key in KEYS:
        check_same(sliced.replicas[0].reading(crdt, key), whole.replicas[0].reading(crdt, key), key, is_exact=False)
    assert sliced.replicas[0].digest == whole.replicas[0].digest


def check_told(world: World, oracle: Oracle, replica: Bare, *instants: int) -> None:
    """What a replica reads is what the model says of the commits it has."""
    facts = world.known_to(replica)
    for key in KEYS:
        for now_ms in (None, *instants):
            found, told = replica.reading(world.crdt, key, now_ms), oracle.reading(facts, key, now_ms)
            check_same(found, told, f"{key} at {now_ms}", is_exact=not world.has_folded)
            assert found[2] <= told[2], f"{key} has {found[2]} conflicts, its model only {told[2]}"


def test_every_type_has_a_model() -> None:
    assert set(MODELS) == set(REGISTRY), "tests/laws/models.py has one model per type"


@pytest.mark.parametrize("name", TYPES)
@given(data=st.data())
def test_any_schedule_converges_to_what_the_model_says(name: str, data: st.DataObject) -> None:
    run(REGISTRY[name], data.draw(histories(REGISTRY[name])))


@pytest.mark.parametrize("name", TYPES)
@given(data=st.data())
def test_a_repeated_operation_counts_once(name: str, data: st.DataObject) -> None:
    run(REGISTRY[name], data.draw(histories(REGISTRY[name], has_operations=True)))


@pytest.mark.parametrize("name", TYPES)
@given(data=st.data())
def test_folding_and_forgetting_change_nothing(name: str, data: st.DataObject) -> None:
    """Each replica folds what it knows to be stable, whenever it likes, and forgets operations that nobody can attempt any more."""
    run(REGISTRY[name], data.draw(upkeep(REGISTRY[name])), id_window_ms=3)


@pytest.mark.parametrize("name", DELETABLE)
@given(data=st.data())
def test_what_has_expired_is_hidden_by_every_clock(name: str, data: st.DataObject) -> None:
    run_by_the_clock(REGISTRY[name], data.draw(histories(REGISTRY[name], has_folds=True)))


@pytest.mark.parametrize("name", DELETABLE)
@given(data=st.data())
def test_a_big_drop_carried_out_in_slices_changes_nothing(name: str, data: st.DataObject) -> None:
    run_in_slices(REGISTRY[name], data.draw(upkeep(REGISTRY[name])))


@pytest.mark.parametrize("name", TYPES)
@FEWER
@given(data=st.data())
def test_what_an_origin_computes_others_apply_to_the_same(name: str, data: st.DataObject) -> None:
    world = World(REGISTRY[name], members(NAMES))
    for step in data.draw(histories(REGISTRY[name], has_operations=True)):
        world.step(step)
        world.check_remote(world.replicas[step.replica])


@pytest.mark.parametrize("name", [name for name in TYPES if name != "bounded_counter"])  # it asks who holds what
@FEWER
@given(data=st.data())
def test_names_of_replicas_change_no_reading(name: str, data: st.DataObject) -> None:
    """Stamps are all different here, so nothing is decided by a name."""
    crdt = REGISTRY[name]
    steps = [
        step._replace(at_ms=10 * at + step.at_ms) if isinstance(step, Write) else step
        for at, step in enumerate(data.draw(histories(crdt, has_operations=True)))
    ]
    order = data.draw(st.permutations(NAMES))
    world, other = run(crdt, steps), run(crdt, steps, tuple(order))
    names = dict(zip(members(NAMES), members(order), strict=True))
    for key in KEYS:
        assert _renamed(world.replicas[0].reading(crdt, key), names) == other.replicas[0].reading(crdt, key)


def _renamed(value: Any, names: dict[Any, Any]) -> Any:
    """A reading with the dots in it as they are under other names."""
    if isinstance(value, dict):
        return {key: _renamed(item, names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_renamed(item, names) for item in value)
    replica, _, seq = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    return f"{names[replica]}:{seq}" if replica in names else value


@pytest.mark.parametrize("name", TYPES)
@FEWER
@given(data=st.data())
def test_an_idle_replica_changes_nothing(name: str, data: st.DataObject) -> None:
    crdt = REGISTRY[name]
    steps = data.draw(histories(crdt))
    world, beside = run(crdt, steps), World(crdt, members((*NAMES, "idle")))
    beside.run(steps)
    beside.settle()
    assert beside.replicas[3].digest == world.replicas[0].digest
    for key in KEYS:
        assert beside.replicas[3].reading(crdt, key) == world.replicas[0].reading(crdt, key)
