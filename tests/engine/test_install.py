"""A replica that joins takes the state over: what it has then, what it never has, and what it can do with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from crdtstore.configuration import SYSTEM_GROUP
from crdtstore.install.installs import MOST_ARRIVALS
from crdtstore.install.lending import MOST_PINS
from crdtstore.install.parts import NOT_COPIED, SHARED
from crdtstore.storage.rows import (
    CONTESTED,
    ENDED_HOLDS,
    GIFTS,
    HOLDS,
    LEAVES,
    META,
    OPERATIONS,
    PLANS,
    split_path,
)
from tests.engine.install_runs import check_rows, checkpoint, joined, loaded, readings, write
from tests.engine.installing import AP, EU, GROUP, OPTIONS, SA, US, World, watch_l7


@pytest.fixture
def laws(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    broken = watch_l7(monkeypatch)
    yield broken
    assert not broken


@pytest.fixture
def world(laws: list[str]) -> World:
    return loaded(World())


def test_a_joiner_has_what_the_others_have(world: World) -> None:
    site = joined(world)
    world.run_until(lambda: world.are_equal(US, EU, AP))
    world.check_equal(US, EU, AP)
    assert readings(world, AP, 60) == readings(world, US, 60)
    assert world.read(AP, "names", "k1") == world.read(US, "names", "k1") == "name 1"
    checkpoint(world, site)
    check_rows(site)


def test_two_thousand_keys_under_writes_and_checkpoints(laws: list[str]) -> None:
    world = loaded(World(), 2_000)
    site, at = world.join(AP), 2_000
    while not site.is_installed:
        for who in (US, EU):
            write(world, who, at % 2_500)
            at += 1
        if at % 16 == 0:
            saving = world.site(US if at % 32 else EU).host.saving
            assert saving is not None
            saving.wanted()
        world.run(20)
        assert at < 20_000
    assert at > 2_040, "there were writes meanwhile"
    assert site.engine().checkpoint.rows > 2_000  # type: ignore[union-attr]
    write(world, AP, 3_000)
    world.run_until(lambda: world.are_equal(US, EU, AP))
    assert sum(site.engine().applied) > at
    world.check_equal(US, EU, AP)
    assert readings(world, AP, 2_500) == readings(world, US, 2_500) == readings(world, EU, 2_500)
    checkpoint(world, site)
    check_rows(site)


def test_what_is_its_own_the_sender_keeps(world: World) -> None:
    stock = {"collection": "stock", "key": "k4"}
    for who in (US, EU):
        world.ask(who, "commit", domain="d", ops=[{**stock, "op": "grant", "amount": 50}])
        world.ask(who, "commit", domain="d", ops=[{**stock, "op": "reserve", "amount": 2, "ttl_ms": 2_000}])
    us, eu = (world.site(who).engine() for who in (US, EU))
    to = {"to": "eu", "amount": 5}
    world.ask(US, "commit", domain="d", ops=[{**stock, "op": "transfer", **to}])
    world.ask(EU, "commit", domain="d", ops=[{**stock, "op": "transfer", "to": "us", "amount": 5}])
    assert us.rights.holds.open == eu.rights.holds.open == 1
    for who in (US, EU):
        checkpoint(world, world.site(who))
        spaces = {split_path(path)[1] for path, _ in world.site(who).state.rows(b"", b"\xff")}
        assert {HOLDS, GIFTS} <= spaces
    site = joined(world)
    assert site.engine().rights.holds.open == 0
    assert not site.engine().rights._given
    assert not {split_path(path)[1] for path, _ in site.state.rows(b"", b"\xff")} & {HOLDS, ENDED_HOLDS, GIFTS}
    assert us.rights.holds.open == 1
    world.run_until(lambda: us.rights.holds.open == eu.rights.holds.open == 0)
    world.run_until(lambda: world.are_equal(US, EU, AP))
    world.check_equal(US, EU, AP)
    assert site.engine().applied[site.engine().me] == 0, "it ended no hold of others"


def test_every_kind_of_row_is_either_shared_or_own() -> None:
    kinds = (META, LEAVES, OPERATIONS, PLANS, CONTESTED, HOLDS, ENDED_HOLDS, GIFTS)
    assert sorted((*SHARED, *NOT_COPIED)) == sorted(kinds) == list(range(len(kinds)))
    assert list(SHARED) == list(range(SHARED[0], SHARED[-1] + 1)), "they are one range of rows"


def test_a_repeated_operation_is_known_at_the_joiner(world: World) -> None:
    ops = [{"collection": "amounts", "key": "k0", "op": "add", "amount": 7}]
    before = world.ask(US, "commit", domain="d", ops=ops, id="once")
    joined(world)
    world.run_until(lambda: world.are_equal(US, EU, AP))
    again = world.ask(AP, "commit", domain="d", ops=ops, id="once")
    assert again["replayed"]
    assert again["values"] == before["values"]


def test_it_stamps_above_what_the_others_may_have_promised(world: World) -> None:
    last = world.site(US).engine().clock.last
    site = joined(world)
    world.run(100)
    assert site.engine().clock.last >= last
    write(world, AP, 7)
    world.run_until(lambda: world.are_equal(US, EU, AP))
    world.check_equal(US, EU, AP)


def test_several_joiners_share_a_checkpoint(world: World) -> None:
    sites = [world.join(AP), world.join(SA)]
    world.run_until(lambda: world.is_named(AP) and world.is_named(SA))
    before = sum(world.site(who).host.saving.checkpoints for who in (US, EU))  # type: ignore[union-attr]
    world.run_until(lambda: all(site.is_installed for site in sites))
    after = sum(world.site(who).host.saving.checkpoints for who in (US, EU))  # type: ignore[union-attr]
    assert after - before <= 4
    world.run_until(lambda: world.are_equal(US, EU, AP, SA))
    world.check_equal(US, EU, AP, SA)
    for site in sites:
        checkpoint(world, site)
        check_rows(site)


def test_a_joiner_may_be_the_sender_of_the_next(world: World) -> None:
    joined(world)
    world.run_until(lambda: world.are_equal(US, EU, AP))
    world.join(SA)
    world.run_until(lambda: world.is_named(SA))
    for who in (US, EU):
        world.part(who, SA)
    world.run_until(lambda: world.site(SA).is_installed)
    for who in (US, EU):
        world.heal(who, SA)
    write(world, SA, 3)
    world.run_until(lambda: world.are_equal(US, EU, AP, SA))
    world.check_equal(US, EU, AP, SA)


def test_no_snapshot_is_held_for_longer_than_it_is_asked_for(world: World) -> None:
    site = joined(world)
    world.run(1_000)
    lenders = [world.site(who).host.installs.lending for who in (US, EU)]  # type: ignore[union-attr]
    assert [len(lending) for lending in lenders] == [0, 0]
    assert not any(world.site(who).state._pins for who in (US, EU))
    assert site.host.installs is not None
    assert not site.host.installs.arrivals
    assert MOST_PINS >= 2


def test_who_stopped_asking_is_forgotten(world: World) -> None:
    site = world.join(AP)
    lendings = [world.site(who).host.installs.lending for who in (US, EU)]  # type: ignore[union-attr]
    world.run_until(lambda: any(GROUP in at for lending in lendings for at in lending._loans))
    site.crash()
    world.run(59_000, step_ms=50)
    assert sum(map(len, lendings)) >= 1
    world.run(2_000, step_ms=50)
    assert sum(map(len, lendings)) == 0
    assert not any(world.site(who).state._pins for who in (US, EU))
    site.start()
    world.run_until(lambda: site.is_installed)
    world.run_until(lambda: world.are_equal(US, EU, AP))
    world.check_equal(US, EU, AP)


@pytest.mark.parametrize("rate", [2_000, 20_000])
def test_the_rate_holds(laws: list[str], rate: int) -> None:
    world = loaded(World(options=OPTIONS.__class__(**{**_fields(), "install_bytes_per_s": rate})), 300)
    site = world.join(AP)
    world.run_until(lambda: bool(world.parts) and world.parts[-1].number == 0)
    start_ms = world.now_ms
    world.run_until(lambda: site.is_installed, 300_000)
    size = sum(len(part.body) for part in world.parts)
    took_ms = world.now_ms - start_ms
    assert took_ms >= size * 1_000 / rate - 1_000
    assert took_ms <= size * 1_000 / rate + 2_000, "and no part is sent twice for it"


def _fields() -> dict[str, object]:
    return {name: getattr(OPTIONS, name) for name in OPTIONS.__struct_fields__}


def test_the_system_group_comes_first_or_last_and_all_domains_are_open(world: World) -> None:
    world.ask(US, "declare_domain", domain="e")
    site = joined(world)
    world.run_until(lambda: "e/0" in site.host.groups and site.engine("e/0").takes_part)
    assert site.engine(SYSTEM_GROUP).is_installed
    assert {group for group, engine in site.host.groups.items() if engine.is_installed} == {SYSTEM_GROUP, GROUP, "e/0"}


def test_many_groups_take_turns(laws: list[str]) -> None:
    world = loaded(World())
    names = [f"d{at:02}" for at in range(20)]
    for name in names:
        world.ask(US, "declare_domain", domain=name)
    before = world.site(US).host.saving.checkpoints  # type: ignore[union-attr]
    site = world.join(AP)
    world.run_until(lambda: all(f"{name}/0" in site.host.groups for name in (*names, "d")))
    installs = site.host.installs
    assert installs is not None
    most = 0
    while not all(engine.is_installed for engine in site.host.groups.values()):
        world.run(5)
        most = max(most, sum(arrival.is_fetching for arrival in installs.arrivals.values()))
        assert all(len(world.site(who).state._pins) <= MOST_PINS for who in (US, EU))
    assert most == MOST_ARRIVALS
    assert world.site(US).host.saving.checkpoints - before < 30  # type: ignore[union-attr]
    checkpoint(world, site)
    check_rows(site)
