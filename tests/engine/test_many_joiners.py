"""Many ask to be let in at once, and perhaps never come to hold anything: those who do hold everything must be able to decide."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from crdtstore.configuration import SYSTEM_GROUP
from crdtstore.engine.engine import Engine
from crdtstore.errors import CrdtStoreError
from tests.engine.test_membership import Regrouping

GROUPS = SYSTEM_GROUP, "shop/0"


class Stalled(Regrouping):
    """The only founder lends snapshots of these groups only."""

    def __init__(self) -> None:
        super().__init__("us", has_stores=True)
        self.lent: Collection[str] = ()
        installs = self.sites["us"].host.installs
        assert installs is not None
        lend = installs.lending.on_fetch

        def on_fetch(engine: Engine, *rest: Any) -> None:
            if engine.group in self.lent:
                lend(engine, *rest)

        installs.lending.on_fetch = on_fetch  # type: ignore[method-assign,assignment]


def test_of_joiners_that_hold_nothing_only_so_many_are_let_in_that_they_can_be_evicted() -> None:
    world = Stalled()
    for name in ("eu", "ap", "sa"):
        world.join(name, name)
    world.run(4_000)
    assert len(world.members("us")) == 2
    (first,) = set(world.members("us")) - {"us"}
    world.sites[first].end(is_orderly=False)
    answers = world.evict("us", first)
    world.run(2_000)
    assert answers == [None]
    world.lent = GROUPS
    world.run(20_000)
    rest = sorted({"us", "eu", "ap", "sa"} - {first})
    for group in GROUPS:
        assert sorted(world.members("us", group)) == rest
        assert all(world.sites[name].host.groups[group].takes_part for name in rest)
    assert not any(isinstance(world.write(name, "add"), CrdtStoreError) for name in rest)


def test_a_group_takes_no_more_joiners_than_it_could_evict() -> None:
    world = Stalled()
    world.lent = [SYSTEM_GROUP]
    for name in ("eu", "ap"):
        world.join(name, name)
    world.run(10_000)
    assert len(world.members("us")) == 3
    assert len(world.members("us", "shop/0")) == 2
    (first,) = set(world.members("us", "shop/0")) - {"us"}
    answers = world.evict("us", first)
    world.run(10_000)
    assert answers == [None]
    (second,) = {"eu", "ap"} - {first}
    assert world.members("us", "shop/0") == ["us", second]
    world.lent = GROUPS
    world.run(5_000)
    assert world.sites[second].host.groups["shop/0"].takes_part


def test_who_was_a_member_before_counts_though_it_was_not_heard() -> None:
    world = Regrouping("us", "eu", "ap", has_stores=True)
    world.sites["us"].end(is_orderly=False)
    world.sites["eu"].end(is_orderly=False)
    world.run(500)
    world.sites["eu"].start()  # it has heard nobody but ap in this life; us is older, so it held everything
    world.run(500)
    world.join("sa", "sa")
    world.run(8_000)
    assert "sa" in world.members("eu")
