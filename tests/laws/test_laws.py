"""The laws over the registry: a type that joins it is tested by joining."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdtstore.testing.laws import Bare, World, members
from crdtstore.testing.strategies import Step, Write, histories
from crdtstore.types import REGISTRY, CrdtType
from tests.laws.models import MODELS, reading

TYPES = sorted(REGISTRY)
NAMES = ("us", "eu", "ap")
KEYS = ("a", "b", "never")


def run(crdt: CrdtType, steps: list[Step], names: tuple[str, ...] = NAMES) -> World:
    """A history to its end, every law checked on the way, every reading against the model."""
    world = World(crdt, members(names))
    for step in steps:
        world.step(step)
        replica = world.replicas[step.replica % len(names)]
        for key in KEYS:
            assert replica.reading(crdt, key) == told(crdt, world, replica, key), f"{key} is not what its model says"
    world.settle()
    for key in KEYS:
        assert world.replicas[0].reading(crdt, key) == told(crdt, world, world.replicas[0], key)
    return world


def told(crdt: CrdtType, world: World, replica: Bare, key: str) -> tuple[Any, bool, int]:
    return reading(crdt.name, world.known_to(replica), key)


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
def test_what_an_origin_computes_others_apply_to_the_same(name: str, data: st.DataObject) -> None:
    world = World(REGISTRY[name], members(NAMES))
    for step in data.draw(histories(REGISTRY[name], has_operations=True)):
        world.step(step)
        world.check_remote(world.replicas[step.replica])


@pytest.mark.parametrize("name", TYPES)
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
