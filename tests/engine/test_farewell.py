"""Who leaves takes no rights of bounded counters with it, and nothing that was put aside."""

from __future__ import annotations

from typing import Any

import pytest

from crdtstore.admin.view import says_it_leaves
from crdtstore.engine import farewell
from crdtstore.engine.events import Tick
from crdtstore.errors import CrdtStoreError, InsufficientRights
from crdtstore.types.bounded_counter import account
from tests.engine.test_membership import Regrouping

KEYS = [f"k{at}" for at in range(25)]


@pytest.fixture(autouse=True)
def slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farewell, "_SLICE", 4)
    monkeypatch.setattr(farewell, "_LOOKS", 7)


def stock() -> Regrouping:
    world = Regrouping("us", "eu", "ap", has_stores=True)
    world.ask("us", "declare", domain="shop", collection="stock", type="bounded_counter")
    world.run(500)
    for key in KEYS:
        do(world, "eu", "grant", key, amount=10)
    do(world, "eu", "reserve", "k3", amount=4, hold="h", ttl_ms=3_600_000)
    world.run(1_000)
    return world


def do(world: Regrouping, name: str, op: str, key: str, **fields: Any) -> Any:
    return world.write(name, op, collection="stock", key=key, op_fields=fields)


def rights(world: Regrouping, name: str) -> list[int]:
    """Of each key, without time going by."""
    engine = world.sites[name].host.groups["shop/0"]
    accounts = [account(engine.keyspace.view("stock:bounded_counter", key)) for key in KEYS]
    return [each.rights.get(world.replica(name), 0) for each in accounts]


@pytest.mark.parametrize("dies", [False, True])
def test_all_rights_go_to_who_stays(dies: bool) -> None:
    world = stock()
    if dies:  # what is given away is on disk only, then
        world.sites["eu"].end(is_orderly=True)
        world.sites["eu"].start()
        world.run(500)
    world.sites["eu"].step(Tick())
    world.sites["eu"].act(lambda out: world.sites["eu"].host.leave(world.time_ms, out))
    if dies:
        for _ in range(50):
            world.run(20)
            if any(rights(world, "us")):
                break
        assert 0 < sum(rights(world, "us")) < 10 * len(KEYS), "in the middle of it"
        world.sites["eu"].end(is_orderly=False)
        world.run(1_000)
        assert "eu" in world.members("us"), "it has not said that no commit follows"
        world.sites["eu"].start()
    world.run(5_000)
    assert world.members("us") == world.members("us", "shop/0") == ["us", "ap"]
    assert rights(world, "us") == [10] * len(KEYS)
    assert not isinstance(do(world, "us", "consume", "k3", amount=10), CrdtStoreError)
    assert isinstance(do(world, "us", "consume", "k3", amount=1), InsufficientRights)


def test_who_hears_nobody_waits_with_what_it_has() -> None:
    world = stock()
    world.cut(("eu", "us"), ("eu", "ap"))
    eu = world.sites["eu"].host
    eu.groups["shop/0"].rows.newest[:] = [None] * 3
    world.sites["eu"].act(lambda out: eu.leave(world.time_ms, out))
    world.run(1_000)
    assert not eu.groups["shop/0"].membership.has_left
    world.cut()
    world.run(5_000)
    assert rights(world, "us") == [10] * len(KEYS)
    assert world.members("us", "shop/0") == ["us", "ap"]


def test_what_is_given_while_it_leaves_is_given_on() -> None:
    world = stock()
    do(world, "ap", "grant", "k1", amount=5)
    eu = world.sites["eu"].host
    world.sites["eu"].act(lambda out: eu.leave(world.time_ms, out))
    while not rights(world, "us")[1]:
        world.run(20)
    do(world, "ap", "transfer", "k1", amount=5, to="eu")
    world.run(5_000)
    assert world.members("us", "shop/0") == ["us", "ap"]
    assert sum(rights(world, name)[1] for name in ("us", "ap")) == 15


def test_the_last_one_that_stays_does_not_leave() -> None:
    world = Regrouping("us", "eu", has_stores=True)
    assert world.ask("eu", "member_leave")["state"] == "leaving"
    while not says_it_leaves(world.sites["us"].host, world.replica("eu")):
        world.sites["us"].step(Tick())
        world.run(20)
    assert "all other members leave already" in world.ask("us", "member_leave").detail
    world.run(3_000)
    assert world.members("us") == ["us"]
    assert "the only member" in world.ask("us", "member_leave").detail
    assert not isinstance(world.write("us", "add"), CrdtStoreError)
