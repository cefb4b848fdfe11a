"""A replica that joins takes the state over: what it has then, what it never has, and what may be lost, repeated or altered on the way."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.installing import AP, EU, GROUP, US, World, watch_l7

TYPES = {
    "amounts": "counter",
    "names": "lww_register",
    "tags": "aw_set",
    "notes": "text",
    "stock": "bounded_counter",
    "forms": "or_map",
}


def loaded(world: World, keys: int = 60) -> World:
    """A domain with some keys of each type, written at both founders."""
    world.run(500)
    world.ask(US, "declare_domain", domain="d")
    for name, kind in TYPES.items():
        world.ask(US, "declare", domain="d", collection=name, type=kind)
    world.run_until(lambda: GROUP in world.site(EU).host.groups)
    world.run(500)
    for at in range(keys):
        write(world, US if at % 2 else EU, at)
        if at % 20 == 0:
            world.run(20)
    world.run_until(lambda: world.are_equal(US, EU))
    return world


def write(world: World, who: Any, at: int) -> None:
    kind = list(TYPES)[at % 5]
    key = f"k{at % 997}"
    ops = {
        "amounts": {"op": "add", "amount": at},
        "names": {"op": "set", "value": f"name {at}"},
        "tags": {"op": "add", "element": f"tag {at}"},
        "notes": {"op": "insert", "index": 0, "text": f"note {at}"},
        "stock": {"op": "grant", "amount": 3},
    }
    world.tell(who, {"collection": kind, "key": key, **ops[kind]}, id=f"op {at} {world.now_ms}")


@pytest.fixture
def laws(monkeypatch: pytest.MonkeyPatch) -> Any:
    broken = watch_l7(monkeypatch)
    yield broken
    assert not broken


@pytest.fixture
def world(laws: list[str]) -> World:
    return loaded(World())


def joined(world: World, who: Any = AP, **how: Any) -> None:
    world.join(who)
    world.run_until(lambda: world.site(who).is_installed, **how)


def test_a_joiner_has_what_the_others_have(world: World) -> None:
    joined(world)
    world.run_until(lambda: world.are_equal(US, EU, AP))
    world.check_equal(US, EU, AP)
    assert world.read(AP, "names", "k1") == world.read(US, "names", "k1") == "name 1"

